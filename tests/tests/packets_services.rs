//! Services by address and prefix, port, range and any port, TCP and UDP: whose is a packet?

use lb_datapath::{Desired, DesiredService, Ports, Protocols, Verdict};
use lb_tests::level::has_root;
use lb_tests::packet::Packet;
use lb_tests::program::{Judged, with_bench};

fn service(name: &str, vips: &[&str], ports: Ports, protocols: Protocols) -> DesiredService {
    let vips = vips.iter().map(|vip| vip.parse().expect("a VIP")).collect();
    DesiredService { name: name.to_owned(), vips, ports, protocols, ..DesiredService::default() }
}

fn desired() -> Desired {
    let services = vec![
        service("one", &["198.51.100.10", "2001:db8:100::10"], Ports::One(443), Protocols::TCP),
        service("range", &["198.51.100.10", "2001:db8:100::10"], Ports::Range(400, 499), Protocols::BOTH),
        service("high", &["198.51.100.10", "2001:db8:100::10"], Ports::Range(60_000, 65_535), Protocols::UDP),
        service("any", &["198.51.100.11", "2001:db8:100::11"], Ports::Any, Protocols::UDP),
        service("wide", &["198.51.100.0/24", "2001:db8:100::/48"], Ports::One(443), Protocols::TCP),
        service("narrow", &["198.51.100.128/25", "2001:db8:100:8000::/49"], Ports::Any, Protocols::TCP),
    ];
    Desired { services, ..Desired::default() }
}

/// The last part of a VIP in both families, protocol, port, and whose packets to there are.
type Row = (&'static str, [&'static str; 2], char, u16, Option<&'static str>);

const TEN: [&str; 2] = ["198.51.100.10", "2001:db8:100::10"];
const ELEVEN: [&str; 2] = ["198.51.100.11", "2001:db8:100::11"];
const IN_WIDE: [&str; 2] = ["198.51.100.77", "2001:db8:100:77::77"];
const IN_NARROW: [&str; 2] = ["198.51.100.200", "2001:db8:100:8888::1"];
const BESIDE: [&str; 2] = ["198.51.101.1", "2001:db8:101::1"];

const ROWS: &[Row] = &[
    ("an exact port", TEN, 't', 443, Some("one")),
    ("the range around an exact port has the other protocol", TEN, 'u', 443, Some("range")),
    ("the range's first port", TEN, 't', 400, Some("range")),
    ("its last port", TEN, 'u', 499, Some("range")),
    ("one below", TEN, 't', 399, None),
    ("one above", TEN, 'u', 500, None),
    ("the last port of all", TEN, 'u', 65_535, Some("high")),
    ("the same of the protocol that the range lacks", TEN, 't', 65_535, None),
    ("any port: the first", ELEVEN, 'u', 1, Some("any")),
    ("any port: the last", ELEVEN, 'u', 65_535, Some("any")),
    ("port 0 is no port", ELEVEN, 'u', 0, None),
    ("an address of its own hides the prefix around it", ELEVEN, 't', 443, None),
    ("a prefix", IN_WIDE, 't', 443, Some("wide")),
    ("a prefix, another port", IN_WIDE, 't', 444, None),
    ("a prefix, the other protocol", IN_WIDE, 'u', 443, None),
    ("the longer of two prefixes", IN_NARROW, 't', 443, Some("narrow")),
    ("and any of its ports", IN_NARROW, 't', 8080, Some("narrow")),
    ("the longer one hides the wider one for the other protocol too", IN_NARROW, 'u', 443, None),
    ("an address beside the prefixes", BESIDE, 't', 443, None),
];

fn packet(destination: &str, protocol: char, port: u16) -> Vec<u8> {
    let packet = match destination.contains(':') {
        true => Packet::new("[2001:db8:1::1]:40000", &format!("[{destination}]:{port}")),
        false => Packet::new("192.0.2.1:40000", &format!("{destination}:{port}")),
    };
    if protocol == 'u' { packet.udp().data(4).build() } else { packet.build() }
}

#[test]
fn each_packet_is_the_service_s_that_names_its_destination_best() {
    if !has_root("program runs") {
        return;
    }
    with_bench(desired(), |bench| {
        for (name, destinations, protocol, port, service) in ROWS {
            for destination in destinations {
                let frame = packet(destination, *protocol, *port);
                let expected = match service {
                    None => Judged::only(Verdict::Pass, "no_service"),
                    Some(service) if *protocol == 'u' => Judged::let_into(service, frame.len() - 14),
                    Some(service) => {
                        Judged::let_into(service, frame.len() - 14).with(&[(&format!("service {service} syns"), 1)])
                    }
                };
                assert_eq!(bench.judge(&frame), expected, "{name}: {destination}");
            }
        }
    });
}
