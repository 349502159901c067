//! `request_headers` and `response_headers`: what of them is changed on the way.

use http::{HeaderName, HeaderValue};

use super::super::super::HeaderChanges;
use super::super::super::section::{Complaint, Section};
use super::super::super::tree::{Key, Node};
use super::header_name;

/// Of one connection, or what frames a message: whoever writes the message writes them.
const FRAMING: [&str; 11] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "expect",
];

/// What backends believe of the client, and so nobody but the gateway may say.
const OURS: [&str; 5] = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "host"];

/// How the names of all our own headers begin.
const OUR_PREFIX: &str = "lb-";

const OUR_COOKIES: &str = "__Host-lb";

pub(super) fn of_requests(section: &Section<'_>) -> HeaderChanges {
    changes(section, "request_headers", "`request_headers`", |name| match name {
        "host" => Err(Complaint::new("`host` is no header to be changed here", "write `rewrite: {host: …}`")),
        name if OURS.contains(&name) => Err(Complaint::new(
            format!("`{name}` is the gateway's own"),
            "backends learn from it who the client is, and that must not be written by hand",
        )),
        _ => Ok(()),
    })
}

pub(super) fn of_responses(section: &Section<'_>) -> HeaderChanges {
    changes(section, "response_headers", "`response_headers`", |_| Ok(()))
}

fn changes(
    section: &Section<'_>,
    key: &'static str,
    what: &'static str,
    may_change: impl Fn(&str) -> Result<(), Complaint>,
) -> HeaderChanges {
    let Some(section) = section.get(key).and_then(|node| Section::open(what, node, section.problems)) else {
        return HeaderChanges::default();
    };
    let name = |text: &str| {
        let name = header_name(text)?;
        if FRAMING.contains(&name.as_str()) {
            return Err(Complaint::new(format!("`{name}` belongs to one connection or message"), "leave it to them"));
        }
        if name.starts_with(OUR_PREFIX) {
            return Err(Complaint::from(format!("`{name}` is the gateway's own")));
        }
        may_change(&name)?;
        HeaderName::try_from(name).map_err(|_| Complaint::from("no name of a header"))
    };
    let pairs = |key: &'static str, what: &'static str| {
        let inner = section.get(key).and_then(|node| Section::open(what, node, section.problems));
        let pair = |(key, node): &(Key, Node)| {
            let name = name(&key.name).map_err(|complaint| section.problems.report(&key.place, complaint)).ok();
            let value = node.read(section.problems, |text| value(&key.name, text));
            Some((name?, value?))
        };
        inner.map_or_else(Vec::new, |inner| inner.entries().iter().filter_map(pair).collect())
    };
    let (set, add) = (pairs("set", "`set`"), pairs("add", "`add`"));
    let changes = HeaderChanges { remove: section.values("remove", name), set, add };
    section.finish();
    changes
}

fn value(name: &str, text: &str) -> Result<HeaderValue, Complaint> {
    let is_own_cookie = || text.trim_start_matches([' ', '\t', '=']).starts_with(OUR_COOKIES);
    if name.eq_ignore_ascii_case("set-cookie") && is_own_cookie() {
        return Err(Complaint::from("this cookie is the gateway's own"));
    }
    HeaderValue::from_str(text).map_err(|_| {
        Complaint::new("a character that no header's value has", "letters, digits and signs of ASCII, on one line")
    })
}
