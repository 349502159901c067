//! Rounds in which cases and programs take turns, after a check that what is timed is what is meant.

use std::collections::HashSet;

use lb_tests::packet::has_right_checksums;
use lb_tests::program::Bench;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::cases::{self, Case, List};
use crate::driver::{Companion, Driver, XDP_ABORTED};
use crate::lists::Lists;

/// One case's figures.
#[derive(serde::Serialize)]
pub(crate) struct Figure {
    pub(crate) case: &'static str,
    /// Gross: the runner's loop, the driver and the program.
    pub(crate) ns: f64,
    /// Gross: the runner's loop, the driver and the floor.
    pub(crate) floor_ns: f64,
    /// `ns / floor_ns`.
    pub(crate) ratio: f64,
    /// What the driver adds to the runner's loop.
    pub(crate) driver_ns: f64,
}

/// One case's packets before each of the programs.
struct Row {
    case: Case,
    program: Driver,
    floor: Driver,
    bare: Driver,
}

/// Nanoseconds per packet, one element a round.
#[derive(Default)]
struct Samples {
    program: Vec<f64>,
    floor: Vec<f64>,
    driver: Vec<f64>,
    loop_alone: Vec<f64>,
}

pub(crate) fn all(bench: &mut Bench, object: &[u8], only: &str, rounds: usize, packets: u32) -> Vec<Figure> {
    stay_on_one_cpu();
    cases::switch_everything_on(bench);
    let lists = Lists::new();
    let program = bench.datapath.xdp_program().expect("loaded");
    let rows: Vec<Row> = cases::all()
        .into_iter()
        .filter(|case| case.name.contains(only))
        .map(|case| Row {
            program: Driver::of_program(object, &case, program),
            floor: Driver::of_companion(object, &case, Companion::Floor),
            bare: Driver::of_companion(object, &case, Companion::Bare),
            case,
        })
        .collect();
    let mut in_force = None;
    for row in &rows {
        put_in_force(bench, &lists, row.case.list, &mut in_force);
        check_frames(row);
        check_outcome(bench, row);
    }
    let mut samples: Vec<Samples> = rows.iter().map(|_| Samples::default()).collect();
    for _ in 0..rounds {
        for (row, samples) in rows.iter().zip(&mut samples) {
            if put_in_force(bench, &lists, row.case.list, &mut in_force) {
                // Writing a list leaves the caches full of it.
                row.program.run(packets);
            }
            samples.loop_alone.push(row.bare.run_alone(Companion::Bare, packets).nanoseconds_per_packet);
            samples.driver.push(row.bare.run(packets).nanoseconds_per_packet);
            samples.floor.push(row.floor.run(packets).nanoseconds_per_packet);
            samples.program.push(row.program.run(packets).nanoseconds_per_packet);
        }
    }
    rows.iter().zip(samples).map(|(row, samples)| figure(row.case.name, samples)).collect()
}

/// `true` if another list was.
fn put_in_force(bench: &mut Bench, lists: &Lists, wanted: List, in_force: &mut Option<List>) -> bool {
    let is_new = in_force.replace(wanted) != Some(wanted);
    if is_new {
        bench.datapath.replace_lists(lists.get(wanted)).expect("the maps take the list");
    }
    is_new
}

/// The last CPU that this process may use: interrupts mostly go to the first.
pub(crate) fn stay_on_one_cpu() {
    let this_thread = Pid::from_raw(0);
    let allowed = sched_getaffinity(this_thread).expect("the CPUs of this process");
    let last = (0..CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu).unwrap_or(false)).expect("a CPU");
    let mut only = CpuSet::new();
    only.set(last).expect("a CPU's number");
    sched_setaffinity(this_thread, &only).expect("this thread stays on one CPU");
}

/// The driver writes what the case says, with right checksums, and other packets each time if they vary.
fn check_frames(row: &Row) {
    const PACKETS: usize = 1000;
    let case = &row.case;
    let mut seen = HashSet::new();
    for _ in 0..PACKETS {
        let frame = row.bare.run(1).frame;
        let is_as_built = case.varied_bits == [0, 0];
        assert!(
            is_as_built || has_right_checksums(&frame),
            "{}: the driver wrote wrong checksums: {frame:02x?}",
            case.name
        );
        seen.insert(frame);
    }
    match case.varied_bits {
        [0, 0] => assert_eq!(seen, HashSet::from([case.frame.clone()]), "{}: not the case's frame", case.name),
        // Among 2^19 flows some of the first 1,000 packets may meet.
        _ => assert!(seen.len() > PACKETS * 99 / 100, "{}: only {} different frames", case.name, seen.len()),
    }
    let floor = row.floor.run(1);
    assert_eq!(floor.verdict, 3, "{}: the floor did not send the packet back", case.name);
}

/// Of all the packets nearly all end as the case says, by the data plane's own counters.
fn check_outcome(bench: &Bench, row: &Row) {
    const PACKETS: u32 = 100_000;
    let count = || {
        let stats = bench.reader.stats().expect("counters");
        stats.packets(row.case.reason, row.case.reason.class())
    };
    let before = count();
    let runs = row.program.run(PACKETS);
    let counted = count() - before;
    assert_ne!(runs.verdict, XDP_ABORTED, "{}: the driver found no subject", row.case.name);
    let reason = row.case.reason.metric_name();
    // A million prefixes cover every twelfth IPv4 address; what they deny ends sooner and costs less.
    let least_percent = if row.case.list == List::Million { 90 } else { 99 };
    let least = u64::from(PACKETS) * least_percent / 100;
    assert!(counted >= least, "{}: {counted} of {PACKETS} ended as {reason}", row.case.name);
}

fn figure(case: &'static str, samples: Samples) -> Figure {
    let [ns, floor_ns, driver_ns, loop_ns] =
        [samples.program, samples.floor, samples.driver, samples.loop_alone].map(median);
    Figure { case, ns, floor_ns, ratio: ns / floor_ns, driver_ns: driver_ns - loop_ns }
}

pub(crate) fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
