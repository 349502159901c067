//! How often somebody may guess. Every attempt is charged as a failure before it is checked, so that a thousand guesses
//! at once are one guess and 999 refusals; success takes the charge back.

use std::collections::HashMap;
use std::sync::Mutex;

use aws_lc_rs::digest::{SHA256, digest};
use lb_common::Source;
use lb_policy::UnixSeconds;

use super::random_id::RandomId;

/// Counts failures by account, by device and by source.
#[derive(Default)]
pub(super) struct Throttle {
    records: Mutex<HashMap<Key, Record>>,
}

/// Whose failures count together.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bucket<'a> {
    /// One account guessed at from one source.
    AccountFromSource(&'a str, Source),
    /// One source, whatever the account: guessing names, or one common password at many accounts.
    Source(Source),
    /// One account from everywhere: NIST SP 800-63B §5.2.2 allows no more than 100 failures in a row.
    Account(&'a str),
    /// One account from a device that has proved itself before. It has this bucket to itself, so that no flood of guesses
    /// from elsewhere locks the owner out.
    AccountFromDevice(&'a str, RandomId),
}

/// Come back in so many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) seconds: u64,
    /// What counted that takes longest; see [`Bucket::name`].
    pub(super) bucket: &'static str,
}

type Key = [u8; 16];

#[derive(Clone, Copy)]
struct Record {
    failures: u32,
    last_at: UnixSeconds,
    forget_at: UnixSeconds,
}

/// After `free` failures each attempt waits 1, 2, 4 … seconds since the last one, up to `longest_wait_seconds`.
struct Schedule {
    free: u32,
    longest_wait_seconds: u64,
    /// A bucket with no attempt for this long starts anew.
    forget_after_seconds: u64,
}

/// 64 bytes each, so about 2 MiB. When full, the bucket that has been quiet longest goes first.
const LIMIT: usize = 32 * 1024;

impl Bucket<'_> {
    fn schedule(self) -> Schedule {
        let (free, longest_wait_seconds, forget_after_seconds) = match self {
            Bucket::AccountFromSource(..) | Bucket::AccountFromDevice(..) => (1, 60, 3600),
            // Many people may share one address.
            Bucket::Source(_) => (20, 60, 3600),
            Bucket::Account(_) => (99, 900, 24 * 3600),
        };
        Schedule { free, longest_wait_seconds, forget_after_seconds }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Bucket::AccountFromSource(..) => "account_from_source",
            Bucket::Source(_) => "source",
            Bucket::Account(_) => "account",
            Bucket::AccountFromDevice(..) => "account_from_device",
        }
    }

    /// Fixed in size however long the account name that a stranger sent.
    fn key(self, purpose: &str) -> Key {
        let (kind, account, place) = match self {
            Bucket::AccountFromSource(account, source) => ("account-source", account, source.to_string()),
            Bucket::Source(source) => ("source", "", source.to_string()),
            Bucket::Account(account) => ("account", account, String::new()),
            Bucket::AccountFromDevice(account, device) => ("account-device", account, device.to_string()),
        };
        // The account comes last: the other parts hold no NUL, so no two buckets give the same text.
        let hash = digest(&SHA256, [purpose, kind, &place, account].join("\0").as_bytes());
        hash.as_ref().first_chunk().copied().expect("SHA-256 gives 32 bytes")
    }
}

