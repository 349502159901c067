//! What conditions can say beside comparing: functions, time, and facts that the configuration names.

use super::*;

#[test]
fn a_function_or_a_named_fact_is_true_false_or_missing() {
    use Truth::*;
    // It is 1970-01-01 00:16:40 UTC, a Thursday.
    let rows = [
        ("request.path.glob(\"/ref*\")", True),
        ("request.path.glob(\"/ref\")", False),
        ("body.note.glob(\"*\")", Missing),
        ("request.host.matches(\"^[a-z]+\\\\.example$\")", True),
        ("request.host.matches(r'^[a-z]+$')", False),
        ("session.groups.exists(group, group.startsWith(\"adm\"))", True),
        ("session.groups.exists(group, group.startsWith(\"root\"))", False),
        ("session.groups.exists(g, g == \"staff\" && body.note == \"x\")", Missing),
        ("session.groups.exists(g, g == \"other\" && body.note == \"x\")", False),
        ("session.groups.exists(g, g == \"admins\" || body.note == \"x\")", True),
        ("graphql.fields.exists(field, true)", Missing),
        ("session.factor_age.totp <= duration(\"10s\")", True),
        ("session.factor_age.totp < duration(\"10s\")", False),
        (
            "session.factor_age.password > duration(\"1m39s\") && session.factor_age.password < duration(\"1m41s\")",
            True,
        ),
        ("duration(\"24h\") == duration(\"1d\") && session.age == duration(\"1000s\")", True),
        ("api_key.id == \"x\" || api_key.age > duration(\"90d\")", Missing),
        ("threat == \"high\"", True),
        ("threat >= \"elevated\" && threat < \"critical\"", True),
        ("\"critical\" <= threat", False),
        ("threat != \"normal\"", True),
        ("time.within(\"UTC\", \"Thu 00:00-01:00\")", True),
        ("time.within(\"Asia/Tokyo\", \"Thu 00:00-01:00\")", False),
        ("!time.within(\"Asia/Tokyo\", \"Thu 09:00-10:00\")", False),
        ("route.labels.env == \"production\"", True),
        ("route.labels.team == \"\" && !has(route.labels.team) && has(route.labels.env)", True),
        ("request.query[\"v\"] == \"1\"", True),
        ("request.query[\"w\"] == \"1\"", Missing),
        ("\"v\" in request.query && !(\"w\" in request.query)", True),
        ("client.country == \"DE\" && client.asn in [3320, 1]", True),
        ("client.country in session.usual_countries && !session.impossible_travel", True),
        ("client.address in sets.office && !(client.address in sets.empty)", True),
        ("client.address in [cidr(\"192.0.2.0/24\"), sets.office]", True),
        ("client.device_known || client.device_class == \"mobile\"", False),
        ("client.tls_class == \"x\"", Missing),
        ("client.reputation > 70", Missing),
        ("client.certificate.subject.startsWith(\"CN=\") && \"laptop.corp.example\" in client.certificate.names", True),
        ("client.certificate.issuer == \"CN=Corp\" && client.certificate.fingerprint == \"ab12\"", True),
        ("rate.exports > 20 && rate.refunds == 2", True),
        ("signals.failed_logins_10m > 3 && signals.failed_logins_10m_source == 2", True),
        ("signals.failed_logins_10m_device > 0", Missing),
        ("graphql.operation_type == \"mutation\"", Missing),
    ];
    for (text, expected) in rows {
        let condition = compile(text).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
        assert_eq!(evaluate(&condition, true), expected, "{text}");
    }
    let without_a_session = [
        ("rate.refunds > 2", Missing),
        ("session.factor_age.totp < duration(\"5m\")", Missing),
        ("client.country in session.usual_countries", Missing),
        ("signals.failed_logins_10m_user > 0", Missing),
        ("signals.failed_logins_10m == 2 && rate.exports == 21", True),
    ];
    for (text, expected) in without_a_session {
        let condition = compile(text).unwrap();
        assert_eq!(evaluate(&condition, false), expected, "{text}");
        assert_eq!(condition.condition.needs_session(), expected == Missing, "{text}");
    }
}

