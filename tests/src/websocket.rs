//! Just enough of RFC 6455 to send a message through the edge and see it come back.

use anyhow::{Result, bail, ensure};
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Messages are short here; a longer length is taken for a broken stream.
const MAX_PAYLOAD_BYTES: u64 = 64 * 1024;

pub const TEXT: u8 = 0x1;
pub const CLOSE: u8 = 0x8;

/// One unfragmented frame, its payload unmasked.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

/// The `Sec-WebSocket-Accept` that answers `key` (RFC 6455 section 4.2.2).
pub fn accept_value(key: &str) -> String {
    const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
    STANDARD.encode(digest)
}

/// Reads one frame; `None` at the end of the stream.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Frame>> {
    let Ok(first) = stream.read_u8().await else { return Ok(None) };
    ensure!(first & 0x80 != 0, "a fragmented WebSocket message, which the tests never send");
    let second = stream.read_u8().await?;
    let length = match second & 0x7f {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        short => u64::from(short),
    };
    if length > MAX_PAYLOAD_BYTES {
        bail!("a WebSocket frame of {length} bytes");
    }
    let mut mask = [0; 4];
    if second & 0x80 != 0 {
        stream.read_exact(&mut mask).await?;
    }
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await?;
    apply_mask(&mut payload, mask);
    Ok(Some(Frame { opcode: first & 0x0f, payload }))
}

/// Writes one frame. Clients must mask (section 5.3), servers must not.
pub async fn write(stream: &mut (impl AsyncWrite + Unpin), frame: &Frame, mask: Option<[u8; 4]>) -> Result<()> {
    let mask_bit = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![0x80 | frame.opcode];
    match u16::try_from(frame.payload.len())? {
        length @ 0..=125 => bytes.push(mask_bit | length as u8),
        length => {
            bytes.push(mask_bit | 126);
            bytes.extend(length.to_be_bytes());
        }
    }
    let mut payload = frame.payload.clone();
    if let Some(mask) = mask {
        bytes.extend(mask);
        apply_mask(&mut payload, mask);
    }
    bytes.extend(payload);
    stream.write_all(&bytes).await?;
    Ok(stream.flush().await?)
}

fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    for (index, byte) in payload.iter_mut().enumerate() {
        *byte ^= mask[index % 4];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_key_of_rfc_6455_gets_the_example_answer() {
        assert_eq!(accept_value("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test]
    async fn frames_of_every_length_form_survive_masked_and_unmasked() {
        for (length, mask) in [(0, None), (125, Some([1, 2, 3, 4])), (126, None), (5000, Some([9, 8, 7, 6]))] {
            let sent = Frame { opcode: TEXT, payload: vec![b'x'; length] };
            let (mut near, mut far) = tokio::io::duplex(16 * 1024);
            write(&mut near, &sent, mask).await.unwrap();
            drop(near);
            assert_eq!(read(&mut far).await.unwrap().as_ref(), Some(&sent), "length {length}");
            assert_eq!(read(&mut far).await.unwrap(), None, "the stream ends after length {length}");
        }
    }
}
