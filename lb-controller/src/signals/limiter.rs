//! Limits that rules set: at most so many requests in a time, for a user, a device, a source, a session or all together.

use std::sync::{Arc, Mutex};

use lb_policy::{Limit, UnixSeconds};
use quick_cache::sync::Cache;

use super::who::{Subject, Who};

/// About 100 bytes each.
const MOST_SUBJECTS: usize = 128 * 1024;

/// The generic cell rate algorithm (ITU-T I.371): one time for each subject, that at which it will have paid for all it
/// has had.
pub(super) struct Limiter {
    paid_at_ms: Cache<(Arc<str>, Subject), Arc<Mutex<u64>>>,
}

/// Come back in so many seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryAfter {
    pub seconds: u64,
    /// The rule whose limit takes longest.
    pub rule: Arc<str>,
}

impl Default for Limiter {
    fn default() -> Limiter {
        Limiter { paid_at_ms: Cache::new(MOST_SUBJECTS) }
    }
}

impl Limiter {
    /// Takes one request from all `limits`, or, where one of them has no room, from none.
    pub(super) fn take(&self, limits: &[Limit], who: &Who<'_>, now: UnixSeconds) -> Result<(), RetryAfter> {
        let now_ms = now.saturating_mul(1_000);
        let cells: Vec<(&Limit, Arc<Mutex<u64>>)> = limits.iter().map(|limit| (limit, self.cell(limit, who))).collect();
        // Locked in the order of the limits, which is that of their rules and the same in every request.
        let mut locked: Vec<_> =
            cells.iter().map(|(limit, cell)| (*limit, cell.lock().expect("no holder of this lock panics"))).collect();
        for (limit, paid_at_ms) in &mut locked {
            // Nobody can have had more than all of it, unless the clock was set back: what was paid until then stays paid.
            **paid_at_ms = (**paid_at_ms).min(now_ms + interval_ms(limit) * u64::from(limit.requests));
        }
        let waits = locked.iter().map(|(limit, paid_at_ms)| (wait_ms(limit, **paid_at_ms, now_ms), &limit.rule));
        if let Some((wait_ms, rule)) = waits.max_by_key(|(wait_ms, _)| *wait_ms).filter(|(wait_ms, _)| *wait_ms > 0) {
            return Err(RetryAfter { seconds: wait_ms.div_ceil(1_000), rule: rule.clone() });
        }
        for (limit, paid_at_ms) in &mut locked {
            **paid_at_ms = (**paid_at_ms).max(now_ms) + interval_ms(limit);
        }
        Ok(())
    }

    fn cell(&self, limit: &Limit, who: &Who<'_>) -> Arc<Mutex<u64>> {
        let key = (limit.rule.clone(), who.subject_or_source(limit.counted_by));
        let Ok(cell) = self.paid_at_ms.get_or_insert_with(&key, || Ok::<_, std::convert::Infallible>(Arc::default()));
        cell
    }
}

fn interval_ms(limit: &Limit) -> u64 {
    (limit.per_seconds * 1_000).div_ceil(limit.requests.into()).max(1)
}

/// 0 when there is room: the whole of a limit may come at once after a pause.
fn wait_ms(limit: &Limit, paid_at_ms: u64, now_ms: u64) -> u64 {
    let burst_ms = interval_ms(limit) * u64::from(limit.requests - 1);
    paid_at_ms.saturating_sub(now_ms).saturating_sub(burst_ms)
}

#[cfg(test)]
mod tests {
    use lb_common::Source;
    use lb_policy::CountedBy;

    use super::*;

    fn limit(rule: &str, requests: u32, per_seconds: u64, counted_by: CountedBy) -> Limit {
        Limit { rule: rule.into(), requests, per_seconds, counted_by }
    }

    fn who(user: Option<&str>, last_octet: u8) -> Who<'_> {
        let source = Source::of([192, 0, 2, last_octet].into());
        Who { user, session: None, device: None, source }
    }

    #[test]
    fn so_many_may_come_at_once_and_then_one_by_one() {
        let limiter = Limiter::default();
        let limits = [limit("five-a-minute", 5, 60, CountedBy::User)];
        let take = |now| limiter.take(&limits, &who(Some("alice"), 1), now).map_err(|wait| wait.seconds);
        assert!((0..5).all(|_| take(1_000).is_ok()));
        assert_eq!(take(1_000), Err(12));
        assert_eq!(take(1_011), Err(1));
        assert_eq!(take(1_012), Ok(()));
        assert_eq!(take(1_012), Err(12));
        assert!((0..5).all(|_| take(2_000).is_ok()) && take(2_000).is_err());
    }

    #[test]
    fn a_clock_that_is_set_back_costs_one_turn_at_most() {
        let limiter = Limiter::default();
        let limits = [limit("five-a-minute", 5, 60, CountedBy::User)];
        let take = |now| limiter.take(&limits, &who(Some("alice"), 1), now).map_err(|wait| wait.seconds);
        assert_eq!(take(10_000), Ok(()));
        assert_eq!(take(6_400), Err(12));
        assert_eq!(take(6_412), Ok(()));
        assert_eq!(take(6_412), Err(12));
    }

    #[test]
    fn each_has_a_limit_of_their_own_and_nobody_slips_it_by_being_nobody() {
        let limiter = Limiter::default();
        let by_user = [limit("one", 1, 60, CountedBy::User)];
        let rows = [
            ("alice", Some("alice"), 1, true),
            ("alice again, from elsewhere", Some("alice"), 2, false),
            ("bob from alice's address", Some("bob"), 1, true),
            ("nobody", None, 3, true),
            ("nobody again", None, 3, false),
            ("nobody from elsewhere", None, 4, true),
        ];
        for (name, user, octet, expected) in rows {
            assert_eq!(limiter.take(&by_user, &who(user, octet), 1_000).is_ok(), expected, "{name}");
        }
        let together = [limit("all", 2, 60, CountedBy::Action)];
        let taken = |octet| limiter.take(&together, &who(None, octet), 1_000).is_ok();
        assert_eq!((taken(1), taken(2), taken(3)), (true, true, false));
    }

    #[test]
    fn what_one_limit_refuses_costs_no_other_limit() {
        let limiter = Limiter::default();
        let (wide, narrow) = (limit("a-wide", 2, 60, CountedBy::User), limit("b-narrow", 1, 600, CountedBy::User));
        let alice = who(Some("alice"), 1);
        assert!(limiter.take(&[wide.clone(), narrow.clone()], &alice, 1_000).is_ok());
        for _ in 0..10 {
            let refused = limiter.take(&[wide.clone(), narrow.clone()], &alice, 1_000);
            assert_eq!(refused, Err(RetryAfter { seconds: 600, rule: "b-narrow".into() }));
        }
        assert!(limiter.take(std::slice::from_ref(&wide), &alice, 1_000).is_ok(), "ten refusals cost it nothing");
        assert!(limiter.take(&[wide], &alice, 1_000).is_err());
    }
}
