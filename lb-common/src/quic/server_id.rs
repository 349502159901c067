//! What a server puts into its connection ids.

use core::fmt;
use core::str::FromStr;

use super::{MOST_SERVER_ID_BYTES, QuicServerKey, key};
use crate::address::Address;
use crate::hash::server_hashes;

/// 1 to 15 bytes, written in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId {
    /// Zeros behind its end.
    bytes: [u8; MOST_SERVER_ID_BYTES],
    length: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadServerId;

impl ServerId {
    /// `None` unless there are 1 to 15 bytes.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut id = Self { bytes: [0; MOST_SERVER_ID_BYTES], length: bytes.len() as u8 };
        id.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        (!bytes.is_empty()).then_some(id)
    }

    /// That of a server which was given none: the same on every load balancer and at every start. Of few bytes two
    /// servers may get the same. `None` unless `bytes` is 1 to 15.
    pub fn derived(address: Address, port: u16, bytes: usize) -> Option<Self> {
        let hashes: [u8; 16] = zerocopy::transmute!(server_hashes(address, port).map(u64::to_be));
        Self::new(hashes.get(..bytes)?)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// How `pool` finds the server.
    pub fn key(&self, pool: u16) -> QuicServerKey {
        let mut bytes = [0; MOST_SERVER_ID_BYTES + 1];
        bytes[..MOST_SERVER_ID_BYTES].copy_from_slice(&self.bytes);
        key(zerocopy::transmute!(bytes), usize::from(self.length), pool)
    }

    /// What [`Self::key`] was made of.
    pub fn of_key(key: &QuicServerKey) -> Option<Self> {
        let bytes: [u8; MOST_SERVER_ID_BYTES + 1] = zerocopy::transmute!(key.id_le.map(u64::to_le));
        Self::new(bytes.get(..key.id_bytes as usize)?)
    }
}

impl FromStr for ServerId {
    type Err = BadServerId;

    fn from_str(text: &str) -> Result<Self, BadServerId> {
        let digits = text.as_bytes();
        let (pairs, rest) = digits.as_chunks::<2>();
        let mut bytes = [0; MOST_SERVER_ID_BYTES];
        let place = bytes.get_mut(..pairs.len()).ok_or(BadServerId)?;
        for (byte, pair) in place.iter_mut().zip(pairs) {
            let digit = |digit: u8| char::from(digit).to_digit(16).ok_or(BadServerId);
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Self::new(place).filter(|_| rest.is_empty()).ok_or(BadServerId)
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for ServerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn what_is_written_is_what_is_shown_and_found() {
        for text in ["0a", "0a000002", "00112233445566778899aabbccddee"] {
            let id: ServerId = text.parse().expect("a server id");
            assert_eq!(id.to_string(), text);
            assert_eq!(ServerId::of_key(&id.key(7)), Some(id));
        }
        assert_eq!("0A".parse::<ServerId>(), "0a".parse());
        for text in ["", "a", "0g", "0a0", "00112233445566778899aabbccddeeff", "0x0a", "é"] {
            assert_eq!(text.parse::<ServerId>(), Err(BadServerId), "{text}");
        }
    }

    #[test]
    fn a_derived_id_stays_what_it_is_and_shorter_ones_begin_it() {
        let address = Address::from(core::net::Ipv4Addr::new(10, 0, 0, 2));
        let derived = |bytes| ServerId::derived(address, 443, bytes);
        // Whoever has configured servers by it relies on it.
        assert_eq!(derived(8).expect("eight bytes").to_string(), DERIVED);
        assert_eq!(derived(3).expect("three bytes").as_bytes(), &derived(15).expect("fifteen bytes").as_bytes()[..3]);
        assert_eq!([0, 16].map(derived), [None, None]);
        assert_ne!(ServerId::derived(address, 444, 8), derived(8));
    }

    const DERIVED: &str = "6800b978eff48ea0";
}
