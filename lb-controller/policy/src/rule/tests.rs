use alloc::string::ToString;
use alloc::vec;
use std::format;

use proptest::prelude::*;

use super::*;
use crate::facts::NoHeaders;
use crate::query_parameters::NO_PARAMETERS;

fn rule(id: &str) -> RuleSource {
    let require = RequireSource { level: Some(1), ..RequireSource::default() };
    RuleSource {
        id: id.into(),
        matches: MatchSource::default(),
        body: None,
        when: None,
        outcome: OutcomeSource::Require(require),
        on_missing: None,
    }
}

#[test]
fn every_mistake_of_every_rule_is_reported() {
    let fact = |name: &str, pointer: &str| BodyFactSource {
        name: name.into(),
        pointer: pointer.into(),
        kind: BodyFactKind::Text,
    };
    let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
    let errors = RuleSet::compile(
        &[
            rule("good"),
            RuleSource {
                matches: MatchSource {
                    hosts: texts(&["shop.example", "*"]),
                    methods: texts(&["GET", "PSOT", "get"]),
                    paths: texts(&["/ok/**", "nope", "/a/*.php"]),
                },
                body: Some(BodySource {
                    max_bytes: Some(1 << 30),
                    facts: vec![fact("amount", "/amount"), fact("amount", "/b"), fact("a-b", "c")],
                }),
                when: Some("body.amount == 1 && body.amuont == \"x\"".into()),
                outcome: OutcomeSource::Require(RequireSource {
                    level: Some(4),
                    methods: texts(&["totp", "ttop"]),
                    max_age_seconds: Some(5),
                    per_action: true,
                    show: texts(&["amount", "amuont", "amount"]),
                }),
                on_missing: None,
                id: "good".into(),
            },
            RuleSource {
                outcome: OutcomeSource::Require(RequireSource {
                    level: Some(1),
                    show: texts(&["payee"]),
                    ..RequireSource::default()
                }),
                ..rule("blind")
            },
            RuleSource { outcome: OutcomeSource::Require(RequireSource::default()), ..rule("no spaces") },
            RuleSource {
                outcome: OutcomeSource::Deny { reason: "no".into() },
                on_missing: Some(OnMissing::Challenge),
                ..rule("deny")
            },
        ],
        &Levels::default(),
    )
    .unwrap_err();
    let expected = [
        "rule `good`, id: another rule has this id",
        "rule `good`, match.hosts[1]: `*` stands for whole labels in front (as in `*.shop.example`)",
        "rule `good`, match.paths[1]: a path starts with `/`",
        "rule `good`, match.paths[2]: `*` stands for a whole segment (as in `/invoices/*/pdf`)",
        "rule `good`, match.methods[1]: there is no method `PSOT` (did you mean `POST`?)",
        "rule `good`, match.methods[2]: there is no method `get` (did you mean `GET`?)",
        "rule `good`, body.max_bytes: from 1 byte to 1 MiB is held in memory (larger bodies can only be streamed, \
         without rules that look into them)",
        "rule `good`, body.facts[1].name: this rule has another fact of this name",
        "rule `good`, body.facts[2].name: not a name a condition can write (letters, digits and `_`, as in `body.amount`)",
        "rule `good`, body.facts[2].pointer: a JSON pointer starts with `/`, as in `/amount`",
        "rule `good`, when, byte 0: cannot compare a text with a number",
        "rule `good`, when, byte 20: there is no fact `body.amuont` (did you mean `body.amount`?)",
        "rule `good`, require.methods[1]: there is no method `ttop` (did you mean `totp`?)",
        "rule `good`, require.level: there is no such level (levels are 1 to 3, see `step_up.levels`)",
        "rule `good`, require.max_age: `max_age` means nothing beside `per_action` (`per_action` counts only proofs made \
         for the request itself; they have no age)",
        "rule `good`, require.show[1]: there is no `amuont` in this rule's `body.facts` (did you mean `amount`?)",
        "rule `good`, require.show[2]: it is shown already",
        "rule `blind`, require.show[0]: what is shown is approved for this one request (add `per_action: true`: other \
         proofs count for other requests too, which nobody has seen then)",
        "rule `blind`, require.show[0]: this rule reads no `payee` (what is shown is read from the body: add \
         `body: {facts: …}` to the rule)",
        "rule `no spaces`, id: an id has 1 to 64 letters, digits, `-`, `_` or `.`",
        "rule `no spaces`, require: nothing is required (name a `level`, `methods`, `max_age` or `per_action`)",
        "rule `deny`, on_missing: a rule that denies has no challenge to make (write `deny` or `skip`)",
    ];
    let shown: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(shown, expected);
}

