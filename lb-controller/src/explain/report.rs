//! An explanation as JSON, and as `lb-controller explain` prints it.

use lb_policy::{
    Facts, Limit, MatchExplanation, OutcomeExplanation, Requirement, RequirementExplanation, RuleExplanation, RuleSet,
    ShownFact, Summary, Truth,
};
use serde::{Deserialize, Serialize};

use super::Taken;

/// One request, explained.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explained {
    pub request: Request,
    /// Absent where it is not known.
    #[serde(default)]
    pub route: Option<Taken>,
    /// `allow`, `log_in`, `challenge` or `deny`.
    pub decision: String,
    /// The fewest methods that would satisfy a challenge.
    pub methods: Vec<String>,
    pub rules: Vec<Rule>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Absent for a request that is only described.
    pub id: Option<String>,
    /// Unix seconds.
    pub at: u64,
    pub method: String,
    pub host: String,
    pub path: String,
    pub client: String,
    pub user: Option<String>,
}

/// What one rule made of the request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rule {
    pub id: String,
    /// `matched`, `other host`, `other path` or `other method`.
    pub matched: String,
    /// The condition as written.
    pub when: Option<String>,
    /// `true`, `false` or `missing`: a fact it hangs on was absent.
    pub result: Option<String>,
    pub facts: Vec<NamedFact>,
    pub denied: Option<String>,
    pub required: Option<Required>,
    /// What follows from a rule that neither denies nor requires, such as `ends all sessions of the user`.
    pub follows: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NamedFact {
    pub name: String,
    /// `None`: missing.
    pub value: Option<String>,
}

/// What was required, and what was had.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Required {
    pub level: Option<u8>,
    /// Any one of these; empty: any method.
    pub methods: Vec<String>,
    pub max_age_seconds: Option<u64>,
    pub per_action: bool,
    /// What people are shown of the request before they approve it.
    pub shows: Vec<NamedFact>,
    pub met: bool,
    /// Reached by the factors that count here.
    pub had_level: u8,
    pub had_factors: Vec<Factor>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Factor {
    pub method: String,
    pub age_seconds: Option<u64>,
    /// Young enough, and for this request where that is required.
    pub counts: bool,
}

impl Explained {
    /// Walks every rule, and so costs more than a decision. `id` names the request in logs, if it was a real one.
    pub fn of(rules: &RuleSet, facts: &Facts<'_>, route: Taken, id: Option<String>) -> Explained {
        let explanation = rules.explain(facts);
        let (decision, methods) = match &explanation.decision {
            Summary::Allow => ("allow", &[][..]),
            Summary::LogIn => ("log_in", &[][..]),
            Summary::Challenge(challenge) => ("challenge", challenge.methods()),
            Summary::AllowWithin(_) => ("allow_within_limits", &[][..]),
            Summary::Revoke(_) => ("revoke", &[][..]),
            Summary::RegenerateApiKey(_) => ("regenerate_api_key", &[][..]),
            Summary::Deny(_) => ("deny", &[][..]),
        };
        Explained {
            request: Request {
                id,
                at: facts.now,
                method: facts.request.method.to_owned(),
                host: facts.request.host.to_owned(),
                path: facts.request.path.to_owned(),
                client: facts.client.address.to_string(),
                user: facts.session.map(|session| session.user.to_owned()),
            },
            route: Some(route),
            decision: decision.to_owned(),
            methods: methods.iter().map(|method| method.name().to_owned()).collect(),
            rules: explanation.rules.iter().map(Rule::from).collect(),
        }
    }
}

impl Explained {
    /// Those that brought the decision about: they deny, or require what is not met, or take something away.
    pub fn decisive_rules(&self) -> Vec<&str> {
        let decides = |rule: &&Rule| match self.decision.as_str() {
            "deny" => rule.denied.is_some(),
            "challenge" => rule.required.as_ref().is_some_and(|required| !required.met),
            "log_in" => rule.required.is_some(),
            _ => rule.follows.is_some(),
        };
        self.rules.iter().filter(decides).map(|rule| rule.id.as_str()).collect()
    }
}

impl From<&RuleExplanation> for Rule {
    fn from(rule: &RuleExplanation) -> Rule {
        let (denied, required, follows) = match &rule.outcome {
            OutcomeExplanation::Denied { reason } => (Some(reason.clone()), None, None),
            OutcomeExplanation::Required(required) => (None, Some(Required::from(required)), None),
            OutcomeExplanation::Allowed => (None, None, Some("needs no session".to_owned())),
            OutcomeExplanation::Revoked => (None, None, Some("ends all sessions of the user".to_owned())),
            OutcomeExplanation::ApiKeyRevoked => (None, None, Some("the API key must be made anew".to_owned())),
            OutcomeExplanation::Limited(limit) => (None, None, Some(limited(limit))),
            OutcomeExplanation::NotApplied | OutcomeExplanation::NeedsSession => (None, None, None),
        };
        let condition = rule.condition.as_ref();
        Rule {
            id: rule.rule.to_string(),
            matched: match rule.matched {
                MatchExplanation::Matched => "matched",
                MatchExplanation::OtherHost => "other host",
                MatchExplanation::OtherPath => "other path",
                MatchExplanation::OtherMethod => "other method",
            }
            .to_owned(),
            when: condition.map(|condition| condition.text.to_string()),
            result: condition.map(|condition| truth(condition.truth).to_owned()),
            facts: condition
                .into_iter()
                .flat_map(|condition| &condition.facts)
                .map(|fact| NamedFact { name: fact.name.clone(), value: fact.value.clone() })
                .collect(),
            denied,
            required,
            follows,
        }
    }
}

fn limited(limit: &Limit) -> String {
    let Limit { requests, per_seconds, counted_by, .. } = limit;
    format!("at most {requests} requests in {per_seconds} s by {}", counted_by.name())
}

fn truth(truth: Truth) -> &'static str {
    match truth {
        Truth::True => "true",
        Truth::False => "false",
        Truth::Missing => "missing",
    }
}

fn shown(fact: &ShownFact) -> NamedFact {
    NamedFact { name: fact.name.clone(), value: fact.value.clone() }
}

impl From<&RequirementExplanation> for Required {
    fn from(explanation: &RequirementExplanation) -> Required {
        let Requirement { level, methods, max_age_seconds, per_action } = &explanation.requirement;
        Required {
            level: level.map(|level| level.0),
            methods: methods.iter().map(|method| method.name().to_owned()).collect(),
            max_age_seconds: *max_age_seconds,
            per_action: *per_action,
            shows: explanation.shown.iter().map(shown).collect(),
            met: explanation.met,
            had_level: explanation.level_had.0,
            had_factors: explanation
                .factors_had
                .iter()
                .map(|factor| Factor {
                    method: factor.method.name().to_owned(),
                    age_seconds: factor.age_seconds,
                    counts: factor.counts,
                })
                .collect(),
        }
    }
}