#[test]
fn every_mistake_in_a_function_is_shown_at_its_place() {
    type Row = (&'static str, &'static str, &'static str, &'static str);
    #[rustfmt::skip]
    let rows: &[Row] = &[
        ("request.path.matches(\"a(\")", "\"a(\"", "at byte 1 of the pattern: unclosed group", ""),
        ("request.path.matches(request.host)", "request.host", "this is fixed when the rule is read: a literal text", "`request.path.matches(\"^/[0-9]+$\")`"),
        ("body.amount.matches(\"a\")", "body.amount", "this is a number, where a text is needed", ""),
        ("session.groups.all(g, g == \"a\")", "session.groups.all(g, g == \"a\")", "of the functions on lists only `exists` is available", ""),
        ("session.groups.exists(session, session == \"a\")", "session.groups.exists(session, session == \"a\")", "`session` already means something else", "call the entry something that begins no fact"),
        ("session.groups.exists(g, session.groups.exists(h, g == h))", "session.groups.exists(h, g == h)", "`exists` within `exists` is not available", ""),
        ("session.user.exists(g, g == \"a\")", "session.user", "`exists` looks into a fact that is a list; this is a text", ""),
        ("[\"a\"].exists(g, g == session.user)", "[\"a\"]", "`exists` looks into a fact that is a list; this is a list of texts", ""),
        ("session.groups.exists(g, g)", "g", "this is a text, where a condition is needed", "compare it with something"),
        ("session.factor_age.totp > 300", "session.factor_age.totp > 300", "a duration is compared with a duration", "write the span as `duration(\"8h\")`"),
        ("session.factor_age.totp > duration(\"5 minutes\")", "\"5 minutes\"", "`5 minutes` is no duration", "write whole numbers with units: 250ms, 90s, 1h30m, 7d"),
        ("session.factor_age.topt > duration(\"5m\")", "session.factor_age.topt", "there is no fact `session.factor_age.topt`", "did you mean `session.factor_age.totp`?"),
        ("threat >= \"elevate\"", "\"elevate\"", "there is no threat level `elevate`", "did you mean `elevated`?"),
        ("threat >= \"x\"", "\"x\"", "there is no threat level `x`", "the levels are normal, elevated, high, critical"),
        ("threat >= 2", "threat >= 2", "cannot compare a threat level with a number", ""),
        ("time.within(\"Europe/Berln\", \"Mon 08:00-09:00\")", "\"Europe/Berln\"", "there is no time zone `Europe/Berln`", "did you mean `Europe/Berlin`?"),
        ("time.within(\"UTC\", \"Mon 8-9\")", "\"Mon 8-9\"", "`8-9` is no span of hours", "as in `Mon-Fri 08:00-18:00, Sat 09:00-12:00`"),
        ("time.within(\"UTC\")", "time.within(\"UTC\")", "`within` is used like this: `time.within(\"Europe/Berlin\", \"Mon-Fri 08:00-18:00\")`", ""),
        ("route.labels.evn == \"a\"", "route.labels.evn", "there is no fact `route.labels.evn`", "did you mean `route.labels.env`?"),
        ("route.labels.sensitivity == \"a\"", "route.labels.sensitivity", "there is no fact `route.labels.sensitivity`", "no route has this label; give it to one: `labels: {sensitivity: …}`"),
        ("rate.downloads > 1", "rate.downloads", "there is no fact `rate.downloads`", "define it: `rates: {downloads: {by: user, within: 10m}}`, beside `rules`"),
        ("client.address in sets.offices", "sets.offices", "there is no set `offices`", "did you mean `sets.office`?"),
        ("client.address in sets.home", "sets.home", "there is no set `home`", "define it: `sets: {home: [192.0.2.0/24]}`, beside `rules`"),
        ("client.city == \"a\"", "client.city", "there is no fact `client.city`", "the facts are client.address, client.country, client.asn, client.reputation, client.device_known, client.device_class, client.tls_class, client.certificate.subject, client.certificate.issuer, client.certificate.fingerprint, client.certificate.names"),
    ];
    for (text, place, message, help) in rows {
        let errors = compile(text).expect_err(text);
        let shown: Vec<_> = errors
            .iter()
            .map(|error| {
                let at = &text[error.span.offset..error.span.offset + error.span.length];
                (at, error.message.as_str(), error.help.as_deref().unwrap_or(""))
            })
            .collect();
        assert_eq!(shown, [(*place, *message, *help)], "{text}");
    }
}

#[test]
fn a_list_that_is_too_long_is_undecided() {
    let condition = compile("session.groups.exists(g, g == \"g0\")").unwrap();
    for (length, expected) in [(256, Truth::True), (257, Truth::Missing)] {
        let groups: Vec<String> = (0..length).map(|number| format!("g{number}")).collect();
        let facts = Facts {
            now: 0,
            levels: &Levels::default(),
            request: RequestFacts {
                method: "GET",
                host: "h",
                path: "/",
                query: "",
                parameters: &NO_PARAMETERS,
                headers: &TwoHeaders,
            },
            client: ClientFacts::at([192, 0, 2, 1].into()),
            session: Some(SessionFacts { issuer: None, user: "alice", groups: &groups, factors: &[], begun_at: 0 }),
            proved_for_this_request: &[],
            provable: &Everything,
            body: &Default::default(),
            route: RouteFacts::default(),
            api_key: None,
            observed: ObservedFacts::default(),
        };
        assert_eq!(condition.evaluate(&facts), expected, "{length}");
    }
}