#[test]
fn a_body_is_read_only_for_rules_that_are_about_the_request() {
    let reading = |id: &str, path: &str, pointer: &str, kind, max_bytes| RuleSource {
        matches: MatchSource { paths: vec![path.into()], ..MatchSource::default() },
        body: Some(BodySource {
            max_bytes,
            facts: vec![BodyFactSource { name: "fact".into(), pointer: pointer.into(), kind }],
        }),
        when: None,
        ..rule(id)
    };
    let rules = RuleSet::compile(
        &[
            rule("everywhere"),
            reading("a", "/a/**", "/x", BodyFactKind::Text, None),
            reading("b", "/a/b", "/x", BodyFactKind::Text, Some(100_000)),
            reading("c", "/a/b", "/y", BodyFactKind::Text, Some(5)),
        ],
        &Levels::default(),
    )
    .unwrap();
    let rows = [("/", None), ("/a", Some((65_536, 1))), ("/a/b", Some((100_000, 2)))];
    for (path, expected) in rows {
        let request = RequestFacts {
            method: "POST",
            host: "h",
            path,
            query: "",
            parameters: &NO_PARAMETERS,
            headers: &NoHeaders,
        };
        let needs = rules.body_needs(&request);
        assert_eq!(needs.map(|needs| (needs.max_bytes, needs.facts.len())), expected, "{path}");
    }
}

fn any_match() -> impl Strategy<Value = MatchSource> {
    let hosts = proptest::sample::subsequence(vec!["a.example", "*.example", "*.a.example"], 0..=2);
    let methods = proptest::sample::subsequence(vec!["GET", "POST", "DELETE"], 0..=2);
    let path = proptest::collection::vec(proptest::sample::select(vec!["a", "b", "*"]), 0..4);
    let paths = proptest::collection::vec((path, any::<bool>()), 0..3);
    (hosts, methods, paths).prop_map(|(hosts, methods, paths)| MatchSource {
        hosts: hosts.iter().map(ToString::to_string).collect(),
        methods: methods.iter().map(ToString::to_string).collect(),
        paths: paths
            .iter()
            .map(|(segments, below)| format!("/{}{}", segments.join("/"), if *below { "/**" } else { "" }))
            .map(|path| path.replace("//", "/"))
            .collect(),
    })
}

#[test]
fn however_many_rules_are_about_a_request_each_is_visited_once() {
    for count in [0, 1, AHEAD - 1, AHEAD, AHEAD + 1, 3 * AHEAD + 1] {
        let sources: Vec<RuleSource> = (0..count).map(|number| rule(&format!("r{number:03}"))).collect();
        let rules = RuleSet::compile(&sources, &Levels::default()).unwrap();
        let mut found: Vec<&str> = Vec::new();
        let request = RequestFacts {
            method: "GET",
            host: "a",
            path: "/",
            query: "",
            parameters: &NO_PARAMETERS,
            headers: &NoHeaders,
        };
        rules.for_each_candidate(&request, &mut |rule| found.push(&rule.about.id));
        found.sort_unstable();
        assert_eq!(found, rules.rule_ids().collect::<Vec<_>>());
    }
}

proptest! {
    #[test]
    fn the_index_finds_what_trying_every_rule_finds(
        matches in proptest::collection::vec(any_match(), 0..6),
        method in proptest::sample::select(vec!["GET", "HEAD", "POST", "BREW"]),
        host in proptest::sample::select(vec!["a.example", "b.a.example", "example", ".example", "other"]),
        segments in proptest::collection::vec(proptest::sample::select(vec!["a", "b", "c", ""]), 0..5),
    ) {
        let sources: Vec<RuleSource> = (0..)
            .zip(matches)
            .map(|(number, matches)| RuleSource { matches, ..rule(&format!("r{number}")) })
            .collect();
        let rules = RuleSet::compile(&sources, &Levels::default()).unwrap();
        let path = format!("/{}", segments.join("/"));
        let request = RequestFacts { method, host, path: &path, query: "", parameters: &NO_PARAMETERS, headers: &NoHeaders };
        let mut found: Vec<String> = Vec::new();
        rules.for_each_candidate(&request, &mut |rule| found.push(rule.about.id.to_string()));
        found.sort();
        let matcher_of = |rule: &Rule| {
            rule.about.matcher.matches_host(host) && rule.about.matcher.matches_path(&path) && rule.about.matcher.matches_method(method)
        };
        let tried: Vec<String> =
            rules.rules().filter(|rule| matcher_of(rule)).map(|rule| rule.about.id.to_string()).collect();
        prop_assert_eq!(found, tried);
    }
}
