//! Session tickets; the property is in `lb_controller::serve`, where they are opened.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| lb_controller::serve::fuzzing::no_bytes_are_a_ticket_or_a_session(bytes));
