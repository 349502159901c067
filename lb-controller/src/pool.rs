//! Pools: which backend takes a request, and what is known of each backend.

pub mod backend;
mod budget;
mod connections;
mod dial;
mod ejection;
mod gate;
mod latency;
mod pick;
mod queue;
mod schedule;
mod selection;
mod shared;
mod sticky;
mod tls;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue};

pub use backend::{Backend, BackendView, InFlight};
pub use connections::ConnectionPlace;
pub use dial::{Dial, DialId};
pub use gate::{Gate, RoutePlace};
pub use pick::{NoPick, Wish, hash_of};
pub use selection::Reach;
pub use sticky::{StickyKey, cookies};
pub use tls::{Handshake, Handshakes};

pub use crate::config::Timeouts;
use crate::config::{
    BackendConfig, Balance, HealthConfig, PoolConfig, PoolLimits, ProxyVersion, RetryBudget, RetryConfig, Route,
};
use crate::metrics::{BackendSample, BackendSource, PoolSample};
use backend::now_ms;
use selection::{Selection, Standing, Taking, Thresholds};
use shared::Shared;
use sticky::Sticky;

/// So many backends of a pool are tended at once: of more, each in its turn.
const TENDED_AT_ONCE: usize = 1_024;

/// A pool that was laid out less than this ago is laid out anew when it is tended next: of thousands of backends that change
/// at once, not each is worth a look at all the others.
const SOON_MS: u64 = 100;

/// A whole weight; a backend that just came back has fewer sixteenths of its own.
const WHOLE: u32 = 16;

/// The pools of one snapshot. Backends live on across snapshots, with their health and counts.
#[derive(Clone, Debug)]
pub struct Pools {
    by_name: BTreeMap<Arc<str>, Arc<Pool>>,
    /// Of routes that have a limit, by their label.
    gates: BTreeMap<Arc<str>, Gate>,
    /// For sticky cookies.
    key: StickyKey,
}

/// Backends that can stand in for one another.
#[derive(Debug)]
pub struct Pool {
    pub name: Arc<str>,
    pub dial: Arc<Dial>,
    pub health: HealthConfig,
    pub timeouts: Timeouts,
    pub retries: RetryConfig,
    retry_budget: RetryBudget,
    /// What connections to its backends begin with.
    pub send_proxy_protocol: Option<ProxyVersion>,
    balance: Balance,
    sticky: Option<Sticky>,
    thresholds: Thresholds,
    slow_start: Duration,
    limits: PoolLimits,
    backends: Vec<Arc<Backend>>,
    /// What the configuration says of each of them.
    roles: Vec<Role>,
    selection: ArcSwap<Selection>,
    /// When that was laid out.
    laid_out_ms: AtomicU64,
    /// Who is tended next, and the requests of those before.
    tending: Mutex<(usize, u64)>,
    shared: Arc<Shared>,
}

/// What one configuration wants a backend to be.
#[derive(Clone, Copy, Debug)]
struct Role {
    weight: u8,
    drain: bool,
    backup: u8,
    is_far: bool,
}

impl Default for Pools {
    fn default() -> Pools {
        Pools::with_key(StickyKey::random())
    }
}

impl Pools {
    /// No pools yet, and what the cookies of later ones are made with.
    pub fn with_key(key: StickyKey) -> Pools {
        Pools { by_name: BTreeMap::new(), gates: BTreeMap::new(), key }
    }

    /// The pools of a configuration. A backend that `previous` has under the same pool and address goes on as it is:
    /// editing the file must neither forget that a backend is down nor count its requests anew.
    pub fn build(configs: &[PoolConfig], previous: Option<&Pools>) -> Pools {
        let key = previous.map_or_else(StickyKey::random, |pools| pools.key.clone());
        let by_name = configs.iter().map(|config| {
            let pool = Pool::build(config, previous.and_then(|pools| pools.get(&config.name)), &key);
            (pool.name.clone(), Arc::new(pool))
        });
        let gates = previous.map(|pools| pools.gates.clone()).unwrap_or_default();
        Pools { by_name: by_name.collect(), gates, key }
    }

    /// The same with the limits of `routes`.
    pub fn with_routes(self, routes: &[Route]) -> Pools {
        let gate = |route: &Route| {
            let gate = Gate::new(route.max_requests?, self.gates.get(&route.label));
            Some((route.label.clone(), gate))
        };
        Pools { gates: routes.iter().filter_map(gate).collect(), ..self }
    }

    /// Of a route that has a limit.
    pub fn gate(&self, route: &Route) -> Option<&Gate> {
        route.max_requests.and_then(|_| self.gates.get(&route.label))
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Pool>> {
        self.by_name.get(name)
    }

    /// Every pool, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.by_name.values()
    }

