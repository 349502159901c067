//! CIDR blocks, for `client.address in cidr("…")`.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr};

/// A block of addresses. IPv4 blocks are kept apart from IPv6 ones: `::/0` does not hold `192.0.2.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

/// Why a text is not a CIDR block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkError {
    NoPrefixLength,
    BadAddress,
    BadPrefixLength {
        at_most: u8,
    },
    /// `10.1.2.3/8`: the author meant either one host or the whole block, and a guess could open a hole.
    HostBitsSet {
        network: IpAddr,
    },
}

impl Network {
    /// Reads `address/prefix`, such as `10.0.0.0/8` or `2001:db8::/32`.
    pub fn parse(text: &str) -> Result<Network, NetworkError> {
        let (address, prefix) = text.split_once('/').ok_or(NetworkError::NoPrefixLength)?;
        let address: IpAddr = address.parse().map_err(|_| NetworkError::BadAddress)?;
        let at_most = if address.is_ipv4() { 32 } else { 128 };
        let plain_number = !prefix.is_empty() && prefix.len() <= 3 && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix_bits = prefix.parse().ok().filter(|bits| plain_number && *bits <= at_most);
        let prefix_bits = prefix_bits.ok_or(NetworkError::BadPrefixLength { at_most })?;
        let network = masked(address, prefix_bits);
        if network != address {
            return Err(NetworkError::HostBitsSet { network });
        }
        Ok(Network { address, prefix_bits })
    }

    /// As [`Network::parse`], or one address, which is a block of its own.
    pub fn parse_or_host(text: &str) -> Result<Network, NetworkError> {
        if text.contains('/') {
            return Network::parse(text);
        }
        let address: IpAddr = text.parse().map_err(|_| NetworkError::BadAddress)?;
        let address = address.to_canonical();
        Ok(Network { address, prefix_bits: if address.is_ipv4() { 32 } else { 128 } })
    }

    /// Its first and its last address.
    pub(crate) fn range(self) -> (IpAddr, IpAddr) {
        let last = match self.address {
            IpAddr::V4(v4) => {
                let host_bits = u32::MAX.checked_shr(self.prefix_bits.into()).unwrap_or(0);
                IpAddr::V4((v4.to_bits() | host_bits).into())
            }
            IpAddr::V6(v6) => {
                let host_bits = u128::MAX.checked_shr(self.prefix_bits.into()).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() | host_bits))
            }
        };
        (self.address, last)
    }

    /// Whether the block holds `address`; an IPv4 address in IPv6 clothing (`::ffff:192.0.2.1`) counts as IPv4.
    pub fn contains(self, address: IpAddr) -> bool {
        masked(address.to_canonical(), self.prefix_bits) == self.address
    }
}

/// The first `prefix_bits` of the address, the rest zero. More bits than the address has: the address itself.
fn masked(address: IpAddr, prefix_bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix_bits.into())).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix_bits.into())).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkError::NoPrefixLength => f.write_str("no prefix length, as in `10.0.0.0/8`"),
            NetworkError::BadAddress => f.write_str("not an IPv4 or IPv6 address before the `/`"),
            NetworkError::BadPrefixLength { at_most } => write!(f, "the prefix length is a number from 0 to {at_most}"),
            NetworkError::HostBitsSet { network } => {
                write!(f, "bits beyond the prefix are set; the block starts at {network}")
            }
        }
    }
}

impl core::error::Error for NetworkError {}

#[cfg(test)]
mod tests {
    use alloc::string::{String, ToString};

    use super::*;

    #[test]
    fn a_block_holds_its_own_family_only() {
        let rows = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "203.0.113.9", false),
            ("192.0.2.1/32", "192.0.2.1", true),
            ("192.0.2.1/32", "192.0.2.2", false),
            ("2001:db8::/33", "2001:db8:7fff::", true),
            ("2001:db8::/33", "2001:db8:8000::", false),
        ];
        for (network, address, expected) in rows {
            let network = Network::parse(network).unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), expected, "{address} in {network}");
        }
    }

    #[test]
    fn a_block_that_could_be_misread_is_refused() {
        let rows = [
            ("10.0.0.0", NetworkError::NoPrefixLength),
            ("10.0.0/8", NetworkError::BadAddress),
            ("010.0.0.0/8", NetworkError::BadAddress),
            ("10.0.0.0/33", NetworkError::BadPrefixLength { at_most: 32 }),
            ("10.0.0.0/+8", NetworkError::BadPrefixLength { at_most: 32 }),
            ("2001:db8::/129", NetworkError::BadPrefixLength { at_most: 128 }),
            ("10.1.2.3/8", NetworkError::HostBitsSet { network: "10.0.0.0".parse().unwrap() }),
        ];
        for (text, expected) in rows {
            assert_eq!(Network::parse(text), Err(expected), "{text}");
        }
        let hosts = [
            ("192.0.2.1", Ok("192.0.2.1/32")),
            ("2001:db8::1", Ok("2001:db8::1/128")),
            ("::ffff:10.1.2.3", Ok("10.1.2.3/32")),
        ];
        for (text, expected) in hosts {
            assert_eq!(
                Network::parse_or_host(text).map(|network| network.to_string()),
                expected.map(String::from),
                "{text}"
            );
        }
        assert_eq!(Network::parse_or_host("192.0.2"), Err(NetworkError::BadAddress));
    }
}
