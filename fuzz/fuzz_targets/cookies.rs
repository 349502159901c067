//! Cookies; the properties are in `lb_controller::stepup`, where the keys are.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    lb_controller::stepup::fuzzing::our_cookies_are_found_once_and_stay_here(bytes);
    lb_controller::stepup::fuzzing::sealed_text_opens_only_as_it_was_sealed(bytes);
    lb_controller::stepup::fuzzing::a_session_has_one_encoding(bytes);
});
