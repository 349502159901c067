//! What stands before requests: whose a connection is, whether its source may hold one more, and whether it is ours to
//! read at all.

mod arrival;
mod hello;
mod metrics;
mod pass_through;
mod sources;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use lb_common::Source;

pub(super) use arrival::Arrival;
pub(super) use hello::Hello;
pub(super) use pass_through::{Passing, pass};
pub(super) use sources::Place;

use crate::config::{Config, ServerNames};
use crate::metrics::Metrics;
use crate::pool::{Pool, Pools};
use crate::serve::access_log::{AccessLog, Recorder};
use metrics::Counts;
use sources::Sources;

/// Whether a step-up was lately finished at a source.
type IsVerified = dyn Fn(IpAddr) -> bool + Send + Sync;

/// Shared by all workers.
pub struct Front {
    current: ArcSwap<Current>,
    sources: Arc<Sources>,
    is_verified: Box<IsVerified>,
    access_log: AccessLog,
    counts: Counts,
}

/// One configuration.
pub(super) struct Current {
    config: Arc<Config>,
    pools: Pools,
    /// Places in `pass_through` of the configuration, by name and by the name below which they are.
    exact: HashMap<String, usize>,
    below: HashMap<String, usize>,
}

/// Where a connection goes that is not ours to read.
pub(super) struct Through {
    pub(super) pool: Arc<Pool>,
    pub(super) idle: Duration,
}

impl Front {
    pub fn new(
        config: Arc<Config>,
        pools: Pools,
        recorder: &Recorder,
        is_verified: impl Fn(IpAddr) -> bool + Send + Sync + 'static,
    ) -> Arc<Front> {
        let front = Front {
            current: ArcSwap::from_pointee(Current::of(config, pools)),
            sources: Arc::default(),
            is_verified: Box::new(is_verified),
            access_log: recorder.access_log.clone(),
            counts: Counts::default(),
        };
        front.register(&recorder.metrics);
        Arc::new(front)
    }

    fn register(&self, metrics: &Metrics) {
        metrics.register(|registry| self.counts.register(registry));
    }

    /// With another configuration, for connections that come from now on.
    pub fn apply(&self, config: Arc<Config>, pools: Pools) {
        self.current.store(Arc::new(Current::of(config, pools)));
    }

    /// That is still well; zero: any is.
    pub(super) fn queueing_delay(&self) -> Duration {
        self.current.load().config.overload.queueing_delay
    }

    pub(super) fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }

    /// A place for one more connection of its source; nothing where none is counted.
    ///
    /// Errors: it holds as many as it may.
    pub(super) fn enter(&self, current: &Current, arrival: &Arrival) -> Result<Option<Place>, Full> {
        let address = arrival.address.ip().to_canonical();
        let speaks_for_others = || current.config.trusted_proxies.iter().any(|network| network.contains(&address));
        let limits = current.config.connections;
        let Some(most) = limits.per_source.filter(|_| arrival.is_a_clients && !speaks_for_others()) else {
            return Ok(None);
        };
        let source = Source::of(address);
        if let Some(place) = self.sources.enter(source, most) {
            return Ok(Some(place));
        }
        // Nothing of what somebody else carries here was ever verified, so that the question is about the wire's own.
        let place = match limits.per_verified_source {
            _ if arrival.is_proxied || !(self.is_verified)(address) => None,
            Some(most) => self.sources.enter(source, most),
            None => return Ok(None),
        };
        place.map(Some).ok_or_else(|| {
            self.counts.refused("source_limit");
            Full
        })
    }

    pub(super) fn flooded(&self) {
        self.counts.flooded();
    }

    pub(super) fn refused(&self, why: &'static str) {
        self.counts.refused(why);
    }
}

/// As many connections are open as may be.
pub(super) struct Full;

impl Current {
    fn of(config: Arc<Config>, pools: Pools) -> Current {
        let (mut exact, mut below) = (HashMap::new(), HashMap::new());
        for (index, through) in config.pass_through.iter().enumerate() {
            for names in &through.server_names {
                match names {
                    ServerNames::Exact(name) => exact.insert(name.clone(), index),
                    ServerNames::Below(parent) => below.insert(parent.clone(), index),
                };
            }
        }
        Current { config, pools, exact, below }
    }

    /// Where connections go that are for `server_name`; `None`: they end here.
    pub(super) fn through(&self, server_name: Option<&str>) -> Option<Through> {
        let name = server_name.filter(|_| !self.config.pass_through.is_empty())?.to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        let below = || self.below.get(name.split_once('.')?.1);
        let through = self.config.pass_through.get(*self.exact.get(name).or_else(below)?)?;
        Some(Through { pool: self.pools.get(&through.pool)?.clone(), idle: through.idle })
    }
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Front")
    }
}
