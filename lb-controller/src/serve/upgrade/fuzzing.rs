//! What must hold of [`super::frames`] for any bytes; a fuzz target and tests call it.

use super::frames::Frames;

/// Panics if the tracker and a reader that has all of `stream` before it disagree on where frames end, or if that hangs on
/// how the bytes were cut.
pub fn frames_end_where_another_reader_says(stream: &[u8]) {
    let ends = ends(stream);
    let mut frames = Frames::default();
    for (index, byte) in stream.iter().enumerate() {
        frames.watch(std::slice::from_ref(byte));
        assert_eq!(frames.may_put_in(), ends.contains(&(index + 1)), "after byte {index}");
    }
    for piece_bytes in [2, 7, stream.len().max(1)] {
        let mut in_pieces = Frames::default();
        stream.chunks(piece_bytes).for_each(|piece| in_pieces.watch(piece));
        let verdict = |frames: &Frames| (frames.may_put_in(), frames.is_past_hope());
        assert_eq!(verdict(&in_pieces), verdict(&frames), "in pieces of {piece_bytes}");
    }
    let mut one_by_one = Frames::default();
    let mut at = 0;
    while at < stream.len() && !one_by_one.is_past_hope() {
        at += one_by_one.watch_frame(&stream[at..]);
        assert!(!one_by_one.may_put_in() || ends.contains(&at), "{at} is no end of a frame");
    }
}

/// Offsets behind whole frames before which no Close and no impossible length came.
fn ends(stream: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    while let Some((frame_bytes, is_close)) = frame(&stream[at..]) {
        at += frame_bytes;
        if is_close {
            break;
        }
        ends.push(at);
    }
    ends
}

/// Size of the first frame, and whether it is a Close; `None`: it is not whole, or impossible.
fn frame(bytes: &[u8]) -> Option<(usize, bool)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (head_bytes, payload_bytes) = match second & 0x7f {
        126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        short => (2, u64::from(short)),
    };
    let mask_bytes = if second & 0x80 != 0 { 4 } else { 0 };
    let payload_bytes = usize::try_from(payload_bytes).ok().filter(|bytes| *bytes <= isize::MAX as usize)?;
    let whole = payload_bytes.checked_add(head_bytes + mask_bytes)?;
    (whole <= bytes.len()).then_some((whole, first & 0x0f == 8))
}
