use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::facts::{HeaderLookup, RequestFacts};
use crate::path::CanonicalPath;
use crate::query_parameters::QueryParameters;

/// `shop.example/orders/{id} GET,POST x-version=2 ?lang=de`, as routes are shown.
fn route(text: &str) -> RouteMatcher {
    let mut parts = text.split(' ');
    let place = parts.next().unwrap_or_default();
    let (host, path) = place.split_at(place.find('/').expect("a path"));
    let mut route = RouteMatcher::of_path(RoutePath::parse(path).unwrap());
    route.host = (host != "*" && !host.is_empty()).then(|| RouteHost::parse(host).unwrap());
    for part in parts {
        let pair = |text: &str| {
            let (name, value) = text.split_once('=').expect("a value");
            (name.to_string(), ValuePattern::parse(value).unwrap())
        };
        match part.strip_prefix('?') {
            Some(parameter) => route.query.push(pair(parameter)),
            None if part.contains('=') => route.headers.push(pair(part)),
            None => route.methods = RouteMethods::parse(&part.split(',').collect::<Vec<_>>()).unwrap(),
        }
    }
    route
}

#[derive(Debug, Default)]
struct Sent(BTreeMap<String, String>);

impl HeaderLookup for Sent {
    fn header(&self, lower_case_name: &str) -> Option<&str> {
        self.0.get(lower_case_name).map(String::as_str)
    }

    fn has(&self, lower_case_name: &str) -> bool {
        self.0.contains_key(lower_case_name)
    }
}

/// A request in the same words.
#[derive(Debug)]
struct Asked {
    method: String,
    host: String,
    path: String,
    parameters: QueryParameters,
    headers: Sent,
}

impl Asked {
    fn of(text: &str) -> Asked {
        let mut parts = text.split(' ');
        let (method, place) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (host, target) = place.split_at(place.find('/').expect("a path"));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pair = |text: &str| text.split_once('=').map(|(name, value)| (name.to_string(), value.to_string()));
        Asked {
            method: method.to_string(),
            host: host.to_string(),
            path: path.to_string(),
            parameters: QueryParameters::parse(query),
            headers: Sent(parts.filter_map(pair).collect()),
        }
    }

    fn facts(&self) -> RequestFacts<'_> {
        RequestFacts {
            method: &self.method,
            host: &self.host,
            path: &self.path,
            query: "",
            parameters: &self.parameters,
            headers: &self.headers,
        }
    }
}

#[test]
fn the_narrowest_route_takes_a_request_whatever_their_order() {
    let routes: Vec<&str> = vec![
        "*/**",
        "*/a/b",
        "*/a/**",
        "*/a/{x}/c",
        "*/a/*",
        "*/{x}/b",
        "shop.example/**",
        "shop.example/a",
        "*.example/**",
        "*.shop.example/**",
        "*.shop.example/only/**",
        "*/v",
        "*/v x-version=2",
        "*/v x-version=2.*",
        "*/v x-version=*",
        "*/v POST x-version=2",
        "*/q ?lang=de",
        "*/q ?lang=*",
        "*/q",
        "*/get GET",
        "*/get HEAD",
        "*/get POST",
    ];
    let rows = [
        ("any", "GET other/x", Some("*/**")),
        ("an exact path before one of any segment and before a prefix", "GET other/a/b", Some("*/a/b")),
        ("a segment of any kind before a prefix", "GET other/a/z", Some("*/a/*")),
        ("deeper", "GET other/a/z/c", Some("*/a/{x}/c")),
        ("deeper, and then another way", "GET other/a/z/d", Some("*/a/**")),
        ("the prefix itself", "GET other/a", Some("*/a/**")),
        ("literal segments count from the left", "GET other/x/b", Some("*/{x}/b")),
        ("its own host before its path", "GET shop.example/a/b", Some("shop.example/**")),
        ("its own host and path", "GET shop.example/a", Some("shop.example/a")),
        ("below a host", "GET www.example/a", Some("*.example/**")),
        ("the longer suffix", "GET a.b.shop.example/x", Some("*.shop.example/**")),
        ("a path below that is on", "GET a.shop.example/only/1", Some("*.shop.example/only/**")),
        ("no condition", "GET other/v", Some("*/v")),
        ("a method", "POST other/get", Some("*/get POST")),
        ("a header", "GET other/v x-version=2", Some("*/v x-version=2")),
        ("a header that begins so", "GET other/v x-version=2.5", Some("*/v x-version=2.*")),
        ("any value of a header", "GET other/v x-version=3", Some("*/v x-version=*")),
        ("a method and a header", "POST other/v x-version=2", Some("*/v POST x-version=2")),
        ("a parameter", "GET other/q?lang=de", Some("*/q ?lang=de")),
        ("any value of a parameter", "GET other/q?lang=fr", Some("*/q ?lang=*")),
        ("a parameter that came twice is there, and has no value", "GET other/q?lang=de&lang=fr", Some("*/q")),
        ("GET covers HEAD", "GET other/get", Some("*/get GET")),
        ("unless HEAD has a route", "HEAD other/get", Some("*/get HEAD")),
        ("a method of none goes on to a wider path", "DELETE other/get", Some("*/**")),
    ];
    for turn in 0..routes.len() {
        let mut turned = routes.clone();
        turned.rotate_left(turn);
        let matchers: Vec<RouteMatcher> = turned.iter().map(|text| route(text)).collect();
        let table = RouteTable::of(&matchers).expect("none clash");
        for (name, request, expected) in rows {
            let found = table.find(&Asked::of(request).facts()).map(|number| turned[number]);
            assert_eq!(found, expected, "{name}: {request}");
        }
    }
    assert_eq!(RouteTable::of(&[route("*/a")]).unwrap().find(&Asked::of("GET other/b").facts()), None);
}

