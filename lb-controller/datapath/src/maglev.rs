//! Maglev tables: which backend each of [`MAGLEV_SIZE`] places leads to (Eisenbud et al., NSDI 2016, §3.4), with
//! weights that are kept exactly.
//!
//! A server's preferences for places depend on its own address and port and on nothing else: not on its number, not on
//! who else is there, not on the order of a list. So the tables of two load balancers agree, and a server that leaves
//! and comes back finds its old places.

use std::collections::BinaryHeap;
use std::net::SocketAddr;

use lb_common::Address;
use lb_common::hash::server_hashes;
use lb_common::maps::MAGLEV_SIZE;

/// A server that takes part in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// What decides about its places.
    pub address: SocketAddr,
    /// Its share is this in proportion to the sum of all, exact to one place; 0 gives it none.
    pub weight: u32,
    /// What its places hold: its number in `BACKENDS`.
    pub backend: u16,
}

/// [`MAGLEV_SIZE`] backends; `None` if nobody has a weight. Members are at most that many, with different addresses.
pub fn build(members: &[Member]) -> Option<Vec<u16>> {
    let mut members: Vec<Member> = members.iter().filter(|member| member.weight > 0).copied().collect();
    // An order that does not depend on the list: whoever comes first in a round has the first choice.
    members.sort_unstable();
    let shares = shares(&members)?;
    let mut preferences: Vec<Preferences> = members.iter().map(Preferences::of).collect();
    let mut places = vec![None; MAGLEV_SIZE];
    for turn in turns(&shares) {
        let member = turn as usize;
        let place = preferences[member].next_free(&places);
        places[place] = Some(members[member].backend);
    }
    // As many turns as places, and each turn takes one.
    places.into_iter().collect()
}

/// Of the places that did not lead to `gone`, how many per cent lead elsewhere in `after` than in `before`.
pub fn moved_percent(before: &[u16], after: &[u16], gone: u16) -> f64 {
    let others = || before.iter().zip(after).filter(|(before, _)| **before != gone);
    let moved = others().filter(|(before, after)| before != after).count();
    100.0 * moved as f64 / others().count().max(1) as f64
}

/// A server's walk over all places in an order of its own.
struct Preferences {
    next: usize,
    step: usize,
}

impl Preferences {
    fn of(member: &Member) -> Self {
        let [offset, step] = server_hashes(Address::from(member.address.ip()), member.address.port());
        let size = MAGLEV_SIZE as u64;
        // The size is a prime: any step but 0 visits every place.
        Self { next: (offset % size) as usize, step: (step % (size - 1)) as usize + 1 }
    }

    fn next_free(&mut self, places: &[Option<u16>]) -> usize {
        loop {
            let place = self.next;
            self.next += self.step;
            if self.next >= MAGLEV_SIZE {
                self.next -= MAGLEV_SIZE;
            }
            if places[place].is_none() {
                return place;
            }
        }
    }
}

/// How many places each member gets: its quota rounded down, and one more for those whose quota lost most by that.
fn shares(members: &[Member]) -> Option<Vec<u32>> {
    let size = MAGLEV_SIZE as u64;
    let sum: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
    if sum == 0 {
        return None;
    }
    let quotas = members.iter().map(|member| u64::from(member.weight) * size);
    let (mut shares, lost): (Vec<u32>, Vec<u64>) = quotas.map(|quota| ((quota / sum) as u32, quota % sum)).unzip();
    let left = MAGLEV_SIZE - shares.iter().map(|share| *share as usize).sum::<usize>();
    let preference = |index: usize| {
        let address = members[index].address;
        server_hashes(Address::from(address.ip()), address.port())
    };
    let mut by_loss: BinaryHeap<_> =
        lost.iter().enumerate().map(|(index, lost)| (*lost, preference(index), index)).collect();
    for _ in 0..left {
        let (_, _, index) = by_loss.pop()?;
        shares[index] += 1;
    }
    Some(shares)
}

/// In which order members take places, as indices: a member of double share has two turns in the time that another has
/// one.
fn turns(shares: &[u32]) -> Vec<u16> {
    let rounds = shares.iter().copied().max().unwrap_or(0) as u64;
    let round = |turn: u32, share: u32| ((u64::from(turn) + 1) * rounds).div_ceil(u64::from(share)) as usize - 1;
    let each = || {
        let members = (0_u16..).zip(shares);
        members.flat_map(move |(member, share)| (0..*share).map(move |turn| (round(turn, *share), member)))
    };
    // Sorted by round and then member, by counting: there are as many turns as places.
    let mut starts = vec![0_usize; rounds as usize + 1];
    each().for_each(|(round, _)| starts[round + 1] += 1);
    for round in 1..starts.len() {
        starts[round] += starts[round - 1];
    }
    let mut turns = vec![0; MAGLEV_SIZE];
    for (round, member) in each() {
        turns[starts[round]] = member;
        starts[round] += 1;
    }
    turns
}

#[cfg(test)]
mod tests;
