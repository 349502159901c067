//! A header out of the first bytes of a connection. Strict, since whoever writes it is a program of our own side: what is
//! not exactly as the standard has it is a mistake of the set-up, and to guess would be to judge the wrong client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Carried, Ends, SIGNATURE_V1, SIGNATURE_V2, crc32c};

/// Of the whole header. Version 2 allows 65,551; senders that add all that there is to say of a TLS session and its names stay
/// within a quarter of this.
pub const MOST_BYTES: usize = 4 * 1024;

/// The longest line of version 1, with its end.
const MOST_LINE_BYTES: usize = 107;

/// Signature, version and command, family, and length.
const FIXED_BYTES: usize = 16;

const CHECKSUM_TYPE: u8 = 0x03;

/// Why a header cannot be read; for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(&'static str);

type Read<T> = Result<T, Malformed>;

/// The header that `bytes` begin with, and how long it is; `None`: it is not whole yet. What is refused would be refused
/// whatever follows.
pub fn read(bytes: &[u8]) -> Read<Option<(Carried, usize)>> {
    let is_begun = |signature: &[u8]| bytes.iter().zip(signature).all(|(byte, expected)| byte == expected);
    if is_begun(SIGNATURE_V1) {
        version_1(bytes)
    } else if is_begun(SIGNATURE_V2) {
        version_2(bytes)
    } else {
        Err(Malformed("there is no PROXY header"))
    }
}

fn version_1(bytes: &[u8]) -> Read<Option<(Carried, usize)>> {
    let within = &bytes[..bytes.len().min(MOST_LINE_BYTES)];
    let Some(end) = within.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return if within.len() < MOST_LINE_BYTES { Ok(None) } else { Err(Malformed("the PROXY line does not end")) };
    };
    match within[end..] {
        [b'\r', b'\n', ..] => {}
        [b'\r'] if within.len() < MOST_LINE_BYTES => return Ok(None),
        _ => return Err(Malformed("the PROXY line does not end in CR LF")),
    }
    let line = std::str::from_utf8(&within[..end]).map_err(|_| Malformed("the PROXY line is no ASCII"))?;
    Ok(Some((of_line(line)?, end + 2)))
}

fn of_line(line: &str) -> Read<Carried> {
    let mut words = line.split(' ').skip(1);
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        // Whatever it knows all the same is to be ignored.
        return Ok(Carried::Nobody);
    }
    let fields: Vec<&str> = words.collect();
    let [source, destination, source_port, destination_port] = fields[..] else {
        return Err(Malformed("the PROXY line has not two addresses and two ports"));
    };
    let address = |text: &str| match family {
        "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| Malformed("no IPv4 address in a TCP4 line")),
        "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| Malformed("no IPv6 address in a TCP6 line")),
        _ => Err(Malformed("neither TCP4, TCP6 nor UNKNOWN")),
    };
    let source = (address(source)?, port(source_port)?);
    client(source, (address(destination)?, port(destination_port)?))
}

fn port(text: &str) -> Read<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain).ok_or(Malformed("no port in the PROXY line"))
}

fn version_2(bytes: &[u8]) -> Read<Option<(Carried, usize)>> {
    // Each byte is judged as soon as it is there.
    let is_local = match bytes.get(12) {
        None => return Ok(None),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(_) => return Err(Malformed("neither LOCAL nor PROXY of version 2")),
    };
    let Some(&family) = bytes.get(13) else { return Ok(None) };
    let address_bytes = match family {
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        0x12 | 0x22 | 0x32 => return Err(Malformed("a client over datagrams, on a connection")),
        _ => return Err(Malformed("a family of addresses that version 2 does not have")),
    };
    let Some(&[high, low]) = bytes.get(14..FIXED_BYTES) else { return Ok(None) };
    let end = FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if end > MOST_BYTES {
        return Err(Malformed("the PROXY header is too long"));
    }
    if !is_local && end < FIXED_BYTES + address_bytes {
        return Err(Malformed("the PROXY header is shorter than its addresses"));
    }
    let Some(whole) = bytes.get(..end) else { return Ok(None) };
    if is_local {
        // What follows is to be passed over.
        return Ok(Some((Carried::Nobody, end)));
    }
    let (addresses, extensions) = whole[FIXED_BYTES..].split_at(address_bytes);
    check_extensions(whole, extensions)?;
    Ok(Some((of_addresses(addresses)?, end)))
}

/// Two addresses and two ports; what is no IP says nothing of a client.
fn of_addresses(bytes: &[u8]) -> Read<Carried> {
    let (addresses, ports) = bytes.split_at(bytes.len().saturating_sub(4));
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    let pair = match *addresses {
        [a, b, c, d, e, f, g, h] => Some((IpAddr::from([a, b, c, d]), IpAddr::from([e, f, g, h]))),
        _ => <&[u8; 32]>::try_from(addresses).ok().map(|both| {
            let half = |from: usize| std::array::from_fn::<u8, 16, _>(|index| both[from + index]);
            (IpAddr::from(half(0)), IpAddr::from(half(16)))
        }),
    };
    match pair {
        Some((source, destination)) => client((source, port(0)), (destination, port(2))),
        None => Ok(Carried::Nobody),
    }
}

/// Nobody connects from an address that stands for none or for many.
fn client(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Read<Carried> {
    let socket = |(address, port): (IpAddr, u16)| SocketAddr::new(address.to_canonical(), port);
    let ends = Ends { source: socket(source), destination: socket(destination) };
    let address = ends.source.ip();
    if address.is_unspecified() || address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(Malformed("the PROXY header names a source that is no client's"));
    }
    Ok(Carried::Client(ends))
}

/// Type, length and value, one after the other up to the end. All are passed over but the checksum, which must be right.
fn check_extensions(whole: &[u8], extensions: &[u8]) -> Read<()> {
    const BROKEN: Malformed = Malformed("an extension is cut off by the end of the PROXY header");
    let mut rest = extensions;
    let mut has_checksum = false;
    while !rest.is_empty() {
        let ([kind, high, low], after) = rest.split_first_chunk().ok_or(BROKEN)?;
        let (value, after) = after.split_at_checked(usize::from(u16::from_be_bytes([*high, *low]))).ok_or(BROKEN)?;
        if *kind == CHECKSUM_TYPE {
            let given =
                value.try_into().map(u32::from_be_bytes).map_err(|_| Malformed("a checksum of another size"))?;
            if std::mem::replace(&mut has_checksum, true) {
                return Err(Malformed("two checksums"));
            }
            let value_end = whole.len() - after.len();
            // Reckoned as if it were zero.
            if crc32c::of([&whole[..value_end - 4], &[0; 4], &whole[value_end..]]) != given {
                return Err(Malformed("the checksum of the PROXY header is wrong"));
            }
        }
        rest = after;
    }
    Ok(())
}
