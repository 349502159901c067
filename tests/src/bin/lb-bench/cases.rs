//! The kinds of packets, and the services they meet.

use std::net::Ipv4Addr;
use std::time::Duration;

use lb_datapath::{
    BackendState, BlockOutcome, Desired, DesiredBackend, DesiredService, Forward, Limits, Ports, Protocols, Rate,
    Rates, Reason, Source,
};
use lb_tests::netns::Namespace;
use lb_tests::packet::{ACK, Packet, SYN};
use lb_tests::program::Bench;

use crate::cookies;

/// Packets of one kind.
#[derive(Clone)]
pub(crate) struct Case {
    /// Stable: scripts compare runs by it.
    pub(crate) name: &'static str,
    pub(crate) frame: Vec<u8>,
    /// Bits of the source address that are others in each packet; 0 in `frame`. Of IPv6 those of its first and its
    /// second word, of IPv4 the second element.
    pub(crate) varied_bits: [u32; 2],
    /// The deny list in force.
    pub(crate) list: List,
    /// How (nearly) all of them end.
    pub(crate) reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum List {
    /// That of the usual host: no packet of these cases is near it.
    Short,
    /// A million random prefixes of each family.
    Million,
}

const ONE_FLOW: [u32; 2] = [0, 0];
const FLOWS_512K: [u32; 2] = [0, (1 << 19) - 1];
pub(crate) const ANY_SOURCE: [u32; 2] = [0, u32::MAX];
/// All of 2000::/3, which is where IPv6 addresses are from.
const ANY_SOURCE_6: [u32; 2] = [u32::MAX >> 3, u32::MAX];

const ETHERNET_MINIMUM_BYTES: usize = 60;

pub(crate) fn all() -> Vec<Case> {
    let case = |name, packet: Packet, varied_bits, reason| {
        let frame = padded(packet.build());
        Case { name, frame, varied_bits, list: List::Short, reason }
    };
    const WEB: &str = "198.51.100.10:443";
    const WEB_6: &str = "[2001:db8:100::10]:443";
    let tcp = |source: &str, destination: &str, flags| Packet::new(source, destination).tcp_flags(flags);
    let million = |case: Case| Case { list: List::Million, ..case };
    let ack = |source: &str, destination: &str| tcp(source, destination, ACK);
    let mut cases = vec![
        case("not_vip", ack("192.0.2.1:40000", "203.0.113.1:443"), ONE_FLOW, Reason::NoService),
        case("known_flow", ack("192.0.2.1:40000", WEB), ONE_FLOW, Reason::Admitted),
        case("known_flow_l7", ack("192.0.2.1:40000", "198.51.100.12:443"), ONE_FLOW, Reason::Admitted),
        case("flows_512k", ack("10.0.0.0:40000", WEB), FLOWS_512K, Reason::Admitted),
        case("distinct_syn", tcp("0.0.0.0:40000", WEB, SYN), ANY_SOURCE, Reason::Admitted),
        case("udp", Packet::new("192.0.2.1:40000", WEB).udp(), ONE_FLOW, Reason::Admitted),
        case("v6", ack("[2001:db8:1::1]:40000", WEB_6), ONE_FLOW, Reason::Admitted),
        case("limited", ack("192.0.2.1:40000", "198.51.100.11:443"), ONE_FLOW, Reason::SourceLimit),
        million(case("deny_random_1m", tcp("0.0.0.0:40000", WEB, SYN), ANY_SOURCE, Reason::Admitted)),
        million(case("deny6_random_1m", tcp("[2000::1]:40000", WEB_6, SYN), ANY_SOURCE_6, Reason::Admitted)),
    ];
    cases.extend(cookies::cases());
    cases
}

/// As long as Ethernet wants it.
pub(crate) fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().max(ETHERNET_MINIMUM_BYTES), 0);
    frame
}

/// The interface that packets come in by and leave by, towards the backends.
pub(crate) const INTERFACE: &str = "front";
/// The backends' end of the link.
pub(crate) const UPLINK: &str = "uplink";
const BACKENDS: u8 = 100;

/// A host with a link to its backends, whose Ethernet addresses it knows.
pub(crate) fn host(backends: &Namespace) -> Namespace {
    let host = Namespace::new();
    host.connect(INTERFACE, backends, UPLINK);
    cookies::prepare_kernel(&host);
    host.ip(&format!("address add 10.9.0.1/16 dev {INTERFACE}"));
    for number in 1..=BACKENDS {
        host.ip(&format!("neighbour add 10.9.1.{number} lladdr 02:00:00:09:01:{number:02x} dev {INTERFACE}"));
    }
    host
}

/// Services whose limits are looked at for every packet and never reached, one with backends behind IPIP and one that
/// ends here, and a service whose limit always is.
pub(crate) fn desired() -> Desired {
    let service = |name: &str, vips: &[&str], limits| DesiredService {
        name: name.into(),
        vips: vips.iter().map(|vip| vip.parse().expect("a VIP")).collect(),
        ports: Ports::One(443),
        limits,
        ..DesiredService::default()
    };
    let never_reached = Rates::of_packets(Rate { per_second: u32::MAX.into(), burst: u32::MAX.into() });
    let verified = never_reached.packets;
    let limits = Limits { source: never_reached, network: Rates::default(), service: never_reached, verified };
    let always_reached = Rates::of_packets(Rate { per_second: 1, burst: 1 });
    let web = DesiredService {
        protocols: Protocols::BOTH,
        forward: Forward::Ipip,
        pool: Some("app".into()),
        ..service("web", &["198.51.100.10", "2001:db8:100::10"], limits)
    };
    let local = service("local", &["198.51.100.12"], limits);
    let limited = service("limited", &["198.51.100.11"], Limits { source: always_reached, ..limits });
    let backend = |number| DesiredBackend {
        pool: "app".into(),
        address: (Ipv4Addr::new(10, 9, 1, number), 443).into(),
        weight: 1,
        state: BackendState::Healthy,
    };
    Desired {
        services: vec![web, local, limited, cookies::service(limits)],
        backends: (1..=BACKENDS).map(backend).collect(),
        ..Desired::default()
    }
}

/// Blocks of others, as many as the list holds. None of them is a source that a case uses or may draw often.
pub(crate) fn switch_everything_on(bench: &mut Bench) {
    const BLOCKS: u32 = 4096;
    let first = u32::from(Ipv4Addr::new(203, 0, 0, 0));
    for number in 0..BLOCKS {
        let somebody = Source::of(Ipv4Addr::from(first + number).into());
        let outcome = bench.datapath.block(somebody, Duration::from_secs(3600)).expect("the list is written");
        assert_eq!(outcome, BlockOutcome::Blocked, "{somebody}");
    }
}
