//! Counts the frames that cost us work and carry nothing: resets, pings, settings, priorities, empty data, unknown
//! types, and windows that are opened for nothing that was sent. Floods of them (CVE-2019-9511, -9512, -9515, -9518,
//! CVE-2023-44487, CVE-2024-27316) end the connection.

use std::time::Instant;

/// `PRI * HTTP/2.0…` (RFC 9113 §3.4).
const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;

/// Frames that may come at once: a browser that leaves a page resets some hundred streams.
const BURST: u32 = 1_000;

/// Frames each second beyond that; clients that ping for latency or keep-alive send a few.
const PER_SECOND: u32 = 100;

/// What was sent earns updates of windows: one for as many bytes. Clients that open the window for each small message send
/// about as many; one that opens it byte by byte, to be sent a frame for each, earns next to nothing.
const SENT_BYTES_AN_UPDATE: u64 = 64;

/// More is not saved up.
const MOST_EARNED_BYTES: u64 = 10 * SENT_BYTES_AN_UPDATE * BURST as u64;

/// Padding is at most as long (RFC 9113 §6.1), with the byte that says how long it is: such data may be nothing else.
const MOST_PADDING_BYTES: usize = 256;

mod frame_type {
    pub(super) const DATA: u8 = 0x0;
    pub(super) const HEADERS: u8 = 0x1;
    pub(super) const PRIORITY: u8 = 0x2;
    pub(super) const RST_STREAM: u8 = 0x3;
    pub(super) const SETTINGS: u8 = 0x4;
    pub(super) const PING: u8 = 0x6;
    pub(super) const WINDOW_UPDATE: u8 = 0x8;
    pub(super) const CONTINUATION: u8 = 0x9;
    /// Beyond this, types are unknown and frames of them ignored (RFC 9113 §5.5).
    pub(super) const LAST_KNOWN: u8 = CONTINUATION;
}

/// Flags of DATA (RFC 9113 §6.1).
const END_STREAM: u8 = 0x1;
const PADDED: u8 = 0x8;

/// More frames than there is a reason for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flood;

/// Reads along, from the first byte of the connection.
#[derive(Debug)]
pub(super) struct FloodGuard {
    /// Bytes that belong to the preface or a frame's payload.
    skip: usize,
    header: [u8; HEADER_BYTES],
    header_read: usize,
    costly: Allowance,
    windows: Allowance,
    /// Of what was sent, not used up by updates of windows.
    earned_bytes: u64,
    /// The latest stream that the client opened.
    last_stream: u32,
}

/// Frames that may still come.
#[derive(Debug)]
struct Allowance {
    left: u32,
    refilled: Instant,
}

impl FloodGuard {
    pub(super) fn new() -> FloodGuard {
        FloodGuard {
            skip: PREFACE_BYTES,
            header: [0; HEADER_BYTES],
            header_read: 0,
            costly: Allowance::whole(),
            windows: Allowance::whole(),
            earned_bytes: 0,
            last_stream: 0,
        }
    }

    /// So much was sent.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.earned_bytes = (self.earned_bytes + bytes as u64).min(MOST_EARNED_BYTES);
    }

    /// The latest stream that the client opened.
    pub(super) fn last_stream(&self) -> u32 {
        self.last_stream
    }

    /// Follows `bytes`. An error is to end the connection.
    pub(super) fn watch(&mut self, mut bytes: &[u8]) -> Result<(), Flood> {
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

    fn frame(&mut self) -> Result<(), Flood> {
        let [high, middle, low, kind, flags, stream @ ..] = self.header;
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        self.skip = length;
        let is_costly = match kind {
            frame_type::DATA => {
                let may_be_padding = flags & PADDED != 0 && length <= MOST_PADDING_BYTES;
                (length == 0 || may_be_padding) && flags & END_STREAM == 0
            }
            frame_type::HEADERS => {
                self.last_stream = self.last_stream.max(u32::from_be_bytes(stream) & (u32::MAX >> 1));
                false
            }
            frame_type::WINDOW_UPDATE => return self.update(Instant::now()),
            frame_type::PRIORITY
            | frame_type::RST_STREAM
            | frame_type::SETTINGS
            | frame_type::PING
            | frame_type::CONTINUATION => true,
            kind => kind > frame_type::LAST_KNOWN,
        };
        if is_costly { self.costly.spend(Instant::now()) } else { Ok(()) }
    }

    fn update(&mut self, now: Instant) -> Result<(), Flood> {
        match self.earned_bytes.checked_sub(SENT_BYTES_AN_UPDATE) {
            Some(left) => {
                self.earned_bytes = left;
                Ok(())
            }
            None => self.windows.spend(now),
        }
    }
}

