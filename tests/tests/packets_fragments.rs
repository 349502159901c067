//! Fragments to a VIP follow the first of their datagram, and tricks with them are dropped by name.

use lb_datapath::{Desired, DesiredService, Limits, Ports, Protocols, Rate, Rates, Verdict};
use lb_tests::level::has_root;
use lb_tests::packet::{Extension, Packet};
use lb_tests::program::{Bench, Judged, with_bench};

const VIP_4: &str = "198.51.100.10";
const VIP_6: &str = "[2001:db8:100::10]";

/// TCP 443 and UDP 53 of the VIPs.
fn desired(limits: Limits) -> Desired {
    let vips = || vec![VIP_4.parse().expect("an address"), "2001:db8:100::10".parse().expect("an address")];
    let service = |name: &str, port, protocols| DesiredService {
        name: name.to_owned(),
        vips: vips(),
        ports: Ports::One(port),
        protocols,
        limits,
        ..DesiredService::default()
    };
    Desired {
        services: vec![service("web", 443, Protocols::TCP), service("dns", 53, Protocols::UDP)],
        ..Desired::default()
    }
}

fn with_services(limits: Limits, test: impl FnOnce(&mut Bench) + Send + 'static) {
    if has_root("program runs") {
        with_bench(desired(limits), test);
    }
}

/// Both families: a datagram from the client with this number, to this port of the VIP.
#[derive(Clone, Copy)]
struct Datagram {
    is_v4: bool,
    client: u8,
    port: u16,
}

impl Datagram {
    fn packet(self) -> Packet {
        let Self { is_v4, client, port } = self;
        if is_v4 {
            Packet::new(&format!("192.0.2.{client}:40000"), &format!("{VIP_4}:{port}"))
        } else {
            Packet::new(&format!("[2001:db8:1:{client}::1]:40000"), &format!("{VIP_6}:{port}"))
        }
    }

    fn part(self, packet: Packet, offset_units: u16, more: bool) -> Vec<u8> {
        if self.is_v4 {
            packet.ipv4_fragment(offset_units, more).build()
        } else {
            packet.extension(Extension::Fragment { offset: offset_units, more }).build()
        }
    }

    /// The UDP header and 24 bytes: four units.
    fn first(self) -> Vec<u8> {
        self.part(self.packet().udp().data(24), 0, true)
    }

    /// Sixteen bytes of data, or fewer in the last.
    fn later(self, offset_units: u16, more: bool, bytes: usize) -> Vec<u8> {
        self.part(self.packet().protocol(17).data(bytes), offset_units, more)
    }
}

fn ip_bytes(frame: &[u8]) -> usize {
    frame.len() - 14
}

fn dropped(reason: &str) -> Judged {
    Judged::only(Verdict::Drop, reason)
}

fn untouched(reason: &str) -> Judged {
    Judged::only(Verdict::Pass, reason)
}

fn datagrams(client: u8, port: u16) -> [Datagram; 2] {
    [true, false].map(|is_v4| Datagram { is_v4, client, port })
}

#[test]
fn later_fragments_follow_the_first_one_into_its_service() {
    with_services(Limits::default(), |bench| {
        for datagram in datagrams(1, 53) {
            for frame in [datagram.first(), datagram.later(4, true, 16), datagram.later(6, false, 3), datagram.first()]
            {
                assert_eq!(bench.judge(&frame), Judged::let_into("dns", ip_bytes(&frame)), "{frame:02x?}");
            }
        }
    });
}

#[test]
fn without_its_first_one_a_fragment_is_dropped() {
    with_services(Limits::default(), |bench| {
        for datagram in datagrams(2, 53) {
            assert_eq!(bench.judge(&datagram.later(4, false, 16)), dropped("fragment_unknown"));
            bench.judge(&datagram.first());
            let other = Datagram { client: 3, ..datagram };
            assert_eq!(bench.judge(&other.later(4, false, 16)), dropped("fragment_unknown"), "another client's");
        }
    });
}

