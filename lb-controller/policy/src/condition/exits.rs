//! Where evaluation goes on from a step.

/// How many steps further evaluation goes on when the test holds and when it does not, each in 15 bits; and what a missing
/// fact is to be taken for. In one word, so that a step fits a quarter of a line of the cache.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exits(u32);

/// Where evaluation goes on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Next {
    /// That many steps further.
    Ahead(usize),
    /// Nowhere: the condition holds or does not.
    End(bool),
}

/// As [`Exits`], before it is known from which step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Targets {
    pub(super) if_true: Target,
    pub(super) if_false: Target,
    /// The condition is the less likely to hold if this test does.
    pub(super) is_negated: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Step(usize),
    End(bool),
}

const BITS: u32 = 15;
const MASK: u32 = (1 << BITS) - 1;
/// Its last bit is what the condition comes to.
const END: u32 = MASK - 1;

impl Exits {
    pub(super) fn next(self, value: bool) -> Next {
        let ahead = self.0 >> (u32::from(value) * BITS) & MASK;
        if ahead < END { Next::Ahead(ahead as usize) } else { Next::End(ahead & 1 == 1) }
    }

    /// What the test comes to for want of a fact, where the condition is `assumed` to do so.
    pub(super) fn if_missing(self, assumed: bool) -> bool {
        assumed != (self.0 >> (2 * BITS) == 1)
    }
}

impl Targets {
    /// Of a condition, or of a part that is one of its own.
    pub(super) const OF_A_WHOLE: Targets =
        Targets { if_true: Target::End(true), if_false: Target::End(false), is_negated: false };

    pub(super) fn negated(self) -> Targets {
        Targets { if_true: self.if_false, if_false: self.if_true, is_negated: !self.is_negated }
    }

    pub(super) fn seen_from(self, place: usize) -> Exits {
        let ahead = |target| match target {
            Target::Step(step) => {
                let ahead = u32::try_from(step - place).ok().filter(|ahead| *ahead < END);
                ahead.expect("conditions are limited in length")
            }
            Target::End(value) => END | u32::from(value),
        };
        Exits(u32::from(self.is_negated) << (2 * BITS) | ahead(self.if_true) << BITS | ahead(self.if_false))
    }
}
