use proptest::prelude::*;

use super::fuzzing;

/// Whether nothing in `bytes`, which arrive at once, is foul.
fn passes(bytes: &str) -> bool {
    !fuzzing::Read::of(bytes.as_bytes(), bytes.len()).is_foul
}

#[test]
fn requests_with_one_reading_pass() {
    for (what, bytes) in [
        ("a GET", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("an empty line before it", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("two in a pipeline", "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a body with its length", "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n\n\n\nGET / HTTP/1.1\r\n\r\n"),
        (
            "a chunked body",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na\nb\r\n0\r\n\r\nGET / HTTP/1.1\r\n",
        ),
        ("trailers", "POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n"),
        ("an upgrade", "GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"),
    ] {
        assert!(passes(bytes), "{what}");
    }
}

#[test]
fn requests_with_two_readings_are_foul() {
    for (what, bytes) in [
        ("length, then chunked", "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("chunked, then length", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"),
        ("chunked twice", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("chunked among others", "POST / HTTP/1.1\r\nTransfer-Encoding: identity, chunked\r\n\r\n"),
        ("an unknown coding", "POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n"),
        ("a vertical tab before chunked", "POST / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\n"),
        ("an underscored alias", "POST / HTTP/1.1\r\nTransfer_Encoding: chunked\r\n\r\n"),
        ("a space before the colon", "POST / HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n"),
        ("chunked in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("the same length twice", "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n"),
        ("a list of lengths", "POST / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n"),
        ("a signed length", "POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\n"),
        ("a hexadecimal length", "POST / HTTP/1.1\r\nContent-Length: 0x5\r\n\r\n"),
        ("an endless length", "POST / HTTP/1.1\r\nContent-Length: 18446744073709551617\r\n\r\n"),
        ("a bare line feed", "GET / HTTP/1.1\nHost: a\r\n\r\n"),
        ("a bare line feed at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n"),
        ("a bare carriage return", "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n"),
        ("a folded header", "GET / HTTP/1.1\r\nX: a\r\n Content-Length: 5\r\n\r\n"),
        ("a line without a colon", "GET / HTTP/1.1\r\nX\r\n\r\n"),
        ("a chunk extension", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n"),
        ("a chunk longer than it says", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n"),
        ("a chunk ended by a line feed", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n"),
        ("an endless chunk size", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000003\r\n"),
        ("an upgrade with a body", "GET / HTTP/1.1\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\n"),
    ] {
        assert!(!passes(bytes), "{what}");
    }
}

#[test]
fn lines_in_bodies_are_bounded() {
    let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let long = "0".repeat(4_097);
    assert!(!passes(&format!("{chunked}{long}")), "a chunk size without end");
    let trailers = "X: 1\r\n".repeat(16_384);
    assert!(!passes(&format!("{chunked}0\r\n{trailers}")), "trailers without end");
}

fn streams() -> impl Strategy<Value = Vec<u8>> {
    let parts = prop::sample::select(vec![
        "GET / HTTP/1.1\r\n",
        "POST / HTTP/1.1\r\n",
        "POST / HTTP/1.0\r\n",
        "Host: a\r\n",
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Upgrade: websocket\r\n",
        "X: y\r\n",
        "\r\n",
        "abc",
        "3\r\n",
        "3;x=y\r\n",
        "0\r\n",
        "\n",
        " ",
    ]);
    let speaking = prop::collection::vec(parts, 0..16).prop_map(|parts| parts.concat().into_bytes());
    prop_oneof![4 => speaking, 1 => prop::collection::vec(any::<u8>(), 0..512)]
}

proptest! {
    #[test]
    fn however_bytes_arrive_no_two_readers_part_over_what_passes(stream in streams()) {
        fuzzing::requests_end_where_another_reader_says(&stream);
    }
}
