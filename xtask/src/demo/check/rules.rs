//! Point 6: why it was decided, and changing what is decided while requests go on.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Step;
use super::visitor::{OVER_THE_LIMIT, Visitor};
use crate::demo::place::Host;
use crate::demo::scene::Scene;
use crate::demo::status::Status;
use crate::run;

pub(super) const STEPS: &[Step] = &[
    Step {
        number: "6.1",
        sentence: "explain names the rule, its facts, what was required and what was had",
        run: explain,
    },
    Step { number: "6.2", sentence: "an edited rule decides within a second, and no connection is dropped", run: edit },
    Step {
        number: "6.3",
        sentence: "a broken edit is refused with all its errors and places, and the old rules go on",
        run: broken_edit,
    },
];

/// Saving, noticing, compiling, swapping.
const TAKES_EFFECT_WITHIN: Duration = Duration::from_secs(1);

fn explain(scene: &mut Scene) -> Result<()> {
    let visitor = Visitor::at_this_machine("curious");
    visitor.log_in(scene)?;
    visitor.meet_challenge(scene)?;
    let text = scene.controller_says(&["explain"])?;
    for part in
        ["POST", "/refunds", "refund-over-limit", "body.amount = 900", "totp, at most 300 s old", "had", "level 1"]
    {
        ensure!(text.contains(part), "explain does not say {part}:\n{text}");
    }
    Ok(())
}

fn edit(scene: &mut Scene) -> Result<()> {
    let visitor = Visitor::at_this_machine("editor");
    visitor.log_in(scene)?;
    visitor.refund(scene, OVER_THE_LIMIT)?.expect_status(401)?;
    let mut open = scene.curl(Host::Machine).command("/open/slow");
    let open = open.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("starting a slow request")?;

    let original = replace_rule(scene, "body.amount > 500.00", "body.amount > 5000.00")?;
    scene.eventually("the new rule", TAKES_EFFECT_WITHIN, |scene| {
        visitor.refund(scene, OVER_THE_LIMIT)?.expect_status(201).map(drop)
    })?;
    let output = open.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && text.contains("piece 10 of 10"), "the open request was cut short: {text}");

    fs::write(scene.config_file(), original)?;
    scene.eventually("the old rule", TAKES_EFFECT_WITHIN, |scene| {
        visitor.refund(scene, OVER_THE_LIMIT)?.expect_status(401).map(drop)
    })
}

fn broken_edit(scene: &mut Scene) -> Result<()> {
    let visitor = Visitor::at_this_machine("editor");
    let version = Status::read(scene)?.config_version();
    let original = replace_rule(scene, "body.amount > 500.00", "body.amont > 500.00")?;
    let broken = replace_rule(scene, "path: /**, pool: shop}", "path: /**, pool: shoop}")?;
    ensure!(original != broken, "the second edit changed nothing");

    let mut check = scene.controller_command();
    check.arg("check").arg(scene.config_file());
    let refused = run::output(&mut check).err().context("`check` accepted a broken file")?.to_string();
    for part in ["body.amont", "shoop", "^", "demo.yaml:"] {
        ensure!(refused.contains(part), "the refusal does not show {part}:\n{refused}");
    }
    let log = scene.log("controller");
    scene.eventually("the controller to report the broken file", Duration::from_secs(3), |_| {
        let text = fs::read_to_string(&log)?;
        ensure!(text.contains("amont") && text.contains("shoop"), "its log does not name both errors");
        Ok(())
    })?;
    ensure!(Status::read(scene)?.config_version() == version, "a broken file took effect");
    visitor.refund(scene, OVER_THE_LIMIT)?.expect_status(401)?;
    fs::write(scene.config_file(), original)?;
    scene.eventually("the mended file to take effect", Duration::from_secs(3), |scene| {
        ensure!(Status::read(scene)?.config_version() > version, "the configuration's version stands still");
        Ok(())
    })
}

/// Replaces a text in the configuration file as an editor would, by renaming a new file over it; returns the old text.
fn replace_rule(scene: &Scene, old: &str, new: &str) -> Result<String> {
    let file = scene.config_file();
    let text = fs::read_to_string(&file)?;
    ensure!(text.contains(old), "the configuration has no {old:?}");
    let draft = file.with_extension("yaml.new");
    fs::write(&draft, text.replace(old, new))?;
    fs::rename(&draft, &file)?;
    Ok(text)
}
