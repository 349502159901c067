//! Deny and allow lists in the loaded program: packet in → verdict, reason, and the counters that moved.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use lb_datapath::{
    CompiledLists, Desired, DesiredService, Limits, Listed, ListedPrefix, Ports, Prefix, Rate, Rates, Source, Verdict,
    compile_lists,
};
use lb_tests::level::has_root;
use lb_tests::packet::{Extension, Packet};
use lb_tests::program::{Bench, Judged, with_bench};

const WEB_4: &str = "198.51.100.10:443";
const WEB_6: &str = "[2001:db8:100::10]:443";

fn web(limits: Limits) -> Desired {
    let vips = ["198.51.100.10", "2001:db8:100::10"].map(|vip| vip.parse().expect("an address")).to_vec();
    let name = String::from("web");
    let web = DesiredService { name, vips, ports: Ports::One(443), limits, ..DesiredService::default() };
    Desired { services: vec![web], ..Desired::default() }
}

fn with_web(limits: Limits, test: impl FnOnce(&mut Bench) + Send + 'static) {
    if has_root("program runs") {
        with_bench(web(limits), test);
    }
}

fn prefix(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').expect("a length");
    Prefix::new(address.parse().expect("an address"), length.parse().expect("a number")).expect("a prefix")
}

fn lists(deny: &[&str], allow: &[&str]) -> CompiledLists {
    let rows = deny.iter().map(|text| (text, Listed::Denied)).chain(allow.iter().map(|text| (text, Listed::Allowed)));
    let prefixes = rows.map(|(text, listed)| ListedPrefix { prefix: prefix(text), listed });
    compile_lists(prefixes.collect()).expect("compiles")
}

/// A SYN from `source` to the service of its family.
fn syn(source: &str) -> Vec<u8> {
    let source: IpAddr = source.parse().expect("an address");
    let destination = if source.is_ipv4() { WEB_4 } else { WEB_6 };
    Packet::new(&SocketAddr::new(source, 40_000).to_string(), destination).build()
}

fn judged(verdict: Verdict, moved: &[(&str, u64)]) -> Judged {
    let moved: BTreeMap<_, _> = moved.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    Judged { verdict, moved }
}

fn dropped(reason: &str) -> Judged {
    judged(Verdict::Drop, &[(&format!("reason {reason} unknown"), 1), ("service web dropped", 1)])
}

fn admitted(source: &str) -> Judged {
    let bytes = if source.contains(':') { 60 } else { 40 };
    let service = [("service web admitted", 1), ("service web bytes", bytes), ("service web syns", 1)];
    judged(Verdict::Pass, &[&[("reason admitted unknown", 1)], &service[..]].concat())
}

#[test]
fn the_longest_prefix_decides_about_a_packet() {
    with_web(Limits::default(), |bench| {
        let deny =
            ["10.0.0.0/8", "10.1.2.3/32", "10.1.2.128/27", "2001:db8::/29", "2001:db8:1::/48", "2001:db8:2::7/128"];
        let allow = ["10.1.0.0/16", "10.1.2.130/31", "2001:db8::/32", "2001:db8:1:2::/64", "2001:db8:1:3::/61"];
        bench.datapath.replace_lists(&lists(&deny, &allow)).expect("written");
        for (source, is_denied) in [
            ("10.200.0.1", true),
            ("10.1.0.1", false),
            ("10.1.2.3", true),
            ("10.1.2.4", false),
            ("10.1.2.129", true),
            ("10.1.2.130", false),
            ("10.1.2.131", false),
            ("10.1.2.159", true),
            ("10.1.2.160", false),
            ("11.0.0.1", false),
            ("2001:db9::1", true),
            ("2001:db8::1", false),
            ("2001:db8:1:9::1", true),
            ("2001:db8:1:2::1", false),
            ("2001:db8:1:7::1", false),
            ("2001:db8:2::7", true),
            ("2001:db8:2::8", false),
            ("2001:4860::1", false),
        ] {
            let expected = if is_denied { dropped("denied_by_list") } else { admitted(source) };
            assert_eq!(bench.judge(&syn(source)), expected, "{source}");
        }
    });
}

#[test]
fn a_list_is_about_packets_to_services_alone() {
    with_web(Limits::default(), |bench| {
        bench.datapath.replace_lists(&lists(&["0.0.0.0/0", "::/0"], &[])).expect("written");
        let untouched = |reason: &str| judged(Verdict::Pass, &[(&format!("reason {reason} unknown"), 1)]);
        for (name, frame, expected) in [
            ("to the service", Packet::new("192.0.2.1:40000", WEB_4).build(), dropped("denied_by_list")),
            ("to the service, IPv6", Packet::new("[2001:db8:1::1]:40000", WEB_6).build(), dropped("denied_by_list")),
            (
                "behind extension headers",
                Packet::new("[2001:db8:1::1]:40000", WEB_6).extension(Extension::HopByHop).build(),
                dropped("denied_by_list"),
            ),
            ("to another port", Packet::new("192.0.2.1:40000", "198.51.100.10:22").build(), untouched("no_service")),
            ("to another host", Packet::new("192.0.2.1:40000", "198.51.100.99:443").build(), untouched("no_service")),
        ] {
            assert_eq!(bench.judge(&frame), expected, "{name}");
        }
    });
}

