//! The options of a SYN (RFC 9293 §3.1, RFC 7323, RFC 2018), one a step: the kernel's program runs the steps in a
//! helper's loop, because the verifier would follow every path through forty of them otherwise.

/// What the SYN says of its sender. The last of several equal options counts, as in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynOptions {
    /// 0 if it says nothing.
    pub max_segment_bytes: u16,
    pub window_scale: Option<u8>,
    pub selective_acknowledgements: bool,
    /// Its own clock, for us to repeat.
    pub timestamp: Option<u32>,
}

/// The options' bytes and how far they are read.
///
/// In small numbers and bits: what the kernel's verifier knows of larger ones it would follow from step to step, and find
/// each walk another.
#[derive(Clone, Copy, Debug)]
pub struct OptionWalk {
    /// In words, because the compiler would join bytes that stand together into one load where they happen to stand, and
    /// the verifier wants loads from the stack aligned. A power of two of them, so that a mask keeps every index inside.
    words_le: [u64; OPTION_BUFFER_BYTES / 8],
    timestamp: u32,
    max_segment_bytes: u16,
    window_scale: u8,
    /// A bit for each kind of option.
    seen: u8,
    /// Where the number of `max_segment_bytes` stands, if there is one.
    max_segment_at: u8,
    position: u8,
    end: u8,
}

/// Room for the options, which are 40 bytes at most.
pub const OPTION_BUFFER_BYTES: usize = 64;
/// Of a header without options.
pub const TCP_BYTES: usize = 20;

/// Steps after which every walk is at its end: options of one byte each.
pub const MOST_STEPS: u32 = 40;

const END: u8 = 0;
const NOTHING: u8 = 1;
const MAX_SEGMENT: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SELECTIVE_ACKNOWLEDGEMENTS: u8 = 4;
const TIMESTAMPS: u8 = 8;

const SEEN_WINDOW_SCALE: u8 = 1;
const SEEN_SELECTIVE_ACKNOWLEDGEMENTS: u8 = 2;
const SEEN_TIMESTAMPS: u8 = 4;

/// RFC 7323 §2.3.
const LARGEST_WINDOW_SCALE: u8 = 14;

impl OptionWalk {
    /// `words_le` are the options of a header of so many bytes.
    #[inline(always)]
    pub fn new(words_le: [u64; OPTION_BUFFER_BYTES / 8], header_bytes: usize) -> Self {
        Self {
            words_le,
            timestamp: 0,
            max_segment_bytes: 0,
            window_scale: 0,
            seen: 0,
            max_segment_at: 0,
            position: 0,
            end: (header_bytes - TCP_BYTES) as u8,
        }
    }

    /// Nothing to walk over.
    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// `false` once there is nothing more to read.
    #[inline(always)]
    pub fn step(&mut self) -> bool {
        if self.position >= self.end {
            return false;
        }
        match self.byte(0) {
            END => return false,
            NOTHING => {
                self.position += 1;
                return true;
            }
            _ => {}
        }
        let length = self.byte(1);
        // What follows a length that cannot be is anybody's guess.
        if length < 2 || length > self.end - self.position {
            return false;
        }
        match (self.byte(0), length) {
            (MAX_SEGMENT, 4) => {
                self.max_segment_bytes = u16::from_be_bytes([self.byte(2), self.byte(3)]);
                self.max_segment_at = self.position + 2;
            }
            (WINDOW_SCALE, 3) => {
                self.window_scale = self.byte(2);
                self.seen |= SEEN_WINDOW_SCALE;
            }
            (SELECTIVE_ACKNOWLEDGEMENTS, 2) => self.seen |= SEEN_SELECTIVE_ACKNOWLEDGEMENTS,
            (TIMESTAMPS, 10) => {
                let clock = [self.byte(2), self.byte(3), self.byte(4), self.byte(5)];
                self.timestamp = u32::from_be_bytes(clock);
                self.seen |= SEEN_TIMESTAMPS;
            }
            _ => {}
        }
        self.position += length;
        true
    }

    #[inline(always)]
    pub fn found(&self) -> SynOptions {
        let has_seen = |bit| self.seen & bit != 0;
        SynOptions {
            max_segment_bytes: self.max_segment_bytes,
            window_scale: has_seen(SEEN_WINDOW_SCALE).then_some(self.window_scale.min(LARGEST_WINDOW_SCALE)),
            selective_acknowledgements: has_seen(SEEN_SELECTIVE_ACKNOWLEDGEMENTS),
            timestamp: has_seen(SEEN_TIMESTAMPS).then_some(self.timestamp),
        }
    }

    /// The largest segment that the SYN announces, and where in its options; 0 if it announces none.
    #[inline(always)]
    pub const fn max_segment(&self) -> (u16, usize) {
        // The mask tells the verifier what the walk knows.
        (self.max_segment_bytes, self.max_segment_at as usize & (OPTION_BUFFER_BYTES - 1))
    }

    #[inline(always)]
    fn byte(&self, ahead: usize) -> u8 {
        let index = (self.position as usize + ahead) & (OPTION_BUFFER_BYTES - 1);
        (u64::from_le(self.words_le[index / 8]) >> (index % 8 * 8)) as u8
    }
}