    /// Every backend as `lb-controller backends` shows it.
    pub fn list(&self) -> Vec<BackendView> {
        self.iter().flat_map(|pool| pool.views()).collect()
    }
}

impl BackendSource for Pools {
    fn samples(&self) -> Vec<BackendSample> {
        let of_pool = |pool: &Arc<Pool>| {
            let sample = |backend: &Arc<Backend>| BackendSample {
                pool: pool.name.clone(),
                address: backend.address,
                up: backend.is_healthy(),
                ejected: backend.is_ejected(),
                ejections: backend.ejections(),
                in_flight: backend.in_flight(),
                requests: backend.requests(),
                errors: backend.errors(),
                connections: backend.connections().open(),
                connections_opened: backend.connections().opened(),
                handshakes: if pool.dial.is_tls() { backend.handshakes().to_vec() } else { Vec::new() },
            };
            pool.backends.iter().map(sample).collect::<Vec<_>>()
        };
        self.iter().flat_map(of_pool).collect()
    }

    fn pools(&self) -> Vec<PoolSample> {
        let sample = |pool: &Arc<Pool>| PoolSample {
            pool: pool.name.clone(),
            waiting: pool.waiting(),
            retries: pool.shared.budget().counts(),
            reach: pool.reach().name(),
        };
        self.iter().map(sample).collect()
    }
}

impl Pool {
    fn build(config: &PoolConfig, previous: Option<&Arc<Pool>>, key: &StickyKey) -> Pool {
        let shared = previous.map_or_else(Arc::default, |pool| pool.shared.clone());
        shared.configure(config);
        let known: HashMap<SocketAddr, &Arc<Backend>> =
            previous.iter().flat_map(|pool| &pool.backends).map(|backend| (backend.address, backend)).collect();
        let backend = |config: &BackendConfig| match known.get(&config.address) {
            Some(backend) => Arc::clone(backend),
            None => Backend::new(config.address, shared.clone(), previous.is_some()),
        };
        let role = |config: &BackendConfig| Role {
            weight: config.weight,
            drain: config.drain,
            backup: config.backup,
            is_far: config.is_far,
        };
        let addresses: Vec<SocketAddr> = config.backends.iter().map(|backend| backend.address).collect();
        let sticky = config.sticky.as_ref().map(|sticky| Sticky::new(sticky, key, &config.name, &addresses));
        let pool = Pool {
            name: config.name.as_str().into(),
            dial: Arc::new(Dial::of(config, previous.map(|pool| &*pool.dial))),
            health: config.health.clone(),
            timeouts: config.timeouts,
            retries: config.retries,
            retry_budget: config.retry_budget,
            send_proxy_protocol: config.send_proxy_protocol,
            balance: config.balance.clone(),
            sticky,
            thresholds: Thresholds {
                near_percent: config.near_threshold_percent,
                panic_percent: config.panic_threshold_percent,
            },
            slow_start: config.slow_start,
            limits: config.limits.clone(),
            backends: config.backends.iter().map(backend).collect(),
            roles: config.backends.iter().map(role).collect(),
            selection: ArcSwap::default(),
            laid_out_ms: AtomicU64::default(),
            tending: Mutex::default(),
            shared,
        };
        pool.refresh();
        let requests = pool.backends.iter().map(|backend| backend.requests()).sum();
        pool.shared.budget().reckon(now_ms(), requests, pool.retry_budget);
        pool
    }

    pub fn backends(&self) -> &[Arc<Backend>] {
        &self.backends
    }

    pub fn balance(&self) -> &Balance {
        &self.balance
    }

    /// Who served the client before whose request has these headers, unless that backend is to have no new requests.
    pub fn stuck_to(&self, headers: &HeaderMap) -> Option<&Arc<Backend>> {
        let index = self.sticky.as_ref()?.named_by(headers)?;
        self.backends.get(index).filter(|_| !self.roles[index].drain)
    }

    /// The cookie that makes a client stay with `backend`; `None`: clients of this pool do not.
    pub fn sticky_cookie(&self, backend: &Arc<Backend>) -> Option<&HeaderValue> {
        let sticky = self.sticky.as_ref()?;
        sticky.set_cookie(backend.address)
    }

