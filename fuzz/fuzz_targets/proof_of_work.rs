//! Solutions of puzzles; the property is in `lb_controller::stepup`, where they are read.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| lb_controller::stepup::fuzzing::a_solution_needs_our_puzzle(bytes));
