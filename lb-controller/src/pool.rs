//! Pools: which backend takes a request, and what is known of each backend.

pub mod backend;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub use backend::{Backend, BackendView, InFlight};

use crate::config::{BackendConfig, HealthConfig, PoolConfig};
use crate::metrics::{BackendSample, BackendSource};

/// The pools of one snapshot. Backends live on across snapshots, with their health and counts.
#[derive(Clone, Debug, Default)]
pub struct Pools {
    by_name: BTreeMap<Arc<str>, Arc<Pool>>,
}

/// Backends that can stand in for one another.
#[derive(Debug)]
pub struct Pool {
    pub name: Arc<str>,
    pub health: HealthConfig,
    pub timeouts: Timeouts,
    backends: Vec<Arc<Backend>>,
    /// Those of them that are to have new requests: draining ones finish what they have.
    taking: Vec<Arc<Backend>>,
    /// Where the next pick begins; wraps around.
    cursor: AtomicUsize,
}

/// How long a backend may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the TCP handshake. Longer than one lost SYN (1 s) and its repetition.
    pub connect: Duration,
    /// From the last byte of the request until the response's header.
    pub response: Duration,
    /// Between two pieces of a request body that the client is sending.
    pub request_body: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(3),
            response: Duration::from_secs(60),
            request_body: Duration::from_secs(30),
        }
    }
}

impl Pools {
    /// The pools of a configuration. A backend that `previous` has under the same pool and address goes on as it is:
    /// editing the file must neither forget that a backend is down nor count its requests anew.
    pub fn build(configs: &[PoolConfig], previous: Option<&Pools>) -> Pools {
        Pools::build_with(configs, previous, Timeouts::default())
    }

    /// [`Pools::build`] with other timeouts than the usual ones.
    pub fn build_with(configs: &[PoolConfig], previous: Option<&Pools>, timeouts: Timeouts) -> Pools {
        let by_name = configs.iter().map(|config| {
            let pool = Pool::build(config, previous.and_then(|pools| pools.get(&config.name)), timeouts);
            (pool.name.clone(), Arc::new(pool))
        });
        Pools { by_name: by_name.collect() }
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
        self.iter().flat_map(|pool| pool.backends().iter().map(|backend| backend.view(&pool.name))).collect()
    }
}

impl BackendSource for Pools {
    fn samples(&self) -> Vec<BackendSample> {
        let of_pool = |pool: &Arc<Pool>| {
            let sample = |backend: &Arc<Backend>| BackendSample {
                pool: pool.name.clone(),
                address: backend.address,
                up: backend.is_healthy(),
                in_flight: backend.in_flight(),
                requests: backend.requests(),
                errors: backend.errors(),
            };
            pool.backends.iter().map(sample).collect::<Vec<_>>()
        };
        self.iter().flat_map(of_pool).collect()
    }
}

impl Pool {
    fn build(config: &PoolConfig, previous: Option<&Arc<Pool>>, timeouts: Timeouts) -> Pool {
        let known = |address| previous?.backends.iter().find(|backend| backend.address == address).cloned();
        let of = |config: &BackendConfig| known(config.address).unwrap_or_else(|| Backend::new(config.address));
        let backends: Vec<_> = config.backends.iter().map(of).collect();
        let at_work = |(_, config): &(_, &BackendConfig)| !config.drain;
        let taking =
            backends.iter().zip(&config.backends).filter(at_work).map(|(backend, _)| backend.clone()).collect();
        Pool {
            name: config.name.as_str().into(),
            health: config.health.clone(),
            timeouts,
            backends,
            taking,
            cursor: AtomicUsize::new(previous.map_or(0, |pool| pool.cursor.load(Ordering::Relaxed))),
        }
    }

    pub fn backends(&self) -> &[Arc<Backend>] {
        &self.backends
    }

