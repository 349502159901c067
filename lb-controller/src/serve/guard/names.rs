//! Headers by name: which belong to one connection only, and which no client may set.

use http::header::{self, HeaderMap, HeaderName};

use crate::serve::respond::Refusal;

/// Headers of one connection (RFC 9110 §7.6.1), besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Headers that would make a backend believe something of the client, its address or the request that is not so.
/// Written folded: see [`fold`].
const FORGEABLE: [&str; 31] = [
    "forwarded",
    "x-forwarded",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "client-ip",
    "remote-addr",
    "remote-user",
    "x-remote-user",
    "x-remote-addr",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    // A CGI program takes it for its own HTTP_PROXY (CVE-2016-5385).
    "proxy",
    // What a proxy says of a client certificate (RFC 9440), or of the TLS it ended.
    "client-cert",
    "client-cert-chain",
    "x-client-cert",
    "front-end-https",
    "x-scheme",
    "x-url-scheme",
    // Names under which proxies vouch for a user or an address.
    "x-user",
    "x-auth-user",
    "x-host",
    "fastly-client-ip",
    "fly-client-ip",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-appengine-user-ip",
    "x-proxyuser-ip",
];

/// Beginnings of such names, folded.
const FORGEABLE_PREFIXES: [&str; 11] = [
    "lb-",
    "x-forwarded-",
    "x-original-",
    "x-rewrite-",
    "x-auth-request-",
    "x-remote-",
    "remote-",
    "x-webauth-",
    "x-envoy-",
    "x-ssl-",
    "ssl-client-",
];

/// Headers that `Connection` may not remove on a client's word: the backend would miss what the rules saw.
const PROTECTED: [&str; 17] = [
    "host",
    "cookie",
    "authorization",
    "origin",
    "referer",
    "range",
    "expect",
    "accept",
    "idempotency-key",
    "if-match",
    "if-none-match",
    "date",
    "user-agent",
    "via",
    "set-cookie",
    "www-authenticate",
    "cache-control",
];

const PROTECTED_PREFIXES: [&str; 3] = ["content-", "sec-", "transfer-"];

/// 100-continue is answered here, and which trailers will come nobody needs to know.
const ENDING_HERE: [HeaderName; 3] = [header::TRAILER, header::EXPECT, header::PROXY_AUTHORIZATION];

/// Removes what must not reach a backend. `Err`: `Connection` names a protected header.
pub(super) fn strip_request(headers: &mut HeaderMap) -> Result<(), Refusal> {
    for option in connection_options(headers) {
        let option = fold(option);
        if is_protected(option.as_str()) || is_forgeable(option.as_str()) {
            return Err(Refusal::Malformed("Connection names a header that is not the connection's."));
        }
    }
    // A name with one reading is folded as it stands.
    let is_condemned = |name: &HeaderName| {
        ENDING_HERE.contains(name) || has_two_readings(name.as_str()) || is_forgeable(name.as_str())
    };
    strip(headers, is_condemned);
    Ok(())
}

/// Removes from a request's trailers what must not reach a backend, and what would make it another request than the one that was
/// judged (RFC 9110 §6.5.1).
pub(crate) fn strip_request_trailers(trailers: &mut HeaderMap) {
    let is_condemned = |name: &str| has_two_readings(name) || is_forgeable(name) || is_protected(name);
    strip(trailers, |name| ENDING_HERE.contains(name) || is_condemned(name.as_str()));
}

/// Removes what must not reach a client: the connection's own headers, and ours, which a backend may not set.
pub(crate) fn strip_response(headers: &mut HeaderMap) {
    let is_ours = |name: &str| name.starts_with("lb") && fold(name).as_str().starts_with("lb-");
    strip(headers, |name| *name == header::PROXY_AUTHENTICATE || is_ours(name.as_str()));
    strip_own_set_cookies(headers);
}

/// The values of `Connection`, one by one; what is not ASCII names nothing.
pub(super) fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|option| !option.is_empty())
}

/// A header's name as the backends see it that make variables of names (CGI, WSGI, PHP), so `X_Forwarded.For` is
/// `x-forwarded-for`. Cut off where it is longer than any name it is compared with; on the stack, for it is made of
/// every header of every request.
struct Folded {
    bytes: [u8; Folded::MAX_BYTES],
    length: usize,
}

impl Folded {
    const MAX_BYTES: usize = 40;

