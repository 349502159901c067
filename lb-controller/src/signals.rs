//! Where facts about clients and users come from: places, reputation, rates, failed logins, habits, the threat level.
//!
//! Everything is bounded, kept in memory and asked without waiting: no request waits for a disk or for another host.

mod device_class;
mod failed_logins;
mod followed;
mod geo;
mod habits;
mod limiter;
mod rates;
mod reputation;
mod threat;
mod who;
mod window;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use lb_policy::{
    ClientFacts, FailedLogins, HeaderLookup, Limit, ObservedFacts, RequestFacts, RuleSet, ThreatLevel, UnixSeconds,
};

pub use self::failed_logins::FailedProofs;
use self::geo::{Geo, Place};
use self::habits::{Habits, Whereabout};
use self::limiter::Limiter;
pub use self::limiter::RetryAfter;
use self::rates::Rates;
use self::reputation::Reputation;
pub use self::threat::Setting as ThreatSetting;
use self::threat::Threat;
pub use self::who::{Sender, Who};
use crate::config::Config;
use crate::store::Store;

/// What is counted, learned and set on one host, whatever its configuration says.
pub struct Signals {
    failed_proofs: Arc<FailedProofs>,
    limiter: Limiter,
    habits: Habits,
    threat: Threat,
    store: Arc<Store>,
}

/// What one configuration names. Part of its snapshot: rules know rates by their place in it.
#[derive(Default)]
pub struct Sources {
    geo: Geo,
    reputation: Reputation,
    rates: Rates,
    /// Rules go by failed logins: if none does, they need not be looked up.
    asks_failed_logins: bool,
}

/// What is known of one request, its client and its user.
#[derive(Clone)]
pub struct Observed {
    place: Place,
    reputation: Option<u8>,
    device_class: Option<&'static str>,
    device_known: bool,
    rates: Vec<Option<u64>>,
    failed_logins: FailedLogins,
    whereabout: Whereabout,
    threat: ThreatLevel,
}

impl Signals {
    /// Opens what was learned and set before. `failed_proofs` are counted by whoever checks them.
    pub fn open(state_dir: &Path, store: Arc<Store>, failed_proofs: Arc<FailedProofs>) -> Result<Signals> {
        Ok(Signals {
            failed_proofs,
            limiter: Limiter::default(),
            habits: Habits::open(&store).context("cannot read the store")?,
            threat: Threat::open(state_dir)?,
            store,
        })
    }

    /// Writes what was learned. Call it every minute, off the worker threads.
    pub fn tend(&self) {
        if let Err(error) = self.habits.save(&self.store) {
            tracing::warn!(%error, "what was learned of users cannot be written");
        }
    }

    /// Counts the request and looks up what `rules` may ask of it.
    pub fn observe(
        &self,
        sources: &Sources,
        rules: &RuleSet,
        request: &RequestFacts<'_>,
        sender: &Sender,
        now: UnixSeconds,
    ) -> Observed {
        let who = &sender.who();
        let place = sources.geo.place_of(sender.address);
        let whereabout = match who.user {
            Some(user) if place.country.is_some() => self.habits.observe(user, &place, sender.is_trusted, now),
            _ => Whereabout::default(),
        };
        Observed {
            reputation: sources.reputation.score(sender.address, now),
            device_class: rules.reads("client.device_class").then(|| device_class::of(request.headers)).flatten(),
            device_known: who.device.is_some(),
            rates: sources.rates.observe(request, who, now),
            failed_logins: self.failed_logins(sources, who, now),
            threat: self.threat.level(now),
            whereabout,
            place,
        }
    }

    /// Looks up once more what changes while a stream lasts, and counts nothing.
    pub fn observe_again(&self, sources: &Sources, sender: &Sender, now: UnixSeconds, observed: &mut Observed) {
        let who = &sender.who();
        observed.reputation = sources.reputation.score(sender.address, now);
        observed.rates = sources.rates.look(who, now);
        observed.failed_logins = self.failed_logins(sources, who, now);
        observed.threat = self.threat.level(now);
    }

    fn failed_logins(&self, sources: &Sources, who: &Who<'_>, now: UnixSeconds) -> FailedLogins {
        if sources.asks_failed_logins { self.failed_proofs.of(who, now) } else { FailedLogins::default() }
    }

    /// Takes one request from all `limits`, or from none of them.
    pub fn take(&self, limits: &[Limit], sender: &Sender, now: UnixSeconds) -> Result<(), RetryAfter> {
        self.limiter.take(limits, &sender.who(), now)
    }

    pub fn threat(&self) -> &Threat {
        &self.threat
    }
}

impl Sources {
    /// Opens what `config` names; what `old` has in common with it goes on.
    pub fn open(config: &Config, old: &Sources) -> Result<Sources> {
        Ok(Sources {
            geo: Geo::open(&config.geo, &old.geo)?,
            reputation: Reputation::open(&config.reputation, &old.reputation)?,
            rates: Rates::new(&config.rates, &old.rates),
            asks_failed_logins: config.rules.reads_any_of(failed_logins::FACTS),
        })
    }

    /// Reads files that are others by now. Call it every second or two, off the worker threads.
    pub fn follow(&self) {
        self.geo.follow();
        self.reputation.follow();
    }
}

impl Observed {
    /// As rules see the client.
    pub fn client<'a>(&'a self, client: ClientFacts<'a>) -> ClientFacts<'a> {
        ClientFacts {
            country: self.place.country.as_ref().map(geo::CountryCode::as_str),
            asn: self.place.asn,
            reputation: self.reputation,
            device_class: self.device_class,
            device_known: self.device_known,
            ..client
        }
    }

    /// As rules see what was counted and learned.
    pub fn facts(&self) -> ObservedFacts<'_> {
        ObservedFacts {
            threat: self.threat,
            rates: &self.rates,
            failed_logins: self.failed_logins,
            usual_countries: self.whereabout.usual_countries.as_deref(),
            impossible_travel: self.whereabout.impossible_travel,
        }
    }
}

/// What kind of device a client says it is.
pub fn device_class(headers: &dyn HeaderLookup) -> Option<&'static str> {
    device_class::of(headers)
}
