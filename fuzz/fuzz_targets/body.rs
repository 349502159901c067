//! Bodies: what the strict readers accept, lenient ones read as the same facts. If they did not, the rules would judge
//! one amount and the backend pay another.
#![no_main]

use std::sync::LazyLock;

use lb_policy::*;
use libfuzzer_sys::fuzz_target;

/// JSON and forms call them the same.
const FACTS: [(&str, BodyFactKind); 4] = [
    ("amount", BodyFactKind::Decimal2),
    ("count", BodyFactKind::Integer),
    ("currency", BodyFactKind::Text),
    ("express", BodyFactKind::Boolean),
];

const REQUEST: RequestFacts<'static> = RequestFacts {
    method: "POST",
    host: "shop.example",
    path: "/",
    query: "",
    parameters: &NO_PARAMETERS,
    headers: &NoHeaders,
};

static NEEDS: LazyLock<BodyNeeds> = LazyLock::new(|| {
    let source =
        |(name, kind): (&str, BodyFactKind)| BodyFactSource { name: name.into(), pointer: format!("/{name}"), kind };
    let rules = RuleSet::compile(
        &[RuleSource {
            id: "reads-the-body".into(),
            matches: MatchSource::default(),
            body: Some(BodySource { max_bytes: None, facts: FACTS.map(source).into() }),
            when: None,
            outcome: OutcomeSource::Require(RequireSource { level: Some(1), ..Default::default() }),
            on_missing: None,
        }],
        &Levels::default(),
    );
    rules.expect("the rule is sound").body_needs(&REQUEST).expect("the rule reads the body")
});

fn json(bytes: &[u8]) {
    let Ok(facts) = NEEDS.read(Some("application/json"), bytes) else { return };
    if bytes.is_empty() {
        return;
    }
    let value: serde_json::Value = serde_json::from_slice(bytes).expect("a lenient reader reads it too");
    let members =
        FACTS.iter().filter_map(|(name, _)| Some(((*name).to_owned(), value.as_object()?.get(*name)?.clone())));
    let written: serde_json::Map<String, serde_json::Value> = members.collect();
    let written = serde_json::to_vec(&written).expect("what was read can be written");
    assert_eq!(NEEDS.read(Some("application/json"), &written).as_ref(), Ok(&facts));
}

fn form(bytes: &[u8]) {
    const FORM: Option<&str> = Some("application/x-www-form-urlencoded");
    let Ok(facts) = NEEDS.read(FORM, bytes) else { return };
    let mut written = form_urlencoded::Serializer::new(String::new());
    for (name, value) in form_urlencoded::parse(bytes).filter(|(name, _)| FACTS.iter().any(|fact| fact.0 == name)) {
        written.append_pair(&name, &value);
    }
    assert_eq!(NEEDS.read(FORM, written.finish().as_bytes()).as_ref(), Ok(&facts));
}

/// What a file says is left out of a form can be left out: only text is read, and the same text again.
fn multipart(bytes: &[u8]) {
    const MULTIPART: Option<&str> = Some("multipart/form-data; boundary=b");
    let Ok(facts) = NEEDS.read(MULTIPART, bytes) else { return };
    let file = b"--b\r\nContent-Disposition: form-data; name=\"unlike.any.other\"; filename=\"x\"\r\n\r\n\xff\r\n";
    let with_a_file = [&file[..], bytes].concat();
    if let Ok(read) = NEEDS.read(MULTIPART, &with_a_file) {
        assert!(bytes.is_empty() || read == facts, "a file changes no field");
    }
}

static GRAPHQL_NEEDS: LazyLock<BodyNeeds> = LazyLock::new(|| {
    let rules = RuleSet::compile(
        &[RuleSource {
            id: "goes-by-the-operation".into(),
            matches: MatchSource::default(),
            body: None,
            when: Some("graphql.operation_type == \"mutation\"".into()),
            outcome: OutcomeSource::Require(RequireSource { level: Some(1), ..Default::default() }),
            on_missing: None,
        }],
        &Levels::default(),
    );
    rules.expect("the rule is sound").body_needs(&REQUEST).expect("the rule reads the body")
});

/// The text of a document, in a request or out of one: neither may be too much for the reader.
fn graphql(bytes: &[u8]) {
    let _ = GRAPHQL_NEEDS.read(Some("application/json"), bytes);
    let request = serde_json::json!({"query": String::from_utf8_lossy(bytes)}).to_string();
    let _ = GRAPHQL_NEEDS.read(Some("application/json"), request.as_bytes());
}

fuzz_target!(|bytes: &[u8]| {
    json(bytes);
    form(bytes);
    multipart(bytes);
    graphql(bytes);
});
