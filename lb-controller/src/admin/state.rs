//! What the admin API reads from, and how it puts its answers together.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use anyhow::{Context, ensure};
use lb_datapath::{BackendStatus, Reader, Source};
use tokio::sync::oneshot;

use crate::config::{BackendOrigin, Config, DiscoverFrom};
use crate::datapath_report;
use crate::discovery::Discovered;
use crate::edge::Edge;
use crate::handover::DrainingProcesses;
use crate::lists::Lists;
use crate::pool::BackendView;
use crate::reconcile::Wish;
use crate::report::{Backend, BackendL7, Certificate, Controller, Status};
use crate::samples::Samples;
use crate::shutdown::Shutdown;

/// The running edge, as the admin API sees it.
pub struct AdminState {
    pub edge: Arc<Edge>,
    /// `None` when L7 runs alone.
    pub datapath: Option<Reader>,
    pub wishes: Sender<Wish>,
    pub lists: Arc<Lists>,
    pub samples: Samples,
    /// Tells what certificates are served.
    pub certificates: Box<dyn Fn() -> Vec<Certificate> + Send + Sync>,
    pub shutdown: Shutdown,
    pub started: Instant,
    pub listen: Option<SocketAddr>,
    /// Counts up with every upgrade, from 1.
    pub generation: u32,
    /// Processes that were replaced and have not ended yet.
    pub draining: Arc<DrainingProcesses>,
    pub discovered: Arc<Discovered>,
}

impl AdminState {
    /// Lifts the block of the source that `address` belongs to; `false` if there was none.
    pub(super) async fn unblock(&self, address: IpAddr) -> anyhow::Result<bool> {
        ensure!(self.datapath.is_some(), "L7 runs alone here: nothing is blocked in XDP");
        let (done, lifted) = oneshot::channel();
        let source = Source::of(address);
        self.wishes.send(Wish::Unblock { source, done }).context("the edge is stopping")?;
        let lifted = lifted.await.context("the edge is stopping")?.map_err(anyhow::Error::msg)?;
        tracing::info!(target: "audit", event = "unblock", %source, lifted, "asked for by an operator");
        Ok(lifted)
    }

    pub(super) fn status(&self) -> anyhow::Result<Status> {
        Ok(Status {
            controller: Some(Controller {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                uptime_seconds: self.started.elapsed().as_secs(),
                config_version: self.edge.snapshot().version,
                listen: self.listen,
                accepted_by_worker: self.edge.metrics.workers().iter().map(|worker| worker.accepted).collect(),
                generation: self.generation,
                draining: self.draining.list(),
                discovered: self.discovered.list(),
            }),
            datapath: self.datapath.as_ref().map(datapath_report::of).transpose()?,
        })
    }

    pub(super) fn backends(&self) -> anyhow::Result<Vec<Backend>> {
        let in_maps = self.datapath.as_ref().map(Reader::backends).transpose()?.unwrap_or_default();
        let in_maps: HashMap<(&str, SocketAddr), &BackendStatus> =
            in_maps.iter().map(|entry| ((entry.pool.as_str(), entry.address), entry)).collect();
        let now = self.edge.clock.now();
        let snapshot = self.edge.snapshot();
        let found = found(&snapshot.config);
        let backend = |view: BackendView| {
            let in_map = in_maps.get(&(view.pool.as_str(), view.address)).copied();
            Backend {
                from: found.get(&(view.pool.as_str(), view.address)).map(ToString::to_string),
                ebpf: in_map.map(|entry| entry.state.name().to_owned()),
                l4: in_map.map(datapath_report::backend_l4),
                pool: view.pool,
                address: view.address,
                l7: Some(BackendL7 {
                    healthy: view.healthy,
                    state: view.state.to_owned(),
                    latency_us: view.latency_us,
                    for_seconds: now.saturating_sub(view.since),
                    requests: view.requests,
                    in_flight: view.in_flight.into(),
                    last_error: view.last_error,
                }),
            }
        };
        Ok(snapshot.pools.list().into_iter().map(backend).collect())
    }
}

/// Where backends were found; those that are not among them the configuration names.
fn found(config: &Config) -> HashMap<(&str, SocketAddr), &DiscoverFrom> {
    let pools = config.pools.iter().filter_map(|pool| Some((pool, &pool.discover.as_ref()?.from)));
    let backends = pools.flat_map(|(pool, from)| {
        let found = pool.backends.iter().filter(|backend| backend.origin == BackendOrigin::Discovered);
        found.map(move |backend| ((pool.name.as_str(), backend.address), from))
    });
    backends.collect()
}
