//! Facts that somebody gives to a described request, by the names under which rules know them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use lb_policy::{
    ApiKeyFacts, CertificateFacts, ClientFacts, FailedLogins, ObservedFacts, ThreatLevel, UnixSeconds, closest_name,
};

use crate::config::{self, Config};

/// Facts with their values, read.
#[derive(Debug, Default)]
pub(super) struct Given {
    country: Option<String>,
    asn: Option<u32>,
    reputation: Option<u8>,
    device_known: bool,
    device_class: Option<String>,
    tls_class: Option<String>,
    certificate: Option<Certificate>,
    rates: Vec<Option<u64>>,
    failed_logins: FailedLogins,
    usual_countries: Option<Vec<String>>,
    impossible_travel: Option<bool>,
    threat: ThreatLevel,
    api_key: Option<ApiKey>,
    /// How long ago the login was.
    pub(super) session_age_seconds: u64,
    /// In the stead of those that the configuration gives the user.
    pub(super) groups: Option<Vec<String>>,
}

#[derive(Debug, Default)]
struct Certificate {
    subject: String,
    issuer: String,
    fingerprint: String,
    names: Vec<String>,
}

#[derive(Debug, Default)]
struct ApiKey {
    id: String,
    age_seconds: u64,
}

type Take = fn(&mut Given, &str) -> Result<()>;

/// Every fact that can be given but the rates, whose names are the configuration's.
const FACTS: &[(&str, Take)] = &[
    ("client.country", |given, value| set(&mut given.country, value)),
    ("client.asn", |given, value| set(&mut given.asn, value)),
    ("client.reputation", |given, value| set(&mut given.reputation, value)),
    ("client.device_known", |given, value| assign(&mut given.device_known, value)),
    ("client.device_class", |given, value| set(&mut given.device_class, value)),
    ("client.tls_class", |given, value| set(&mut given.tls_class, value)),
    ("client.certificate.subject", |given, value| assign(&mut given.certificate().subject, value)),
    ("client.certificate.issuer", |given, value| assign(&mut given.certificate().issuer, value)),
    ("client.certificate.fingerprint", |given, value| assign(&mut given.certificate().fingerprint, value)),
    ("client.certificate.names", |given, value| {
        given.certificate().names = list(value);
        Ok(())
    }),
    ("session.age", |given, value| {
        given.session_age_seconds = seconds(value)?;
        Ok(())
    }),
    ("session.groups", |given, value| {
        given.groups = Some(list(value));
        Ok(())
    }),
    ("session.usual_countries", |given, value| {
        given.usual_countries = Some(list(value));
        Ok(())
    }),
    ("session.impossible_travel", |given, value| set(&mut given.impossible_travel, value)),
    ("signals.failed_logins_10m_user", |given, value| set(&mut given.failed_logins.user, value)),
    ("signals.failed_logins_10m_device", |given, value| set(&mut given.failed_logins.device, value)),
    ("signals.failed_logins_10m_source", |given, value| assign(&mut given.failed_logins.source, value)),
    ("signals.failed_logins_10m", |given, value| assign(&mut given.failed_logins.source, value)),
    ("threat", |given, value| {
        given.threat = ThreatLevel::from_name(value).context("it is normal, elevated, high or critical")?;
        Ok(())
    }),
    ("api_key.id", |given, value| assign(&mut given.api_key.get_or_insert_default().id, value)),
    ("api_key.age", |given, value| {
        given.api_key.get_or_insert_default().age_seconds = seconds(value)?;
        Ok(())
    }),
];

const RATE_PREFIX: &str = "rate.";

fn set<T: std::str::FromStr>(slot: &mut Option<T>, value: &str) -> Result<()> {
    *slot = Some(value.parse().ok().context("it is of another kind")?);
    Ok(())
}

fn assign<T: std::str::FromStr>(slot: &mut T, value: &str) -> Result<()> {
    *slot = value.parse().ok().context("it is of another kind")?;
    Ok(())
}

/// Texts with commas between.
fn list(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
}

/// `90` or `90s`, `8h`.
pub(super) fn seconds(text: &str) -> Result<u64> {
    match text.parse() {
        Ok(seconds) => Ok(seconds),
        Err(_) => Ok(config::parse_duration(text).map_err(anyhow::Error::msg)?.as_secs()),
    }
}

impl Given {
    pub(super) fn read(facts: &BTreeMap<String, String>, config: &Config) -> Result<Given> {
        let mut given = Given { rates: vec![Some(0); config.rates.len()], ..Given::default() };
        for (name, value) in facts {
            given.take(name, value, config).with_context(|| format!("fact {name} = {value:?}"))?;
        }
        Ok(given)
    }

    fn take(&mut self, name: &str, value: &str, config: &Config) -> Result<()> {
        if let Some(rate) = name.strip_prefix(RATE_PREFIX)
            && let Some(slot) = config.rates.iter().position(|known| known.name == rate)
        {
            return set(&mut self.rates[slot], value);
        }
        let Some((_, take)) = FACTS.iter().find(|row| row.0 == name) else {
            let rates = config.rates.iter().map(|rate| format!("{RATE_PREFIX}{}", rate.name));
            let known: Vec<String> = FACTS.iter().map(|row| row.0.to_owned()).chain(rates).collect();
            match closest_name(name, known.iter().map(String::as_str)) {
                Some(close) => bail!("no fact of this name can be given; did you mean {close}?"),
                None => bail!("no fact of this name can be given; there are: {}", known.join(", ")),
            }
        };
        take(self, value)
    }

    fn certificate(&mut self) -> &mut Certificate {
        self.certificate.get_or_insert_default()
    }

    pub(super) fn client<'a>(&'a self, client: ClientFacts<'a>) -> ClientFacts<'a> {
        ClientFacts {
            country: self.country.as_deref(),
            asn: self.asn,
            reputation: self.reputation,
            device_known: self.device_known,
            device_class: self.device_class.as_deref().or(client.device_class),
            tls_class: self.tls_class.as_deref(),
            certificate: self.certificate.as_ref().map(|certificate| CertificateFacts {
                subject: &certificate.subject,
                issuer: &certificate.issuer,
                fingerprint: &certificate.fingerprint,
                names: &certificate.names,
            }),
            ..client
        }
    }

    pub(super) fn observed(&self) -> ObservedFacts<'_> {
        ObservedFacts {
            threat: self.threat,
            rates: &self.rates,
            failed_logins: self.failed_logins,
            usual_countries: self.usual_countries.as_deref(),
            impossible_travel: self.impossible_travel,
        }
    }

    pub(super) fn api_key(&self, now: UnixSeconds) -> Option<ApiKeyFacts<'_>> {
        let key = self.api_key.as_ref()?;
        Some(ApiKeyFacts { id: &key.id, made_at: now.saturating_sub(key.age_seconds) })
    }
}
