//! Which backend takes a request: how they are chosen, and who stays with whom.

use std::path::Path;

use http::HeaderName;

use super::super::super::section::{Complaint, Problems, Section};
use super::super::super::tree::{Node, Value};
use super::super::super::{Balance, HashKey, Secret, StickyConfig};
use super::super::path_in;

/// A word, or `{hash: …}`.
pub(super) fn balance(node: &Node, problems: &Problems) -> Option<Balance> {
    if !matches!(node.value, Value::Map(_)) {
        return node.read(problems, |text| match text {
            "least_request" => Ok(Balance::LeastRequest),
            "latency" => Ok(Balance::Latency),
            "round_robin" => Ok(Balance::RoundRobin),
            "hash" => Err(Complaint::new("by what?", "write `balance: {hash: source}`, or another key")),
            _ => Err(unknown(text)),
        });
    }
    let section = Section::open("`balance`", node, problems)?;
    let key = section.require("hash").and_then(|node| hash_key(node, problems));
    section.finish();
    key.map(Balance::Hash)
}

fn unknown(text: &str) -> Complaint {
    Complaint::unknown("way to choose backends", text, ["least_request", "latency", "round_robin", "hash"])
}

/// A word, or `{cookie: NAME}` or `{header: NAME}`.
fn hash_key(node: &Node, problems: &Problems) -> Option<HashKey> {
    if !matches!(node.value, Value::Map(_)) {
        return node.read(problems, |text| match text {
            "source" => Ok(HashKey::Source),
            "user" => Ok(HashKey::User),
            "path" => Ok(HashKey::Path),
            "cookie" | "header" => Err(Complaint::new("which one?", format!("write `hash: {{{text}: NAME}}`"))),
            _ => Err(Complaint::unknown("key", text, ["source", "user", "path", "cookie", "header"])),
        });
    }
    let section = Section::open("a key", node, problems)?;
    let cookie = section.value("cookie", cookie_name).map(HashKey::Cookie);
    let header = section.value("header", header_name).map(HashKey::Header);
    if section.has("cookie") == section.has("header") {
        problems.report(&node.place, "requests are spread by one thing: a cookie or a header");
    }
    section.finish();
    cookie.or(header)
}

pub(super) fn sticky(node: &Node, folder: &Path, problems: &Problems) -> Option<StickyConfig> {
    let section = Section::open("`sticky`", node, problems)?;
    let cookie = section.required_value("cookie", cookie_name);
    let key = section.value("key_file", |text| key(folder, text));
    section.finish();
    Some(StickyConfig { cookie: cookie?, key })
}

/// A secret that several hosts share. It is never repeated in messages.
fn key(folder: &Path, text: &str) -> Result<Secret, Complaint> {
    const LEAST_BYTES: usize = 16;
    const HELP: &str = "put at least 16 random characters into it: openssl rand -hex 32";
    let path = path_in(folder, text)?;
    let secret = std::fs::read_to_string(&path)
        .map_err(|error| Complaint::new(format!("{} cannot be read: {error}", path.display()), HELP))?;
    let secret = secret.trim();
    if secret.len() < LEAST_BYTES {
        return Err(Complaint::new(format!("{} is too short for a key", path.display()), HELP));
    }
    Ok(Secret::new(secret.to_owned()))
}

/// A token of RFC 6265 §4.1.1.
fn cookie_name(text: &str) -> Result<String, Complaint> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || text.len() > 64 || !text.bytes().all(is_token) {
        let help = "up to 64 letters, digits and signs that are no separators, such as `backend`";
        return Err(Complaint::new(format!("`{text}` is no name for a cookie"), help));
    }
    if text.to_ascii_lowercase().starts_with("__host-lb") {
        return Err("cookies with names like this are sessions and the like, which no backend sees".into());
    }
    Ok(text.to_owned())
}

fn header_name(text: &str) -> Result<HeaderName, Complaint> {
    text.parse().map_err(|_| Complaint::from(format!("`{text}` is no name for a header")))
}
