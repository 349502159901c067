mod nat;
mod places;
mod tables;

use super::*;
use crate::desired::{DesiredBackend, DesiredService, Rate, Rates, Sampling};
use lb_common::types::BackendState;
use lb_common::types::{ServiceEntry, SharedRateLimits};

static NO_ADDRESSES: BTreeSet<IpAddr> = BTreeSet::new();

const MACHINE: Machine = Machine { clock_tick_ns: 4_000_000, cpus: 2 };

fn service(name: &str, vips: &[&str], port: u16) -> DesiredService {
    let vips = vips.iter().map(|vip| vip.parse().expect("a VIP")).collect();
    DesiredService { name: name.to_owned(), vips, ports: Ports::One(port), ..DesiredService::default() }
}

fn backend(pool: &str, address: &str, state: BackendState) -> DesiredBackend {
    DesiredBackend { pool: pool.to_owned(), address: address.parse().expect("an address"), weight: 1, state }
}

fn only_services(services: Vec<DesiredService>) -> Desired {
    Desired { services, ..Desired::default() }
}

fn only_backends(backends: Vec<DesiredBackend>) -> Desired {
    Desired { backends, ..Desired::default() }
}

/// Plans, carries out in memory, and checks that nothing is left to do.
fn carry_out(state: &mut MapState, desired: &Desired) -> Vec<MapOp> {
    carry_out_at(0, state, desired)
}

fn carry_out_at(monotonic_ns: u64, state: &mut MapState, desired: &Desired) -> Vec<MapOp> {
    let ops = plan(state, desired, now(monotonic_ns, &Workers::new())).expect("fits");
    ops.iter().for_each(|op| state.record(op));
    assert_eq!(plan(state, desired, now(monotonic_ns, &Workers::new())), Ok(Vec::new()), "a second plan is empty");
    ops
}

fn now(monotonic_ns: u64, workers: &Workers) -> Now<'_> {
    Now { workers, machine: MACHINE, monotonic_ns, nat_addresses: &NO_ADDRESSES, nat_blocks: 8 }
}

fn refusal(desired: &Desired) -> String {
    plan(&MapState::empty(), desired, now(0, &Workers::new())).expect_err("refused").to_string()
}

fn endpoints(state: &MapState) -> Vec<(String, u16)> {
    let is_endpoint = |entry: &&ServiceEntry| entry.kind == lb_common::service::ENDPOINT;
    let text = |entry: &ServiceEntry| (IpAddr::from(entry.address).to_string(), entry.service);
    state.entries.iter().filter(is_endpoint).map(text).collect()
}

#[test]
fn a_new_service_gets_its_name_and_limits_before_packets_can_find_it() {
    let mut limited = service("web", &["198.51.100.10", "2001:db8::10"], 443);
    limited.limits.source = Rates::of_packets(Rate { per_second: 1000, burst: 100 });
    let ops = carry_out(&mut MapState::empty(), &only_services(vec![limited]));
    let kinds: Vec<_> = ops.iter().map(kind).collect();
    assert_eq!(kinds, ["name", "limits", "table", "route", "route"]);
}

fn kind(op: &MapOp) -> &'static str {
    match op {
        MapOp::NameService { .. } => "name",
        MapOp::SetLimits { .. } => "limits",
        MapOp::SetNat { .. } => "translation",
        MapOp::LimitNewFlows { .. } => "new flows",
        MapOp::Sample { .. } => "samples",
        MapOp::SetCookies { .. } => "cookies",
        MapOp::ReplaceServices { .. } => "table",
        MapOp::SetServerId { .. } => "server id",
        MapOp::RemoveServerId { .. } => "no server id",
        MapOp::FreeService { .. } => "free",
        MapOp::SetTier { .. } => "tier",
        MapOp::AddRoute { .. } => "route",
        MapOp::RemoveRoute { .. } => "unroute",
        MapOp::NamePool { .. } => "pool",
        MapOp::FreePool { .. } => "free pool",
        MapOp::SetBackend { .. } => "backend",
        MapOp::WriteTable { .. } => "write",
        MapOp::SetForward { .. } => "forward",
    }
}

