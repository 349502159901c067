//! Numbers and addresses as text, into bytes that are there already. `fmt` takes ten times as long, and several of these are
//! written for every request.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Decimal digits.
pub(crate) fn push_number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return out.extend_from_slice(&digits[at..]);
        }
    }
}

/// Hexadecimal digits, at least `width` of them.
pub(crate) fn push_hexadecimal(out: &mut Vec<u8>, number: u64, width: u32) {
    let significant = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..significant.max(width)).rev() {
        let value = number.checked_shr(4 * digit).unwrap_or(0) & 0xf;
        out.push(b"0123456789abcdef"[value as usize]);
    }
}

/// An address as RFC 5952 and everybody writes it.
pub(crate) fn push_ip(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => push_ipv4(out, address),
        IpAddr::V6(address) => out.extend_from_slice(address.to_string().as_bytes()),
    }
}

/// An address and its port, IPv6 in brackets.
pub(crate) fn push_socket(out: &mut Vec<u8>, address: SocketAddr) {
    match address {
        SocketAddr::V4(address) => {
            push_ipv4(out, *address.ip());
            out.push(b':');
            push_number(out, address.port().into());
        }
        SocketAddr::V6(address) => out.extend_from_slice(address.to_string().as_bytes()),
    }
}

fn push_ipv4(out: &mut Vec<u8>, address: Ipv4Addr) {
    let [first, rest @ ..] = address.octets();
    push_number(out, first.into());
    for octet in rest {
        out.push(b'.');
        push_number(out, octet.into());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(push: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        push(&mut out);
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn all_is_written_as_the_standard_library_does(number: u64, shift in 0_u32..64, address: IpAddr, socket: SocketAddr) {
            let number = number >> shift;
            prop_assert_eq!(text(|out| push_number(out, number)), number.to_string());
            prop_assert_eq!(text(|out| push_hexadecimal(out, number, 1)), format!("{number:x}"));
            prop_assert_eq!(text(|out| push_hexadecimal(out, number, 16)), format!("{number:016x}"));
            prop_assert_eq!(text(|out| push_ip(out, address)), address.to_string());
            prop_assert_eq!(text(|out| push_socket(out, socket)), socket.to_string());
        }
    }
}
