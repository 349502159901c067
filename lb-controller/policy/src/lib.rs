//! Facts in, decision out.
//!
//! Step-up rules with CEL-syntax conditions, type-checked at load and lowered to a closed, typed form. The crate is
//! `no_std`: no clock, environment, file or socket can be named here, so the same facts always give the same decision,
//! on today's request or on yesterday's log.
//!
//! A rule says *which requests* (host, method, path), *when* (a condition over named facts) and *what then*: deny, or
//! require proof. Rules never cancel one another, so their order means nothing:
//!
//! ```
//! use lb_policy::*;
//!
//! // Refunds over 500.00 need a one-time code that is at most five minutes old.
//! let rules = RuleSet::compile(&[RuleSource {
//!     id: "refund-over-limit".into(),
//!     matches: MatchSource { methods: vec!["POST".into()], paths: vec!["/refunds".into()], ..Default::default() },
//!     body: Some(BodySource {
//!         max_bytes: None,
//!         facts: vec![BodyFactSource { name: "amount".into(), pointer: "/amount".into(), kind: BodyFactKind::Decimal2 }],
//!     }),
//!     when: Some("body.amount > 500.00".into()),
//!     outcome: OutcomeSource::Require(RequireSource {
//!         methods: vec!["totp".into()],
//!         max_age_seconds: Some(300),
//!         ..Default::default()
//!     }),
//!     on_missing: None,
//! }], &Levels::default())
//! .expect("the rule is sound");
//!
//! let request = RequestFacts {
//!     method: "POST",
//!     host: "shop.example",
//!     path: "/refunds",
//!     query: "",
//!     parameters: &NO_PARAMETERS,
//!     headers: &NoHeaders,
//! };
//! let needs = rules.body_needs(&request).expect("the rule reads the body");
//! let body = needs.read(Some("application/json"), br#"{"amount": 750.00}"#).expect("strict JSON");
//! let password = [ProvedFactor::ordinary(Method::Password, 1_000)];
//! let decision = rules.decide(&Facts {
//!     now: 1_060,
//!     levels: &Levels::default(),
//!     request,
//!     client: ClientFacts::at("192.0.2.7".parse().unwrap()),
//!     session: Some(SessionFacts { issuer: None, user: "alice", groups: &[], factors: &password, begun_at: 0 }),
//!     proved_for_this_request: &[],
//!     provable: &Everything,
//!     body: &body,
//!     route: RouteFacts::default(),
//!     api_key: None,
//!     observed: ObservedFacts::default(),
//! });
//! assert!(matches!(decision, Decision::Challenge(challenge) if challenge.methods() == [Method::Totp]));
//! ```

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod body;
mod condition;
mod decide;
mod decimal;
mod duration;
mod explain;
mod facts;
mod host;
mod level;
mod limit;
mod network;
mod path;
mod pattern_tree;
mod prefix_set;
mod query;
mod query_parameters;
mod requirement;
mod route;
mod rule;
mod schedule;
mod shown;
mod signal;
mod suggest;
mod text_pattern;
mod threat;
mod vocabulary;

pub use body::{BodyError, BodyFactKind, BodyFacts, BodyNeeds};
pub use condition::Truth;
pub use decide::{Challenge, Decision, Denial, Permit, Requirement, Revocation, challenge_for};
pub use decimal::{Decimal, DecimalError};
pub use explain::{
    ConditionExplanation, Explanation, FactExplanation, FactorExplanation, MatchExplanation, OutcomeExplanation,
    RequirementExplanation, RuleExplanation, Summary,
};
pub use facts::{
    ApiKeyFacts, CertificateFacts, ClientFacts, Everything, Facts, FailedLogins, HeaderLookup, NoHeaders,
    ObservedFacts, ProvableFactors, RequestFacts, RouteFacts, SessionFacts,
};
pub use host::{HostError, canonical_host};
pub use level::{
    FactorClass, Level, LevelDefinition, Levels, Method, ProvableFactor, ProvedFactor, Strength, UnixSeconds, Way,
};
pub use limit::{CountedBy, Limit, LimitSource, WithinLimits};
pub use network::{Network, NetworkError};
pub use path::{CanonicalPath, PathError};
pub use prefix_set::PrefixSet;
pub use query::canonical_query;
pub use query_parameters::{NO_PARAMETERS, QueryParameters};
pub use requirement::challenge_unless_met;
pub use route::{
    Clash, PathTemplate, RouteError, RouteHost, RouteMatcher, RouteMethods, RoutePath, RouteTable, ValuePattern,
};
pub use rule::{
    BodyFactSource, BodySource, Field, MatchSource, OnMissing, OutcomeSource, RequestMatcher, RequireSource, RuleError,
    RuleSet, RuleSource, Span,
};
pub use shown::ShownFact;
pub use suggest::closest_name;
pub use threat::ThreatLevel;
pub use vocabulary::{RateName, Vocabulary};
