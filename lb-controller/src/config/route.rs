//! Which requests go where, and as what.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use lb_policy::{PathTemplate, RequestFacts, RouteMatcher, RouteTable};

use super::{RetryConfig, Timeouts};

/// All routes, in the order of the file, which means nothing.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    list: Vec<Route>,
    table: Arc<RouteTable>,
}

/// Which requests, and what becomes of them once the rules have let them pass.
#[derive(Clone, Debug)]
pub struct Route {
    pub matcher: RouteMatcher,
    pub action: Action,
    pub rewrite: Rewrite,
    pub request_headers: HeaderChanges,
    pub response_headers: HeaderChanges,
    pub mirror: Option<Mirror>,
    /// Needs no session.
    pub public: bool,
    /// Its backends may ask for more proof (RFC 9470), and then get the request again.
    pub backend_step_up: bool,
    /// How long a WebSocket or another stream may last; `None`: as long as it is let.
    pub max_stream_age: Option<Duration>,
    /// How long its requests may take, and when they are sent again, where it is otherwise than its pool says.
    pub timeouts: Option<Timeouts>,
    pub retries: Option<RetryConfig>,
    /// That may be under way at once; `None`: any number.
    pub max_requests: Option<u32>,
    /// What rules may know of it, by name.
    pub labels: Vec<(String, String)>,
    /// What an access token or API key must have.
    pub scopes: Vec<String>,
    /// Needs a client certificate.
    pub needs_certificate: bool,
    /// The route in metrics and access log, as its matcher shows itself: `shop.example/api/**`, `*/orders/{id} GET`.
    pub label: Arc<str>,
}

/// Where an answer comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Pool(String),
    Split(Split),
    Redirect(Redirect),
    Respond(FixedResponse),
}

/// Pools that share the requests of a route, each sender's going to one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Pools, and their weights. Not empty; the weights' sum is not 0.
    pub shares: Vec<(String, u32)>,
}

/// What backends receive in place of what rules judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    pub path: Option<PathTemplate>,
    /// The value of `Host`.
    pub host: Option<HeaderValue>,
}

/// Where else the client should go. Everything but what fills gaps of the path is fixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    pub status: StatusCode,
    /// `https://other.example`, with a port where it has one; `None`: where the request came.
    pub origin: Option<String>,
    /// `None`: that of the request.
    pub path: Option<PathTemplate>,
    pub keeps_query: bool,
}

/// An answer that is always the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedResponse {
    pub status: StatusCode,
    pub content_type: Option<HeaderValue>,
    pub body: Bytes,
}

/// Changes of headers, made in the order of their fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    pub remove: Vec<HeaderName>,
    /// In place of all values there are.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Beside those there are.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

/// A pool that receives copies of requests; what it answers nobody reads.
#[derive(Clone, Debug)]
pub struct Mirror {
    pub pool: String,
    /// How many of a million requests are copied.
    pub per_million: u32,
    /// Requests with larger bodies are not.
    pub max_body_bytes: usize,
    counted: Counted,
}

/// Counts up to a million and begins anew; not copied with what it belongs to.
#[derive(Debug, Default)]
struct Counted(AtomicU32);

impl Clone for Counted {
    fn clone(&self) -> Counted {
        Counted::default()
    }
}

const MILLION: u32 = 1_000_000;

impl Routes {
    pub(super) fn new(list: Vec<Route>, table: RouteTable) -> Routes {
        Routes { list, table: Arc::new(table) }
    }

    /// The narrowest route for the request.
    pub fn find(&self, request: &RequestFacts<'_>) -> Option<&Route> {
        self.list.get(self.table.find(request)?)
    }

    /// Some route goes by parameters of the query: they must be among the facts then.
    pub fn read_query(&self) -> bool {
        self.table.reads_query()
    }
}

impl Deref for Routes {
    type Target = [Route];

    fn deref(&self) -> &[Route] {
        &self.list
    }
}

impl Route {
    /// One that needs a session and changes nothing.
    pub fn new(matcher: RouteMatcher, action: Action) -> Route {
        let label = matcher.to_string().into();
        Route {
            matcher,
            action,
            rewrite: Rewrite::default(),
            request_headers: HeaderChanges::default(),
            response_headers: HeaderChanges::default(),
            mirror: None,
            public: false,
            backend_step_up: false,
            max_stream_age: None,
            timeouts: None,
            retries: None,
            max_requests: None,
            labels: Vec::new(),
            scopes: Vec::new(),
            needs_certificate: false,
            label,
        }
    }

