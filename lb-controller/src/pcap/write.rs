//! Writing captures.

use std::io::{self, Write};

use super::{BYTE_ORDER, ENHANCED_PACKET, ETHERNET, INTERFACE_DESCRIPTION, MAGIC_NANOSECONDS, SECTION_HEADER};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Knows neither interfaces nor comments.
    Pcap,
    PcapNg,
}

/// A frame, or the beginning of one.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    pub at_unix_ns: u64,
    pub interface: &'a str,
    /// Of the whole frame.
    pub frame_bytes: u32,
    pub captured: &'a [u8],
    pub comment: &'a str,
}

/// Writes a capture packet by packet: what is written can be read even if the program ends there.
#[derive(Debug)]
pub struct CaptureWriter<W> {
    out: W,
    format: Format,
    /// By the number that packets name them with.
    interfaces: Vec<String>,
}

const LARGEST_FRAME_BYTES: u32 = 0x4_0000;

impl<W: Write> CaptureWriter<W> {
    pub fn start(mut out: W, format: Format) -> io::Result<CaptureWriter<W>> {
        match format {
            Format::Pcap => {
                // Version 2.4, no time zone, no accuracy.
                out.write_all(&MAGIC_NANOSECONDS.to_le_bytes())?;
                out.write_all(&[2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0])?;
                out.write_all(&LARGEST_FRAME_BYTES.to_le_bytes())?;
                out.write_all(&u32::from(ETHERNET).to_le_bytes())?;
            }
            Format::PcapNg => {
                let mut body = BYTE_ORDER.to_le_bytes().to_vec();
                // Version 1.0, of unknown length.
                body.extend([1, 0, 0, 0]);
                body.extend(u64::MAX.to_le_bytes());
                option(&mut body, 4, env!("CARGO_PKG_NAME").as_bytes());
                end_of_options(&mut body);
                block(&mut out, SECTION_HEADER, &body)?;
            }
        }
        out.flush()?;
        Ok(CaptureWriter { out, format, interfaces: Vec::new() })
    }

    pub fn write(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        match self.format {
            Format::Pcap => self.write_record(packet)?,
            Format::PcapNg => self.write_block(packet)?,
        }
        self.out.flush()
    }

    fn write_record(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        const NANOSECONDS: u64 = 1_000_000_000;
        let seconds = (packet.at_unix_ns / NANOSECONDS) as u32;
        let words =
            [seconds, (packet.at_unix_ns % NANOSECONDS) as u32, packet.captured.len() as u32, whole_bytes(packet)];
        let mut record: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        record.extend(packet.captured);
        self.out.write_all(&record)
    }

    fn write_block(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let interface = self.interface(packet.interface)?;
        let words = [
            interface,
            (packet.at_unix_ns >> 32) as u32,
            packet.at_unix_ns as u32,
            packet.captured.len() as u32,
            whole_bytes(packet),
        ];
        let mut body: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        padded(&mut body, packet.captured);
        option(&mut body, COMMENT, packet.comment.as_bytes());
        end_of_options(&mut body);
        block(&mut self.out, ENHANCED_PACKET, &body)
    }

    /// The number of the interface, which is described before its first packet.
    fn interface(&mut self, name: &str) -> io::Result<u32> {
        if let Some(number) = self.interfaces.iter().position(|known| known == name) {
            return Ok(number as u32);
        }
        let mut body = ETHERNET.to_le_bytes().to_vec();
        body.extend([0, 0]);
        body.extend(LARGEST_FRAME_BYTES.to_le_bytes());
        option(&mut body, INTERFACE_NAME, name.as_bytes());
        option(&mut body, TIME_RESOLUTION, &[NANOSECOND_DIGITS]);
        end_of_options(&mut body);
        block(&mut self.out, INTERFACE_DESCRIPTION, &body)?;
        self.interfaces.push(name.to_owned());
        Ok(self.interfaces.len() as u32 - 1)
    }
}

const COMMENT: u16 = 1;
const INTERFACE_NAME: u16 = 2;
const TIME_RESOLUTION: u16 = 9;
const NANOSECOND_DIGITS: u8 = 9;

/// Readers refuse a frame that is shorter than what was captured of it.
fn whole_bytes(packet: &Packet<'_>) -> u32 {
    packet.frame_bytes.max(packet.captured.len() as u32)
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(u16::MAX.into())];
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    padded(body, value);
}

fn end_of_options(body: &mut Vec<u8>) {
    body.extend([0; 4]);
}

fn padded(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend(bytes);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn block(out: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    const FRAME_BYTES: usize = 12;
    let length = ((body.len() + FRAME_BYTES) as u32).to_le_bytes();
    out.write_all(&[&kind.to_le_bytes(), &length, body, &length].concat())
}
