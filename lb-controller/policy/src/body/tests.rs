use super::*;

fn needs(pointer: &str, kind: BodyFactKind) -> BodyNeeds {
    let fact = BodyFact { slot: BodySlot(0), pointer: Pointer::parse(pointer).unwrap(), kind };
    BodyNeeds { max_bytes: 64, facts: alloc::vec![Arc::new(fact)], graphql: false }
}

#[test]
fn a_fact_is_read_in_one_way_or_refused() {
    use BodyFactKind::*;
    let wrong = |pointer: &str, expected| Err(BodyError::WrongKind { pointer: pointer.into(), expected });
    let ambiguous = |pointer: &str| Err(BodyError::AmbiguousName { pointer: pointer.into() });
    let json = "application/json";
    let form = "application/x-www-form-urlencoded";
    let rows = [
        ("/amount", Decimal2, json, r#"{"amount": 500.01}"#, Ok(Some("500.01"))),
        ("/amount", Decimal2, json, r#"{"\u0061mount": 500.01}"#, Ok(Some("500.01"))),
        ("/amount", Decimal2, json, r#"{"amount": 500.001}"#, wrong("/amount", Decimal2)),
        ("/amount", Decimal2, json, r#"{"amount": 500.000}"#, wrong("/amount", Decimal2)),
        ("/amount", Decimal, json, r#"{"amount": 500.001}"#, Ok(Some("500.001"))),
        ("/amount", Decimal, json, r#"{"amount": 9007199254740993}"#, Ok(Some("9007199254740993"))),
        ("/amount", Decimal2, json, r#"{"amount": "500.01"}"#, wrong("/amount", Decimal2)),
        ("/amount", Decimal2, json, r#"{"amount": 1e3}"#, wrong("/amount", Decimal2)),
        ("/amount", Decimal2, json, r#"{"amount": -0}"#, wrong("/amount", Decimal2)),
        ("/amount", Decimal2, json, r#"{"amount": [1]}"#, wrong("/amount", Decimal2)),
        ("/amount", Decimal2, json, r#"{"amount": true}"#, wrong("/amount", Decimal2)),
        ("/amount", Decimal2, json, r#"{"other": 1e3}"#, Ok(None)),
        ("/amount", Decimal2, json, r#"{"amount": null}"#, Ok(None)),
        ("/amount", Decimal2, json, "[]", Ok(None)),
        ("/amount", Decimal2, json, "", Ok(None)),
        ("/amount", Decimal2, json, r#"{"amount": 1, "Amount": 900}"#, ambiguous("/amount")),
        ("/amount", Decimal2, json, r#"{"AMOUNT": 900}"#, ambiguous("/amount")),
        ("/a/0/b", Integer, json, r#"{"a": [{"b": 7}]}"#, Ok(Some("7"))),
        ("/a/00/b", Integer, json, r#"{"a": [{"b": 7}]}"#, Ok(None)),
        ("/a", Integer, json, r#"{"a": 7.0}"#, wrong("/a", Integer)),
        ("/a", Text, json, r#"{"a": "x\ty"}"#, Ok(Some("\"x\\ty\""))),
        ("/a", Text, json, r#"{"a": 7}"#, wrong("/a", Text)),
        ("/a", Boolean, json, r#"{"a": true}"#, Ok(Some("true"))),
        ("/a", Boolean, json, r#"{"a": "true"}"#, wrong("/a", Boolean)),
        ("/amount", Decimal2, form, "amount=500.01", Ok(Some("500.01"))),
        ("/amount", Decimal2, form, "amount=+500.01", wrong("/amount", Decimal2)),
        ("/amount", Decimal2, form, "amount=", wrong("/amount", Decimal2)),
        ("/amount", Decimal2, form, "amount=1,000", wrong("/amount", Decimal2)),
        ("/a", Boolean, form, "a=true", Ok(Some("true"))),
        ("/a", Boolean, form, "a=on", wrong("/a", Boolean)),
        ("/a", Text, form, "a=7", Ok(Some("\"7\""))),
        ("/a/b", Text, form, "a=7", Ok(None)),
    ];
    for (pointer, kind, content_type, body, expected) in rows {
        let read = needs(pointer, kind).read(Some(content_type), body.as_bytes());
        let shown = read.map(|facts| facts.value(BodySlot(0)).map(|value| alloc::format!("{value}")));
        assert_eq!(shown, expected.map(|text| text.map(String::from)), "{kind} {pointer} in {body}");
    }
}

#[test]
fn what_cannot_be_read_is_refused_with_its_status() {
    let needs = needs("/amount", BodyFactKind::Decimal2);
    let json = Some("application/json");
    let headers = [
        (json, None, Some(64), None),
        (json, Some("identity"), Some(64), None),
        (None, None, Some(0), None),
        // No body, or a chunked one: reading tells.
        (None, None, None, None),
        (json, None, Some(65), Some(413)),
        (json, Some("gzip"), Some(10), Some(415)),
        (json, Some("gzip"), None, Some(415)),
        (json, Some("identity, br"), None, Some(415)),
        (None, None, Some(10), Some(415)),
        (Some("text/plain"), None, Some(10), Some(415)),
    ];
    for (content_type, encoding, length, expected) in headers {
        let refused = needs.check_headers(content_type, encoding, length).err();
        assert_eq!(refused.map(|error| error.status()), expected, "{content_type:?} {encoding:?} {length:?}");
    }
    type Refused<'a> = (Option<&'a str>, &'a [u8], u16);
    let bodies: [Refused<'_>; 4] = [
        (json, &[b' '; 65], 413),
        (None, b"{}", 415),
        (Some("application/json; charset=utf-16"), b"{\0}\0", 415),
        (json, b"{", 400),
    ];
    for (content_type, body, expected) in bodies {
        let status = needs.read(content_type, body).map_err(|error| error.status());
        assert_eq!(status, Err(expected), "{content_type:?} {body:?}");
    }
}
