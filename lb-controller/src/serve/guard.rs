//! The guard: a request is parsed once, into one reading, or refused. What passes is what rules judge and what the
//! backend receives; what clients forge is gone.

mod authority;
mod client;
mod method_override;
pub(crate) mod names;

use http::{HeaderMap, Method, Request, Version, header};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use lb_policy::{CanonicalPath, canonical_query};

use crate::config::Config;
use crate::serve::body::ClientBody;
use crate::serve::request::{ClientTunnel, Inbound, InboundBody, Onward, Pages, Peer};
use crate::serve::respond::Refusal;

/// Methods that routes and rules know. `TRACE` echoes cookies, and `CONNECT` asks for a proxy of another kind.
const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// The one protocol that is tunnelled.
const WEBSOCKET: &str = "websocket";

/// Checks one request and takes it apart.
///
/// Refuses what two readers could read differently (RFC 9112 §11.2), names another host than the TLS handshake did
/// (RFC 9110 §7.4), or asks for what is not proxied.
pub fn check(config: &Config, peer: &Peer, mut request: Request<ClientBody>) -> Result<Inbound, Refusal> {
    let stream = websocket_stream(&mut request);
    if !METHODS.contains(request.method()) {
        return Err(Refusal::MethodNotAllowed);
    }
    let authority = authority::of(&request)?;
    authority::matches_server_name(&authority.host, peer)?;
    let (path, target) = canonical_target(&request)?;
    framing(request.version(), request.headers())?;
    expectation(request.headers())?;
    let upgrade = requested_upgrade(&request)?;
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let method =
        method_override::effective(config.method_override, request.method().clone(), request.headers(), query)?;
    let client = client::of(peer, request.headers(), &config.trusted_proxies)?;
    names::strip_request(request.headers_mut())?;
    let (parts, body) = request.into_parts();
    // RFC 9110 §15.2: HTTP/1.0 has no informational responses.
    let interim = match &body {
        ClientBody::Http1(body) if parts.version == Version::HTTP_11 => Some(body.interim()),
        _ => None,
    };
    let upgrade = match (&body, upgrade, stream) {
        (ClientBody::Http1(body), Some(protocol), None) => Some((ClientTunnel::Http1(body.upgrade()), protocol)),
        (_, None, Some(stream)) => Some((ClientTunnel::H2(stream), WEBSOCKET.to_owned())),
        _ => None,
    };
    Ok(Inbound {
        id: None,
        method,
        authority: authority.text,
        host: authority.host,
        path,
        target,
        headers: parts.headers,
        body: InboundBody::Streaming(body),
        ends: Some(client::ends(peer, &client)),
        client,
        certificate: peer.certificate.clone(),
        tls_class: peer.tls_class,
        pages: Pages::of(&config.pages),
        upgrade,
        onward: Onward { interim, ..Onward::default() },
    })
}

/// The stream of a client that asks for a WebSocket over h2 (RFC 8441). Its request is a GET from here on, as over HTTP/1.1: one
/// request has one reading, however its client came. Any other CONNECT stays what it is, and is refused.
fn websocket_stream(request: &mut Request<ClientBody>) -> Option<OnUpgrade> {
    if request.method() != Method::CONNECT || request.version() != Version::HTTP_2 {
        return None;
    }
    let protocol = request.extensions().get::<Protocol>()?;
    if !protocol.as_str().eq_ignore_ascii_case(WEBSOCKET) {
        return None;
    }
    let stream = request.extensions_mut().remove::<OnUpgrade>()?;
    *request.method_mut() = Method::GET;
    Some(stream)
}

/// The path for rules, and path and query for the backend, both of one reading.
fn canonical_target(request: &Request<ClientBody>) -> Result<(String, String), Refusal> {
    let uri = request.uri();
    if uri.path_and_query().is_some_and(|target| target.as_str().len() > MAX_TARGET_BYTES) {
        return Err(Refusal::TargetTooLong);
    }
    let path = CanonicalPath::parse(uri.path()).map_err(|_| Refusal::Malformed(BAD_PATH))?;
    let (judged, mut target) = path.into_forms();
    if let Some(query) = uri.query() {
        target.push('?');
        target.push_str(&canonical_query(query));
    }
    Ok((judged, target))
}

/// RFC 9110 §4.1 asks for 8,000 at least. Challenges keep targets in memory, so a bound on the whole head is not enough.
const MAX_TARGET_BYTES: usize = 8 * 1024;

const BAD_PATH: &str = "The path has more than one reading: an encoded separator, a bad escape, a control character, \
                        dot segments beyond the root, or no leading slash.";

/// What of the framing is still to see after the reader of the connection: h2 has headers that speak of it, too.
fn framing(version: Version, headers: &HeaderMap) -> Result<(), Refusal> {
    let chunked = headers.contains_key(header::TRANSFER_ENCODING);
    if chunked && headers.contains_key(header::CONTENT_LENGTH) {
        return Err(Refusal::Malformed("Content-Length and Transfer-Encoding contradict each other."));
    }
    if version == Version::HTTP_2 && headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Refusal::Malformed("A body has one Content-Length."));
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
fn requested_upgrade(request: &Request<ClientBody>) -> Result<Option<String>, Refusal> {
    let headers = request.headers();
    if headers.contains_key("http2-settings") {
        return Err(Refusal::Malformed("h2c is not served."));
    }
    let mut protocols = headers.get_all(header::UPGRADE).iter();
    let Some(protocol) = protocols.next() else {
        return Ok(None);
    };
    let is_websocket = protocols.next().is_none() && protocol.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes());
    let asked_properly = request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && names::connection_options(headers).any(|option| option.eq_ignore_ascii_case("upgrade"));
    if !is_websocket || !asked_properly {
        return Err(Refusal::Malformed(
            "Only a GET in HTTP/1.1 with Connection: upgrade and Upgrade: websocket can be upgraded.",
        ));
    }
    Ok(Some(WEBSOCKET.to_owned()))
}
