//! What kind of client asks, and so what shape an answer must have to be understood.

use http::{HeaderMap, Method, header};

use crate::serve::request::Inbound;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientKind {
    /// A person looking at a page: redirects and HTML.
    Browser,
    /// Scripts, command-line tools, tokens, upgrades: status codes and problem+json.
    Api,
    /// HTTP 200 and a grpc-status, whatever happened.
    Grpc,
    /// A CORS preflight carries no cookie, so it can never be logged in (Fetch standard §3.3.5).
    Preflight,
}

impl ClientKind {
    /// For metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            ClientKind::Browser => "browser",
            ClientKind::Api => "api",
            ClientKind::Grpc => "grpc",
            ClientKind::Preflight => "preflight",
        }
    }

    pub(super) fn of(request: &Inbound) -> ClientKind {
        let headers = &request.headers;
        if starts_with(headers, header::CONTENT_TYPE.as_str(), "application/grpc") {
            return ClientKind::Grpc;
        }
        if request.upgrade.is_some() {
            return ClientKind::Api;
        }
        if request.method == Method::OPTIONS
            && headers.contains_key(header::ORIGIN)
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
        {
            return ClientKind::Preflight;
        }
        if headers.contains_key(header::AUTHORIZATION) {
            return ClientKind::Api;
        }
        let navigates = match headers.get("sec-fetch-mode") {
            Some(mode) => mode == "navigate",
            None => accepts_html(headers) && !headers.contains_key("x-requested-with"),
        };
        if navigates { ClientKind::Browser } else { ClientKind::Api }
    }
}

fn accepts_html(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.to_ascii_lowercase().contains("text/html"))
}

fn starts_with(headers: &HeaderMap, name: &str, prefix: &str) -> bool {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)))
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn clients_are_told_apart_by_what_they_send() {
        use ClientKind::{Api, Browser, Grpc, Preflight};
        type Headers = &'static [(&'static str, &'static str)];
        let rows: &[(&str, &str, Headers, ClientKind)] = &[
            ("curl", "GET", &[("accept", "*/*")], Api),
            ("no header at all", "GET", &[], Api),
            ("an old browser", "GET", &[("accept", "text/html,application/xhtml+xml")], Browser),
            ("a browser opening a page", "GET", &[("sec-fetch-mode", "navigate"), ("accept", "text/html")], Browser),
            ("a browser sending a form", "POST", &[("sec-fetch-mode", "navigate")], Browser),
            ("fetch() that accepts anything", "GET", &[("sec-fetch-mode", "cors"), ("accept", "text/html")], Api),
            ("an old XHR", "GET", &[("accept", "text/html"), ("x-requested-with", "XMLHttpRequest")], Api),
            ("a token", "GET", &[("authorization", "Bearer x"), ("accept", "text/html")], Api),
            ("gRPC", "POST", &[("content-type", "application/grpc+proto")], Grpc),
            ("gRPC with a token", "POST", &[("content-type", "application/grpc"), ("authorization", "x")], Grpc),
            ("a preflight", "OPTIONS", &[("origin", "https://x"), ("access-control-request-method", "PUT")], Preflight),
            ("OPTIONS alone", "OPTIONS", &[("origin", "https://x")], Api),
        ];
        for (name, method, headers, expected) in rows {
            let request = testing::request(method, "/", headers, "");
            assert_eq!(ClientKind::of(&request), *expected, "{name}");
        }
    }
}