/// A message of ICMP from `source` to the VIP of its family.
fn icmp(source: &str, [kind_4, kind_6]: [u8; 2], body: &[u8]) -> Packet {
    let (kind, destination) = if source.contains(':') { (kind_6, WEB_6) } else { (kind_4, WEB_4) };
    let source: IpAddr = source.parse().expect("an address");
    Packet::new(&SocketAddr::new(source, 0).to_string(), destination).icmp(kind, 0, [0, 7, 0, 9], body)
}

#[test]
fn a_list_and_a_block_hold_for_icmp_to_a_vip_too() {
    const ECHO: [u8; 2] = [8, 128];
    const UNREACHABLE: [u8; 2] = [3, 1];
    const SOLICITATION: [u8; 2] = [135, 135];
    with_web(Limits::default(), |bench| {
        let deny = ["192.0.2.0/24", "2001:db8:1::/48"];
        let allow = ["192.0.2.128/25", "2001:db8:1:8000::/49"];
        bench.datapath.replace_lists(&lists(&deny, &allow)).expect("written");
        for source in ["192.0.2.200", "203.0.113.1", "2001:db8:1:9000::1", "2001:db8:2::1"] {
            let answered = Judged::only(Verdict::Transmit, "echo_answered");
            assert_eq!(bench.judge_and_send(&icmp(source, ECHO, b"ping").build()).0, answered, "{source}");
        }
        for (source, quoted) in [
            ("192.0.2.7", Packet::new(WEB_4, "192.0.2.7:40000")),
            ("2001:db8:1::7", Packet::new(WEB_6, "[2001:db8:1::7]:40000")),
        ] {
            let denied = Judged::only(Verdict::Drop, "denied_by_list");
            let quoted = quoted.build_packet();
            for (name, frame) in [
                ("a ping", icmp(source, ECHO, b"ping").build()),
                ("an error about a connection", icmp(source, UNREACHABLE, &quoted).build()),
                ("a tagged ping", icmp(source, ECHO, b"ping").vlan(0x8100, 5).build()),
                ("another message", icmp(source, [13, 200], &[0; 12]).build()),
            ] {
                assert_eq!(bench.judge(&frame), denied, "{source}: {name}");
            }
            let unusual = match source.contains(':') {
                true => icmp(source, ECHO, b"ping").extension(Extension::HopByHop),
                false => icmp(source, ECHO, b"ping").ipv4_options(1),
            };
            assert_eq!(bench.judge(&unusual.build()), denied, "{source}: behind options");
        }
        let discovery = icmp("2001:db8:1::7", SOLICITATION, &[0; 20]).build();
        let passed = Judged::only(Verdict::Pass, "icmp_passed");
        assert_eq!(bench.judge(&discovery), passed, "neighbours must find each other whatever is listed");
        let elsewhere = Packet::new("192.0.2.7:0", "198.51.100.99:0").icmp(8, 0, [0, 7, 0, 9], b"ping").build();
        assert_eq!(bench.judge(&elsewhere), Judged::only(Verdict::Pass, "not_inspected"), "to the host itself");

        for source in ["203.0.113.1", "192.0.2.200", "2001:db8:2::1", "2001:db8:1:9000::1"] {
            let address: IpAddr = source.parse().expect("an address");
            bench.datapath.block(Source::of(address), Duration::from_secs(3600)).expect("blocked");
            let ping = icmp(source, ECHO, b"ping").build();
            let is_allowed = ["192.0.2.200", "2001:db8:1:9000::1"].contains(&source);
            let expected = match is_allowed {
                true => Judged::only(Verdict::Transmit, "echo_answered"),
                false => Judged::only(Verdict::Drop, "blocked"),
            };
            assert_eq!(bench.judge_and_send(&ping).0, expected, "{source}: blocked, and allowed: {is_allowed}");
        }
    });
}

