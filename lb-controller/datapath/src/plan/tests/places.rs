//! VIPs, ports and protocols: what the table of services and its ranges hold, and what they cannot.

use super::*;
use crate::desired::Protocols;
use lb_common::service::{PREFIX_WHOLE, WHOLE_ADDRESS};
use lb_common::types::Forward;

fn at(name: &str, vip: &str, ports: Ports, protocols: Protocols) -> DesiredService {
    DesiredService { ports, protocols, ..service(name, &[vip], 1) }
}

#[test]
fn a_vip_has_one_entry_as_a_whole_that_leads_to_its_ranges() {
    let mut state = MapState::empty();
    let services = vec![
        at("exact", "192.0.2.1", Ports::One(53), Protocols::BOTH),
        at("range", "192.0.2.1", Ports::Range(50, 60), Protocols::UDP),
        at("any", "192.0.2.1", Ports::Any, Protocols::TCP),
        at("around", "192.0.2.0/24", Ports::Any, Protocols::BOTH),
    ];
    carry_out(&mut state, &only_services(services));
    let whole = |kind| {
        let mut found = state.entries.iter().filter(move |entry| entry.kind == kind);
        let entry = *found.next().expect("an entry");
        assert!(found.next().is_none(), "one only");
        let ranges = entry.ranges_start as usize..(entry.ranges_start + entry.ranges_count) as usize;
        let ranges = state.ranges[ranges].iter();
        let names = ranges.map(|range| {
            let name = state.service_names[range.service as usize].clone().expect("named");
            (name, range.protocol, range.first_port, range.last_port)
        });
        (entry.protocols, names.collect::<Vec<_>>())
    };
    let expected = vec![(String::from("any"), 6, 1, 65_535), (String::from("range"), 17, 50, 60)];
    assert_eq!(whole(WHOLE_ADDRESS), (3, expected));
    let expected = vec![(String::from("around"), 6, 1, 65_535), (String::from("around"), 17, 1, 65_535)];
    assert_eq!(whole(PREFIX_WHOLE), (3, expected));
    assert_eq!(endpoints(&state).len(), 2, "TCP and UDP");
}

#[test]
fn only_local_services_make_their_vips_local() {
    let mut desired = only_services(vec![service("l7", &["192.0.2.1", "198.51.100.0/24"], 80)]);
    let forwarded = service("l4", &["192.0.2.1", "192.0.2.2"], 81);
    desired.services.push(DesiredService { forward: Forward::L2, pool: Some("app".into()), ..forwarded });
    desired.backends.push(backend("app", "10.0.0.1:80", BackendState::Healthy));
    let mut state = MapState::empty();
    carry_out(&mut state, &desired);
    let routes: Vec<String> = state.routes.iter().map(ToString::to_string).collect();
    assert_eq!(routes, ["192.0.2.1", "198.51.100.0/24"]);
    desired.services[0] =
        DesiredService { forward: Forward::L2, pool: Some("app".into()), ..desired.services[0].clone() };
    carry_out(&mut state, &desired);
    assert!(state.routes.is_empty());
}

#[test]
fn what_claims_the_same_packets_or_leads_nowhere_is_refused() {
    let one = |ports, protocols| at("a", "192.0.2.1", ports, protocols);
    let other = |ports, protocols| at("b", "192.0.2.1", ports, protocols);
    let pool = |forward, pool: Option<&str>| DesiredService {
        forward,
        pool: pool.map(str::to_owned),
        ..one(Ports::One(1), Protocols::TCP)
    };
    let rows = [
        (
            vec![one(Ports::Range(1, 9), Protocols::BOTH), other(Ports::Range(9, 10), Protocols::UDP)],
            "services \"a\" and \"b\" both claim 192.0.2.1:1-9/udp",
        ),
        (
            vec![one(Ports::Any, Protocols::TCP), other(Ports::Any, Protocols::TCP)],
            "services \"a\" and \"b\" both claim 192.0.2.1:any",
        ),
        (vec![one(Ports::Range(9, 1), Protocols::TCP)], "service \"a\" has ports 9-1, which are none or not in order"),
        (vec![one(Ports::Any, Protocols { tcp: false, udp: false })], "service \"a\" has neither TCP nor UDP"),
        (
            vec![pool(Forward::Ipip, None)],
            "service \"a\" forwards packets, which needs a pool, or is local, which has none",
        ),
        (
            vec![pool(Forward::Local, Some("x"))],
            "service \"a\" forwards packets, which needs a pool, or is local, which has none",
        ),
        (vec![pool(Forward::Gue, Some("x"))], "service \"a\" forwards to pool \"x\", which has no backend"),
        (
            vec![service("a", &["::/0"], 1)],
            "VIP ::/0 of service \"a\" is not a unicast address or network that can be routed",
        ),
    ];
    for (services, expected) in rows {
        assert_eq!(refusal(&only_services(services)), expected);
    }
    let many = (0..17).map(|number| {
        at(&number.to_string(), "192.0.2.1", Ports::Range(2 * number + 1, 2 * number + 2), Protocols::TCP)
    });
    let text = refusal(&only_services(many.collect()));
    assert_eq!(text, "VIP 192.0.2.1 has 17 port ranges, more than the 16 that fit");
    for (one, other) in [
        (one(Ports::Range(1, 9), Protocols::TCP), other(Ports::Range(1, 9), Protocols::UDP)),
        (one(Ports::Range(1, 9), Protocols::TCP), other(Ports::One(5), Protocols::TCP)),
        (one(Ports::Any, Protocols::TCP), at("b", "192.0.2.0/24", Ports::Any, Protocols::TCP)),
    ] {
        carry_out(&mut MapState::empty(), &only_services(vec![one, other]));
    }
}
