//! What a TLS handshake says of the client's software: the same for all connections of one build, whatever its headers
//! claim. rustls does not show the order of extensions, nor those it does not know, so this is a part of JA4, and not JA4.

use std::fmt::{self, Write};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::server::ClientHello;

/// `8daaf6152771_2f0c41e7ad0b`: JA4_b, the hash of the cipher suites in order of their numbers, and a hash of the signature
/// schemes and named groups in the client's order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TlsClass([u8; LENGTH]);

const HASH_DIGITS: usize = 12;
const LENGTH: usize = 2 * HASH_DIGITS + 1;

impl TlsClass {
    pub(crate) fn of(hello: &ClientHello<'_>) -> TlsClass {
        let ciphers = hello.cipher_suites().iter().map(|suite| u16::from(*suite));
        let schemes = hello.signature_schemes().iter().map(|scheme| u16::from(*scheme));
        let groups = hello.named_groups().unwrap_or_default().iter().map(|group| u16::from(*group));
        TlsClass::of_numbers(ciphers, schemes, groups)
    }

    fn of_numbers(
        ciphers: impl Iterator<Item = u16>,
        schemes: impl Iterator<Item = u16>,
        groups: impl Iterator<Item = u16>,
    ) -> TlsClass {
        let mut ciphers: Vec<u16> = ciphers.collect();
        ciphers.sort_unstable();
        let parameters = format!("{}_{}", joined(schemes), joined(groups));
        let text = format!("{}_{}", hash(&joined(ciphers.into_iter())), hash(&parameters));
        TlsClass(text.as_bytes().try_into().expect("two hashes of twelve digits and a line between"))
    }

    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("hexadecimal digits and a line")
    }
}

impl fmt::Debug for TlsClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Four digits each. Numbers made up anew for each connection (GREASE, RFC 8701) say nothing of the client.
fn joined(numbers: impl Iterator<Item = u16>) -> String {
    let mut text = String::new();
    for number in numbers.filter(|number| !is_grease(*number)) {
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(text, "{comma}{number:04x}");
    }
    text
}

fn is_grease(number: u16) -> bool {
    number & 0x0f0f == 0x0a0a && number >> 8 == number & 0xff
}

fn hash(text: &str) -> String {
    let mut digits = String::with_capacity(HASH_DIGITS);
    for byte in &digest(&SHA256, text.as_bytes()).as_ref()[..HASH_DIGITS / 2] {
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHROME: [u16; 16] = [
        0x8a8a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d,
        0x002f, 0x0035,
    ];

    fn class(ciphers: &[u16], schemes: &[u16], groups: &[u16]) -> String {
        let class = TlsClass::of_numbers(ciphers.iter().copied(), schemes.iter().copied(), groups.iter().copied());
        class.as_str().to_owned()
    }

    #[test]
    fn the_first_half_is_that_of_ja4() {
        // As its authors publish it for Chrome: t13d1516h2_8daaf6152771_e5627efa2ab1.
        assert!(class(&CHROME, &[], &[]).starts_with("8daaf6152771_"));
    }

    #[test]
    fn what_is_made_up_anew_changes_nothing_and_all_else_does() {
        let usual = class(&CHROME, &[0x0403, 0x0804], &[0x11ec, 0x001d]);
        let mut other_grease = CHROME;
        other_grease[0] = 0x1a1a;
        assert_eq!(class(&other_grease, &[0x0403, 0x0804], &[0xdada, 0x11ec, 0x001d]), usual);
        let mut shuffled = CHROME;
        shuffled.reverse();
        assert_eq!(class(&shuffled, &[0x0403, 0x0804], &[0x11ec, 0x001d]), usual);
        assert_ne!(class(&CHROME[..15], &[0x0403, 0x0804], &[0x11ec, 0x001d]), usual);
        assert_ne!(class(&CHROME, &[0x0804, 0x0403], &[0x11ec, 0x001d]), usual);
        assert_ne!(class(&CHROME, &[0x0403, 0x0804], &[0x001d]), usual);
        assert_eq!(class(&[], &[], &[]).len(), LENGTH);
    }
}
