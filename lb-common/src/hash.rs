//! Keyed hashes. SipHash-1-3 where predicting the hash gains something: whoever can predict the worker of a packet can
//! aim a flood at one worker. A cheap one where it gains nothing.

use crate::address::Address;
use crate::fragment::Datagram;
use crate::maps::MAGLEV_SIZE;

/// What identifies a connection. XDP reads it from the packet, sk_lookup from the kernel's own parse of the same
/// packet; both must fill it alike or they choose different workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
    pub source: Address,
    pub destination: Address,
    /// Host order, as the destination port.
    pub source_port: u16,
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

/// Uniform over `u64`: any bits of it will do.
///
/// IPv4 addresses share a word, which saves three of eight rounds. An IPv4 connection and an IPv6 one may meet in a
/// hash like any other two.
#[inline(always)]
pub fn connection_hash(key: [u64; 2], connection: &Connection) -> u64 {
    let ports = (connection.source_port as u64) << 32 | (connection.destination_port as u64) << 16;
    let rest = ports | connection.protocol as u64;
    if let (Some(source), Some(destination)) = (connection.source.v4_word(), connection.destination.v4_word()) {
        return siphash_1_3([(source as u64) << 32 | destination as u64, rest], key);
    }
    let [source_high, source_low] = connection.source.halves();
    let [destination_high, destination_low] = connection.destination.halves();
    siphash_1_3([source_high, source_low, destination_high, destination_low, rest], key)
}