#[test]
fn a_removed_service_leaves_the_table_before_its_index_is_freed() {
    let mut state = MapState::empty();
    carry_out(&mut state, &only_services(vec![service("a", &["192.0.2.1"], 80), service("b", &["192.0.2.2"], 80)]));
    let ops = carry_out(&mut state, &only_services(vec![service("b", &["192.0.2.2"], 80)]));
    assert_eq!(ops.iter().map(kind).collect::<Vec<_>>(), ["table", "free", "unroute"]);
    assert_eq!(endpoints(&state), [(String::from("192.0.2.2"), 1)], "the other keeps its index");
}

#[test]
fn a_service_that_takes_over_an_index_starts_without_the_others_past() {
    let mut state = MapState::empty();
    let mut old = service("old", &["192.0.2.1"], 80);
    old.limits.service = Rates::of_packets(Rate { per_second: 5, burst: 5 });
    carry_out(&mut state, &only_services(vec![old]));
    let ops = carry_out(&mut state, &only_services(vec![service("new", &["192.0.2.1"], 80)]));
    assert_eq!(ops.iter().map(kind).collect::<Vec<_>>(), ["table", "free", "name", "limits", "table"]);
    assert_eq!(state.limits[0].service, SharedRateLimits::UNLIMITED);
    assert_eq!(endpoints(&state), [(String::from("192.0.2.1"), 0)]);
}

#[test]
fn new_limits_touch_nothing_but_the_limits() {
    let mut state = MapState::empty();
    let mut web = service("web", &["192.0.2.1"], 80);
    carry_out(&mut state, &only_services(vec![web.clone()]));
    web.limits.verified = Rate { per_second: 10, burst: 1 };
    let ops = carry_out(&mut state, &only_services(vec![web]));
    assert_eq!(ops.iter().map(kind).collect::<Vec<_>>(), ["limits"]);
}

#[test]
fn the_limit_of_new_flows_is_nobodys_service() {
    let mut state = MapState::empty();
    let limited = Desired { new_flows: Rate { per_second: 1000, burst: 100 }, ..Desired::default() };
    assert_eq!(carry_out(&mut state, &limited).iter().map(kind).collect::<Vec<_>>(), ["new flows"]);
    assert_eq!(carry_out(&mut state, &Desired::default()).iter().map(kind).collect::<Vec<_>>(), ["new flows"]);
    assert_eq!(state, MapState::empty());
}

#[test]
fn workers_that_begin_to_listen_replace_the_table_only() {
    let desired = only_services(vec![service("web", &["192.0.2.1"], 80)]);
    let mut state = MapState::empty();
    carry_out(&mut state, &desired);
    let workers = Workers::from([(String::from("web"), 4)]);
    let ops = plan(&state, &desired, now(0, &workers)).expect("fits");
    let [MapOp::ReplaceServices { entries, .. }] = ops.as_slice() else { panic!("{ops:?}") };
    assert!(entries.iter().any(|entry| entry.workers == 4));
}

#[test]
fn what_no_map_can_hold_is_refused_by_name() {
    let long = "n".repeat(Name::MAX_BYTES + 1);
    let rows = [
        (vec![service("", &["192.0.2.1"], 80)], "the name \"\" of a service is empty or longer than 64 bytes"),
        (
            vec![service(&long, &["192.0.2.1"], 80)],
            &*format!("the name {long:?} of a service is empty or longer than 64 bytes"),
        ),
        (vec![service("a", &["192.0.2.1"], 0)], "service \"a\" has ports 0, which are none or not in order"),
        (
            vec![service("a", &["224.0.0.1"], 80)],
            "VIP 224.0.0.1 of service \"a\" is not a unicast address or network that can be routed",
        ),
        (
            vec![service("a", &["::"], 80)],
            "VIP :: of service \"a\" is not a unicast address or network that can be routed",
        ),
        (vec![service("a", &[], 80), service("a", &[], 81)], "two services are called \"a\""),
        (
            vec![service("a", &["192.0.2.1"], 80), service("b", &["::ffff:192.0.2.1"], 80)],
            "services \"a\" and \"b\" both claim 192.0.2.1:80",
        ),
    ];
    for (services, expected) in rows {
        assert_eq!(refusal(&only_services(services)), expected);
    }
    let too_many = (0..257).map(|number| service(&number.to_string(), &[], 80)).collect();
    assert_eq!(refusal(&only_services(too_many)), "257 services are more than the 256 that fit");
}

