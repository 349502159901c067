//! What identity providers answer; the property is in `lb_controller::identity`, where it is read.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| lb_controller::identity::fuzzing::an_answer_leads_over_https_or_is_refused(bytes));
