//! VIPs that are prefixes, and ports that are ranges: what the table of exact VIP:port entries leads on to.
//!
//! The longest VIP that matches a destination decides alone: an address that is a VIP by itself is not looked for in a
//! prefix around it, even at a port that no service of its own has.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use crate::address::Address;

/// Port ranges of all VIPs together, in each of the two halves of `RANGES`.
pub const MAX_RANGES: usize = 1024;
/// Port ranges of one VIP: all of them are compared for a packet that no exact port matches.
pub const MAX_RANGES_PER_VIP: usize = 16;
/// VIPs that are prefixes, in each of the two tables.
pub const MAX_VIP_PREFIXES: usize = 1024;

/// What `VIP_PREFIXES` is searched for; the prefix length counts the table's bits too.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
#[repr(C)]
pub struct VipPrefixKey {
    /// [`crate::types::Control::active_table`]: the entries of both tables live beside one another.
    pub table: u32,
    pub address: Address,
}

impl VipPrefixKey {
    const TABLE_BITS: u32 = u32::BITS;

    /// The length that searches for a whole address.
    pub const WHOLE_BITS: u32 = Self::TABLE_BITS + Ipv6Addr::BITS;
}

/// A VIP: one address, or all of a prefix. IPv4 is kept in its v4-mapped form, so that one order holds for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VipPrefix {
    network: Ipv6Addr,
    /// Of the mapped form.
    length_bits: u32,
}

impl VipPrefix {
    /// `None` if there are more bits than the family has, or a bit is set behind the prefix.
    pub fn new(network: IpAddr, length_bits: u32) -> Option<Self> {
        let (network, length_bits) = match network.to_canonical() {
            IpAddr::V4(network) => (network.to_ipv6_mapped(), length_bits + V4_MARK_BITS),
            IpAddr::V6(network) => (network, length_bits),
        };
        let host = host_bits(length_bits)?;
        (network.to_bits() & host == 0).then_some(Self { network, length_bits })
    }

    pub fn network(&self) -> IpAddr {
        self.network.to_canonical()
    }

    /// Of the address's own family.
    pub fn length_bits(&self) -> u32 {
        match self.network() {
            IpAddr::V4(_) => self.length_bits - V4_MARK_BITS,
            IpAddr::V6(_) => self.length_bits,
        }
    }

    /// The one address of a VIP that is no wider.
    pub fn address(&self) -> Option<IpAddr> {
        (self.length_bits == Ipv6Addr::BITS).then(|| self.network())
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let address = Ipv6Addr::from(Address::from(address).octets());
        (address.to_bits() ^ self.network.to_bits()).checked_shr(Ipv6Addr::BITS - self.length_bits).unwrap_or(0) == 0
    }

    /// How many addresses it has; one less where that is more than a number can say.
    pub fn addresses(&self) -> u128 {
        1_u128.checked_shl(Ipv6Addr::BITS - self.length_bits).unwrap_or(u128::MAX)
    }

    /// The first address as a number, in the form that both families are kept in.
    pub fn first_bits(&self) -> u128 {
        self.network.to_bits()
    }

    /// An IPv6 prefix so wide that all of IPv4 lies inside, in the form in which addresses are kept.
    fn holds_all_v4(&self) -> bool {
        self.length_bits < V4_MARK_BITS && self.contains(Ipv4Addr::UNSPECIFIED.into())
    }

    /// An address that is one host's, or a prefix of such.
    pub fn is_unicast(&self) -> bool {
        match self.address() {
            Some(address) => {
                !address.is_unspecified() && !address.is_multicast() && address != IpAddr::V4(Ipv4Addr::BROADCAST)
            }
            None => !self.network().is_multicast() && !self.holds_all_v4(),
        }
    }

    /// The address that stands for a prefix in `SERVICES`: the network, then a one, then zeros. It is another one for
    /// each network and length, and the way back is [`Self::of_stand_in`]. Of a single address it is the address.
    pub fn stand_in(&self) -> Address {
        let mark = match Ipv6Addr::BITS - self.length_bits {
            0 => 0,
            host_bits => 1 << (host_bits - 1),
        };
        Ipv6Addr::from_bits(self.network.to_bits() | mark).into()
    }

    /// The prefix wider than an address that has this [`Self::stand_in`]; `None` for the zero address, which has none.
    pub fn of_stand_in(stand_in: Address) -> Option<Self> {
        let bits = Ipv6Addr::from(stand_in.octets()).to_bits();
        let mark = bits & bits.wrapping_neg();
        (mark != 0).then(|| Self {
            network: Ipv6Addr::from_bits(bits ^ mark),
            length_bits: Ipv6Addr::BITS - 1 - mark.trailing_zeros(),
        })
    }

    /// The key of this prefix in `VIP_PREFIXES`, and how many of its bits count.
    pub fn key(&self, table: u32) -> (VipPrefixKey, u32) {
        let key = VipPrefixKey { table, address: self.network.into() };
        (key, VipPrefixKey::TABLE_BITS + self.length_bits)
    }
}

impl From<IpAddr> for VipPrefix {
    fn from(address: IpAddr) -> Self {
        Self { network: Address::from(address).octets().into(), length_bits: Ipv6Addr::BITS }
    }
}

/// As it is configured: an address without a length stands for itself.
impl fmt::Display for VipPrefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            Some(address) => address.fmt(formatter),
            None => write!(formatter, "{}/{}", self.network(), self.length_bits()),
        }
    }
}

