//! One address type for both families.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv6 address, or an IPv4 one in its v4-mapped form (RFC 4291 §2.5.5.2).
///
/// Kept as four words in network order rather than 16 bytes: the eBPF back end moves and compares words, and would
/// otherwise do it a byte at a time.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
#[repr(C)]
pub struct Address {
    pub words_be: [u32; 4],
}

/// Words that [`Address::hint`] spreads over: 65,536 bits.
pub const HINT_WORDS: usize = 1024;

const MAPPED_MARK_BE: u32 = 0xffff_u32.to_be();

impl Address {
    /// `word_be` holds the four octets in the order they have on the wire.
    #[inline(always)]
    pub const fn from_v4_word(word_be: u32) -> Self {
        Self { words_be: [0, 0, MAPPED_MARK_BE, word_be] }
    }

    /// One comparison: where an address was refused for being IPv4, the compiler remembers the answer.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.words_be[0] | self.words_be[1] | (self.words_be[2] ^ MAPPED_MARK_BE) == 0
    }

    /// The four octets in the order they have on the wire; `None` for IPv6.
    #[inline(always)]
    pub const fn v4_word(&self) -> Option<u32> {
        if self.is_v4() { Some(self.words_be[3]) } else { None }
    }

    /// The address as two words for hashing.
    #[inline(always)]
    pub const fn halves(&self) -> [u64; 2] {
        let [first, second, third, fourth] = self.words_be;
        [(first as u64) << 32 | second as u64, (third as u64) << 32 | fourth as u64]
    }

    /// A word and the bit in it, of [`HINT_WORDS`] words: set while this address is in some set, and perhaps for others.
    ///
    /// Not keyed: whoever aims at the bit of a member gains nothing but the exact lookup that it stands for.
    #[inline(always)]
    pub const fn hint(&self) -> (u32, u64) {
        self.hint_among(HINT_WORDS)
    }

    /// As [`Self::hint`], of as many words; a power of two.
    #[inline(always)]
    pub const fn hint_among(&self, words: usize) -> (u32, u64) {
        const ODD: u64 = 0xd6e8_feb8_6659_fd93;
        let [high, low] = self.halves();
        let hash = (high.wrapping_mul(ODD) ^ low).wrapping_mul(ODD) >> 32;
        let bit = hash as u32 % (words as u32 * u64::BITS);
        (bit / u64::BITS, 1 << (bit % u64::BITS))
    }

    /// Not unspecified, this network's, loopback, multicast or broadcast: who is there may be sent something.
    #[inline(always)]
    pub const fn is_one_host(&self) -> bool {
        let [a, b, c, d] = self.words_be;
        if self.is_v4() {
            let first = d.to_ne_bytes()[0];
            return first != 0 && first != 127 && first < 224;
        }
        let is_low = a == 0 && b == 0 && c == 0 && u32::from_be(d) <= 1;
        !is_low && a.to_ne_bytes()[0] != 0xff
    }

    pub fn octets(&self) -> [u8; 16] {
        zerocopy::transmute!(self.words_be)
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        let octets = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        Self { words_be: zerocopy::transmute!(octets) }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(address: Ipv4Addr) -> Self {
        IpAddr::V4(address).into()
    }
}

impl From<Ipv6Addr> for Address {
    fn from(address: Ipv6Addr) -> Self {
        IpAddr::V6(address).into()
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        Ipv6Addr::from(address.octets()).to_canonical()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_survive_the_round_trip() {
        for text in ["0.0.0.0", "198.51.100.10", "255.255.255.255", "::", "::1", "2001:db8::a"] {
            let address: IpAddr = text.parse().expect("an address");
            assert_eq!(IpAddr::from(Address::from(address)), address, "{text}");
        }
    }

    #[test]
    fn only_v4_and_its_mapped_form_count_as_v4() {
        let rows = [("10.0.0.1", true), ("::ffff:10.0.0.1", true), ("::10.0.0.1", false), ("64:ff9b::10.0.0.1", false)];
        for (text, expected) in rows {
            let address: IpAddr = text.parse().expect("an address");
            assert_eq!(Address::from(address).is_v4(), expected, "{text}");
        }
    }

    #[test]
    fn a_word_from_the_wire_is_the_address_it_spells() {
        let word_be = u32::from_ne_bytes([198, 51, 100, 10]);
        assert_eq!(Address::from_v4_word(word_be), Address::from(Ipv4Addr::new(198, 51, 100, 10)));
    }
}
