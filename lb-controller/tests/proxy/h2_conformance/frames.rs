//! Each type of frame (RFC 9113 §4 and §6): its size, its stream, what it may hold.

use super::*;
use crate::support::frames::setting;

#[test]
fn frames_are_read_by_their_rules() {
    check(
        [data(), headers_and_continuation(), headers_cut_into(), small_frames(), settings(), windows(), unknown()]
            .into_iter()
            .flatten()
            .collect(),
    );
}

fn data() -> Vec<Row> {
    let data = |flags, payload: &[u8]| frame(kind::DATA, flags, 1, payload);
    vec![
        ("a body in one frame", sends(&[post(1), data(1, b"abc")]), Then::Answers(200), POST),
        ("a body in two frames", sends(&[post(1), data(0, b"ab"), data(1, b"c")]), Then::Answers(200), POST),
        (
            "a body that ends in an empty frame",
            sends(&[post(1), data(0, b"abc"), data(1, b"")]),
            Then::Answers(200),
            POST,
        ),
        ("a padded body", sends(&[post(1), data(9, b"\x03abc\0\0\0")]), Then::Answers(200), POST),
        ("padding alone", sends(&[post(1), data(9, b"\x03\0\0\0")]), Then::Answers(200), POST),
        ("the largest frame", sends(&[post(1), data(1, &[b'x'; 16_384])]), Then::Answers(200), POST),
        ("a frame beyond the largest", sends(&[post(1), data(1, &[b'x'; 16_385])]), SIZE, NOTHING),
        ("padding longer than the frame", sends(&[post(1), data(9, b"\x04abc")]), PROTOCOL, NOTHING),
        ("padding as long as the frame", sends(&[post(1), data(9, b"\x03ab")]), PROTOCOL, NOTHING),
        ("a padded frame without a length of padding", sends(&[post(1), data(9, b"")]), SIZE, NOTHING),
        ("data on stream 0", sends(&[post(1), frame(kind::DATA, 0, 0, b"abc")]), PROTOCOL, NOTHING),
    ]
}

fn headers_and_continuation() -> Vec<Row> {
    let block = request("GET", "/", &[("x", "y")]);
    let (first, second) = block.split_at(9);
    let (second, third) = second.split_at(9);
    let open = |flags, stream, payload: &[u8]| frame(kind::HEADERS, flags, stream, payload);
    let more = |flags, stream, payload: &[u8]| frame(kind::CONTINUATION, flags, stream, payload);
    let padded = |padding: u8, after: usize| [&[padding][..], &block, &vec![0; after]].concat();
    let priority = |on: u32| [&on.to_be_bytes()[..], &[15], &block].concat();
    let whole = flag::WHOLE;
    vec![
        ("headers in one frame", sends(&[open(whole, 1, &block)]), Then::Answers(200), GET),
        ("headers in two frames", sends(&[open(1, 1, &block[..9]), more(4, 1, &block[9..])]), Then::Answers(200), GET),
        (
            "headers in three frames",
            sends(&[open(1, 1, first), more(0, 1, second), more(4, 1, third)]),
            Then::Answers(200),
            GET,
        ),
        ("headers of no bytes that go on", sends(&[open(1, 1, b""), more(4, 1, &block)]), Then::Answers(200), GET),
        ("an empty continuation", sends(&[open(1, 1, &block), more(4, 1, b"")]), Then::Answers(200), GET),
        ("padded headers", sends(&[open(whole | flag::PADDED, 1, &padded(5, 5))]), Then::Answers(200), GET),
        ("headers with a priority", sends(&[open(whole | flag::PRIORITY, 1, &priority(0))]), Then::Answers(200), GET),
        (
            "a priority with the exclusive bit",
            sends(&[open(whole | flag::PRIORITY, 1, &priority(0x8000_0000))]),
            Then::Answers(200),
            GET,
        ),
        (
            "headers that wait for themselves",
            sends(&[open(whole | flag::PRIORITY, 1, &priority(1))]),
            PROTOCOL,
            NOTHING,
        ),
        ("padding longer than headers", sends(&[open(whole | flag::PADDED, 1, &padded(250, 5))]), PROTOCOL, NOTHING),
        ("headers on stream 0", sends(&[open(whole, 0, &block)]), PROTOCOL, NOTHING),
        ("headers too short for their priority", sends(&[open(whole | flag::PRIORITY, 1, b"\0\0\0")]), SIZE, NOTHING),
        (
            "headers beyond the largest frame",
            sends(&[open(whole, 1, &request("GET", "/", &[("x", &"y".repeat(16_400))]))]),
            SIZE,
            NOTHING,
        ),
    ]
}

