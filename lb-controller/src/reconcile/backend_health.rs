//! What the health checks last said of each backend that the configuration names.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use lb_datapath::BackendState;

use crate::config::PoolConfig;
use crate::health::HealthChange;

/// By pool and address. Backends start healthy, as L7 takes them, until a check says otherwise.
#[derive(Debug)]
pub(super) struct BackendHealth {
    healthy: HashMap<Arc<str>, HashMap<SocketAddr, bool>>,
    /// What the configuration names: thousands of backends may change at once, and each is looked for here.
    named: HashMap<String, HashSet<SocketAddr>>,
}

impl BackendHealth {
    /// Nothing is known of the backends of `pools` yet.
    pub(super) fn of(pools: &[PoolConfig]) -> BackendHealth {
        BackendHealth { healthy: HashMap::new(), named: named(pools) }
    }

    /// Takes a change in, unless it is the last word of a check whose backend has left the configuration.
    pub(super) fn record(&mut self, change: &HealthChange) {
        if self.named.get(&*change.pool).is_some_and(|addresses| addresses.contains(&change.backend)) {
            self.healthy.entry(change.pool.clone()).or_default().insert(change.backend, change.healthy);
        }
    }

    /// Forgets backends that `pools` no longer names. One that comes back is new to L7, whose first check tells only of
    /// bad news: what was known before would stand for ever.
    pub(super) fn keep_only(&mut self, pools: &[PoolConfig]) {
        self.named = named(pools);
        self.healthy.retain(|pool, healthy| {
            let named = self.named.get(&**pool);
            healthy.retain(|address, _| named.is_some_and(|named| named.contains(address)));
            !healthy.is_empty()
        });
    }

    pub(super) fn state(&self, pool: &str, address: SocketAddr) -> BackendState {
        match self.healthy.get(pool).and_then(|healthy| healthy.get(&address)) {
            Some(false) => BackendState::Down,
            Some(true) | None => BackendState::Healthy,
        }
    }
}

fn named(pools: &[PoolConfig]) -> HashMap<String, HashSet<SocketAddr>> {
    let addresses = |pool: &PoolConfig| pool.backends.iter().map(|backend| backend.address).collect();
    pools.iter().map(|pool| (pool.name.clone(), addresses(pool))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 80);

    fn pools(backends: &[SocketAddr]) -> Vec<PoolConfig> {
        vec![PoolConfig {
            name: "shop".into(),
            backends: backends.iter().copied().map(Into::into).collect(),
            ..PoolConfig::default()
        }]
    }

    fn down() -> HealthChange {
        HealthChange { pool: "shop".into(), backend: ADDRESS, healthy: false }
    }

    #[test]
    fn a_backend_that_went_while_it_was_down_comes_back_as_a_new_one() {
        let mut health = BackendHealth::of(&pools(&[ADDRESS]));
        health.record(&down());
        assert_eq!(health.state("shop", ADDRESS), BackendState::Down);
        health.keep_only(&pools(&[]));
        health.keep_only(&pools(&[ADDRESS]));
        assert_eq!(health.state("shop", ADDRESS), BackendState::Healthy);
    }

    #[test]
    fn an_edit_that_keeps_a_backend_keeps_what_is_known_of_it() {
        let mut health = BackendHealth::of(&pools(&[ADDRESS]));
        health.record(&down());
        health.keep_only(&pools(&[SocketAddr::from(([10, 0, 0, 1], 80)), ADDRESS]));
        assert_eq!(health.state("shop", ADDRESS), BackendState::Down);
    }

    #[test]
    fn the_last_word_of_a_check_whose_backend_has_gone_is_not_remembered() {
        let mut health = BackendHealth::of(&pools(&[]));
        health.record(&down());
        assert_eq!(health.state("shop", ADDRESS), BackendState::Healthy);
    }
}
