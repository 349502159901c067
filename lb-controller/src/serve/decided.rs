//! The audit trail's account of decisions: by which rules, in view of what, and what came of it.

use std::sync::Arc;

use http::StatusCode;
use lb_policy::{Decision, Facts};

use super::access_log::Record;
use super::enforce::Judged;
use super::request::Inbound;
use crate::audit::{Circumstances, Event, Fact};
use crate::edge::Edge;

/// A value of a fact is cut off here: whoever sends a request chooses how long some of them are.
const LONGEST_VALUE_BYTES: usize = 256;

/// Facts whose values are a client's own words, and may be credentials.
const UNTOLD: [&str; 2] = ["request.headers", "request.query"];

/// What was decided, by which rules and why.
struct Outcome<'a> {
    name: &'a str,
    rules: Vec<Arc<str>>,
    reason: Option<&'a str>,
}

impl Judged<'_> {
    /// Writes down a decision that stands in a request's way. That somebody must log in is none: it says nothing of anybody.
    pub(super) fn audit(
        &self,
        edge: &Edge,
        request: &Inbound,
        facts: &Facts<'_>,
        decision: &Decision,
        record: &Record,
    ) {
        let (name, rules, reason) = match decision {
            Decision::Challenge(challenge) => {
                ("challenge", challenge.unmet.iter().map(|(rule, _)| rule.clone()).collect(), None)
            }
            Decision::Deny(denial) => {
                let rules = std::iter::once(&denial.rule).chain(&denial.revoked_by).cloned().collect();
                ("deny", rules, Some(denial.reason.as_str()))
            }
            Decision::Revoke(revocation) => ("revoke", vec![revocation.rule.clone()], None),
            Decision::RegenerateApiKey(revocation) => ("regenerate_api_key", vec![revocation.rule.clone()], None),
            Decision::Allow(_) | Decision::AllowWithin(_) | Decision::LogIn => return,
        };
        self.record_decision(edge, request, facts, &Outcome { name, rules, reason }, record);
    }

    /// Writes down that a limit had no room.
    pub(super) fn audit_limited(
        &self,
        edge: &Edge,
        request: &Inbound,
        facts: &Facts<'_>,
        rule: &Arc<str>,
        record: &Record,
    ) {
        let outcome = Outcome { name: "limited", rules: vec![rule.clone()], reason: None };
        self.record_decision(edge, request, facts, &outcome, record);
    }

    fn record_decision(
        &self,
        edge: &Edge,
        request: &Inbound,
        facts: &Facts<'_>,
        outcome: &Outcome<'_>,
        record: &Record,
    ) {
        let named = self.snapshot.config.rules.facts_of(&outcome.rules, facts);
        let told = |name: &str| !UNTOLD.iter().any(|prefix| name.starts_with(prefix));
        let named = named
            .into_iter()
            .map(|fact| Fact { value: fact.value.filter(|_| told(&fact.name)).map(cut), name: fact.name });
        Event {
            rule: Some(&outcome.rules.join(",")),
            reason: outcome.reason,
            circumstances: Some(Circumstances {
                route: &self.route.label,
                policy_version: self.snapshot.version,
                threat: facts.observed.threat.name(),
                country: facts.client.country,
                asn: facts.client.asn,
                device_known: facts.client.device_known,
                facts: named.collect(),
            }),
            latency_us: Some(microseconds(record)),
            ..edge.step_up.event_of("decision", outcome.name, request, self.who.session)
        }
        .record();
    }

    /// The request, to tell of it once it has gone on, if something was proved for it and no other.
    pub(super) fn proved_for(&self, request: &Inbound) -> Option<Box<Inbound>> {
        let is_proved_for = !self.who.proved_for_this_request.is_empty();
        is_proved_for.then(|| request.copy()).flatten().map(Box::new)
    }

    /// Writes down what the backend answered to such a request.
    pub(super) fn audit_forwarded(
        &self,
        edge: &Edge,
        proved_for: Option<&Inbound>,
        status: StatusCode,
        record: &Record,
    ) {
        let Some(request) = proved_for else { return };
        Event {
            upstream_status: Some(status.as_u16()),
            latency_us: Some(microseconds(record)),
            ..edge.step_up.event_of("forward", "ok", request, self.who.session)
        }
        .record();
    }
}

fn microseconds(record: &Record) -> u64 {
    u64::try_from(record.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(LONGEST_VALUE_BYTES));
    text
}