fn headers_cut_into() -> Vec<Row> {
    let block = request("GET", "/", &[("x", "y")]);
    let open = |flags, stream, payload: &[u8]| frame(kind::HEADERS, flags, stream, payload);
    let more = |flags, stream, payload: &[u8]| frame(kind::CONTINUATION, flags, stream, payload);
    let whole = flag::WHOLE;
    vec![
        (
            "headers within headers of another stream",
            sends(&[open(1, 1, &block), open(whole, 3, &block)]),
            PROTOCOL,
            NOTHING,
        ),
        (
            "headers within headers of the same stream",
            sends(&[open(1, 1, &block), open(whole, 1, &block)]),
            PROTOCOL,
            NOTHING,
        ),
        ("data within headers", sends(&[open(0, 1, &block), frame(kind::DATA, 1, 1, b"a")]), PROTOCOL, NOTHING),
        ("a PING within headers", sends(&[open(1, 1, &block), frame(kind::PING, 0, 0, [0; 8])]), PROTOCOL, NOTHING),
        (
            "a priority within headers",
            sends(&[open(1, 1, &block), frame(kind::PRIORITY, 0, 1, [0, 0, 0, 0, 1])]),
            PROTOCOL,
            NOTHING,
        ),
        ("settings within headers", sends(&[open(1, 1, &block), frame(kind::SETTINGS, 0, 0, [])]), PROTOCOL, NOTHING),
        ("an unknown frame within headers", sends(&[open(1, 1, &block), frame(0x16, 0, 0, [0; 8])]), PROTOCOL, NOTHING),
        ("a continuation of another stream", sends(&[open(1, 1, &block), more(4, 3, b"")]), PROTOCOL, NOTHING),
        ("a continuation on stream 0", sends(&[open(1, 1, &block), more(4, 0, b"")]), PROTOCOL, NOTHING),
        ("a continuation of nothing", sends(&[more(4, 1, &block)]), PROTOCOL, NOTHING),
        (
            "a continuation after the end of headers",
            sends(&[open(4, 1, &request("POST", "/", &[])), more(4, 1, b"")]),
            PROTOCOL,
            NOTHING,
        ),
        (
            "a continuation after data",
            sends(&[post(1), frame(kind::DATA, 0, 1, b"a"), more(4, 1, b"")]),
            PROTOCOL,
            NOTHING,
        ),
        (
            "a promise of a push, from a client",
            sends(&[frame(kind::PUSH_PROMISE, 4, 1, [&[0, 0, 0, 2], &block[..]].concat())]),
            PROTOCOL,
            NOTHING,
        ),
    ]
}

