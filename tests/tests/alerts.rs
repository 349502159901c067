//! The alerts of `examples/alerts.yaml`, judged by Prometheus itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lb_tests::level;
use lb_tests::site::{Plan, Site};
use lb_tests::visitor::Visitor;

const ALERTS: &str = include_str!("../../examples/alerts.yaml");
const DASHBOARD: &str = include_str!("../../examples/grafana.json");
const ROWS: &str = include_str!("alerts.test.yaml");

#[test]
fn each_alert_fires_by_what_its_name_says_and_not_by_what_is_usual() -> Result<()> {
    let promtool = std::env::var_os("LB_PROMTOOL").map(PathBuf::from);
    if level::is_skipped("peers", promtool.is_none().then_some("needs promtool; run `cargo xtask test`")) {
        return Ok(());
    }
    let rows = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/alerts.test.yaml");
    let output = Command::new(promtool.context("it is there")?).args(["test", "rules", rows]).output()?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    Ok(())
}

#[test]
fn each_alert_has_a_row_in_which_it_fires_and_one_in_which_it_does_not() {
    let named = |text: &str| text.split("alert: ").skip(1).map(first_word).collect::<BTreeSet<String>>();
    let mut rows: BTreeMap<String, [bool; 2]> = BTreeMap::new();
    for row in ROWS.split("alertname: ").skip(1) {
        let is_quiet = row.lines().next().unwrap_or_default().contains("exp_alerts: []");
        rows.entry(first_word(row)).or_default()[usize::from(is_quiet)] = true;
    }
    let in_both: BTreeSet<String> =
        rows.into_iter().filter(|(_, both)| *both == [true, true]).map(|(name, _)| name).collect();
    assert_eq!(named(ALERTS), in_both);
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_ascii_alphanumeric()).collect()
}

#[tokio::test]
async fn each_metric_that_an_alert_or_the_dashboard_names_is_one_that_the_program_has() -> Result<()> {
    const REST: &str = "identity_providers:
  - {name: corp, issuer: \"https://127.0.0.1:9\", client_id: lb}
rules:
  - {id: refund, match: {paths: [/refunds]}, require: {methods: [totp]}}
";
    let Some(site) = Site::start(Plan::of(REST)).await? else { return Ok(()) };
    // Counters are there once they count: a login, a challenge that is given up, a key that was revoked.
    let mut alice = site.alice().await?;
    site.challenge_url(&alice.get(&site.url("/refunds"), &[]).await?)?;
    alice.post(&site.url("/.lb/logout"), &[], &[]).await?;
    let key = site.edge.command(&["api-keys", "create", "--user", "nightly", "--name", "n"])?.trim().to_owned();
    let id = key.rsplit_once('.').context("a key has a secret")?.0;
    site.edge.command(&["api-keys", "revoke", id])?;
    let bearer = format!("Bearer {key}");
    let refused = Visitor::default().get(&site.url("/"), &[("authorization", &bearer)]).await?;
    ensure!(refused.status == 401, "{}", refused.status);
    let names = site.edge.metric_names()?;
    for text in [ALERTS, DASHBOARD] {
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let words = text.split(|letter: char| !is_part(letter)).filter(|word| word.starts_with("lb_"));
        let named: BTreeSet<&str> = words.map(|word| word.trim_end_matches("_bucket")).collect();
        ensure!(named.len() >= 10, "{named:?}");
        // Those of packets are there where packets are seen.
        let is_unknown = |name: &&&str| !name.starts_with("lb_xdp_") && !names.contains(**name);
        let unknown: Vec<&&str> = named.iter().filter(is_unknown).collect();
        ensure!(unknown.is_empty(), "{unknown:?} are not among {names:?}");
    }
    Ok(())
}

#[test]
fn the_dashboard_is_json_and_promtool_reads_each_of_its_questions() -> Result<()> {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let questions: Vec<&str> = targets.filter_map(|target| target["expr"].as_str()).collect();
    ensure!(questions.len() >= 10, "{questions:?}");
    let promtool = std::env::var_os("LB_PROMTOOL").map(PathBuf::from);
    if level::is_skipped("peers", promtool.is_none().then_some("needs promtool; run `cargo xtask test`")) {
        return Ok(());
    }
    let rule = |question: &&str| format!("      - {{record: \"x:y\", expr: {question:?}}}\n");
    let rules: String = questions.iter().map(rule).collect();
    let rules = format!("groups:\n  - name: dashboard\n    rules:\n{rules}").replace("$__rate_interval", "1m");
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("rules.yaml");
    std::fs::write(&file, rules)?;
    let output =
        Command::new(promtool.context("it is there")?).args(["check", "rules", "--lint=none"]).arg(&file).output()?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    Ok(())
}
