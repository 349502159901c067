//! Point 7: what L7 learns of a source makes XDP treat its packets in another way.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Step;
use super::flood::Flood;
use super::visitor::{UNDER_THE_LIMIT, Visitor};
use crate::demo::place::Host;
use crate::demo::scene::Scene;
use crate::demo::status::Status;
use crate::demo::topology::{CLIENT_ADDRESS, HOSTILE_ADDRESS, MACHINE_ADDRESS};

pub(super) const STEPS: &[Step] = &[
    Step { number: "7.1", sentence: "the finished step-up marked its exact source as verified in XDP", run: verified },
    Step {
        number: "7.2",
        sentence: "in a flood from many sources the verified client's requests all succeed",
        run: served_in_flood,
    },
    Step { number: "7.3", sentence: "repeated failed step-ups block their source in XDP, and no other", run: blocked },
    Step { number: "7.4", sentence: "an operator lifts the block, and the source is answered again", run: unblocked },
];

/// First of the many forged sources.
const FIRST_FORGED: &str = "10.77.128.1";

fn verified(scene: &mut Scene) -> Result<()> {
    let status = Status::read(scene)?;
    ensure!(status.is_verified(MACHINE_ADDRESS), "{MACHINE_ADDRESS} is not among the verified: {status:?}");
    ensure!(!status.is_verified(CLIENT_ADDRESS), "{CLIENT_ADDRESS} proved nothing and is among the verified");
    Ok(())
}

/// Each forged source stays far below the limit for one source; together they are far over the service's.
fn served_in_flood(scene: &mut Scene) -> Result<()> {
    let alice = Visitor::at_this_machine("alice");
    let before = Status::read(scene)?;
    let mut flood = Flood::start(scene, FIRST_FORGED, 2_000, 20_000, 5)?;
    scene.eventually("the service's limit to bite", Duration::from_secs(2), |scene| {
        let dropped = Status::read(scene)?.dropped("service_limit", "unknown");
        ensure!(dropped > before.dropped("service_limit", "unknown"), "nothing was dropped for the service's limit");
        Ok(())
    })?;
    let mut requests = 0;
    while flood.goes_on()? {
        let answer = alice.curl(scene).get("/account").and_then(|answer| answer.expect_status(200));
        answer.with_context(|| format!("the verified client's request after {requests} good ones, in the flood"))?;
        requests += 1;
    }
    let sent = flood.sent()?;
    let after = Status::read(scene)?;
    // The others were dropped, or, once so many SYNs are pressure, answered with cookies that nobody brings back.
    let let_in = after.admitted("unknown") - before.admitted("unknown");
    ensure!(requests >= 10, "only {requests} requests were made during the flood");
    ensure!(let_in * 3 < sent, "of {sent} packets of the flood {let_in} were let in");
    ensure!(after.admitted("verified") > before.admitted("verified"), "no packet was let in for being verified");
    ensure!(alice.refund(scene, UNDER_THE_LIMIT)?.status == 201, "after the flood nothing is as before");
    Ok(())
}

fn blocked(scene: &mut Scene) -> Result<()> {
    /// Far more than the configured number of failures, so that throttling between them is of no account.
    const ATTEMPTS_AT_MOST: usize = 60;
    let attacker = Visitor { name: "attacker", host: Host::Client, address: Some(HOSTILE_ADDRESS) };
    attacker.log_in(scene)?;
    for attempt in 0.. {
        ensure!(attempt < ATTEMPTS_AT_MOST, "{ATTEMPTS_AT_MOST} wrong codes, and {HOSTILE_ADDRESS} is not blocked");
        if Status::read(scene)?.is_blocked(HOSTILE_ADDRESS) {
            break;
        }
        // Once the block bites, requests fail; the status, asked next, says whether that is why.
        if let Ok(challenge) = attacker.meet_challenge(scene) {
            let _ = attacker.answer(scene, &challenge, &scene.account.wrong_code());
        }
    }
    let before = Status::read(scene)?.dropped("blocked", "unknown");
    let refused = attacker.curl(scene).with(&["--connect-timeout", "2"]).get("/open/hello");
    ensure!(refused.is_err(), "the blocked source was answered");
    ensure!(Status::read(scene)?.dropped("blocked", "unknown") > before, "the block dropped nothing");
    scene.curl(Host::Client).get("/open/hello")?.expect_status(200).context("the client's other address")?;
    scene.curl(Host::Machine).get("/open/hello")?.expect_status(200).context("the other client")?;
    Ok(())
}

fn unblocked(scene: &mut Scene) -> Result<()> {
    let said = scene.controller_says(&["unblock", HOSTILE_ADDRESS])?;
    ensure!(said.contains("no longer blocked"), "unblock says: {said}");
    ensure!(!Status::read(scene)?.is_blocked(HOSTILE_ADDRESS), "status still lists the block");
    let freed = Visitor { name: "freed", host: Host::Client, address: Some(HOSTILE_ADDRESS) };
    freed.curl(scene).with(&["--connect-timeout", "2"]).get("/open/hello")?.expect_status(200)?;
    let said = scene.controller_says(&["unblock", HOSTILE_ADDRESS])?;
    ensure!(said.contains("was not blocked"), "a second unblock says: {said}");
    Ok(())
}
