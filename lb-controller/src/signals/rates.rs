//! `rates` of the configuration: how often somebody sends requests of a kind.

use std::sync::Arc;

use lb_policy::{RequestFacts, UnixSeconds};

use super::who::{Subject, Who};
use super::window::Counters;
use crate::config::RateConfig;

/// Of one rate; about 100 bytes each.
const MOST_SUBJECTS: usize = 64 * 1024;

/// The counts of all rates that the configuration names.
#[derive(Default)]
pub(super) struct Rates(Vec<Rate>);

struct Rate {
    config: RateConfig,
    counters: Arc<Counters<Subject>>,
}

impl Rates {
    /// Rates that are what they were in `old` keep their counts.
    pub(super) fn new(configs: &[RateConfig], old: &Rates) -> Rates {
        let rate = |config: &RateConfig| {
            let known = old.0.iter().find(|rate| rate.config == *config);
            let fresh = || Arc::new(Counters::new(config.within.as_secs(), MOST_SUBJECTS));
            Rate { config: config.clone(), counters: known.map_or_else(fresh, |rate| rate.counters.clone()) }
        };
        Rates(configs.iter().map(rate).collect())
    }

    /// Counts this request where it is one that counts; gives all rates in their order. `None`: there is nobody to count
    /// for.
    pub(super) fn observe(&self, request: &RequestFacts<'_>, who: &Who<'_>, now: UnixSeconds) -> Vec<Option<u64>> {
        let observe = |rate: &Rate| {
            let subject = who.subject(rate.config.counted_by)?;
            let counts = rate.config.matches.matches(request);
            Some(if counts { rate.counters.add(&subject, now) } else { rate.counters.count(&subject, now) })
        };
        self.0.iter().map(observe).collect()
    }

    /// All rates as they are, in their order.
    pub(super) fn look(&self, who: &Who<'_>, now: UnixSeconds) -> Vec<Option<u64>> {
        let look = |rate: &Rate| Some(rate.counters.count(&who.subject(rate.config.counted_by)?, now));
        self.0.iter().map(look).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lb_common::Source;
    use lb_policy::{CountedBy, MatchSource, NO_PARAMETERS, NoHeaders, RequestMatcher};

    use super::*;

    fn rate(name: &str, path: &str, counted_by: CountedBy) -> RateConfig {
        let source = MatchSource { paths: vec![path.into()], ..MatchSource::default() };
        let matches = RequestMatcher::compile(&source).unwrap();
        RateConfig { name: name.into(), matches, counted_by, within: Duration::from_secs(600) }
    }

    #[test]
    fn a_rate_counts_its_own_requests_for_each_and_tells_of_them_in_all() {
        let configs = [rate("exports", "/export/**", CountedBy::User), rate("all", "/**", CountedBy::Source)];
        let rates = Rates::new(&configs, &Rates::default());
        let observe = |rates: &Rates, path, user, octet| {
            let request = RequestFacts {
                method: "GET",
                host: "h",
                path,
                query: "",
                parameters: &NO_PARAMETERS,
                headers: &NoHeaders,
            };
            let who = Who { user, session: None, device: None, source: Source::of([192, 0, 2, octet].into()) };
            rates.observe(&request, &who, 1_200)
        };
        let rows = [
            ("/export/a", Some("alice"), 1, [Some(1), Some(1)]),
            ("/export/b", Some("alice"), 2, [Some(2), Some(1)]),
            ("/other", Some("alice"), 1, [Some(2), Some(2)]),
            ("/export/a", Some("bob"), 1, [Some(1), Some(3)]),
            ("/export/a", None, 1, [None, Some(4)]),
        ];
        for (path, user, octet, expected) in rows {
            assert_eq!(observe(&rates, path, user, octet), expected, "{path} by {user:?}");
        }
        let (alice, bob) = (Some("alice"), Some("bob"));
        for (user, octet, expected) in
            [(alice, 1, [Some(2), Some(4)]), (bob, 2, [Some(1), Some(1)]), (None, 3, [None, Some(0)])]
        {
            let who = Who { user, session: None, device: None, source: Source::of([192, 0, 2, octet].into()) };
            assert_eq!(rates.look(&who, 1_200), expected, "looking at {user:?} counts nothing");
            assert_eq!(rates.look(&who, 1_200), expected, "looking at {user:?} counts nothing");
        }
        let renewed = Rates::new(&configs[..1], &rates);
        assert_eq!(observe(&renewed, "/export/a", Some("alice"), 1), [Some(3)], "what stayed in the file goes on");
        let other = Rates::new(&[rate("exports", "/other", CountedBy::User)], &rates);
        assert_eq!(observe(&other, "/other", Some("alice"), 1), [Some(1)], "what it counts is another thing now");
    }
}
