//! Prefixes as numbers.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::lists::Listed;

/// A block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    is_ipv6: bool,
    /// The first 64 bits of the address, of IPv4 32 bits and zeros.
    high: u64,
    low: u64,
    length: u8,
}

/// A prefix and what a list says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListedPrefix {
    pub prefix: Prefix,
    pub listed: Listed,
}

impl Prefix {
    /// `None` if the length is beyond the family's. Bits behind the length are ignored. A block within `::ffff:0:0/96`
    /// is the IPv4 block that it stands for, as it is in a packet.
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let most = if address.is_ipv4() { 32 } else { 128 };
        if length > most {
            return None;
        }
        let (is_ipv6, [high, low]) = halves(address);
        let length = match (address, is_ipv6) {
            // Too short to lie within the mapped addresses: an IPv6 block that begins with zeros.
            (IpAddr::V6(_), false) if length < MAPPED_BITS => return Self::new_ipv6(0, 0, length),
            (IpAddr::V6(_), false) => length - MAPPED_BITS,
            _ => length,
        };
        if is_ipv6 {
            Self::new_ipv6(high, low, length)
        } else {
            Some(Self { is_ipv6, high: cut(high, length), low, length })
        }
    }

    fn new_ipv6(high: u64, low: u64, length: u8) -> Option<Self> {
        Some(Self { is_ipv6: true, high: cut(high, length), low: cut(low, length.saturating_sub(64)), length })
    }

    pub const fn is_ipv6(&self) -> bool {
        self.is_ipv6
    }

    pub fn first_address(&self) -> IpAddr {
        if self.is_ipv6 {
            Ipv6Addr::from_bits(u128::from(self.high) << 64 | u128::from(self.low)).into()
        } else {
            Ipv4Addr::from_bits((self.high >> 32) as u32).into()
        }
    }

    /// Leading bits that count.
    pub const fn length(&self) -> u8 {
        self.length
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let (is_ipv6, [high, low]) = halves(address);
        is_ipv6 == self.is_ipv6
            && cut(high, self.length) == self.high
            && cut(low, self.length.saturating_sub(64)) == self.low
    }

    pub(super) const fn halves(&self) -> [u64; 2] {
        [self.high, self.low]
    }
}

const MAPPED_BITS: u8 = 96;

/// Is it IPv6, and its first 64 bits and the others; an IPv4 address is the first 32 of them.
pub(super) fn halves(address: IpAddr) -> (bool, [u64; 2]) {
    match address.to_canonical() {
        IpAddr::V4(v4) => (false, [u64::from(v4.to_bits()) << 32, 0]),
        IpAddr::V6(v6) => (true, [(v6.to_bits() >> 64) as u64, v6.to_bits() as u64]),
    }
}

/// The first `bits` of `half`, the others zero; all of it for 64 and more.
pub(super) const fn cut(half: u64, bits: u8) -> u64 {
    match bits {
        0 => 0,
        1..64 => half & u64::MAX << (64 - bits),
        _ => half,
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.first_address(), self.length)
    }
}