fn small_frames() -> Vec<Row> {
    let priority = |stream, payload: &[u8]| frame(kind::PRIORITY, 0, stream, payload);
    let reset = |stream, payload: &[u8]| frame(kind::RST_STREAM, 0, stream, payload);
    let ping = |flags, stream, payload: &[u8]| frame(kind::PING, flags, stream, payload);
    vec![
        (
            "a priority of a stream that is idle",
            sends(&[priority(1, &[0, 0, 0, 0, 255]), get(1)]),
            Then::Answers(200),
            GET,
        ),
        ("a priority of the next stream", sends(&[get(1), priority(3, &[0, 0, 0, 1, 5])]), Then::Answers(200), GET),
        ("a stream that waits for itself", sends(&[priority(1, &[0, 0, 0, 1, 255])]), PROTOCOL, NOTHING),
        ("a priority on stream 0", sends(&[priority(0, &[0, 0, 0, 1, 255])]), PROTOCOL, NOTHING),
        ("a priority that is too short", sends(&[priority(1, &[0, 0, 0, 0])]), SIZE, NOTHING),
        ("a priority that is too long", sends(&[priority(1, &[0, 0, 0, 0, 0, 0])]), SIZE, NOTHING),
        ("a reset on stream 0", sends(&[reset(0, &[0, 0, 0, 8])]), PROTOCOL, NOTHING),
        ("a reset of a stream that is idle", sends(&[reset(1, &[0, 0, 0, 8])]), PROTOCOL, NOTHING),
        ("a reset that is too short", sends(&[post(1), reset(1, &[0, 0, 8])]), SIZE, NOTHING),
        ("a reset that is too long", sends(&[post(1), reset(1, &[0, 0, 0, 0, 8])]), SIZE, NOTHING),
        ("a reset for an unknown reason", sends(&[post(1), reset(1, &[0, 0, 0, 0xff])]), Then::Lives, NOTHING),
        ("a PING", sends(&[ping(0, 0, b"12345678")]), Then::Lives, NOTHING),
        ("an answer to no PING", sends(&[ping(flag::ACK, 0, b"12345678")]), Then::Lives, NOTHING),
        ("a PING with flags that mean nothing", sends(&[ping(0xf0, 0, b"12345678")]), Then::Lives, NOTHING),
        ("a PING on a stream", sends(&[ping(0, 1, b"12345678")]), PROTOCOL, NOTHING),
        ("a PING that is too short", sends(&[ping(0, 0, b"1234567")]), SIZE, NOTHING),
        ("a PING that is too long", sends(&[ping(0, 0, b"123456789")]), SIZE, NOTHING),
        ("a goodbye on a stream", sends(&[frame(kind::GOAWAY, 0, 1, [0; 8])]), PROTOCOL, NOTHING),
        ("a goodbye that is too short", sends(&[frame(kind::GOAWAY, 0, 0, [0; 7])]), SIZE, NOTHING),
    ]
}

fn settings() -> Vec<Row> {
    let settings = |flags, stream, payload: &[u8]| frame(kind::SETTINGS, flags, stream, payload);
    let one = |id, value| settings(0, 0, &setting(id, value));
    vec![
        (
            "settings of every kind",
            sends(&[
                settings(
                    0,
                    0,
                    &[
                        setting(1, 0),
                        setting(2, 0),
                        setting(3, 9),
                        setting(4, 70_000),
                        setting(5, 20_000),
                        setting(6, 9_000),
                    ]
                    .concat(),
                ),
                get(1),
            ]),
            Then::Answers(200),
            GET,
        ),
        ("a setting that nobody knows", sends(&[one(0xff, 1), get(1)]), Then::Answers(200), GET),
        (
            "one setting twice",
            sends(&[settings(0, 0, &[setting(4, 1), setting(4, 65_535)].concat()), get(1)]),
            Then::Answers(200),
            GET,
        ),
        ("an acknowledgement of nothing", sends(&[settings(flag::ACK, 0, b"")]), PROTOCOL, NOTHING),
        ("an acknowledgement with contents", sends(&[settings(flag::ACK, 0, &setting(1, 0))]), SIZE, NOTHING),
        ("settings on a stream", sends(&[settings(0, 1, &setting(3, 9))]), PROTOCOL, NOTHING),
        ("half a setting", sends(&[settings(0, 0, &[0, 3, 0])]), SIZE, NOTHING),
        ("a setting and a half", sends(&[settings(0, 0, &[&setting(3, 9)[..], &[0, 3, 0]].concat())]), SIZE, NOTHING),
        ("pushes neither on nor off", sends(&[one(2, 2)]), PROTOCOL, NOTHING),
        (
            "a window beyond the largest",
            sends(&[one(4, 0x8000_0000)]),
            Then::Refuses(&[code::FLOW_CONTROL_ERROR, code::PROTOCOL_ERROR]),
            NOTHING,
        ),
        ("the largest window", sends(&[one(4, 0x7fff_ffff), get(1)]), Then::Answers(200), GET),
        ("a largest frame below what it may be", sends(&[one(5, 16_383)]), PROTOCOL, NOTHING),
        ("a largest frame beyond what it may be", sends(&[one(5, 16_777_216)]), PROTOCOL, NOTHING),
        ("a table of no bytes", sends(&[one(1, 0), get(1)]), Then::Answers(200), GET),
        ("a table of 4 GiB", sends(&[one(1, u32::MAX), get(1)]), Then::Answers(200), GET),
        ("extended CONNECT neither on nor off", sends(&[one(8, 2)]), PROTOCOL, NOTHING),
    ]
}

