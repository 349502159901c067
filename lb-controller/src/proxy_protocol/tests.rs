use proptest::prelude::*;

use super::fuzzing::no_cut_of_a_proxy_header_changes_it;
use super::*;
use crate::config::ProxyVersion;

fn ends(source: &str, destination: &str) -> Ends {
    Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

/// Version 2, of `command` and `family`, with what follows.
fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&SIGNATURE_V2[..], &[command, family], &length, rest].concat()
}

const ADDRESSES: &[u8] = &[192, 0, 2, 7, 198, 51, 100, 10, 0x13, 0x88, 0x01, 0xbb];

fn extension(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

/// A header with `before`, its checksum, and `after`.
fn summed(before: &[u8], after: &[u8]) -> Vec<u8> {
    let rest = [ADDRESSES, before, &extension(3, &[0; 4]), after].concat();
    let mut whole = header(0x21, 0x11, &rest);
    let sum = crc32c::of([&whole[..]]).to_be_bytes();
    let at = whole.len() - after.len() - 4;
    whole[at..at + 4].copy_from_slice(&sum);
    whole
}

#[test]
fn headers_say_whose_a_connection_is() {
    let v4 = Carried::Client(ends("192.0.2.7:5000", "198.51.100.10:443"));
    let v6 = Carried::Client(ends("[2001:db8::7]:5000", "[2001:db8:100::10]:443"));
    let six = |from: &str, to: &str| {
        let octets = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
        [&octets(from)[..], &octets(to), &[0x13, 0x88, 0x01, 0xbb]].concat()
    };
    let rows: Vec<(&str, Vec<u8>, Carried)> = vec![
        ("TCP4", b"PROXY TCP4 192.0.2.7 198.51.100.10 5000 443\r\n".to_vec(), v4),
        ("TCP6", b"PROXY TCP6 2001:db8::7 2001:db8:100::10 5000 443\r\n".to_vec(), v6),
        ("TCP6 of mapped IPv4", b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.10 5000 443\r\n".to_vec(), v4),
        ("the least of version 1", b"PROXY UNKNOWN\r\n".to_vec(), Carried::Nobody),
        ("UNKNOWN with what is known", b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), Carried::Nobody),
        ("version 2 of IPv4", header(0x21, 0x11, ADDRESSES), v4),
        ("version 2 of IPv6", header(0x21, 0x21, &six("2001:db8::7", "2001:db8:100::10")), v6),
        ("version 2 of mapped IPv4", header(0x21, 0x21, &six("::ffff:192.0.2.7", "::ffff:198.51.100.10")), v4),
        ("LOCAL", header(0x20, 0x00, b""), Carried::Nobody),
        ("LOCAL with addresses, which are none", header(0x20, 0x11, ADDRESSES), Carried::Nobody),
        ("UNSPEC", header(0x21, 0x00, b""), Carried::Nobody),
        ("a socket of the host", header(0x21, 0x31, &[0; 216]), Carried::Nobody),
        (
            "extensions",
            header(0x21, 0x11, &[ADDRESSES, &extension(0xea, b"\x01vpce"), &extension(4, b"")].concat()),
            v4,
        ),
        ("a checksum", summed(b"", b""), v4),
        ("a checksum between others", summed(&extension(2, b"shop.example"), &extension(4, &[0; 9])), v4),
    ];
    for (name, bytes, expected) in rows {
        let found = read(&[&bytes[..], b"\x16\x03\x01"].concat());
        assert_eq!(found, Ok(Some((expected, bytes.len()))), "{name}");
        no_cut_of_a_proxy_header_changes_it(&bytes);
    }
}

#[test]
fn what_is_not_exactly_a_header_is_refused() {
    let broken_sum = {
        let mut whole = summed(b"", b"");
        *whole.last_mut().unwrap() ^= 1;
        whole
    };
    let twice = {
        let mut once = summed(b"", b"");
        once.extend(extension(3, &[0; 4]));
        once[15] += 7;
        once
    };
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("TLS", b"\x16\x03\x01\x02\x00\x01".to_vec()),
        ("HTTP", b"GET / HTTP/1.1\r\n".to_vec()),
        ("lower case", b"proxy TCP4 192.0.2.7 198.51.100.10 5000 443\r\n".to_vec()),
        ("two spaces", b"PROXY TCP4  192.0.2.7 198.51.100.10 5000 443\r\n".to_vec()),
        ("a space at the end", b"PROXY TCP4 192.0.2.7 198.51.100.10 5000 443 \r\n".to_vec()),
        ("a line feed alone", b"PROXY TCP4 192.0.2.7 198.51.100.10 5000 443\n".to_vec()),
        ("a carriage return within", b"PROXY TCP4 192.0.2.7\r198.51.100.10 5000 443\r\n".to_vec()),
        ("no ports", b"PROXY TCP4 192.0.2.7 198.51.100.10\r\n".to_vec()),
        ("a port too large", b"PROXY TCP4 192.0.2.7 198.51.100.10 65536 443\r\n".to_vec()),
        ("a port with a sign", b"PROXY TCP4 192.0.2.7 198.51.100.10 +5000 443\r\n".to_vec()),
        ("a port with a zero in front", b"PROXY TCP4 192.0.2.7 198.51.100.10 05000 443\r\n".to_vec()),
        ("an octet with a zero in front", b"PROXY TCP4 192.0.2.07 198.51.100.10 5000 443\r\n".to_vec()),
        ("IPv6 as TCP4", b"PROXY TCP4 2001:db8::7 198.51.100.10 5000 443\r\n".to_vec()),
        ("IPv4 as TCP6", b"PROXY TCP6 192.0.2.7 198.51.100.10 5000 443\r\n".to_vec()),
        ("a zone", b"PROXY TCP6 fe80::1%eth0 2001:db8::1 5000 443\r\n".to_vec()),
        ("another family", b"PROXY UDP4 192.0.2.7 198.51.100.10 5000 443\r\n".to_vec()),
        ("no address", b"PROXY TCP4 0.0.0.0 198.51.100.10 5000 443\r\n".to_vec()),
        ("everybody's address", b"PROXY TCP4 255.255.255.255 198.51.100.10 5000 443\r\n".to_vec()),
        ("many's address", b"PROXY TCP6 ff02::1 2001:db8::1 5000 443\r\n".to_vec()),
        ("a line that does not end", [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat()),
        ("version 3", header(0x31, 0x11, ADDRESSES)),
        ("another command", header(0x22, 0x11, ADDRESSES)),
        ("another family of version 2", header(0x21, 0x41, ADDRESSES)),
        ("datagrams", header(0x21, 0x12, ADDRESSES)),
        ("shorter than its addresses", header(0x21, 0x11, &ADDRESSES[..11])),
        ("too long", header(0x21, 0x11, &[0; MOST_BYTES])),
        ("an extension cut off", header(0x21, 0x11, &[ADDRESSES, &[1, 0, 9, b'h']].concat())),
        ("half an extension", header(0x21, 0x11, &[ADDRESSES, &[1, 0]].concat())),
        ("a wrong checksum", broken_sum),
        ("two checksums", twice),
        ("a short checksum", header(0x21, 0x11, &[ADDRESSES, &extension(3, &[0; 3])].concat())),
    ];
    for (name, bytes) in rows {
        assert!(read(&bytes).is_err(), "{name}: {:?}", read(&bytes));
        no_cut_of_a_proxy_header_changes_it(&bytes);
    }
}

#[test]
fn what_we_write_is_what_the_standard_shows() {
    let v4 = ends("192.0.2.7:5000", "198.51.100.10:443");
    let mixed = ends("[2001:db8::7]:5000", "198.51.100.10:443");
    assert_eq!(of_client(ProxyVersion::V1, v4), b"PROXY TCP4 192.0.2.7 198.51.100.10 5000 443\r\n");
    assert_eq!(of_client(ProxyVersion::V1, mixed), b"PROXY TCP6 2001:db8::7 ::ffff:198.51.100.10 5000 443\r\n");
    assert_eq!(of_client(ProxyVersion::V2, v4), header(0x21, 0x11, ADDRESSES));
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let header = of_nobody(version);
        assert_eq!(read(header), Ok(Some((Carried::Nobody, header.len()))));
        let header = of_client(version, mixed);
        assert_eq!(read(&header), Ok(Some((Carried::Client(mixed), header.len()))));
    }
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let v4 = any::<([u8; 4], u16)>().prop_map(SocketAddr::from);
    let v6 = any::<([u8; 16], u16)>().prop_map(SocketAddr::from);
    prop_oneof![v4, v6]
}

