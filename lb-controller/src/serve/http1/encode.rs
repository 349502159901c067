//! Messages as they are written.

use std::cell::RefCell;
use std::io::Write;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header, request};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::clock::coarse_monotonic;

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyFraming {
    /// There is none, or so many bytes as `Content-Length` says.
    Plain,
    Chunked,
    /// It ends with the connection: for clients that know no chunks.
    UntilClose,
}

/// Writes a request's head. Its headers say nothing of framing, so what is added stands alone.
///
/// `length`: of the body; `None`: not known.
pub(super) fn request_head(out: &mut Vec<u8>, head: &request::Parts, length: Option<u64>) -> BodyFraming {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    headers(out, &head.headers);
    let framing = match length {
        // RFC 9110 §8.6: where a body is usual its absence is told.
        Some(0) if !matches!(head.method, Method::POST | Method::PUT | Method::PATCH) => BodyFraming::Plain,
        Some(length) => {
            content_length(out, length);
            BodyFraming::Plain
        }
        None => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            BodyFraming::Chunked
        }
    };
    out.extend_from_slice(b"\r\n");
    framing
}

/// To whom a response goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) version: Version,
    pub(super) is_head: bool,
    /// Another request may follow.
    pub(super) keeps_alive: bool,
    /// It said that it reads trailers (RFC 9110 §6.5.1).
    pub(super) takes_trailers: bool,
}

/// Writes a response's head; says how its body must follow.
///
/// `length`: of the body; `None`: not known.
pub(super) fn response_head(
    out: &mut Vec<u8>,
    (status, response_headers): (StatusCode, &mut HeaderMap),
    length: Option<u64>,
    asker: Asker,
) -> BodyFraming {
    status_line(out, status);
    let has_body = has_body(status, asker.is_head);
    let framing = match length {
        _ if !has_body => BodyFraming::Plain,
        Some(_) => BodyFraming::Plain,
        None if asker.version == Version::HTTP_11 => BodyFraming::Chunked,
        None => BodyFraming::UntilClose,
    };
    if has_body && framing != BodyFraming::Plain {
        response_headers.remove(header::CONTENT_LENGTH);
    }
    headers(out, response_headers);
    match (framing, length) {
        (BodyFraming::Chunked, _) => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        // HEAD too is told how long the body would be; 1xx and 204 may not have a length (RFC 9110 §8.6).
        (BodyFraming::Plain, Some(length))
            if may_have_length(status, length, asker.is_head)
                && !response_headers.contains_key(header::CONTENT_LENGTH) =>
        {
            content_length(out, length);
        }
        _ => {}
    }
    let is_switch = status == StatusCode::SWITCHING_PROTOCOLS;
    if is_switch {
        // Its headers say what the connection becomes.
    } else if !asker.keeps_alive || framing == BodyFraming::UntilClose {
        out.extend_from_slice(b"connection: close\r\n");
    } else if asker.version == Version::HTTP_10 {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    if !response_headers.contains_key(header::DATE) && !status.is_informational() {
        date(out);
    }
    out.extend_from_slice(b"\r\n");
    framing
}

/// Writes the whole of an informational response (RFC 9110 §15.2).
pub(super) fn interim_head(out: &mut Vec<u8>, status: StatusCode, interim_headers: &HeaderMap) {
    status_line(out, status);
    headers(out, interim_headers);
    out.extend_from_slice(b"\r\n");
}

fn status_line(out: &mut Vec<u8>, status: StatusCode) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("Unknown").as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Whether a body follows; RFC 9112 §6.3.
pub(super) fn has_body(status: StatusCode, is_head: bool) -> bool {
    !is_head && !status.is_informational() && status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED
}

/// The length of an empty body that stands for one which is not sent is not told.
fn may_have_length(status: StatusCode, length: u64, is_head: bool) -> bool {
    has_body(status, false) && (!is_head || length > 0)
}

/// A chunk's size line; the chunk must follow, and what is returned behind it.
pub(super) fn chunk_size(out: &mut Vec<u8>, bytes: usize) -> &'static [u8] {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{bytes:x}\r\n");
    b"\r\n"
}

/// The last chunk, and trailers behind it.
pub(super) fn last_chunk(out: &mut Vec<u8>, trailers: Option<&HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        headers(out, trailers);
    }
    out.extend_from_slice(b"\r\n");
}

fn headers(out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        line(out, name.as_str(), value);
    }
}