/// Places a connection in the flow cache and tells it from others there: uniform over `u64` for whoever does not know
/// the key, and a fifth of the cost of [`connection_hash`]. Nobody can see its result, so none can learn the key from it
/// and aim at somebody's bucket.
#[inline(always)]
pub fn flow_hash(key: [u64; 2], connection: &Connection) -> u64 {
    let ports = (connection.source_port as u64) << 32 | (connection.destination_port as u64) << 16;
    let rest = ports | connection.protocol as u64;
    let odd = [key[0] | 1, key[1] | 1];
    let sum = if let (Some(source), Some(destination)) = (connection.source.v4_word(), connection.destination.v4_word())
    {
        let addresses = (source as u64) << 32 | destination as u64;
        addresses.wrapping_mul(odd[0]).wrapping_add(rest.wrapping_mul(odd[1]))
    } else {
        // Multipliers of the parts must differ, or swapping two parts would not be seen.
        let [source_high, source_low] = connection.source.halves();
        let [destination_high, destination_low] = connection.destination.halves();
        source_high
            .wrapping_mul(odd[0].rotate_left(16) | 1)
            .wrapping_add(source_low.wrapping_mul(odd[1].rotate_left(16) | 1))
            .wrapping_add(destination_high.wrapping_mul(odd[0].rotate_left(32) | 1))
            .wrapping_add(destination_low.wrapping_mul(odd[1].rotate_left(32) | 1))
            .wrapping_add(rest.wrapping_mul(odd[1]))
    };
    // The highest bits of a product depend on all of its factors; they go to where the bucket is read from.
    let mixed = (sum ^ sum >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ mixed >> 32
}

/// Maps a hash to `0..workers` evenly and without a division, by its upper half; 0 if there is no worker.
#[inline(always)]
pub const fn pick_worker(hash: u64, workers: u16) -> u16 {
    (((hash >> 32) * workers as u64) >> 32) as u16
}

/// Maps a hash to a place of a Maglev table.
#[inline(always)]
pub const fn maglev_place(hash: u64) -> usize {
    (((hash >> 32) * MAGLEV_SIZE as u64) >> 32) as usize
}

/// Uniform over `u64`, the same for all connections of a client.
#[inline(always)]
pub fn client_hash(key: [u64; 2], client: Address) -> u64 {
    siphash_1_3(client.halves(), key)
}

/// Uniform over `u64`, for the places of sources in the limiter.
///
/// Two multiplications instead of four rounds of SipHash. Who can predict it may aim at the set of somebody else, and
/// make that source be forgiven; or find an address that shares another's entry, which whoever can forge addresses need
/// not look for.
#[inline(always)]
pub const fn limiter_hash(key: [u64; 2], word: u64) -> u64 {
    const ODD: u64 = 0xd6e8_feb8_6659_fd93;
    let hash = word ^ key[0];
    let hash = (hash ^ hash >> 32).wrapping_mul(ODD);
    let hash = (hash ^ hash >> 32).wrapping_mul(key[1] | 1);
    hash ^ hash >> 32
}

/// Names a datagram whose fragments are followed. Who could make two datagrams collide could have the fragments of one
/// judged by the ports of the other.
#[inline(always)]
pub fn datagram_hash(key: [u64; 2], datagram: &Datagram) -> u64 {
    let [source_high, source_low] = datagram.source.halves();
    let [destination_high, destination_low] = datagram.destination.halves();
    let rest = (datagram.identification as u64) << 8 | datagram.protocol as u64;
    siphash_1_3([source_high, source_low, destination_high, destination_low, rest], key)
}

/// Where a server prefers to stand in a Maglev table: an offset and a step. Not keyed: every load balancer of a tier must
/// build the same table from the same servers, and who they are is the operator's choice alone.
pub fn server_hashes(address: Address, port: u16) -> [u64; 2] {
    let [high, low] = address.halves();
    [0, 1].map(|number| siphash_1_3([high, low, port as u64], [number, 0]))
}

/// SipHash with one compression and three finalisation rounds over whole words; the length byte of the original is
/// left out because every use here has a fixed length.
#[inline(always)]
fn siphash_1_3<const WORDS: usize>(words: [u64; WORDS], key: [u64; 2]) -> u64 {
    let mut state = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    let mut index = 0;
    while index < WORDS {
        state[3] ^= words[index];
        round(&mut state);
        state[0] ^= words[index];
        index += 1;
    }
    state[2] ^= 0xff;
    round(&mut state);
    round(&mut state);
    round(&mut state);
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

#[inline(always)]
fn round(state: &mut [u64; 4]) {
    state[0] = state[0].wrapping_add(state[1]);
    state[1] = state[1].rotate_left(13) ^ state[0];
    state[0] = state[0].rotate_left(32);
    state[2] = state[2].wrapping_add(state[3]);
    state[3] = state[3].rotate_left(16) ^ state[2];
    state[0] = state[0].wrapping_add(state[3]);
    state[3] = state[3].rotate_left(21) ^ state[0];
    state[2] = state[2].wrapping_add(state[1]);
    state[1] = state[1].rotate_left(17) ^ state[2];
    state[2] = state[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::hash::Hasher;
    use core::net::Ipv4Addr;

    const KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

    fn connection(source_port: u16) -> Connection {
        Connection {
            source: Ipv4Addr::new(192, 0, 2, 1).into(),
            destination: Ipv4Addr::new(198, 51, 100, 10).into(),
            source_port,
            destination_port: 443,
            protocol: 6,
        }
    }

    /// The standard library's hasher is SipHash-1-3 with an all-zero key; it appends a length word.
    #[test]
    fn it_is_siphash_1_3() {
        let mut standard = std::collections::hash_map::DefaultHasher::new();
        standard.write(&1_u64.to_le_bytes());
        standard.write(&2_u64.to_le_bytes());
        let length_word = 16_u64 << 56;
        assert_eq!(siphash_1_3([1, 2, length_word], [0, 0]), standard.finish());
    }

    #[test]
    fn workers_share_connections_evenly() {
        const WORKERS: u16 = 8;
        let mut connections_by_worker = [0_u32; WORKERS as usize];
        for source_port in 0..u16::MAX {
            let worker = pick_worker(connection_hash(KEY, &connection(source_port)), WORKERS);
            connections_by_worker[worker as usize] += 1;
        }
        let fair = f64::from(u16::MAX) / f64::from(WORKERS);
        for (worker, connections) in connections_by_worker.iter().enumerate() {
            let deviation = (f64::from(*connections) - fair).abs() / fair;
            assert!(deviation < 0.05, "worker {worker} has {connections} of about {fair}");
        }
    }

    #[test]
    fn a_worker_is_always_one_of_those_that_exist() {
        for workers in [1, 2, 3, 64, u16::MAX] {
            for hash in [0, 1, u64::MAX / 2, u64::MAX] {
                assert!(pick_worker(hash, workers) < workers, "{hash} {workers}");
            }
        }
        assert_eq!(pick_worker(u64::MAX, 0), 0);
    }

    #[test]
    fn a_place_is_always_one_of_the_tables() {
        assert_eq!([0, u64::MAX].map(maglev_place), [0, MAGLEV_SIZE - 1]);
    }

    #[test]
    fn every_field_and_the_key_move_the_hash_in_both_families() {
        let v6 = |text: &str| text.parse::<core::net::IpAddr>().expect("an address").into();
        let other_v4 = core::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
        let base = connection(1000);
        every_field_moves_the_hash(base, other_v4);
        let base = Connection { source: v6("2001:db8::1"), destination: v6("2001:db8::2"), ..base };
        every_field_moves_the_hash(base, "2001:db8::3".parse().expect("an address"));
        every_field_moves_the_hash(base, "2001:db8:1::1".parse().expect("an address"));
    }

    #[test]
    fn a_connection_between_the_families_is_hashed_whole() {
        let base = connection(1000);
        let mixed = "64:ff9b::c000:201".parse::<core::net::IpAddr>().expect("an address");
        let nat64 = Connection { source: mixed.into(), ..base };
        assert_ne!(connection_hash(KEY, &nat64), connection_hash(KEY, &base));
    }

    fn every_field_moves_the_hash(base: Connection, other: core::net::IpAddr) {
        let changed = [
            Connection { source: other.into(), ..base },
            Connection { destination: other.into(), ..base },
            Connection { source_port: 1001, ..base },
            Connection { destination_port: 444, ..base },
            Connection { protocol: 17, ..base },
        ];
        for row in changed {
            assert_ne!(connection_hash(KEY, &row), connection_hash(KEY, &base), "{row:?}");
        }
        assert_ne!(connection_hash([1, 2], &base), connection_hash(KEY, &base));
    }
}
