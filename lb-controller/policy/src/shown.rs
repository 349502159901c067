//! What people are shown of a request before they approve it: facts of its body, each in one spelling.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::body::{BodyFactKind, BodySlot};
use crate::facts::Facts;
use crate::rule::{Judgement, Rule, RuleSet};
use crate::signal::Value;

/// One fact as it is shown, and as proofs commit to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownFact {
    /// As rules name it, without `body.`; where two rules show different facts under one name, `RULE.NAME`.
    pub name: String,
    pub kind: BodyFactKind,
    /// The canonical text of the value: numbers without leading or needless zeros, of [`BodyFactKind::Decimal2`] with
    /// exactly two digits behind the point; `true` or `false`; a text as it is. `None`: the body has no such fact.
    pub value: Option<String>,
}

/// A fact that a rule shows, resolved at load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) name: Arc<str>,
    pub(crate) slot: BodySlot,
    pub(crate) kind: BodyFactKind,
}

impl RuleSet {
    /// What the rules that apply show of this request, in order of name.
    pub fn shown(&self, facts: &Facts<'_>) -> Vec<ShownFact> {
        let mut rules = Vec::new();
        self.for_each_candidate(&facts.request, &mut |rule| {
            if !rule.about.shown.is_empty() && matches!(rule.judge(self.conditions(), facts), Judgement::Requires(_)) {
                rules.push(rule);
            }
        });
        shown_by(&rules, facts)
    }

    /// Whether some rule that applies takes only proofs that approve exactly this request.
    pub fn wants_approval(&self, facts: &Facts<'_>) -> bool {
        let mut wanted = false;
        self.for_each_candidate(&facts.request, &mut |rule| {
            wanted |= matches!(rule.judge(self.conditions(), facts), Judgement::Requires(it) if it.per_action);
        });
        wanted
    }
}

/// What `rules` show of this request, whatever their order.
pub(crate) fn shown_by(rules: &[&Rule], facts: &Facts<'_>) -> Vec<ShownFact> {
    let of_rule = |rule: &Rule| {
        let id = rule.about.id.clone();
        rule.about.shown.iter().map(move |shown| (id.clone(), shown.clone())).collect::<Vec<_>>()
    };
    let mut all: Vec<(Arc<str>, Shown)> = rules.iter().flat_map(|rule| of_rule(rule)).collect();
    all.sort_by(|(left_rule, left), (right_rule, right)| {
        (&left.name, left.slot, left_rule).cmp(&(&right.name, right.slot, right_rule))
    });
    all.dedup_by(|(_, one), (_, other)| one == other);
    let is_ambiguous = |name: &str| all.iter().filter(|(_, shown)| &*shown.name == name).count() > 1;
    let show = |(rule, shown): &(Arc<str>, Shown)| ShownFact {
        name: if is_ambiguous(&shown.name) { format!("{rule}.{}", shown.name) } else { shown.name.to_string() },
        kind: shown.kind,
        value: facts.body.value(shown.slot).map(|value| canonical_text(value, shown.kind)),
    };
    let mut facts: Vec<ShownFact> = all.iter().map(show).collect();
    facts.sort_by(|left, right| left.name.cmp(&right.name));
    facts
}

