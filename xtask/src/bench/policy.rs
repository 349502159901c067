//! `cargo xtask bench policy`: what deciding costs, and knowing who asks.

use std::fs;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::paths::Workspace;

/// Packages with a benchmark each; it prints a JSON list of cases.
const BENCHMARKS: [(&str, &str); 2] = [("lb-policy", "decide"), ("lb-controller", "sessions")];

pub(super) fn run(workspace: &Workspace) -> Result<()> {
    let mut rows: Vec<Value> = Vec::new();
    for (package, benchmark) in BENCHMARKS {
        rows.extend(cases(workspace, package, benchmark)?);
    }
    print!("{}", table(&rows));
    let json = workspace.target.join("bench/policy.json");
    fs::create_dir_all(workspace.target.join("bench")).context("making target/bench")?;
    fs::write(&json, serde_json::to_string_pretty(&rows)?).with_context(|| format!("writing {}", json.display()))?;
    println!("\nalso in {}", json.display());
    let allocating: Vec<&Value> = rows.iter().filter(|row| row["allocs"].as_u64().unwrap_or(0) > 0).collect();
    ensure!(allocating.is_empty(), "decisions allocate: {allocating:?}");
    Ok(())
}

/// Built as it ships, with all optimisations.
fn cases(workspace: &Workspace, package: &str, benchmark: &str) -> Result<Vec<Value>> {
    let mut cargo = workspace.cargo();
    cargo.args(["bench", "--quiet", "--package", package, "--bench", benchmark]);
    let output = cargo.stderr(Stdio::inherit()).output().context("starting cargo")?;
    ensure!(output.status.success(), "the benchmark {benchmark} of {package} failed; see the message above");
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).with_context(|| format!("{benchmark} of {package} printed no list of cases: {text}"))
}

fn table(rows: &[Value]) -> String {
    let mut text =
        format!("{:14}{:>8}{:>10}{:>10}{:>8}{:>8}\n", "case", "rules", "ns p50", "ns p99", "allocs", "tried");
    for row in rows {
        let number = |key: &str| row[key].as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string());
        text.push_str(&format!(
            "{:14}{:>8}{:>10}{:>10}{:>8}{:>8}\n",
            row["case"].as_str().unwrap_or_default(),
            number("rules"),
            number("ns_p50"),
            number("ns_p99"),
            number("allocs"),
            number("rules_tried"),
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_a_line_and_what_it_does_not_measure_is_a_dash() {
        let rows: Vec<Value> =
            serde_json::from_str(r#"[{"case": "cookie_open", "rules": 0, "ns_p50": 900, "ns_p99": 1200}]"#)
                .expect("sound JSON");
        let table = table(&rows);
        assert!(table.lines().nth(1).expect("a line").split_whitespace().eq([
            "cookie_open",
            "0",
            "900",
            "1200",
            "-",
            "-"
        ]));
    }
}
