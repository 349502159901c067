//! The figures for people and for scripts.

use std::fs;
use std::path::Path;

use crate::end_to_end::Rate;
use crate::measure::Figure;

#[derive(serde::Serialize)]
#[serde(untagged)]
enum Row<'a> {
    Cost(&'a Figure),
    Rate(&'a Rate),
}

pub(crate) fn print(figures: &[Figure], rates: &[Rate]) {
    println!("{:<14} {:>8} {:>9} {:>8} {:>10}", "case", "ns", "floor ns", "÷ floor", "driver ns");
    for Figure { case, ns, floor_ns, ratio, driver_ns } in figures {
        println!("{case:<14} {ns:>8.1} {floor_ns:>9.1} {ratio:>8.2} {driver_ns:>10.1}");
    }
    println!("\n{:<20} {:>8} {:>11} {:>8}", "case", "Mpps", "floor Mpps", "÷ floor");
    for Rate { case, pps, floor_pps, ratio } in rates {
        println!("{case:<20} {:>8.2} {:>11.2} {ratio:>8.2}", pps / 1e6, floor_pps / 1e6);
    }
}

/// `[{case, ns, floor_ns, ratio, driver_ns}]`, then `[{case, pps, floor_pps, ratio}]` in the same array.
pub(crate) fn write(figures: &[Figure], rates: &[Rate], path: &Path) {
    let folder = path.parent().expect("a file in a folder");
    let rows: Vec<_> = figures.iter().map(Row::Cost).chain(rates.iter().map(Row::Rate)).collect();
    fs::create_dir_all(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let json = serde_json::to_string_pretty(&rows).expect("figures are JSON");
    fs::write(path, json + "\n").unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    eprintln!("The figures are in {}", path.display());
}
