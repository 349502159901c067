use alloc::string::ToString;
use alloc::vec;
use std::format;

use proptest::prelude::*;

use super::*;
use crate::body::BodyFacts;
use crate::explain::Summary;
use crate::facts::{
    ApiKeyFacts, ClientFacts, NoHeaders, ObservedFacts, ProvableFactors, RequestFacts, RouteFacts, SessionFacts,
};
use crate::level::{Level, Levels, ProvableFactor, ProvedFactor, Strength};
use crate::limit::{CountedBy, LimitSource};
use crate::query_parameters::NO_PARAMETERS;
use crate::rule::{MatchSource, OutcomeSource, RequireSource, RuleSource};

const NOW: u64 = 100_000;

/// One request: a line such as `GET shop.example/admin`, and who sends it.
#[derive(Clone, Copy, Default)]
struct Request<'a> {
    line: &'a str,
    public: bool,
    /// The factors of the session, by age in seconds; `None`: no session.
    session: Option<&'a [(Method, u64)]>,
    proved_now: &'a [(Method, u64)],
    /// It came with an API key.
    has_api_key: bool,
    /// A rule that its client worked for, and how long ago.
    worked: Option<(&'a str, u64)>,
}

/// What alice has.
#[derive(Debug)]
struct PasswordAndCode;

impl ProvableFactors for PasswordAndCode {
    fn provable(&self) -> Vec<ProvableFactor> {
        [Method::Password, Method::Totp].map(|method| ProvableFactor { method, strength: Strength::Ordinary }).into()
    }
}

fn rule(id: &str, path: &str, outcome: OutcomeSource) -> RuleSource {
    RuleSource {
        id: id.into(),
        matches: MatchSource { paths: vec![path.into()], ..MatchSource::default() },
        body: None,
        when: None,
        outcome,
        on_missing: None,
    }
}

fn require(level: Option<u64>, methods: &[&str], max_age_seconds: Option<u64>, per_action: bool) -> OutcomeSource {
    let methods = methods.iter().map(ToString::to_string).collect();
    OutcomeSource::Require(RequireSource { level, methods, max_age_seconds, per_action, show: Vec::new() })
}

fn deny(reason: &str) -> OutcomeSource {
    OutcomeSource::Deny { reason: reason.into() }
}

fn limit(requests: u64, per_seconds: u64) -> OutcomeSource {
    OutcomeSource::Limit(LimitSource { requests, per_seconds, counted_by: CountedBy::User })
}