/// Why a text is no VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadVip {
    /// Neither an address nor a prefix.
    Unreadable,
    /// This network has it, with these bits.
    HostBits { network: IpAddr, length_bits: u32 },
}

impl FromStr for VipPrefix {
    type Err = BadVip;

    fn from_str(text: &str) -> Result<Self, BadVip> {
        let Some((address, length)) = text.split_once('/') else {
            return text.parse::<IpAddr>().map(Self::from).map_err(|_| BadVip::Unreadable);
        };
        let address: IpAddr = address.parse().map_err(|_| BadVip::Unreadable)?;
        let is_plain = length.bytes().all(|byte| byte.is_ascii_digit()) && (length == "0" || !length.starts_with('0'));
        let length_bits = length.parse().ok().filter(|_| is_plain).ok_or(BadVip::Unreadable)?;
        let network = network_of(address, length_bits).ok_or(BadVip::Unreadable)?;
        Self::new(address, length_bits).ok_or(BadVip::HostBits { network, length_bits })
    }
}

/// Bits that the v4-mapped form has before the address.
const V4_MARK_BITS: u32 = Ipv6Addr::BITS - Ipv4Addr::BITS;

fn host_bits(length_bits: u32) -> Option<u128> {
    let host = Ipv6Addr::BITS.checked_sub(length_bits)?;
    Some(u128::MAX.checked_shr(Ipv6Addr::BITS - host).unwrap_or(0))
}

fn network_of(address: IpAddr, length_bits: u32) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => {
            let host = Ipv4Addr::BITS.checked_sub(length_bits)?;
            Some(Ipv4Addr::from_bits(address.to_bits() & u32::MAX.checked_shl(host).unwrap_or(0)).into())
        }
        IpAddr::V6(address) => Some(Ipv6Addr::from_bits(address.to_bits() & !host_bits(length_bits)?).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;

    fn vip(text: &str) -> VipPrefix {
        text.parse().expect("a VIP")
    }

    #[test]
    fn what_is_written_is_what_is_shown() {
        for text in ["192.0.2.1", "192.0.2.0/24", "0.0.0.0/0", "2001:db8::1", "2001:db8::/32", "8000::/1"] {
            assert_eq!(vip(text).to_string(), text);
        }
        for (text, shown) in [("192.0.2.1/32", "192.0.2.1"), ("::1/128", "::1"), ("::ffff:192.0.2.1", "192.0.2.1")] {
            assert_eq!(vip(text).to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_vip_is_refused() {
        for text in ["", "web", "192.0.2.0/33", "::/129", "192.0.2.0/", "192.0.2.0/+8", "192.0.2.0/08", "/8", "1.2.3/8"]
        {
            assert_eq!(text.parse::<VipPrefix>(), Err(BadVip::Unreadable), "{text}");
        }
        for (text, network, length_bits) in [("192.0.2.1/24", "192.0.2.0", 24), ("2001:db8::1/32", "2001:db8::", 32)] {
            let network = network.parse().expect("an address");
            assert_eq!(text.parse::<VipPrefix>(), Err(BadVip::HostBits { network, length_bits }), "{text}");
        }
    }

    #[test]
    fn networks_that_begin_alike_have_different_stand_ins() {
        let stand_in = |text: &str| IpAddr::from(vip(text).stand_in()).to_string();
        assert_eq!(stand_in("10.0.0.0/8"), "10.128.0.0");
        assert_eq!(stand_in("10.0.0.0/16"), "10.0.128.0");
        assert_eq!(stand_in("192.0.2.0/31"), "192.0.2.1");
        assert_eq!(stand_in("192.0.2.1"), "192.0.2.1");
    }

    fn prefix() -> impl Strategy<Value = VipPrefix> {
        (any::<u128>(), 0..=128_u32, any::<bool>()).prop_map(|(bits, length_bits, is_v4)| {
            if is_v4 {
                let length_bits = length_bits % 33;
                let network = network_of(Ipv4Addr::from_bits(bits as u32).into(), length_bits).expect("short enough");
                VipPrefix::new(network, length_bits).expect("a network")
            } else {
                let network = network_of(Ipv6Addr::from_bits(bits).into(), length_bits).expect("short enough");
                VipPrefix::new(network, length_bits).expect("a network")
            }
        })
    }

    proptest! {
        #[test]
        fn a_stand_in_leads_back_to_its_prefix_alone(one in prefix(), other in prefix()) {
            if one.address().is_none() {
                prop_assert_eq!(VipPrefix::of_stand_in(one.stand_in()), Some(one));
            }
            if one != other && one.address().is_none() && other.address().is_none() {
                prop_assert_ne!(one.stand_in(), other.stand_in());
            }
        }

        #[test]
        fn what_is_shown_reads_as_the_same(vip in prefix()) {
            prop_assert_eq!(vip.to_string().parse(), Ok(vip));
        }

        #[test]
        fn a_prefix_contains_what_begins_with_its_bits(vip in prefix(), flipped in 0..128_u32) {
            let inside = Ipv6Addr::from(vip.stand_in().octets());
            prop_assert!(vip.contains(inside.into()));
            let bit_from_the_left = flipped;
            let other = Ipv6Addr::from_bits(inside.to_bits() ^ 1 << (127 - bit_from_the_left));
            prop_assert_eq!(vip.contains(other.into()), bit_from_the_left >= vip.length_bits);
        }
    }
}
