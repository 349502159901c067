//! A running edge, scripted backends, and clients that can write any bytes.

pub(crate) mod authority;
pub(crate) mod client;
pub(crate) mod edge;
pub(crate) mod frames;
pub(crate) mod h2_client;
pub(crate) mod h2_origin;
pub(crate) mod origin;
pub(crate) mod tls_origin;

use std::time::{Duration, Instant};

/// Waits until `what` holds; fails the test when it does not within ten seconds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "not within ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