    /// The pools that it names.
    pub fn pools(&self) -> impl Iterator<Item = &str> {
        let shares = match &self.action {
            Action::Pool(pool) => vec![pool.as_str()],
            Action::Split(split) => split.shares.iter().map(|(pool, _)| pool.as_str()).collect(),
            Action::Redirect(_) | Action::Respond(_) => Vec::new(),
        };
        shares.into_iter().chain(self.mirror.iter().map(|mirror| mirror.pool.as_str()))
    }
}

impl Split {
    /// The pool for whoever `hash`, uniform over `u64`, stands for. As long as the weights stay, it is always the same one;
    /// where they change, as few as can be go elsewhere.
    pub fn pool(&self, hash: u64) -> &str {
        let sum: u64 = self.shares.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut left = ((u128::from(hash) * u128::from(sum)) >> 64) as u64;
        for (pool, weight) in &self.shares {
            match left.checked_sub(u64::from(*weight)) {
                Some(rest) => left = rest,
                None => return pool,
            }
        }
        self.shares.last().map_or("", |(pool, _)| pool)
    }
}

impl HeaderChanges {
    pub fn is_empty(&self) -> bool {
        *self == HeaderChanges::default()
    }

    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(own_name(name), own_value(value));
        }
        for (name, value) in &self.add {
            headers.append(own_name(name), own_value(value));
        }
    }
}

/// A value of the configuration's, for one request: clones share a count, and one that all workers write to would travel from
/// CPU to CPU.
pub fn own_value(value: &HeaderValue) -> HeaderValue {
    let mut own = HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone());
    own.set_sensitive(value.is_sensitive());
    own
}

fn own_name(name: &HeaderName) -> HeaderName {
    HeaderName::from_bytes(name.as_str().as_bytes()).unwrap_or_else(|_| name.clone())
}

impl Mirror {
    pub fn new(pool: String, per_million: u32, max_body_bytes: usize) -> Mirror {
        Mirror { pool, per_million, max_body_bytes, counted: Counted::default() }
    }

    /// Whether the next request is one to copy: of any million as many as there should be, evenly spread.
    pub fn takes_next(&self) -> bool {
        let next = |counted: u32| Some((counted + self.per_million) % MILLION);
        let counted = self.counted.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        counted.is_ok_and(|counted| counted + self.per_million >= MILLION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_takes_its_share_and_spreads_it() {
        for (per_million, of_a_thousand) in [(0, 0), (1_000, 1), (100_000, 100), (333_000, 333), (1_000_000, 1_000)] {
            let mirror = Mirror::new("shadow".to_owned(), per_million, 0);
            let taken: Vec<bool> = (0..1_000).map(|_| mirror.takes_next()).collect();
            assert_eq!(taken.iter().filter(|taken| **taken).count(), of_a_thousand, "{per_million}");
            let half = taken[..500].iter().filter(|taken| **taken).count();
            assert!(half.abs_diff(of_a_thousand / 2) <= 1, "{half} of {of_a_thousand} in the first half");
        }
    }

    #[test]
    fn shares_are_as_their_weights_and_change_for_as_few_as_can_be() {
        let split =
            |weights: [u32; 2]| Split { shares: vec![("old".to_owned(), weights[0]), ("new".to_owned(), weights[1])] };
        let hashes: Vec<u64> = (0..10_000u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        let of_new = |split: &Split| hashes.iter().filter(|hash| split.pool(**hash) == "new").count();
        for (weights, share) in [([100, 0], 0), ([95, 5], 500), ([50, 50], 5_000), ([0, 1], 10_000)] {
            assert!(of_new(&split(weights)).abs_diff(share) <= 20, "{weights:?}: {}", of_new(&split(weights)));
        }
        let (before, after) = (split([95, 5]), split([90, 10]));
        let moved = hashes.iter().filter(|hash| before.pool(**hash) != after.pool(**hash)).count();
        assert!(moved.abs_diff(500) <= 20, "{moved} of 10,000 went elsewhere for five in a hundred");
    }
}
