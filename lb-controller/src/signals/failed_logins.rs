//! Failed logins and proofs within ten minutes. Unlike the throttle's counters these outlive a success: the login that
//! follows on many guesses is the one to look at twice.

use lb_policy::{CountedBy, FailedLogins, UnixSeconds};

use super::who::{Subject, Who};
use super::window::Counters;

/// What rules call them begins with this.
pub(super) const FACTS: &str = "signals.failed_logins";

const WINDOW_SECONDS: u64 = 600;
/// About 100 bytes each.
const MOST_SUBJECTS: usize = 64 * 1024;
/// Longer names are nobody's.
const MOST_NAME_BYTES: usize = 256;

/// For whom, and how often, within the last ten minutes.
pub struct FailedProofs(Counters<Subject>);

impl Default for FailedProofs {
    fn default() -> FailedProofs {
        FailedProofs(Counters::new(WINDOW_SECONDS, MOST_SUBJECTS))
    }
}

impl FailedProofs {
    /// `who.user` is whom the proof was for, logged in or not.
    pub fn add(&self, who: &Who<'_>, now: UnixSeconds) {
        let is_name = |who: &Who<'_>| who.user.is_none_or(|user| user.len() <= MOST_NAME_BYTES);
        for counted_by in [CountedBy::User, CountedBy::Device, CountedBy::Source] {
            if counted_by == CountedBy::User && !is_name(who) {
                continue;
            }
            if let Some(subject) = who.subject(counted_by) {
                self.0.add(&subject, now);
            }
        }
    }

    pub(super) fn of(&self, who: &Who<'_>, now: UnixSeconds) -> FailedLogins {
        let count = |counted_by| who.subject(counted_by).map(|subject| self.0.count(&subject, now));
        FailedLogins {
            user: count(CountedBy::User),
            source: count(CountedBy::Source).unwrap_or(0),
            device: count(CountedBy::Device),
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_common::Source;

    use super::*;

    #[test]
    fn failures_are_counted_for_the_account_the_browser_and_the_address() {
        let failed = FailedProofs::default();
        let who =
            |user, device, octet| Who { user, session: None, device, source: Source::of([192, 0, 2, octet].into()) };
        failed.add(&who(Some("alice"), None, 1), 1_200);
        failed.add(&who(Some("alice"), Some([7; 16]), 2), 1_200);
        failed.add(&who(Some("bob"), None, 1), 1_200);
        let rows = [
            ("alice from elsewhere", who(Some("alice"), None, 9), (Some(2), 0, None)),
            ("bob with alice's browser", who(Some("bob"), Some([7; 16]), 9), (Some(1), 0, Some(1))),
            ("nobody from where both were tried", who(None, None, 1), (None, 2, None)),
        ];
        for (name, who, (user, source, device)) in rows {
            assert_eq!(failed.of(&who, 1_300), FailedLogins { user, source, device }, "{name}");
        }
        assert_eq!(failed.of(&who(Some("alice"), None, 1), 2_400).user, Some(0), "ten minutes later");
    }
}
