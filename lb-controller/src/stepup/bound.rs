//! What makes a request the same request again, when its client sends it a second time after a proof.

use aws_lc_rs::digest::{Context, SHA256};
use http::{HeaderMap, HeaderName, header};

use super::transaction::BoundRequest;
use crate::serve::request::Inbound;

/// Headers that change from one sending to the next and say nothing of what is asked: who sends it from where and how is
/// judged anew each time, how the answer is to be written is no part of the action. All others are bound, those too that
/// nobody here has heard of: some backend may go by them.
const FREE: [HeaderName; 22] = [
    header::COOKIE,
    header::HOST,
    header::CONTENT_LENGTH,
    header::ORIGIN,
    header::REFERER,
    header::CACHE_CONTROL,
    header::PRAGMA,
    header::DATE,
    header::VIA,
    header::DNT,
    header::ACCEPT,
    header::ACCEPT_CHARSET,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    HeaderName::from_static("sec-gpc"),
    HeaderName::from_static("sec-purpose"),
    HeaderName::from_static("priority"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("baggage"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-correlation-id"),
];

/// `Sec-Fetch-Site` and its like are the browser's, and the key of a WebSocket is another each time.
const FREE_PREFIXES: [&str; 3] = ["sec-fetch-", "sec-ch-", "sec-websocket-"];

/// They say how to read a body, and come back with one that was parked.
const OF_BODY: [HeaderName; 2] = [header::CONTENT_TYPE, header::CONTENT_ENCODING];

impl BoundRequest {
    /// All but the body, which is not read yet.
    pub(super) fn of(request: &Inbound) -> BoundRequest {
        BoundRequest {
            method: request.method.clone(),
            authority: request.authority.clone(),
            target: request.target.clone(),
            headers_sha256: hash(request, &[]),
            body_sha256: None,
        }
    }

    /// The request goes to the same place in the same way, whatever its headers and its body.
    pub(super) fn is_at(&self, request: &Inbound) -> bool {
        self.method == request.method && self.authority == request.authority && self.target == request.target
    }
}

/// Of everything that a browser sends alike with a form of ours and with what it sent before.
pub(super) fn hash_beside_body(request: &Inbound) -> [u8; 32] {
    hash(request, &OF_BODY)
}

/// Over what the connection is to become, and each bound header with all its values, in order of name, each part behind
/// its length.
fn hash(request: &Inbound, free_too: &[HeaderName]) -> [u8; 32] {
    let headers: &HeaderMap = &request.headers;
    let is_free = |name: &HeaderName| {
        let has_prefix = |prefix: &&str| name.as_str().starts_with(*prefix);
        FREE.contains(name) || free_too.contains(name) || FREE_PREFIXES.iter().any(has_prefix)
    };
    let mut names: Vec<&HeaderName> = headers.keys().filter(|name| !is_free(name)).collect();
    names.sort_unstable_by_key(|name| name.as_str());
    let mut context = Context::new(&SHA256);
    let mut put = |part: &[u8]| {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    };
    put(request.upgrade.as_ref().map_or("", |(_, protocol)| protocol).as_bytes());
    for name in names {
        put(name.as_str().as_bytes());
        let values: Vec<_> = headers.get_all(name).iter().collect();
        put(&(values.len() as u64).to_be_bytes());
        for value in values {
            put(value.as_bytes());
        }
    }
    context.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::super::testing::request;
    use super::*;

    #[test]
    fn a_request_is_the_same_by_all_that_could_matter_to_a_backend() {
        let json = ("content-type", "application/json");
        let of = |headers: &[(&str, &str)]| BoundRequest::of(&request("POST", "/refunds", headers, "{}"));
        let base = of(&[json, ("x-tier", "1")]);
        let same: [(&str, &[(&str, &str)]); 3] = [
            ("in another order", &[("x-tier", "1"), json]),
            ("with other cookies", &[json, ("x-tier", "1"), ("cookie", "a=b")]),
            ("from another page", &[json, ("x-tier", "1"), ("referer", "https://x"), ("sec-fetch-site", "none")]),
        ];
        for (name, headers) in same {
            assert_eq!(of(headers), base, "{name}");
        }
        let other: [(&str, &[(&str, &str)]); 6] = [
            ("another value", &[json, ("x-tier", "2")]),
            ("one header less", &[json]),
            ("one more", &[json, ("x-tier", "1"), ("idempotency-key", "1")]),
            ("a second value", &[json, ("x-tier", "1"), ("x-tier", "1")]),
            ("a second content type", &[json, ("content-type", "text/xml"), ("x-tier", "1")]),
            ("a value that runs into the next name", &[json, ("x-tie", "r1")]),
        ];
        for (name, headers) in other {
            assert_ne!(of(headers), base, "{name}");
        }
    }
}
