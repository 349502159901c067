//! Services whose packets are rewritten, and where their backends answer.

use lb_common::service::{NAT_BIT, NAT_REPLIES, protocol_bit};
use lb_common::types::Forward;

use super::*;
use crate::desired::DesiredNat;

fn translated(vips: &[&str], ports: Ports) -> Desired {
    let service = DesiredService { forward: Forward::Nat, pool: Some("app".into()), ports, ..service("web", vips, 0) };
    let backend = backend("app", "10.0.0.1:8080", BackendState::Healthy);
    Desired { services: vec![service], backends: vec![backend], ..Desired::default() }
}

fn planned(desired: &Desired, addresses: &[&str]) -> Result<MapState, PlanError> {
    let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
    let workers = Workers::new();
    let mut state = MapState::empty();
    for expects_none in [false, true] {
        let ops = plan(&state, desired, Now { nat_addresses: &addresses, ..now(0, &workers) })?;
        assert!(ops.is_empty() || !expects_none, "a second plan is empty");
        let translation = ops.iter().position(|op| kind(op) == "translation");
        let table = ops.iter().position(|op| kind(op) == "table");
        assert!(translation <= table, "no packet comes before it is known what to do with it");
        ops.iter().for_each(|op| state.record(op));
    }
    Ok(state)
}

#[test]
fn an_address_where_backends_answer_has_a_range_of_no_service_and_is_no_vip() {
    let state = planned(&translated(&["198.51.100.10"], Ports::One(80)), &["10.0.0.254"]).expect("fits");
    assert_eq!(state.nat_addresses().into_iter().map(|ip| ip.to_string()).collect::<Vec<_>>(), ["10.0.0.254"]);
    let replies: Vec<_> = state.ranges.iter().map(|range| (range.service, range.protocol, range.first_port)).collect();
    assert_eq!(replies, [(NAT_REPLIES, 6, 10_000), (NAT_REPLIES, 17, 10_000)]);
    let entry = state.entries.iter().find(|entry| entry.is_nat()).expect("an entry");
    assert!(!entry.is_vip() && !entry.has_protocol(6), "the host's other packets are the host's");
    assert_eq!((state.nat.blocks, state.nat.last_port), (8, 32_767));
}

#[test]
fn an_address_may_be_a_vip_too_where_ports_do_not_meet() {
    let state = planned(&translated(&["10.0.0.254"], Ports::One(80)), &["10.0.0.254"]).expect("fits");
    let entry = state.entries.iter().find(|entry| entry.is_nat()).expect("an entry");
    assert_eq!(entry.protocols, NAT_BIT | protocol_bit(6));
    for (vip, ports) in [
        ("10.0.0.254", Ports::One(10_000)),
        ("10.0.0.254", Ports::Range(9_000, 10_000)),
        ("10.0.0.254", Ports::Any),
        ("10.0.0.0/24", Ports::One(80)),
    ] {
        let refused = planned(&translated(&[vip], ports), &["10.0.0.254"]).expect_err("refused").to_string();
        assert!(refused.contains("give `nat` other addresses or ports"), "{vip} {ports}: {refused}");
    }
}

#[test]
fn what_nat_cannot_do_is_refused() {
    let mut mixed = translated(&["2001:db8::10"], Ports::One(80));
    assert!(refusal(&mixed).contains("not all of the family of its VIPs"));
    mixed.services[0].vips.clear();
    mixed.backends.push(backend("app", "[2001:db8::1]:80", BackendState::Down));
    assert!(refusal(&mixed).contains("not all of the family of its VIPs"));
    let with = |nat| Desired { nat, ..Desired::default() };
    for ports in [(0, 5), (6, 5)] {
        assert!(refusal(&with(DesiredNat { ports, ..DesiredNat::default() })).contains("not in order"));
    }
    let addresses = (1..=9).map(|last| IpAddr::from([10, 0, 0, last])).collect();
    assert!(refusal(&with(DesiredNat { addresses, ..DesiredNat::default() })).contains("NAT addresses of one family"));
}
