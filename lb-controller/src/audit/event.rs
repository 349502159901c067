//! What an event tells: when, who, why and how.

use std::borrow::Cow;
use std::fmt;

use lb_common::Source;
use serde::{Serialize, Serializer};

/// One event. Facts that do not apply stay empty and are left out.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Event<'a> {
    /// `login`, `logout`, `decision`, `challenge`, `verify`, `resume`, `forward`, `csrf`, `block`, `threat` …
    pub(crate) event: &'static str,
    /// `ok`, or why not; of a decision, what it was.
    pub(crate) result: &'a str,
    /// As in the access log and the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<String>,
    /// Of a request that came with a W3C `traceparent`: its trace id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace: Option<&'a str>,
    /// Keyed hash of the user's name: events of one user belong together without the log naming them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<Cow<'a, str>>,
    /// Likewise of the login, from its beginning to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<String>,
    #[serde(serialize_with = "as_text", skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<&'a str>,
    /// SHA-256 of the body that a proof is for, in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) body_sha256: Option<String>,
    /// The factor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) factor: Option<&'a str>,
    /// The rules that asked, joined by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rule: Option<&'a str>,
    /// In the words of the rule that denies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) required: Vec<Required<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) had: Option<Had>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) transaction: Option<&'a str>,
    /// What rules show of the request to whoever approves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shown: Option<&'a str>,
    /// What an operator asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<&'a str>,
    /// What an identity provider said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) provider: Option<Vouched<'a>>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) circumstances: Option<Circumstances<'a>>,
    /// What the backend answered, once the request had gone on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) upstream_status: Option<u16>,
    /// From the request's arrival to this event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency_us: Option<u64>,
}

/// What one rule requires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Required<'a> {
    pub(crate) rule: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) level: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_age_seconds: Option<u64>,
    /// Any one of these; empty: any method.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) methods: Vec<&'static str>,
    pub(crate) per_action: bool,
}

/// What the session had proved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Had {
    /// Of all its factors, however old.
    pub(crate) level: u8,
    pub(crate) factors: Vec<FactorHad>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FactorHad {
    pub(crate) method: &'static str,
    /// `None`: from the future, and so never counted.
    pub(crate) age_seconds: Option<u64>,
}

/// An identity provider's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Vouched<'a> {
    /// Its name in the configuration.
    pub(crate) name: &'a str,
    /// As it said it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) acr: Option<&'a str>,
    /// Unix seconds: when the user proved it there, as far as the provider is believed.
    pub(crate) auth_time: u64,
}

/// What a decision was made in view of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Circumstances<'a> {
    pub(crate) route: &'a str,
    /// Counts up with every configuration that took effect.
    pub(crate) policy_version: u64,
    pub(crate) threat: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) country: Option<&'a str>,
    /// Number of the autonomous system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) asn: Option<u32>,
    /// The browser is one that somebody logged in with before.
    pub(crate) device_known: bool,
    /// Those that the conditions of the deciding rules name. Values of headers and of the query are left out: they may be
    /// somebody's secrets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) facts: Vec<Fact>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Fact {
    pub(crate) name: String,
    /// As a condition would write it; `None`: missing, or left out.
    pub(crate) value: Option<String>,
}

fn as_text<S: Serializer>(source: &Option<Source>, serializer: S) -> Result<S::Ok, S::Error> {
    match source {
        Some(source) => serializer.collect_str(source),
        None => serializer.serialize_none(),
    }
}

/// For the log, such as `level 2, totp, within 300 s`.
impl fmt::Display for Required<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.level.map(|level| format!("level {level}")));
        parts.extend((!self.methods.is_empty()).then(|| self.methods.join(" or ")));
        parts.extend(self.max_age_seconds.map(|seconds| format!("within {seconds} s")));
        parts.extend(self.per_action.then(|| "for this action".to_owned()));
        f.write_str(&parts.join(", "))
    }
}

/// For the log, such as `level 1: password 20 s`.
impl fmt::Display for Had {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let age = |factor: &FactorHad| format!("{} {} s", factor.method, factor.age_seconds.unwrap_or(0));
        write!(f, "level {}: {}", self.level, self.factors.iter().map(age).collect::<Vec<_>>().join(", "))
    }
}
