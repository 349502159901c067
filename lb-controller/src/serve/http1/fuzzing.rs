//! What must hold of the reader of requests for any bytes; fuzz targets and tests call it.

use bytes::BytesMut;

use super::chunks::{Decoded, Decoder};
use super::head::{Framing, LineEnds, RequestHead, Search};

/// Whether two readers could part over `stream`, the bytes of one connection. Panics if they could.
///
/// What is read must not hang on how the network cut the bytes, and each request must end for another reader, a lenient
/// one, where it ends for us: a difference is a request smuggled (RFC 9112 §11.2).
pub fn requests_end_where_another_reader_says(stream: &[u8]) {
    let whole = Read::of(stream, stream.len().max(1));
    for piece_bytes in [1, 7] {
        assert_eq!(Read::of(stream, piece_bytes), whole, "in pieces of {piece_bytes}");
    }
    for (index, end) in lenient_ends(stream).into_iter().enumerate() {
        let Some(ours) = whole.ends.get(index) else { break };
        assert_eq!(*ours, end, "request {index} ends elsewhere for another reader: {whole:?}");
    }
}

/// How a connection's bytes were read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    /// Where each request that was taken ended.
    pub(super) ends: Vec<usize>,
    pub(super) is_foul: bool,
}

impl Read {
    /// Reads `stream` in pieces, as [`super::server`] does, up to what is foul or a request to upgrade.
    pub(super) fn of(stream: &[u8], piece_bytes: usize) -> Read {
        let mut read = Read::default();
        let mut inbox = BytesMut::new();
        let mut pieces = stream.chunks(piece_bytes);
        let mut seen = 0;
        let mut search = Search::new(LineEnds::Strict);
        let mut body: Option<Decoder> = None;
        loop {
            let step = match &mut body {
                None => next_head(&mut search, &mut inbox),
                Some(decoder) => decoder.next(&mut inbox).map(|decoded| match decoded {
                    Decoded::Ended => Step::Ended,
                    Decoded::Piece(_) => Step::Went,
                    Decoded::Hungry => Step::Hungry,
                }),
            };
            match step {
                Err(_) => return Read { is_foul: true, ..read },
                Ok(Step::Upgrade) => return read,
                Ok(Step::Body(decoder)) => body = Some(decoder),
                Ok(Step::Went) => {}
                Ok(Step::Ended) => {
                    read.ends.push(seen - inbox.len());
                    body = None;
                }
                Ok(Step::Hungry) => {
                    let Some(piece) = pieces.next() else { return read };
                    seen += piece.len();
                    inbox.extend_from_slice(piece);
                }
            }
        }
    }
}

enum Step {
    Hungry,
    Went,
    Body(Decoder),
    Upgrade,
    Ended,
}

fn next_head(search: &mut Search, inbox: &mut BytesMut) -> Result<Step, super::Foul> {
    let Some(length) = search.end(inbox)? else { return Ok(Step::Hungry) };
    *search = Search::new(LineEnds::Strict);
    let head = inbox.split_to(length).freeze();
    if *head == *b"\r\n" {
        return Ok(Step::Went);
    }
    Ok(match RequestHead::read(&head)?.framing {
        Framing::Length(length) => Step::Body(Decoder::Length(length)),
        Framing::Chunked => Step::Body(Decoder::chunked()),
        Framing::Upgrade => Step::Upgrade,
    })
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
