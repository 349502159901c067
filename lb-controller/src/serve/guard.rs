//! The guard: a request is parsed once, into one reading, or refused. What passes is what rules judge and what the
//! backend receives; what clients forge is gone.

mod authority;
mod client;
pub(crate) mod names;

use http::{HeaderMap, HeaderValue, Method, Request, Version, header};
use hyper::body::Incoming;
use lb_policy::{CanonicalPath, canonical_query};

use crate::config::Config;
use crate::serve::request::{Inbound, InboundBody, Peer};
use crate::serve::respond::Refusal;

/// Methods that routes and rules know. `TRACE` echoes cookies, and `CONNECT` asks for a proxy of another kind.
const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// Checks one request and takes it apart.
///
/// Refuses what two readers could read differently (RFC 9112 §11.2), names another host than the TLS handshake did
/// (RFC 9110 §7.4), or asks for what is not proxied.
pub fn check(config: &Config, peer: &Peer, mut request: Request<Incoming>) -> Result<Inbound, Refusal> {
    if !METHODS.contains(request.method()) {
        return Err(Refusal::MethodNotAllowed);
    }
    let authority = authority::of(&request)?;
    authority::matches_server_name(&authority.host, peer)?;
    let (path, target) = canonical_target(&request)?;
    framing(request.version(), request.headers())?;
    expectation(request.headers())?;
    let upgrade = requested_upgrade(&request)?;
    let client = client::of(peer, request.headers(), &config.trusted_proxies)?;
    names::strip_request(request.headers_mut())?;
    let upgrade = upgrade.map(|protocol| (hyper::upgrade::on(&mut request), protocol));

    let (parts, body) = request.into_parts();
    Ok(Inbound {
        id: None,
        method: parts.method,
        authority: authority.text,
        host: authority.host,
        path,
        target,
        headers: parts.headers,
        body: InboundBody::Streaming(body),
        client,
        certificate: peer.certificate.clone(),
        tls_class: peer.tls_class,
        pages: config.pages.clone(),
        upgrade,
    })
}

/// The path for rules, and path and query for the backend, both of one reading.
fn canonical_target(request: &Request<Incoming>) -> Result<(String, String), Refusal> {
    let uri = request.uri();
    if uri.path_and_query().is_some_and(|target| target.as_str().len() > MAX_TARGET_BYTES) {
        return Err(Refusal::TargetTooLong);
    }
    let path = CanonicalPath::parse(uri.path()).map_err(|_| Refusal::Malformed(BAD_PATH))?;
    let mut target = path.forwarded().to_owned();
    if let Some(query) = uri.query() {
        target.push('?');
        target.push_str(&canonical_query(query));
    }
    Ok((path.judged().to_owned(), target))
}

/// RFC 9110 §4.1 asks for 8,000 at least. Challenges keep targets in memory, so a bound on the whole head is not enough.
const MAX_TARGET_BYTES: usize = 8 * 1024;

const BAD_PATH: &str = "The path has more than one reading: an encoded separator, a bad escape, a control character, \
                        dot segments beyond the root, or no leading slash.";

/// What of the framing is still to see after hyper and the referee of [`crate::serve::framing`].
fn framing(version: Version, headers: &HeaderMap) -> Result<(), Refusal> {
    let chunked = headers.contains_key(header::TRANSFER_ENCODING);
    if chunked && headers.contains_key(header::CONTENT_LENGTH) {
        return Err(Refusal::Malformed("Content-Length and Transfer-Encoding contradict each other."));
    }
    // RFC 9113 §8.2.2: h2 frames bodies itself.
    if version == Version::HTTP_2 && (chunked || headers.contains_key(header::CONNECTION)) {
        return Err(Refusal::Malformed("Connection-specific headers have no place in h2."));
    }
    Ok(())
}

fn expectation(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut expectations = headers.get_all(header::EXPECT).iter();
    match expectations.all(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        true => Ok(()),
        false => Err(Refusal::ExpectationFailed),
    }
}

/// The protocol asked for by `Upgrade`. Only WebSocket is tunnelled; `h2c` would lead around this guard altogether.
fn requested_upgrade(request: &Request<Incoming>) -> Result<Option<String>, Refusal> {
    let headers = request.headers();
    if headers.contains_key("http2-settings") {
        return Err(Refusal::Malformed("h2c is not served."));
    }
    let mut protocols = headers.get_all(header::UPGRADE).iter();
    let Some(protocol) = protocols.next() else {
        return Ok(None);
    };
    let is_websocket = protocols.next().is_none() && protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
    let asked_properly = request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && names::connection_options(headers).any(|option| option.eq_ignore_ascii_case("upgrade"));
    if !is_websocket || !asked_properly {
        return Err(Refusal::Malformed(
            "Only a GET in HTTP/1.1 with Connection: upgrade and Upgrade: websocket can be upgraded.",
        ));
    }
    Ok(Some("websocket".to_owned()))
}

/// Whether the client asked for an upgrade, rightly or not. After it, the connection cannot carry another request.
pub(crate) fn asks_for_upgrade(headers: &HeaderMap<HeaderValue>) -> bool {
    headers.contains_key(header::UPGRADE)
}