#[test]
fn an_allowed_source_is_not_blocked_but_still_limited() {
    let one = Rate { per_second: 1, burst: 1 };
    with_web(Limits { source: Rates::of_packets(one), ..Limits::default() }, |bench| {
        for source in ["192.0.2.7", "2001:db8:1::7"] {
            let address: IpAddr = source.parse().expect("an address");
            bench.datapath.block(Source::of(address), Duration::from_secs(3600)).expect("blocked");
            assert_eq!(bench.judge(&syn(source)), dropped("blocked"), "{source}");
        }
        bench.datapath.replace_lists(&lists(&[], &["192.0.2.0/24", "2001:db8:1::7/128"])).expect("written");
        for source in ["192.0.2.7", "2001:db8:1::7"] {
            assert_eq!(bench.judge(&syn(source)), admitted(source), "{source}");
            let limited = (0..1000).map(|_| bench.judge(&syn(source))).find(|one| one.verdict == Verdict::Drop);
            assert_eq!(limited, Some(dropped("source_limit")), "{source}");
        }
    });
}

#[test]
fn a_new_list_takes_the_place_of_the_old_one_and_no_list_takes_no_memory() {
    with_web(Limits::default(), |bench| {
        assert_eq!(bench.reader.lists().expect("read"), [None, None]);
        for round in 0..3 {
            bench.datapath.replace_lists(&lists(&["10.0.0.1/32", "2001:db8::/48"], &[])).expect("written");
            assert_eq!(bench.judge(&syn("10.0.0.1")), dropped("denied_by_list"), "{round}");
            assert_eq!(bench.judge(&syn("2001:db8::1")), dropped("denied_by_list"), "{round}");
            let [ipv4, ipv6] = bench.reader.lists().expect("read").map(|list| list.expect("a list"));
            assert_eq!((ipv4.denied, ipv4.allowed, ipv6.denied, ipv6.allowed), (1, 0, 1, 0));
            assert!(ipv4.memory_bytes < 13 << 20, "{} bytes", ipv4.memory_bytes);

            bench.datapath.replace_lists(&lists(&["10.0.0.2/32", "10.0.0.3/32"], &["10.0.0.4/32"])).expect("written");
            assert_eq!(bench.judge(&syn("10.0.0.1")), admitted("10.0.0.1"), "{round}");
            assert_eq!(bench.judge(&syn("10.0.0.2")), dropped("denied_by_list"), "{round}");
            assert_eq!(bench.judge(&syn("2001:db8::1")), admitted("2001:db8::1"), "{round}");
            let [ipv4, ipv6] = bench.reader.lists().expect("read");
            assert_eq!(ipv4.map(|list| (list.denied, list.allowed)), Some((2, 1)));
            assert_eq!(ipv6, None);

            bench.datapath.replace_lists(&CompiledLists::default()).expect("written");
            assert_eq!(bench.judge(&syn("10.0.0.2")), admitted("10.0.0.2"), "{round}");
            assert_eq!(bench.reader.lists().expect("read"), [None, None]);
        }
    });
}

/// The kernel runs the same lines as user space, compiled otherwise and over maps: they must agree.
#[test]
fn the_kernel_finds_what_user_space_finds_in_a_long_list() {
    with_web(Limits::default(), |bench| {
        let mut numbers = Numbers(7);
        let prefixes: Vec<ListedPrefix> = (0..60_000).map(|_| numbers.listed()).collect();
        let lists = compile_lists(prefixes.clone()).expect("compiles");
        bench.datapath.replace_lists(&lists).expect("written");
        let mut found = BTreeMap::new();
        for one in prefixes.iter().step_by(20) {
            for address in [one.prefix.first_address(), numbers.near(one.prefix.first_address())] {
                let listed = lists.find(address);
                *found.entry(listed).or_insert(0) += 1;
                let source = address.to_string();
                let expected = if listed == Listed::Denied { dropped("denied_by_list") } else { admitted(&source) };
                assert_eq!(bench.judge(&syn(&source)), expected, "{address} is {listed:?}");
            }
        }
        assert_eq!(found.len(), 3, "some of each kind: {found:?}");
    });
}

/// The same numbers in every run (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Close together, so that prefixes nest: 10.0.0.0/12 and 2001:db8::/44. Of all lengths, the long ones mostly.
    fn listed(&mut self) -> ListedPrefix {
        let [kind, bits, more] = [self.next(), self.next(), self.next()];
        let address: IpAddr = match kind & 1 {
            0 => Ipv4Addr::from_bits(0x0a00_0000 | bits as u32 >> 12).into(),
            _ => Ipv6Addr::from_bits(0x2001_0db8_u128 << 96 | u128::from(bits >> 44) << 64 | u128::from(more & 0xffff))
                .into(),
        };
        let (shortest, choices) = if address.is_ipv4() { (13, 20) } else { (33, 96) };
        let prefix = Prefix::new(address, shortest + (kind >> 8) as u8 % choices).expect("a prefix");
        ListedPrefix { prefix, listed: if kind >> 32 & 1 == 0 { Listed::Denied } else { Listed::Allowed } }
    }

    /// With one bit turned.
    fn near(&mut self, address: IpAddr) -> IpAddr {
        let number = self.next();
        match address {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() ^ 1 << (number % 24)).into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() ^ 1 << (number % 90)).into(),
        }
    }
}
