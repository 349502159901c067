//! Responses that the gateway makes itself, and the reasons for which it refuses a request.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use crate::serve::access_log::RequestId;
use crate::serve::body::ResponseBody;

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
    /// Path and query are longer than is kept in memory for a challenge.
    TargetTooLong,
    /// A method that nothing here judges.
    MethodNotAllowed,
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
    /// No backend of the pool is healthy.
    NoBackend,
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
    if let Ok(id) = HeaderValue::try_from(id.to_string()) {
        response.headers_mut().insert("lb-request-id", id);
    }
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
            Refusal::Malformed(_) | Refusal::ClientTooSlow | Refusal::BodyTooLarge | Refusal::ExpectationFailed
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
            Refusal::TargetTooLong => {
                shape(StatusCode::URI_TOO_LONG, "target-too-long", "Target too long", "Path and query exceed 8 KiB.")
            }
            Refusal::MethodNotAllowed => shape(
                StatusCode::METHOD_NOT_ALLOWED,
                "method",
                "Method not allowed",
                "The method is unknown here. Methods are case-sensitive; see the Allow header.",
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
            Refusal::BackendFailed => shape(
                StatusCode::BAD_GATEWAY,
                "backend-failed",
                "Bad gateway",
                "The backend broke off before answering.",
            ),
            Refusal::NoBackend => shape(
                StatusCode::SERVICE_UNAVAILABLE,
                "no-backend",
                "Service unavailable",
                "No backend can take the request at the moment.",
            ),
            Refusal::TooManyBodies => shape(
                StatusCode::SERVICE_UNAVAILABLE,
                "too-many-bodies",
                "Service unavailable",
                "Too many request bodies are being looked into; try again in a few seconds.",
            ),
            Refusal::TooManyTunnels => shape(
                StatusCode::SERVICE_UNAVAILABLE,
                "too-many-tunnels",
                "Service unavailable",
                "Too many upgraded connections are open.",
            ),
            Refusal::BackendTooSlow => shape(
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