#[test]
fn two_routes_of_which_neither_is_narrower_are_refused() {
    let rows = [
        ("the same", "*/a", "*/a", Some(true)),
        ("the same but for names", "*/a/{x}", "*/a/{y}", Some(true)),
        ("the same methods", "*/a GET", "*/a GET,HEAD", Some(true)),
        ("a method and a header", "*/a POST", "*/a x=1", Some(false)),
        ("two headers", "*/a x=1", "*/a y=1", Some(false)),
        ("a header and a parameter", "*/a x=1", "*/a ?x=1", Some(false)),
        ("methods that overlap", "*/a GET,POST", "*/a POST,PUT", Some(false)),
        ("methods apart", "*/a GET", "*/a POST x=1", None),
        ("values apart", "*/a x=1 y=2", "*/a x=2 z=3", None),
        ("beginnings apart", "*/a x=1*", "*/a x=2* y=1", None),
        ("one within the other", "*/a x=12", "*/a x=1*", None),
        ("one more condition", "*/a x=1 y=1", "*/a x=1", None),
        ("other hosts", "a/x", "b/x", None),
        ("a host and one that stands for it", "a.b/x", "*.b/x", None),
        ("other paths", "*/a/{x}", "*/a/b", None),
        ("a prefix and the path itself", "*/a/**", "*/a", None),
    ];
    for (name, one, other, clash) in rows {
        let expected = clash.map(|is_same| vec![Clash { earlier: 0, later: 1, is_same }]);
        for pair in [[route(one), route(other)], [route(other), route(one)]] {
            assert_eq!(RouteTable::of(&pair).err(), expected, "{name}: {one} and {other}");
        }
    }
}

#[test]
fn what_is_no_route_says_what_to_do() {
    let paths = [
        ("orders", "starts with"),
        ("/a/{id", "whole segment"),
        ("/a/x{id}", "whole segment"),
        ("/a/{1}", "whole segment"),
        ("/{a}/{a}", "one name"),
        ("/a/**/b", "end only"),
        ("/a%20b", "decoded"),
        ("/a//b", "empty"),
        ("/a/../b", "resolved"),
        ("/a?b", "character"),
    ];
    for (text, part) in paths {
        let error = RoutePath::parse(text).unwrap_err();
        let said = format!("{} {}", error.message, error.help.unwrap_or_default());
        assert!(said.contains(part), "{text}: {said}");
    }
    for text in ["", "a*b", "*a", "a\nb"] {
        assert!(ValuePattern::parse(text).is_err(), "{text:?}");
    }
    let error = RouteMethods::parse(&["GET", "post"]).unwrap_err();
    assert_eq!((&*error.message, error.help.as_deref()), ("there is no method `post`", Some("did you mean `POST`?")));
    for (text, shown) in [("/", "/"), ("/a/", "/a"), ("/**", "/**"), ("/a/{id}/*/**", "/a/{id}/*/**")] {
        assert_eq!(RoutePath::parse(text).unwrap().to_string(), shown);
    }
    assert_eq!(route("*.a/b GET x=1 ?y=2*").to_string(), "*.a/b GET,HEAD x=1 ?y=2*");
}

