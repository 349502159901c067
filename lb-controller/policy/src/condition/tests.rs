use super::*;
use crate::body::{BodyFactKind, BodyNeeds, BodySlot};
use crate::facts::{
    CertificateFacts, ClientFacts, Everything, FailedLogins, HeaderLookup, ObservedFacts, RequestFacts, RouteFacts,
    SessionFacts,
};
use crate::level::{Levels, Method, ProvedFactor};
use crate::query_parameters::{NO_PARAMETERS, QueryParameters};
use crate::rule::{BodyFactSource, BodySource, MatchSource, OutcomeSource, RequireSource, RuleSet, RuleSource};
use crate::threat::ThreatLevel;
use crate::vocabulary::RateName;
use alloc::format;
use alloc::vec;

mod functions;

/// `x-team` once, `x-twice` twice.
#[derive(Debug)]
struct TwoHeaders;

impl HeaderLookup for TwoHeaders {
    fn header(&self, name: &str) -> Option<&str> {
        (name == "x-team").then_some("blue")
    }

    fn has(&self, name: &str) -> bool {
        matches!(name, "x-team" | "x-twice")
    }
}

/// Body facts `amount` (a number), `currency` (a text), `express` (a boolean) and `note` (a text that never comes).
pub(super) fn body_facts() -> Vec<NamedBodyFact> {
    let rows = [
        ("amount", BodyFactKind::Decimal2),
        ("currency", BodyFactKind::Text),
        ("express", BodyFactKind::Boolean),
        ("note", BodyFactKind::Text),
    ];
    rows.iter()
        .zip(0..)
        .map(|((name, kind), slot)| NamedBodyFact { name: (*name).into(), slot: BodySlot(slot), kind: *kind })
        .collect()
}

fn body_needs() -> BodyNeeds {
    let source =
        |(name, kind): (&str, BodyFactKind)| BodyFactSource { name: name.into(), pointer: format!("/{name}"), kind };
    let facts = [
        ("amount", BodyFactKind::Decimal2),
        ("currency", BodyFactKind::Text),
        ("express", BodyFactKind::Boolean),
        ("note", BodyFactKind::Text),
    ];
    let rules = RuleSet::compile(
        &[RuleSource {
            id: "reads-the-body".into(),
            matches: MatchSource::default(),
            body: Some(BodySource { max_bytes: None, facts: facts.map(source).into() }),
            when: None,
            outcome: OutcomeSource::Require(RequireSource { level: Some(1), ..Default::default() }),
            on_missing: None,
        }],
        &Levels::default(),
    );
    let request = RequestFacts {
        method: "POST",
        host: "",
        path: "/",
        query: "",
        parameters: &NO_PARAMETERS,
        headers: &TwoHeaders,
    };
    rules.unwrap().body_needs(&request).unwrap()
}

/// `sets.office` and `sets.empty`, the label `env` of routes, and two rates, the second for users only.
fn vocabulary() -> Vocabulary {
    let office = Arc::new([Network::parse("10.0.0.0/8").unwrap()].into_iter().collect());
    let rate = |name: &str, needs_session| RateName { name: name.into(), needs_session };
    Vocabulary {
        prefix_sets: vec![("office".into(), office), ("empty".into(), Arc::default())],
        route_labels: vec!["env".into(), "team".into()],
        rates: vec![rate("exports", false), rate("refunds", true)],
    }
}

/// A condition and where its steps are.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) conditions: Conditions,
    pub(super) condition: Condition,
}

pub(super) fn compile(text: &str) -> Result<Compiled, Vec<ConditionError>> {
    let mut layout = Layout::default();
    let (condition, _) = layout.add(text, Names { vocabulary: &vocabulary(), body: &body_facts() })?;
    Ok(Compiled { conditions: layout.finish(), condition })
}

impl Compiled {
    pub(super) fn evaluate(&self, facts: &Facts<'_>) -> Truth {
        self.condition.evaluate(&self.conditions, facts)
    }
}

