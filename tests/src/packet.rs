//! Frames to order, with right checksums, and as wrong as a test wants them.

use std::net::{IpAddr, SocketAddr};

pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// IPv6 extension headers, and one header that must be walked over.
#[derive(Clone, Copy, Debug)]
pub enum Extension {
    HopByHop,
    Routing,
    DestinationOptions,
    Authentication,
    /// Fragment offset in units of 8 bytes, and the more-fragments flag.
    Fragment {
        offset: u16,
        more: bool,
    },
}

#[derive(Clone, Debug)]
enum Payload {
    Tcp {
        flags: u8,
    },
    Udp,
    /// Type and code, the four bytes behind the checksum, and the rest.
    Icmp {
        kind: u8,
        code: u8,
        rest: [u8; 4],
        body: Vec<u8>,
    },
    Other {
        protocol: u8,
    },
}

/// Begins as a bare TCP SYN; the family follows from the addresses.
#[derive(Clone, Debug)]
pub struct Packet {
    source: SocketAddr,
    destination: SocketAddr,
    traffic_class: u8,
    vlan_tags: Vec<(u16, u16)>,
    ipv4_option_words: u8,
    ipv4_identification: u16,
    ipv4_fragment: u16,
    extensions: Vec<Extension>,
    payload: Payload,
    sequence: u32,
    acknowledgement: u32,
    tcp_options: Vec<u8>,
    data: Vec<u8>,
    udp_length: Option<u16>,
}

impl Packet {
    /// Panics unless both are `ADDRESS:PORT` of the same family: a slip of the test's author.
    pub fn new(source: &str, destination: &str) -> Self {
        let parse = |text: &str| text.parse::<SocketAddr>().unwrap_or_else(|error| panic!("{text}: {error}"));
        let (source, destination) = (parse(source), parse(destination));
        assert_eq!(source.is_ipv4(), destination.is_ipv4(), "{source} and {destination} are of different families");
        Self {
            source,
            destination,
            traffic_class: 0,
            vlan_tags: Vec::new(),
            ipv4_option_words: 0,
            ipv4_identification: 1,
            ipv4_fragment: 0,
            extensions: Vec::new(),
            payload: Payload::Tcp { flags: SYN },
            sequence: 1,
            acknowledgement: 0,
            tcp_options: Vec::new(),
            data: Vec::new(),
            udp_length: None,
        }
    }

    pub fn tcp_flags(self, flags: u8) -> Self {
        Self { payload: Payload::Tcp { flags }, ..self }
    }

    pub fn sequence(self, sequence: u32) -> Self {
        Self { sequence, ..self }
    }

    pub fn acknowledgement(self, acknowledgement: u32) -> Self {
        Self { acknowledgement, ..self }
    }

    /// Whole words of four bytes, at most 10 of them.
    pub fn tcp_options(self, options: &[u8]) -> Self {
        Self { tcp_options: options.to_vec(), ..self }
    }

    pub fn udp(self) -> Self {
        Self { payload: Payload::Udp, ..self }
    }

    /// ICMP or ICMPv6, after the family.
    pub fn icmp(self, kind: u8, code: u8, rest: [u8; 4], body: &[u8]) -> Self {
        Self { payload: Payload::Icmp { kind, code, rest, body: body.to_vec() }, ..self }
    }

    /// The bytes without their Ethernet header.
    pub fn build_packet(&self) -> Vec<u8> {
        self.build().split_off(14 + 4 * self.vlan_tags.len())
    }

    /// Another IP protocol, such as 1 for ICMP.
    pub fn protocol(self, protocol: u8) -> Self {
        Self { payload: Payload::Other { protocol }, ..self }
    }

    pub fn data(self, data_bytes: usize) -> Self {
        Self { data: vec![0x61; data_bytes], ..self }
    }

    /// These bytes behind the headers, such as another packet.
    pub fn body(self, data: &[u8]) -> Self {
        Self { data: data.to_vec(), ..self }
    }

    /// DSCP and ECN.
    pub fn traffic_class(self, traffic_class: u8) -> Self {
        Self { traffic_class, ..self }
    }

    /// What the UDP header says of the datagram, of which this is the first fragment.
    pub fn udp_length(self, bytes: u16) -> Self {
        Self { udp_length: Some(bytes), ..self }
    }

