//! When to order. Pure: what is known goes in, a time comes out.

use std::time::Duration;

use lb_policy::UnixSeconds;

use super::folder::Attempts;
use crate::serve::tls::Inspected;

/// Where this host stands among those of a fleet, from 0 to 999: they should not all come at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spread(u16);

/// What an order failed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// The authority, or the way to it: it said nothing that would count against us.
    Unavailable,
    /// It said no, and counts how often it has to.
    Refused,
}

const UNAVAILABLE_FIRST: Duration = Duration::from_secs(2);
const UNAVAILABLE_LONGEST: Duration = Duration::from_secs(600);
/// Let's Encrypt takes five failed validations of a name in an hour; these are four.
const REFUSED_FIRST: Duration = Duration::from_secs(300);
const REFUSED_LONGEST: Duration = Duration::from_secs(86_400);
/// What an authority may ask for with `Retry-After`: no limit of Let's Encrypt is longer.
pub(super) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(7 * 86_400);

impl Spread {
    /// By chance, once for the life of this process.
    pub(super) fn of_this_host() -> Spread {
        let mut bytes = [0; 2];
        // Without chance they come at once, and one of them gets the lock.
        let _ = aws_lc_rs::rand::fill(&mut bytes);
        Spread(u16::from_be_bytes(bytes) % 1_000)
    }

    fn of(self, duration: Duration) -> Duration {
        duration * u32::from(self.0) / 1_000
    }
}

/// When the next order is due. `held`: the certificate that is there, if it has all the names that it should.
pub(super) fn due_at(
    held: Option<&Inspected>,
    attempts: Option<&Attempts>,
    renew_before: Option<Duration>,
    spread: Spread,
) -> UnixSeconds {
    let wanted_at = held.map_or(0, |held| {
        let lifetime = Duration::from_secs(held.not_after.saturating_sub(held.not_before));
        // However long before: a new certificate is not renewed at once.
        let before = renew_before.unwrap_or(lifetime / 3).min(lifetime * 2 / 3);
        held.not_after.saturating_sub((before + spread.of(before / 10)).as_secs())
    });
    wanted_at.max(attempts.map_or(0, |attempts| attempts.next_attempt_at))
}

/// How long to wait after so many failures in a row.
pub(super) fn pause_after(failures: u32, kind: FailureKind, spread: Spread) -> Duration {
    let (first, longest) = match kind {
        FailureKind::Unavailable => (UNAVAILABLE_FIRST, UNAVAILABLE_LONGEST),
        FailureKind::Refused => (REFUSED_FIRST, REFUSED_LONGEST),
    };
    let pause = first.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(longest);
    pause + spread.of(pause / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    fn held(not_before: u64, not_after: u64) -> Inspected {
        Inspected { names: Default::default(), not_before, not_after }
    }

    #[test]
    fn a_certificate_is_renewed_in_its_last_third_or_as_long_before_as_configured() {
        let days = |days: u64| Some(Duration::from_secs(days * DAY));
        for (held, renew_before, spread, expected, what) in [
            (None, None, 0, 0, "none is there"),
            (Some(held(0, 90 * DAY)), None, 0, 60 * DAY, "a third before its end"),
            (Some(held(0, 90 * DAY)), None, 999, 57 * DAY, "a little earlier, by chance"),
            (Some(held(0, 90 * DAY)), days(10), 0, 80 * DAY, "as configured"),
            (Some(held(0, 90 * DAY)), days(365), 0, 30 * DAY, "never at once"),
            (Some(held(0, 6 * DAY)), days(30), 999, 2 * DAY - 4 * DAY / 10, "a short one"),
        ] {
            let due = due_at(held.as_ref(), None, renew_before, Spread(spread));
            assert!(due.abs_diff(expected) < DAY / 100, "{what}: {due}");
        }
    }

    #[test]
    fn no_order_is_placed_before_the_time_that_a_failure_has_set() {
        let attempts = Attempts { next_attempt_at: 700, ..Attempts::default() };
        assert_eq!(due_at(None, Some(&attempts), None, Spread(0)), 700);
        assert_eq!(due_at(Some(&held(0, 300)), Some(&attempts), None, Spread(0)), 700);
        assert_eq!(due_at(Some(&held(0, 3000)), Some(&attempts), None, Spread(0)), 2000);
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        let pauses = |kind, spread| [1, 2, 3, 12, u32::MAX].map(|n| pause_after(n, kind, Spread(spread)).as_secs());
        assert_eq!(pauses(FailureKind::Unavailable, 0), [2, 4, 8, 600, 600]);
        assert_eq!(pauses(FailureKind::Refused, 0), [300, 600, 1200, 86_400, 86_400]);
        assert!(pauses(FailureKind::Refused, 999)[0] > 370);
    }
}
