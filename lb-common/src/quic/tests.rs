use super::*;
use proptest::prelude::*;
use std::vec::Vec;

const POOL: u16 = 3;
const LENGTHS: ServerIdLengths = ServerIdLengths(0).with(1, 4).with(2, 15).with(6, 8);

/// A UDP header and what follows it.
fn datagram(payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len() as u16).to_be_bytes();
    [&[0x9c, 0x40, 1, 0xbb][..], &length, &[0, 0], payload].concat()
}

fn short(id: &[u8]) -> Vec<u8> {
    datagram(&[&[0x40][..], id, &[0xee; 20]].concat())
}

fn long(version: u32, id: &[u8]) -> Vec<u8> {
    let start = [&[0xc0][..], &version.to_be_bytes(), &[id.len() as u8]].concat();
    datagram(&[&start, id, &[0xee; 40]].concat())
}

fn read(datagram: &[u8]) -> Option<QuicServerKey> {
    server(&datagram, 0, LENGTHS, POOL)
}

/// A connection id of a configuration, with a nonce of four bytes.
fn id(config_id: u8, server: &[u8]) -> Vec<u8> {
    [&[config_id << 5 | 0x11][..], server, &[7; 4]].concat()
}

#[test]
fn a_connection_id_of_ours_leads_to_the_server_that_made_it() {
    for (config_id, server) in [(1, &b"\x0a\x00\x00\x02"[..]), (2, b"fifteen letters"), (6, b"eight by")] {
        let expected = ServerId::new(server).map(|id| id.key(POOL));
        assert!(expected.is_some());
        let id = id(config_id, server);
        assert_eq!(read(&short(&id)), expected, "short header, configuration {config_id}");
        assert_eq!(read(&long(1, &id)), expected, "version 1");
        assert_eq!(read(&long(0x6b33_43cf, &id)), expected, "version 2");
        assert_eq!(read(&long(0xff00_001d, &id)), expected, "a version that nobody knows yet");
    }
}

#[test]
fn any_other_leads_nowhere() {
    let ours = id(1, b"abcd");
    let cut = |datagram: Vec<u8>, bytes: usize| {
        let mut datagram = datagram[..bytes].to_vec();
        datagram[4..6].copy_from_slice(&(bytes as u16).to_be_bytes());
        datagram
    };
    let rows = [
        ("the configuration for ids that lead nowhere", short(&id(7, b"abcd"))),
        ("a configuration that is not there", short(&id(0, b"abcd"))),
        ("version negotiation", long(0, &ours)),
        ("an id longer than any version has", long(1, &[&ours[..], &[7; 12]].concat())),
        ("an id too short for server and nonce", long(1, &ours[..8])),
        ("no id", long(1, &[])),
        ("a short header cut off", cut(short(&ours), 8 + 1 + 16)),
        ("a long header cut off", cut(long(1, &ours), 8 + 6 + 16)),
        ("nothing but the first byte", cut(short(&ours), 9)),
        ("nothing", cut(short(&ours), 8)),
    ];
    for (name, datagram) in rows {
        assert_eq!(read(&datagram), None, "{name}");
    }
    assert_eq!(server(&&short(&ours)[..], 0, ServerIdLengths(0), POOL), None, "a service without configurations");
    let mut padded = cut(short(&ours), 8 + 1 + 16);
    padded.extend([0; 30]);
    assert_eq!(read(&padded), None, "what is behind the datagram is not its own");
}

#[test]
fn server_ids_differ_by_every_byte_their_length_and_their_pool() {
    let mut seen = std::collections::HashSet::new();
    let ids = [&b"a"[..], b"a\0", b"abcdefgh", b"abcdefgi", b"abcdefgh\0", b"abcdefghijklmno", b"abcdefghijklmnp"];
    for (pool, id) in ids.iter().flat_map(|id| [(1, id), (2, id)]) {
        let key = ServerId::new(id).expect("1 to 15 bytes").key(pool);
        assert!(seen.insert((key.id_le, key.pool, key.id_bytes)), "{id:?} of {pool}");
    }
    assert_eq!([&b""[..], &[1; 16]].map(ServerId::new), [None, None]);
}

#[test]
fn lengths_are_kept_apart() {
    assert_eq!(LENGTHS.iter().collect::<Vec<_>>(), [(1, 4), (2, 15), (6, 8)]);
    assert_eq!(LENGTHS.with(2, 1).bytes(2), 1);
    assert_eq!(ServerIdLengths::default().with(6, 15).bytes(7), 0, "7 is nobody's");
}

/// Read as the draft is written, byte by byte and with room for everything.
fn plainly(datagram: &[u8]) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes([*datagram.get(4)?, *datagram.get(5)?]));
    let payload = datagram.get(8..length)?;
    let first = *payload.first()?;
    let id = if first & 0x80 == 0 {
        payload.get(1..)?
    } else {
        let length = usize::from(*payload.get(5)?);
        let is_known = payload[1..5] != [0; 4] && length <= 20;
        // 16 bytes from the id's second on: no packet has fewer.
        let id = payload.get(6..).filter(|id| is_known && id.len() >= 17)?;
        id.get(..length.max(17)).filter(|_| length >= 1)?;
        &id[..id.len().min(length)]
    };
    if first & 0x80 == 0 && id.len() < 17 {
        return None;
    }
    let bytes = match id.first()? >> 5 {
        1 => 4,
        2 => 15,
        6 => 8,
        _ => return None,
    };
    (id.len() >= 1 + bytes + 4).then(|| id[1..1 + bytes].to_vec())
}

fn any_datagram() -> impl Strategy<Value = Vec<u8>> {
    let header = (prop_oneof![Just(0x40_u8), Just(0xc0), any::<u8>()], any::<[u8; 4]>(), 0_u8..24);
    let rest = proptest::collection::vec(any::<u8>(), 0..60);
    (header, 0_u8..8, rest, -3_i32..3).prop_map(|((first, version, id_bytes), config_id, mut rest, lie)| {
        if let Some(byte) = rest.first_mut() {
            *byte = config_id << 5 | *byte >> 3;
        }
        let payload = match first & 0x80 {
            0 => [&[first][..], &rest].concat(),
            _ => [&[first][..], &version, &[id_bytes], &rest].concat(),
        };
        let mut datagram = datagram(&payload);
        let length = (datagram.len() as i32 + lie).max(0) as u16;
        datagram[4..6].copy_from_slice(&length.to_be_bytes());
        datagram
    })
}

proptest! {
    #[test]
    fn the_quick_reading_is_the_plain_one(datagram in any_datagram()) {
        let length = usize::from(u16::from_be_bytes([datagram[4], datagram[5]]));
        // The parser of UDP lets no datagram pass that claims more than there is.
        prop_assume!(length <= datagram.len());
        let expected = plainly(&datagram).map(|id| ServerId::new(&id).expect("a server id").key(POOL));
        prop_assert_eq!(read(&datagram), expected);
    }
}