    /// The identification of IPv4, and whether it must not be fragmented; otherwise 1, and it may be.
    pub fn ipv4_identification(self, identification: u16, do_not_fragment: bool) -> Self {
        let ipv4_fragment = self.ipv4_fragment | u16::from(do_not_fragment) << 14;
        Self { ipv4_identification: identification, ipv4_fragment, ..self }
    }

    /// Added behind the tags that are there: the first call is the outer tag.
    pub fn vlan(mut self, ether_type: u16, id: u16) -> Self {
        self.vlan_tags.push((ether_type, id));
        self
    }

    /// Words of four bytes, at most 10.
    pub fn ipv4_options(self, words: u8) -> Self {
        Self { ipv4_option_words: words, ..self }
    }

    /// Offset in units of 8 bytes.
    pub fn ipv4_fragment(self, offset: u16, more: bool) -> Self {
        Self { ipv4_fragment: offset | u16::from(more) << 13, ..self }
    }

    pub fn extension(mut self, extension: Extension) -> Self {
        self.extensions.push(extension);
        self
    }

    /// The frame, beginning with its Ethernet header.
    pub fn build(&self) -> Vec<u8> {
        let mut frame = vec![0x02, 0, 0, 0, 0, 0x02, 0x02, 0, 0, 0, 0, 0x01];
        for (ether_type, id) in &self.vlan_tags {
            frame.extend(ether_type.to_be_bytes());
            frame.extend(id.to_be_bytes());
        }
        let transport = self.transport();
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend(0x0800_u16.to_be_bytes());
                frame.extend(self.ipv4_header(source.octets(), destination.octets(), transport.len()));
            }
            _ => {
                frame.extend(0x86dd_u16.to_be_bytes());
                frame.extend(self.ipv6_headers(transport.len()));
            }
        }
        frame.extend(transport);
        frame
    }

    fn protocol_number(&self) -> u8 {
        match self.payload {
            Payload::Tcp { .. } => TCP,
            Payload::Udp => UDP,
            Payload::Icmp { .. } if self.source.is_ipv4() => ICMP,
            Payload::Icmp { .. } => ICMPV6,
            Payload::Other { protocol } => protocol,
        }
    }

    fn ipv4_header(&self, source: [u8; 4], destination: [u8; 4], payload_bytes: usize) -> Vec<u8> {
        let header_bytes = 20 + usize::from(self.ipv4_option_words) * 4;
        let mut header = vec![0x40 | (header_bytes / 4) as u8, self.traffic_class];
        header.extend(((header_bytes + payload_bytes) as u16).to_be_bytes());
        header.extend(self.ipv4_identification.to_be_bytes());
        header.extend(self.ipv4_fragment.to_be_bytes());
        header.extend([64, self.protocol_number(), 0, 0]);
        header.extend(source);
        header.extend(destination);
        // Option 1 does nothing (RFC 791 §3.1).
        header.resize(header_bytes, 1);
        let checksum = checksum(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }

    fn ipv6_headers(&self, payload_bytes: usize) -> Vec<u8> {
        let numbers: Vec<u8> = self.extensions.iter().map(|extension| extension.number()).collect();
        let next = |index: usize| numbers.get(index).copied().unwrap_or(self.protocol_number());
        let chain: Vec<u8> =
            self.extensions.iter().enumerate().flat_map(|(index, one)| one.build(next(index + 1))).collect();
        let mut headers = vec![0x60 | self.traffic_class >> 4, self.traffic_class << 4, 0, 0];
        headers.extend(((chain.len() + payload_bytes) as u16).to_be_bytes());
        headers.extend([next(0), 64]);
        headers.extend(octets(self.source.ip()));
        headers.extend(octets(self.destination.ip()));
        headers.extend(chain);
        headers
    }

    fn transport(&self) -> Vec<u8> {
        let [source_port, destination_port] = [self.source, self.destination].map(|end| end.port().to_be_bytes());
        let data = self.data.clone();
        let (mut segment, checksum_at) = match &self.payload {
            Payload::Tcp { flags } => {
                let numbers = [self.sequence.to_be_bytes(), self.acknowledgement.to_be_bytes()].concat();
                let words = 5 + self.tcp_options.len() / 4;
                let fixed = [(words << 4) as u8, *flags, 0xff, 0xff, 0, 0, 0, 0];
                ([&source_port[..], &destination_port, &numbers, &fixed, &self.tcp_options, &data].concat(), 16)
            }
            Payload::Udp => {
                let length = self.udp_length.unwrap_or(8 + data.len() as u16).to_be_bytes();
                ([&source_port[..], &destination_port, &length, &[0, 0], &data].concat(), 6)
            }
            Payload::Icmp { kind, code, rest, body } => ([&[*kind, *code, 0, 0][..], rest, body].concat(), 2),
            Payload::Other { .. } => return data,
        };
        let mut covered = Vec::new();
        // ICMP of IPv4 covers nothing but itself (RFC 792).
        if self.protocol_number() != ICMP {
            covered.extend([octets(self.source.ip()), octets(self.destination.ip())].concat());
            covered.extend((segment.len() as u32).to_be_bytes());
            covered.extend([0, 0, 0, self.protocol_number()]);
        }
        covered.extend(&segment);
        let checksum = checksum(&covered).to_be_bytes();
        segment[checksum_at..checksum_at + 2].copy_from_slice(&checksum);
        segment
    }
}