impl Allowance {
    fn whole() -> Allowance {
        Allowance { left: BURST, refilled: Instant::now() }
    }

    fn spend(&mut self, now: Instant) -> Result<(), Flood> {
        if self.left == 0 {
            let earned = now.duration_since(self.refilled).as_millis() * u128::from(PER_SECOND) / 1_000;
            if earned == 0 {
                return Err(Flood);
            }
            self.left = u32::try_from(earned).unwrap_or(BURST).min(BURST);
            self.refilled = now;
        }
        self.left -= 1;
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
            ("requests", frame(frame_type::HEADERS, 0x5, b"abc"), true),
            ("window updates", frame(frame_type::WINDOW_UPDATE, 0, &[0; 4]), false),
            ("padding", frame(frame_type::DATA, PADDED, &[3, 0, 0, 0]), false),
            ("data with padding", frame(frame_type::DATA, PADDED, &[0; MOST_PADDING_BYTES + 1]), true),
        ] {
            assert_eq!(passes(&one.repeat(10_000)), expected, "10,000 {what}");
            assert!(passes(&one.repeat(500)), "500 {what}");
        }
    }

    #[test]
    fn the_allowance_comes_back_with_time() {
        let mut allowance = Allowance { left: 0, ..Allowance::whole() };
        let later = |seconds| allowance.refilled + std::time::Duration::from_secs(seconds);
        let (now, soon, late) = (later(0), later(1), later(3_600));
        assert!(allowance.spend(now).is_err());
        assert!(allowance.spend(soon).is_ok());
        assert_eq!(allowance.left, PER_SECOND - 1);
        allowance.left = 0;
        assert!(allowance.spend(late).is_ok());
        assert_eq!(allowance.left, BURST - 1, "no more than a burst is saved up");
    }

    #[test]
    fn windows_may_be_opened_for_what_was_sent() {
        let update = frame(frame_type::WINDOW_UPDATE, 0, &[0, 0, 0, 1]);
        for (what, sent_bytes, expected) in [
            ("a frame of a KiB for each", 1_024, true),
            ("a small message for each", 64, true),
            ("a byte for each", 10, false),
        ] {
            let mut guard = FloodGuard::new();
            guard.watch(&[b'x'; PREFACE_BYTES]).unwrap();
            let passed = (0..100_000).all(|_| {
                guard.sent(sent_bytes);
                guard.watch(&update).is_ok()
            });
            assert_eq!(passed, expected, "{what}");
        }
    }

    #[test]
    fn the_latest_stream_is_known() {
        let mut guard = FloodGuard::new();
        guard.watch(&[b'x'; PREFACE_BYTES]).unwrap();
        for stream in [1_u8, 7, 3] {
            guard.watch(&[0, 0, 0, frame_type::HEADERS, 5, 0x80, 0, 0, stream]).unwrap();
        }
        assert_eq!(guard.last_stream(), 7);
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
            prop_assert_eq!(whole.costly.left, BURST - payloads.len() as u32);
            prop_assert_eq!(pieces.costly.left, whole.costly.left);
        }
    }
}
