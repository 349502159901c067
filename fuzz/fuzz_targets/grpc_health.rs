//! A backend's reply to a gRPC health check.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| lb_controller::health::fuzzing::read_grpc_reply(bytes));