/// Bodies hold booleans, texts and numbers; see [`ShownFact::value`].
fn canonical_text(value: Value<'_>, kind: BodyFactKind) -> String {
    match value {
        Value::Text(text) => text.into(),
        Value::Number(number) if kind == BodyFactKind::Decimal2 => number.with_two_fraction_digits(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::decide::Decision;
    use crate::facts::{ClientFacts, Everything, NoHeaders, ObservedFacts, RequestFacts, RouteFacts, SessionFacts};
    use crate::level::Levels;
    use crate::query_parameters::NO_PARAMETERS;
    use crate::rule::{BodyFactSource, BodySource, MatchSource, OutcomeSource, RequireSource, RuleSource};

    /// Reads all of `facts` and shows them.
    fn rule(id: &str, when: Option<&str>, facts: &[(&str, &str, BodyFactKind)]) -> RuleSource {
        let fact = |(name, pointer, kind): &(&str, &str, BodyFactKind)| BodyFactSource {
            name: (*name).into(),
            pointer: (*pointer).into(),
            kind: *kind,
        };
        RuleSource {
            id: id.into(),
            matches: MatchSource::default(),
            body: Some(BodySource { max_bytes: None, facts: facts.iter().map(fact).collect() }),
            when: when.map(Into::into),
            outcome: OutcomeSource::Require(RequireSource {
                per_action: true,
                show: facts.iter().map(|(name, ..)| (*name).into()).collect(),
                ..RequireSource::default()
            }),
            on_missing: None,
        }
    }

    /// What is shown of a body, and in the challenge; both must agree.
    fn shown(rules: &[RuleSource], body: &str) -> Vec<(String, Option<String>)> {
        let rules = RuleSet::compile(rules, &Levels::default()).unwrap();
        let request = RequestFacts {
            method: "POST",
            host: "shop.example",
            path: "/",
            query: "",
            parameters: &NO_PARAMETERS,
            headers: &NoHeaders,
        };
        let body = rules.body_needs(&request).unwrap().read(Some("application/json"), body.as_bytes()).unwrap();
        let facts = Facts {
            now: 1000,
            levels: &Levels::default(),
            request,
            client: ClientFacts::at([192, 0, 2, 1].into()),
            session: Some(SessionFacts { issuer: None, user: "alice", groups: &[], factors: &[], begun_at: 0 }),
            proved_for_this_request: &[],
            provable: &Everything,
            body: &body,
            route: RouteFacts::default(),
            api_key: None,
            observed: ObservedFacts::default(),
        };
        let shown = rules.shown(&facts);
        if let Decision::Challenge(challenge) = rules.decide(&facts) {
            assert_eq!(challenge.shown, shown);
        }
        shown.into_iter().map(|fact| (fact.name, fact.value)).collect()
    }

    #[test]
    fn facts_are_shown_in_one_spelling_whatever_the_body_writes() {
        use BodyFactKind::*;
        let rules = [rule(
            "refund",
            None,
            &[
                ("payee", "/to", Text),
                ("amount", "/amount", Decimal2),
                ("rate", "/rate", Decimal),
                ("now", "/now", Boolean),
            ],
        )];
        let rows = [
            (r#"{"amount": 900, "to": "Ann", "rate": 1.50, "now": true}"#, ["900.00", "true", "Ann", "1.5"]),
            (r#"{"\u0061mount": 900.0, "to": "\u0041nn", "rate": 1.5, "now": true}"#, ["900.00", "true", "Ann", "1.5"]),
        ];
        for (body, values) in rows {
            let names = ["amount", "now", "payee", "rate"];
            let expected = names.into_iter().zip(values).map(|(name, value)| (name.into(), Some(value.into())));
            assert_eq!(shown(&rules, body), expected.collect::<Vec<_>>(), "{body}");
        }
        let missing = shown(&rules, r#"{"amount": 1}"#);
        assert_eq!(missing[2], ("payee".into(), None), "what is not there is told, not left out");
    }

    #[test]
    fn only_rules_that_apply_show_and_one_name_has_one_meaning() {
        use BodyFactKind::*;
        let small = rule("a-small", Some("body.amount < 5"), &[("amount", "/amount", Decimal2)]);
        let large = rule("b-large", Some("body.amount >= 5"), &[("amount", "/amount", Decimal2)]);
        let again = rule("c-again", None, &[("amount", "/amount", Decimal2)]);
        let other = rule("d-other", None, &[("amount", "/other", Decimal2)]);
        let body = r#"{"amount": 7, "other": 8}"#;
        let text = |value: &str| Some(value.into());
        assert_eq!(shown(core::slice::from_ref(&small), body), vec![]);
        let one = vec![("amount".into(), text("7.00"))];
        assert_eq!(shown(&[small.clone(), large.clone(), again.clone()], body), one);
        let both = vec![("b-large.amount".into(), text("7.00")), ("d-other.amount".into(), text("8.00"))];
        assert_eq!(shown(&[other, again, large, small], body), both, "in any order of rules");
    }
}
