//! Whose tunnels end on this host, and at which of its addresses.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, MapData};
use lb_common::Address;
use lb_common::maps::{MAX_OWN_ADDRESSES, OWN_ADDRESSES, TIER};
use lb_common::types::{Shared, TunnelPolicy};

use crate::desired::Tier;
use crate::error::MapError;
use crate::lists::Prefix;
use crate::load::Datapath;
use crate::maps::{Maps, failed, is_absent};

const V4_MARK_BITS: u32 = 96;
/// The host's addresses are read again this often, while tunnels end here.
const LOOK_EVERY: Duration = Duration::from_secs(1);

type AddressBytes = [u8; 16];
type Nothing = <u64 as Shared>::Bytes;

/// The prefixes of the tier.
pub(crate) struct TierPrefixes {
    pub(crate) map: LpmTrie<MapData, AddressBytes, Nothing>,
}

impl TierPrefixes {
    /// What is new comes before what is old goes: packets of those that stay are let in throughout.
    fn replace(&mut self, prefixes: &[Prefix]) -> Result<(), MapError> {
        let wanted: Vec<_> = prefixes.iter().map(key).collect();
        for key in &wanted {
            self.map.insert(key, 0_u64.to_bytes(), 0).map_err(failed("write", TIER))?;
        }
        for key in self.keys()? {
            let is_wanted = wanted.iter().any(|one| (one.prefix_len(), one.data()) == (key.prefix_len(), key.data()));
            if !is_wanted
                && let Err(error) = self.map.remove(&key)
                && !is_absent(&error)
            {
                return Err(failed("write", TIER)(error));
            }
        }
        Ok(())
    }

    fn keys(&self) -> Result<Vec<Key<AddressBytes>>, MapError> {
        self.map.keys().collect::<Result<_, _>>().map_err(failed("list", TIER))
    }

    fn prefixes(&self) -> Result<Vec<Prefix>, MapError> {
        let mut prefixes: Vec<_> = self.keys()?.iter().filter_map(prefix).collect();
        prefixes.sort_unstable();
        Ok(prefixes)
    }
}

/// IPv4 in its v4-mapped form, as packets' addresses are kept.
fn key(prefix: &Prefix) -> Key<AddressBytes> {
    let mark_bits = if prefix.is_ipv6() { 0 } else { V4_MARK_BITS };
    Key::new(u32::from(prefix.length()) + mark_bits, Address::from(prefix.first_address()).octets())
}

fn prefix(key: &Key<AddressBytes>) -> Option<Prefix> {
    let address = Ipv6Addr::from(key.data());
    Prefix::new(IpAddr::V6(address), u8::try_from(key.prefix_len()).ok()?)
}

/// The addresses of the host's interfaces.
pub(crate) struct OwnAddresses {
    pub(crate) map: HashMap<MapData, AddressBytes, Nothing>,
}

impl OwnAddresses {
    fn replace(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), MapError> {
        let wanted: BTreeSet<AddressBytes> = addresses.iter().map(|address| Address::from(*address).octets()).collect();
        let present = self.map.keys().collect::<Result<BTreeSet<_>, _>>().map_err(failed("list", OWN_ADDRESSES))?;
        for address in present.difference(&wanted) {
            match self.map.remove(address) {
                Err(error) if !is_absent(&error) => return Err(failed("write", OWN_ADDRESSES)(error)),
                _ => {}
            }
        }
        for address in wanted.difference(&present) {
            self.map.insert(address, 0_u64.to_bytes(), 0).map_err(failed("write", OWN_ADDRESSES))?;
        }
        Ok(())
    }
}

/// What was last read of the host's addresses.
#[derive(Default)]
pub(crate) struct HostAddresses {
    written: Option<BTreeSet<IpAddr>>,
    looked: Option<Instant>,
}

impl Datapath {
    /// Follows the addresses of the host's interfaces, if tunnels end here, and if it was long ago or `now`. What cannot be
    /// found out stays as it was.
    pub(crate) fn look_at_own_addresses(&mut self, now: bool) {
        let since = self.host_addresses.looked.map_or(LOOK_EVERY, |looked| looked.elapsed());
        if self.desired.tier.is_none() || !now && since < LOOK_EVERY {
            return;
        }
        self.host_addresses.looked = Some(Instant::now());
        let addresses = match own_addresses() {
            Ok(addresses) => addresses,
            Err(error) => {
                tracing::warn!(%error, "the addresses of this host could not be read; trying again");
                return;
            }
        };
        if self.host_addresses.written.as_ref() == Some(&addresses) {
            return;
        }
        match self.maps.own_addresses.replace(&addresses) {
            Ok(()) => self.host_addresses.written = Some(addresses),
            Err(error) => tracing::warn!(%error, "the addresses of this host could not be written; trying again"),
        }
    }
}

/// Those that packets from elsewhere may come to.
fn own_addresses() -> nix::Result<BTreeSet<IpAddr>> {
    let addresses = nix::ifaddrs::getifaddrs()?.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    });
    Ok(addresses
        .filter(|address| !address.is_loopback() && !address.is_unspecified())
        .take(MAX_OWN_ADDRESSES)
        .collect())
}

/// First the prefixes and then that they count, and at the end the other way round.
pub(crate) fn set(maps: &mut Maps, tier: Option<&Tier>) -> Result<(), MapError> {
    let Some(tier) = tier else {
        maps.tunnel_policy.set(0, &TunnelPolicy { is_on: 0, gue_port: 0 })?;
        return maps.tier.replace(&[]);
    };
    maps.tier.replace(&tier.from)?;
    maps.tunnel_policy.set(0, &TunnelPolicy { is_on: 1, gue_port: tier.gue_port.into() })
}

/// As it is in the maps.
pub(crate) fn read(maps: &Maps) -> Result<Option<Tier>, MapError> {
    let policy = maps.tunnel_policy.get(0)?;
    if policy.is_on == 0 {
        return Ok(None);
    }
    Ok(Some(Tier { from: maps.tier.prefixes()?, gue_port: policy.gue_port as u16 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_survives_the_round_trip_to_its_key() {
        let prefixes =
            [("10.0.0.0", 8), ("192.0.2.1", 32), ("2001:db8::", 32), ("2001:db8::1", 128), ("64:ff9b::", 96)];
        for (address, length) in prefixes {
            let of = Prefix::new(address.parse().expect("an address"), length).expect("a prefix");
            assert_eq!(prefix(&key(&of)), Some(of), "{address}/{length}");
        }
    }
}
