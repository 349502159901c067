//! Routes: which requests, and what becomes of them.

mod action;
mod headers;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use lb_policy::{Clash, RouteError, RouteHost, RouteMatcher, RouteMethods, RoutePath, RouteTable, ValuePattern};

use super::super::section::{Complaint, Problems, Section};
use super::super::tree::{Key, Node};
use super::super::values;
use super::super::{Action, PoolConfig, Route, Routes, Service, TakenIn};
use super::identity::scope;
use super::pool::{MOST_REQUESTS, retries};

/// What the gateway itself answers on the data port; a route there would never be reached.
const RESERVED_SEGMENT: &str = ".lb";

/// Shorter ones are requests; longer ones than a week can as well have no limit.
const STREAM_AGES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 86_400);

/// What routes are checked against, and what comes of them beside routes.
struct Known<'a> {
    pools: &'a [PoolConfig],
    asks_for_certificates: bool,
    folder: &'a Path,
    problems: &'a Problems,
}

/// Also what files were read.
pub(super) fn compile(
    config: &Section<'_>,
    services: &[Service],
    pools: &[PoolConfig],
    asks_for_certificates: bool,
    folder: &Path,
) -> (Routes, Vec<TakenIn>) {
    // Where all packets are sent on there is no request to route.
    let is_l4_alone = !services.is_empty() && !services.iter().any(Service::is_local);
    let nodes = if is_l4_alone { config.list("routes") } else { config.require_list("routes") };
    let known = Known { pools, asks_for_certificates, folder, problems: config.problems };
    let mut files = Vec::new();
    let (nodes, routes): (Vec<&Node>, Vec<Route>) =
        nodes.iter().filter_map(|node| Some((node, route(node, &known, &mut files)?))).unzip();
    let matchers: Vec<RouteMatcher> = routes.iter().map(|route| route.matcher.clone()).collect();
    let table = RouteTable::of(&matchers).unwrap_or_else(|clashes| {
        clashes.iter().for_each(|clash| report(*clash, &nodes, &matchers, config.problems));
        RouteTable::default()
    });
    (Routes::new(routes, table), files)
}

fn report(clash: Clash, nodes: &[&Node], matchers: &[RouteMatcher], problems: &Problems) {
    let other = &matchers[clash.earlier];
    let complaint = if clash.is_same {
        Complaint::new("another route takes the same requests", format!("the other one is `{other}`"))
    } else {
        let help = "give one of them what the other asks for as well, or both what sets them apart";
        Complaint::new(format!("some requests are as much for this route as for `{other}`"), help)
    };
    problems.report(&nodes[clash.later].place, complaint);
}

fn route(node: &Node, known: &Known<'_>, files: &mut Vec<TakenIn>) -> Option<Route> {
    let problems = known.problems;
    let section = Section::open("a route", node, problems)?;
    let matcher = matcher(&section);
    let path = matcher.as_ref().map(|matcher| &matcher.path);
    let action = action::compile(&section, known, path, files);
    let onward = action::onward(&section, known, path, action.as_ref());
    let response_headers = headers::of_responses(&section);
    let public = section.value("public", values::boolean);
    let backend_step_up = section.value("backend_step_up", values::boolean).unwrap_or(false);
    let max_stream_age = section.value("max_stream_age", values::duration(STREAM_AGES));
    // Of several pools the first: what a route leaves out cannot be as in each of them.
    let pool = match &action {
        Some(Action::Pool(pool)) => Some(pool),
        Some(Action::Split(split)) => split.shares.first().map(|(pool, _)| pool),
        _ => None,
    };
    let its_pool = known.pools.iter().find(|known| Some(&known.name) == pool);
    let usual = its_pool.map(|pool| (pool.timeouts, pool.retries)).unwrap_or_default();
    let timeouts = section.get("timeouts").and_then(|node| retries::timeouts(node, usual.0, problems));
    let retries = section.get("retries").and_then(|node| retries::of_route(node, usual.1, problems));
    let max_requests = section.value("max_requests", values::number(1..=MOST_REQUESTS));
    let labels = section.get("labels").map(|node| labels(node, problems)).unwrap_or_default();
    let scopes = section.values("scopes", scope);
    let needs_certificate = section.value("client_certificate", |text| match text {
        "required" if known.asks_for_certificates => Ok(true),
        "required" => Err(Complaint::new("nobody is asked for a certificate", "say whose under `client_certificates`")),
        _ => Err(Complaint::unknown("value", text, ["required"])),
    });
    section.finish();
    Some(Route {
        rewrite: onward.rewrite,
        request_headers: onward.request_headers,
        mirror: onward.mirror,
        response_headers,
        public: public.unwrap_or(false),
        backend_step_up,
        max_stream_age,
        timeouts,
        retries,
        max_requests,
        labels,
        scopes,
        needs_certificate: needs_certificate.unwrap_or(false),
        ..Route::new(matcher?, action?)
    })
}

