//! Reading captures that somebody brings: every length in them is a claim.

use super::{
    BYTE_ORDER, ENHANCED_PACKET, ETHERNET, INTERFACE_DESCRIPTION, MAGIC_MICROSECONDS, MAGIC_NANOSECONDS,
    SECTION_HEADER, SIMPLE_PACKET,
};

/// Why a file is no capture that can be read; nothing of it is used then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    #[error("this is neither pcap nor pcapng")]
    Unknown,
    #[error("the capture is cut short or inconsistent at byte {at}")]
    Damaged { at: usize },
    #[error("the capture has link type {found}; only Ethernet (1) can be read")]
    OtherLink { found: u16 },
    #[error("the capture has more than {most} packets; cut it with `editcap -r` or `tcpdump -c`")]
    TooMany { most: usize },
}

/// The frames of a capture in their order, as much of each as was captured. `most` bounds their number.
pub fn read_frames(capture: &[u8], most: usize) -> Result<Vec<&[u8]>, CaptureError> {
    let magic: [u8; 4] = capture.first_chunk().copied().ok_or(CaptureError::Unknown)?;
    let is_classic = |number: u32| [MAGIC_NANOSECONDS, MAGIC_MICROSECONDS].contains(&number);
    if is_classic(u32::from_le_bytes(magic)) {
        Bytes { all: capture, at: 0, little: true }.classic(most)
    } else if is_classic(u32::from_be_bytes(magic)) {
        Bytes { all: capture, at: 0, little: false }.classic(most)
    } else if u32::from_le_bytes(magic) == SECTION_HEADER {
        Bytes { all: capture, at: 0, little: true }.blocks(most)
    } else {
        Err(CaptureError::Unknown)
    }
}

/// A place in the file; it only goes forward.
struct Bytes<'a> {
    all: &'a [u8],
    at: usize,
    little: bool,
}

impl<'a> Bytes<'a> {
    fn classic(mut self, most: usize) -> Result<Vec<&'a [u8]>, CaptureError> {
        // Magic, version, zone, accuracy, largest frame.
        self.take(20)?;
        // The upper half may say how long frame check sequences are.
        ethernet(self.word()? as u16)?;
        let mut frames = Vec::new();
        while self.at < self.all.len() {
            // The time.
            self.take(8)?;
            let captured_bytes = self.word()? as usize;
            self.word()?;
            push(&mut frames, self.take(captured_bytes)?, most)?;
        }
        Ok(frames)
    }

    fn blocks(mut self, most: usize) -> Result<Vec<&'a [u8]>, CaptureError> {
        let mut frames = Vec::new();
        // Link types of the section's interfaces.
        let mut links: Vec<u16> = Vec::new();
        while self.at < self.all.len() {
            let start = self.at;
            let (kind, body) = self.block()?;
            let mut body = Bytes { all: body, at: 0, little: self.little };
            match kind {
                SECTION_HEADER => links.clear(),
                INTERFACE_DESCRIPTION => links.push(body.half()?),
                ENHANCED_PACKET => {
                    let interface = body.word()? as usize;
                    ethernet(*links.get(interface).ok_or(CaptureError::Damaged { at: start })?)?;
                    // The time.
                    body.take(8)?;
                    let captured_bytes = body.word()? as usize;
                    body.word()?;
                    push(&mut frames, body.take(captured_bytes)?, most)?;
                }
                SIMPLE_PACKET => {
                    ethernet(*links.first().ok_or(CaptureError::Damaged { at: start })?)?;
                    let frame_bytes = body.word()? as usize;
                    // Cut where the interface's largest frame ends, or padded.
                    push(&mut frames, body.take(frame_bytes.min(body.all.len() - body.at))?, most)?;
                }
                _ => {}
            }
        }
        Ok(frames)
    }

    /// The next block's type and body. A section says itself in which byte order it is.
    fn block(&mut self) -> Result<(u32, &'a [u8]), CaptureError> {
        const FRAME_BYTES: usize = 12;
        let start = self.at;
        let damaged = CaptureError::Damaged { at: start };
        let kind = self.word()?;
        // The same in both orders.
        if kind == SECTION_HEADER {
            let order: [u8; 4] =
                self.all.get(start + 8..).and_then(|rest| rest.first_chunk()).copied().ok_or(damaged.clone())?;
            self.little = match BYTE_ORDER {
                order_le if order == order_le.to_le_bytes() => true,
                order_be if order == order_be.to_be_bytes() => false,
                _ => return Err(damaged),
            };
        }
        let length = self.word()? as usize;
        if length < FRAME_BYTES || !length.is_multiple_of(4) {
            return Err(damaged);
        }
        let body = self.take(length - FRAME_BYTES)?;
        if self.word()? as usize != length {
            return Err(damaged);
        }
        Ok((kind, body))
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], CaptureError> {
        let end = self.at.checked_add(bytes);
        let taken = end.and_then(|end| self.all.get(self.at..end)).ok_or(CaptureError::Damaged { at: self.at })?;
        self.at += bytes;
        Ok(taken)
    }

    fn word(&mut self) -> Result<u32, CaptureError> {
        let at = self.at;
        let bytes: [u8; 4] = self.take(4)?.try_into().map_err(|_| CaptureError::Damaged { at })?;
        Ok(if self.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    fn half(&mut self) -> Result<u16, CaptureError> {
        let at = self.at;
        let bytes: [u8; 2] = self.take(2)?.try_into().map_err(|_| CaptureError::Damaged { at })?;
        Ok(if self.little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    }
}

fn ethernet(found: u16) -> Result<(), CaptureError> {
    if found == ETHERNET { Ok(()) } else { Err(CaptureError::OtherLink { found }) }
}

fn push<'a>(frames: &mut Vec<&'a [u8]>, frame: &'a [u8], most: usize) -> Result<(), CaptureError> {
    if frames.len() == most {
        return Err(CaptureError::TooMany { most });
    }
    frames.push(frame);
    Ok(())
}
