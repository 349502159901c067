//! Records without a socket, with rustls' client at the other end.

use std::io::Read as _;

use proptest::prelude::*;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, SupportedProtocolVersion, version};

use super::super::records::{MOST_KEPT_BYTES, Records};
use super::resumption::Stage;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];

struct Pair {
    client: ClientConnection,
    server: Records,
}

impl Pair {
    fn new(stage: &Stage, version: &'static SupportedProtocolVersion) -> Pair {
        let name = ServerName::try_from("shop.example").unwrap();
        Pair {
            client: ClientConnection::new(stage.client(version), name).unwrap(),
            server: Records::new(stage.edge().current.load_full()).unwrap(),
        }
    }

    fn connected(version: &'static SupportedProtocolVersion) -> Pair {
        let mut pair = Pair::new(&Stage::new(), version);
        pair.exchange();
        assert!(!pair.client.is_handshaking() && !pair.server.session.is_handshaking());
        pair
    }

    /// What the client has to say.
    fn sent(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// Hands `bytes` over; what of them was for the application, and taken `most` at a time.
    fn receive(&mut self, bytes: &[u8], most: usize) -> Vec<u8> {
        let mut heard = Vec::new();
        let mut incoming = [self.server.kept(), bytes].concat();
        let first = |bytes: &[u8]| {
            let taken = bytes.len().min(most.saturating_sub(heard.len()));
            heard.extend_from_slice(&bytes[..taken]);
            taken
        };
        self.server.receive(&mut incoming, first).unwrap();
        loop {
            let before = heard.len();
            self.server.take(|bytes| {
                let taken = bytes.len().min(most);
                heard.extend_from_slice(&bytes[..taken]);
                taken
            });
            if heard.len() == before {
                return heard;
            }
        }
    }

    /// Hands the client what waits for it; what of it was for the application.
    fn answered(&mut self) -> Vec<u8> {
        let mut heard = Vec::new();
        let waiting = self.server.outbox.waiting().to_vec();
        self.server.outbox.advance(waiting.len());
        let mut left = &waiting[..];
        while !left.is_empty() {
            self.client.read_tls(&mut left).unwrap();
            self.client.process_new_packets().unwrap();
            let _ = self.client.reader().read_to_end(&mut heard);
        }
        heard
    }

    fn exchange(&mut self) {
        for _ in 0..4 {
            let bytes = self.sent();
            self.receive(&bytes, 0);
            self.answered();
        }
    }
}

fn text(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place % 251) as u8).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_understood_does_not_depend_on_how_it_arrives_or_is_taken(
        is_old in any::<bool>(),
        said in prop::collection::vec(1usize..40_000, 1..4),
        pieces in prop::collection::vec(1usize..20_000, 1..6),
        most in 1usize..20_000,
    ) {
        let mut pair = Pair::connected(VERSIONS[usize::from(is_old)]);
        for length in said {
            std::io::Write::write_all(&mut pair.client.writer(), &text(length)).unwrap();
            let bytes = pair.sent();
            let (mut left, mut heard) = (&bytes[..], Vec::new());
            for piece in pieces.iter().cycle() {
                let (piece, rest) = left.split_at(left.len().min(*piece));
                heard.extend(pair.receive(piece, most));
                left = rest;
                if left.is_empty() {
                    break;
                }
            }
            prop_assert!(heard == text(length));
            prop_assert!(pair.server.kept().is_empty(), "nothing is kept of whole records");
        }
    }

    #[test]
    fn what_is_said_in_pieces_arrives_in_order(
        is_old in any::<bool>(),
        pieces in prop::collection::vec(0usize..40_000, 0..6),
    ) {
        let mut pair = Pair::connected(VERSIONS[usize::from(is_old)]);
        let pieces: Vec<_> = pieces.into_iter().map(text).collect();
        pair.server.say_all(pieces.iter().map(Vec::as_slice)).unwrap();
        // As few records as can be: 16 KiB each, and what is around them.
        let (length, records) = (pieces.concat().len(), pieces.concat().len().div_ceil(16 * 1024));
        let waiting = pair.server.outbox.waiting().len();
        prop_assert!(waiting >= length && waiting <= length + 29 * records, "{} for {}", waiting, length);
        prop_assert!(pair.answered() == pieces.concat());
    }
}