fn windows() -> Vec<Row> {
    let window = |stream, size: u32| frame(kind::WINDOW_UPDATE, 0, stream, size.to_be_bytes());
    let initial = |size| frame(kind::SETTINGS, 0, 0, setting(4, size));
    vec![
        ("more window for the connection", sends(&[window(0, 1_000), get(1)]), Then::Answers(200), GET),
        (
            "more window for a stream",
            sends(&[post(1), window(1, 1_000), frame(kind::DATA, 1, 1, b"a")]),
            Then::Answers(200),
            POST,
        ),
        ("no more window for the connection", sends(&[window(0, 0)]), PROTOCOL, NOTHING),
        ("no more window for a stream", sends(&[post(1), window(1, 0)]), PROTOCOL, NOTHING),
        ("a window update that is too short", sends(&[frame(kind::WINDOW_UPDATE, 0, 0, [0, 0, 1])]), SIZE, NOTHING),
        (
            "a window update that is too long",
            sends(&[frame(kind::WINDOW_UPDATE, 0, 0, [0, 0, 0, 0, 1])]),
            SIZE,
            NOTHING,
        ),
        ("a window update of a stream that is idle", sends(&[window(1, 100)]), PROTOCOL, NOTHING),
        ("a connection's window beyond the largest", sends(&[window(0, 0x7fff_ffff)]), FLOW, NOTHING),
        ("a stream's window beyond the largest", sends(&[post(1), window(1, 0x7fff_ffff)]), FLOW, NOTHING),
        (
            "settings that make a stream's window too large",
            sends(&[post(1), window(1, 0x7fff_0000), initial(0x7fff_ffff)]),
            FLOW,
            NOTHING,
        ),
        ("a window update with the reserved bit", sends(&[window(0, 0x8000_0001), get(1)]), Then::Answers(200), GET),
        (
            "a window update of a stream that has ended",
            vec![Step::Write(get(1)), Step::AwaitEnd(1), Step::Write(window(1, 5))],
            Then::Lives,
            GET,
        ),
    ]
}

fn unknown() -> Vec<Row> {
    let mut reserved_bit = get(1);
    reserved_bit[5] |= 0x80;
    vec![
        (
            "a frame of a type that nobody knows",
            sends(&[frame(0x16, 0xff, 0, [0; 8]), get(1)]),
            Then::Answers(200),
            GET,
        ),
        ("such a frame on a stream that is idle", sends(&[frame(0xf1, 0, 5, [0; 8]), get(1)]), Then::Answers(200), GET),
        ("such a frame of no bytes", sends(&[frame(0xff, 0, 0, []), get(1)]), Then::Answers(200), GET),
        (
            "flags that nobody knows",
            sends(&[frame(kind::HEADERS, flag::WHOLE | 0xd0 & !0x20, 1, request("GET", "/", &[]))]),
            Then::Answers(200),
            GET,
        ),
        ("the reserved bit of a stream's number", sends(&[reserved_bit]), Then::Answers(200), GET),
        ("such a frame beyond the largest", sends(&[frame(0x16, 0, 0, [0; 16_385])]), SIZE, NOTHING),
    ]
}