#[test]
fn what_replaces_a_judged_header_is_dropped() {
    with_services(Limits::default(), |bench| {
        for datagram in datagrams(4, 53) {
            bench.judge(&datagram.first());
            assert_eq!(bench.judge(&datagram.later(1, true, 16)), dropped("fragment_overlap"), "inside the first one");
            assert_eq!(bench.judge(&datagram.later(3, false, 16)), dropped("fragment_overlap"), "its last unit");
            let other_ports = Datagram { port: 54, ..datagram };
            assert_eq!(bench.judge(&other_ports.first()), dropped("fragment_overlap"), "another first one");
            let longer = datagram.part(datagram.packet().udp().data(32), 0, true);
            assert_eq!(bench.judge(&longer), dropped("fragment_overlap"), "a longer first one");
            let tiny = datagram.part(datagram.packet().protocol(6).data(16), 0, true);
            assert_eq!(bench.judge(&tiny), dropped("tiny_fragment"), "half a TCP header");
        }
    });
}

#[test]
fn impossible_fragments_are_dropped() {
    with_services(Limits::default(), |bench| {
        for datagram in datagrams(5, 53) {
            bench.judge(&datagram.first());
            for (what, frame) in [
                ("cut between units", datagram.later(4, true, 15)),
                ("empty", datagram.later(4, false, 0)),
                ("beyond the longest datagram", datagram.later(0x1fff, false, 16)),
            ] {
                assert_eq!(bench.judge(&frame), dropped("bad_fragment"), "{what}");
            }
        }
    });
}

#[test]
fn fragments_that_are_no_services_are_left_alone() {
    with_services(Limits::default(), |bench| {
        for datagram in datagrams(6, 5353) {
            assert_eq!(bench.judge(&datagram.first()), untouched("no_service"), "another port");
            assert_eq!(bench.judge(&datagram.later(4, false, 9)), untouched("no_service"), "and what follows it");
        }
        let elsewhere = Packet::new("192.0.2.1:40000", "198.51.100.11:53").udp().data(16);
        assert_eq!(bench.judge(&elsewhere.ipv4_fragment(9, true).build()), untouched("no_service"), "another address");
        for datagram in datagrams(7, 53) {
            let protocol = if datagram.is_v4 { 1 } else { 58 };
            let ping = datagram.part(datagram.packet().protocol(protocol).data(16), 9, true);
            assert_eq!(bench.judge(&ping), untouched("icmp_passed"), "a large ping is the host's to answer");
        }
    });
}

#[test]
fn an_atomic_fragment_is_a_whole_datagram() {
    with_services(Limits::default(), |bench| {
        let [_, datagram] = datagrams(8, 53);
        let atomic = datagram.part(datagram.packet().udp().data(5), 0, false);
        assert_eq!(bench.judge(&atomic), Judged::let_into("dns", ip_bytes(&atomic)));
        let hidden = datagram.packet().extension(Extension::Fragment { offset: 9, more: true });
        let hidden = hidden.extension(Extension::DestinationOptions).udp().data(8).build();
        assert_eq!(bench.judge(&hidden), dropped("fragment_unknown"), "a later one that hides its protocol");
    });
}

#[test]
fn each_fragment_counts_as_a_packet_of_its_source() {
    let limits = Limits { source: Rates::of_packets(Rate { per_second: 1, burst: 2 }), ..Limits::default() };
    with_services(limits, |bench| {
        for datagram in datagrams(9, 53) {
            for frame in [datagram.first(), datagram.later(4, true, 16)] {
                assert_eq!(bench.judge(&frame), Judged::let_into("dns", ip_bytes(&frame)));
            }
            let mut over = dropped("source_limit");
            over.moved.insert("service dns dropped".into(), 1);
            assert_eq!(bench.judge(&datagram.later(6, false, 3)), over);
        }
    });
}