/// Which requests.
fn matcher(section: &Section<'_>) -> Option<RouteMatcher> {
    let host_given = section.has("host");
    let host = section.value("host", |text| Ok(RouteHost::parse(text)?));
    let path = section.required_value("path", path);
    let methods = methods(section);
    let headers = conditions(section, "headers", header_name);
    let query = conditions(section, "query", |name| Ok(name.to_owned()));
    if host_given && host.is_none() {
        return None;
    }
    Some(RouteMatcher { host, path: path?, methods: methods?, headers: headers?, query: query? })
}

/// `None`: they could not be read, and without them the route would take more than was meant.
fn methods(section: &Section<'_>) -> Option<RouteMethods> {
    let nodes = section.list("methods");
    let names: Vec<&str> = nodes.iter().filter_map(|node| node.text(section.problems)).collect();
    if section.has("methods") && (names.is_empty() || names.len() < nodes.len()) {
        return None;
    }
    // Each by itself, so that a mistake is shown at its place.
    let read = |node: &Node| node.read(section.problems, |name| Ok(RouteMethods::parse(&[name])?));
    let all_known = nodes.iter().map(read).fold(true, |all, one| all & one.is_some());
    RouteMethods::parse(&names).ok().filter(|_| all_known)
}

/// Names and what their values must be. `None`: as in [`methods`].
fn conditions(
    section: &Section<'_>,
    key: &'static str,
    name: impl Fn(&str) -> Result<String, Complaint>,
) -> Option<Vec<(String, ValuePattern)>> {
    if !section.has(key) {
        return Some(Vec::new());
    }
    let what = if key == "headers" { "`headers`" } else { "`query`" };
    let inner = Section::open(what, section.get(key)?, section.problems)?;
    let one = |(key, node): &(Key, Node)| {
        let name = name(&key.name).map_err(|complaint| section.problems.report(&key.place, complaint)).ok();
        let value = node.read(section.problems, |text| Ok(ValuePattern::parse(text)?));
        Some((name?, value?))
    };
    let all: Vec<Option<(String, ValuePattern)>> = inner.entries().iter().map(one).collect();
    all.into_iter().collect()
}

/// In lower case, as they are looked up.
fn header_name(text: &str) -> Result<String, Complaint> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if is_plain {
        return Ok(text.to_ascii_lowercase());
    }
    let help = "letters, digits and `-`; headers with other names never pass";
    Err(Complaint::new(format!("`{text}` is no name of a header"), help))
}

impl From<RouteError> for Complaint {
    fn from(error: RouteError) -> Complaint {
        Complaint { message: error.message, help: error.help }
    }
}

/// Names that conditions can write, as in `route.labels.env`, and any values.
fn labels(node: &Node, problems: &Problems) -> Vec<(String, String)> {
    let Some(section) = Section::open("`labels`", node, problems) else { return Vec::new() };
    let label = |(key, node): &(Key, Node)| {
        if !values::is_identifier(&key.name) {
            let help = "letters, digits and `_`, as in `route.labels.env`";
            problems.report(&key.place, Complaint::new("not a name that a condition can write", help));
            return None;
        }
        Some((key.name.clone(), node.read(problems, |text| Ok(text.to_owned()))?))
    };
    section.entries().iter().filter_map(label).collect()
}

/// The same text that requests are judged by, so without escapes and the like.
fn path(text: &str) -> Result<RoutePath, Complaint> {
    let path = RoutePath::parse(text)?;
    if path.first_segment() == Some(RESERVED_SEGMENT) {
        return Err("`/.lb/` is answered by the gateway itself".into());
    }
    Ok(path)
}