impl Throttle {
    /// Charges one attempt to all `buckets`, or to none when any of them has to wait. Attempts for different `purpose`s
    /// (such as the methods) never share a bucket.
    pub(super) fn charge(&self, purpose: &str, buckets: &[Bucket<'_>], now: UnixSeconds) -> Result<(), Wait> {
        let mut records = self.records.lock().expect("no holder of this lock panics");
        let keyed: Vec<_> = buckets.iter().map(|bucket| (bucket.key(purpose), bucket.schedule())).collect();
        for (key, schedule) in &keyed {
            if let Some(record) = records.get_mut(key) {
                schedule.follow_clock(record, now);
            }
        }
        let waits = keyed.iter().zip(buckets).filter_map(|((key, schedule), bucket)| {
            Some(Wait { seconds: schedule.wait(records.get(key)?, now)?, bucket: bucket.name() })
        });
        if let Some(longest) = waits.max_by_key(|wait| wait.seconds) {
            return Err(longest);
        }
        for (key, schedule) in keyed {
            if records.len() >= LIMIT && !records.contains_key(&key) {
                make_room(&mut records, now);
            }
            let record = records.entry(key).or_insert(Record { failures: 0, last_at: now, forget_at: 0 });
            if record.forget_at <= now {
                record.failures = 0;
            }
            record.failures = record.failures.saturating_add(1);
            record.last_at = now;
            record.forget_at = now + schedule.forget_after_seconds;
        }
        Ok(())
    }

    /// The attempt succeeded: failures in a row end here. The source alone gets back only this one charge, or whoever
    /// has one account of their own could go on guessing at others for free.
    pub(super) fn succeeded(&self, purpose: &str, buckets: &[Bucket<'_>]) {
        let mut records = self.records.lock().expect("no holder of this lock panics");
        for bucket in buckets {
            match bucket {
                Bucket::Source(_) => refund(&mut records, &bucket.key(purpose)),
                _ => drop(records.remove(&bucket.key(purpose))),
            }
        }
    }

    /// The attempt was never checked (we were too busy): nobody pays for that.
    pub(super) fn not_checked(&self, purpose: &str, buckets: &[Bucket<'_>]) {
        let mut records = self.records.lock().expect("no holder of this lock panics");
        buckets.iter().for_each(|bucket| refund(&mut records, &bucket.key(purpose)));
    }
}

impl Schedule {
    /// Where the clock was set back, the last attempt counts as of now: nobody waits until it is that late again.
    fn follow_clock(&self, record: &mut Record, now: UnixSeconds) {
        if record.last_at > now {
            (record.last_at, record.forget_at) = (now, now + self.forget_after_seconds);
        }
    }

    /// Seconds still to wait, or `None` when the next attempt may come now.
    fn wait(&self, record: &Record, now: UnixSeconds) -> Option<u64> {
        if record.failures <= self.free || record.forget_at <= now {
            return None;
        }
        let doublings = (record.failures - self.free - 1).min(30);
        let delay = (1u64 << doublings).min(self.longest_wait_seconds);
        (record.last_at + delay).checked_sub(now).filter(|seconds| *seconds > 0)
    }
}

fn refund(records: &mut HashMap<Key, Record>, key: &Key) {
    if let Some(record) = records.get_mut(key) {
        record.failures = record.failures.saturating_sub(1);
        if record.failures == 0 {
            records.remove(key);
        }
    }
}

fn make_room(records: &mut HashMap<Key, Record>, now: UnixSeconds) {
    records.retain(|_, record| record.forget_at > now);
    if records.len() < LIMIT {
        return;
    }
    // An eighth at a time, so that a flood of new buckets does not pay for a full scan with each one.
    let mut quiet_since: Vec<UnixSeconds> = records.values().map(|record| record.last_at).collect();
    let (_, cut, _) = quiet_since.select_nth_unstable(LIMIT / 8);
    let cut = *cut;
    let mut as_quiet_to_remove = LIMIT / 8 - records.values().filter(|record| record.last_at < cut).count();
    records.retain(|_, record| {
        let as_quiet = record.last_at == cut && as_quiet_to_remove > 0;
        as_quiet_to_remove -= usize::from(as_quiet);
        record.last_at >= cut && !as_quiet
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(last: u8) -> Source {
        Source::of([192, 0, 2, last].into())
    }

    #[test]
    fn waits_between_failures_double_up_to_a_minute() {
        let throttle = Throttle::default();
        let buckets = [Bucket::AccountFromSource("alice", source(1))];
        let mut now = 1_000;
        for (failures_before, wait) in [0, 0, 1, 2, 4, 8, 16, 32, 60, 60].into_iter().enumerate() {
            if wait > 0 {
                let refused = throttle.charge("password", &buckets, now);
                assert_eq!(refused.map_err(|wait| wait.seconds), Err(wait), "after {failures_before} failures");
                assert!(throttle.charge("password", &buckets, now + wait - 1).is_err());
            }
            now += wait;
            assert_eq!(
                throttle.charge("password", &buckets, now),
                Ok(()),
                "after {failures_before} failures and a wait"
            );
        }
    }

    #[test]
    fn a_clock_that_is_set_back_makes_nobody_wait_longer() {
        let throttle = Throttle::default();
        let buckets = [Bucket::AccountFromSource("alice", source(1))];
        for (at, wait) in
            [(10_000, None), (10_000, None), (6_400, Some(1)), (6_401, None), (2_000, Some(2)), (2_002, None)]
        {
            let charged = throttle.charge("password", &buckets, at);
            assert_eq!(charged.err().map(|wait| wait.seconds), wait, "at {at}");
        }
    }

    #[test]
    fn of_many_guesses_at_once_only_the_free_ones_are_checked() {
        let throttle = Throttle::default();
        let buckets = [Bucket::AccountFromSource("alice", source(1))];
        let checked = (0..1000).filter(|_| throttle.charge("totp", &buckets, 5).is_ok()).count();
        assert_eq!(checked, 2);
    }

    #[test]
    fn guessing_from_many_addresses_meets_the_limit_of_the_account_but_not_its_known_device() {
        let throttle = Throttle::default();
        let checked = (0..=255)
            .filter(|last| {
                let from_source = Bucket::AccountFromSource("victim", source(*last));
                throttle.charge("password", &[from_source, Bucket::Account("victim")], 50).is_ok()
            })
            .count();
        assert_eq!(checked, 100);
        let device = RandomId::new();
        assert_eq!(throttle.charge("password", &[Bucket::AccountFromDevice("victim", device)], 50), Ok(()));
    }

    #[test]
    fn success_ends_a_row_of_failures_but_buys_a_source_no_free_guesses_at_others() {
        let throttle = Throttle::default();
        let own = [Bucket::AccountFromSource("mallory", source(1)), Bucket::Source(source(1))];
        for other in 0..20 {
            let name = format!("victim-{other}");
            let buckets = [Bucket::AccountFromSource(&name, source(1)), Bucket::Source(source(1))];
            throttle.charge("password", &buckets, 10).unwrap();
        }
        throttle.charge("password", &own, 10).unwrap();
        throttle.succeeded("password", &own);
        throttle.charge("password", &[Bucket::Source(source(1))], 10).unwrap();
        assert!(throttle.charge("password", &[Bucket::Source(source(1))], 10).is_err());
    }

    #[test]
    fn an_attempt_that_was_never_checked_costs_nothing() {
        let throttle = Throttle::default();
        let buckets = [Bucket::AccountFromSource("alice", source(1)), Bucket::Source(source(1))];
        for _ in 0..100 {
            throttle.charge("password", &buckets, 10).unwrap();
            throttle.not_checked("password", &buckets);
        }
    }

    #[test]
    fn a_flood_of_buckets_stays_bounded_and_forgets_the_quietest_first() {
        let throttle = Throttle::default();
        let account = |n: usize| format!("account-{n}");
        for n in 0..LIMIT + 10 {
            throttle.charge("password", &[Bucket::Account(&account(n))], 1_000 + n as u64 / 1_000).unwrap();
        }
        let records = throttle.records.lock().unwrap();
        assert!(records.len() <= LIMIT);
        assert!(records.contains_key(&Bucket::Account(&account(LIMIT + 9)).key("password")));
        assert!(!records.contains_key(&Bucket::Account(&account(0)).key("password")));
    }
}
