//! An access line in the Common Log Format of the first web servers, and in the one that combines it with `Referer` and
//! `User-Agent`. What a client chose is escaped as Apache does it, so that no request writes a line of its own.

use std::net::IpAddr;

use super::{Record, cut};
use crate::serve::digits::{push_ip, push_number};

/// A header's value is cut off here: a line must fit into one write.
const LONGEST_VALUE_BYTES: usize = 1_024;

/// `date`: as in `31/Jan/2026:23:59:59 +0000`. Nobody is named: users are none of this log's business.
pub(super) fn write(out: &mut Vec<u8>, record: &Record, date: &[u8], is_combined: bool) {
    begin(out, record.client, date);
    quoted(out, |out| {
        escape(out, record.method.as_str().as_bytes());
        out.push(b' ');
        escape(out, cut(record.uri.path()).as_bytes());
        out.push(b' ');
        out.extend_from_slice(record.protocol().as_bytes());
    });
    out.push(b' ');
    push_number(out, record.status.as_u16().into());
    out.push(b' ');
    match record.sent_bytes {
        0 => out.push(b'-'),
        bytes => push_number(out, bytes),
    }
    if is_combined {
        let visitor = record.visitor.as_deref();
        let referer = visitor.and_then(|visitor| visitor.referer.as_ref());
        // The query of where somebody came from may hold secrets too.
        value(out, referer.map(|referer| without_query(referer.as_bytes())));
        let user_agent = visitor.and_then(|visitor| visitor.user_agent.as_ref());
        value(out, user_agent.map(http::HeaderValue::as_bytes));
    }
    out.push(b'\n');
}

fn begin(out: &mut Vec<u8>, client: IpAddr, date: &[u8]) {
    push_ip(out, client);
    out.extend_from_slice(b" - - [");
    out.extend_from_slice(date);
    out.extend_from_slice(b"] ");
}

fn value(out: &mut Vec<u8>, value: Option<&[u8]>) {
    out.push(b' ');
    quoted(out, |out| match value {
        Some(value) if !value.is_empty() => escape(out, &value[..value.len().min(LONGEST_VALUE_BYTES)]),
        _ => out.push(b'-'),
    });
}

fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    write(out);
    out.push(b'"');
}

fn without_query(url: &[u8]) -> &[u8] {
    let end = url.iter().position(|byte| matches!(byte, b'?' | b'#'));
    &url[..end.unwrap_or(url.len())]
}

/// As Apache's `ap_escape_logitem`: C's escapes, and `\xhh` for all else that is no printable ASCII.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', *byte]),
            0x08 => out.extend(*b"\\b"),
            b'\n' => out.extend(*b"\\n"),
            b'\r' => out.extend(*b"\\r"),
            b'\t' => out.extend(*b"\\t"),
            0x0b => out.extend(*b"\\v"),
            0x20..=0x7e => out.push(*byte),
            _ => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                out.extend([b'\\', b'x', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request, StatusCode};
    use proptest::prelude::*;

    use super::super::{Recorder, Visitor};
    use super::*;

    const DATE: &[u8] = b"31/Jan/2026:23:59:59 +0000";

    fn record(path: &str, visitor: Visitor) -> Box<Record> {
        let peer = crate::serve::request::Peer::plain("192.0.2.7:4000".parse().unwrap());
        let request = Request::get(path).body(()).unwrap();
        let mut record = Record::start(&Recorder::default().into(), &peer, &request);
        record.status = StatusCode::OK;
        record.visitor = Some(Box::new(visitor));
        record
    }

    fn line(record: &Record, is_combined: bool) -> String {
        let mut out = Vec::new();
        write(&mut out, record, DATE, is_combined);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_what_readers_of_these_formats_expect() {
        let header = |text: &str| Some(HeaderValue::from_bytes(text.as_bytes()).unwrap());
        let visitor = Visitor {
            referer: header("https://shop.example/from?token=secret#part"),
            user_agent: header("Mozilla/5.0 \"quoted\" \\ ü\tx"),
        };
        let mut record = record("/a%20path?token=secret", visitor);
        assert_eq!(
            line(&record, false),
            "192.0.2.7 - - [31/Jan/2026:23:59:59 +0000] \"GET /a%20path HTTP/1.1\" 200 -\n"
        );
        record.sent(1234);
        assert_eq!(
            line(&record, true),
            concat!(
                "192.0.2.7 - - [31/Jan/2026:23:59:59 +0000] \"GET /a%20path HTTP/1.1\" 200 1234 ",
                r#""https://shop.example/from" "Mozilla/5.0 \"quoted\" \\ \xc3\xbc\tx""#,
                "\n"
            )
        );
        record.visitor = None;
        assert!(line(&record, true).ends_with(" 1234 \"-\" \"-\"\n"), "{}", line(&record, true));
    }

    /// Another reader: the texts between quotes, with C's escapes undone.
    fn quoted_texts(line: &str) -> Vec<Vec<u8>> {
        let (mut texts, mut bytes) = (Vec::new(), line.bytes());
        while bytes.any(|byte| byte == b'"') {
            let mut text = Vec::new();
            loop {
                match bytes.next().expect("a quote that ends") {
                    b'"' => break,
                    b'\\' => text.push(match bytes.next().expect("an escape") {
                        b'x' => {
                            let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                            u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                        }
                        b'b' => 8,
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'v' => 11,
                        itself => itself,
                    }),
                    byte => text.push(byte),
                }
            }
            texts.push(text);
        }
        texts
    }

    proptest! {
        #[test]
        fn whatever_a_client_sends_is_one_line_that_another_reader_takes_apart_as_it_was(
            agent in prop::collection::vec(any::<u8>(), 1..200),
            referer in prop::collection::vec(any::<u8>(), 1..200),
        ) {
            let value = |bytes: &[u8]| HeaderValue::from_bytes(bytes).ok();
            let visitor = Visitor { referer: value(&referer), user_agent: value(&agent) };
            let expected = |value: Option<&HeaderValue>, end: fn(&[u8]) -> &[u8]| {
                let text = value.map(|value| end(value.as_bytes()).to_vec()).unwrap_or_default();
                if text.is_empty() { b"-".to_vec() } else { text }
            };
            let (referer, agent) =
                (expected(visitor.referer.as_ref(), without_query), expected(visitor.user_agent.as_ref(), |all| all));
            let line = line(&record("/x", visitor), true);
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert!(line.bytes().all(|byte| byte == b'\n' || (0x20..0x7f).contains(&byte)));
            prop_assert_eq!(quoted_texts(&line), vec![b"GET /x HTTP/1.1".to_vec(), referer, agent]);
        }

        #[test]
        fn any_bytes_come_out_of_their_escapes_as_they_went_in(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut out = b"\"".to_vec();
            escape(&mut out, &text);
            out.push(b'"');
            prop_assert_eq!(quoted_texts(std::str::from_utf8(&out).unwrap()), vec![text]);
        }
    }
}
