use std::path::Path;

use http::{HeaderMap, HeaderValue};
use lb_policy::{HeaderLookup, NO_PARAMETERS, NoHeaders, QueryParameters, RequestFacts};

use super::super::compile;
use crate::config::{Action, Config, Route};

fn config(routes: &str) -> Config {
    let source = format!(
        "pools: [{{name: a, backends: \"10.0.0.1:80\"}}, {{name: b, backends: \"10.0.0.2:80\"}}]\nroutes:\n{routes}"
    );
    compile("lb.yaml", &source, Path::new("")).unwrap_or_else(|errors| panic!("{errors}"))
}

fn find<'c>(config: &'c Config, method: &str, host: &str, path: &str) -> Option<&'c Route> {
    config.routes.find(&RequestFacts { method, host, path, query: "", parameters: &NO_PARAMETERS, headers: &NoHeaders })
}

#[test]
fn a_route_is_found_by_all_that_it_says() {
    let config = config(
        "  - {path: /**, pool: a}
  - {host: \"*.shop.example\", path: \"/orders/{id}/**\", methods: [GET, POST], pool: b}
  - {path: /v, headers: {X-Version: \"2.*\"}, query: {lang: de}, pool: b}
",
    );
    let rows = [
        ("GET", "shop.example", "/orders/1", "*/**"),
        ("GET", "www.shop.example", "/orders/1/items", "*.shop.example/orders/{id}/** GET,HEAD,POST"),
        ("HEAD", "www.shop.example", "/orders/1", "*.shop.example/orders/{id}/** GET,HEAD,POST"),
        ("DELETE", "www.shop.example", "/orders/1", "*/**"),
        ("GET", "x", "/v", "*/**"),
    ];
    for (method, host, path, label) in rows {
        let found = find(&config, method, host, path).map(|route| &*route.label);
        assert_eq!(found, Some(label), "{method} {host}{path}");
    }
    #[derive(Debug)]
    struct Second;
    impl HeaderLookup for Second {
        fn header(&self, lower_case_name: &str) -> Option<&str> {
            (lower_case_name == "x-version").then_some("2.1")
        }
        fn has(&self, lower_case_name: &str) -> bool {
            self.header(lower_case_name).is_some()
        }
    }
    let facts = RequestFacts {
        method: "GET",
        host: "x",
        path: "/v",
        query: "",
        parameters: &QueryParameters::parse("lang=de"),
        headers: &Second,
    };
    assert!(config.routes.read_query());
    assert_eq!(config.routes.find(&facts).map(|route| &*route.label), Some("*/v x-version=2.* ?lang=de"));
}

#[test]
fn a_route_can_lead_elsewhere_than_to_one_pool() {
    let config = config(
        "  - {path: /split, split: [{pool: a, weight: 3}, {pool: b, weight: 1}], mirror: {pool: b, percent: 0.25}}
  - {path: /old/**, redirect: {to: /new/**}}
  - {path: /away, redirect: {to: \"https://Other.example:8443\", status: 302, query: drop}}
  - {path: /text, respond: {body: hello}}
  - {path: /gone, respond: {status: 410}}
",
    );
    let action = |path| find(&config, "GET", "x", path).map(|route| &route.action);
    let Some(Action::Split(split)) = action("/split") else { panic!("{:?}", action("/split")) };
    assert_eq!(split.shares, [("a".to_owned(), 3), ("b".to_owned(), 1)]);
    let mirror = find(&config, "GET", "x", "/split").and_then(|route| route.mirror.as_ref()).unwrap();
    assert_eq!((mirror.per_million, mirror.max_body_bytes), (2_500, 64 * 1024));
    let Some(Action::Redirect(old)) = action("/old/1") else { panic!() };
    assert_eq!((old.status.as_u16(), old.origin.as_deref(), old.keeps_query), (308, None, true));
    let Some(Action::Redirect(away)) = action("/away") else { panic!() };
    let origin = "https://other.example:8443";
    assert_eq!((away.status.as_u16(), away.origin.as_deref(), away.keeps_query), (302, Some(origin), false));
    let Some(Action::Respond(text)) = action("/text") else { panic!() };
    assert_eq!((text.status.as_u16(), &text.body[..]), (200, &b"hello"[..]));
    assert_eq!(text.content_type, Some(HeaderValue::from_static("text/plain; charset=utf-8")));
    let Some(Action::Respond(gone)) = action("/gone") else { panic!() };
    assert!(gone.status.as_u16() == 410 && gone.body.is_empty() && gone.content_type.is_none());
}

#[test]
fn headers_are_removed_then_set_then_added() {
    let config = config(
        "  - {path: /**, pool: a, request_headers: {remove: [X-Debug, x-one], set: {x-one: \"1\"}, add: {x-two: \"2\"}}}\n",
    );
    let mut headers = HeaderMap::new();
    for (name, value) in [("x-debug", "y"), ("x-one", "0"), ("x-one", "00"), ("x-two", "0")] {
        headers.append(name, HeaderValue::from_static(value));
    }
    find(&config, "GET", "x", "/").unwrap().request_headers.apply(&mut headers);
    let all = |name: &str| headers.get_all(name).iter().collect::<Vec<_>>();
    assert!(all("x-debug").is_empty());
    assert_eq!(all("x-one"), ["1"]);
    assert_eq!(all("x-two"), ["0", "2"]);
}

#[test]
fn thousands_of_routes_are_read_in_no_time_that_grows_with_their_square() {
    let mut routes = String::new();
    for number in 0..10_000 {
        routes += &format!("  - {{host: h{}.example, path: \"/p{number}/{{id}}/**\", pool: a}}\n", number % 100);
    }
    let config = config(&routes);
    assert_eq!(config.routes.len(), 10_000);
    let found = find(&config, "GET", "h17.example", "/p4217/x/y").map(|route| &*route.label);
    assert_eq!(found, Some("h17.example/p4217/{id}/**"));
}

#[test]
fn an_answer_from_a_file_is_as_it_was_when_it_was_read_and_a_file_that_is_not_there_is_refused_at_its_place() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [("page.html", "<p>"), ("pixel.png", "\u{89}PNG"), ("blob", "x")] {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    std::fs::write(folder.path().join("large.bin"), vec![0; (1 << 20) + 1]).unwrap();
    let compiled = |respond: &str| {
        let source = format!(
            "pools: [{{name: a, backends: \"10.0.0.1:80\"}}]\nroutes:\n  - {{path: /, respond: {{file: {respond}}}}}\n"
        );
        compile("lb.yaml", &source, folder.path())
    };
    for (respond, body, content_type) in [
        ("page.html", "<p>", "text/html; charset=utf-8"),
        ("pixel.png", "\u{89}PNG", "image/png"),
        ("blob", "x", "application/octet-stream"),
        ("page.html, content_type: text/plain", "<p>", "text/plain"),
    ] {
        let config = compiled(respond).unwrap_or_else(|errors| panic!("{errors}"));
        let Action::Respond(fixed) = &config.routes[0].action else { panic!("{respond}") };
        let told = fixed.content_type.as_ref().map(|value| value.to_str().unwrap());
        assert_eq!((&fixed.body[..], told), (body.as_bytes(), Some(content_type)), "{respond}");
    }
    for (respond, why) in [
        ("gone.html", "gone.html cannot be read: No such file or directory"),
        (".", "cannot be read: Is a directory"),
        ("large.bin", "large.bin has 1048577 bytes; at most 1048576 are kept in memory"),
        ("page.html, body: x", "the body is either given here or in a file"),
    ] {
        let refused = compiled(respond).map(|_| respond).unwrap_err().to_string();
        assert!(refused.contains(why) && refused.contains(" --> lb.yaml:3:"), "{respond}: {refused}");
    }
}