    fn as_str(&self) -> &str {
        // Always ASCII; were it not, no name would match and the header would stay, so nothing but ASCII may get in.
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

/// Whether a header of this name is read as the one whose folded name is `folded`.
pub(super) fn folded_eq(name: &str, folded: &str) -> bool {
    name.len() == folded.len() && fold(name).as_str() == folded
}

/// Lower case, and everything but letters and digits a `-`.
fn fold(name: &str) -> Folded {
    let mut folded = Folded { bytes: [b'-'; Folded::MAX_BYTES], length: name.len().min(Folded::MAX_BYTES) };
    for (into, byte) in folded.bytes.iter_mut().zip(name.bytes()).filter(|(_, byte)| byte.is_ascii_alphanumeric()) {
        *into = byte.to_ascii_lowercase();
    }
    folded
}

/// `x_amount` and `x.amount` are `x-amount` to backends that make variables of names: rules would judge the one and the
/// backend obey the other. Common servers drop such names too.
fn has_two_readings(name: &str) -> bool {
    !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_forgeable(folded: &str) -> bool {
    // Hardly any header has such a beginning, and every header of every request is asked.
    if !folded.starts_with(['f', 'x', 't', 'c', 'r', 'p', 'l', 's']) {
        return false;
    }
    FORGEABLE.contains(&folded) || FORGEABLE_PREFIXES.iter().any(|prefix| folded.starts_with(prefix))
}

fn is_protected(folded: &str) -> bool {
    PROTECTED.contains(&folded) || PROTECTED_PREFIXES.iter().any(|prefix| folded.starts_with(prefix))
}

/// Removes headers of one connection, those that `Connection` names, and what is condemned; in one pass, since most
/// messages have none of them.
fn strip(headers: &mut HeaderMap, is_condemned: impl Fn(&HeaderName) -> bool) {
    let named: Vec<HeaderName> = connection_options(headers).filter_map(|option| option.parse().ok()).collect();
    let is_hop_by_hop =
        |name: &HeaderName| name.as_str().starts_with(['c', 't', 'u', 'k', 'p']) && HOP_BY_HOP.contains(name);
    let goes = |name: &&HeaderName| is_hop_by_hop(name) || named.contains(name) || is_condemned(name);
    let gone: Vec<HeaderName> = headers.keys().filter(goes).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
}

/// A backend that could set our cookies could put one user into another's session.
fn strip_own_set_cookies(headers: &mut HeaderMap) {
    let is_own = |value: &http::HeaderValue| {
        // `=__Host-lb=…` has no name; older browsers send its value back as if it were one of our cookies.
        let value = value.as_bytes();
        let name_at = value.iter().position(|byte| !b" \t=".contains(byte)).unwrap_or(value.len());
        let value = &value[name_at..];
        value.len() >= OWN_COOKIES.len() && value[..OWN_COOKIES.len()].eq_ignore_ascii_case(OWN_COOKIES.as_bytes())
    };
    if !headers.get_all(header::SET_COOKIE).iter().any(is_own) {
        return;
    }
    if let header::Entry::Occupied(cookies) = headers.entry(header::SET_COOKIE) {
        let kept: Vec<_> = cookies.remove_entry_mult().1.filter(|value| !is_own(value)).collect();
        for value in kept {
            headers.append(header::SET_COOKIE, value);
        }
    }
}

/// How the names of all our cookies begin.
pub(crate) const OWN_COOKIES: &str = "__Host-lb";

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn identity_headers_go_in_every_spelling() {
        let mut spellings = 0;
        for name in FORGEABLE.into_iter().chain(["lb-assertion", "x-forwarded-for", "x-original-url", "x-rewrite-url"])
        {
            for separator in ["-", "_", ".", "~", "|"] {
                for name in [name.replace('-', separator), name.to_uppercase().replace('-', separator)] {
                    let mut headers = headers(&[(&name, "forged"), ("accept", "*/*")]);
                    strip_request(&mut headers).unwrap();
                    assert_eq!(headers.len(), 1, "{name}");
                    spellings += 1;
                }
            }
        }
        assert!(spellings > 100);
    }

    #[test]
    fn no_forgeable_name_begins_with_another_letter_than_is_asked_for() {
        for name in FORGEABLE.into_iter().chain(FORGEABLE_PREFIXES) {
            assert!(is_forgeable(name), "{name}");
        }
    }

    #[test]
    fn a_header_that_some_backends_read_as_another_does_not_go_on() {
        let mut headers = headers(&[
            ("x-amount", "5"),
            ("x_amount", "900"),
            ("X.Amount", "900"),
            ("content_type", "text/plain"),
            ("content-md5", "x"),
        ]);
        strip_request(&mut headers).unwrap();
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-md5", "x-amount"]);
    }

    #[test]
    fn hop_by_hop_headers_go_with_all_that_connection_names() {
        let mut headers = headers(&[
            ("connection", "keep-alive, X-Secret"),
            ("connection", "x-other"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("trailer", "x-sum"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("x-secret", "1"),
            ("x-other", "2"),
            ("accept", "*/*"),
        ]);
        strip_request(&mut headers).unwrap();
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }

    #[test]
    fn connection_may_not_name_what_the_rules_saw() {
        for name in
            ["Host", "cookie", "Authorization", "Lb-Assertion", "x_forwarded_for", "Content-Length", "Sec-Fetch-Site"]
        {
            let mut headers = headers(&[("connection", &format!("close, {name}"))]);
            assert!(strip_request(&mut headers).is_err(), "{name}");
        }
    }

    #[test]
    fn a_backend_sets_neither_our_headers_nor_our_cookies() {
        let mut headers = headers(&[
            ("lb-assertion", "x"),
            ("LB_Session", "x"),
            ("connection", "x-internal"),
            ("x-internal", "1"),
            ("set-cookie", "__Host-lb=stolen; Path=/; Secure"),
            ("set-cookie", "cart=1"),
            ("set-cookie", "__host-lb-tx-01234567=x"),
            ("set-cookie", " = __Host-lb=stolen; Path=/; Secure"),
        ]);
        strip_response(&mut headers);
        assert_eq!(headers.len(), 1);
        assert_eq!(headers[header::SET_COOKIE], "cart=1");
    }
}
