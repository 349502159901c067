//! Point 1: a packet to the VIP finds its L7 worker.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Step;
use crate::demo::place::Host;
use crate::demo::process::Process;
use crate::demo::scene::Scene;
use crate::demo::status::Status;
use crate::demo::topology::FRONT_INTERFACES;
use crate::run;

pub(super) const STEPS: &[Step] = &[
    Step { number: "1.1", sentence: "XDP is attached natively to both client-facing interfaces", run: attached },
    Step { number: "1.2", sentence: "a request reaches an IPv4 VIP that no interface carries", run: over_ipv4 },
    Step { number: "1.3", sentence: "a request reaches an IPv6 VIP that no interface carries", run: over_ipv6 },
    Step { number: "1.4", sentence: "each connection reaches the worker that XDP's hash picked", run: same_worker },
    Step { number: "1.5", sentence: "traffic to no service passes untouched and uncounted", run: not_ours },
];

fn attached(scene: &mut Scene) -> Result<()> {
    let status = Status::read(scene)?;
    for name in FRONT_INTERFACES {
        let mode = status.interfaces().iter().find(|(have, _)| *have == name).map(|(_, mode)| *mode);
        ensure!(mode == Some("native"), "interface {name} is {}", mode.unwrap_or("not attached"));
    }
    Ok(())
}

fn over_ipv4(scene: &mut Scene) -> Result<()> {
    let edge = scene.place.edge();
    reaches(scene, edge)
}

fn over_ipv6(scene: &mut Scene) -> Result<()> {
    let edge = scene.place.edge_v6().context("this place has no IPv6")?;
    reaches(scene, edge)
}

fn reaches(scene: &Scene, edge: std::net::SocketAddr) -> Result<()> {
    let addresses = run::output(scene.place.command(Host::Edge, "ip").args(["-oneline", "address", "show"]))?;
    ensure!(!addresses.contains(&format!("{}/", edge.ip())), "an interface carries the VIP: {addresses}");
    let before = Status::read(scene)?.packets();
    scene.curl(Host::Machine).to(edge).get("/open/hello")?.expect_status(200)?;
    let after = Status::read(scene)?.packets();
    ensure!(after > before, "XDP counted no packet of that request");
    Ok(())
}

/// XDP counts the SYNs it hashes to each worker, sk_lookup the connections it hands over, and each worker what it
/// accepts: three countings that know nothing of one another.
fn same_worker(scene: &mut Scene) -> Result<()> {
    const CONNECTIONS: u64 = 24;
    let before = Status::read(scene)?;
    for _ in 0..CONNECTIONS {
        scene.curl(Host::Machine).get("/open/hello")?.expect_status(200)?;
    }
    let after = Status::read(scene)?;
    let mut total = 0;
    for (worker, (now_accepted, accepted_before)) in (0..).zip(after.accepted().into_iter().zip(before.accepted())) {
        let (now, old) = (after.worker(worker), before.worker(worker));
        let (picked, steered, accepted) = (now.0 - old.0, now.1 - old.1, now_accepted - accepted_before);
        ensure!(
            picked == steered && steered == accepted,
            "worker {worker}: XDP picked it {picked} times, sk_lookup steered {steered}, it accepted {accepted}"
        );
        total += accepted;
    }
    ensure!(total == CONNECTIONS, "{CONNECTIONS} connections were made, {total} accepted");
    Ok(())
}

fn not_ours(scene: &mut Scene) -> Result<()> {
    const ADDRESS: &str = "10.77.2.1:9999";
    let mut command = scene.peer(Host::Edge);
    command.args(["origin", "--name", "the edge itself", "--listen", ADDRESS]);
    let origin = Process::start("a service beside the edge", &command, Some(scene.log("beside")))?;
    let before = Status::read(scene)?.packets();
    let answer = scene.eventually("a plain service on the edge host", Duration::from_secs(5), |_| {
        run::output(Command::new("curl").args(["-sS", "--max-time", "2", &format!("http://{ADDRESS}/healthz")]))
    })?;
    origin.kill()?;
    ensure!(answer == "ok\n", "the edge host's own service answered {answer:?}");
    let counted = Status::read(scene)?.packets() - before;
    ensure!(counted == 0, "{counted} packets to no service were counted as a service's");
    Ok(())
}
