//! What authenticators send; the property is in `lb_controller::stepup`, where they are read.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| lb_controller::stepup::fuzzing::a_passkey_is_read_within_bounds(bytes));
