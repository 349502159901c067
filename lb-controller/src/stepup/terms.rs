//! Requirements put into words: of RFC 9470 for clients, and our own for the audit trail.

use std::sync::Arc;

use http::{HeaderValue, header};
use lb_policy::{Level, Levels, Method, ProvedFactor, Requirement, UnixSeconds};

use super::session::Session;
use crate::serve::respond::OwnResponse;

/// What is asked for, in the words of RFC 9470 §3.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) acr: String,
    pub(super) max_age_seconds: Option<u64>,
}

impl Terms {
    /// The highest level and the shortest age of all requirements: what meets these meets each. Where rules name methods
    /// and no level, it is the level that proving them brings this session to.
    pub(super) fn new(
        unmet: &[(Arc<str>, Requirement)],
        methods: &[Method],
        session: &Session,
        (levels, now): (&Levels, UnixSeconds),
    ) -> Terms {
        let required = unmet.iter().filter_map(|(_, requirement)| requirement.level).max();
        let max_age =
            |requirement: &Requirement| if requirement.per_action { Some(0) } else { requirement.max_age_seconds };
        Terms {
            acr: levels.acr(required.unwrap_or_else(|| level_with(session, methods, (levels, now)))).to_owned(),
            max_age_seconds: unmet.iter().filter_map(|(_, requirement)| max_age(requirement)).min(),
        }
    }

    fn www_authenticate(&self) -> HeaderValue {
        let acr = &self.acr;
        let mut text = format!(r#"Bearer error="insufficient_user_authentication", acr_values="{acr}""#);
        if let Some(seconds) = self.max_age_seconds {
            text.push_str(&format!(r#", max_age="{seconds}""#));
        }
        HeaderValue::try_from(text).expect("acr URNs and numbers are header text")
    }
}

fn level_with(session: &Session, methods: &[Method], (levels, now): (&Levels, UnixSeconds)) -> Level {
    let proved = methods.iter().map(|method| ProvedFactor::ordinary(*method, now));
    let factors: Vec<_> = session.factors().iter().copied().chain(proved).collect();
    levels.level_of(&factors, now)
}

pub(super) fn with_terms(mut response: OwnResponse, terms: &Terms) -> OwnResponse {
    response.headers_mut().insert(header::WWW_AUTHENTICATE, terms.www_authenticate());
    response
}

/// Only a proof made for exactly this request meets it.
pub(super) fn is_per_action(requirement: &Requirement) -> bool {
    requirement.per_action || requirement.max_age_seconds == Some(0)
}

/// For the audit trail, such as `level 2, totp, within 300 s`.
pub(super) fn describe(requirement: &Requirement) -> String {
    let mut parts = Vec::new();
    parts.extend(requirement.level.map(|level| format!("level {}", level.0)));
    let methods: Vec<_> = requirement.methods.iter().map(|method| method.name()).collect();
    if !methods.is_empty() {
        parts.push(methods.join(" or "));
    }
    parts.extend(requirement.max_age_seconds.map(|seconds| format!("within {seconds} s")));
    if requirement.per_action {
        parts.push("for this action".to_owned());
    }
    parts.join(", ")
}

/// For the audit trail, such as `level 1: password 20 s`.
pub(super) fn describe_had(session: &Session, levels: &Levels, now: UnixSeconds) -> String {
    let age = |factor: &ProvedFactor| format!("{} {} s", factor.method, factor.age_seconds(now).unwrap_or(0));
    let factors: Vec<_> = session.factors().iter().map(age).collect();
    format!("level {}: {}", session.level(levels, now).0, factors.join(", "))
}
