//! HPACK (RFC 7541): every form of a field line, the table, Huffman's code, and what cannot be decoded.

use super::*;
use crate::support::frames::field;

/// `:method GET`, `:scheme https`, `:path /` from the table of known fields, and the authority in plain letters.
const USUAL: &[u8] = b"\x82\x87\x84\x01\x0cshop.example";

fn block(more: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, flag::WHOLE, 1, [USUAL, more].concat())
}

/// Another request, on stream 3.
fn next(block: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, flag::WHOLE, 3, [USUAL, block].concat())
}

#[test]
fn compressed_fields_are_decoded_by_their_rules() {
    check([forms(), the_table(), foul()].into_iter().flatten().collect());
}

fn forms() -> Vec<Row> {
    vec![
        ("fields from the table of known ones", sends(&[block(b"")]), Then::Answers(200), GET),
        ("a literal that is kept, by a known name", sends(&[block(b"\x7a\x01y")]), Then::Answers(200), GET),
        ("a literal that is kept, by a new name", sends(&[block(b"\x40\x01x\x01y")]), Then::Answers(200), GET),
        ("a literal that is not kept, by a known name", sends(&[block(b"\x0f\x2b\x01y")]), Then::Answers(200), GET),
        ("a literal that is not kept, by a new name", sends(&[block(b"\0\x01x\x01y")]), Then::Answers(200), GET),
        ("a literal that nobody may keep, by a known name", sends(&[block(b"\x1f\x2b\x01y")]), Then::Answers(200), GET),
        ("a literal that nobody may keep, by a new name", sends(&[block(b"\x10\x01x\x01y")]), Then::Answers(200), GET),
        ("a literal in Huffman's code", sends(&[block(b"\0\x81\xf3\x81\xf5")]), Then::Answers(200), GET),
        (
            "a path in Huffman's code",
            sends(&[frame(kind::HEADERS, flag::WHOLE, 1, b"\x82\x87\x01\x0cshop.example\x04\x82\x60\x61")]),
            Then::Answers(200),
            &["GET /a1 HTTP/1.1"],
        ),
        ("an empty value", sends(&[block(b"\0\x01x\0")]), Then::Answers(200), GET),
        (
            "a text of a length in three bytes",
            sends(&[block(&[b"\0\x01x\x7f\x80\x01", &[b'y'; 255][..]].concat())]),
            Then::Answers(200),
            GET,
        ),
    ]
}

fn the_table() -> Vec<Row> {
    const BOTH: &[&str] = &["GET / HTTP/1.1", "GET / HTTP/1.1"];
    let then_next = |first: &[u8], second: &[u8]| {
        vec![Step::Write(block(first)), Step::AwaitEnd(1), Step::Write(next(second)), Step::AwaitEnd(3)]
    };
    vec![
        ("a field that was kept", then_next(b"\x40\x01x\x01y", b"\xbe"), Then::Lives, BOTH),
        ("a name that was kept", then_next(b"\x40\x01x\x01y", b"\x7e\x01z"), Then::Lives, BOTH),
        (
            "a table made smaller",
            sends(&[frame(kind::HEADERS, flag::WHOLE, 1, [b"\x3f\x01", USUAL].concat())]),
            Then::Answers(200),
            GET,
        ),
        (
            "a table emptied",
            sends(&[frame(kind::HEADERS, flag::WHOLE, 1, [b"\x20", USUAL].concat())]),
            Then::Answers(200),
            GET,
        ),
        (
            "a table made smaller, then larger",
            sends(&[frame(kind::HEADERS, flag::WHOLE, 1, [b"\x20\x3f\xe1\x1f", USUAL].concat())]),
            Then::Answers(200),
            GET,
        ),
        (
            "a table larger than it may be",
            sends(&[frame(kind::HEADERS, flag::WHOLE, 1, [b"\x3f\xe2\x1f", USUAL].concat())]),
            COMPRESSION,
            NOTHING,
        ),
        ("a table made smaller after a field", sends(&[block(b"\x20")]), COMPRESSION, NOTHING),
        ("a field that was never kept", sends(&[block(b"\xbe")]), COMPRESSION, NOTHING),
        (
            "a field that was kept and is gone",
            vec![
                Step::Write(block(b"\x40\x01x\x01y")),
                Step::AwaitEnd(1),
                Step::Write(frame(kind::HEADERS, flag::WHOLE, 3, [b"\x20", USUAL, b"\xbe"].concat())),
            ],
            COMPRESSION,
            GET,
        ),
        (
            "a field larger than the table",
            sends(&[block(&[b"\x40\x01x\x7f\xa1\x1f".to_vec(), vec![b'y'; 4_128]].concat())]),
            Then::Answers(200),
            GET,
        ),
    ]
}

fn foul() -> Vec<Row> {
    vec![
        ("the field of number 0", sends(&[block(b"\x80")]), COMPRESSION, NOTHING),
        ("a field beyond all tables", sends(&[block(b"\xff\x80\x01")]), COMPRESSION, NOTHING),
        ("a name beyond all tables", sends(&[block(b"\x7f\x80\x01\x01y")]), COMPRESSION, NOTHING),
        (
            "a number without end",
            sends(&[block(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f")]),
            COMPRESSION,
            NOTHING,
        ),
        ("a text that is cut short", sends(&[block(b"\0\x01x\x05y")]), COMPRESSION, NOTHING),
        ("a field that is cut short", sends(&[block(b"\0\x01x")]), COMPRESSION, NOTHING),
        ("Huffman's padding of more than seven bits", sends(&[block(b"\0\x82\xf3\xff\x01y")]), COMPRESSION, NOTHING),
        ("Huffman's padding of zeros", sends(&[block(b"\0\x81\xf2\x01y")]), COMPRESSION, NOTHING),
        ("Huffman's end of a text within it", sends(&[block(b"\0\x84\xff\xff\xff\xff\x01y")]), COMPRESSION, NOTHING),
        (
            "one foul field among good ones",
            sends(&[block(&[field("a", "b"), vec![0x80], field("c", "d")].concat())]),
            COMPRESSION,
            NOTHING,
        ),
    ]
}
