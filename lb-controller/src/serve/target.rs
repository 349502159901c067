//! Where a permitted request goes: a pool, and what the choice of its backend goes by.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderValue, Response, header};
use lb_common::Source;

use crate::config::{Balance, HashKey, RetryConfig, Route, Timeouts, own_value};
use crate::pool::{Backend, Gate, InFlight, NoPick, Pool, RoutePlace, Wish, cookies, hash_of};
use crate::serve::preface::Preface;
use crate::serve::request::Inbound;
use crate::serve::respond::Refusal;

/// One request's way to its pool.
pub struct Target<'a> {
    pub pool: &'a Pool,
    pub(super) timeouts: Timeouts,
    pub(super) retries: RetryConfig,
    wish: Wish<'a>,
    /// Of the request, for the line where it may have to wait.
    source: Source,
    /// Of new connections.
    pub(super) preface: Preface,
    /// Within the limit of its route, until a response takes it along.
    place: Cell<Option<RoutePlace>>,
}

impl<'a> Target<'a> {
    /// `user` is who is logged in.
    pub fn of(pool: &'a Pool, request: &Inbound, user: Option<&str>) -> Target<'a> {
        let hash = match pool.balance() {
            Balance::Hash(key) => hash(key, request, user),
            Balance::LeastRequest | Balance::Latency | Balance::RoundRobin => None,
        };
        let wish = Wish { hash, stuck_to: pool.stuck_to(&request.headers) };
        let source = Source::of(request.client.address);
        let preface = Preface::of(pool, request);
        Target { pool, timeouts: pool.timeouts, retries: pool.retries, wish, source, preface, place: Cell::default() }
    }

    /// With what `route` has otherwise than its pool.
    pub fn by(self, route: &Route) -> Target<'a> {
        Target {
            timeouts: route.timeouts.unwrap_or(self.timeouts),
            retries: route.retries.unwrap_or(self.retries),
            ..self
        }
    }

    /// Takes a place within the limit of the request's route, if it has one.
    ///
    /// Errors: as many are under way as may be.
    pub fn within(self, gate: Option<&Gate>) -> Result<Target<'a>, Refusal> {
        if let Some(gate) = gate {
            self.place.set(Some(gate.enter().ok_or(Refusal::Overloaded)?));
        }
        Ok(self)
    }

    /// The same without waiting.
    pub(super) fn pick_at_once(&self, avoid: &[Arc<Backend>]) -> Option<InFlight> {
        self.pool.pick(&self.wish, avoid).ok()
    }

    pub(super) async fn pick(&self, avoid: &[Arc<Backend>]) -> Result<InFlight, NoPick> {
        self.pool.pick_or_wait(&self.wish, avoid, self.source).await
    }

    /// The head of a response has come that goes to the client.
    pub(super) fn answered<Body>(&self, response: &mut Response<Body>, in_flight: &mut InFlight) {
        in_flight.answered(response.status());
        self.hand_over(in_flight);
        self.stick(response, in_flight.backend());
    }

    /// The place within the route's limit goes along with the exchange, to its end.
    pub(super) fn hand_over(&self, in_flight: &mut InFlight) {
        in_flight.keep(self.place.take());
    }

    /// Makes the client stay with the backend that answered, unless it does already. A response that says that all may
    /// share it gets no cookie, which a cache would hand to everybody; for any other one caches are told so.
    pub(super) fn stick<Body>(&self, response: &mut Response<Body>, backend: &Arc<Backend>) {
        if self.wish.stuck_to.is_some_and(|stuck| Arc::ptr_eq(stuck, backend)) {
            return;
        }
        let Some(cookie) = self.pool.sticky_cookie(backend) else { return };
        let headers = response.headers_mut();
        if headers.get_all(header::CACHE_CONTROL).iter().any(is_for_all) {
            return;
        }
        headers.append(header::SET_COOKIE, own_value(cookie));
        headers.append(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    }
}

/// `None`: the request lacks it.
fn hash(key: &HashKey, request: &Inbound, user: Option<&str>) -> Option<u64> {
    match key {
        HashKey::Source => Some(hash_of_source(request.client.address)),
        HashKey::Cookie(name) => cookies(&request.headers, name).next().map(|value| hash_of(value.as_bytes())),
        HashKey::Header(name) => request.headers.get(name).map(|value| hash_of(value.as_bytes())),
        HashKey::User => user.map(|user| hash_of(user.as_bytes())),
        HashKey::Path => Some(hash_of(request.path.as_bytes())),
    }
}

/// Of whoever comes from there.
pub(super) fn hash_of_source(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => hash_of(&address.octets()),
        IpAddr::V6(address) => hash_of(&address.octets()),
    }
}

/// Whether a `Cache-Control` lets shared caches keep the response (RFC 9111 §5.2.2).
fn is_for_all(value: &HeaderValue) -> bool {
    let directives = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let names = directives.map(|directive| directive.split(|byte| *byte == b'=').next().unwrap_or_default());
    names.into_iter().any(|name| name.eq_ignore_ascii_case(b"public") || name.eq_ignore_ascii_case(b"s-maxage"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_may_share_is_told_by_its_directives() {
        for (value, expected) in [
            ("public", true),
            ("max-age=60, Public", true),
            ("s-maxage = 60", false),
            ("S-MaxAge=60", true),
            ("private", false),
            ("max-age=60", false),
            ("no-cache=\"x-public\"", false),
            ("", false),
        ] {
            assert_eq!(is_for_all(&HeaderValue::from_static(value)), expected, "{value}");
        }
    }
}
