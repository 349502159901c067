//! The states of streams (RFC 9113 §5), and windows for responses (§6.9).

use super::*;
use crate::support::frames::setting;

#[test]
fn streams_go_through_their_states() {
    check([numbers(), half_closed(), ended(), reset()].into_iter().flatten().collect());
}

fn after_answer(frames: &[Vec<u8>]) -> Vec<Step> {
    vec![Step::Write(get(1)), Step::AwaitEnd(1), Step::Write(frames.concat())]
}

fn data(stream: u32) -> Vec<u8> {
    frame(kind::DATA, flag::END_STREAM, stream, b"abc")
}

fn reset_of(stream: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, code::CANCEL.to_be_bytes())
}

fn numbers() -> Vec<Row> {
    const BOTH: &[&str] = &["GET / HTTP/1.1", "GET / HTTP/1.1"];
    let both = |second, more: &[Vec<u8>]| {
        let mut steps = after_answer(&[get(second)]);
        steps.extend([Step::AwaitEnd(second), Step::Write(more.concat())]);
        steps
    };
    vec![
        ("data on a stream that is idle", sends(&[data(1)]), PROTOCOL, NOTHING),
        ("data on a stream that only the edge could open", sends(&[data(2)]), PROTOCOL, NOTHING),
        ("a stream with an even number", sends(&[get(2)]), PROTOCOL, NOTHING),
        ("a stream older than the last", both(5, &[get(3)]), CLOSED, BOTH),
        ("numbers with gaps", both(101, &[]), Then::Lives, BOTH),
        ("the largest number", both(0x7fff_ffff, &[]), Then::Lives, BOTH),
    ]
}

fn half_closed() -> Vec<Row> {
    // The backend may or may not have had the request when the second frame comes: both in one write, and none has.
    vec![
        ("data after the end of a request", sends(&[get(1), data(1)]), CLOSED, NOTHING),
        ("headers after the end of a request", sends(&[get(1), get(1)]), CLOSED, NOTHING),
        (
            "a continuation after the end of a request",
            sends(&[get(1), frame(kind::CONTINUATION, 4, 1, [])]),
            PROTOCOL,
            NOTHING,
        ),
        (
            "more window after the end of a request",
            sends(&[get(1), frame(kind::WINDOW_UPDATE, 0, 1, [0, 0, 0, 9])]),
            Then::Answers(200),
            GET,
        ),
        (
            "a priority after the end of a request",
            sends(&[get(1), frame(kind::PRIORITY, 0, 1, [0, 0, 0, 0, 9])]),
            Then::Answers(200),
            GET,
        ),
    ]
}

fn ended() -> Vec<Row> {
    vec![
        ("data on a stream that has ended", after_answer(&[data(1)]), CLOSED, GET),
        ("headers on a stream that has ended", after_answer(&[get(1)]), CLOSED, GET),
        (
            "a continuation on a stream that has ended",
            after_answer(&[frame(kind::CONTINUATION, 4, 1, [])]),
            PROTOCOL,
            GET,
        ),
        (
            "a priority of a stream that has ended",
            after_answer(&[frame(kind::PRIORITY, 0, 1, [0, 0, 0, 0, 9])]),
            Then::Lives,
            GET,
        ),
        ("a reset of a stream that has ended", after_answer(&[reset_of(1)]), Then::Lives, GET),
    ]
}

fn reset() -> Vec<Row> {
    vec![
        ("a request that is taken back", sends(&[post(1), reset_of(1)]), Then::Lives, NOTHING),
        ("a reset twice", sends(&[post(1), reset_of(1), reset_of(1)]), Then::Lives, NOTHING),
        ("data after a reset", sends(&[post(1), reset_of(1), data(1)]), CLOSED, NOTHING),
        ("headers after a reset", sends(&[post(1), reset_of(1), get(1)]), CLOSED, NOTHING),
        (
            "a continuation after a reset",
            sends(&[post(1), reset_of(1), frame(kind::CONTINUATION, 4, 1, [])]),
            PROTOCOL,
            NOTHING,
        ),
        (
            "a priority after a reset",
            sends(&[post(1), reset_of(1), frame(kind::PRIORITY, 0, 1, [0, 0, 0, 0, 9])]),
            Then::Lives,
            NOTHING,
        ),
        (
            "another stream after a reset",
            sends(&[post(3), reset_of(3), frame(kind::PING, 0, 0, [0; 8])]),
            Then::Lives,
            NOTHING,
        ),
    ]
}

