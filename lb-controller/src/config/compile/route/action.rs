//! What becomes of a route's requests: pools, redirects, answers of our own; and what is changed on the way to backends.

use std::collections::HashSet;
use std::path::Path;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use lb_policy::{PathTemplate, RoutePath, canonical_host};

use super::super::super::section::{Complaint, Section};
use super::super::super::tree::{Node, Value};
use super::super::super::{Action, FixedResponse, HeaderChanges, Mirror, Redirect, Rewrite, Split, TakenIn, values};
use super::super::path_in;
use super::{Known, headers};

/// Whatever is larger is a backend's to serve.
const MOST_BODY_BYTES: usize = 1024 * 1024;
const MOST_WEIGHT: u32 = 1_000_000;
const MOST_SHARES: usize = 64;
const MIRRORED_BODY_BYTES: usize = 64 * 1024;

const ACTIONS: [&str; 4] = ["pool", "split", "redirect", "respond"];

/// What happens to requests that go on to backends.
#[derive(Default)]
pub(super) struct Onward {
    pub(super) rewrite: Rewrite,
    pub(super) request_headers: HeaderChanges,
    pub(super) mirror: Option<Mirror>,
}

/// `path`: the route's, if it is one.
pub(super) fn compile(
    section: &Section<'_>,
    known: &Known<'_>,
    path: Option<&RoutePath>,
    files: &mut Vec<TakenIn>,
) -> Option<Action> {
    let given: Vec<&str> = ACTIONS.into_iter().filter(|name| section.has(name)).collect();
    if let [_, second, ..] = given.as_slice() {
        let help = "one of `pool`, `split`, `redirect` and `respond`";
        section.report_key(second, Complaint::new("a route does one thing", help));
    }
    // All are read, so that all that is wrong is told.
    let split = section.get("split").map(|node| split(node, known));
    let redirect = section.get("redirect").map(|node| redirect(node, known, path));
    let respond = section.get("respond").map(|node| respond(node, known, files));
    let pool = match given.as_slice() {
        [] | ["pool", ..] => section.required_value("pool", |text| pool(text, known)).map(Action::Pool),
        _ => None,
    };
    match given.as_slice() {
        [_, _, ..] => None,
        _ => pool
            .or(split.flatten().map(Action::Split))
            .or(redirect.flatten().map(Action::Redirect))
            .or(respond.flatten().map(Action::Respond)),
    }
}

pub(super) fn onward(
    section: &Section<'_>,
    known: &Known<'_>,
    path: Option<&RoutePath>,
    action: Option<&Action>,
) -> Onward {
    if !matches!(action, None | Some(Action::Pool(_) | Action::Split(_))) {
        for key in ["rewrite", "request_headers", "mirror", "backend_step_up", "max_requests"] {
            if section.has(key) {
                section.get(key);
                section.report_key(key, Complaint::from("this is for routes that lead to a pool"));
            }
        }
        return Onward::default();
    }
    Onward {
        rewrite: section.get("rewrite").map(|node| rewrite(node, known, path)).unwrap_or_default(),
        request_headers: headers::of_requests(section),
        mirror: section.get("mirror").and_then(|node| mirror(node, known)),
    }
}

fn pool(text: &str, known: &Known<'_>) -> Result<String, Complaint> {
    match known.pools.iter().find(|pool| pool.name == text) {
        Some(pool) => Ok(pool.name.clone()),
        None => Err(Complaint::unknown("pool", text, known.pools.iter().map(|pool| pool.name.as_str()))),
    }
}

