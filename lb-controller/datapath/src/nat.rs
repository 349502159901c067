//! NAT seen from user space: where backends answer, how large the table is, and what is in it.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};

use lb_common::maps::{NAT_INDEX, NAT_SLOTS, NAT_WORDS};
use lb_common::nat::{self, BLOCK_WORDS, STEP_BITS};
use lb_common::types::{Forward, NatCounters};

use crate::clock::monotonic_ns;
use crate::desired::{Desired, DesiredNat};
use crate::error::MapError;
use crate::load::Datapath;
use crate::maps::Maps;

pub(crate) const NO_COUNTS: NatCounters =
    NatCounters { reply_packets: 0, reply_bytes: 0, refused_full: 0, refused_no_port: 0 };

/// Addresses where backends answer, old ones too.
const MOST_ADDRESSES: usize = 64;

/// How long the three maps of connections must be for as many of them.
pub(crate) fn lengths(capacity: usize) -> [(&'static str, u32); 3] {
    let blocks = capacity.clamp(1, DesiredNat::MAX_CAPACITY).div_ceil(BLOCK_WORDS);
    let slots = blocks * BLOCK_WORDS;
    // Two keys for each, and some that are just being exchanged.
    [(NAT_SLOTS, slots as u32), (NAT_WORDS, blocks as u32), (NAT_INDEX, (2 * slots + BLOCK_WORDS) as u32)]
}

/// Maps that are re-used keep their size, because connections are in them.
pub(crate) fn compare_capacity(maps: &Maps, wanted: usize) {
    let [(_, wanted), ..] = lengths(wanted);
    let capacity = maps.nat_words.length() * BLOCK_WORDS as u32;
    if capacity != wanted {
        tracing::warn!(
            capacity,
            wanted,
            "the maps of NAT keep the capacity they were made with; `lb-controller unload` before the next start makes \
             them anew, and ends the connections in them"
        );
    }
}

impl Datapath {
    /// Where backends answer, and did before: connections outlive a change of addresses.
    pub(crate) fn nat_addresses(&self, desired: &Desired) -> BTreeSet<IpAddr> {
        if !desired.services.iter().any(|service| service.forward == Forward::Nat) {
            return BTreeSet::new();
        }
        let mut addresses: BTreeSet<IpAddr> =
            desired.nat.addresses.iter().map(IpAddr::to_canonical).chain(self.preferred_sources(desired)).collect();
        for address in self.state.nat_addresses() {
            if addresses.len() < MOST_ADDRESSES {
                addresses.insert(address);
            }
        }
        addresses
    }

    /// Does a route prefer an address that is not known yet?
    pub(crate) fn has_new_nat_address(&self) -> bool {
        let known = self.state.nat_addresses();
        self.nat_addresses(&self.desired).iter().any(|address| !known.contains(address))
    }

    /// Of this host, where the way to each backend begins; of families that have no addresses configured.
    fn preferred_sources(&self, desired: &Desired) -> BTreeSet<IpAddr> {
        let has_own = |is_v6: bool| desired.nat.addresses.iter().any(|own| own.to_canonical().is_ipv6() == is_v6);
        let translated = desired.services.iter().filter(|service| service.forward == Forward::Nat);
        let pools: BTreeSet<&str> = translated.filter_map(|service| service.pool.as_deref()).collect();
        let backends = desired.backends.iter().filter(|backend| pools.contains(backend.pool.as_str()));
        let without_own = backends.filter(|backend| !has_own(backend.address.ip().to_canonical().is_ipv6()));
        without_own.filter_map(|backend| self.preferred_source(backend.address)).collect()
    }

    /// As the maps have it already, or else as the kernel's routes say.
    fn preferred_source(&self, backend: SocketAddr) -> Option<IpAddr> {
        let address = backend.ip().to_canonical();
        let known = self.state.backends.iter().find(|entry| {
            IpAddr::from(entry.address) == address && !IpAddr::from(entry.tunnel_source).is_unspecified()
        });
        match known {
            Some(entry) => Some(entry.tunnel_source.into()),
            None => self.ways.source(address).ok().flatten(),
        }
    }
}

/// Says so if this host gives the ports of NAT to connections of its own: one of them to a backend could then be taken
/// for a client's.
pub(crate) fn warn_of_ephemeral_ports(ports: (u16, u16)) {
    const FOLDER: &str = "/proc/sys/net/ipv4";
    let read = |name: &str| fs::read_to_string(format!("{FOLDER}/{name}")).unwrap_or_default();
    if let Some((first, last)) = overlap(ports, &read("ip_local_port_range"), &read("ip_local_reserved_ports")) {
        tracing::warn!(
            nat_ports = format!("{}-{}", ports.0, ports.1),
            host_ports = format!("{first}-{last}"),
            "ports of NAT are among those that this host gives its own connections (net.ipv4.ip_local_port_range): a \
             connection of its own to a backend may lose its answers; change `nat: ports`, or add them to \
             net.ipv4.ip_local_reserved_ports"
        );
    }
}

/// The host's range, if it gives any of `ports` to its own connections.
fn overlap(ports: (u16, u16), range: &str, reserved: &str) -> Option<(u16, u16)> {
    let numbers: Vec<u16> = range.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    let [first, last] = numbers[..] else { return None };
    let reserved: Vec<(u16, u16)> = reserved
        .trim()
        .split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some((first.parse().ok()?, last.parse().ok()?))
        })
        .collect();
    let is_given = |port: &u16| !reserved.iter().any(|(first, last)| first <= port && port <= last);
    (ports.0.max(first)..=ports.1.min(last)).any(|port| is_given(&port)).then_some((first, last))
}

