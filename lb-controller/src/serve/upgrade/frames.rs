//! Where frames of a WebSocket end (RFC 6455 §5.2), found in constant memory as the bytes of one direction pass.

/// One direction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Frames {
    place: Place,
    is_close: bool,
    /// A Close frame has passed: nothing may follow it (§5.5.1).
    has_closed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// The next byte begins a frame.
    #[default]
    Between,
    /// The byte with the mask bit and the short length comes next.
    ShortLength,
    /// Bytes of the extended length to come, and what those before them say.
    LongLength {
        to_come: u8,
        bytes: u64,
        is_masked: bool,
    },
    /// Bytes of the masking key to come, and the payload behind it.
    Mask {
        to_come: u8,
        payload_bytes: u64,
    },
    Payload {
        to_come: u64,
    },
    /// A length that nobody may send: where frames end is not known any more.
    Lost,
}

const CLOSE: u8 = 0x8;
const MASK_BYTES: u8 = 4;

impl Frames {
    /// A frame of our own may be put in here: also between the fragments of a message, if it is a control frame (§5.4).
    pub(super) fn may_put_in(&self) -> bool {
        self.place == Place::Between && !self.has_closed
    }

    /// No frame of our own can be put in any more, however long one waits.
    pub(super) fn is_past_hope(&self) -> bool {
        self.has_closed || self.place == Place::Lost
    }

    /// `bytes` pass.
    pub(super) fn watch(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.watch_frame(bytes)..];
        }
    }

    /// `bytes` pass, but none beyond the frame that is under way; returns how many those are.
    pub(super) fn watch_frame(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while let Some(byte) = bytes.get(passed) {
            if let Place::Payload { to_come } = self.place {
                let here = usize::try_from(to_come).unwrap_or(usize::MAX).min(bytes.len() - passed);
                passed += here;
                self.place = payload(to_come - here as u64);
            } else {
                passed += 1;
                self.place = self.after_head_byte(*byte);
            }
            match self.place {
                Place::Between => {
                    self.has_closed |= self.is_close;
                    return passed;
                }
                Place::Lost => return bytes.len(),
                _ => {}
            }
        }
        passed
    }

    fn after_head_byte(&mut self, byte: u8) -> Place {
        match self.place {
            Place::Between => {
                self.is_close = byte & 0x0f == CLOSE;
                Place::ShortLength
            }
            Place::ShortLength => {
                let is_masked = byte & 0x80 != 0;
                match byte & 0x7f {
                    126 => Place::LongLength { to_come: 2, bytes: 0, is_masked },
                    127 => Place::LongLength { to_come: 8, bytes: 0, is_masked },
                    short => behind_length(short.into(), is_masked),
                }
            }
            Place::LongLength { to_come: 1, bytes, is_masked } => {
                behind_length(bytes << 8 | u64::from(byte), is_masked)
            }
            Place::LongLength { to_come, bytes, is_masked } => {
                Place::LongLength { to_come: to_come - 1, bytes: bytes << 8 | u64::from(byte), is_masked }
            }
            Place::Mask { to_come: 1, payload_bytes } => payload(payload_bytes),
            Place::Mask { to_come, payload_bytes } => Place::Mask { to_come: to_come - 1, payload_bytes },
            known @ (Place::Payload { .. } | Place::Lost) => known,
        }
    }
}

fn behind_length(payload_bytes: u64, is_masked: bool) -> Place {
    match (payload_bytes >> 63, is_masked) {
        // The most significant bit must be 0 (§5.2).
        (1, _) => Place::Lost,
        (_, true) => Place::Mask { to_come: MASK_BYTES, payload_bytes },
        (_, false) => payload(payload_bytes),
    }
}

fn payload(to_come: u64) -> Place {
    if to_come == 0 { Place::Between } else { Place::Payload { to_come } }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fuzzing::frames_end_where_another_reader_says;
    use super::*;

    #[test]
    fn a_frame_may_be_put_in_where_one_ended_and_nowhere_else() {
        let head_of_64_kib = [&[0x82, 127][..], &65_536_u64.to_be_bytes()].concat();
        let rows: &[(&str, &[u8], bool, bool)] = &[
            ("nothing yet", b"", true, false),
            ("half a head", b"\x81", false, false),
            ("an empty text", b"\x81\0", true, false),
            ("a text", b"\x81\x02hi", true, false),
            ("the beginning of a text", b"\x81\x02h", false, false),
            ("a masked text", b"\x81\x82\x01\x02\x03\x04hi", true, false),
            ("its key alone", b"\x81\x82\x01\x02\x03\x04", false, false),
            ("an empty masked one", b"\x81\x80\x01\x02\x03\x04", true, false),
            ("a fragment", b"\x01\x02hi", true, false),
            ("two bytes of length", b"\x82\x7e\0\x02hi", true, false),
            ("one of them", b"\x82\x7e\0", false, false),
            ("eight bytes of length", &head_of_64_kib, false, false),
            ("a ping between", b"\x01\x02hi\x89\0", true, false),
            ("a Close", b"\x88\x02\x03\xe8", false, true),
            ("half a Close", b"\x88\x02\x03", false, false),
            ("a length beyond all", b"\x82\x7f\x80\0\0\0\0\0\0\0", false, true),
        ];
        for (name, bytes, may_put_in, is_past_hope) in rows {
            let mut frames = Frames::default();
            frames.watch(bytes);
            assert_eq!((frames.may_put_in(), frames.is_past_hope()), (*may_put_in, *is_past_hope), "{name}");
        }
    }

    #[test]
    fn only_the_frame_under_way_is_let_through() {
        let mut frames = Frames::default();
        frames.watch(b"\x81\x04ab");
        assert_eq!(frames.watch_frame(b"cd\x81\x01e"), 2);
        assert!(frames.may_put_in());
    }

    /// Frames, cut off anywhere.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let frame = (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..300), any::<Option<[u8; 4]>>(), 0..3_u8);
        let encode = |(first, payload, mask, form): (u8, Vec<u8>, Option<[u8; 4]>, u8)| {
            let mask_bit = if mask.is_some() { 0x80 } else { 0 };
            let mut bytes = vec![first];
            match (form, payload.len()) {
                (0, short @ 0..=125) => bytes.push(mask_bit | short as u8),
                (0 | 1, length) => {
                    bytes.push(mask_bit | 126);
                    bytes.extend((length as u16).to_be_bytes());
                }
                (_, length) => {
                    bytes.push(mask_bit | 127);
                    bytes.extend((length as u64).to_be_bytes());
                }
            }
            bytes.extend(mask.iter().flatten());
            bytes.extend(payload);
            bytes
        };
        let frames = proptest::collection::vec(frame, 0..6);
        (frames, any::<prop::sample::Index>()).prop_map(move |(frames, cut)| {
            let mut bytes: Vec<u8> = frames.into_iter().flat_map(encode).collect();
            bytes.truncate(cut.index(bytes.len() + 1));
            bytes
        })
    }

    proptest! {
        #[test]
        fn frames_end_where_another_reader_says_however_the_bytes_are_cut(stream in stream()) {
            frames_end_where_another_reader_says(&stream);
        }

        #[test]
        fn so_they_do_in_bytes_that_are_no_frames(stream in proptest::collection::vec(any::<u8>(), 0..600)) {
            frames_end_where_another_reader_says(&stream);
        }
    }
}
