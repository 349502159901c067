//! Conditions: mistakes are shown inside the text, and what compiles has one truth, whose negation is its opposite.
#![no_main]

use lb_policy::*;
use libfuzzer_sys::fuzz_target;

const FACTS: [(&str, BodyFactKind); 3] =
    [("amount", BodyFactKind::Decimal2), ("currency", BodyFactKind::Text), ("express", BodyFactKind::Boolean)];

#[derive(Debug)]
struct OneHeader;

impl HeaderLookup for OneHeader {
    fn header(&self, name: &str) -> Option<&str> {
        (name == "x-team").then_some("blue")
    }

    fn has(&self, name: &str) -> bool {
        name == "x-team"
    }
}

fn compile(text: &str) -> Result<RuleSet, Vec<RuleError>> {
    let source =
        |(name, kind): (&str, BodyFactKind)| BodyFactSource { name: name.into(), pointer: format!("/{name}"), kind };
    RuleSet::compile(
        &[RuleSource {
            id: "fuzzed".into(),
            matches: MatchSource::default(),
            body: Some(BodySource { max_bytes: None, facts: FACTS.map(source).into() }),
            when: Some(text.into()),
            outcome: OutcomeSource::Deny { reason: "it holds".into() },
            on_missing: Some(OnMissing::Skip),
        }],
        &Levels::default(),
    )
}

/// What the condition comes to in a request by alice, who sent an amount and nothing else.
fn truth(rules: &RuleSet) -> Truth {
    let request =
        RequestFacts { method: "POST", host: "shop.example", path: "/refunds", query: "a=b", headers: &OneHeader };
    let needs = rules.body_needs(&request).expect("the rule reads the body");
    let body = needs.read(Some("application/json"), br#"{"amount": 750.25}"#).expect("strict JSON");
    let groups = ["staff".to_owned()];
    let factors = [ProvedFactor::ordinary(Method::Password, 1_000)];
    let explanation = rules.explain(&Facts {
        now: 1_060,
        levels: &Levels::default(),
        request,
        client: ClientFacts { address: [192, 0, 2, 7].into() },
        session: Some(SessionFacts { issuer: None, user: "alice", groups: &groups, factors: &factors }),
        proved_for_this_request: &[],
        provable: &Everything,
        body: &body,
        route_is_public: false,
    });
    let truth = explanation.rules[0].condition.as_ref().expect("the rule has one").truth;
    let denied = matches!(explanation.decision, Summary::Deny(_));
    assert_eq!(denied, truth == Truth::True, "the decision follows the truth");
    truth
}

fuzz_target!(|text: &str| {
    let rules = match compile(text) {
        Ok(rules) => rules,
        Err(errors) => {
            assert!(!errors.is_empty(), "a refusal has a reason");
            for span in errors.iter().filter(|error| error.field == Field::When).filter_map(|error| error.span) {
                assert!(text.get(span.offset..span.offset + span.length).is_some(), "{span:?} is outside the text");
            }
            return;
        }
    };
    // A text may end in a comment; brackets around it may be one level too many.
    let Ok(negated) = compile(&format!("!(\n{text}\n)")) else { return };
    let opposite = match truth(&rules) {
        Truth::True => Truth::False,
        Truth::False => Truth::True,
        Truth::Missing => Truth::Missing,
    };
    assert_eq!(truth(&negated), opposite);
});
