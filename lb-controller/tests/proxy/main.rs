//! The proxy end to end: real sockets on loopback, real TLS, backends that write what they like.

mod access_log;
mod failures;
mod framing;
mod headers;
mod limits;
mod protocols;
mod support;
