//! Routes, sorted by precedence.

use std::cmp::Reverse;
use std::ops::RangeInclusive;
use std::time::Duration;

use lb_policy::canonical_host;

use super::super::section::{Complaint, Problems, Section};
use super::super::tree::{Key, Node};
use super::super::values;
use super::super::{PoolConfig, Route, Service};
use super::identity::scope;

/// What the gateway itself answers on the data port; a route there would never be reached.
const RESERVED_SEGMENT: &str = ".lb";

/// Shorter ones are requests; longer ones than a week can as well have no limit.
const STREAM_AGES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 86_400);

pub(super) fn compile(
    config: &Section<'_>,
    services: &[Service],
    pools: &[PoolConfig],
    asks_for_certificates: bool,
) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    // Where all packets are sent on there is no request to route.
    let is_l4_alone = !services.is_empty() && !services.iter().any(Service::is_local);
    let nodes = if is_l4_alone { config.list("routes") } else { config.require_list("routes") };
    for node in nodes {
        let Some(route) = route(node, pools, asks_for_certificates, config.problems) else { continue };
        if routes.iter().any(|other| other.host == route.host && other.path == route.path) {
            config.problems.report(&node.place, "another route takes this host and path");
        }
        routes.push(route);
    }
    routes.sort_by_key(precedence);
    routes
}

/// A host before any host; then exact before prefix; then long before short.
fn precedence(route: &Route) -> (bool, bool, Reverse<usize>) {
    (route.host.is_none(), route.path.ends_with("/**"), Reverse(route.path.len()))
}

fn route(node: &Node, pools: &[PoolConfig], asks_for_certificates: bool, problems: &Problems) -> Option<Route> {
    let section = Section::open("a route", node, problems)?;
    let host_given = section.has("host");
    let host = section.value("host", host);
    let path = section.required_value("path", path);
    let pool = section.required_value("pool", |text| match pools.iter().find(|pool| pool.name == text) {
        Some(pool) => Ok(pool.name.clone()),
        None => Err(Complaint::unknown("pool", text, pools.iter().map(|pool| pool.name.as_str()))),
    });
    let public = section.value("public", values::boolean);
    let backend_step_up = section.value("backend_step_up", values::boolean).unwrap_or(false);
    let max_stream_age = section.value("max_stream_age", values::duration(STREAM_AGES));
    let labels = section.get("labels").map(|node| labels(node, problems)).unwrap_or_default();
    let scopes = section.values("scopes", scope);
    let needs_certificate = section.value("client_certificate", |text| match text {
        "required" if asks_for_certificates => Ok(true),
        "required" => Err(Complaint::new("nobody is asked for a certificate", "say whose under `client_certificates`")),
        _ => Err(Complaint::unknown("value", text, ["required"])),
    });
    section.finish();
    if host_given && host.is_none() {
        return None;
    }
    let route = Route::new(host, path?, pool?, public.unwrap_or(false));
    Some(Route {
        backend_step_up,
        max_stream_age,
        labels,
        scopes,
        needs_certificate: needs_certificate.unwrap_or(false),
        ..route
    })
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

fn host(text: &str) -> Result<String, Complaint> {
    let host = canonical_host(text).map_err(|error| Complaint::from(format!("`{text}` is no host: {error}")))?;
    let has_port = text.rsplit_once(':').is_some_and(|(_, after)| !after.contains(']'));
    if has_port {
        return Err(Complaint::new("a route's host has no port", format!("write `{host}`")));
    }
    Ok(host)
}

/// An exact path, or one ending in `/**`; the same text that requests are judged by, so without escapes and the like.
fn path(text: &str) -> Result<String, Complaint> {
    let Some(relative) = text.strip_prefix('/') else {
        return Err("a path starts with `/`".into());
    };
    if relative == "**" {
        return Ok(text.to_owned());
    }
    let (exact, suffix) = match relative.strip_suffix("/**") {
        Some(above) => (above, "/**"),
        // `/admin/` and `/admin` are one path to rules, and so to routes.
        None => (relative.strip_suffix('/').unwrap_or(relative), ""),
    };
    let segments_are_plain = relative.is_empty() || exact.split('/').all(|segment| !matches!(segment, "" | "." | ".."));
    if !segments_are_plain {
        return Err("empty segments, `.` and `..` never reach a route: requests come with these resolved".into());
    }
    if exact.contains(['*', '?', '#', ';', '%', '\\']) || exact.chars().any(char::is_control) {
        let help = "routes take exact paths, or `/…/**` for all below; write them decoded, without query";
        return Err(Complaint::new("a character that no route matches", help));
    }
    if exact.split('/').next() == Some(RESERVED_SEGMENT) {
        return Err("`/.lb/` is answered by the gateway itself".into());
    }
    Ok(format!("/{exact}{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_path_has_one_spelling() {
        let rows = [
            ("/", Some("/")),
            ("/**", Some("/**")),
            ("/a", Some("/a")),
            ("/a/", Some("/a")),
            ("/a/**", Some("/a/**")),
            ("/a b/é", Some("/a b/é")),
            ("/.lbx", Some("/.lbx")),
            ("", None),
            ("a", None),
            ("/a**", None),
            ("/a/*", None),
            ("/**/a", None),
            ("/a//b", None),
            ("//**", None),
            ("/a/../b", None),
            ("/a%20b", None),
            ("/a?b", None),
            ("/a;b", None),
            ("/.lb", None),
            ("/.lb/**", None),
            ("/.lb/login", None),
        ];
        for (text, expected) in rows {
            assert_eq!(path(text).ok().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn the_most_specific_route_comes_first() {
        let route = |host: Option<&str>, path: &str| Route::new(host.map(Into::into), path.into(), "p".into(), false);
        let mut routes = [
            route(None, "/**"),
            route(None, "/a/b"),
            route(Some("h"), "/**"),
            route(None, "/a/**"),
            route(Some("h"), "/a"),
        ];
        routes.sort_by_key(precedence);
        let order: Vec<_> = routes.iter().map(|route| (route.host.as_deref(), route.path.as_str())).collect();
        let expected = [(Some("h"), "/a"), (Some("h"), "/**"), (None, "/a/b"), (None, "/a/**"), (None, "/**")];
        assert_eq!(order, expected);
    }
}