fn rules() -> Vec<RuleSource> {
    let when = |source: RuleSource, text: &str| RuleSource { when: Some(text.into()), ..source };
    vec![
        rule("code", "/refunds", require(None, &["totp"], Some(300), false)),
        rule("level", "/admin/**", require(Some(2), &[], Some(900), false)),
        rule("level-ever", "/account/**", require(Some(2), &[], None, false)),
        rule("each-time", "/keys", require(None, &["totp"], Some(0), false)),
        rule("each-time-both", "/root-keys", require(Some(2), &[], None, true)),
        rule("either", "/export", require(None, &["password", "totp"], Some(60), false)),
        rule("fresh", "/profile", require(None, &[], Some(60), false)),
        rule("closed", "/closed/**", deny("closed")),
        rule("closed-a", "/closed/**", require(Some(1), &[], None, false)),
        rule("closed-z", "/closed/twice", deny("closed again")),
        rule("both-a", "/both", require(None, &["password"], Some(60), false)),
        rule("both-b", "/both", require(None, &["totp"], Some(60), false)),
        rule("open", "/open/**", OutcomeSource::Allow),
        when(rule("open-x", "/x-open", OutcomeSource::Allow), "request.headers[\"x\"] == \"1\""),
        rule("open-admin", "/open/admin", require(Some(2), &[], None, false)),
        rule("ends", "/ends/**", OutcomeSource::Revoke),
        rule("ends-code", "/ends/code", require(None, &["totp"], None, false)),
        rule("ends-closed", "/ends/closed", deny("closed")),
        when(rule("ends-x", "/x-ends", OutcomeSource::Revoke), "request.headers[\"x\"] == \"1\""),
        rule("new-key", "/api/**", OutcomeSource::RegenerateApiKey),
        rule("new-key-b", "/api/ends", OutcomeSource::Revoke),
        rule("work", "/search/**", require(None, &["pow"], None, false)),
        rule("work-level", "/search/level", require(Some(1), &["pow"], None, false)),
        rule("work-each", "/search/each", require(None, &["pow"], None, true)),
        rule("few", "/few/**", limit(5, 60)),
        rule("fewer", "/few/er", limit(1, 60)),
        rule("few-code", "/few/code", require(None, &["totp"], None, false)),
        when(rule("few-x", "/x-few", limit(5, 60)), "request.headers[\"x\"] == \"1\""),
        when(rule("few-staff", "/staff-few", limit(5, 60)), "\"staff\" in session.groups"),
        when(rule("staff", "/staff", deny("staff only")), "!(\"staff\" in session.groups)"),
        when(rule("header", "/header", require(Some(2), &[], None, false)), "request.headers[\"x\"] == \"1\""),
        RuleSource {
            on_missing: Some(crate::OnMissing::Skip),
            ..when(rule("header-skip", "/skip", require(Some(2), &[], None, false)), "request.headers[\"x\"] == \"1\"")
        },
        RuleSource {
            on_missing: Some(crate::OnMissing::Deny),
            ..when(rule("header-deny", "/deny", require(Some(2), &[], None, false)), "request.headers[\"x\"] == \"1\"")
        },
    ]
}

fn decide(rules: &RuleSet, request: Request<'_>) -> Summary {
    let (method, target) = request.line.split_once(' ').unwrap();
    let (host, _) = target.split_once('/').unwrap();
    let proofs = |ages: &[(Method, u64)]| -> Vec<ProvedFactor> {
        ages.iter().map(|(method, age)| ProvedFactor::ordinary(*method, NOW.wrapping_sub(*age))).collect()
    };
    let session_factors = proofs(request.session.unwrap_or_default());
    let session = request.session.map(|_| SessionFacts {
        issuer: None,
        user: "alice",
        groups: &[],
        factors: &session_factors,
        begun_at: 0,
    });
    let worked: Vec<_> = request.worked.iter().map(|(rule, age)| (rule.to_string(), NOW - age)).collect();
    Summary::from(rules.decide(&Facts {
        now: NOW,
        levels: &Levels::default(),
        request: RequestFacts {
            method,
            host,
            path: &target[host.len()..],
            query: "",
            parameters: &NO_PARAMETERS,
            headers: &NoHeaders,
        },
        client: ClientFacts { worked: &worked, ..ClientFacts::at([192, 0, 2, 1].into()) },
        session,
        proved_for_this_request: &proofs(request.proved_now),
        provable: &PasswordAndCode,
        body: &BodyFacts::default(),
        route: RouteFacts { is_public: request.public, labels: &[] },
        api_key: request.has_api_key.then_some(ApiKeyFacts { id: "key-1", made_at: NOW - 3600 }),
        observed: ObservedFacts::default(),
    }))
}

/// In a line: `challenge level-ever by totp`, `deny closed: closed`, `log in`, `allow`.
fn shown(summary: &Summary) -> String {
    let joined = |names: Vec<&str>| names.join("+");
    match summary {
        Summary::Allow => "allow".into(),
        Summary::LogIn => "log in".into(),
        Summary::AllowWithin(limits) => {
            format!("allow within {}", joined(limits.iter().map(|limit| &*limit.rule).collect()))
        }
        Summary::Revoke(revocation) => format!("revoke {}", revocation.rule),
        Summary::RegenerateApiKey(revocation) => format!("new key {}", revocation.rule),
        Summary::Deny(Denial { rule, reason, revoked_by: Some(revoked_by) }) => {
            format!("deny {rule}: {reason}, revoke {revoked_by}")
        }
        Summary::Deny(denial) => format!("deny {}: {}", denial.rule, denial.reason),
        Summary::Challenge(challenge) => format!(
            "challenge {} by {}",
            joined(challenge.unmet.iter().map(|(rule, _)| &**rule).collect()),
            joined(challenge.methods().iter().map(|method| method.name()).collect()),
        ),
    }
}

