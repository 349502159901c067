use super::*;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};
use std::vec::Vec;

/// Hashes of one bucket.
fn hash(number: u64) -> u64 {
    number << BACKEND_BITS
}

fn full_of_confirmed() -> FlowBucket {
    let mut bucket = FlowBucket::EMPTY;
    for number in 0..SLOTS as u64 {
        assert!(bucket.insert(hash(number), number as u16, || 0));
        let flow = bucket.find(hash(number)).expect("inserted");
        bucket.confirm(flow);
    }
    bucket
}

#[test]
fn the_lowest_bit_of_seven_is_found() {
    for bits in 1..1_u64 << SLOTS {
        assert_eq!(lowest_bit(bits), bits.trailing_zeros(), "{bits:b}");
    }
}

#[test]
fn a_bucket_is_one_cache_line() {
    assert_eq!(size_of::<FlowBucket>(), 64);
}

#[test]
fn a_flow_is_found_with_its_backend_and_a_free_slot_never_is() {
    let mut bucket = FlowBucket::EMPTY;
    assert_eq!(bucket.find(0), None);
    for (number, backend) in [(0, 0), (1, 4095), (u64::MAX >> BACKEND_BITS, 7)] {
        bucket.insert(hash(number), backend, || 0);
        assert_eq!(bucket.find(hash(number)).map(|flow| flow.backend), Some(backend), "{number}");
    }
    assert_eq!(bucket.find(hash(2)), None);
}

#[test]
fn any_number_of_new_flows_pushes_out_no_confirmed_one() {
    let mut bucket = FlowBucket::EMPTY;
    for number in 0..3 {
        bucket.insert(hash(number), number as u16, || 0);
        let flow = bucket.find(hash(number)).expect("inserted");
        bucket.confirm(flow);
    }
    for number in 1000..100_000 {
        assert!(bucket.insert(hash(number), 9, || number as u32));
    }
    for number in 0..3 {
        assert_eq!(bucket.find(hash(number)).map(|flow| flow.backend), Some(number as u16));
    }
}

#[test]
fn where_all_are_confirmed_a_new_flow_is_refused_until_one_has_been_idle() {
    let mut bucket = full_of_confirmed();
    assert!(!bucket.insert(hash(100), 1, || AGE_SECONDS - 1), "too early to look");
    assert!(!bucket.insert(hash(100), 1, || AGE_SECONDS), "all were used since the last look");
    for number in 1..SLOTS as u64 {
        let flow = bucket.find(hash(number)).expect("confirmed");
        bucket.confirm(flow);
    }
    assert!(!bucket.insert(hash(100), 1, || 2 * AGE_SECONDS - 1), "at most one look in that time");
    assert!(bucket.insert(hash(100), 1, || 2 * AGE_SECONDS), "the first was idle");
    assert_eq!(bucket.find(hash(0)), None, "and gave way");
    assert!((1..SLOTS as u64).all(|number| bucket.find(hash(number)).is_some()));
}

#[test]
fn a_closed_flow_gives_way_and_until_then_is_known() {
    let mut bucket = full_of_confirmed();
    let flow = bucket.find(hash(3)).expect("confirmed");
    bucket.close(flow);
    assert_eq!(bucket.find(hash(3)).map(|flow| flow.backend), Some(3));
    assert!(bucket.insert(hash(100), 1, || 1));
    assert_eq!(bucket.find(hash(3)), None);
    assert_eq!(bucket.find(hash(100)).map(|flow| flow.backend), Some(1));
}

#[test]
fn a_busy_flow_costs_no_store() {
    let mut bucket = full_of_confirmed();
    let before = bucket;
    let flow = bucket.find(hash(2)).expect("confirmed");
    bucket.confirm(flow);
    assert_eq!(bucket, before);
}

#[derive(Clone, Debug)]
enum Step {
    Packet { flow: u64, is_syn: bool },
    Close { flow: u64 },
    Forget { flow: u64 },
    Wait { seconds: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..20_u64, any::<bool>()).prop_map(|(flow, is_syn)| Step::Packet { flow, is_syn }),
        1 => (0..20_u64).prop_map(|flow| Step::Close { flow }),
        1 => (0..20_u64).prop_map(|flow| Step::Forget { flow }),
        1 => (0..100_u32).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

proptest! {
    /// Against a plain map: what is found has the backend that was inserted last, at most [`SLOTS`] are known, and a
    /// confirmed flow is only ever lost when it was idle for [`AGE_SECONDS`] or closed.
    #[test]
    fn it_never_lies_and_never_forgets_a_living_flow(steps in proptest::collection::vec(step(), 1..300)) {
        let mut bucket = FlowBucket::EMPTY;
        let mut backends = HashMap::new();
        let mut confirmed_at: HashMap<u64, u32> = HashMap::new();
        let mut now = 1000;
        for (number, step) in (0_u16..).zip(steps) {
            match step {
                Step::Wait { seconds } => now += seconds,
                Step::Close { flow } => {
                    if let Some(known) = bucket.find(hash(flow)) {
                        bucket.close(known);
                        confirmed_at.remove(&flow);
                    }
                }
                Step::Forget { flow } => {
                    if let Some(known) = bucket.find(hash(flow)) {
                        bucket.forget(known);
                        confirmed_at.remove(&flow);
                        prop_assert_eq!(bucket.find(hash(flow)), None);
                    }
                }
                Step::Packet { flow, is_syn } => match bucket.find(hash(flow)) {
                    Some(known) => {
                        prop_assert_eq!(Some(&known.backend), backends.get(&flow));
                        if !is_syn {
                            bucket.confirm(known);
                            confirmed_at.insert(flow, now);
                        }
                    }
                    None => {
                        confirmed_at.remove(&flow);
                        if bucket.insert(hash(flow), number, || now) {
                            backends.insert(flow, number);
                            prop_assert_eq!(bucket.find(hash(flow)).map(|known| known.backend), Some(number));
                        }
                    }
                },
            }
            let known: HashSet<u64> = (0..20).filter(|flow| bucket.find(hash(*flow)).is_some()).collect();
            prop_assert!(known.len() <= SLOTS);
            let living = confirmed_at.iter().filter(|(_, used)| now - **used < AGE_SECONDS).map(|(flow, _)| *flow);
            let lost: Vec<u64> = living.filter(|flow| !known.contains(flow)).collect();
            prop_assert!(lost.is_empty(), "lost {lost:?}");
        }
    }
}
