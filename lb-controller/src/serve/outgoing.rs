//! The head of a request as the backend receives it.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Uri, request};

use crate::serve::digits::push_ip;
use crate::serve::guard::names::OWN_COOKIES;
use crate::serve::request::{Inbound, InboundBody};
use crate::serve::respond::Refusal;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const ASSERTION: HeaderName = HeaderName::from_static("lb-assertion");

/// Splits a request into the head for the backend and the body. The guard has removed every header of these names
/// that the client sent, so what stands here is ours alone.
pub(super) fn split(
    request: Box<Inbound>,
    assertion: Option<HeaderValue>,
) -> Result<(request::Parts, InboundBody), Refusal> {
    const NO_TARGET: Refusal = Refusal::Malformed("The request target is none.");
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = request.method;
    head.uri = Uri::try_from(request.target).map_err(|_| NO_TARGET)?;
    head.headers = request.headers;

    let headers = &mut head.headers;
    let authority =
        HeaderValue::try_from(&request.authority).map_err(|_| Refusal::Malformed("Host is no host name."))?;
    // The body is framed anew; a length of the client's beside it could contradict that.
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(FORWARDED_FOR, address_value(request.client.address));
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("https"));
    headers.insert(FORWARDED_HOST, authority.clone());
    headers.insert(header::FORWARDED, forwarded(request.client.address, &request.authority)?);
    headers.insert(header::HOST, request.onward.host.unwrap_or(authority));
    if let Some(assertion) = assertion {
        headers.insert(ASSERTION, assertion);
    }
    clean_cookies(headers);
    Ok((head, request.body))
}

/// Puts back what makes a request one to upgrade; these headers are of one connection and were removed with the rest.
pub(super) fn ask_for_upgrade(headers: &mut HeaderMap, protocol: &str) -> Result<(), Refusal> {
    let protocol = HeaderValue::try_from(protocol).map_err(|_| Refusal::Malformed("Upgrade names no protocol."))?;
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
    Ok(())
}

fn address_value(address: IpAddr) -> HeaderValue {
    let mut text = Vec::with_capacity(16);
    push_ip(&mut text, address);
    HeaderValue::from_maybe_shared(Bytes::from(text)).expect("addresses are written in ASCII")
}

/// `Forwarded` of RFC 7239: an IPv6 address and a host with a port must be quoted.
fn forwarded(client: IpAddr, authority: &str) -> Result<HeaderValue, Refusal> {
    let mut value = Vec::with_capacity(40 + authority.len());
    let (before, after) = if client.is_ipv6() { ("for=\"[", "]\"") } else { ("for=", "") };
    value.extend_from_slice(before.as_bytes());
    push_ip(&mut value, client);
    for text in [after, ";host=\"", authority, "\";proto=https"] {
        value.extend_from_slice(text.as_bytes());
    }
    HeaderValue::from_maybe_shared(Bytes::from(value)).map_err(|_| Refusal::Malformed("Host is no host name."))
}

/// Removes our own cookies, which are no backend's business, and joins what h2 clients split (RFC 9113 §8.2.3), since
/// HTTP/1.1 allows one `Cookie` only.
pub(crate) fn clean_cookies(headers: &mut HeaderMap) {
    let header::Entry::Occupied(cookies) = headers.entry(header::COOKIE) else { return };
    let is_clean = |value: &HeaderValue| memchr::memmem::find(value.as_bytes(), OWN_COOKIES.as_bytes()).is_none();
    if cookies.iter().nth(1).is_none() && is_clean(cookies.get()) {
        return;
    }
    let mut kept: Vec<u8> = Vec::new();
    for value in cookies.remove_entry_mult().1 {
        for pair in value.as_bytes().split(|&byte| byte == b';').map(<[u8]>::trim_ascii) {
            if pair.is_empty() || pair.starts_with(OWN_COOKIES.as_bytes()) {
                continue;
            }
            if !kept.is_empty() {
                kept.extend_from_slice(b"; ");
            }
            kept.extend_from_slice(pair);
        }
    }
    if !kept.is_empty() {
        // Bytes of header values, joined by bytes that may stand in one, are a header value.
        headers.extend(HeaderValue::try_from(kept).ok().map(|value| (header::COOKIE, value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(cookies: &[&str]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(header::COOKIE, cookie.parse().unwrap());
        }
        clean_cookies(&mut headers);
        headers.get_all(header::COOKIE).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn our_cookies_stay_here_and_the_backends_go_on() {
        for (what, cookies, expected) in [
            ("none", &[][..], &[][..]),
            ("a backend's", &["cart=1; theme=dark"], &["cart=1; theme=dark"]),
            ("ours alone", &["__Host-lb=secret"], &[]),
            ("ours among others", &["cart=1; __Host-lb=secret; theme=dark"], &["cart=1; theme=dark"]),
            ("a transaction's", &["__Host-lb-tx-0a1b2c3d=x;cart=1"], &["cart=1"]),
            ("split by h2", &["cart=1", "__Host-lb=secret", "theme=dark"], &["cart=1; theme=dark"]),
            ("ours in a value", &["next=__Host-lb"], &["next=__Host-lb"]),
        ] {
            assert_eq!(cleaned(cookies), expected, "{what}");
        }
    }

    #[test]
    fn forwarded_quotes_what_must_be_quoted() {
        for (client, authority, expected) in [
            ("192.0.2.1", "shop.example", "for=192.0.2.1;host=\"shop.example\";proto=https"),
            ("2001:db8::1", "shop.example:8443", "for=\"[2001:db8::1]\";host=\"shop.example:8443\";proto=https"),
        ] {
            assert_eq!(forwarded(client.parse().unwrap(), authority).unwrap(), expected);
        }
    }
}