#[test]
fn a_request_is_decided_by_all_rules_that_apply() {
    use Method::{Password, Totp};
    let rules = RuleSet::compile(&rules(), &Levels::default()).unwrap();
    let fresh: Option<&[_]> = Some(&[(Password, 10)]);
    let old: Option<&[_]> = Some(&[(Password, 5000)]);
    let future = 0_u64.wrapping_sub(61);
    let near_future = 0_u64.wrapping_sub(60);
    #[rustfmt::skip]
    let rows: &[(&str, Request<'_>, &str)] = &[
        ("no rule, no session", Request { line: "GET h/", ..Default::default() }, "log in"),
        ("no rule, no session, public", Request { line: "GET h/", public: true, ..Default::default() }, "allow"),
        ("no rule, a session", Request { line: "GET h/", session: old, ..Default::default() }, "allow"),
        ("a rule on a public route still asks who", Request { line: "GET h/admin", public: true, ..Default::default() }, "log in"),
        ("a code is needed and none was given", Request { line: "POST h/refunds", session: fresh, ..Default::default() }, "challenge code by totp"),
        ("a trailing slash changes nothing", Request { line: "POST h/refunds/", session: fresh, ..Default::default() }, "challenge code by totp"),
        ("a code at its last second", Request { line: "POST h/refunds", session: Some(&[(Password, 5000), (Totp, 300)]), ..Default::default() }, "allow"),
        ("a code a second too old", Request { line: "POST h/refunds", session: Some(&[(Password, 10), (Totp, 301)]), ..Default::default() }, "challenge code by totp"),
        ("a code from the future within the skew", Request { line: "POST h/refunds", session: Some(&[(Totp, near_future)]), ..Default::default() }, "allow"),
        ("a code from the far future", Request { line: "POST h/refunds", session: Some(&[(Totp, future)]), ..Default::default() }, "challenge code by totp"),
        ("a fresh password is no code", Request { line: "POST h/refunds", session: Some(&[(Password, 0)]), proved_now: &[(Password, 0)], ..Default::default() }, "challenge code by totp"),
        ("a proof for this request has no age", Request { line: "POST h/refunds", session: fresh, proved_now: &[(Totp, 301)], ..Default::default() }, "allow"),
        ("level 2 by two fresh classes", Request { line: "GET h/admin/x", session: Some(&[(Password, 900), (Totp, 0)]), ..Default::default() }, "allow"),
        ("a new code does not refresh the password", Request { line: "GET h/admin", session: Some(&[(Password, 901), (Totp, 0)]), ..Default::default() }, "challenge level by password"),
        ("level 2 with nothing fresh asks for both", Request { line: "GET h/admin", session: Some(&[(Password, 901), (Totp, 901)]), ..Default::default() }, "challenge level by password+totp"),
        ("level 2 without an age keeps an old password", Request { line: "GET h/account/x", session: old, ..Default::default() }, "challenge level-ever by totp"),
        ("two proofs of one class are one class", Request { line: "GET h/account/x", session: Some(&[(Password, 1), (Password, 2)]), ..Default::default() }, "challenge level-ever by totp"),
        ("each time: an earlier code does not count", Request { line: "POST h/keys", session: Some(&[(Totp, 0)]), ..Default::default() }, "challenge each-time by totp"),
        ("each time: a code for this request does", Request { line: "POST h/keys", session: fresh, proved_now: &[(Totp, 5)], ..Default::default() }, "allow"),
        ("each time, both: the session counts for nothing", Request { line: "POST h/root-keys", session: Some(&[(Password, 0), (Totp, 0)]), proved_now: &[(Totp, 0)], ..Default::default() }, "challenge each-time-both by password"),
        ("any of two methods", Request { line: "GET h/export", session: fresh, ..Default::default() }, "allow"),
        ("any of two methods asks for one", Request { line: "GET h/export", session: old, ..Default::default() }, "challenge either by password"),
        ("an age alone is met by any factor", Request { line: "GET h/profile", session: Some(&[(Password, 5000), (Totp, 60)]), ..Default::default() }, "allow"),
        ("an age alone asks for one factor", Request { line: "GET h/profile", session: old, ..Default::default() }, "challenge fresh by password"),
        ("two rules, one challenge", Request { line: "GET h/both", session: old, ..Default::default() }, "challenge both-a+both-b by password+totp"),
        ("only what is unmet is asked", Request { line: "GET h/both", session: fresh, ..Default::default() }, "challenge both-b by totp"),
        ("denied even with everything proved", Request { line: "GET h/closed", session: Some(&[(Password, 0), (Totp, 0)]), ..Default::default() }, "deny closed: closed"),
        ("denied without a session", Request { line: "GET h/closed", ..Default::default() }, "deny closed: closed"),
        ("of two denials the least id is told", Request { line: "GET h/closed/twice", session: fresh, ..Default::default() }, "deny closed: closed"),
        ("who is not in the group is denied", Request { line: "GET h/staff", session: fresh, ..Default::default() }, "deny staff: staff only"),
        ("who is not logged in might be in the group", Request { line: "GET h/staff", public: true, ..Default::default() }, "log in"),
        ("a missing fact challenges", Request { line: "GET h/header", session: fresh, ..Default::default() }, "challenge header by totp"),
        ("a missing fact skips where the rule says so", Request { line: "GET h/skip", session: fresh, ..Default::default() }, "allow"),
        ("an allowed path needs no session", Request { line: "GET h/open", ..Default::default() }, "allow"),
        ("what is allowed cancels no requirement", Request { line: "GET h/open/admin", ..Default::default() }, "log in"),
        ("what is allowed cancels no requirement of a session", Request { line: "GET h/open/admin", session: fresh, ..Default::default() }, "challenge open-admin by totp"),
        ("a missing fact allows nothing", Request { line: "GET h/x-open", ..Default::default() }, "log in"),
        ("sessions are ended", Request { line: "GET h/ends", session: fresh, ..Default::default() }, "revoke ends"),
        ("sessions are ended before more is asked", Request { line: "GET h/ends/code", session: fresh, ..Default::default() }, "revoke ends"),
        ("a denial outweighs, and they end all the same", Request { line: "GET h/ends/closed", session: fresh, ..Default::default() }, "deny ends-closed: closed, revoke ends"),
        ("without a session there is none to end", Request { line: "GET h/ends", public: true, ..Default::default() }, "allow"),
        ("a missing fact ends no session, and lets nothing in", Request { line: "GET h/x-ends", session: fresh, ..Default::default() }, "deny ends-x: a fact that it judges by is missing"),
        ("a key must be made anew", Request { line: "GET h/api", session: fresh, has_api_key: true, ..Default::default() }, "new key new-key"),
        ("who came without a key has none to make anew", Request { line: "GET h/api", session: fresh, ..Default::default() }, "allow"),
        ("an ended session outweighs a key", Request { line: "GET h/api/ends", session: fresh, has_api_key: true, ..Default::default() }, "revoke new-key-b"),
        ("a limit", Request { line: "GET h/few", session: fresh, ..Default::default() }, "allow within few"),
        ("all limits, in the order of their rules", Request { line: "GET h/few/er", session: fresh, ..Default::default() }, "allow within few+fewer"),
        ("a limit needs no session by itself", Request { line: "GET h/few", public: true, ..Default::default() }, "allow within few"),
        ("who must log in first spends no limit", Request { line: "GET h/few", ..Default::default() }, "log in"),
        ("who must prove more spends no limit", Request { line: "GET h/few/code", session: fresh, ..Default::default() }, "challenge few-code by totp"),
        ("a missing fact limits", Request { line: "GET h/x-few", session: fresh, ..Default::default() }, "allow within few-x"),
        ("a limit asks nobody to log in", Request { line: "GET h/staff-few", public: true, ..Default::default() }, "allow within few-staff"),
        ("a missing fact denies where the rule says so", Request { line: "GET h/deny", session: fresh, ..Default::default() }, "deny header-deny: a fact that it judges by is missing"),
        ("work is asked of strangers where no login is needed", Request { line: "GET h/search", public: true, ..Default::default() }, "challenge work by "),
        ("work for the rule counts ten minutes", Request { line: "GET h/search", public: true, worked: Some(("work", 600)), ..Default::default() }, "allow"),
        ("and not longer", Request { line: "GET h/search", public: true, worked: Some(("work", 601)), ..Default::default() }, "challenge work by "),
        ("work for another rule does not", Request { line: "GET h/search", public: true, worked: Some(("few", 0)), ..Default::default() }, "challenge work by "),
        ("work opens nothing that needs a login", Request { line: "GET h/search", worked: Some(("work", 0)), ..Default::default() }, "log in"),
        ("work counts for somebody logged in too", Request { line: "GET h/search", session: old, worked: Some(("work", 0)), ..Default::default() }, "allow"),
        ("work beside a level is somebody's", Request { line: "GET h/search/level", public: true, worked: Some(("work", 0)), ..Default::default() }, "log in"),
        ("work for this request alone is somebody's", Request { line: "GET h/search/each", public: true, worked: Some(("work", 0)), ..Default::default() }, "log in"),
    ];
    for (name, request, expected) in rows {
        assert_eq!(shown(&decide(&rules, *request)), *expected, "{name}");
    }
}

fn any_request_line() -> impl Strategy<Value = String> {
    let segment = proptest::sample::select(vec![
        "refunds",
        "admin",
        "account",
        "keys",
        "root-keys",
        "export",
        "closed",
        "twice",
        "both",
        "staff",
        "header",
        "x",
        "open",
        "ends",
        "code",
        "api",
        "few",
        "er",
    ]);
    (proptest::sample::select(vec!["GET", "HEAD", "POST", "BREW"]), proptest::collection::vec(segment, 0..3))
        .prop_map(|(method, segments)| format!("{method} h/{}", segments.join("/")))
}

fn any_proofs() -> impl Strategy<Value = Vec<(Method, u64)>> {
    let method = proptest::sample::select(vec![Method::Password, Method::Totp]);
    proptest::collection::vec((method, proptest::sample::select(vec![0, 60, 61, 300, 301, 901])), 0..4)
}

proptest! {
    #[test]
    fn the_order_of_rules_never_matters(
        shuffled in Just(rules()).prop_shuffle(),
        line in any_request_line(),
        public: bool,
        session in proptest::option::of(any_proofs()),
        proved_now in any_proofs(),
        has_api_key: bool,
    ) {
        let request = Request { line: &line, public, session: session.as_deref(), proved_now: &proved_now, has_api_key, worked: None };
        let in_order = decide(&RuleSet::compile(&rules(), &Levels::default()).unwrap(), request);
        prop_assert_eq!(decide(&RuleSet::compile(&shuffled, &Levels::default()).unwrap(), request), in_order);
    }

    #[test]
    fn proving_what_the_challenge_asks_meets_it(line in any_request_line(), session in any_proofs()) {
        let rules = RuleSet::compile(&rules(), &Levels::default()).unwrap();
        let request = Request { line: &line, session: Some(&session), ..Default::default() };
        if let Summary::Challenge(challenge) = decide(&rules, request) {
            prop_assert!(!challenge.methods().is_empty());
            let proved: Vec<(Method, u64)> = challenge.methods().iter().map(|method| (*method, 0)).collect();
            let is_allowed = |decided| matches!(decided, Summary::Allow | Summary::AllowWithin(_));
            let after_all = decide(&rules, Request { proved_now: &proved, ..request });
            prop_assert!(is_allowed(after_all));
            // And one proof fewer does not.
            let after_fewer = decide(&rules, Request { proved_now: &proved[1..], ..request });
            prop_assert!(!is_allowed(after_fewer));
        }
    }
}

#[test]
fn a_challenge_offers_every_smallest_set_of_what_the_user_has_and_no_other() {
    use Method::{Email, Password, Pin, RecoveryCode, Totp, Webauthn};
    use Strength::{DeviceBound, Ordinary};
    let requirement = |level: Option<u8>, methods: &[Method]| Requirement {
        level: level.map(Level),
        methods: methods.into(),
        max_age_seconds: Some(60),
        per_action: false,
    };
    type Row<'a> = (&'a str, &'a [Requirement], &'a [(Method, Strength)], &'a [&'a [Method]]);
    let rows: &[Row<'_>] = &[
        (
            "two classes in two ways, or a key that stands for both",
            &[requirement(Some(2), &[])],
            &[(Password, Ordinary), (Webauthn, DeviceBound), (Totp, Ordinary)],
            &[&[Webauthn], &[Password, Totp]],
        ),
        (
            "a level and a method that adds nothing to it",
            &[requirement(Some(2), &[Email])],
            &[(Password, Ordinary), (Totp, Ordinary), (Email, Ordinary)],
            &[&[Password, Totp, Email]],
        ),
        (
            "a method that raises no level is enough where no level is asked",
            &[requirement(None, &[Email])],
            &[(Email, Ordinary)],
            &[&[Email]],
        ),
        ("an age alone is not met by what proves nobody", &[requirement(None, &[])], &[(Email, Ordinary)], &[]),
        (
            "what the user lacks is not offered",
            &[requirement(None, &[Totp, Webauthn])],
            &[(Password, Ordinary), (Totp, Ordinary)],
            &[&[Totp]],
        ),
        (
            "nothing of what the user has will do",
            &[requirement(Some(3), &[])],
            &[(Password, Ordinary), (Totp, Ordinary)],
            &[],
        ),
        (
            "two requirements with a choice each",
            &[requirement(None, &[Pin, Totp]), requirement(None, &[Totp, RecoveryCode])],
            &[(Pin, Ordinary), (Totp, Ordinary), (RecoveryCode, Ordinary)],
            &[&[Totp], &[Pin, RecoveryCode]],
        ),
    ];
    let (levels, body) = (Levels::default(), BodyFacts::default());
    let facts = Facts {
        now: NOW,
        levels: &levels,
        request: RequestFacts {
            method: "GET",
            host: "h",
            path: "/",
            query: "",
            parameters: &NO_PARAMETERS,
            headers: &NoHeaders,
        },
        client: ClientFacts::at([192, 0, 2, 1].into()),
        session: None,
        proved_for_this_request: &[],
        provable: &PasswordAndCode,
        body: &body,
        route: RouteFacts::default(),
        api_key: None,
        observed: ObservedFacts::default(),
    };
    for (name, requirements, provable, ways) in rows {
        let requirements: Vec<&Requirement> = requirements.iter().collect();
        let provable =
            provable.iter().map(|(method, strength)| ProvableFactor { method: *method, strength: *strength });
        let found = Proofs::of(&facts).ways_to_meet(&requirements, &provable.collect::<Vec<_>>());
        assert_eq!(found, *ways, "{name}");
    }
}
