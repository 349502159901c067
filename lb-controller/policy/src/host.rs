//! One spelling for every host, so that `SHOP.example.:443` cannot slip past a rule for `shop.example`.

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

/// Why an authority names no host we would forward to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostError {
    Empty,
    /// `user@host`: a browser shows one and connects to the other.
    UserInfo,
    BadPort,
    BadIpv6,
    /// `0x7f.1`, `127.1`, `010.0.0.1`: an address to some resolvers, a name to others.
    BadIpv4,
    /// Letters, digits, `-` and `_` only; an international name arrives as `xn--…`.
    BadCharacter,
    /// A label of 0 or more than 63 characters, or more than 253 in all (RFC 1035 §2.3.4).
    BadLength,
}

/// The host of a `Host` header, `:authority` or SNI value: lower case, without port and trailing dot; an IPv6 literal
/// keeps its brackets and is written the one way of RFC 5952.
pub fn canonical_host(authority: &str) -> Result<String, HostError> {
    if authority.contains('@') {
        return Err(HostError::UserInfo);
    }
    if let Some(rest) = authority.strip_prefix('[') {
        let (literal, after) = rest.split_once(']').ok_or(HostError::BadIpv6)?;
        check_port(after)?;
        let address: Ipv6Addr = literal.parse().map_err(|_| HostError::BadIpv6)?;
        return Ok(format!("[{address}]"));
    }
    let (name, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
    check_port(port)?;
    let name = name.strip_suffix('.').unwrap_or(name);
    check_name(name)?;
    Ok(name.to_ascii_lowercase())
}

/// `after_host` is empty, or a colon and a port number.
fn check_port(after_host: &str) -> Result<(), HostError> {
    match after_host.strip_prefix(':') {
        None if after_host.is_empty() => Ok(()),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok() => Ok(()),
        _ => Err(HostError::BadPort),
    }
}

fn check_name(name: &str) -> Result<(), HostError> {
    if name.is_empty() {
        return Err(HostError::Empty);
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
        return Err(HostError::BadCharacter);
    }
    if name.len() > 253 || name.split('.').any(|label| label.is_empty() || label.len() > 63) {
        return Err(HostError::BadLength);
    }
    let last_label = name.rsplit('.').next().unwrap_or(name);
    let looks_like_a_number = last_label.bytes().all(|byte| byte.is_ascii_digit())
        || last_label.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("0x"));
    if looks_like_a_number && name.parse::<Ipv4Addr>().is_err() {
        return Err(HostError::BadIpv4);
    }
    Ok(())
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HostError::Empty => "no host",
            HostError::UserInfo => "user information before the host",
            HostError::BadPort => "the port is not a number from 0 to 65535",
            HostError::BadIpv6 => "not an IPv6 address in brackets",
            HostError::BadIpv4 => "looks like an IPv4 address but is none",
            HostError::BadCharacter => "a character that no host name has",
            HostError::BadLength => "an empty or overlong label, or more than 253 characters",
        })
    }
}

impl core::error::Error for HostError {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    #[test]
    fn every_spelling_of_a_host_is_one_host() {
        let rows: &[(&str, Result<&str, HostError>)] = &[
            ("shop.example", Ok("shop.example")),
            ("SHOP.Example", Ok("shop.example")),
            ("shop.example.", Ok("shop.example")),
            ("shop.example:443", Ok("shop.example")),
            ("shop.example.:8443", Ok("shop.example")),
            ("xn--bcher-kva.example", Ok("xn--bcher-kva.example")),
            ("198.51.100.10:443", Ok("198.51.100.10")),
            ("[2001:DB8:0:0::10]:443", Ok("[2001:db8::10]")),
            ("[::1]", Ok("[::1]")),
            ("", Err(HostError::Empty)),
            (".", Err(HostError::Empty)),
            (":443", Err(HostError::Empty)),
            ("shop.example..", Err(HostError::BadLength)),
            ("a..b", Err(HostError::BadLength)),
            ("evil@shop.example", Err(HostError::UserInfo)),
            ("shop.example:", Err(HostError::BadPort)),
            ("shop.example:65536", Err(HostError::BadPort)),
            ("shop.example:+443", Err(HostError::BadPort)),
            ("shop.example:443:443", Err(HostError::BadPort)),
            ("2001:db8::10", Err(HostError::BadPort)),
            ("[2001:db8::10", Err(HostError::BadIpv6)),
            ("[fe80::1%25eth0]", Err(HostError::BadIpv6)),
            ("[::1]x", Err(HostError::BadPort)),
            ("127.1", Err(HostError::BadIpv4)),
            ("0x7f.0.0.1", Err(HostError::BadIpv4)),
            ("127.0.0.0x1", Err(HostError::BadIpv4)),
            ("010.0.0.1", Err(HostError::BadIpv4)),
            ("bücher.example", Err(HostError::BadCharacter)),
            ("shop.example/admin", Err(HostError::BadCharacter)),
            ("shop example", Err(HostError::BadCharacter)),
        ];
        for (authority, expected) in rows {
            assert_eq!(canonical_host(authority), expected.map(|host| host.to_string()), "{authority:?}");
        }
    }

    proptest! {
        #[test]
        fn a_canonical_host_stays_as_it_is(authority in "\\PC{0,40}|[A-Za-z0-9.:\\[\\]-]{0,40}") {
            if let Ok(host) = canonical_host(&authority) {
                prop_assert_eq!(canonical_host(&host), Ok(host.clone()));
                prop_assert_eq!(host.to_ascii_lowercase(), host);
            }
        }
    }
}