fn line(out: &mut Vec<u8>, name: &str, value: &HeaderValue) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn content_length(out: &mut Vec<u8>, length: u64) {
    let _ = write!(out, "content-length: {length}\r\n");
}

/// RFC 9110 §6.6.1: whoever has a clock says when.
fn date(out: &mut Vec<u8>) {
    struct Written {
        line: Vec<u8>,
        /// Of the coarse monotonic clock.
        at: Option<Duration>,
    }
    thread_local!(static WRITTEN: RefCell<Written> = const { RefCell::new(Written { line: Vec::new(), at: None }) });
    WRITTEN.with_borrow_mut(|Written { line, at }| {
        let now = coarse_monotonic();
        // Half a second old, it may be the second before.
        if at.is_none_or(|at| now.saturating_sub(at) >= Duration::from_millis(500)) {
            *at = Some(now);
            line.clear();
            let date = OffsetDateTime::now_utc().format(&Rfc2822).unwrap_or_default();
            // RFC 2822 names the zone `+0000`, HTTP `GMT`.
            let _ = write!(line, "date: {}GMT\r\n", date.trim_end_matches("+0000"));
        }
        out.extend_from_slice(line);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(
        status: u16,
        length: Option<u64>,
        asker: Asker,
        given: &[(&'static str, &'static str)],
    ) -> (BodyFraming, String) {
        let mut headers: HeaderMap = given
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        headers.insert(header::DATE, HeaderValue::from_static("x"));
        let mut out = Vec::new();
        let framing = response_head(&mut out, (StatusCode::from_u16(status).unwrap(), &mut headers), length, asker);
        (framing, String::from_utf8(out).unwrap().replace("date: x\r\n", ""))
    }

    #[test]
    fn a_response_says_where_it_ends_and_whether_another_may_follow() {
        use BodyFraming::{Chunked, Plain, UntilClose};
        let asker = Asker { version: Version::HTTP_11, is_head: false, keeps_alive: true, takes_trailers: true };
        let (head, old) = (Asker { is_head: true, ..asker }, Asker { version: Version::HTTP_10, ..asker });
        let last = Asker { keeps_alive: false, ..asker };
        for (what, (status, length, asker, given), framing, expected) in [
            ("a length", (200, Some(5), asker, &[][..]), Plain, "200 OK\r\ncontent-length: 5\r\n"),
            ("none", (200, Some(0), asker, &[]), Plain, "200 OK\r\ncontent-length: 0\r\n"),
            (
                "a backend's length",
                (200, Some(5), asker, &[("content-length", "5")]),
                Plain,
                "200 OK\r\ncontent-length: 5\r\n",
            ),
            ("unknown", (200, None, asker, &[]), Chunked, "200 OK\r\ntransfer-encoding: chunked\r\n"),
            ("unknown to HTTP/1.0", (200, None, old, &[]), UntilClose, "200 OK\r\nconnection: close\r\n"),
            (
                "known to HTTP/1.0",
                (200, Some(1), old, &[]),
                Plain,
                "200 OK\r\ncontent-length: 1\r\nconnection: keep-alive\r\n",
            ),
            ("to HEAD", (200, Some(0), head, &[("content-length", "5")]), Plain, "200 OK\r\ncontent-length: 5\r\n"),
            ("to HEAD, of ours", (200, Some(5), head, &[]), Plain, "200 OK\r\ncontent-length: 5\r\n"),
            ("no content", (204, Some(0), asker, &[]), Plain, "204 No Content\r\n"),
            (
                "not modified",
                (304, Some(0), asker, &[("content-length", "5")]),
                Plain,
                "304 Not Modified\r\ncontent-length: 5\r\n",
            ),
            ("the last", (200, Some(0), last, &[]), Plain, "200 OK\r\ncontent-length: 0\r\nconnection: close\r\n"),
            ("a status of somebody's own", (299, Some(0), asker, &[]), Plain, "299 Unknown\r\ncontent-length: 0\r\n"),
        ] {
            let expected = format!("HTTP/1.1 {expected}\r\n");
            assert_eq!(written(status, length, asker, given), (framing, expected), "{what}");
        }
    }

    #[test]
    fn dates_are_written_as_http_has_them() {
        let mut out = Vec::new();
        date(&mut out);
        let line = String::from_utf8(out).unwrap();
        let (begin, end) = (line.starts_with("date: "), line.ends_with(" GMT\r\n"));
        assert!(begin && end && line.len() == "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n".len(), "{line}");
    }
}