#[test]
fn streams_beyond_the_most_at_once_are_refused_and_the_others_served() {
    let (finish, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::start(move |_, stream| {
        let _ = wait.lock().unwrap().recv();
        crate::support::origin::ok(stream, "hello")
    });
    let edge = Edge::start(&[origin.address]);
    let mut frames = Frames::connect(&edge);
    let settings = frames.find(|frame| frame.kind == kind::SETTINGS).unwrap();
    let most = settings.payload.chunks(6).find(|setting| setting[..2] == [0, 3]).expect("a bound");
    let most = u32::from_be_bytes(most[2..].try_into().unwrap());
    // The bound holds once it was acknowledged.
    frames.write((0..=most).flat_map(|index| get(2 * index + 1)).collect::<Vec<u8>>());
    let refused = frames.find(|frame| frame.error().is_some()).unwrap();
    assert_eq!((refused.error(), refused.stream), (Some(code::REFUSED_STREAM), 2 * most + 1), "{refused:?}");
    drop(finish);
    for _ in 0..most {
        assert!(frames.find(|frame| frame.stream != 0 && frame.flags & flag::END_STREAM != 0).is_some());
    }
    assert_eq!(origin.request_lines().len(), most as usize);
}

#[test]
fn a_client_that_sends_beyond_its_window_is_cut_off() {
    let (finish, wait) = std::sync::mpsc::channel::<()>();
    let backend = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let edge = Edge::start(&[backend.local_addr().unwrap()]);
    // It takes a request and reads nothing of it.
    std::thread::spawn(move || {
        let _taken = backend.accept();
        let _ = wait.recv();
    });
    let mut frames = Frames::connect(&edge);
    frames.write(post(1));
    for _ in 0..64 {
        frames.write(frame(kind::DATA, 0, 1, [b'x'; 16_384]).repeat(64));
    }
    // Of what it is told, its own bytes that are still under way may leave nothing.
    let told = frames.find(|frame| frame.error().is_some());
    assert!(told.as_ref().is_none_or(|told| told.error() == Some(code::FLOW_CONTROL_ERROR)), "{told:?}");
    while frames.next().is_some() {}
    assert!(frames.has_ended);
    drop(finish);
}

#[test]
fn a_response_goes_no_further_than_its_window() {
    let origin = Origin::answering("hello");
    let edge = Edge::start(&[origin.address]);
    let initial = |size| frame(kind::SETTINGS, 0, 0, setting(4, size));
    let window = |size: u32| frame(kind::WINDOW_UPDATE, 0, 1, size.to_be_bytes());
    for (what, first, at_once, steps) in [
        ("one byte at a time", initial(1), "h", vec![(window(1), "e"), (window(3), "llo")]),
        ("none at first", initial(0), "", vec![(window(2), "he"), (window(3), "llo")]),
        ("more for all by settings", initial(1), "h", vec![(initial(4), "ell"), (initial(100), "o")]),
        // RFC 9113 §6.9.2: two bytes were sent of a window that is now none, so three of window are one.
        ("a window below none", initial(2), "he", vec![([initial(0), window(3)].concat(), "l"), (window(2), "lo")]),
    ] {
        let mut frames = Frames::connect(&edge);
        frames.write([first, get(1)].concat());
        if !at_once.is_empty() {
            assert_eq!(text(&mut frames), at_once, "{what}");
        }
        for (more, expected) in steps {
            lives(&mut frames, what);
            frames.write(more);
            assert_eq!(text(&mut frames), expected, "{what}");
        }
    }
}

/// The next bytes of a body.
fn text(frames: &mut Frames) -> String {
    let data = frames.find(|frame| frame.kind == kind::DATA && !frame.payload.is_empty()).unwrap();
    String::from_utf8(data.payload).unwrap()
}
