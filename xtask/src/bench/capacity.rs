//! `cargo xtask bench capacity`: what the measured cost of a packet means for the speed of a link.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Bits per second of the links.
const LINKS_GBPS: [u64; 3] = [10, 25, 100];
/// Ethernet frames with their checksum; 1518 is a full packet of 1500.
const FRAME_BYTES: [u64; 4] = [64, 128, 512, 1518];
/// Preamble and the gap after each frame.
const BETWEEN_FRAMES_BYTES: u64 = 20;

/// One row of `l4.json`.
#[derive(Debug, PartialEq)]
struct Case {
    name: String,
    /// In the program, of one packet.
    program_ns: f64,
}

pub(super) fn run(json: &Path, driver_ns: f64) -> Result<()> {
    ensure!(driver_ns >= 0.0, "--driver-ns must not be below 0");
    let text = fs::read_to_string(json)
        .with_context(|| format!("reading {}; `cargo xtask bench l4` writes it", json.display()))?;
    let cases =
        cases(&text).with_context(|| format!("{}: measure anew with `cargo xtask bench l4`", json.display()))?;
    print!("{}", table(&cases, driver_ns));
    Ok(())
}

/// Rows with a cost; those of whole machines have none.
fn cases(text: &str) -> Result<Vec<Case>> {
    let rows: Vec<Value> = serde_json::from_str(text).context("it is not a list of measurements")?;
    let case = |row: &Value| {
        let (name, gross_ns) = (row["case"].as_str()?, row["ns"].as_f64()?);
        // The measuring driver's own share is no part of the program.
        let program_ns = gross_ns - row["driver_ns"].as_f64().unwrap_or(0.0);
        (program_ns > 0.0).then(|| Case { name: name.to_owned(), program_ns })
    };
    let cases: Vec<_> = rows.iter().filter_map(case).collect();
    ensure!(!cases.is_empty(), "it holds no measured case");
    Ok(cases)
}

/// What a link carries at most.
fn packets_per_second(gbps: u64, frame_bytes: u64) -> f64 {
    (gbps * 1_000_000_000) as f64 / (8 * (frame_bytes + BETWEEN_FRAMES_BYTES)) as f64
}

/// How many CPUs are busy with all of it.
fn cpus(case: &Case, driver_ns: f64, gbps: u64, frame_bytes: u64) -> f64 {
    packets_per_second(gbps, frame_bytes) * (case.program_ns + driver_ns) / 1e9
}

fn table(cases: &[Case], driver_ns: f64) -> String {
    let mut text =
        format!("CPUs that a full link keeps busy, with {driver_ns:.0} ns a packet for the card's driver\n\n");
    text.push_str(&format!("{:18}{:>8}{:>10}", "case", "ns", "Mpps/CPU"));
    for (gbps, bytes) in columns() {
        text.push_str(&format!("{:>10}", format!("{gbps}G/{bytes}")));
    }
    text.push('\n');
    for case in cases {
        let per_cpu = 1e3 / (case.program_ns + driver_ns);
        text.push_str(&format!("{:18}{:>8.0}{per_cpu:>10.2}", case.name, case.program_ns));
        for (gbps, bytes) in columns() {
            text.push_str(&format!("{:>10.1}", cpus(case, driver_ns, gbps, bytes)));
        }
        text.push('\n');
    }
    text
}

fn columns() -> impl Iterator<Item = (u64, u64)> {
    LINKS_GBPS.into_iter().flat_map(|gbps| FRAME_BYTES.map(|bytes| (gbps, bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packets_of_a_full_link_are_the_well_known_numbers() {
        for (gbps, bytes, expected) in [(10, 64, 14.88), (25, 64, 37.2), (100, 64, 148.8), (10, 1518, 0.8127)] {
            let mpps = packets_per_second(gbps, bytes) / 1e6;
            assert!((mpps - expected).abs() < 0.01, "{gbps}G of {bytes}: {mpps}");
        }
    }

    #[test]
    fn cost_times_packets_is_cpus() {
        let case = Case { name: String::from("known_flow"), program_ns: 70.0 };
        assert!((cpus(&case, 30.0, 10, 64) - 1.488).abs() < 0.001);
        let table = table(&[case], 30.0);
        assert!(table.contains("known_flow") && table.contains("10.00") && table.contains("1.5"), "{table}");
    }

    #[test]
    fn rows_with_a_cost_are_taken_without_the_drivers_share_and_what_is_no_measurement_is_refused() {
        let text = r#"[{"case": "udp", "ns": 12.5, "driver_ns": 2.5}, {"case": "e2e_one_flow", "pps": 1.0}]"#;
        assert_eq!(cases(text).expect("read"), [Case { name: String::from("udp"), program_ns: 10.0 }]);
        for text in ["", "{}", "[]", r#"[{"case": "udp"}]"#] {
            assert!(cases(text).is_err(), "{text}");
        }
    }
}
