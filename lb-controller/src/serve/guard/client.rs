//! Who the client is: the TCP peer, unless that is a proxy we trust to know better.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

use crate::proxy_protocol::Ends;
use crate::serve::request::{Client, Peer};
use crate::serve::respond::Refusal;

/// Hops of `X-Forwarded-For` that are looked at. A longer list is somebody's attempt to make us read it.
const MAX_HOPS: usize = 32;

/// The client of one request. Of all that a trusted proxy says, only the addresses in `X-Forwarded-For` are believed,
/// from the right, up to and including the first that is no trusted proxy itself: what stands left of it, that client
/// may have written.
pub(super) fn of(peer: &Peer, headers: &HeaderMap, trusted: &[IpNet]) -> Result<Client, Refusal> {
    let peer_address = peer.address.ip().to_canonical();
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    if !is_trusted(peer_address) {
        return Ok(Client { address: peer_address, through_trusted_proxy: peer.is_proxied });
    }
    let mut nearest = peer_address;
    for hop in hops(headers)?.into_iter().rev() {
        nearest = hop;
        if !is_trusted(hop) {
            break;
        }
    }
    Ok(Client { address: nearest, through_trusted_proxy: true })
}

/// The ends of the client's connection, as far as they are known: a proxy before us does not tell its client's port.
pub(super) fn ends(peer: &Peer, client: &Client) -> Ends {
    let is_the_peer = peer.address.ip().to_canonical() == client.address;
    let port = if is_the_peer { peer.address.port() } else { 0 };
    Ends { source: SocketAddr::new(client.address, port), destination: peer.local }
}

/// The addresses of all `X-Forwarded-For` headers, in order. A proxy we trust writes addresses; anything else means
/// that it passes on what it was given, and then nobody knows who the client is.
fn hops(headers: &HeaderMap) -> Result<Vec<IpAddr>, Refusal> {
    const UNREADABLE: Refusal =
        Refusal::Malformed("A trusted proxy sent an X-Forwarded-For that is no list of addresses.");
    let mut hops = Vec::new();
    for value in headers.get_all("x-forwarded-for") {
        for hop in value.to_str().map_err(|_| UNREADABLE)?.split(',') {
            hops.push(address(hop.trim()).ok_or(UNREADABLE)?);
            if hops.len() > MAX_HOPS {
                return Err(UNREADABLE);
            }
        }
    }
    Ok(hops)
}

/// `192.0.2.1`, `192.0.2.1:5000`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:5000`.
fn address(hop: &str) -> Option<IpAddr> {
    let bare = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || hop.parse().ok().map(|socket: std::net::SocketAddr| socket.ip());
    hop.parse().ok().or_else(with_port).or_else(bare).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded_for: &[&str]) -> Result<Client, Refusal> {
        let peer = Peer::plain(peer.parse().unwrap());
        let mut headers = HeaderMap::new();
        for value in forwarded_for {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        of(&peer, &headers, &["10.0.0.0/8".parse().unwrap(), "2001:db8:aaaa::/48".parse().unwrap()])
    }

    #[test]
    fn the_client_is_the_rightmost_hop_that_no_trusted_proxy_made() {
        for (what, peer, forwarded_for, address, through_trusted_proxy) in [
            ("a stranger's claim is ignored", "203.0.113.9:1", &["198.51.100.1"][..], "203.0.113.9", false),
            ("a proxy's word counts", "10.0.0.1:1", &["198.51.100.1"], "198.51.100.1", true),
            ("what the client wrote itself does not", "10.0.0.1:1", &["1.2.3.4, 198.51.100.1"], "198.51.100.1", true),
            ("two headers are one list", "10.0.0.1:1", &["1.2.3.4", "198.51.100.1"], "198.51.100.1", true),
            ("a chain of proxies is followed", "10.0.0.1:1", &["198.51.100.1, 10.0.0.2"], "198.51.100.1", true),
            ("only proxies: the farthest", "10.0.0.1:1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3", true),
            ("no list: the proxy itself", "10.0.0.1:1", &[], "10.0.0.1", true),
            ("a port is dropped", "10.0.0.1:1", &["198.51.100.1:99"], "198.51.100.1", true),
            ("IPv6 in brackets", "[2001:db8:aaaa::1]:1", &["[2001:db8::9]:99"], "2001:db8::9", true),
            ("a mapped peer is its IPv4 self", "[::ffff:10.0.0.1]:1", &["198.51.100.1"], "198.51.100.1", true),
        ] {
            let client = client(peer, forwarded_for).unwrap();
            let expected = (address.parse().unwrap(), through_trusted_proxy);
            assert_eq!((client.address, client.through_trusted_proxy), expected, "{what}");
        }
    }

    #[test]
    fn a_trusted_proxy_that_writes_nonsense_is_refused() {
        for forwarded_for in ["unknown", "198.51.100.1,,10.0.0.1", "evil, 198.51.100.1", &"1.1.1.1,".repeat(40)] {
            assert!(client("10.0.0.1:1", &[forwarded_for]).is_err(), "{forwarded_for}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_list_makes_it_panic_and_only_addresses_are_believed(list in "[0-9a-f.:, \\[\\]]{0,60}") {
            if let Ok(client) = client("10.0.0.1:1", &[&list]) {
                let as_given = list.split(',').any(|hop| address(hop.trim()) == Some(client.address));
                proptest::prop_assert!(as_given || client.address == "10.0.0.1".parse::<IpAddr>().unwrap());
            }
        }
    }
}
