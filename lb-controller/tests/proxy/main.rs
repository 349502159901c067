//! The proxy end to end: real sockets on loopback, real TLS, backends that write what they like.

mod access_log;
mod backend_h2;
mod backend_tls;
mod balancing;
mod chaos;
mod failures;
mod floods;
mod framing;
mod h2_conformance;
mod headers;
mod http1;
mod limits;
mod limits_of_backends;
mod pass_through;
mod pauses;
mod protocols;
mod proxy_protocol;
mod ranges;
mod retries;
mod support;
mod traces;
mod websockets_h2;
