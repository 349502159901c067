//! Which tables are written, who points at them, and when they are let go.

use super::super::tables::{NO_TABLE, PREVIOUS_FOR_NS};
use super::*;
use BackendState::{Down, Draining, Healthy};
use lb_common::maps::MAX_TABLES;
use lb_common::types::{Forward, ServiceForward};

fn forwarded(name: &str, vip: &str, pool: &str) -> DesiredService {
    let service = service(name, &[vip], 80);
    DesiredService { forward: Forward::Ipip, pool: Some(pool.to_owned()), ..service }
}

fn web(states: [BackendState; 3]) -> Desired {
    let addresses = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];
    let backends = addresses.iter().zip(states).map(|(address, state)| backend("app", address, state));
    Desired { services: vec![forwarded("web", "192.0.2.1", "app")], backends: backends.collect(), ..Desired::default() }
}

/// The backends in a service's table, by the last digit of their addresses, and in the one before it.
fn tables_of(state: &MapState, service: usize) -> [Vec<u8>; 2] {
    let forward = state.forwards[service];
    [forward.table, forward.previous_table].map(|table| {
        let slot = state.tables[table as usize].as_ref().expect("written");
        let numbers: std::collections::BTreeSet<u16> = slot.places.iter().copied().collect();
        let octet = |number: u16| state.backends[number as usize].address.octets()[15];
        numbers.into_iter().map(octet).collect()
    })
}

fn kinds(ops: &[MapOp]) -> Vec<&'static str> {
    ops.iter().map(kind).collect()
}

#[test]
fn backends_then_their_table_then_the_service_that_points_at_it() {
    let mut state = MapState::empty();
    let ops = carry_out(&mut state, &web([Healthy; 3]));
    let expected = ["pool", "backend", "backend", "backend", "name", "write", "forward", "table"];
    assert_eq!(kinds(&ops), expected, "no local route, and no limits where there are none");
    assert_eq!(tables_of(&state, 0), [vec![1, 2, 3], vec![1, 2, 3]]);
}

#[test]
fn a_change_keeps_the_table_before_it_for_a_while_and_frees_its_slot_then() {
    let mut state = MapState::empty();
    carry_out_at(0, &mut state, &web([Healthy; 3]));
    let changed = web([Healthy, Down, Healthy]);
    let ops = carry_out_at(5, &mut state, &changed);
    assert_eq!(kinds(&ops), ["backend", "write", "forward"]);
    assert_eq!(tables_of(&state, 0), [vec![1, 3], vec![1, 2, 3]]);
    assert!(!state.is_window_over(4 + PREVIOUS_FOR_NS));
    assert_eq!(kinds(&carry_out_at(4 + PREVIOUS_FOR_NS, &mut state, &changed)), [""; 0]);
    assert!(state.is_window_over(5 + PREVIOUS_FOR_NS));
    assert_eq!(kinds(&carry_out_at(5 + PREVIOUS_FOR_NS, &mut state, &changed)), ["forward"]);
    assert_eq!(tables_of(&state, 0), [vec![1, 3], vec![1, 3]]);
}

#[test]
fn a_table_that_is_still_there_is_pointed_at_again_instead_of_written() {
    let mut state = MapState::empty();
    carry_out(&mut state, &web([Healthy; 3]));
    carry_out(&mut state, &web([Healthy, Down, Healthy]));
    let ops = carry_out(&mut state, &web([Healthy; 3]));
    assert_eq!(kinds(&ops), ["backend", "forward"]);
    assert_eq!(tables_of(&state, 0), [vec![1, 2, 3], vec![1, 3]]);
}

#[test]
fn who_takes_new_flows_depends_on_states_and_weights() {
    for (states, takers) in [
        ([Healthy, Draining, Down], vec![1]),
        ([Down, Draining, Down], vec![1, 3]),
        ([Draining, Draining, Draining], vec![1, 2, 3]),
        ([Down, Down, Down], vec![1, 2, 3]),
    ] {
        let mut state = MapState::empty();
        carry_out(&mut state, &web(states));
        assert_eq!(tables_of(&state, 0)[0], takers, "{states:?}");
    }
    let mut weighted = web([Healthy; 3]);
    weighted.backends[2].weight = 0;
    let mut state = MapState::empty();
    carry_out(&mut state, &weighted);
    assert_eq!(tables_of(&state, 0)[0], [1, 2]);
    weighted.backends.iter_mut().for_each(|backend| backend.weight = 0);
    carry_out(&mut state, &weighted);
    assert_eq!(state.forwards[0].table, NO_TABLE);
}

#[test]
fn services_with_the_same_backends_share_a_table() {
    let mut desired = web([Healthy; 3]);
    desired.services.push(forwarded("other", "192.0.2.2", "app"));
    let mut state = MapState::empty();
    let ops = carry_out(&mut state, &desired);
    assert_eq!(kinds(&ops).iter().filter(|kind| **kind == "write").count(), 1);
    assert_eq!(state.forwards[0].table, state.forwards[1].table);
}

#[test]
fn tables_of_an_earlier_run_are_known_again_by_what_they_hold() {
    let mut state = MapState::empty();
    carry_out(&mut state, &web([Healthy; 3]));
    for slot in state.tables.iter_mut().flatten() {
        slot.members = None;
    }
    assert_eq!(kinds(&carry_out(&mut state, &web([Healthy; 3]))), [""; 0]);
}

#[test]
fn an_index_that_changes_hands_remembers_no_table_of_the_other_service() {
    let mut state = MapState::empty();
    let mut desired = web([Healthy; 3]);
    desired.backends.push(backend("new", "10.0.0.9:80", Healthy));
    carry_out(&mut state, &desired);
    desired.services = vec![forwarded("fresh", "192.0.2.1", "new")];
    carry_out(&mut state, &desired);
    assert_eq!(tables_of(&state, 0), [vec![9], vec![9]]);
    desired.services.clear();
    carry_out(&mut state, &desired);
    assert_eq!(state.forwards[0], ServiceForward::FREE);
}

#[test]
fn with_as_many_backend_sets_as_fit_changes_go_on_and_one_more_is_refused() {
    let sets = MAX_TABLES - 1;
    let desired = |count: usize, state: BackendState| {
        let pool = |number: usize| format!("pool-{number}");
        let addresses = |number: usize| [1, 2].map(|last| format!("10.{}.{}.{last}:80", number / 256, number % 256));
        let services = (0..count).map(|number| {
            forwarded(&format!("s{number}"), &format!("192.0.{}.{}", 2 + number / 250, 1 + number % 250), &pool(number))
        });
        let backends = (0..count).flat_map(|number| {
            let [one, two] = addresses(number);
            [backend(&pool(number), &one, Healthy), backend(&pool(number), &two, state)]
        });
        Desired { services: services.collect(), backends: backends.collect(), ..Desired::default() }
    };
    let mut state = MapState::empty();
    carry_out(&mut state, &desired(sets, Healthy));
    carry_out(&mut state, &desired(sets, Down));
    let all_moved = (0..sets).all(|service| state.tables[state.forwards[service].table as usize].is_some());
    assert!(all_moved);
    let text = refusal(&desired(sets + 1, Healthy));
    assert_eq!(text, "256 different sets of backends are more than the 255 that fit");
}
