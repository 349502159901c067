//! Where spans of requests go.

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use super::EndpointConfig;

/// A collector that speaks OTLP over HTTP, and which requests it is told of.
#[derive(Clone, Debug, PartialEq)]
pub struct TracingConfig {
    /// With the path; its secret is empty.
    pub endpoint: EndpointConfig,
    /// Sent with every call; the values are secrets.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub service_name: String,
    /// Of traces that begin here, from 0 to 1.
    pub ratio: f64,
    /// Peers whose `traceparent` is gone on with, and their word on whether it is kept.
    pub continue_from: Vec<IpNet>,
}
