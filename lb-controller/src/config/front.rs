//! What stands before requests: who may say whose a connection is, what is not ours to read, and how much one source may hold.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::Config;

/// Of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// TLS connections that go on to a pool as they come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassThrough {
    pub server_names: Vec<ServerNames>,
    pub pool: String,
    /// A connection on which nothing moves for so long is ended.
    pub idle: Duration,
}

/// One server name, or those a label below one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerNames {
    /// Lower-case.
    Exact(String),
    /// The name without `*.`.
    Below(String),
}

impl ServerNames {
    /// `name`: lower-case.
    pub fn hold(&self, name: &str) -> bool {
        match self {
            ServerNames::Exact(exact) => exact == name,
            ServerNames::Below(parent) => name.split_once('.').is_some_and(|(_, rest)| rest == parent),
        }
    }
}

/// Connections that one source, an IPv4 address or an IPv6 /64, may hold at once; `None`: any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    pub per_source: Option<u32>,
    /// While somebody there has lately finished a step-up.
    pub per_verified_source: Option<u32>,
}

impl Default for ConnectionLimits {
    /// Some hundred people behind one address, whose browsers open six connections each, and who much fewer are at once.
    fn default() -> ConnectionLimits {
        ConnectionLimits { per_source: Some(2_000), per_verified_source: Some(8_000) }
    }
}

/// When a worker has more to do than it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverloadConfig {
    /// Requests are shed while everything on a worker waits for longer than this; zero: never.
    pub queueing_delay: Duration,
}

impl Default for OverloadConfig {
    fn default() -> OverloadConfig {
        OverloadConfig { queueing_delay: Duration::from_millis(200) }
    }
}

impl Config {
    /// Does a connection from `peer` to `local` begin with a PROXY header?
    pub fn is_proxied(&self, peer: IpAddr, local: SocketAddr) -> bool {
        let of_service = self.services.iter().find(|service| service.is_local() && service.takes_tcp(local));
        let from = of_service.map_or(&self.proxy_protocol, |service| &service.proxy_protocol);
        is_within(from, peer)
    }

    /// Is it an address of those who speak for others, whose own a block of it would hit?
    pub fn speaks_for_others(&self, network: &IpNet) -> bool {
        let of_services = self.services.iter().flat_map(|service| &service.proxy_protocol);
        let mut from = self.proxy_protocol.iter().chain(of_services);
        from.any(|from| from.contains(network) || network.contains(from))
    }
}

/// Whether one of `networks` holds `address`, in whatever form it comes.
fn is_within(networks: &[IpNet], address: IpAddr) -> bool {
    !networks.is_empty() && networks.iter().any(|network| network.contains(&address.to_canonical()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_label() {
        let below = ServerNames::Below("shop.example".into());
        for (name, holds) in [
            ("www.shop.example", true),
            ("shop.example", false),
            ("a.www.shop.example", false),
            ("www.shop.example.", false),
            ("wwwshop.example", false),
        ] {
            assert_eq!(below.hold(name), holds, "{name}");
        }
        assert!(ServerNames::Exact("a.example".into()).hold("a.example"));
    }
}
