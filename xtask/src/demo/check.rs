//! `cargo xtask demo --check`: the scene driven by itself, step by step, as a user and an attacker would.

mod crash;
mod flood;
mod health;
mod joint;
mod proxy;
mod reach;
mod rules;
mod stepup;
mod visitor;

use std::time::Instant;

use anyhow::{Result, bail, ensure};

use super::scene::Scene;
use super::topology;

/// One thing the edge must do. Steps build on those before them.
pub(crate) struct Step {
    number: &'static str,
    sentence: &'static str,
    run: fn(&mut Scene) -> Result<()>,
}

/// Everything, in order.
const CHAPTERS: &[&[Step]] =
    &[reach::STEPS, flood::STEPS, proxy::STEPS, health::STEPS, stepup::STEPS, rules::STEPS, joint::STEPS, crash::STEPS];

/// Runs the steps that match `only`; stops at the first that fails.
pub(crate) fn run(scene: &mut Scene, only: Option<&str>) -> Result<()> {
    let wanted = |step: &&Step| only.is_none_or(|text| step.number.starts_with(text) || step.sentence.contains(text));
    let steps: Vec<_> = CHAPTERS.iter().flat_map(|chapter| chapter.iter()).filter(wanted).collect();
    ensure!(!steps.is_empty(), "no step matches {:?}", only.unwrap_or_default());
    let start = Instant::now();
    for (done, step) in steps.iter().enumerate() {
        scene.interrupt.check()?;
        let begun = Instant::now();
        if let Err(error) = (step.run)(scene) {
            println!("FAIL {}  {}\n     {error:#}", step.number, step.sentence);
            print_status(scene);
            print_logs(scene);
            bail!("step {} failed after {done} good ones", step.number);
        }
        println!("ok   {}  {} ({:.1} s)", step.number, step.sentence, begun.elapsed().as_secs_f32());
    }
    println!("{} steps in {:.0} s", steps.len(), start.elapsed().as_secs_f32());
    Ok(())
}

/// The last step, when the scene is gone.
pub(crate) fn nothing_remains() -> Result<()> {
    const SENTENCE: &str = "nothing remains: no namespace, link, route or pin";
    let remains = topology::remains()?;
    if !remains.is_empty() {
        println!("FAIL 8.9  {SENTENCE}\n     {}", remains.join("\n     "));
        bail!("the demo left something behind");
    }
    println!("ok   8.9  {SENTENCE}");
    Ok(())
}

/// Which counters moved says more of a lost packet than any log.
fn print_status(scene: &Scene) {
    let status = scene.controller_says(&["status"]).unwrap_or_else(|error| format!("cannot be read: {error:#}"));
    println!("     the edge's status:");
    status.lines().for_each(|line| println!("     | {line}"));
}

/// The log vanishes with the scene, and it is what one wants to read now.
fn print_logs(scene: &Scene) {
    let log = scene.log("controller");
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    println!("     the controller's last lines:");
    for line in &lines[lines.len().saturating_sub(10)..] {
        println!("     | {line}");
    }
}
