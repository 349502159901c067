//! Counts the frames that cost us work and carry nothing: resets, pings, settings, priorities, empty data, unknown
//! types. Floods of them (CVE-2019-9512, -9515, -9518, CVE-2023-44487) end the connection.

use std::io;
use std::time::Instant;

/// `PRI * HTTP/2.0…` (RFC 9113 §3.4).
const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;

/// Frames that may come at once: a browser that leaves a page resets some hundred streams.
const BURST: u32 = 1_000;

/// Frames each second beyond that; clients that ping for latency or keep-alive send a few.
const PER_SECOND: u32 = 100;

mod frame_type {
    pub(super) const DATA: u8 = 0x0;
    pub(super) const PRIORITY: u8 = 0x2;
    pub(super) const RST_STREAM: u8 = 0x3;
    pub(super) const SETTINGS: u8 = 0x4;
    pub(super) const PING: u8 = 0x6;
    pub(super) const CONTINUATION: u8 = 0x9;
    /// Beyond this, types are unknown and frames of them ignored (RFC 9113 §5.5).
    pub(super) const LAST_KNOWN: u8 = CONTINUATION;
}

/// END_STREAM of DATA (RFC 9113 §6.1).
const END_STREAM: u8 = 0x1;

/// Reads along, from the first byte of the connection.
#[derive(Debug)]
pub(super) struct FloodGuard {
    /// Bytes that belong to the preface or a frame's payload.
    skip: usize,
    header: [u8; HEADER_BYTES],
    header_read: usize,
    allowance: u32,
    refilled: Instant,
}

impl FloodGuard {
    pub(super) fn new() -> FloodGuard {
        FloodGuard {
            skip: PREFACE_BYTES,
            header: [0; HEADER_BYTES],
            header_read: 0,
            allowance: BURST,
            refilled: Instant::now(),
        }
    }

    /// Follows `bytes`. An error ends the connection.
    pub(super) fn watch(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];

            let wanted = (HEADER_BYTES - self.header_read).min(bytes.len());
            self.header[self.header_read..self.header_read + wanted].copy_from_slice(&bytes[..wanted]);
            self.header_read += wanted;
            bytes = &bytes[wanted..];
            if self.header_read == HEADER_BYTES {
                self.header_read = 0;
                self.frame()?;
            }
        }
        Ok(())
    }

    fn frame(&mut self) -> io::Result<()> {
        let [high, middle, low, kind, flags, ..] = self.header;
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        self.skip = length;
        let is_costly = match kind {
            frame_type::DATA => length == 0 && flags & END_STREAM == 0,
            frame_type::PRIORITY
            | frame_type::RST_STREAM
            | frame_type::SETTINGS
            | frame_type::PING
            | frame_type::CONTINUATION => true,
            kind => kind > frame_type::LAST_KNOWN,
        };
        if is_costly { self.spend(Instant::now()) } else { Ok(()) }
    }

    fn spend(&mut self, now: Instant) -> io::Result<()> {
        if self.allowance == 0 {
            let earned = now.duration_since(self.refilled).as_millis() * u128::from(PER_SECOND) / 1_000;
            if earned == 0 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "flood of h2 control frames"));
            }
            self.allowance = u32::try_from(earned).unwrap_or(BURST).min(BURST);
            self.refilled = now;
        }
        self.allowance -= 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &[0, 0, 0, 1], payload].concat()
    }

    fn passes(frames: &[u8]) -> bool {
        let mut guard = FloodGuard::new();
        guard.watch(&[b'x'; PREFACE_BYTES]).unwrap();
        guard.watch(frames).is_ok()
    }

    #[test]
    fn floods_end_the_connection_and_work_does_not() {
        for (what, one, expected) in [
            ("pings", frame(frame_type::PING, 0, &[0; 8]), false),
            ("resets", frame(frame_type::RST_STREAM, 0, &[0; 4]), false),
            ("settings", frame(frame_type::SETTINGS, 0, &[]), false),
            ("priorities", frame(frame_type::PRIORITY, 0, &[0; 5]), false),
            ("continuations", frame(frame_type::CONTINUATION, 0, &[]), false),
            ("empty data", frame(frame_type::DATA, 0, &[]), false),
            ("frames of an unknown type", frame(0xfa, 0, &[]), false),
            ("the ends of uploads", frame(frame_type::DATA, END_STREAM, &[]), true),
            ("data", frame(frame_type::DATA, 0, b"abc"), true),
            ("requests", frame(0x1, 0x5, b"abc"), true),
            ("window updates", frame(0x8, 0, &[0; 4]), true),
        ] {
            assert_eq!(passes(&one.repeat(10_000)), expected, "10,000 {what}");
            assert!(passes(&one.repeat(500)), "500 {what}");
        }
    }

    #[test]
    fn the_allowance_comes_back_with_time() {
        let mut guard = FloodGuard::new();
        guard.allowance = 0;
        let later = |seconds| guard.refilled + std::time::Duration::from_secs(seconds);
        let (now, soon, late) = (later(0), later(1), later(3_600));
        assert!(guard.spend(now).is_err());
        assert!(guard.spend(soon).is_ok());
        assert_eq!(guard.allowance, PER_SECOND - 1);
        guard.allowance = 0;
        assert!(guard.spend(late).is_ok());
        assert_eq!(guard.allowance, BURST - 1, "no more than a burst is saved up");
    }

    proptest! {
        #[test]
        fn frames_are_found_however_bytes_arrive(payloads in prop::collection::vec(0usize..40, 0..40), cut in 1usize..30) {
            let mut whole = FloodGuard::new();
            let bytes: Vec<u8> = payloads.iter().flat_map(|&length| frame(frame_type::PING, 0, &vec![7; length])).collect();
            let bytes = [&[b'x'; PREFACE_BYTES][..], &bytes].concat();
            whole.watch(&bytes).unwrap();
            let mut pieces = FloodGuard::new();
            for piece in bytes.chunks(cut) {
                pieces.watch(piece).unwrap();
            }
            prop_assert_eq!(whole.allowance, BURST - payloads.len() as u32);
            prop_assert_eq!(pieces.allowance, whole.allowance);
        }
    }
}
