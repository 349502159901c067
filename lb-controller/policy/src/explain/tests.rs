use alloc::vec;

use super::*;
use crate::body::BodyFactKind;
use crate::facts::{ClientFacts, Everything, NoHeaders, ObservedFacts, RequestFacts, RouteFacts, SessionFacts};
use crate::level::Levels;
use crate::query_parameters::NO_PARAMETERS;
use crate::rule::{BodyFactSource, BodySource, MatchSource, OutcomeSource, RequireSource, RuleSource};

fn refund_rule(id: &str, matches: MatchSource) -> RuleSource {
    RuleSource {
        id: id.into(),
        matches,
        body: Some(BodySource {
            max_bytes: None,
            facts: vec![BodyFactSource {
                name: "amount".into(),
                pointer: "/amount".into(),
                kind: BodyFactKind::Decimal2,
            }],
        }),
        when: Some("body.amount > 500.00 || request.headers[\"x-risk\"] == \"high\"".into()),
        outcome: OutcomeSource::Require(RequireSource {
            methods: vec!["totp".into()],
            max_age_seconds: Some(300),
            ..RequireSource::default()
        }),
        on_missing: None,
    }
}

#[test]
fn an_explanation_names_rule_facts_requirement_and_what_was_had() {
    let only = |hosts: &[&str], methods: &[&str], paths: &[&str]| {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).into()).collect();
        MatchSource { hosts: texts(hosts), methods: texts(methods), paths: texts(paths) }
    };
    let rules = RuleSet::compile(
        &[
            refund_rule("refund", only(&[], &["POST"], &["/refunds"])),
            refund_rule("other-host", only(&["other.example"], &[], &[])),
            refund_rule("other-path", only(&[], &[], &["/other"])),
            refund_rule("other-method", only(&[], &["PUT"], &["/refunds"])),
        ],
        &Levels::default(),
    )
    .unwrap();
    let request = RequestFacts {
        method: "POST",
        host: "shop.example",
        path: "/refunds",
        query: "",
        parameters: &NO_PARAMETERS,
        headers: &NoHeaders,
    };
    let body = rules.body_needs(&request).unwrap().read(Some("application/json"), b"{\"amount\":750.00}").unwrap();
    let factors = [ProvedFactor::ordinary(Method::Password, 1000), ProvedFactor::ordinary(Method::Totp, 600)];
    let explanation = rules.explain(&Facts {
        now: 1060,
        levels: &Levels::default(),
        request,
        client: ClientFacts::at([192, 0, 2, 1].into()),
        session: Some(SessionFacts { issuer: None, user: "alice", groups: &[], factors: &factors, begun_at: 0 }),
        proved_for_this_request: &[],
        provable: &Everything,
        body: &body,
        route: RouteFacts::default(),
        api_key: None,
        observed: ObservedFacts::default(),
    });
    assert_eq!(explanation, the_refund_is_challenged());
}

/// What is expected of it.
fn the_refund_is_challenged() -> Explanation {
    let requirement = Requirement { methods: vec![Method::Totp], max_age_seconds: Some(300), ..Requirement::default() };
    let had = |method, age_seconds, counts| FactorExplanation {
        method,
        age_seconds: Some(age_seconds),
        for_this_request: false,
        counts,
    };
    let fact = |name: &str, value: Option<&str>| FactExplanation { name: name.into(), value: value.map(Into::into) };
    let not_applied = |rule: &str, matched| RuleExplanation {
        rule: rule.into(),
        matched,
        condition: None,
        outcome: OutcomeExplanation::NotApplied,
    };
    Explanation {
        rules: vec![
            RuleExplanation {
                rule: "refund".into(),
                matched: MatchExplanation::Matched,
                condition: Some(ConditionExplanation {
                    text: "body.amount > 500.00 || request.headers[\"x-risk\"] == \"high\"".into(),
                    truth: Truth::True,
                    facts: vec![fact("body.amount", Some("750")), fact("request.headers[\"x-risk\"]", None)],
                }),
                outcome: OutcomeExplanation::Required(RequirementExplanation {
                    requirement: requirement.clone(),
                    met: false,
                    level_had: Level(1),
                    shown: vec![],
                    factors_had: vec![had(Method::Password, 60, true), had(Method::Totp, 460, false)],
                }),
            },
            not_applied("other-host", MatchExplanation::OtherHost),
            not_applied("other-path", MatchExplanation::OtherPath),
            not_applied("other-method", MatchExplanation::OtherMethod),
        ],
        decision: Summary::Challenge(Challenge {
            unmet: vec![("refund".into(), requirement)],
            ways: vec![vec![Method::Totp]],
            shown: vec![],
        }),
    }
}
