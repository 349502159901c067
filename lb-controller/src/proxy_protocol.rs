//! The PROXY protocol (HAProxy's `proxy-protocol.txt`, versions 1 and 2): what stands before the bytes of a connection and
//! says whose they are. Read from tiers that the configuration trusts, written to backends that want it.

mod crc32c;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::net::SocketAddr;

pub use read::{MOST_BYTES, Malformed, read};
pub use write::{of_client, of_nobody};

/// What both versions begin with that have one.
const SIGNATURE_V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const SIGNATURE_V1: &[u8; 6] = b"PROXY ";

/// Whose connection it is, as its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    Client(Ends),
    /// The sender's own, such as a health check of it (`LOCAL`), or one of which it does not know more (`UNKNOWN`).
    Nobody,
}

/// The ends of a connection that somebody passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub source: SocketAddr,
    /// Where the client connected to.
    pub destination: SocketAddr,
}

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing {
    use super::{Carried, MOST_BYTES, of_client, read};
    use crate::config::ProxyVersion;

    /// Panics unless what is read of `bytes` hangs on no cut of them, is bounded, and is read again as it was out of what we
    /// write of it.
    pub fn no_cut_of_a_proxy_header_changes_it(bytes: &[u8]) {
        let whole = read(bytes);
        for end in 0..bytes.len() {
            match (read(&bytes[..end]), whole) {
                (Ok(None), _) => {}
                (Ok(Some(found)), whole) => assert_eq!(Ok(Some(found)), whole, "found within {end} bytes"),
                (Err(_), whole) => assert!(whole.is_err(), "refused within {end} bytes, and taken in the end"),
            }
        }
        assert!(whole != Ok(None) || bytes.len() < MOST_BYTES, "waits for more than may come");
        let Ok(Some((Carried::Client(ends), length))) = whole else { return };
        assert!(length <= bytes.len().min(MOST_BYTES));
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let ours = of_client(version, ends);
            assert_eq!(read(&ours), Ok(Some((Carried::Client(ends), ours.len()))), "{}", ours.escape_ascii());
        }
    }
}
