//! `Authorization` and the tokens in it; the property is in `lb_controller::identity`, where they are read.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| lb_controller::identity::fuzzing::a_token_counts_only_when_it_is_signed(text));
