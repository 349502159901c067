//! The head of one request, line by line: only what decides where the request ends.

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyFraming {
    /// As many bytes; 0 without `Content-Length`.
    Length(u64),
    Chunked,
    /// The client asked for another protocol.
    Upgrade,
}

/// Collects framing headers. hyper and the guard check all the rest.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct HeadReader {
    request_line_seen: bool,
    /// HTTP/1.0 knows no chunks: its readers end such a request elsewhere.
    is_http_1_0: bool,
    content_length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

impl HeadReader {
    /// Takes one line without its line end. `Some`: it was the empty line that ends the head.
    pub(super) fn take_line(&mut self, line: &[u8]) -> Result<Option<BodyFraming>, ()> {
        if !self.request_line_seen {
            // RFC 9112 §2.2: an empty line before the request line is ignored.
            self.request_line_seen = !line.is_empty();
            self.is_http_1_0 = line.ends_with(b"HTTP/1.0");
            return Ok(None);
        }
        if line.is_empty() {
            return std::mem::take(self).end().map(Some);
        }
        // A line that starts with white space continues the one before (RFC 9112 §5.2), for some readers.
        if line[0] == b' ' || line[0] == b'\t' {
            return Err(());
        }
        let colon = memchr::memchr(b':', line).ok_or(())?;
        self.header(&line[..colon], trim_blanks(&line[colon + 1..]))?;
        Ok(None)
    }

    fn header(&mut self, name: &[u8], value: &[u8]) -> Result<(), ()> {
        // `Content-Length : 5` is this header to some readers and none to others.
        if name.is_empty() || name.iter().any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control()) {
            return Err(());
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            if self.content_length.is_some() {
                return Err(());
            }
            self.content_length = Some(content_length(value)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(());
            }
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        } else if is_alias(name, b"content-length") || is_alias(name, b"transfer-encoding") {
            return Err(());
        }
        Ok(())
    }

    fn end(self) -> Result<BodyFraming, ()> {
        match (self.content_length, self.chunked, self.upgrade) {
            (Some(_), true, _) => Err(()),
            (_, true, _) if self.is_http_1_0 => Err(()),
            // A body before the tunnel: readers disagree on which of them comes first.
            (Some(1..), _, true) | (_, true, true) => Err(()),
            (_, _, true) => Ok(BodyFraming::Upgrade),
            (_, true, _) => Ok(BodyFraming::Chunked),
            (length, false, false) => Ok(BodyFraming::Length(length.unwrap_or(0))),
        }
    }
}

/// `Transfer_Encoding` and `transfer.encoding` are the header itself to readers that make variables of names.
fn is_alias(name: &[u8], header: &[u8]) -> bool {
    let folded = |byte: u8| if matches!(byte, b'_' | b'.') { b'-' } else { byte.to_ascii_lowercase() };
    name.len() == header.len() && name.iter().zip(header).all(|(&byte, &expected)| folded(byte) == expected)
}

/// Removes the optional white space of RFC 9110 §5.6.3 and no more: a vertical tab is part of the value, and wrong.
fn trim_blanks(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Digits only: `+5`, `5, 5` and `0x5` are lengths to some readers.
fn content_length(value: &[u8]) -> Result<u64, ()> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return Err(());
    }
    std::str::from_utf8(value).map_err(|_| ())?.parse().map_err(|_| ())
}
