//! The largest segment that a passing SYN announces (RFC 9293 §3.7.1), lowered to what shall come back.

use crate::checksum;
use crate::parse::PacketMut;
use crate::syn_cookie::{OptionWalk, TCP_BYTES};

/// Stands for "whatever fits the way to the backend" where a service's largest segment is meant.
pub const WHATEVER_FITS: u16 = u16::MAX;

/// RFC 9293 §3.7.1: what is assumed of a SYN that announces nothing. Below it nothing is lowered: a way so narrow is a
/// mistake, and tiny segments are an attack on whoever must send them.
pub const LEAST_SEGMENT_BYTES: u16 = 536;

const IPV4_BYTES: u16 = 20;
const IPV6_BYTES: u16 = 40;
const CHECKSUM_OFFSET: usize = 16;

/// What a SYN may announce at most: what the service says, and never more than fits into `fits_bytes` of IP packet.
#[inline(always)]
pub const fn most(service_bytes: u16, fits_bytes: u16, is_v4: bool) -> u16 {
    let header_bytes = TCP_BYTES as u16 + if is_v4 { IPV4_BYTES } else { IPV6_BYTES };
    let fitting = fits_bytes.saturating_sub(header_bytes);
    let most = if service_bytes < fitting { service_bytes } else { fitting };
    if most < LEAST_SEGMENT_BYTES { LEAST_SEGMENT_BYTES } else { most }
}

/// Lowers what the SYN whose TCP header begins at `offset` announces, and its checksum with it. `walk` has read its
/// options. A SYN that announces no more than `most_bytes`, or nothing, stays as it is: nothing is ever raised or added.
///
/// Of several announcements the last counts, as in Linux. A receiver for whom the first does gets what it was sent.
/// `None` if the frame ends before the header does.
#[inline(always)]
pub fn lower(packet: &mut (impl PacketMut + ?Sized), offset: usize, walk: &OptionWalk, most_bytes: u16) -> Option<()> {
    let (announced_bytes, at) = walk.max_segment();
    if announced_bytes <= most_bytes {
        return Some(());
    }
    let place = offset + TCP_BYTES + at;
    // Not what the walk read: nobody has promised that nothing changed in between.
    let old = packet.load::<u16>(place)?;
    let new = most_bytes.to_be();
    packet.store(place, new)?;
    let sum_offset = offset + CHECKSUM_OFFSET;
    let sum = packet.load::<u16>(sum_offset)?;
    // At an odd place the number's bytes are the second of one word and the first of the next.
    let (old, new) = if at & 1 == 0 { (old, new) } else { (old.swap_bytes(), new.swap_bytes()) };
    packet.store(sum_offset, checksum::replace(sum, old, new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syn_cookie::{MOST_STEPS, OPTION_BUFFER_BYTES};
    use proptest::prelude::*;
    use std::vec::Vec;

    /// A TCP header with these options and a right checksum over itself, at an even offset.
    fn segment(options: &[u8], data: &[u8]) -> Vec<u8> {
        let mut segment = std::vec![0; TCP_BYTES];
        segment[..4].copy_from_slice(&[0x9c, 0x40, 1, 0xbb]);
        segment[12] = (((TCP_BYTES + options.len()) / 4) << 4) as u8;
        segment[13] = 2;
        segment.extend(options);
        segment.extend(data);
        let sum = !folded(&segment);
        segment[CHECKSUM_OFFSET..CHECKSUM_OFFSET + 2].copy_from_slice(&sum.to_be_bytes());
        segment
    }

    fn folded(bytes: &[u8]) -> u16 {
        let words = bytes.chunks(2).map(|pair| u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
        checksum::fold(words.sum())
    }

    fn lowered(segment: &[u8], most_bytes: u16) -> Vec<u8> {
        let header_bytes = usize::from(segment[12] >> 4) * 4;
        let mut options = [0; OPTION_BUFFER_BYTES];
        options[..header_bytes - TCP_BYTES].copy_from_slice(&segment[TCP_BYTES..header_bytes]);
        let words = core::array::from_fn(|word| {
            u64::from_le_bytes(options[8 * word..8 * word + 8].try_into().expect("eight bytes"))
        });
        let mut walk = OptionWalk::new(words, header_bytes);
        for _ in 0..MOST_STEPS {
            if !walk.step() {
                break;
            }
        }
        let mut frame = segment.to_vec();
        lower(frame.as_mut_slice(), 0, &walk, most_bytes).expect("inside the frame");
        frame
    }

    #[test]
    fn what_is_announced_is_lowered_wherever_it_stands_and_never_raised() {
        let rows: &[(&str, &[u8], &[u8])] = &[
            ("alone", &[2, 4, 5, 180], &[2, 4, 5, 100]),
            ("behind another option", &[4, 2, 2, 4, 5, 180, 1, 1], &[4, 2, 2, 4, 5, 100, 1, 1]),
            ("at an odd place", &[1, 2, 4, 5, 180, 1, 1, 0], &[1, 2, 4, 5, 100, 1, 1, 0]),
            ("the last of two", &[2, 4, 5, 180, 2, 4, 5, 150], &[2, 4, 5, 180, 2, 4, 5, 100]),
            ("less already", &[2, 4, 5, 99], &[2, 4, 5, 99]),
            ("just as much", &[2, 4, 5, 100], &[2, 4, 5, 100]),
            ("nothing", &[1, 1, 1, 0], &[1, 1, 1, 0]),
            ("no options", &[], &[]),
            ("with a wrong length", &[2, 3, 5, 180], &[2, 3, 5, 180]),
            ("cut short", &[1, 1, 2, 4], &[1, 1, 2, 4]),
            ("behind the end of options", &[0, 0, 0, 0, 2, 4, 5, 180], &[0, 0, 0, 0, 2, 4, 5, 180]),
            ("behind one without a length", &[9, 0, 2, 4, 5, 180, 0, 0], &[9, 0, 2, 4, 5, 180, 0, 0]),
        ];
        for (name, options, expected) in rows {
            for data in [&b""[..], b"early"] {
                assert_eq!(lowered(&segment(options, data), 1380), segment(expected, data), "{name}");
            }
        }
    }

    #[test]
    fn the_most_is_the_services_or_what_fits_and_never_tiny() {
        let rows = [
            (WHATEVER_FITS, 1480, true, 1440),
            (WHATEVER_FITS, 1480, false, 1420),
            (1400, 1480, true, 1400),
            (1450, 1480, true, 1440),
            (1000, 1480, false, 1000),
            (WHATEVER_FITS, 0, true, LEAST_SEGMENT_BYTES),
            (WHATEVER_FITS, u16::MAX, true, 65_495),
        ];
        for (service_bytes, fits_bytes, is_v4, expected) in rows {
            assert_eq!(most(service_bytes, fits_bytes, is_v4), expected, "{service_bytes} {fits_bytes} {is_v4}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_options_are_the_checksum_stays_right_and_nothing_grows(
            words in proptest::collection::vec(any::<[u8; 4]>(), 0..=10), data: Vec<u8>, most_bytes in 536_u16..
        ) {
            let before = segment(&words.concat(), &data);
            let after = lowered(&before, most_bytes);
            prop_assert_eq!(folded(&after), folded(&before));
            let changed: Vec<usize> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
            let outside = changed.iter().filter(|at| !(TCP_BYTES..TCP_BYTES + 4 * words.len()).contains(*at));
            prop_assert!(outside.into_iter().all(|at| (16..18).contains(at)), "{:?}", changed);
        }
    }
}