    /// The backend for the next request: of the next two healthy ones in turn, the one with fewer requests in flight.
    /// Equal load therefore rotates evenly, and a slow backend is passed over. `None`: no healthy backend is left
    /// beside those in `avoid`.
    pub fn pick(&self, avoid: &[Arc<Backend>]) -> Option<&Arc<Backend>> {
        let start = self.cursor.fetch_add(1, Ordering::Relaxed);
        let mut candidates = (0..self.taking.len())
            .map(|step| &self.taking[start.wrapping_add(step) % self.taking.len()])
            .filter(|backend| backend.is_healthy() && !avoid.iter().any(|avoided| Arc::ptr_eq(avoided, backend)));
        let first = candidates.next()?;
        match candidates.next() {
            Some(second) if second.in_flight() < first.in_flight() => Some(second),
            _ => Some(first),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, ports: &[u16]) -> PoolConfig {
        PoolConfig {
            name: name.into(),
            backends: ports.iter().map(|&port| std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()).collect(),
            health: HealthConfig {
                kind: crate::config::HealthKind::Http { path: "/".into() },
                interval: Duration::from_secs(1),
                timeout: Duration::from_secs(1),
                rise: 2,
                fall: 3,
            },
        }
    }

    /// The ports of the next `count` picks.
    fn picks(pool: &Pool, count: usize) -> Vec<u16> {
        (0..count).filter_map(|_| pool.pick(&[])).map(|backend| backend.address.port()).collect()
    }

    #[test]
    fn equal_backends_take_turns() {
        let pools = Pools::build(&[config("web", &[1, 2, 3])], None);
        assert_eq!(picks(pools.get("web").unwrap(), 6), [1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn an_unhealthy_backend_is_passed_over() {
        let pools = Pools::build(&[config("web", &[1, 2])], None);
        let pool = pools.get("web").unwrap();
        pool.backends()[0].set_healthy(false, Some("refused".into()));
        assert_eq!(picks(pool, 3), [2, 2, 2]);
    }

    #[test]
    fn a_busier_backend_is_passed_over_for_its_neighbour() {
        let pools = Pools::build(&[config("web", &[1, 2])], None);
        let pool = pools.get("web").unwrap();
        let _held = InFlight::begin(&pool.backends()[0]);
        assert_eq!(picks(pool, 3), [2, 2, 2]);
    }

    #[test]
    fn without_a_healthy_backend_there_is_no_pick() {
        let pools = Pools::build(&[config("web", &[1])], None);
        let pool = pools.get("web").unwrap();
        assert!(pool.pick(&[pool.backends()[0].clone()]).is_none(), "the only one is avoided");
        pool.backends()[0].set_healthy(false, None);
        assert!(pool.pick(&[]).is_none(), "the only one is down");
        let empty = Pools::build(&[config("none", &[])], None);
        assert!(empty.get("none").unwrap().pick(&[]).is_none(), "no backend is configured");
    }

    #[test]
    fn a_backend_lives_on_where_pool_and_address_stay() {
        let before = Pools::build(&[config("web", &[1, 2])], None);
        before.get("web").unwrap().backends()[1].set_healthy(false, Some("refused".into()));
        let after = Pools::build(&[config("web", &[2, 3]), config("api", &[2])], Some(&before));
        let health = |pool: &str| {
            let pool = after.get(pool).unwrap();
            pool.backends().iter().map(|backend| (backend.address.port(), backend.is_healthy())).collect::<Vec<_>>()
        };
        assert_eq!(health("web"), [(2, false), (3, true)]);
        assert_eq!(health("api"), [(2, true)], "the same address in another pool is another backend");
    }

    #[test]
    fn metrics_show_the_backends() {
        let metrics = crate::metrics::Metrics::default();
        let shows = |line: &str| metrics.render().lines().any(|shown| shown == line);
        let pools = Pools::build(&[config("web", &[80])], None);
        metrics.show_pools(&pools);
        assert!(shows(r#"lb_backend_up{pool="web",backend="127.0.0.1:80"} 1"#));
        assert!(shows(r#"lb_backend_requests_total{pool="web",backend="127.0.0.1:80"} 0"#));
        pools.get("web").unwrap().backends()[0].set_healthy(false, None);
        assert!(shows(r#"lb_backend_up{pool="web",backend="127.0.0.1:80"} 0"#), "{}", metrics.render());
    }
}
