//! W3C Trace Context; the property is in `lb_controller::traces`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| lb_controller::traces::fuzzing::a_trace_context_is_read_as_another_reader_reads_it(bytes));