#[test]
fn a_backend_keeps_its_slot_when_its_neighbours_and_its_health_change() {
    let mut state = MapState::empty();
    let [one, two, three] = ["10.0.0.1:80", "10.0.0.2:80", "[2001:db8::3]:80"];
    use BackendState::{Down, Draining, Healthy};
    carry_out(&mut state, &only_backends(vec![backend("app", one, Healthy), backend("app", two, Healthy)]));
    let before = state.backends[1];
    let ops = carry_out(&mut state, &only_backends(vec![backend("app", two, Down), backend("app", three, Draining)]));
    assert_eq!(state.backends[1].address, before.address);
    assert_eq!(state.backends[1].state, Down.to_number());
    assert_eq!(ops.iter().map(kind).collect::<Vec<_>>(), ["backend", "backend", "backend"]);
    assert_eq!(
        IpAddr::from(state.backends[2].address).to_string(),
        "2001:db8::3",
        "flows may still name the freed slot"
    );
    let ops = carry_out(&mut state, &Desired::default());
    assert_eq!(ops.iter().map(kind).collect::<Vec<_>>(), ["backend", "backend", "free pool"]);
    assert_eq!(state.backends.iter().map(|entry| entry.freed_order).collect::<Vec<_>>()[..4], [1, 2, 3, 0]);
    state.backends.fill(BackendEntry::FREE);
    assert_eq!(state, MapState::empty());
}

#[test]
fn the_same_server_in_two_pools_is_two_backends() {
    let mut state = MapState::empty();
    let both = ["a", "b"].map(|pool| backend(pool, "10.0.0.1:80", BackendState::Healthy));
    carry_out(&mut state, &only_backends(both.to_vec()));
    assert_eq!(state.backends.iter().filter(|entry| entry.state != 0).count(), 2);
}

#[test]
fn a_full_table_of_entries_can_be_built() {
    let vips: Vec<String> = (0..1024).map(|number| format!("10.0.{}.{}", number / 256, number % 256)).collect();
    let vips: Vec<&str> = vips.iter().map(String::as_str).collect();
    let mut state = MapState::empty();
    carry_out(&mut state, &only_services(vec![service("web", &vips, 80)]));
    let table = build_table(&state.entries).expect("a seed exists");
    let find = |entry: &ServiceEntry| lb_common::service::find(&entry.key(), table.seed, |slot| table.slots.get(slot));
    assert!(state.entries.iter().all(|entry| find(entry) == Some(entry)));
}

#[test]
fn what_is_sampled_is_written_once_it_is_another() {
    let mut state = MapState::empty();
    let sampling = Sampling { per_second: 0, let_in_one_in: 65 };
    let ops = carry_out(&mut state, &Desired { sampling, ..Desired::default() });
    let [MapOp::Sample { policy }] = ops[..] else { panic!("{ops:?}") };
    assert_eq!((policy.rate.cost_ps, policy.let_in_looks), (0, 2), "none, and whole steps");
    assert_eq!(carry_out(&mut state, &Desired::default()).len(), 1);
    assert_eq!(state, MapState::empty());
}

#[test]
fn a_tier_is_the_same_in_any_order_and_comes_after_the_services_it_sends_to() {
    let prefix = |address: &str| crate::lists::Prefix::new(address.parse().expect("an address"), 32).expect("a prefix");
    let of = |from: &[&str]| Tier { from: from.iter().map(|one| prefix(one)).collect(), gue_port: 6080 };
    let mut desired = only_services(vec![service("a", &["192.0.2.1"], 80)]);
    desired.tier = Some(of(&["10.0.0.2", "10.0.0.1", "10.0.0.2"]));
    let mut state = MapState::empty();
    let ops = carry_out(&mut state, &desired);
    assert_eq!(ops.iter().map(kind).next_back(), Some("tier"));
    desired.tier = Some(of(&["10.0.0.1", "10.0.0.2"]));
    assert_eq!(carry_out(&mut state, &desired), []);
    desired.tier = None;
    assert_eq!(carry_out(&mut state, &desired), [MapOp::SetTier { tier: None }]);
}
