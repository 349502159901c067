//! Which route a request takes, and so where its answer comes from.

use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};
use lb_common::Source;
use lb_policy::{NO_PARAMETERS, QueryParameters, RequestFacts};

use crate::config::{Config, Route, Split};
use crate::edge::Snapshot;
use crate::pool::Pool;
use crate::serve::facts;
use crate::serve::request::Inbound;
use crate::serve::respond::Refusal;
use crate::stepup::Session;

/// Paths that are the gateway's own, in any case: nothing below this is ever forwarded, and no route can shadow it.
pub fn is_reserved(path: &str) -> bool {
    const PREFIX: &str = "/.lb";
    let has_prefix = path.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
    has_prefix && matches!(path.as_bytes().get(PREFIX.len()), None | Some(b'/'))
}

/// The narrowest route.
pub fn find<'a>(config: &'a Config, request: &Inbound) -> Result<&'a Route, Refusal> {
    let read;
    let parameters = match config.routes.read_query() {
        true => {
            read = QueryParameters::parse(request.raw_query());
            &read
        }
        false => &NO_PARAMETERS,
    };
    matching(config, &facts::request_facts(request, parameters)).ok_or(Refusal::NotFound)
}

/// As [`find`], for whatever is known of a request.
pub fn matching<'a>(config: &'a Config, request: &RequestFacts<'_>) -> Option<&'a Route> {
    config.routes.find(request)
}

/// The pool of this name.
pub fn pool<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a Pool, Refusal> {
    // Pools and routes of one snapshot come from one configuration, in which every route names pools that exist.
    snapshot.pools.get(name).map(|pool| &**pool).ok_or(Refusal::NoBackend)
}

/// The pool that a sender's requests on this route go to, always the same one: by their login, or who has none by their
/// source, on every host alike.
pub fn share<'a>(split: &'a Split, route: &Route, session: Option<&Session>, address: IpAddr) -> &'a str {
    let mut key = Vec::with_capacity(64);
    key.extend_from_slice(route.label.as_bytes());
    key.push(0);
    match session.map(Session::login_id).filter(|login| *login != [0; 16]) {
        Some(login) => key.extend_from_slice(&login),
        // Of one request each: who sends it is what stays.
        None => match session {
            Some(session) => key.extend_from_slice(session.user_key().as_bytes()),
            None => key.extend_from_slice(Source::of(address).to_string().as_bytes()),
        },
    }
    let hash = digest(&SHA256, &key);
    split.pool(u64::from_be_bytes(*hash.as_ref().first_chunk().expect("SHA-256 gives 32 bytes")))
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
    use super::is_reserved;

    #[test]
    fn the_reserved_prefix_ends_at_a_segment_and_ignores_case() {
        for (path, expected) in
            [("/.lb", true), ("/.lb/x", true), ("/.LB/x", true), ("/.lbx", false), ("/a/.lb", false)]
        {
            assert_eq!(is_reserved(path), expected, "{path}");
        }
    }
}