fn split(node: &Node, known: &Known<'_>) -> Option<Split> {
    let Value::List(nodes) = &node.value else {
        let help = "write `split: [{pool: old, weight: 95}, {pool: new, weight: 5}]`";
        known.problems.report(&node.place, Complaint::new("a list of pools is meant here", help));
        return None;
    };
    if nodes.is_empty() || nodes.len() > MOST_SHARES {
        known.problems.report(&node.place, format!("1 to {MOST_SHARES} pools share a route"));
        return None;
    }
    let mut seen = HashSet::new();
    let share = |node: &Node| {
        let section = Section::open("a share", node, known.problems)?;
        let pool = section.required_value("pool", |text| {
            let pool = pool(text, known)?;
            if seen.insert(pool.clone()) { Ok(pool) } else { Err("another share is of this pool".into()) }
        });
        let weight = section.required_value("weight", values::number(0..=MOST_WEIGHT));
        section.finish();
        Some((pool?, weight?))
    };
    let shares: Vec<Option<(String, u32)>> = nodes.iter().map(share).collect();
    let shares: Vec<(String, u32)> = shares.into_iter().collect::<Option<_>>()?;
    if shares.iter().all(|(_, weight)| *weight == 0) {
        known.problems.report(&node.place, "no share has a weight, so no request could go anywhere");
        return None;
    }
    Some(Split { shares })
}

fn redirect(node: &Node, known: &Known<'_>, route_path: Option<&RoutePath>) -> Option<Redirect> {
    let section = Section::open("`redirect`", node, known.problems)?;
    let status = section.value("status", |text| match text {
        "301" | "302" | "303" | "307" | "308" => Ok(StatusCode::from_bytes(text.as_bytes()).unwrap_or_default()),
        _ => Err(Complaint::new(format!("{text} redirects nobody"), "301, 302, 303, 307 or 308")),
    });
    let to = section.required_value("to", |text| match route_path {
        Some(route_path) => target(text, route_path),
        // What is wrong with the route's own path is told already.
        None => Ok((None, None)),
    });
    let query = section.value("query", |text| match text {
        "keep" => Ok(true),
        "drop" => Ok(false),
        _ => Err(Complaint::unknown("setting", text, ["keep", "drop"])),
    });
    section.finish();
    let (origin, path) = to?;
    let status = status.unwrap_or(StatusCode::PERMANENT_REDIRECT);
    Some(Redirect { status, origin, path, keeps_query: query.unwrap_or(true) })
}

type Target = (Option<String>, Option<PathTemplate>);

/// `/path`, `https://host` or `https://host/path`. Nothing that a client sends gets into the host.
fn target(text: &str, route_path: &RoutePath) -> Result<Target, Complaint> {
    const HELP: &str = "write `/new/**`, `https://other.example` or `https://other.example/new/**`";
    if text.starts_with('/') {
        return Ok((None, Some(PathTemplate::parse(text, route_path)?)));
    }
    let scheme = ["https://", "http://"].into_iter().find(|scheme| text.starts_with(scheme));
    let scheme = scheme.ok_or_else(|| Complaint::new("this leads nowhere", HELP))?;
    let rest = &text[scheme.len()..];
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let authority = authority_of(authority, HELP)?;
    let path = if path.is_empty() { None } else { Some(PathTemplate::parse(path, route_path)?) };
    Ok((Some(format!("{scheme}{authority}")), path))
}

fn authority_of(text: &str, help: &str) -> Result<String, Complaint> {
    let host = canonical_host(text).map_err(|error| Complaint::new(format!("`{text}` is no host: {error}"), help))?;
    let after_brackets = text.rfind(']').map_or(0, |at| at + 1);
    let port = text[after_brackets..].rfind(':').map_or("", |colon| &text[after_brackets + colon..]);
    Ok(format!("{host}{port}"))
}

