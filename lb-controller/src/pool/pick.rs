//! One backend for one request, at a cost that does not depend on how many there are.

use std::sync::Arc;

use fastrand::Rng;
use lb_common::Source;
use lb_common::hash::maglev_place;

use super::Pool;
use super::backend::{Backend, InFlight, now_ms};
use super::selection::{Reach, Selection, Taking};
use crate::config::Balance;

/// Backends that are drawn before the rest are looked at one by one: more than that fail only where most are out.
const DRAWS: usize = 8;

/// Backends that are looked at one by one. A large pool of which so many in a row are out has bigger worries than one that
/// was not found.
const LOOKS: usize = 64;

/// Why no backend takes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPick {
    /// None that may take it is left.
    Nobody,
    /// Those that are left have as much as they may have.
    Busy,
}

/// What the choice of a backend goes by, besides the backends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    /// Of what the request has in common with others that belong to the same backend.
    pub hash: Option<u64>,
    /// Who served this client before.
    pub stuck_to: Option<&'a Arc<Backend>>,
}

impl Pool {
    /// The backend for the next request, none of those in `avoid`; it counts as under way from here on. A request that finds
    /// all of them busy waits in the line of its `source`, where there is one.
    pub async fn pick_or_wait(
        &self,
        wish: &Wish<'_>,
        avoid: &[Arc<Backend>],
        source: Source,
    ) -> Result<InFlight, NoPick> {
        let (line, limits) = (self.shared.queue(), &self.limits);
        if limits.most_requests(self.dial.protocol).is_none() || limits.queue_length == 0 {
            return self.pick(wish, avoid);
        }
        // Nobody overtakes those that wait.
        if line.waiting() == 0 {
            match self.pick(wish, avoid) {
                Err(NoPick::Busy) => {}
                picked => return picked,
            }
        }
        let Some(place) = line.enter(source, limits.queue_length) else { return Err(NoPick::Busy) };
        let attempt = || match self.pick(wish, avoid) {
            Err(NoPick::Busy) => None,
            picked => Some(picked),
        };
        let waited = tokio::time::timeout(limits.queue_timeout, place.wait(attempt)).await;
        waited.ok().flatten().unwrap_or(Err(NoPick::Busy))
    }

    /// The same without waiting.
    pub fn pick(&self, wish: &Wish<'_>, avoid: &[Arc<Backend>]) -> Result<InFlight, NoPick> {
        let picked = self.pick_from(&self.selection.load(), wish, avoid, &mut Rng::new());
        if picked.is_err() && self.shared.is_stale() {
            // The selection is of a moment before. Others may have to stand in now, and this request cannot wait for that.
            self.refresh();
            return self.pick_from(&self.selection.load(), wish, avoid, &mut Rng::new());
        }
        picked
    }

    pub(super) fn pick_from(
        &self,
        selection: &Selection,
        wish: &Wish<'_>,
        avoid: &[Arc<Backend>],
        random: &mut Rng,
    ) -> Result<InFlight, NoPick> {
        let draw = Draw { pool: self, selection, avoid };
        if let Some(stuck) = wish.stuck_to.filter(|stuck| draw.may_take(stuck)) {
            match InFlight::try_begin(stuck) {
                Some(begun) => return Ok(begun),
                // A client that is to stay waits rather than go elsewhere.
                None if self.limits.queue_length > 0 => return Err(NoPick::Busy),
                None => {}
            }
        }
        if selection.turns.is_empty() {
            return Err(NoPick::Nobody);
        }
        // Another worker may be quicker to take the last place of one.
        let picked = (0..DRAWS).find_map(|_| {
            let drawn = draw.by_balance(wish.hash, random);
            let taking = drawn.or_else(|| draw.any(random.usize(..selection.members.len()), Backend::has_room));
            taking.map(|taking| InFlight::try_begin(&taking.backend)).unwrap_or(None)
        });
        picked.ok_or_else(|| match draw.any(0, |_| true) {
            Some(_) => NoPick::Busy,
            None => NoPick::Nobody,
        })
    }
}

struct Draw<'a> {
    pool: &'a Pool,
    selection: &'a Selection,
    avoid: &'a [Arc<Backend>],
}

