//! Point 4: a backend dies and comes back, and both L7 and the eBPF maps know.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Step;
use super::proxy::backends_seen;
use crate::demo::scene::Scene;
use crate::demo::status;

/// Two checks in a row, 250 ms apart, and a timeout, with a margin for a busy machine.
const DETECTED_WITHIN: Duration = Duration::from_secs(5);

pub(super) const STEPS: &[Step] = &[
    Step { number: "4.1", sentence: "a killed backend is taken out in L7 and in the eBPF map", run: out },
    Step { number: "4.2", sentence: "after that no request fails", run: no_failure },
    Step { number: "4.3", sentence: "a backend that is back is taken in again by both", run: back_in },
];

fn out(scene: &mut Scene) -> Result<()> {
    scene.kill_backend(0)?;
    sees_backend(scene, false, "down")
}

fn no_failure(scene: &mut Scene) -> Result<()> {
    let names = backends_seen(scene, 20)?;
    ensure!(names.len() == 1 && names.contains("backend-2"), "answered by {names:?}, and backend-1 is dead");
    Ok(())
}

fn back_in(scene: &mut Scene) -> Result<()> {
    scene.start_backend(0)?;
    sees_backend(scene, true, "healthy")?;
    let names = backends_seen(scene, 20)?;
    ensure!(names.len() == 2, "answered by {names:?} alone");
    Ok(())
}

fn sees_backend(scene: &mut Scene, healthy: bool, in_map: &str) -> Result<()> {
    scene.eventually("both views of backend-1 to change", DETECTED_WITHIN, |scene| {
        let views = status::backend(scene, 0)?;
        ensure!(views.healthy_in_l7 == healthy, "L7 sees it differently: {views:?}");
        ensure!(views.in_ebpf_map == in_map, "the eBPF map has it differently: {views:?}");
        Ok(())
    })
}
