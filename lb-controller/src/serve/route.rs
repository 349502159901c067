//! Which route, and so which pool, a request takes.

use crate::config::{Config, Route};
use crate::edge::Snapshot;
use crate::pool::Pool;
use crate::serve::request::Inbound;
use crate::serve::respond::Refusal;

/// Paths that are the gateway's own, in any case: nothing below this is ever forwarded, and no route can shadow it.
pub fn is_reserved(path: &str) -> bool {
    const PREFIX: &str = "/.lb";
    let has_prefix = path.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
    has_prefix && matches!(path.as_bytes().get(PREFIX.len()), None | Some(b'/'))
}

/// The most specific route: configurations keep routes in order of precedence, so the first that matches is it.
pub fn find<'a>(config: &'a Config, request: &Inbound) -> Result<&'a Route, Refusal> {
    matching(&config.routes, &request.host, &request.path).ok_or(Refusal::NotFound)
}

/// The route's pool.
pub fn pool<'a>(snapshot: &'a Snapshot, route: &Route) -> Result<&'a Pool, Refusal> {
    // Pools and routes of one snapshot come from one configuration, in which every route names a pool that exists.
    snapshot.pools.get(&route.pool).map(|pool| &**pool).ok_or(Refusal::NoBackend)
}

/// As [`find`], for a canonical host and path alone.
pub fn matching<'a>(routes: &'a [Route], host: &str, path: &str) -> Option<&'a Route> {
    let matches =
        |route: &&Route| route.host.as_deref().is_none_or(|wanted| wanted == host) && path_matches(&route.path, path);
    routes.iter().find(matches)
}

/// `/a/**` takes `/a` and everything below it; any other pattern takes exactly itself.
fn path_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix("/**") {
        Some(prefix) => path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        None => pattern == path,
    }
}

/// A client that shows no certificate of a trusted authority goes no further where one is needed.
pub fn check_certificate(route: &Route, request: &Inbound) -> Result<(), Refusal> {
    match route.needs_certificate && request.certificate.is_none() {
        true => Err(Refusal::NoCertificate),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{is_reserved, path_matches};

    #[test]
    fn the_reserved_prefix_ends_at_a_segment_and_ignores_case() {
        for (path, expected) in
            [("/.lb", true), ("/.lb/x", true), ("/.LB/x", true), ("/.lbx", false), ("/a/.lb", false)]
        {
            assert_eq!(is_reserved(path), expected, "{path}");
        }
    }

    #[test]
    fn a_prefix_ends_at_a_segment() {
        for (pattern, path, expected) in [
            ("/**", "/", true),
            ("/**", "/a/b", true),
            ("/a/**", "/a", true),
            ("/a/**", "/a/b", true),
            ("/a/**", "/ab", false),
            ("/a", "/a", true),
            ("/a", "/a/b", false),
        ] {
            assert_eq!(path_matches(pattern, path), expected, "{pattern} on {path}");
        }
    }
}