impl Extension {
    fn number(self) -> u8 {
        match self {
            Self::HopByHop => 0,
            Self::Routing => 43,
            Self::Fragment { .. } => 44,
            Self::Authentication => 51,
            Self::DestinationOptions => 60,
        }
    }

    fn build(self, next_header: u8) -> Vec<u8> {
        match self {
            // Padding of four bytes fills the header (RFC 8200 §4.2).
            Self::HopByHop | Self::DestinationOptions => vec![next_header, 0, 1, 4, 0, 0, 0, 0],
            Self::Routing => vec![next_header, 0, 253, 0, 0, 0, 0, 0],
            Self::Fragment { offset, more } => {
                let field = (offset << 3 | u16::from(more)).to_be_bytes();
                [&[next_header, 0][..], &field, &[0, 0, 0, 7]].concat()
            }
            // Its length counts words of four bytes, less two (RFC 4302 §2.2).
            Self::Authentication => [&[next_header, 4, 0, 0][..], &[0; 20]].concat(),
        }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Do the IPv4 header, if it is one, and the TCP segment of a frame without options and extension headers sum to zero,
/// as right checksums make them?
pub fn has_right_checksums(frame: &[u8]) -> bool {
    let ip = &frame[14..];
    let (addresses, length_bytes) = match ip[0] >> 4 {
        4 if checksum(&ip[..20]) != 0 => return false,
        4 => (12..20, usize::from(u16::from_be_bytes([ip[2], ip[3]]))),
        _ => (8..40, 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]))),
    };
    let segment = &ip[addresses.end..length_bytes];
    let covered = [&ip[addresses], &(segment.len() as u32).to_be_bytes(), &[0, 0, 0, TCP], segment].concat();
    checksum(&covered) == 0
}

/// RFC 1071.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_with_its_checksum_sums_to_zero() {
        let frame = Packet::new("192.0.2.1:40000", "198.51.100.10:443").ipv4_options(3).build();
        assert_eq!(checksum(&frame[14..14 + 32]), 0);
    }

    #[test]
    fn right_checksums_are_told_from_wrong_ones() {
        for (source, destination) in
            [("192.0.2.1:40000", "198.51.100.10:443"), ("[2001:db8::1]:40000", "[2001:db8::2]:443")]
        {
            let frame = Packet::new(source, destination).build();
            assert!(has_right_checksums(&frame), "{source}");
            for at in [26, frame.len() - 1] {
                let mut wrong = frame.clone();
                wrong[at] ^= 1;
                assert!(!has_right_checksums(&wrong), "{source}, byte {at}");
            }
        }
    }

    #[test]
    fn a_frame_is_as_long_as_its_parts() {
        let v4 = Packet::new("192.0.2.1:40000", "198.51.100.10:443");
        let v6 = Packet::new("[2001:db8::1]:40000", "[2001:db8::2]:443");
        assert_eq!(v4.build().len(), 14 + 20 + 20);
        assert_eq!(v4.clone().vlan(0x8100, 5).ipv4_options(2).data(3).build().len(), 14 + 4 + 28 + 20 + 3);
        assert_eq!(v6.clone().udp().build().len(), 14 + 40 + 8);
        assert_eq!(v6.extension(Extension::Authentication).build().len(), 14 + 40 + 24 + 20);
    }
}
