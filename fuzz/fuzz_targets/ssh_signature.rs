//! Signatures by SSH keys, and the keys; the property is in `lb_controller::stepup`, where they are read.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| lb_controller::stepup::fuzzing::an_ssh_signature_is_read_within_bounds(bytes));
