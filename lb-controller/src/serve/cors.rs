//! Pages of other origins that may send requests with our cookies (Fetch standard §3.3). Only origins of the same site
//! are of use here: our cookies are `SameSite=Lax`.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};

use crate::config::Config;
use crate::serve::body::ResponseBody;
use crate::serve::respond::OwnResponse;

/// What scripts may read of an answer beside its body: how to prove more, when to come again, and what to name when
/// complaining.
const EXPOSED: HeaderValue = HeaderValue::from_static("WWW-Authenticate, Retry-After, Lb-Request-Id");

/// The origin of the page that sent the request, if the configuration trusts it.
pub(super) fn trusted_origin(config: &Config, headers: &HeaderMap) -> Option<HeaderValue> {
    if config.trusted_origins.is_empty() {
        return None;
    }
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let (origin, None) = (origins.next()?, origins.next()) else { return None };
    config.trusted_origins.iter().any(|trusted| trusted.as_bytes() == origin.as_bytes()).then(|| origin.clone())
}

/// The answer to a preflight of a page that is trusted; those of others are judged like any request, and get no leave.
/// It carries no cookie, so nobody's request is let through by it: the request that follows is judged.
pub(super) fn preflight<Body>(config: &Config, request: &Request<Body>) -> Option<OwnResponse> {
    let headers = request.headers();
    let wanted_method = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    if request.method() != Method::OPTIONS || trusted_origin(config, headers).is_none() {
        return None;
    }
    let mut response = OwnResponse::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    let answer = response.headers_mut();
    answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, wanted_method.clone());
    if let Some(wanted) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    answer.append(
        header::VARY,
        HeaderValue::from_static("Access-Control-Request-Method, Access-Control-Request-Headers"),
    );
    Some(response)
}

/// Whether a trusted page may read what is answered at `path`, one of our own and canonical: those alone that a script
/// needs to prove more and to send its request again. Others show secrets, such as a new factor's.
pub(super) fn is_for_other_origins(path: &str) -> bool {
    let of_challenge = path.strip_prefix("/.lb/challenge/").is_some_and(|rest| rest.ends_with("/status"));
    of_challenge || matches!(path, "/.lb/step-up.js" | "/.lb/work/status" | "/.lb/jwks.json")
}

/// Lets scripts of `origin` read the response. What a backend says of this itself stands.
pub(super) fn open_to(response: &mut Response<ResponseBody>, origin: HeaderValue) {
    let headers = response.headers_mut();
    if headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        return;
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    headers.append(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    // Without it a cache would hand this answer, and its leave, to a page of another origin.
    headers.append(header::VARY, HeaderValue::from(HeaderName::from_static("origin")));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config { trusted_origins: vec!["https://app.shop.example".to_owned()], ..Config::default() }
    }

    #[test]
    fn an_origin_is_trusted_only_as_it_is_written_and_when_it_comes_once() {
        let rows: &[(&str, &[&str], bool)] = &[
            ("the trusted one", &["https://app.shop.example"], true),
            ("none", &[], false),
            ("twice", &["https://app.shop.example", "https://app.shop.example"], false),
            ("plain HTTP", &["http://app.shop.example"], false),
            ("another port", &["https://app.shop.example:8443"], false),
            ("a name that ends like it", &["https://evilapp.shop.example"], false),
            ("a name that begins like it", &["https://app.shop.example.evil.example"], false),
            ("a sandboxed frame", &["null"], false),
            ("another spelling, which no browser sends", &["https://APP.shop.example"], false),
        ];
        for (name, origins, trusted) in rows {
            let mut headers = HeaderMap::new();
            for origin in *origins {
                headers.append(header::ORIGIN, HeaderValue::from_static(origin));
            }
            assert_eq!(trusted_origin(&config(), &headers).is_some(), *trusted, "{name}");
            assert_eq!(trusted_origin(&Config::default(), &headers), None, "{name}, and nobody is trusted");
        }
    }

    #[test]
    fn a_trusted_pages_preflight_is_answered_and_anybody_elses_is_not() {
        let request = |method: &str, origin: &'static str, preflight: bool| {
            let mut request = Request::new(());
            *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
            request.headers_mut().insert(header::ORIGIN, HeaderValue::from_static(origin));
            if preflight {
                let method = HeaderValue::from_static("PUT");
                request.headers_mut().insert(header::ACCESS_CONTROL_REQUEST_METHOD, method);
            }
            request
        };
        let answer = preflight(&config(), &request("OPTIONS", "https://app.shop.example", true)).unwrap();
        assert_eq!(answer.headers()[header::ACCESS_CONTROL_ALLOW_METHODS], "PUT");
        for (method, origin, is_preflight) in [
            ("OPTIONS", "https://evil.example", true),
            ("OPTIONS", "https://app.shop.example", false),
            ("PUT", "https://app.shop.example", true),
        ] {
            assert!(preflight(&config(), &request(method, origin, is_preflight)).is_none(), "{method} {origin}");
        }
    }

    #[test]
    fn of_our_own_pages_a_trusted_page_reads_what_it_needs_to_go_on() {
        let rows = [
            ("/.lb/step-up.js", true),
            ("/.lb/challenge/3355ddf5bdd7a7d1fa1edbca3fe4d888/status", true),
            ("/.lb/work/status", true),
            ("/.lb/jwks.json", true),
            ("/.lb/challenge/3355ddf5bdd7a7d1fa1edbca3fe4d888", false),
            ("/.lb/factors/add/totp", false),
            ("/.lb/session", false),
            ("/.LB/step-up.js", false),
            ("/.lb", false),
        ];
        for (path, expected) in rows {
            assert_eq!(is_for_other_origins(path), expected, "{path}");
        }
    }

    #[test]
    fn a_backends_own_leave_stands() {
        let mut response = Response::new(ResponseBody::default());
        open_to(&mut response, HeaderValue::from_static("https://app.shop.example"));
        assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://app.shop.example");
        assert_eq!(response.headers()[header::VARY], "origin");
        let mut response = Response::new(ResponseBody::default());
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        open_to(&mut response, HeaderValue::from_static("https://app.shop.example"));
        assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!response.headers().contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
    }
}
