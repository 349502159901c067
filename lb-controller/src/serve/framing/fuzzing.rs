//! What must hold of the referee for any bytes; fuzz targets and tests call it.

use super::head::HeadReader;
use super::{Place, Referee};

/// Whether two readers could part over `stream`, the bytes of one connection. Panics if they could.
///
/// The verdict must not hang on how the network cut the bytes, and of what passes, each request must end for another
/// reader, a lenient one, where it ends for the referee: a difference is a request smuggled (RFC 9112 §11.2).
pub fn requests_end_where_another_reader_says(stream: &[u8]) {
    // What follows a request to upgrade may be a tunnel's, unless it came in the same read: there the cut does matter.
    if memchr::memmem::find(&stream.to_ascii_lowercase(), b"upgrade").is_none() {
        let whole = passes(stream, stream.len().max(1));
        assert!([1, 7].iter().all(|piece_bytes| passes(stream, *piece_bytes) == whole), "passes at once: {whole}");
    }
    let (passed, ends) = byte_by_byte(stream);
    for (index, end) in lenient_ends(passed).into_iter().enumerate() {
        assert_eq!(ends.get(index), Some(&end), "request {index} ends elsewhere for the referee: {ends:?}");
    }
}

fn passes(stream: &[u8], piece_bytes: usize) -> bool {
    let mut referee = Referee::default();
    stream.chunks(piece_bytes).all(|piece| referee.watch(piece).is_ok())
}

/// What the referee passes on of a stream that comes in single bytes, and where it says that requests end.
fn byte_by_byte(stream: &[u8]) -> (&[u8], Vec<usize>) {
    let mut referee = Referee::default();
    let mut ends = Vec::new();
    let mut start = 0;
    for (index, byte) in stream.iter().enumerate() {
        if referee.watch(std::slice::from_ref(byte)).is_err() {
            return (&stream[..index], ends);
        }
        let between = referee.place == Place::Head && referee.line.is_empty() && referee.head == HeadReader::default();
        // Empty lines before a request line are part of the request that follows (RFC 9112 §2.2).
        let is_request = stream[start..=index].iter().any(|byte| !matches!(byte, b'\r' | b'\n'));
        if between && is_request {
            start = index + 1;
            ends.push(start);
        }
    }
    (stream, ends)
}

/// Where requests end for a reader that lets `Transfer-Encoding` win, skips chunk extensions and takes the last of
/// several lengths. It stops at what it cannot read, and at a request to upgrade.
fn lenient_ends(stream: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    while let Some(length) = lenient_request_bytes(&stream[at..]) {
        at += length;
        ends.push(at);
    }
    ends
}

fn lenient_request_bytes(rest: &[u8]) -> Option<usize> {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head_bytes) = request.parse(rest).ok()? else { return None };
    let value = |name: &str| {
        let mut found = request.headers.iter().rev().filter(|header| header.name.eq_ignore_ascii_case(name));
        found.next().map(|header| String::from_utf8_lossy(header.value).trim().to_ascii_lowercase())
    };
    if value("upgrade").is_some() {
        return None;
    }
    let body_bytes = match (value("transfer-encoding"), value("content-length")) {
        (Some(coding), _) if coding.ends_with("chunked") => lenient_chunked_bytes(&rest[head_bytes..])?,
        (_, Some(length)) => length.parse().ok()?,
        _ => 0,
    };
    let end = head_bytes.checked_add(body_bytes)?;
    (end <= rest.len()).then_some(end)
}

fn lenient_chunked_bytes(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let httparse::Status::Complete((line_bytes, size)) = httparse::parse_chunk_size(&body[at..]).ok()? else {
            return None;
        };
        at += line_bytes;
        if size == 0 {
            let mut trailers = [httparse::EMPTY_HEADER; 100];
            let httparse::Status::Complete((trailer_bytes, _)) =
                httparse::parse_headers(&body[at..], &mut trailers).ok()?
            else {
                return None;
            };
            return Some(at + trailer_bytes);
        }
        at = at.checked_add(usize::try_from(size).ok()?)?;
        at += body.get(at..)?.strip_prefix(b"\r\n").map(|_| 2)?;
    }
}