#[test]
fn a_path_is_made_of_another_as_backends_receive_both() {
    let rows = [
        ("a prefix taken away", "/api/**", "/**", "/api/orders/1", "/orders/1"),
        ("all of it taken away", "/api/**", "/**", "/api", "/"),
        ("with its slash", "/api/**", "/**", "/api/", "/"),
        ("a prefix exchanged", "/api/**", "/v2/**", "/api/orders", "/v2/orders"),
        ("the prefix alone", "/api/**", "/v2/**", "/api", "/v2"),
        ("the prefix alone, with its slash", "/api/**", "/v2/**", "/api/", "/v2/"),
        ("a prefix added", "/**", "/shop/**", "/a/b/", "/shop/a/b/"),
        ("segments", "/u/{user}/o/{order}", "/o/{order}/of-{user}", "/u/ann/o/7", "/o/7/of-ann"),
        ("escapes stay", "/u/{user}", "/x/{user}", "/u/a%20b%3Bc", "/x/a%20b%3Bc"),
        ("parameters of paths stay", "/u/{user}/**", "/x/{user}/**", "/u/a;v=1/b;w", "/x/a;v=1/b;w"),
        ("segments that rules do not see are skipped", "/u/{user}", "/x/{user}", "/;p/u/;q/ann", "/x/ann"),
        ("what is left out", "/u/{user}/**", "/x", "/u/ann/b", "/x"),
        ("something fixed with an escape", "/a", "/a%20b", "/a", "/a%20b"),
    ];
    for (name, path, template, forwarded, expected) in rows {
        let path = RoutePath::parse(path).unwrap();
        let template = PathTemplate::parse(template, &path).unwrap();
        assert_eq!(template.expand(&path, forwarded), expected, "{name}");
    }
    let path = RoutePath::parse("/u/{user}/*").unwrap();
    let rows = [
        ("/x/{usr}", "did you mean `user`?"),
        ("/x/{}", "name a segment"),
        ("/x/**", "leave it out"),
        ("/x/{user", "as in"),
        ("/x/*/y", "%2A"),
        ("x", ""),
        ("//x", "sent as `/x`"),
        ("/x/../{user}", "sent as `/x`"),
        ("/a b", ""),
        ("/a%2fb", "escapes"),
        ("/a?b=c", "escapes"),
        ("/%61", "sent as `/a`"),
    ];
    for (text, help) in rows {
        let error = PathTemplate::parse(text, &path).expect_err(text);
        assert!(error.help.clone().unwrap_or_default().contains(help), "{text}: {error:?}");
    }
    let below = RoutePath::parse("/u/{user}/**").unwrap();
    for (text, help) in
        [("/v2//**", "sent as `/v2/x`"), ("//**", "sent as `/x`"), ("/{user}/;y//**", "sent as `/x/;y/x`")]
    {
        let error = PathTemplate::parse(text, &below).expect_err(text);
        assert!(error.help.clone().unwrap_or_default().contains(help), "{text}: {error:?}");
    }
}

/// How narrow a route's host and path are, smallest first, written down a second time.
fn narrowness(text: &str) -> impl Ord + use<> {
    let place = text.split(' ').next().unwrap_or_default();
    let (host, path) = place.split_at(place.find('/').unwrap_or_default());
    let host_rank = match host.strip_prefix("*.") {
        Some(suffix) => (1, Reverse(suffix.len())),
        None if host == "*" => (2, Reverse(0)),
        None => (0, Reverse(0)),
    };
    let kinds: Vec<u8> = path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .map(|segment| match segment {
            "**" => 3,
            "*" => 2,
            _ => 1,
        })
        .collect();
    (host_rank, kinds, Reverse(text.matches('=').count()), !(text.contains("GET") || text.contains("POST")))
}