    /// Lays out anew who takes requests. For whoever changed a backend, and in the course of a slow start; it looks at all
    /// backends.
    pub fn refresh(&self) {
        // Before looking: what changes meanwhile is looked at the next time.
        self.shared.take_stale();
        let now_ms = now_ms();
        self.laid_out_ms.store(now_ms, Ordering::Relaxed);
        let standings = self.standings();
        let (chosen, reach) = selection::choose(&standings, self.thresholds);
        let at_work = standings.iter().filter(|standing| standing.is_at_work).count();
        self.shared.count_ejected(self.backends.iter().filter(|backend| backend.is_ejected()).count(), at_work);
        let taking = |index: usize| {
            let (backend, steady_weight) = (self.backends[index].clone(), u32::from(self.roles[index].weight));
            Taking { weight: steady_weight * self.sixteenths(&backend, now_ms), backend, steady_weight }
        };
        let members = chosen.into_iter().map(taking).collect();
        self.selection.store(Arc::new(Selection::of(members, reach, &self.balance)));
    }

    /// The same, unless that was a moment ago: then it is done when the pool is tended next.
    pub fn refresh_soon(&self) {
        if now_ms().saturating_sub(self.laid_out_ms.load(Ordering::Relaxed)) >= SOON_MS {
            self.refresh();
        }
    }

    /// To be called several times a second: what changes with time alone.
    pub fn tend(&self) {
        let now_ms = now_ms();
        self.tend_some(now_ms);
        let is_heavier_by_now = |taking: &Taking| {
            let weight = taking.steady_weight * self.sixteenths(&taking.backend, now_ms);
            taking.weight != weight
        };
        let is_late = !self.slow_start.is_zero() && self.selection.load().members.iter().any(is_heavier_by_now);
        if is_late || self.shared.is_stale() {
            self.refresh();
        }
    }

    /// To look at a backend fetches it from memory, and from the worker that writes to it: ten thousand of them, ten times a
    /// second, are what thousands of requests cost.
    fn tend_some(&self, now_ms: u64) {
        let mut tending = self.tending.lock().unwrap_or_else(PoisonError::into_inner);
        let ejection = self.shared.ejection();
        let (first, counted) = *tending;
        let some = self.backends.iter().skip(first).take(TENDED_AT_ONCE);
        let requests = some.map(|backend| {
            backend.tend(now_ms, Option::as_ref(&ejection));
            backend.requests()
        });
        let requests = counted + requests.sum::<u64>();
        *tending = (first + TENDED_AT_ONCE, requests);
        if first + TENDED_AT_ONCE >= self.backends.len() {
            self.shared.budget().reckon(now_ms, requests, self.retry_budget);
            *tending = (0, 0);
        }
    }

    /// Whether one more request may be sent again, which then counts.
    pub fn take_retry(&self) -> bool {
        self.shared.budget().take()
    }

    /// The retry that was taken was for a second backend while the first is still asked.
    pub fn hedged(&self) {
        self.shared.budget().hedged();
    }

    /// Requests that wait until a backend has room.
    pub fn waiting(&self) -> u32 {
        self.shared.queue().waiting()
    }

    /// How far this pool had to reach for backends.
    pub fn reach(&self) -> Reach {
        self.selection.load().reach
    }

    fn standings(&self) -> Vec<Standing> {
        let standing = |(backend, role): (&Arc<Backend>, &Role)| Standing {
            is_available: backend.is_available(),
            is_at_work: !role.drain && role.weight > 0,
            backup: role.backup,
            is_far: role.is_far,
        };
        self.backends.iter().zip(&self.roles).map(standing).collect()
    }

    /// How much of its weight a backend has, [`WHOLE`] unless it has just come back.
    fn sixteenths(&self, backend: &Backend, now_ms: u64) -> u32 {
        let since_ms = backend.available_since_ms();
        let whole_after_ms = self.slow_start.as_millis() as u64;
        if since_ms == 0 || whole_after_ms == 0 {
            return WHOLE;
        }
        let served_ms = now_ms.saturating_sub(since_ms);
        (1 + served_ms * u64::from(WHOLE - 1) / whole_after_ms).min(WHOLE.into()) as u32
    }

    fn views(&self) -> Vec<BackendView> {
        let (selection, now_ms) = (self.selection.load(), now_ms());
        let taking: HashMap<SocketAddr, &Taking> =
            selection.members.iter().map(|taking| (taking.backend.address, taking)).collect();
        let state = |backend: &Backend, role: &Role| match (role, taking.get(&backend.address)) {
            (Role { drain: true, .. }, _) => "draining",
            (_, Some(_)) if selection.reach == Reach::Panic && !backend.is_available() => "panic",
            _ if !backend.is_healthy() => "down",
            _ if backend.is_ejected() => "ejected",
            (_, None) => "standby",
            (_, Some(_)) if self.sixteenths(backend, now_ms) < WHOLE => "slow_start",
            (_, Some(_)) => "serving",
        };
        let views = self.backends.iter().zip(&self.roles);
        views.map(|(backend, role)| backend.view(&self.name, state(backend, role))).collect()
    }
}

#[cfg(test)]
mod tests;
