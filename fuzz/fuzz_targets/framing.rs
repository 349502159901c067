//! HTTP/1 framing; the property is in `lb_controller::serve`, where requests are read.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| lb_controller::serve::fuzzing::requests_end_where_another_reader_says(bytes));
