//! Frames of a WebSocket; the property is in `lb_controller::serve`, where the tracker is.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| lb_controller::serve::fuzzing::frames_end_where_another_reader_says(bytes));