/// Judges `condition` on one refund request, with a session or without.
pub(super) fn evaluate(condition: &Compiled, with_session: bool) -> Truth {
    let body =
        body_needs().read(Some("application/json"), br#"{"amount":750.25,"currency":"EUR","express":true}"#).unwrap();
    let groups = ["staff".into(), "admins".into()];
    let factors = [ProvedFactor::ordinary(Method::Password, 900), ProvedFactor::ordinary(Method::Totp, 990)];
    let countries = ["DE".into(), "FR".into()];
    let names = ["laptop.corp.example".into()];
    let certificate = CertificateFacts { subject: "CN=laptop", issuer: "CN=Corp", fingerprint: "ab12", names: &names };
    condition.evaluate(&Facts {
        now: 1000,
        levels: &Levels::default(),
        request: RequestFacts {
            method: "POST",
            host: "shop.example",
            path: "/refunds/",
            query: "v=1",
            parameters: &QueryParameters::parse("v=1"),
            headers: &TwoHeaders,
        },
        client: ClientFacts {
            country: Some("DE"),
            asn: Some(3320),
            certificate: Some(certificate),
            device_class: Some("desktop"),
            ..ClientFacts::at("::ffff:10.1.2.3".parse().unwrap())
        },
        session: with_session.then_some(SessionFacts {
            issuer: None,
            user: "alice",
            groups: &groups,
            factors: &factors,
            begun_at: 0,
        }),
        proved_for_this_request: &[],
        provable: &Everything,
        body: &body,
        route: RouteFacts { is_public: false, labels: &[("env".into(), "production".into())] },
        api_key: None,
        observed: ObservedFacts {
            threat: ThreatLevel::High,
            rates: &[Some(21), with_session.then_some(2)],
            failed_logins: FailedLogins { user: with_session.then_some(4), source: 2, device: None },
            usual_countries: with_session.then_some(&countries),
            impossible_travel: with_session.then_some(false),
        },
    })
}

#[test]
fn a_condition_is_true_false_or_missing() {
    use Truth::*;
    let rows = [
        ("true", True),
        ("!true", False),
        ("body.amount > 750.24", True),
        ("body.amount > 750.25", False),
        ("body.amount >= 750.25", True),
        ("body.amount == 750.250", True),
        ("body.amount < -1", False),
        ("0.1 < 0.2 && 500.00 == 500", True),
        ("9007199254740993.0 == 9007199254740992.0", False),
        ("body.amount in [1, 750.25]", True),
        ("body.currency != \"EUR\"", False),
        ("body.currency in ['USD', 'EUR']", True),
        ("!(body.currency in [\"USD\"])", True),
        ("body.express", True),
        ("body.express == false", False),
        ("body.express != (1 > 2)", True),
        ("has(body.note)", False),
        ("!has(body.note) && has(body.amount)", True),
        ("body.note == \"x\"", Missing),
        ("!(body.note == \"x\")", Missing),
        ("body.note == \"x\" || body.amount > 1", True),
        ("body.amount > 1 || body.note == \"x\"", True),
        ("body.note == \"x\" && body.amount > 1", Missing),
        ("body.note == \"x\" && body.amount < 1", False),
        ("body.note.size() > 3", Missing),
        ("(body.note == \"x\") == (body.note == \"x\")", Missing),
        ("request.method == \"POST\" && request.host == \"shop.example\"", True),
        ("request.path == \"/refunds\"", True),
        ("request.path.startsWith(\"/ref\") && request.path.endsWith('unds')", True),
        ("request.query.contains(\"v=2\")", False),
        ("size(request.query) == 3", True),
        ("request.headers[\"X-Team\"] == \"blue\"", True),
        ("request.headers[\"x-other\"] == \"blue\"", Missing),
        ("\"x-twice\" in request.headers", True),
        ("request.headers[\"x-twice\"] == \"blue\"", Missing),
        ("\"x-team\" in request.headers && !(\"x-other\" in request.headers)", True),
        ("client.address in cidr(\"10.0.0.0/8\")", True),
        ("client.address in [cidr(\"192.0.2.0/24\"), cidr(\"10.0.0.0/8\")]", True),
        ("client.address in cidr('2001:db8::/32')", False),
        ("session.user == \"alice\"", True),
        ("\"admins\" in session.groups && !(\"root\" in session.groups)", True),
        ("session.user in session.groups", False),
        ("session.groups.size() == 2", True),
        ("session.level >= 2", True),
        ("// the limit for refunds\n  body.amount > 500.00", True),
    ];
    for (text, expected) in rows {
        let condition = compile(text).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
        assert_eq!(evaluate(&condition, true), expected, "{text}");
    }
}

/// Each part of such a chain is a test of its own; tried again for every one around it, this would not end.
#[test]
fn a_chain_on_what_is_missing_is_tried_once() {
    for operator in [" == true", " != false"] {
        let chain = format!("session.impossible_travel{}", operator.repeat(40));
        for (text, expected) in [
            (format!("{chain} && true"), Truth::Missing),
            (format!("{chain} || true"), Truth::True),
            (format!("{chain} && body.express || {chain}"), Truth::Missing),
            (format!("!({chain} || body.express)"), Truth::False),
        ] {
            assert_eq!(evaluate(&compile(&text).unwrap(), false), expected, "{text}");
        }
    }
    let nested = (0..7).fold(String::from("session.impossible_travel"), |inner, _| {
        format!("({inner} && !body.express || session.impossible_travel) == body.express")
    });
    assert_eq!(evaluate(&compile(&nested).unwrap(), false), Truth::Missing, "{nested}");
}

#[test]
fn without_a_session_what_hangs_on_it_is_missing() {
    use Truth::*;
    let rows = [
        ("session.user == \"alice\"", Missing),
        ("!(\"admins\" in session.groups)", Missing),
        ("session.level < 2", Missing),
        ("has(session.user)", False),
        ("has(session.user) && session.user == \"alice\"", False),
        ("session.user == \"alice\" || body.amount > 1", True),
    ];
    for (text, expected) in rows {
        let condition = compile(text).unwrap();
        assert!(condition.condition.needs_session(), "{text}");
        assert_eq!(evaluate(&condition, false), expected, "{text}");
    }
}

/// The text that an error points at, its message and its help.
type ShownError = (&'static str, &'static str, &'static str);

/// Conditions, each with its errors.
const MISTAKES: &[(&str, &[ShownError])] = &[
    ("sesion.user == \"a\"", &[("sesion.user", "there is no fact `sesion.user`", "did you mean `session.user`?")]),
    (
        "1 < 2 && session . usr == \"a\"",
        &[("session . usr", "there is no fact `session.usr`", "did you mean `session.user`?")],
    ),
    ("body.amont > 1", &[("body.amont", "there is no fact `body.amont`", "did you mean `body.amount`?")]),
    (
        "body.total > 1",
        &[("body.total", "there is no fact `body.total`", "declare it: `body: {facts: {total: {pointer: /total}}}`")],
    ),
    ("body.amount > \"500\"", &[("body.amount > \"500\"", "cannot compare a number with a text", "")]),
    (
        "body.currency < \"EUR\"",
        &[("body.currency < \"EUR\"", "only numbers and durations have an order; this is a text", "")],
    ),
    ("body.amount", &[("body.amount", "this is a number, where a condition is needed", "compare it with something")]),
    (
        "body.amont > 1 || body.amount || bodi.x == 2",
        &[
            ("body.amont", "there is no fact `body.amont`", "did you mean `body.amount`?"),
            ("body.amount", "this is a number, where a condition is needed", "compare it with something"),
            (
                "bodi.x",
                "there is no fact `bodi.x`",
                "facts begin with `request.`, `client.`, `session.`, `route.labels.`, `rate.`, `signals.`, `graphql.` or \
                     `body.`, or are `threat`",
            ),
        ],
    ),
    (
        "client.address == \"10.0.0.1\"",
        &[(
            "client.address == \"10.0.0.1\"",
            "an address is compared with `in` only",
            "write `client.address in cidr(\"192.0.2.0/24\")`",
        )],
    ),
    (
        "client.address in \"10.0.0.0/8\"",
        &[(
            "\"10.0.0.0/8\"",
            "an address is looked up in `cidr(…)`",
            "write `client.address in cidr(\"192.0.2.0/24\")`",
        )],
    ),
    (
        "client.address in cidr(\"10.1.0.0/8\")",
        &[("\"10.1.0.0/8\"", "bits beyond the prefix are set; the block starts at 10.0.0.0", "")],
    ),
    (
        "request.path.startWith(\"/a\")",
        &[("request.path.startWith(\"/a\")", "there is no function `startWith`", "did you mean `startsWith`?")],
    ),
    (
        "request.path.lowerAscii() == \"a\"",
        &[(
            "request.path.lowerAscii()",
            "there is no function `lowerAscii`",
            "the functions are startsWith, endsWith, contains, glob, matches, size, has, cidr, duration, exists, within",
        )],
    ),
    (
        "startsWith(\"/a\")",
        &[("startsWith(\"/a\")", "`startsWith` is used like this: `request.path.startsWith(\"…\")`", "")],
    ),
    ("body.amount * 2 > 5", &[("body.amount * 2", "conditions do not calculate", "")]),
    ("-body.amount > 5", &[("-body.amount", "conditions do not calculate", "")]),
    (
        "true ? true : false",
        &[("true ? true : false", "`a ? b : c` is not available", "write `(a && b) || (!a && c)`")],
    ),
    ("body.note == null", &[("null", "`null` is not available", "to ask whether a fact is there, write `has(…)`")]),
    ("body.amount > 5e2", &[("5e2", "exponents are not read; write the number out", "")]),
    ("body.amount > 5u", &[("5u", "write the number without `u`", "")]),
    ("body.amount in []", &[("[]", "nothing is in an empty list", "")]),
    ("body.amount in [1, \"2\"]", &[("[1, \"2\"]", "a list holds values of one kind", "")]),
    ("body.currency in [body.note]", &[("body.note", "a list holds numbers, texts, `cidr(…)` or `sets.…` only", "")]),
    (
        "body.currency in \"EUR,USD\"",
        &[("\"EUR,USD\"", "`in` looks into lists", "to find a text inside another, write `….contains(…)`")],
    ),
    ("\"admins\" in [1]", &[("\"admins\" in [1]", "a text is never in a list of numbers", "")]),
    (
        "request.headers == \"a\"",
        &[("request.headers == \"a\"", "cannot compare all headers together with a text", "")],
    ),
    ("request.headers[\"a b\"] == \"a\"", &[("\"a b\"", "no header has such a name", "")]),
    (
        "session.user[\"a\"] == \"a\"",
        &[(
            "session.user[\"a\"]",
            "only `request.headers[\"x-name\"]` and `request.query[\"name\"]` are looked up this way",
            "",
        )],
    ),
    (
        "has(request.headers[\"a\"])",
        &[(
            "[",
            "`has(…)` takes a fact, such as `has(body.amount)`",
            "for a header, write `\"x-name\" in request.headers`",
        )],
    ),
    ("body.amount = 5", &[("=", "`=` begins no word, number, text or operator", "write `==`")]),
    ("true and false", &[("and", "did not expect `and` here", "write `&&`")]),
    ("body.note == \"é\" && ", &[("", "the condition ends too early", "")]),
    ("body.note == \"é\" && )", &[(")", "did not expect `)` here", "")]),
    ("body.note == \"x", &[("\"", "`\"` begins no word, number, text or operator", "the text has no closing quote")]),
    (" ", &[(" ", "the condition is empty", "leave `when` out to apply the rule to every matching request")]),
    (
        "(((((((((true)))))))))",
        &[("(", "brackets more than 8 deep", "split the condition into several rules: all rules that match apply")],
    ),
];

#[test]
fn every_mistake_is_shown_at_its_place() {
    for (text, expected) in MISTAKES {
        let errors = compile(text).expect_err(text);
        let shown: Vec<_> = errors
            .iter()
            .map(|error| {
                let at = &text[error.span.offset..error.span.offset + error.span.length];
                (at, error.message.as_str(), error.help.as_deref().unwrap_or(""))
            })
            .collect();
        assert_eq!(shown, *expected, "{text}");
    }
}

#[test]
fn brackets_in_texts_and_comments_are_no_nesting() {
    for text in
        ["\"((((((((((((\" == body.note", "r'\\' == body.note // ((((((((((((", "'''((('\"(((((((''' == body.note"]
    {
        assert!(compile(text).is_ok(), "{text}");
    }
    let hidden = ["r'\\' == ", &"(".repeat(20)].concat();
    let errors = compile(&hidden).unwrap_err();
    assert_eq!(errors[0].message, "brackets more than 8 deep");
}

/// Run on a test thread, which has the stack of any other thread: a bomb would end the process.
#[test]
fn a_bomb_is_refused_or_fits_the_stack() {
    let shapes = [
        ("", "true", " && true"),
        ("!", "true", ""),
        ("", "a", ".a"),
        ("", "a", "[0]"),
        ("", "a", "==a"),
        ("", "a", "+a"),
    ]
    .into_iter()
    .chain([("", "a", ".b()"), ("a?", "a", ":a"), ("a?a:", "a", ""), ("-", "1", ""), ("(", "a", ")"), ("[", "", "]")])
    .chain([
        ("{1:", "1", "}"),
        ("f(", "a", ")"),
        ("", "a", "#"),
        ("'", "", ""),
        ("a.all(b,", "b", ")"),
        ("!(", "", ""),
    ]);
    for (before, middle, after) in shapes {
        let times = 2000 / (before.len() + after.len());
        let text = [&before.repeat(times), middle, &after.repeat(times)].concat();
        if let Ok(condition) = compile(&text) {
            assert_eq!(evaluate(&condition, true), Truth::True, "{before}…{after}");
        }
    }
    let long = vec!["true"; 1000].join("&&");
    assert_eq!(compile(&long).unwrap_err()[0].message, "the condition has 5998 bytes; at most 2048 are read");
    let list = format!("body.amount in [{}1]", "1,".repeat(256));
    assert_eq!(compile(&list).unwrap_err()[0].message, "257 entries; at most 256 are read");
}