/// What NAT has to do at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatStatus {
    /// Connections that fit.
    pub capacity: u64,
    /// Those that are remembered, by protocol: until their time is over, whether they still live or not.
    pub tcp: u64,
    pub udp: u64,
    /// Of both, those that nobody has proven to want yet: no answer, or no answer to it.
    pub unproven: u64,
    /// Where backends answer.
    pub addresses: Vec<IpAddr>,
    /// First and last.
    pub ports: (u16, u16),
}

impl NatStatus {
    pub fn in_use(&self) -> u64 {
        self.tcp + self.udp
    }

    /// `None` while NAT was never used.
    pub(crate) fn read(maps: &Maps, addresses: Vec<IpAddr>) -> Result<Option<Self>, MapError> {
        let policy = maps.nat_policy.get(0)?;
        if policy.blocks == 0 {
            return Ok(None);
        }
        let now_steps = (monotonic_ns() >> STEP_BITS) as u32;
        let capacity = u64::from(policy.blocks) * BLOCK_WORDS as u64;
        let ports = (policy.first_port, policy.last_port);
        let mut status = Self { capacity, addresses, ports, ..Self::default() };
        for block in 0..policy.blocks {
            for word in maps.nat_words.get(block)?.words {
                if nat::is_free(word, now_steps, &policy) {
                    continue;
                }
                let is_tcp = word & nat::IS_TCP != 0;
                status.tcp += u64::from(is_tcp);
                status.udp += u64::from(!is_tcp);
                status.unproven += u64::from(word & if is_tcp { nat::CONFIRMED } else { nat::ANSWERED } == 0);
            }
        }
        Ok(Some(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capacity_is_rounded_up_to_whole_blocks_and_bounded() {
        let slots = |capacity| lengths(capacity)[0].1;
        assert_eq!([slots(0), slots(64), slots(65), slots(65_536)], [64, 64, 128, 65_536]);
        assert_eq!(slots(usize::MAX) as usize, DesiredNat::MAX_CAPACITY);
    }

    #[test]
    fn ports_that_the_host_gives_its_own_connections_are_seen_unless_they_are_reserved() {
        let rows = [
            ((10_000, 32_767), "32768\t60999\n", "\n", None),
            ((10_000, 32_768), "32768\t60999\n", "\n", Some((32_768, 60_999))),
            ((40_000, 41_000), "32768\t60999\n", "1,39999-41000\n", None),
            ((40_000, 41_000), "32768\t60999\n", "40000-40999\n", Some((32_768, 60_999))),
            ((40_000, 41_000), "", "", None),
        ];
        for (ports, range, reserved, expected) in rows {
            assert_eq!(overlap(ports, range, reserved), expected, "{ports:?} {range:?} {reserved:?}");
        }
    }
}
