//! RFC 9113 and RFC 7541 row by row: what a client sends in frames, what it gets, and what of it reached the backend.

mod compression;
mod frames;
mod requests;
mod streams;

use crate::support::edge::Edge;
use crate::support::eventually;
use crate::support::frames::{Frames, PREFACE, Received, code, flag, frame, kind, request};
use crate::support::origin::Origin;

/// What the edge is to do.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// This status on stream 1, after which the connection lives.
    Answers(u16),
    /// Nothing, and the connection lives.
    Lives,
    /// The stream or the connection ends with one of these errors.
    Refuses(&'static [u32]),
}

enum Step {
    Write(Vec<u8>),
    /// The stream's response is awaited to its end.
    AwaitEnd(u32),
}

/// What the row is about, the client's steps, what comes of it, and the request lines that reach the backend.
type Row = (&'static str, Vec<Step>, Then, &'static [&'static str]);

const PROTOCOL: Then = Then::Refuses(&[code::PROTOCOL_ERROR]);
/// The library that reads frames names the particular errors of sizes and compression only now and then.
const SIZE: Then = Then::Refuses(&[code::FRAME_SIZE_ERROR, code::PROTOCOL_ERROR]);
const CLOSED: Then = Then::Refuses(&[code::STREAM_CLOSED, code::PROTOCOL_ERROR]);
const FLOW: Then = Then::Refuses(&[code::FLOW_CONTROL_ERROR]);
const COMPRESSION: Then = Then::Refuses(&[code::COMPRESSION_ERROR, code::PROTOCOL_ERROR]);

const NOTHING: &[&str] = &[];
const GET: &[&str] = &["GET / HTTP/1.1"];
const POST: &[&str] = &["POST / HTTP/1.1"];

/// All in one write.
fn sends(frames: &[Vec<u8>]) -> Vec<Step> {
    vec![Step::Write(frames.concat())]
}

/// A whole request on `stream`.
fn get(stream: u32) -> Vec<u8> {
    frame(kind::HEADERS, flag::WHOLE, stream, request("GET", "/", &[]))
}

/// A request on `stream` whose body is to come.
fn post(stream: u32) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS, stream, request("POST", "/", &[]))
}

fn check(rows: Vec<Row>) {
    let origin = Origin::answering("hello");
    let edge = Edge::start(&[origin.address]);
    let mut seen = 0;
    for (what, steps, then, reached) in rows {
        let mut frames = Frames::connect(&edge);
        for step in steps {
            match step {
                Step::Write(bytes) => frames.write(bytes),
                Step::AwaitEnd(stream) => drop(frames.find(|frame| ends(frame, stream)).expect(what)),
            }
        }
        comes(&mut frames, what, then);
        let lines = origin.request_lines();
        assert_eq!(lines[seen..], *reached, "{what}");
        seen = lines.len();
    }
    // Nothing came late.
    let mut last = Frames::connect(&edge);
    last.write(get(1));
    comes(&mut last, "after all rows", Then::Answers(200));
    assert_eq!(origin.request_lines().len(), seen + 1);
}

fn ends(frame: &Received, stream: u32) -> bool {
    frame.stream == stream && frame.flags & flag::END_STREAM != 0 && matches!(frame.kind, kind::DATA | kind::HEADERS)
}

fn comes(frames: &mut Frames, what: &str, then: Then) {
    match then {
        Then::Answers(status) => {
            let answer = frames.find(|frame| frame.status().is_some() || frame.error().is_some());
            let answer = answer.unwrap_or_else(|| panic!("{what}: the connection ended"));
            assert_eq!((answer.status(), answer.stream), (Some(status), 1), "{what}: {answer:?}");
            lives(frames, what);
        }
        Then::Lives => lives(frames, what),
        Then::Refuses(codes) => {
            let error = frames.find(|frame| frame.error().is_some() || frame.status().is_some());
            let error = error.unwrap_or_else(|| panic!("{what}: the connection ended without a word"));
            assert!(error.error().is_some_and(|code| codes.contains(&code)), "{what}: {error:?}");
            if error.kind == kind::GOAWAY {
                while frames.next().is_some() {}
                assert!(frames.has_ended, "{what}");
            }
        }
    }
}

/// A PING is answered, and nothing was complained of before.
fn lives(frames: &mut Frames, what: &str) {
    frames.write(frame(kind::PING, 0, 0, b"finished"));
    let answer = frames.find(|frame| frame.error().is_some() || frame.payload == b"finished");
    let answer = answer.unwrap_or_else(|| panic!("{what}: the connection ended"));
    assert_eq!((answer.kind, answer.flags), (kind::PING, flag::ACK), "{what}: {answer:?}");
}

#[test]
fn a_connection_begins_with_settings_of_both_sides() {
    let origin = Origin::answering("hello");
    let edge = Edge::start(&[origin.address]);
    let mut frames = Frames::connect(&edge);
    let first = frames.next().unwrap();
    assert_eq!((first.kind, first.flags, first.stream), (kind::SETTINGS, 0, 0), "{first:?}");
    assert!(first.payload.len().is_multiple_of(6), "{first:?}");
    let acknowledged = frames.find(|frame| frame.kind == kind::SETTINGS).unwrap();
    assert_eq!((acknowledged.flags, acknowledged.payload), (flag::ACK, vec![]));
}

#[test]
fn another_beginning_ends_the_connection() {
    let origin = Origin::answering("hello");
    let edge = Edge::start(&[origin.address]);
    let settings = frame(kind::SETTINGS, 0, 0, []);
    for (what, bytes) in [
        ("a preface of another version", [&b"PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat()),
        ("HTTP/1.1 where h2 was agreed on", b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n".to_vec()),
        ("frames without a preface", [settings.clone(), get(1)].concat()),
        ("a preface that is off by one", [&PREFACE[1..], &settings, &get(1)].concat()),
    ] {
        let mut frames = Frames::connect_saying(&edge, bytes);
        while let Some(frame) = frames.next() {
            assert_eq!(frame.status(), None, "{what}: {frame:?}");
        }
        assert!(frames.has_ended, "{what}");
        assert_eq!(origin.request_lines(), [""; 0], "{what}");
    }
}

#[test]
fn what_is_under_way_ends_before_the_connection_does() {
    let origin = Origin::answering("hello");
    let edge = Edge::start(&[origin.address]);
    let mut frames = Frames::connect(&edge);
    frames.write([get(1), frame(kind::GOAWAY, 0, 0, [0; 8])].concat());
    let answer = frames.find(|frame| frame.status().is_some()).unwrap();
    assert_eq!(answer.status(), Some(200));
    eventually("the backend had the request", || origin.request_lines() == GET);
}
