//! `lb-controller doctor`: can this machine run the data plane, and what would keep it from running well?

use std::path::PathBuf;

use lb_datapath::{Finding, Grade, examine_interface, examine_kernel};
use serde::Serialize;

use super::output::{Paint, paint, print, print_json, table};
use crate::failure::{ExitKind, Failure};
use crate::instance::Instance;
use crate::report::MapSize;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Look at this interface (repeat for several).
    #[arg(long = "iface", value_name = "IFACE")]
    interfaces: Vec<String>,

    /// Look at the interfaces of this configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Examination {
    kernel: Vec<Seen>,
    interfaces: Vec<Interface>,
    maps: Vec<MapSize>,
}

#[derive(Serialize)]
struct Interface {
    name: String,
    findings: Vec<Seen>,
}

#[derive(Serialize)]
struct Seen {
    what: &'static str,
    grade: &'static str,
    found: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    remedy: String,
    #[serde(skip)]
    is_bad: bool,
}

pub(super) fn run(instance: &Instance, arguments: Arguments) -> Result<(), Failure> {
    let mut interfaces = arguments.interfaces;
    if let Some(file) = &arguments.config {
        interfaces.extend(super::check::load(file)?.0.interfaces);
    }
    let (kernel, maps) = examine_kernel(&instance.pin_root());
    let examination = Examination {
        kernel: seen(kernel),
        interfaces: interfaces
            .into_iter()
            .map(|name| Interface { findings: seen(examine_interface(&name)), name })
            .collect(),
        maps: maps.iter().map(MapSize::from).collect(),
    };
    if arguments.json {
        print_json(&examination)?;
    } else {
        show(&examination);
    }
    verdict(&examination)
}

fn seen(findings: Vec<Finding>) -> Vec<Seen> {
    let seen = |Finding { what, grade, found, remedy }| Seen {
        what,
        grade: Grade::name(grade),
        found,
        remedy,
        is_bad: grade == Grade::Bad,
    };
    findings.into_iter().map(seen).collect()
}

fn verdict(examination: &Examination) -> Result<(), Failure> {
    let unfit = |kind, what: String| Err(Failure::new(kind, anyhow::anyhow!("{what}; the remedies are above")));
    // Without rights nothing else can be told.
    if examination.kernel.iter().any(|seen| seen.is_bad && seen.what == "capabilities") {
        return unfit(ExitKind::Permission, "this process may not load programs".to_owned());
    }
    if examination.kernel.iter().any(|seen| seen.is_bad) {
        return unfit(ExitKind::Kernel, "the data plane cannot run on this kernel as it is".to_owned());
    }
    match examination.interfaces.iter().find(|interface| interface.findings.iter().any(|seen| seen.is_bad)) {
        Some(interface) => unfit(ExitKind::Interface, format!("interface {:?} is not fit", interface.name)),
        None => Ok(()),
    }
}

fn show(examination: &Examination) {
    show_findings("Kernel", &examination.kernel);
    for interface in &examination.interfaces {
        show_findings(&format!("Interface {}", interface.name), &interface.findings);
    }
    let mut rows = table(&["map", "entries", "KiB"]);
    for map in examination.maps.iter().filter(|map| map.bytes >= 1 << 20) {
        rows.add_row([map.name.clone(), map.entries.to_string(), (map.bytes >> 10).to_string()]);
    }
    let (small, rest) = examination
        .maps
        .iter()
        .filter(|map| map.bytes < 1 << 20)
        .fold((0, 0), |(count, bytes), map| (count + 1, bytes + map.bytes));
    rows.add_row([format!("{small} smaller ones"), String::new(), (rest >> 10).to_string()]);
    print("Maps", &rows);
}

fn show_findings(title: &str, findings: &[Seen]) {
    let mut rows = table(&["", "", ""]);
    for seen in findings {
        rows.add_row([seen.what, seen.grade, &seen.found]);
    }
    print(title, &rows);
    for seen in findings.iter().filter(|seen| !seen.remedy.is_empty()) {
        let mark = if seen.is_bad { Paint::Bad } else { Paint::Bold };
        say!("{} {}: {}", paint(mark, seen.what), seen.found, seen.remedy);
    }
    if findings.iter().any(|seen| !seen.remedy.is_empty()) {
        say!("");
    }
}
