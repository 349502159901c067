//! Requirements put into words: of RFC 9470 for clients, and our own for the audit trail.

use std::sync::Arc;

use http::{HeaderValue, header};
use lb_policy::{Challenge, Level, Levels, Method, ProvedFactor, Requirement, UnixSeconds};

use super::session::Session;
use crate::audit::{FactorHad, Had, Required};
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

/// For the audit trail.
pub(super) fn required(challenge: &Challenge) -> Vec<Required<'_>> {
    let unmet = challenge.unmet.iter();
    unmet
        .map(|(rule, requirement)| Required {
            rule,
            level: requirement.level.map(|level| level.0),
            max_age_seconds: requirement.max_age_seconds,
            methods: requirement.methods.iter().map(|method| method.name()).collect(),
            per_action: requirement.per_action,
        })
        .collect()
}

/// For the audit trail.
pub(super) fn had(session: &Session, levels: &Levels, now: UnixSeconds) -> Had {
    let factor =
        |factor: &ProvedFactor| FactorHad { method: factor.method.name(), age_seconds: factor.age_seconds(now) };
    Had { level: session.level(levels, now).0, factors: session.factors().iter().map(factor).collect() }
}
