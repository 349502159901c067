//! What the sender of a packet is told that does not fit the way to its backend: "fragmentation needed" (RFC 792, RFC 1191)
//! or "packet too big" (RFC 4443 §3.2), with what would fit.

use crate::address::Address;
use crate::checksum::{fold, sum};
use crate::parse::{Fragment, ICMP, ICMPV6};

/// How much of the packet is quoted. Of IPv4 what makes a message of 576 bytes, which every host takes (RFC 1812 §4.3.2.3);
/// of IPv6 what makes one of 1,280 bytes, which every link takes (RFC 4443 §3.2).
pub const QUOTED_BYTES_4: usize = 576 - IPV4_BYTES - HEADER_BYTES;
pub const QUOTED_BYTES_6: usize = LEAST_IPV6_MTU_BYTES as usize - IPV6_BYTES - HEADER_BYTES;

/// What is put before the quoted bytes.
pub const FRONT_BYTES_4: usize = IPV4_BYTES + HEADER_BYTES;
pub const FRONT_BYTES_6: usize = IPV6_BYTES + HEADER_BYTES;

const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
/// Of the ICMP message.
const HEADER_BYTES: usize = 8;
/// RFC 8200 §5: no sender goes below, whatever it is told.
const LEAST_IPV6_MTU_BYTES: u16 = 1280;

/// May, and should, the sender of a packet be told that no more than `fits_bytes` fit?
///
/// Nothing is said about later fragments, nor to addresses that are not one host's (RFC 1122 §3.2.2, RFC 4443 §2.4). And
/// nothing if it would not help, as an IPv6 host never sends less than 1,280 bytes: a way that is so narrow is for the
/// operator to widen. IPv4 ways below 548 bytes count as such too, so that there always is as much as is quoted.
#[inline(always)]
pub const fn is_worth_telling(sender: &Address, fragment: &Fragment, fits_bytes: u16) -> bool {
    let least_bytes = if sender.is_v4() { QUOTED_BYTES_4 as u16 } else { LEAST_IPV6_MTU_BYTES };
    fragment.start_units == 0 && fits_bytes >= least_bytes && sender.is_one_host()
}

/// The IPv4 header and the start of the message, from the VIP that the packet was sent to: words in network order.
/// `quoted_sum` is [`sum`] of what is quoted.
///
/// Precedence "internetwork control", as routers send errors (RFC 1812 §4.3.2.5).
#[inline(always)]
pub const fn front_4(vip: &Address, sender: &Address, fits_bytes: u16, quoted_sum: u64) -> [u32; FRONT_BYTES_4 / 4] {
    const VERSION_WORDS_AND_PRECEDENCE: u32 = 0x45c0_0000;
    const DO_NOT_FRAGMENT: u32 = 0x4000;
    const FRAGMENTATION_NEEDED: u32 = 0x0304_0000;
    let total_bytes = (FRONT_BYTES_4 + QUOTED_BYTES_4) as u32;
    let mut words = [
        (VERSION_WORDS_AND_PRECEDENCE | total_bytes).to_be(),
        DO_NOT_FRAGMENT.to_be(),
        (TIME_TO_LIVE << 24 | (ICMP as u32) << 16).to_be(),
        vip.words_be[3],
        sender.words_be[3],
        FRAGMENTATION_NEEDED.to_be(),
        (fits_bytes as u32).to_be(),
    ];
    let [a, b, c, d, e, f, g] = words;
    words[2] = with_checksum(c, sum(&[a, b, c, d, e]));
    words[5] = with_checksum(f, sum(&[f, g]) + quoted_sum);
    words
}

/// As [`front_4`], of IPv6.
#[inline(always)]
pub const fn front_6(vip: &Address, sender: &Address, fits_bytes: u16, quoted_sum: u64) -> [u32; FRONT_BYTES_6 / 4] {
    const PACKET_TOO_BIG: u32 = 0x0200_0000;
    let message_bytes = (HEADER_BYTES + QUOTED_BYTES_6) as u32;
    let [a, b, c, d] = vip.words_be;
    let [e, f, g, h] = sender.words_be;
    let length_and_next = message_bytes << 16 | (ICMPV6 as u32) << 8 | TIME_TO_LIVE;
    let (kind, fits) = (PACKET_TOO_BIG.to_be(), (fits_bytes as u32).to_be());
    // RFC 8200 §8.1.
    let pseudo_header = [a, b, c, d, e, f, g, h, message_bytes.to_be(), (ICMPV6 as u32).to_be()];
    let kind = with_checksum(kind, sum(&pseudo_header) + sum(&[kind, fits]) + quoted_sum);
    [0x6000_0000_u32.to_be(), length_and_next.to_be(), a, b, c, d, e, f, g, h, kind, fits]
}