impl<'a> Draw<'a> {
    /// As the pool chooses; `None`: too many that were drawn may take nothing.
    fn by_balance(&self, hash: Option<u64>, random: &mut Rng) -> Option<&'a Taking> {
        match (&self.pool.balance, hash) {
            (Balance::Hash(_), Some(hash)) if !self.selection.places.is_empty() => self.by_hash(hash),
            (Balance::RoundRobin, _) => self.in_turn(),
            (Balance::Latency, _) => {
                self.better_of_two(random, |_| true, |first, second| self.is_sooner(first, second))
            }
            // Requests without what they are spread by are spread as most are.
            (Balance::LeastRequest | Balance::Hash(_), _) => self.better_of_two(random, is_busy, is_less_busy),
        }
    }

    /// Whether it may have a request in this moment: the selection may be older than its last check.
    fn may_take(&self, backend: &Arc<Backend>) -> bool {
        let is_up = backend.is_available() || self.selection.reach == Reach::Panic;
        is_up && !self.avoid.iter().any(|avoided| Arc::ptr_eq(avoided, backend))
    }

    fn member(&self, index: u16) -> Option<&'a Taking> {
        let member = self.selection.members.get(usize::from(index))?;
        (self.may_take(&member.backend) && member.backend.has_room()).then_some(member)
    }

    /// Each further try is a place of its own, the same for all requests of this hash: while its first backend is out,
    /// they have the same second one.
    fn by_hash(&self, hash: u64) -> Option<&'a Taking> {
        let places = &self.selection.places;
        (0..DRAWS as u64).map(|attempt| spread(hash, attempt)).find_map(|hash| self.member(places[maglev_place(hash)]))
    }

    fn in_turn(&self) -> Option<&'a Taking> {
        let turns = &self.selection.turns;
        (0..DRAWS).find_map(|_| self.member(turns[self.pool.shared.next_turn() % turns.len()]))
    }

    /// Two that differ are drawn by weight; `is_better` says whether the second is to be preferred. Without such a
    /// reason it is the first, so that without load the shares are the weights. Of a first that is not `worth_comparing`
    /// no second is drawn: among thousands, to look at one more is to fetch it from memory.
    fn better_of_two(
        &self,
        random: &mut Rng,
        worth_comparing: impl Fn(&Taking) -> bool,
        is_better: impl Fn(&Taking, &Taking) -> bool,
    ) -> Option<&'a Taking> {
        let turns = &self.selection.turns;
        let first_index = (0..DRAWS).find_map(|_| {
            let index = turns[random.usize(..turns.len())];
            self.member(index).map(|_| index)
        })?;
        let first = &self.selection.members[usize::from(first_index)];
        if !worth_comparing(first) {
            return Some(first);
        }
        match self.another(first_index, random) {
            Some(second) if is_better(first, second) => Some(second),
            _ => Some(first),
        }
    }

    /// One that is not the first.
    fn another(&self, first: u16, random: &mut Rng) -> Option<&'a Taking> {
        let (turns, count) = (&self.selection.turns, self.selection.members.len());
        // Where one has most of the weight it is drawn again and again; then it is any of the others.
        let drawn = (0..2).map(|_| turns[random.usize(..turns.len())]).find(|index| *index != first);
        if count < 2 {
            return None;
        }
        let any = (usize::from(first) + 1 + random.usize(..count - 1)) % count;
        self.member(drawn.unwrap_or(any as u16))
    }

    /// Whether the second is expected to answer sooner, with what is under way before it.
    fn is_sooner(&self, first: &Taking, second: &Taking) -> bool {
        let now_ms = now_ms();
        let cost = |taking: &Taking| {
            let in_flight = f64::from(taking.backend.in_flight());
            match taking.backend.latency().expected_us(now_ms) {
                Some(us) => f64::from(us) * (in_flight * self.selection.mean_weight / f64::from(taking.weight) + 1.0),
                // One request finds out what it takes; until then it gets no second one.
                None if in_flight == 0.0 => -1.0,
                None => f64::INFINITY,
            }
        };
        cost(second) < cost(first)
    }

    /// From `start` on, whoever may take it and is `fit`.
    fn any(&self, start: usize, fit: impl Fn(&Backend) -> bool) -> Option<&'a Taking> {
        let members = &self.selection.members;
        let looks = (0..members.len().min(LOOKS)).map(|step| &members[(start + step) % members.len()]);
        looks.into_iter().find(|member| self.may_take(&member.backend) && fit(&member.backend))
    }
}

/// Nobody is less busy than one with nothing under way.
fn is_busy(first: &Taking) -> bool {
    first.backend.in_flight() > 0
}

/// Whether the second, with one request more, would still have no more for its weight than the first has now. Without
/// load that is never so, and in a steady state what is under way follows the weights.
fn is_less_busy(first: &Taking, second: &Taking) -> bool {
    let (of_first, of_second) = (u64::from(first.backend.in_flight()), u64::from(second.backend.in_flight()));
    (of_second + 1) * u64::from(first.weight) <= of_first * u64::from(second.weight)
}

/// Uniform over `u64`, another one for each attempt (the finalizer of SplitMix64, whose first attempt only mixes).
pub(super) fn spread(hash: u64, attempt: u64) -> u64 {
    let mut mixed = hash.wrapping_add(attempt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// Of bytes that belong together; the same on every load balancer (FNV-1a, which [`spread`] makes uniform). No secret is in
/// it: whoever aims many requests at one backend can as well send all of them with the same key.
pub fn hash_of(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests;
