//! The checksum that a header of version 2 may carry (CRC-32C, RFC 9260 appendix A). Few headers do, and they are short.

/// Reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// Of pieces that follow each other.
pub(super) fn of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let bytes = pieces.into_iter().flatten();
    !bytes.fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_the_one_that_the_standards_have_examples_of() {
        assert_eq!(super::of([&b"123456789"[..]]), 0xe306_9283);
        assert_eq!(super::of([&[0; 16][..], &[0; 16]]), 0x8a91_36aa, "RFC 3720 B.4: 32 bytes of zeroes");
        assert_eq!(super::of([&[0xff; 32][..]]), 0x62a8_ab43, "of ones");
    }
}