const TIME_TO_LIVE: u32 = 64;

/// `word` with the checksum in its second half, where IPv4 and ICMP have it.
#[inline(always)]
const fn with_checksum(word: u32, sum: u64) -> u32 {
    let [first, second] = (!fold(sum)).to_ne_bytes();
    word | u32::from_ne_bytes([0, 0, first, second])
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().expect("an address").into()
    }

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn words(bytes: &[u8]) -> Vec<u32> {
        bytes.as_chunks::<4>().0.iter().map(|chunk| u32::from_ne_bytes(*chunk)).collect()
    }

    /// RFC 1071 §1 as it is written there.
    fn folded(bytes: &[u8]) -> u32 {
        let sum: u64 = bytes.chunks(2).map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        (0..4).fold(sum, |sum, _| (sum >> 16) + (sum & 0xffff)) as u32
    }

    #[test]
    fn an_ipv4_message_is_byte_for_byte_what_the_standards_say() {
        let front = bytes(&front_4(&address("198.51.100.10"), &address("192.0.2.1"), 1480, 0));
        assert_eq!(front[..10], [0x45, 0xc0, 2, 64, 0, 0, 0x40, 0, 64, 1]);
        assert_eq!(front[12..22], [198, 51, 100, 10, 192, 0, 2, 1, 3, 4]);
        assert_eq!(front[24..], [0, 0, 5, 200]);
    }

    #[test]
    fn an_ipv6_message_is_byte_for_byte_what_the_standards_say() {
        let (vip, sender) = (address("2001:db8::1"), address("2001:db8::2"));
        let front = bytes(&front_6(&vip, &sender, 1460, 0));
        assert_eq!(front[..8], [0x60, 0, 0, 0, 4, 0xd8, 58, 64]);
        assert_eq!((&front[8..24], &front[24..40]), (&vip.octets()[..], &sender.octets()[..]));
        assert_eq!((&front[40..42], &front[44..]), (&[2, 0][..], &[0, 0, 5, 180][..]));
    }

    proptest! {
        #[test]
        fn its_checksums_are_right_whatever_is_quoted(quoted in proptest::collection::vec(any::<u8>(), QUOTED_BYTES_6), fits_bytes: u16) {
            let (vip, sender) = (address("198.51.100.10"), address("192.0.2.1"));
            let quoted_4 = &quoted[..QUOTED_BYTES_4];
            let quoted_sum = words(quoted_4).iter().map(|word| u64::from(*word)).sum();
            let message = [&bytes(&front_4(&vip, &sender, fits_bytes, quoted_sum))[..], quoted_4].concat();
            prop_assert_eq!((folded(&message[..20]), folded(&message[20..])), (0xffff, 0xffff));

            let (vip, sender) = (address("2001:db8::1"), address("2001:db8::2"));
            let quoted_sum = words(&quoted).iter().map(|word| u64::from(*word)).sum();
            let message = [bytes(&front_6(&vip, &sender, fits_bytes, quoted_sum)), quoted].concat();
            let covered = [&message[8..40], &[0, 0, 4, 0xd8, 0, 0, 0, 58], &message[40..]].concat();
            prop_assert_eq!(folded(&covered), 0xffff);
        }
    }

    #[test]
    fn only_who_can_make_use_of_it_is_told() {
        let part = |start_units| Fragment { identification: 7, start_units, end_units: 200 };
        let rows = [
            ("192.0.2.1", Fragment::WHOLE, 1480, true),
            ("192.0.2.1", part(0), 1480, true),
            ("192.0.2.1", part(100), 1480, false),
            ("192.0.2.1", Fragment::WHOLE, 548, true),
            ("192.0.2.1", Fragment::WHOLE, 547, false),
            ("0.0.0.0", Fragment::WHOLE, 1480, false),
            ("127.0.0.1", Fragment::WHOLE, 1480, false),
            ("224.0.0.1", Fragment::WHOLE, 1480, false),
            ("255.255.255.255", Fragment::WHOLE, 1480, false),
            ("2001:db8::1", Fragment::WHOLE, 1280, true),
            ("2001:db8::1", Fragment::WHOLE, 1279, false),
            ("::", Fragment::WHOLE, 1480, false),
            ("::1", Fragment::WHOLE, 1480, false),
            ("ff02::1", Fragment::WHOLE, 1480, false),
        ];
        for (sender, fragment, fits_bytes, expected) in rows {
            assert_eq!(is_worth_telling(&address(sender), &fragment, fits_bytes), expected, "{sender} {fits_bytes}");
        }
    }
}