proptest! {
    #[test]
    fn no_bytes_are_read_two_ways(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        no_cut_of_a_proxy_header_changes_it(&bytes);
    }

    #[test]
    fn nearly_a_line_is_read_one_way(line in "PROXY (TCP4|TCP6|UNKNOWN|TCP)( [0-9a-f.:]{1,12}){0,5}[ \r\n]{0,3}") {
        no_cut_of_a_proxy_header_changes_it(line.as_bytes());
    }

    #[test]
    fn nearly_a_header_is_read_one_way(
        command in 0x1f_u8..0x23,
        family in prop::sample::select(vec![0_u8, 0x11, 0x12, 0x21, 0x31, 0x41]),
        length in 0_u16..60,
        rest in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let bytes = [&SIGNATURE_V2[..], &[command, family], &length.to_be_bytes(), &rest].concat();
        no_cut_of_a_proxy_header_changes_it(&bytes);
    }

    /// Another reader, `ppp`, which is more lenient: what we take it takes, and for the same.
    #[test]
    fn another_reader_reads_the_same(source in address(), destination in address(), is_binary in any::<bool>()) {
        let version = if is_binary { ProxyVersion::V2 } else { ProxyVersion::V1 };
        let bytes = of_client(version, Ends { source, destination });
        if let Ok(Some((Carried::Client(ours), length))) = read(&bytes) {
            prop_assert_eq!(length, bytes.len());
            prop_assert_eq!(Some(ours), another_reading(&bytes));
        }
    }
}

fn another_reading(bytes: &[u8]) -> Option<Ends> {
    use ppp::{HeaderResult, v1, v2};
    let (source, destination): (SocketAddr, SocketAddr) = match HeaderResult::parse(bytes) {
        HeaderResult::V1(Ok(header)) => match header.addresses {
            v1::Addresses::Tcp4(ip) => {
                ((ip.source_address, ip.source_port).into(), (ip.destination_address, ip.destination_port).into())
            }
            v1::Addresses::Tcp6(ip) => {
                ((ip.source_address, ip.source_port).into(), (ip.destination_address, ip.destination_port).into())
            }
            v1::Addresses::Unknown => return None,
        },
        HeaderResult::V2(Ok(header)) => match header.addresses {
            v2::Addresses::IPv4(ip) => {
                ((ip.source_address, ip.source_port).into(), (ip.destination_address, ip.destination_port).into())
            }
            v2::Addresses::IPv6(ip) => {
                ((ip.source_address, ip.source_port).into(), (ip.destination_address, ip.destination_port).into())
            }
            _ => return None,
        },
        _ => return None,
    };
    let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    Some(Ends { source: canonical(source), destination: canonical(destination) })
}
