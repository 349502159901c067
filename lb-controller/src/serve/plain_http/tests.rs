use super::super::tls::Challenge;
use super::*;

fn challenges() -> Challenges {
    let challenges = Challenges::default();
    let (name, token) = ("shop.example".to_owned(), "tok-1".to_owned());
    challenges.put(vec![Challenge { name, token, key_authorization: "tok-1.thumb".to_owned() }]);
    challenges
}

/// Status, and where to or what.
fn asked(target: &str, hosts: &[&str], https_port: u16) -> (u16, String) {
    let mut request = Request::get(target);
    for host in hosts {
        request = request.header(header::HOST, *host);
    }
    let response = answer(&request.body(()).unwrap(), https_port, &challenges());
    let location = response.headers().get(header::LOCATION).map(|location| location.to_str().unwrap().to_owned());
    (response.status().as_u16(), location.unwrap_or_default())
}

#[test]
fn everybody_is_sent_to_the_same_place_over_https() {
    for (target, hosts, https_port, expected) in [
        ("/", &["shop.example"][..], 443, (308, "https://shop.example/")),
        ("/a/b?c=d&e", &["Shop.Example.:80"], 443, (308, "https://shop.example/a/b?c=d&e")),
        ("/", &["shop.example:8080"], 8443, (308, "https://shop.example:8443/")),
        ("/", &["[2001:db8::1]:80"], 443, (308, "https://[2001:db8::1]/")),
        ("//evil.example/x", &["shop.example"], 443, (308, "https://shop.example//evil.example/x")),
        ("http://shop.example/x", &["other.example"], 443, (308, "https://shop.example/x")),
        ("*", &["shop.example"], 443, (308, "https://shop.example/")),
        ("/", &[], 443, (400, "")),
        ("/", &["a.example", "b.example"], 443, (400, "")),
        ("/", &["user@evil.example"], 443, (400, "")),
        ("/", &["a b"], 443, (400, "")),
        ("/.well-known/acme-challenge/tok-1", &["shop.example"], 443, (200, "")),
        ("/.well-known/acme-challenge/tok-1", &["SHOP.example:80"], 443, (200, "")),
        ("/.well-known/acme-challenge/tok-1", &["other.example"], 443, (404, "")),
        ("/.well-known/acme-challenge/tok-2", &["shop.example"], 443, (404, "")),
        ("/.well-known/acme-challenge/", &["shop.example"], 443, (404, "")),
        ("/.well-known/acme-challenge/../x", &["shop.example"], 443, (404, "")),
    ] {
        let (status, location) = asked(target, hosts, https_port);
        assert_eq!((status, location.as_str()), expected, "{target} {hosts:?}");
    }
}

proptest::proptest! {
    #[test]
    fn no_header_makes_the_answer_lead_elsewhere(host in "[ -~]{0,40}", target in "/[!-~]{0,40}") {
        let request = Request::get(&target).header(header::HOST, &host).body(());
        let Ok(request) = request else { return Ok(()) };
        let response = answer(&request, 443, &challenges());
        if let Some(location) = response.headers().get(header::LOCATION) {
            let location: http::Uri = location.to_str().unwrap().parse().unwrap();
            let canonical = lb_policy::canonical_host(&host).unwrap();
            proptest::prop_assert_eq!(location.scheme_str(), Some("https"));
            proptest::prop_assert_eq!(location.authority().unwrap().as_str(), canonical);
        }
    }
}

#[test]
fn services_say_where_plain_http_is_spoken() {
    let text = "services:
  - {name: shop, vips: [198.51.100.10], port: 443}
  - {name: shop-http, vips: [198.51.100.10], port: 80, http: redirect}
  - {name: odd, vips: [198.51.100.11], port: 8443}
  - {name: odd-http, vips: [198.51.100.11], port: 8080, http: redirect}
pools: {name: shop, backends: \"10.0.0.1:80\"}
routes: {path: /**, pool: shop}
";
    let config = crate::config::compile_read(std::path::Path::new("lb.yaml"), text).unwrap();
    let plain = PlainHttp::new(Arc::new(config), None);
    for (local, expected) in [
        ("198.51.100.10:80", Some(443)),
        ("198.51.100.10:443", None),
        ("198.51.100.11:8080", Some(8443)),
        ("198.51.100.11:8443", None),
        ("198.51.100.12:80", None),
    ] {
        assert_eq!(plain.https_port(local.parse().unwrap()), expected, "{local}");
    }
    let direct = Direct { http: "127.0.0.1:8080".parse().unwrap(), https: "127.0.0.1:8443".parse().unwrap() };
    let plain = PlainHttp::new(Arc::default(), Some(direct));
    assert_eq!(plain.https_port(direct.http), Some(8443));
    assert_eq!(plain.https_port(direct.https), None);
}
