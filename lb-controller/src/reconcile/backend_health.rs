//! What the health checks last said of each backend that the configuration names.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use lb_datapath::BackendState;

use crate::config::PoolConfig;
use crate::health::HealthChange;

/// By pool and address. Backends start healthy, as L7 takes them, until a check says otherwise.
#[derive(Debug, Default)]
pub(super) struct BackendHealth(BTreeMap<(String, SocketAddr), bool>);

impl BackendHealth {
    /// Takes a change in, unless it is the last word of a check whose backend has left the configuration.
    pub(super) fn record(&mut self, pools: &[PoolConfig], change: &HealthChange) {
        if names(pools, &change.pool, change.backend) {
            self.0.insert((change.pool.to_string(), change.backend), change.healthy);
        }
    }

    /// Forgets backends that `pools` no longer names. One that comes back is new to L7, whose first check tells only of
    /// bad news: what was known before would stand for ever.
    pub(super) fn keep_only(&mut self, pools: &[PoolConfig]) {
        self.0.retain(|(pool, address), _| names(pools, pool, *address));
    }

    pub(super) fn state(&self, pool: &str, address: SocketAddr) -> BackendState {
        match self.0.get(&(pool.to_owned(), address)) {
            Some(false) => BackendState::Down,
            Some(true) | None => BackendState::Healthy,
        }
    }
}

fn names(pools: &[PoolConfig], pool: &str, address: SocketAddr) -> bool {
    pools.iter().any(|config| config.name == pool && config.backends.iter().any(|backend| backend.address == address))
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
        let mut health = BackendHealth::default();
        health.record(&pools(&[ADDRESS]), &down());
        assert_eq!(health.state("shop", ADDRESS), BackendState::Down);
        health.keep_only(&pools(&[]));
        health.keep_only(&pools(&[ADDRESS]));
        assert_eq!(health.state("shop", ADDRESS), BackendState::Healthy);
    }

    #[test]
    fn an_edit_that_keeps_a_backend_keeps_what_is_known_of_it() {
        let mut health = BackendHealth::default();
        health.record(&pools(&[ADDRESS]), &down());
        health.keep_only(&pools(&[SocketAddr::from(([10, 0, 0, 1], 80)), ADDRESS]));
        assert_eq!(health.state("shop", ADDRESS), BackendState::Down);
    }

    #[test]
    fn the_last_word_of_a_check_whose_backend_has_gone_is_not_remembered() {
        let mut health = BackendHealth::default();
        health.record(&pools(&[]), &down());
        assert_eq!(health.state("shop", ADDRESS), BackendState::Healthy);
    }
}
