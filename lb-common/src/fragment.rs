//! What the first fragment of a datagram said, for those that follow it: they carry no ports of their own.
//!
//! The table is an array of sets, each one cache line with four entries. An entry is two words: what is remembered, and
//! the same mixed with the datagram's tag. Two CPUs that write one entry at once leave words that do not belong
//! together, and such an entry is nobody's; so no lock is needed. A full set forgets its oldest entry: a flood of first
//! fragments costs memory that is there anyway, and makes others' later fragments unknown at worst.

use crate::address::Address;
use crate::hash::datagram_hash;
use crate::parse::{Headers, TCP, UDP};

/// A power of two.
pub const FRAGMENT_SETS: usize = 4096;
const ENTRIES: usize = 4;
/// Of one set: [`ENTRIES`] pairs.
pub const SET_WORDS: usize = 2 * ENTRIES;

/// The clock's step here: 16.8 ms.
const TIME_SHIFT: u32 = 24;
/// 2.0 s. Fragments of a datagram leave together; the kernel itself would wait 30 s, and spend memory on it.
const REMEMBERED_STEPS: u64 = 119;

const PORT_BITS: u32 = 16;
const UNIT_BITS: u32 = 14;
const PROTOCOL_SHIFT: u32 = 2 * PORT_BITS + UNIT_BITS;
const STEP_SHIFT: u32 = PROTOCOL_SHIFT + 1;
const STEP_MASK: u64 = (1 << (u64::BITS - STEP_SHIFT)) - 1;

/// The name of a datagram that was sent in fragments (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Datagram {
    pub source: Address,
    pub destination: Address,
    pub identification: u32,
    /// 0 for IPv6, where fragments need not agree on it.
    pub protocol: u8,
}

impl Datagram {
    #[inline(always)]
    pub const fn of(headers: &Headers) -> Self {
        let protocol = if headers.source.is_v4() { headers.protocol } else { 0 };
        let (source, destination) = (headers.source, headers.destination);
        Self { source, destination, identification: headers.fragment.identification, protocol }
    }
}

/// Where a datagram is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Below [`FRAGMENT_SETS`].
    pub set: u32,
    tag: u64,
}

impl Place {
    #[inline(always)]
    pub fn of(key: [u64; 2], datagram: &Datagram) -> Self {
        let hash = datagram_hash(key, datagram);
        // An empty entry is all zero, and no datagram's.
        Self { set: (hash >> 32) as u32 & (FRAGMENT_SETS as u32 - 1), tag: hash | 1 }
    }
}

/// What the first fragment said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First {
    /// Host order.
    pub source_port: u16,
    pub destination_port: u16,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// Where it ended, in units of 8 bytes.
    pub end_units: u16,
}

impl First {
    #[inline(always)]
    const fn to_word(self, now_ns: u64) -> u64 {
        self.source_port as u64
            | (self.destination_port as u64) << PORT_BITS
            | (self.end_units as u64) << (2 * PORT_BITS)
            | ((self.protocol == UDP) as u64) << PROTOCOL_SHIFT
            | steps(now_ns) << STEP_SHIFT
    }

    #[inline(always)]
    const fn from_word(word: u64) -> Self {
        const UNIT_MASK: u64 = (1 << UNIT_BITS) - 1;
        Self {
            source_port: word as u16,
            destination_port: (word >> PORT_BITS) as u16,
            protocol: if word >> PROTOCOL_SHIFT & 1 == 1 { UDP } else { TCP },
            end_units: (word >> (2 * PORT_BITS) & UNIT_MASK) as u16,
        }
    }
}

#[inline(always)]
const fn steps(now_ns: u64) -> u64 {
    now_ns >> TIME_SHIFT & STEP_MASK
}

#[inline(always)]
const fn age_steps(word: u64, now_ns: u64) -> u64 {
    steps(now_ns).wrapping_sub(word >> STEP_SHIFT) & STEP_MASK
}

/// What is remembered at `place`, of which `set` are the words.
#[inline(always)]
pub fn find(set: &[u64; SET_WORDS], place: Place, now_ns: u64) -> Option<First> {
    let mut entry = 0;
    while entry < ENTRIES {
        let [word, mixed] = [set[2 * entry], set[2 * entry + 1]];
        if word ^ place.tag == mixed && age_steps(word, now_ns) <= REMEMBERED_STEPS {
            return Some(First::from_word(word));
        }
        entry += 1;
    }
    None
}

