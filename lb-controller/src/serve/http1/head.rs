//! The head of a request, as strict as it must be: whatever two readers could end at two places is foul (RFC 9112 §11.2).

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri, Version};

use super::{Foul, MAX_HEAD_BYTES, MAX_HEADERS};

/// What follows a request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// As many bytes; 0 without `Content-Length`.
    Length(u64),
    Chunked,
    /// The client asked for another protocol: whether what follows is a tunnel, only the response can say.
    Upgrade,
}

#[derive(Debug)]
pub(crate) struct RequestHead {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) framing: Framing,
}

/// How lines may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineEnds {
    /// RFC 9112 §2.2 allows a bare line feed; readers that do not allow it see another head end.
    Strict,
    /// Old backends write bare line feeds, and nobody else reads their bytes.
    Lenient,
}

/// Looks for the empty line that ends a head, and goes on where it stopped when more bytes are there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search {
    ends: LineEnds,
    /// Where the line under way begins, and how far it was looked at.
    line_at: usize,
    seen: usize,
}

impl Search {
    pub(super) fn new(ends: LineEnds) -> Search {
        Search { ends, line_at: 0, seen: 0 }
    }

    /// The bytes of the head, its empty line included; `None`: it goes on. `bytes` begins with the start line.
    pub(super) fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Foul> {
        while let Some(found) = memchr::memchr(b'\n', &bytes[self.seen..]) {
            let line_feed = self.seen + found;
            let line = trim_line_end(&bytes[self.line_at..=line_feed], self.ends)?;
            let is_end = line.is_empty();
            (self.line_at, self.seen) = (line_feed + 1, line_feed + 1);
            if is_end {
                return if self.seen <= MAX_HEAD_BYTES { Ok(Some(self.seen)) } else { Err(Foul::HeadTooLarge) };
            }
        }
        self.seen = bytes.len();
        if bytes.len() > MAX_HEAD_BYTES { Err(Foul::HeadTooLarge) } else { Ok(None) }
    }
}

/// A line without its end. `line` ends in a line feed.
pub(super) fn trim_line_end(line: &[u8], ends: LineEnds) -> Result<&[u8], Foul> {
    let without = line.strip_suffix(b"\r\n").or_else(|| match ends {
        LineEnds::Strict => None,
        LineEnds::Lenient => line.strip_suffix(b"\n"),
    });
    without.ok_or(Foul::Malformed)
}

/// Lines of a head that [`Search`] found the end of, as ranges of it, up to the empty one.
pub(super) struct Lines<'a> {
    head: &'a [u8],
    ends: LineEnds,
    at: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn of(head: &'a [u8], ends: LineEnds) -> Lines<'a> {
        Lines { head, ends, at: 0 }
    }

    /// Where the next line begins, and its bytes.
    pub(super) fn next(&mut self) -> Result<Option<(usize, &'a [u8])>, Foul> {
        let Some(line_feed) = memchr::memchr(b'\n', &self.head[self.at..]) else { return Ok(None) };
        let at = self.at;
        self.at += line_feed + 1;
        let line = trim_line_end(&self.head[at..self.at], self.ends)?;
        if line.is_empty() {
            return Ok(None);
        }
        // Some readers end a line at a bare carriage return, and a text at a NUL.
        if memchr::memchr2(b'\r', b'\0', line).is_some() {
            return Err(Foul::Malformed);
        }
        Ok(Some((at, line)))
    }
}

impl RequestHead {
    /// Reads a whole head.
    pub(super) fn read(head: &Bytes) -> Result<RequestHead, Foul> {
        let mut lines = Lines::of(head, LineEnds::Strict);
        let (at, line) = lines.next()?.ok_or(Foul::Malformed)?;
        let mut parts = line.splitn(3, |byte| *byte == b' ');
        let (Some(method), Some(target), Some(version)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(Foul::Malformed);
        };
        let version = match version {
            b"HTTP/1.1" => Version::HTTP_11,
            b"HTTP/1.0" => Version::HTTP_10,
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => return Err(Foul::Version),
            _ => return Err(Foul::Malformed),
        };
        let target_at = at + method.len() + 1;
        let target = head.slice(target_at..target_at + target.len());
        let (headers, fields) = read_headers(head, &mut lines)?;
        Ok(RequestHead {
            method: Method::from_bytes(method).map_err(|_| Foul::Malformed)?,
            uri: Uri::from_maybe_shared(target).map_err(|_| Foul::Malformed)?,
            framing: fields.of_request(version)?,
            version,
            headers,
        })
    }
}

/// What headers say of where a message ends.
#[derive(Debug, Default)]
pub(super) struct FramingFields {
    /// Of each `Content-Length`, the first and how many there are.
    content_length: Option<u64>,
    content_lengths: usize,
    lengths_agree: bool,
    /// Of `Transfer-Encoding`: whether there is one, and whether it is one `chunked` and nothing else.
    transfer_encodings: usize,
    is_chunked: bool,
    has_upgrade: bool,
}