fn respond(node: &Node, known: &Known<'_>, files: &mut Vec<TakenIn>) -> Option<FixedResponse> {
    let section = Section::open("`respond`", node, known.problems)?;
    let status = section.value("status", |text| {
        let status = StatusCode::from_bytes(text.as_bytes()).ok().filter(|status| status.as_u16() >= 200);
        status.ok_or_else(|| Complaint::new(format!("`{text}` is no status of an answer"), "200 to 599"))
    });
    let body = section.value("body", |text| Ok(Bytes::from(text.to_owned())));
    let mut type_of_file = None;
    let file = section.value("file", |text| {
        let file = path_in(known.folder, text)?;
        files.push(TakenIn::now(&file));
        type_of_file = Some(content_type_of(&file));
        read(&file)
    });
    let content_type = section.value("content_type", |text| {
        let is_type = text.split_once('/').is_some_and(|(kind, rest)| !kind.is_empty() && !rest.is_empty());
        let value = HeaderValue::from_str(text).ok().filter(|_| is_type);
        value.ok_or_else(|| Complaint::new(format!("`{text}` is no media type"), "such as `text/html; charset=utf-8`"))
    });
    if body.is_some() && section.has("file") {
        section.report_key("file", Complaint::from("the body is either given here or in a file"));
    }
    let status = status.unwrap_or(StatusCode::OK);
    let has_body = section.has("body") || section.has("file");
    if has_body && (status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED) {
        section.report_key("status", Complaint::from(format!("an answer of {} has no body", status.as_u16())));
    }
    section.finish();
    let plain = || HeaderValue::from_static("text/plain; charset=utf-8");
    let by_default = || type_of_file.map(HeaderValue::from_static).or_else(|| has_body.then(plain));
    Some(FixedResponse {
        status,
        content_type: content_type.or_else(by_default),
        body: body.or(file).unwrap_or_default(),
    })
}

fn read(file: &Path) -> Result<Bytes, Complaint> {
    let unreadable = |error: std::io::Error| format!("{} cannot be read: {error}", file.display());
    let bytes = std::fs::metadata(file).map_err(unreadable)?.len();
    if bytes > MOST_BODY_BYTES as u64 {
        let help = "let a backend serve larger files";
        let message = format!("{} has {bytes} bytes; at most {MOST_BODY_BYTES} are kept in memory", file.display());
        return Err(Complaint::new(message, help));
    }
    Ok(std::fs::read(file).map_err(unreadable)?.into())
}

fn content_type_of(file: &Path) -> &'static str {
    match file.extension().and_then(|extension| extension.to_str()).unwrap_or_default() {
        "html" | "htm" => "text/html; charset=utf-8",
        "txt" => "text/plain; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "xml" => "application/xml",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        _ => "application/octet-stream",
    }
}

fn rewrite(node: &Node, known: &Known<'_>, route_path: Option<&RoutePath>) -> Rewrite {
    let Some(section) = Section::open("`rewrite`", node, known.problems) else { return Rewrite::default() };
    let path = section.value("path", |text| match route_path {
        Some(route_path) => Ok(Some(PathTemplate::parse(text, route_path)?)),
        None => Ok(None),
    });
    let host = section.value("host", |text| {
        let help = "the value of the header `Host`, such as `app.internal` or `app.internal:8080`";
        HeaderValue::try_from(authority_of(text, help)?).map_err(|_| Complaint::new("this is no host", help))
    });
    section.finish();
    Rewrite { path: path.flatten(), host }
}

fn mirror(node: &Node, known: &Known<'_>) -> Option<Mirror> {
    let section = Section::open("`mirror`", node, known.problems)?;
    let pool = section.required_value("pool", |text| pool(text, known));
    let per_million = section.required_value("percent", per_million);
    let max_body_bytes = section.value("max_body", |text| {
        let bytes = usize::try_from(values::size_bytes(text)?).unwrap_or(usize::MAX);
        if bytes <= MOST_BODY_BYTES { Ok(bytes) } else { Err("at most 1MiB of a body is copied".into()) }
    });
    section.finish();
    Some(Mirror::new(pool?, per_million?, max_body_bytes.unwrap_or(MIRRORED_BODY_BYTES)))
}

/// `5`, `0.25`: up to four places.
fn per_million(text: &str) -> Result<u32, Complaint> {
    let complaint = || Complaint::new(format!("`{text}` is no share"), "0 to 100, such as `5` or `0.25`");
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let is_plain = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_plain(whole) || !is_plain(part) || whole.len() > 3 || part.len() > 4 {
        return Err(complaint());
    }
    let whole: u32 = whole.parse().map_err(|_| complaint())?;
    let part: u32 = format!("{part:0<4}").parse().map_err(|_| complaint())?;
    Some(whole * 10_000 + part).filter(|share| *share <= 1_000_000).ok_or_else(complaint)
}
