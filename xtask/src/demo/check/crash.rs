//! Point 8: the controller dies, the kernel's part goes on, and a new controller takes it over.

use anyhow::{Result, ensure};

use super::Step;
use super::flood::Flood;
use super::visitor::Visitor;
use crate::demo::place::Host;
use crate::demo::scene::Scene;
use crate::demo::status::Status;
use crate::demo::topology::{CLIENT_ADDRESS, FRONT_INTERFACES, MACHINE_ADDRESS};

pub(super) const STEPS: &[Step] = &[
    Step { number: "8.1", sentence: "a second controller is refused while the first runs", run: second_controller },
    Step {
        number: "8.2",
        sentence: "after kill -9 XDP stays, counts on, and status reads it from the pins",
        run: killed,
    },
    Step { number: "8.3", sentence: "a new controller takes over maps, marks and sessions", run: taken_over },
];

/// `lb-controller`'s exit code for an instance that runs already.
const ALREADY_RUNNING: i32 = 9;

fn second_controller(scene: &mut Scene) -> Result<()> {
    let mut command = scene.controller_command();
    let output = command.args(["run", "--config"]).arg(scene.config_file()).output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(ALREADY_RUNNING), "it ended with {}: {told}", output.status);
    scene.still_runs()?;
    scene.curl(Host::Machine).get("/open/hello")?.expect_status(200)?;
    Ok(())
}

fn killed(scene: &mut Scene) -> Result<()> {
    scene.kill_controller()?;
    let before = Status::read(scene)?;
    ensure!(!before.controller_runs(), "status still sees the dead controller");
    ensure!(before.interfaces().len() == FRONT_INTERFACES.len(), "attached are {:?}", before.interfaces());
    let sent = Flood::start(scene, CLIENT_ADDRESS, 1, 500, 1)?.sent()?;
    let counted = Status::read(scene)?.packets() - before.packets();
    ensure!(counted >= sent, "{sent} packets were sent and {counted} counted while the controller was down");
    Ok(())
}

fn taken_over(scene: &mut Scene) -> Result<()> {
    let before = Status::read(scene)?;
    scene.start_controller()?;
    let after = Status::read(scene)?;
    ensure!(after.controller_runs(), "the new controller does not answer");
    ensure!(after.packets() > before.packets(), "counters began anew: {} then {}", before.packets(), after.packets());
    ensure!(after.is_verified(MACHINE_ADDRESS), "the new controller forgot that {MACHINE_ADDRESS} is verified");
    let alice = Visitor::at_this_machine("alice");
    alice.curl(scene).get("/account")?.expect_status(200).map(drop)
}
