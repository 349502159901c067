//! Every program loads, whatever its globals say: the verifier removes what they rule out and follows the rest, so each
//! combination is another program to it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::{Duration, Instant};

use lb_datapath::{Globals, Verified, verify};
use lb_tests::level::has_root;
use lb_tests::program::chain;
use object::{Object, ObjectSection, ObjectSymbol};

/// The verifier gives up at a million; what comes near it fails on another kernel's verifier.
const MOST_INSTRUCTIONS: u32 = 800_000;
const MOST_TIME: Duration = Duration::from_secs(300);

type Set = fn(&mut Globals);

/// What a global can be: the first way is off, or the least; the last is on, or the most.
const FACTORS: [(&str, &[Set]); 6] = [
    ("log", &[|globals| globals.log_level = 0, |globals| globals.log_level = 4]),
    ("cookie timestamps", &[|globals| globals.cookie_timestamps = 0, |globals| globals.cookie_timestamps = 1]),
    ("cookie window scale", &[|globals| globals.cookie_window_scale = 0, |globals| globals.cookie_window_scale = 14]),
    (
        "cookie segment",
        &[|globals| globals.cookie_segment_bytes = 536, |globals| globals.cookie_segment_bytes = u16::MAX - 40],
    ),
    ("tick", &[|globals| globals.tick_ns = 1_000_000, |globals| globals.tick_ns = 10_000_000]),
    (
        "keys",
        &[
            |globals| (globals.connection_key, globals.source_key) = ([0; 2], [0; 2]),
            |globals| (globals.connection_key, globals.source_key) = ([u64::MAX; 2], [u64::MAX; 2]),
        ],
    ),
];

/// One choice for each factor.
type Row = [usize; FACTORS.len()];

/// All off, all on, each alone, each alone missing, and from there whatever pairs are left.
fn rows() -> Vec<Row> {
    let last = FACTORS.map(|(_, ways)| ways.len() - 1);
    let mut rows = vec![[0; FACTORS.len()], last];
    for factor in 0..FACTORS.len() {
        let (mut alone, mut missing) = ([0; FACTORS.len()], last);
        (alone[factor], missing[factor]) = (last[factor], 0);
        rows.extend([alone, missing]);
    }
    let mut left = pairs().difference(&rows.iter().flat_map(pairs_of).collect()).copied().collect::<BTreeSet<_>>();
    while let Some(((one, of_one), (other, of_other))) = left.first().copied() {
        let mut row = [0; FACTORS.len()];
        (row[one], row[other]) = (of_one, of_other);
        for pair in pairs_of(&row) {
            left.remove(&pair);
        }
        rows.push(row);
    }
    rows
}

type Pair = ((usize, usize), (usize, usize));

fn pairs() -> BTreeSet<Pair> {
    let choices = (0..FACTORS.len()).flat_map(|factor| (0..FACTORS[factor].1.len()).map(move |way| (factor, way)));
    let choices: Vec<_> = choices.collect();
    let all = choices.iter().flat_map(|one| choices.iter().map(move |other| (*one, *other)));
    all.filter(|(one, other)| one.0 < other.0).collect()
}

fn pairs_of(row: &Row) -> Vec<Pair> {
    let choices: Vec<_> = row.iter().copied().enumerate().collect();
    let all = choices.iter().flat_map(|one| choices.iter().map(move |other| (*one, *other)));
    all.filter(|(one, other)| one.0 < other.0).collect()
}

#[test]
fn the_rows_hold_every_pair_of_choices() {
    let covered: BTreeSet<_> = rows().iter().flat_map(pairs_of).collect();
    assert_eq!(covered, pairs());
}

#[test]
fn every_global_of_the_object_is_set_before_loading() {
    let Some(bytes) = std::env::var_os("LB_OBJECT").map(|path| std::fs::read(path).expect("the object")) else {
        eprintln!("SKIPPED: needs the eBPF object; run `cargo xtask test`");
        return;
    };
    let file = object::File::parse(&*bytes).expect("an object file");
    let constants = file.section_by_name(".rodata").expect("constants").index();
    let named: BTreeSet<_> = file
        .symbols()
        .filter(|symbol| symbol.section_index() == Some(constants) && symbol.is_global())
        .map(|symbol| symbol.name().expect("a name").to_owned())
        .collect();
    assert_eq!(named, Globals::SYMBOLS.map(str::to_owned).into_iter().collect());
}

#[test]
fn every_program_loads_with_all_features_none_each_alone_and_every_two() {
    if !has_root("programs") {
        return;
    }
    let begin = Instant::now();
    let mut most: BTreeMap<String, (u32, Row)> = BTreeMap::new();
    for row in rows() {
        let mut globals = Globals {
            connection_key: [0; 2],
            source_key: [0; 2],
            tick_ns: 0,
            cookie_segment_bytes: 0,
            cookie_window_scale: 0,
            cookie_timestamps: 0,
            log_level: 0,
        };
        for ((_, ways), way) in FACTORS.iter().zip(row) {
            ways[way](&mut globals);
        }
        let Verified { programs, .. } =
            verify(&globals).unwrap_or_else(|error| panic!("{}: {}", described(&row), chain(&error)));
        assert!(programs.len() > 5, "{programs:?}");
        for program in programs {
            assert!(program.instructions > 0, "the kernel counts the instructions of {}", program.name);
            let place = most.entry(program.name).or_default();
            if program.instructions > place.0 {
                *place = (program.instructions, row);
            }
        }
    }
    report(&most);
    for (name, (instructions, row)) in &most {
        assert!(*instructions <= MOST_INSTRUCTIONS, "{name}: {instructions} instructions with {}", described(row));
    }
    assert!(begin.elapsed() < MOST_TIME, "{:?}", begin.elapsed());
}

/// Not `println!`, which the test harness keeps to itself when the test passes.
fn report(most: &BTreeMap<String, (u32, Row)>) {
    let mut text = format!("\nverified instructions, at most, of {} combinations:\n", rows().len());
    for (name, (instructions, row)) in most {
        text.push_str(&format!("  {name:18} {instructions:>8}  {}\n", described(row)));
    }
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn described(row: &Row) -> String {
    let chosen = FACTORS.iter().zip(row).filter(|(_, way)| **way > 0).map(|((name, _), _)| *name);
    let chosen: Vec<_> = chosen.collect();
    if chosen.is_empty() { String::from("(all off)") } else { chosen.join(", ") }
}
