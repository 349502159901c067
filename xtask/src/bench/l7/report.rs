//! The figures as a table and as JSON.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::cases::Case;
use super::{Values, peers};

/// Everybody's median, and how many times better than the peer ours is: above 1 we are ahead.
pub(super) fn table(cases: &[&Case], values: &Values) -> String {
    let mut text = format!("\n{:18}", "case");
    for name in peers::NAMES {
        text.push_str(&format!("{name:>10}"));
    }
    text.push_str("   of best   of Envoy  unit\n");
    for case in cases {
        text.push_str(&format!("{:18}", case.name));
        for name in peers::NAMES {
            text.push_str(&median(values, case, name).map_or_else(|| format!("{:>10}", "-"), number));
        }
        let ratio =
            |ratio: Option<f64>| ratio.map_or_else(|| format!("{:>11}", "-"), |ratio| format!("{ratio:>10.2}×"));
        text.push_str(&ratio(to_best(values, case, peers::OURS)));
        text.push_str(&ratio(ahead(values, case, peers::OURS, "envoy")));
        text.push_str(&format!("  {}\n", case.unit));
    }
    text
}

pub(super) fn write(path: &Path, cases: &[&Case], values: &Values) -> Result<()> {
    let mut rows: Vec<Value> = Vec::new();
    for (case, subject) in cases.iter().flat_map(|case| peers::NAMES.map(|subject| (case, subject))) {
        if let Some(value) = median(values, case, subject) {
            rows.push(json!({
                "case": case.name,
                "subject": subject,
                "value": value,
                "unit": case.unit,
                "ratio_to_best_peer": to_best(values, case, subject),
            }));
        }
    }
    fs::write(path, serde_json::to_string_pretty(&rows)?).with_context(|| format!("writing {}", path.display()))
}

fn number(value: f64) -> String {
    if value < 100.0 { format!("{value:>10.1}") } else { format!("{value:>10.0}") }
}

fn median(values: &Values, case: &Case, subject: &'static str) -> Option<f64> {
    let mut values = values.get(&(case.name, subject))?.clone();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Against the better of nginx and HAProxy.
fn to_best(values: &Values, case: &Case, subject: &'static str) -> Option<f64> {
    let against = |peer| ahead(values, case, subject, peer);
    [against("nginx"), against("haproxy")].into_iter().flatten().min_by(f64::total_cmp)
}

/// Of rounds that belong together, the median of the ratios: what slowed one down slowed the other down.
fn ahead(values: &Values, case: &Case, subject: &'static str, peer: &'static str) -> Option<f64> {
    let (ours, theirs) = (values.get(&(case.name, subject))?, values.get(&(case.name, peer))?);
    let ratio = |(ours, theirs): (&f64, &f64)| if case.more_is_better { ours / theirs } else { theirs / ours };
    let mut ratios: Vec<f64> = ours.iter().zip(theirs).map(ratio).collect();
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied()
}