/// The headers of a message whose start line was taken from `lines`; their values share the bytes of `head`.
pub(super) fn read_headers(head: &Bytes, lines: &mut Lines<'_>) -> Result<(HeaderMap, FramingFields), Foul> {
    // What usual messages have, and what is put in on the way: a map that grows moves all that is in it.
    let mut headers = HeaderMap::with_capacity(24);
    let mut fields = FramingFields { lengths_agree: true, ..FramingFields::default() };
    let mut count = 0;
    while let Some((at, line)) = lines.next()? {
        count += 1;
        if count > MAX_HEADERS {
            return Err(Foul::HeadTooLarge);
        }
        let (name, value) = read_header(head, at, line)?;
        fields.take(&name, &value)?;
        headers.append(name, value);
    }
    Ok((headers, fields))
}

/// One header line, which begins at `at` of `head`.
pub(super) fn read_header(head: &Bytes, at: usize, line: &[u8]) -> Result<(HeaderName, HeaderValue), Foul> {
    // A line that starts with white space continues the one before (RFC 9112 §5.2), for some readers; it has no colon
    // after a name, so it fails like `Content-Length : 5`, which is this header to some readers and none to others.
    let colon = memchr::memchr(b':', line).ok_or(Foul::Malformed)?;
    let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| Foul::Malformed)?;
    let value = trim_blanks(&line[colon + 1..]);
    let value_at = at + colon + 1 + blanks_before(&line[colon + 1..]);
    let value = head.slice(value_at..value_at + value.len());
    Ok((name, HeaderValue::from_maybe_shared(value).map_err(|_| Foul::Malformed)?))
}

impl FramingFields {
    fn take(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<(), Foul> {
        if *name == header::CONTENT_LENGTH {
            let length = content_length(value.as_bytes())?;
            self.lengths_agree &= self.content_length.is_none_or(|known| known == length);
            self.content_length = Some(length);
            self.content_lengths += 1;
        } else if *name == header::TRANSFER_ENCODING {
            self.transfer_encodings += 1;
            self.is_chunked = value.as_bytes().eq_ignore_ascii_case(b"chunked");
        } else if *name == header::UPGRADE {
            self.has_upgrade = true;
        } else if is_alias(name.as_str(), "content-length") || is_alias(name.as_str(), "transfer-encoding") {
            return Err(Foul::Malformed);
        }
        Ok(())
    }

    fn of_request(&self, version: Version) -> Result<Framing, Foul> {
        if self.content_lengths > 1 {
            return Err(Foul::Malformed);
        }
        match (self.transfer_encodings, self.content_length, self.has_upgrade) {
            (0, None | Some(0), true) => Ok(Framing::Upgrade),
            // A body before the tunnel: readers disagree on which of them comes first.
            (_, _, true) => Err(Foul::Malformed),
            (0, length, false) => Ok(Framing::Length(length.unwrap_or(0))),
            // HTTP/1.0 knows no chunks: its readers end such a request elsewhere.
            (1, None, false) if self.is_chunked && version == Version::HTTP_11 => Ok(Framing::Chunked),
            _ => Err(Foul::Malformed),
        }
    }

    /// `Some(None)`: chunked; `None`: until the connection closes.
    pub(super) fn of_response(&self, version: Version) -> Result<Option<Option<u64>>, Foul> {
        match (self.transfer_encodings, self.content_length) {
            (0, None) => Ok(None),
            // RFC 9110 §8.6 lets a recipient take equal ones for one.
            (0, Some(length)) if self.lengths_agree => Ok(Some(Some(length))),
            (1, None) if self.is_chunked && version == Version::HTTP_11 => Ok(Some(None)),
            _ => Err(Foul::Malformed),
        }
    }
}

/// Whether a header that is a list of tokens has one of them.
pub(super) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers.get_all(name).iter().any(|value| {
        let mut tokens = value.as_bytes().split(|byte| *byte == b',');
        tokens.any(|said| said.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    })
}

/// `Transfer_Encoding` and `transfer.encoding` are the header itself to readers that make variables of names.
fn is_alias(name: &str, header: &str) -> bool {
    let folded = |byte: u8| if matches!(byte, b'_' | b'.') { b'-' } else { byte };
    name.len() == header.len() && name.bytes().zip(header.bytes()).all(|(byte, expected)| folded(byte) == expected)
}

/// Removes the optional white space of RFC 9110 §5.6.3 and no more: a vertical tab is part of the value, and wrong.
fn trim_blanks(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn blanks_before(value: &[u8]) -> usize {
    value.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(value.len())
}

/// Digits only: `+5`, `5, 5` and `0x5` are lengths to some readers.
fn content_length(value: &[u8]) -> Result<u64, Foul> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return Err(Foul::Malformed);
    }
    std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()).ok_or(Foul::Malformed)
}
