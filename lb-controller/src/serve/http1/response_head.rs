//! The head of a backend's response.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Version, header};

use super::Foul;
use super::head::{LineEnds, Lines, has_token, read_headers};

#[derive(Debug)]
pub(super) struct ResponseHead {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) framing: ResponseFraming,
    /// Another request may follow on this connection.
    pub(super) keeps_alive: bool,
}

/// Where a response ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseFraming {
    Length(u64),
    Chunked,
    UntilClose,
}

impl ResponseHead {
    /// Reads a whole head: the response to a request of `method`.
    pub(super) fn read(head: &Bytes, method: &Method) -> Result<ResponseHead, Foul> {
        let mut lines = Lines::of(head, LineEnds::Lenient);
        let (_, line) = lines.next()?.ok_or(Foul::Malformed)?;
        let version = match line.get(..9) {
            Some(b"HTTP/1.1 ") => Version::HTTP_11,
            Some(b"HTTP/1.0 ") => Version::HTTP_10,
            _ => return Err(Foul::Malformed),
        };
        // The reason phrase is for nobody (RFC 9112 §4), and may be missing with the blank before it.
        if line.get(12).is_some_and(|byte| *byte != b' ') {
            return Err(Foul::Malformed);
        }
        let status = line.get(9..12).and_then(|digits| StatusCode::from_bytes(digits).ok()).ok_or(Foul::Malformed)?;
        let (mut headers, fields) = read_headers(head, &mut lines)?;
        let has_body = *method != Method::HEAD
            && !status.is_informational()
            && status != StatusCode::NO_CONTENT
            && status != StatusCode::NOT_MODIFIED;
        let framing = match fields.of_response(version)? {
            _ if !has_body => ResponseFraming::Length(0),
            Some(Some(length)) => {
                headers.insert(header::CONTENT_LENGTH, length.into());
                ResponseFraming::Length(length)
            }
            Some(None) => ResponseFraming::Chunked,
            None => ResponseFraming::UntilClose,
        };
        let says = |option: &str| has_token(&headers, &header::CONNECTION, option);
        let keeps_alive = match version {
            Version::HTTP_11 => !says("close"),
            _ => says("keep-alive") && !says("close"),
        };
        Ok(ResponseHead {
            status,
            framing,
            keeps_alive: keeps_alive && framing != ResponseFraming::UntilClose,
            headers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &str, method: &Method) -> Result<ResponseHead, Foul> {
        ResponseHead::read(&Bytes::copy_from_slice(head.as_bytes()), method)
    }

    #[test]
    fn a_response_ends_where_the_standard_says() {
        use ResponseFraming::{Chunked, Length, UntilClose};
        for (what, head, framing, keeps_alive) in [
            ("a length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Length(5), true),
            (
                "the same length twice",
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
                Length(5),
                true,
            ),
            ("chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", Chunked, true),
            ("neither", "HTTP/1.1 200 OK\r\n\r\n", UntilClose, false),
            ("no reason phrase", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", Length(0), true),
            ("bare line feeds", "HTTP/1.1 200 OK\nContent-Length: 5\n\n", Length(5), true),
            ("no content", "HTTP/1.1 204 No Content\r\n\r\n", Length(0), true),
            ("not modified", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", Length(0), true),
            ("an end", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x, Close\r\n\r\n", Length(5), false),
            ("HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", Length(5), false),
            (
                "HTTP/1.0 kept",
                "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n",
                Length(5),
                true,
            ),
        ] {
            let read = read(head, &Method::GET).unwrap_or_else(|foul| panic!("{what}: {foul:?}"));
            assert_eq!((read.framing, read.keeps_alive), (framing, keeps_alive), "{what}");
        }
        let head = read("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", &Method::HEAD).unwrap();
        assert_eq!((head.framing, &head.headers[header::CONTENT_LENGTH]), (Length(0), &"5".parse().unwrap()));
    }

    #[test]
    fn a_response_with_two_readings_is_foul() {
        for (what, head) in [
            ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"),
            ("a list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n"),
            ("a length and chunks", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
            ("another coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
            ("chunks in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            ("a folded header", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n"),
            ("no status", "HTTP/1.1 OK\r\n\r\n"),
            ("four digits", "HTTP/1.1 2000 OK\r\n\r\n"),
            ("another protocol", "ICY 200 OK\r\n\r\n"),
            ("a bare carriage return", "HTTP/1.1 200 OK\r\nX: a\rY: b\r\n\r\n"),
        ] {
            assert!(read(head, &Method::GET).is_err(), "{what}");
        }
    }
}