fn any_route() -> impl Strategy<Value = String> {
    let host = prop::sample::select(vec!["*", "a.b", "*.b", "b", "*.a.b"]);
    let segments = prop::collection::vec(prop::sample::select(vec!["x", "y", "*"]), 0..4);
    let rest = prop::sample::select(vec!["", "/**"]);
    let conditions = prop::sample::select(vec!["", " GET", " POST", " h=1", " h=2", " GET h=1"]);
    (host, segments, rest, conditions).prop_map(|(host, segments, rest, conditions)| {
        let path = if segments.is_empty() && rest.is_empty() { "/".into() } else { format!("/{}", segments.join("/")) };
        let path = if segments.is_empty() { format!("{rest:/<1}") } else { format!("{path}{rest}") };
        format!("{host}{path}{conditions}")
    })
}

fn any_request() -> impl Strategy<Value = String> {
    let method = prop::sample::select(vec!["GET", "HEAD", "POST"]);
    let host = prop::sample::select(vec!["a.b", "c.b", "b", "d.a.b", "z"]);
    let segments = prop::collection::vec(prop::sample::select(vec!["x", "y", "z"]), 0..5);
    let header = prop::sample::select(vec!["", " h=1", " h=2", " h=3"]);
    (method, host, segments, header)
        .prop_map(|(method, host, segments, header)| format!("{method} {host}/{}{header}", segments.join("/")))
}

proptest! {
    #[test]
    fn the_table_finds_what_trying_every_route_finds(
        texts in prop::collection::btree_set(any_route(), 1..12),
        requests in prop::collection::vec(any_request(), 8),
    ) {
        let mut texts: Vec<String> = texts.into_iter().collect();
        // Those that clash with one before are left out.
        let mut kept: Vec<String> = Vec::new();
        for text in texts.drain(..) {
            let mut with = kept.clone();
            with.push(text.clone());
            let matchers: Vec<_> = with.iter().map(|text| route(text)).collect();
            if RouteTable::of(&matchers).is_ok() {
                kept = with;
            }
        }
        let matchers: Vec<_> = kept.iter().map(|text| route(text)).collect();
        let table = RouteTable::of(&matchers).unwrap();
        for request in requests {
            let asked = Asked::of(&request);
            let facts = asked.facts();
            let takes = |matcher: &&RouteMatcher| {
                matcher.host.as_ref().is_none_or(|host| host.matches(facts.host))
                    && matcher.path.matches(facts.path)
                    && RouteTable::of(&[RouteMatcher { host: None, ..(*matcher).clone() }])
                        .unwrap()
                        .find(&facts)
                        .is_some()
            };
            let all = matchers.iter().zip(&kept).filter(|(matcher, _)| takes(matcher));
            let narrowest = all.map(|(_, text)| text).min_by(|one, other| {
                let (one, other) = (narrowness(one), narrowness(other));
                one.cmp(&other)
            });
            prop_assert_eq!(table.find(&facts).map(|number| &kept[number]), narrowest, "{} among {:?}", request, kept);
        }
    }

    #[test]
    fn a_path_made_of_a_canonical_one_is_canonical(raw in "/[a-c;%./~]{0,20}", more in "(/[a-c]{1,2}){0,2}") {
        let raw = format!("{raw}{more}").replace('%', "%20");
        let Ok(canonical) = CanonicalPath::parse(&raw) else { return Ok(()) };
        for (path, template) in [("/**", "/v2/**"), ("/{a}/**", "/x/{a}-y/**"), ("/{a}/{b}", "/{b}/{a}"), ("/**", "/**")] {
            let path = RoutePath::parse(path).unwrap();
            if !path.matches(canonical.judged()) {
                continue;
            }
            let made = PathTemplate::parse(template, &path).unwrap().expand(&path, canonical.forwarded());
            let read = CanonicalPath::parse(&made).map_err(|error| TestCaseError::fail(format!("{made}: {error}")))?;
            prop_assert_eq!(read.forwarded(), &made);
        }
    }
}