/// Which of the set's pairs of words to write, and with what, so that `first` is remembered at `place`.
#[inline(always)]
pub fn remember(set: &[u64; SET_WORDS], place: Place, now_ns: u64, first: First) -> (usize, [u64; 2]) {
    let word = first.to_word(now_ns);
    let (mut oldest, mut oldest_age) = (0, 0);
    let mut entry = 0;
    while entry < ENTRIES {
        let [seen, mixed] = [set[2 * entry], set[2 * entry + 1]];
        // Its own entry is as good as the oldest one: it is about to be written anew.
        let is_reusable = seen ^ place.tag == mixed || (seen == 0 && mixed == 0);
        let age = if is_reusable { STEP_MASK + 1 } else { age_steps(seen, now_ns) };
        if age > oldest_age {
            (oldest, oldest_age) = (entry, age);
        }
        entry += 1;
    }
    (oldest, [word, word ^ place.tag])
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::vec::Vec;

    const KEY: [u64; 2] = [7, 11];
    const SECOND_NS: u64 = 1_000_000_000;
    const FIRST: First = First { source_port: 40_000, destination_port: 443, protocol: UDP, end_units: 185 };

    fn datagram(identification: u32) -> Datagram {
        Datagram {
            source: Ipv4Addr::new(192, 0, 2, 1).into(),
            destination: Ipv4Addr::new(198, 51, 100, 10).into(),
            identification,
            protocol: UDP,
        }
    }

    fn write(set: &mut [u64; SET_WORDS], place: Place, now_ns: u64, first: First) {
        let (entry, words) = remember(set, place, now_ns, first);
        set[2 * entry..2 * entry + 2].copy_from_slice(&words);
    }

    #[test]
    fn what_was_remembered_is_found_for_two_seconds_and_no_longer() {
        let (mut set, place) = ([0; SET_WORDS], Place::of(KEY, &datagram(1)));
        assert_eq!(find(&set, place, 0), None, "an empty set");
        let now_ns = 5000 * SECOND_NS;
        write(&mut set, place, now_ns, FIRST);
        assert_eq!(find(&set, place, now_ns), Some(FIRST));
        assert_eq!(find(&set, place, now_ns + 1_900_000_000), Some(FIRST));
        assert_eq!(find(&set, place, now_ns + 2_100_000_000), None);
        assert_eq!(find(&set, Place::of(KEY, &datagram(2)), now_ns), None, "another datagram");
    }

    #[test]
    fn every_part_of_the_name_counts() {
        let base = datagram(1);
        let other = Address::from(Ipv4Addr::new(192, 0, 2, 2));
        for changed in [
            Datagram { source: other, ..base },
            Datagram { destination: other, ..base },
            Datagram { identification: 2, ..base },
            Datagram { protocol: TCP, ..base },
        ] {
            assert_ne!(Place::of(KEY, &changed).tag, Place::of(KEY, &base).tag, "{changed:?}");
        }
        assert_ne!(Place::of([1, 2], &base).tag, Place::of(KEY, &base).tag, "the key");
    }

    #[test]
    fn a_full_set_forgets_its_oldest_entry() {
        let mut set = [0; SET_WORDS];
        let places: Vec<_> = (0..5).map(|number| Place::of(KEY, &datagram(number))).collect();
        for (number, place) in (0..).zip(&places) {
            write(&mut set, *place, SECOND_NS + number * 100_000_000, FIRST);
        }
        let found: Vec<_> = places.iter().map(|place| find(&set, *place, 1_500_000_000).is_some()).collect();
        assert_eq!(found, [false, true, true, true, true]);
    }

    #[test]
    fn an_entry_half_written_by_another_cpu_is_nobodys() {
        let (mut one, mut other) = ([0; SET_WORDS], [0; SET_WORDS]);
        let [place, rival] = [1, 2].map(|number| Place::of(KEY, &datagram(number)));
        write(&mut one, place, SECOND_NS, FIRST);
        write(&mut other, rival, SECOND_NS, First { source_port: 1, ..FIRST });
        one[1] = other[1];
        assert_eq!([find(&one, place, SECOND_NS), find(&one, rival, SECOND_NS)], [None, None]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// One set, used by as many datagrams as it has room for: exactly what a map with times would remember.
        #[test]
        fn it_remembers_what_a_map_with_times_does(
            steps in proptest::collection::vec((0_u32..4, any::<bool>(), any::<[u16; 2]>(), 1_u16..8192, 0..900_u64), 1..60),
        ) {
            let mut set = [0; SET_WORDS];
            let mut model: HashMap<u32, (First, u64)> = HashMap::new();
            let mut now_ns = 3 * SECOND_NS;
            for (number, writes, [source_port, destination_port], end_units, pause_ms) in steps {
                now_ns += pause_ms * 1_000_000;
                let place = Place::of(KEY, &datagram(number));
                if writes {
                    let protocol = if source_port % 2 == 0 { TCP } else { UDP };
                    let first = First { source_port, destination_port, protocol, end_units };
                    write(&mut set, place, now_ns, first);
                    model.insert(number, (first, now_ns));
                }
                let is_alive = |at_ns: u64| (now_ns >> TIME_SHIFT) - (at_ns >> TIME_SHIFT) <= REMEMBERED_STEPS;
                let expected = model.get(&number).filter(|(_, at_ns)| is_alive(*at_ns)).map(|(first, _)| *first);
                prop_assert_eq!(find(&set, place, now_ns), expected);
            }
        }
    }
}