#[test]
fn a_handshake_may_come_byte_by_byte() {
    for version in VERSIONS {
        let mut pair = Pair::new(&Stage::new(), version);
        for _ in 0..4 {
            for byte in pair.sent() {
                assert!(pair.receive(&[byte], 0).is_empty());
            }
            pair.answered();
        }
        assert!(!pair.client.is_handshaking() && !pair.server.session.is_handshaking(), "{version:?}");
    }
}

#[test]
fn new_keys_that_a_client_wants_are_taken_and_answered_with_new_ones() {
    let mut pair = Pair::connected(&version::TLS13);
    pair.client.refresh_traffic_keys().unwrap();
    std::io::Write::write_all(&mut pair.client.writer(), b"under new keys").unwrap();
    let bytes = pair.sent();
    assert_eq!(pair.receive(&bytes, 100), b"under new keys");
    pair.server.say_all([&b"as well"[..]].into_iter()).unwrap();
    assert_eq!(pair.server.outbox.waiting().len(), (22 + 7) + (22 + 5), "the answer goes before it");
    assert_eq!(pair.answered(), b"as well");
}

#[test]
fn a_goodbye_is_heard_and_said_once() {
    for version in VERSIONS {
        let mut pair = Pair::connected(version);
        pair.client.send_close_notify();
        let mut bytes = pair.sent();
        bytes.extend_from_slice(b"whatever follows it");
        assert!(pair.receive(&bytes, 100).is_empty());
        assert!(pair.server.has_ended && pair.server.kept().is_empty());
        pair.server.say_all([&b"a last word"[..]].into_iter()).unwrap();
        pair.server.say_goodbye().unwrap();
        let said = pair.server.outbox.waiting().len();
        pair.server.say_goodbye().unwrap();
        assert_eq!(pair.server.outbox.waiting().len(), said, "{version:?}");
        assert_eq!(pair.answered(), b"a last word");
        assert!(pair.server.say_all([&b"too late"[..]].into_iter()).is_err());
    }
}

#[test]
fn what_is_not_to_be_understood_is_answered_with_an_alert_and_ends_it() {
    for version in VERSIONS {
        let mut pair = Pair::connected(version);
        std::io::Write::write_all(&mut pair.client.writer(), b"forged").unwrap();
        let mut bytes = pair.sent();
        *bytes.last_mut().unwrap() ^= 1;
        assert!(pair.server.receive(&mut bytes, |_| 0).is_err());
        assert!(!pair.server.outbox.waiting().is_empty(), "{version:?}");
        assert!(pair.server.say_all([&b"anything"[..]].into_iter()).is_err());
        assert!(pair.server.say_goodbye().is_err(), "the alert was the goodbye");
    }
}

#[test]
fn a_message_in_ever_more_records_is_not_kept_for_ever() {
    let mut server = Records::new(Stage::new().edge().current.load_full()).unwrap();
    // The first message of a client, 60,000 bytes long, one byte a record.
    let mut message = vec![1, 0, 0xea, 0x60, 3, 3];
    message.resize(60_000, 0);
    let mut most = 0;
    let ended = message.iter().try_for_each(|byte| {
        let mut incoming = [server.kept(), &[22, 3, 1, 0, 1, *byte]].concat();
        most = most.max(incoming.len());
        server.receive(&mut incoming, |_| 0)
    });
    assert!(ended.is_err());
    assert!(most <= MOST_KEPT_BYTES + 6, "{most} bytes were kept");
}
