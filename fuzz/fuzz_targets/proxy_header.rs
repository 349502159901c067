//! PROXY headers; the property is in `lb_controller::proxy_protocol`, where they are read.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| lb_controller::proxy_protocol::fuzzing::no_cut_of_a_proxy_header_changes_it(bytes));
