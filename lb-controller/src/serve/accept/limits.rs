//! What clients may take of time and memory.

use std::time::Duration;

/// Bounds of one worker's connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; further ones wait in the accept queue. At about 18 KiB each when idle, the usual number is
    /// 576 MiB; each may hold a second descriptor to a backend, so the open-files limit should be twice as high.
    pub connections: u32,
    /// Of these, once they are known to be plain HTTP, so many at once; further ones are closed.
    pub plain_http_connections: u32,
    /// From the first byte to the end of the TLS handshake. Clients far away need three round trips.
    pub handshake: Duration,
    /// For an HTTP/1 request's head to be complete, counted from the response before it: so it is also how long such
    /// a connection may idle.
    pub head: Duration,
    /// An h2 connection without a new request for this long is told to go; streams under way end first.
    pub h2_idle: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 32_768,
            plain_http_connections: 1_024,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(30),
            h2_idle: Duration::from_secs(60),
        }
    }
}
