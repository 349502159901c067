//! Responses that the gateway makes itself, and the reasons for which it refuses a request.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use crate::serve::access_log::RequestId;
use crate::serve::body::ResponseBody;

const REQUEST_ID: HeaderName = HeaderName::from_static("lb-request-id");

/// A response of the gateway's own, whole in memory.
pub type OwnResponse = Response<Full<Bytes>>;

/// `application/problem+json` (RFC 9457), never cached. `problem` is the last part of `urn:lb:problem:…`.
pub fn problem(status: StatusCode, problem: &str, title: &str, detail: &str) -> OwnResponse {
    let body = serde_json::json!({
        "type": format!("urn:lb:problem:{problem}"),
        "title": title,
        "status": status.as_u16(),
        "detail": detail,
    });
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Why a request goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Two readers could take the request for two different ones, or it is no request at all; the text says how.
    Malformed(&'static str),
    /// Neither HTTP/1.0 nor HTTP/1.1, and not h2.
    UnknownVersion,
    /// Too many headers, or too long ones.
    HeadTooLarge,
    /// The client stopped sending its headers.
    HeadTooSlow,
    /// Path and query are longer than is kept in memory for a challenge.
    TargetTooLong,
    /// A method that nothing here judges.
    MethodNotAllowed,
    /// It names another method than it has, in a header or its query.
    MethodOverride,
    /// No route leads anywhere; also every unknown path under the reserved prefix.
    NotFound,
    /// The client stopped sending its body.
    ClientTooSlow,
    /// The body exceeds what may be read into memory.
    BodyTooLarge,
    /// `Expect` with anything but `100-continue`.
    ExpectationFailed,
    /// The route is for clients that show a certificate.
    NoCertificate,
    /// The TLS handshake was for another host than the request is.
    Misdirected,
    /// The backend could not be reached, or broke off before its response.
    BackendFailed,
    /// The backend did not prove that it is the one that is meant, so nothing was sent to it.
    BackendUntrusted,
    /// No backend of the pool is healthy.
    NoBackend,
    /// The pool's backends, or the route, have as many requests as they may have.
    Overloaded,
    /// This worker has more to do than it can, and others come first.
    Shed,
    /// The memory for bodies that rules look into is full.
    TooManyBodies,
    /// This worker holds as many upgraded connections as it may.
    TooManyTunnels,
    /// The backend did not answer in time.
    BackendTooSlow,
}

/// An answer given before a request came to its backend.
pub struct Early(Box<Response<ResponseBody>>);

impl Early {
    pub fn into_response(self) -> Response<ResponseBody> {
        *self.0
    }
}

impl From<Refusal> for Early {
    fn from(refusal: Refusal) -> Early {
        Early(Box::new(refusal.into_response()))
    }
}

impl From<OwnResponse> for Early {
    fn from(own: OwnResponse) -> Early {
        Early(Box::new(own.map(ResponseBody::from)))
    }
}

/// Names the request in its answer, so that whoever was refused can say which request it was.
pub fn name(response: &mut Response<ResponseBody>, id: RequestId) {
    let mut text = Vec::with_capacity(40);
    id.write_to(&mut text);
    if let Ok(id) = HeaderValue::from_maybe_shared(Bytes::from(text)) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
}

/// The same request once more, on another connection: this process has a successor, which alone may write down what is
/// proved and what ends. A 307 keeps method and body (RFC 9110 §15.4.8), and leads nowhere but here.
pub fn ask_successor(authority: &str, target: &str) -> OwnResponse {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    match HeaderValue::try_from(format!("https://{authority}{target}")) {
        Ok(location) => drop(response.headers_mut().insert(header::LOCATION, location)),
        Err(_) => *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
    }
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("0"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Lets a backend's response carry a session's cookie. No cache may keep it then, whatever the backend says of it: a
/// shared one would hand the cookie to everybody (RFC 9111 §7.3).
pub fn carry_session(response: &mut Response<ResponseBody>, cookie: HeaderValue) {
    let headers = response.headers_mut();
    headers.append(header::SET_COOKIE, cookie);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Caches that know these go by them alone (RFC 9213 §2.2).
    for targeted in ["cdn-cache-control", "surrogate-control"] {
        headers.remove(targeted);
    }
}

/// What the client is told.
struct Shape {
    status: StatusCode,
    problem: &'static str,
    title: &'static str,
    detail: &'static str,
}

impl Refusal {
    pub fn status(self) -> StatusCode {
        self.shape().status
    }

    /// The connection must not carry another request: where this one ends is in doubt, or its body is still to come.
    pub fn closes_connection(self) -> bool {
        matches!(
            self,
            Refusal::Malformed(_)
                | Refusal::UnknownVersion
                | Refusal::HeadTooLarge
                | Refusal::HeadTooSlow
                | Refusal::ClientTooSlow
                | Refusal::BodyTooLarge
                | Refusal::ExpectationFailed
        )
    }

    pub fn into_response(self) -> Response<ResponseBody> {
        let Shape { status, problem: name, title, detail } = self.shape();
        let mut response = problem(status, name, title, detail);
        let headers = response.headers_mut();
        match self {
            Refusal::MethodNotAllowed => {
                headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
            }
            // One health check's usual interval: sooner, nothing can have changed.
            Refusal::NoBackend | Refusal::TooManyTunnels | Refusal::TooManyBodies => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            Refusal::Overloaded => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            // As long as it takes until nobody is shed any more, where the load is gone.
            Refusal::Shed => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
            }
            _ => {}
        }
        if self.closes_connection() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response.map(ResponseBody::from)
    }

    fn shape(self) -> Shape {
        let shape = |status, problem, title, detail| Shape { status, problem, title, detail };
        match self {
            Refusal::Malformed(detail) => shape(StatusCode::BAD_REQUEST, "malformed", "Malformed request", detail),
            Refusal::UnknownVersion => shape(
                StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                "version",
                "HTTP version not supported",
                "HTTP/1.0, HTTP/1.1 and h2 are spoken here.",
            ),
            Refusal::HeadTooLarge => shape(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "head-too-large",
                "Request header fields too large",
                "The request line and headers exceed 64 KiB, or there are more than 100 headers.",
            ),
            Refusal::HeadTooSlow => shape(
                StatusCode::REQUEST_TIMEOUT,
                "request-timeout",
                "Request timeout",
                "The request's headers stopped arriving.",
            ),
            Refusal::TargetTooLong => {
                shape(StatusCode::URI_TOO_LONG, "target-too-long", "Target too long", "Path and query exceed 8 KiB.")
            }
            Refusal::MethodNotAllowed => shape(
                StatusCode::METHOD_NOT_ALLOWED,
                "method",
                "Method not allowed",
                "The method is unknown here. Methods are case-sensitive; see the Allow header.",
            ),
            Refusal::MethodOverride => shape(
                StatusCode::BAD_REQUEST,
                "method-override",
                "Method override refused",
                "A header or `_method` in the query names another method than the request has; send that method itself.",
            ),
            Refusal::NotFound => shape(StatusCode::NOT_FOUND, "not-found", "Not found", "Nothing is served here."),
            Refusal::ClientTooSlow => shape(
                StatusCode::REQUEST_TIMEOUT,
                "request-timeout",
                "Request timeout",
                "The request body stopped arriving.",
            ),
            Refusal::BodyTooLarge => shape(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-large",
                "Body too large",
                "The request body is larger than this route inspects.",
            ),
            Refusal::NoCertificate => shape(
                StatusCode::FORBIDDEN,
                "client_certificate_required",
                "Client certificate required",
                "Connect again with a certificate of an authority that this service trusts.",
            ),
            Refusal::ExpectationFailed => shape(
                StatusCode::EXPECTATION_FAILED,
                "expectation",
                "Expectation failed",
                "Only Expect: 100-continue is understood.",
            ),
            Refusal::Misdirected => shape(
                StatusCode::MISDIRECTED_REQUEST,
                "misdirected",
                "Misdirected request",
                "The TLS connection was opened for another host; open a new one for this host.",
            ),
            Refusal::BackendFailed
            | Refusal::BackendUntrusted
            | Refusal::NoBackend
            | Refusal::Overloaded
            | Refusal::Shed
            | Refusal::TooManyBodies
            | Refusal::TooManyTunnels
            | Refusal::BackendTooSlow => self.shape_of_ours(),
        }
    }

    /// Of what is no fault of the client's.
    fn shape_of_ours(self) -> Shape {
        let shape = |status, problem, title, detail| Shape { status, problem, title, detail };
        let unavailable =
            |problem, detail| shape(StatusCode::SERVICE_UNAVAILABLE, problem, "Service unavailable", detail);
        match self {
            Refusal::BackendFailed => shape(
                StatusCode::BAD_GATEWAY,
                "backend-failed",
                "Bad gateway",
                "The backend broke off before answering.",
            ),
            Refusal::BackendUntrusted => shape(
                StatusCode::BAD_GATEWAY,
                "backend-untrusted",
                "Bad gateway",
                "The backend did not prove that it is the one that is meant; nothing was sent to it.",
            ),
            Refusal::NoBackend => unavailable("no-backend", "No backend can take the request at the moment."),
            Refusal::Overloaded => {
                unavailable("overloaded", "As many requests as may be are under way; try again shortly.")
            }
            Refusal::Shed => unavailable("edge-overloaded", "More is asked than can be answered; try again shortly."),
            Refusal::TooManyBodies => unavailable(
                "too-many-bodies",
                "Too many request bodies are being looked into; try again in a few seconds.",
            ),
            Refusal::TooManyTunnels => unavailable("too-many-tunnels", "Too many upgraded connections are open."),
            _ => shape(
                StatusCode::GATEWAY_TIMEOUT,
                "backend-timeout",
                "Gateway timeout",
                "The backend did not answer in time.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_problem_document_that_is_never_cached() {
        let response = Refusal::Misdirected.into_response();
        assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        assert!(!response.headers().contains_key(header::CONNECTION));
    }

    #[test]
    fn no_cache_keeps_a_response_that_carries_a_session() {
        let mut response = Response::new(ResponseBody::default());
        for (name, value) in
            [("cache-control", "public, max-age=600"), ("cdn-cache-control", "max-age=600"), ("set-cookie", "cart=1")]
        {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        carry_session(&mut response, HeaderValue::from_static("__Host-lb=x"));
        let headers = response.headers();
        assert_eq!(headers.get_all(header::CACHE_CONTROL).iter().collect::<Vec<_>>(), ["no-store"]);
        assert!(!headers.contains_key("cdn-cache-control"));
        assert_eq!(headers.get_all(header::SET_COOKIE).iter().count(), 2, "the backend's cookies stay");
    }

    #[test]
    fn a_request_of_doubtful_framing_ends_its_connection() {
        let response = Refusal::Malformed("two readings").into_response();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(response.headers()[header::CONNECTION], "close");
    }
}
