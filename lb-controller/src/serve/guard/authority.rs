//! Which host a request is for: one answer, whatever form the client chose.

use http::{Request, Version, header};
use lb_policy::canonical_host;

use crate::serve::request::Peer;
use crate::serve::respond::Refusal;

/// The host a request names.
#[derive(Debug)]
pub(super) struct Authority {
    /// `host[:port]`, lower-case.
    pub(super) text: String,
    /// Canonical, without port.
    pub(super) host: String,
}

/// The one authority of the request line, `:authority` and `Host` (RFC 9112 §3.2, RFC 9113 §8.3.1). All that are there
/// must agree, or a backend could serve another host than the rules judged.
pub(super) fn of<Body>(request: &Request<Body>) -> Result<Authority, Refusal> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host_header = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::Malformed("More than one Host."));
    }
    if request.version() < Version::HTTP_2 && host_header.is_none() {
        return Err(Refusal::Malformed("No Host."));
    }
    if request.uri().scheme().is_some_and(|scheme| *scheme != http::uri::Scheme::HTTPS) {
        return Err(Refusal::Malformed("Another scheme than https."));
    }
    let host_header = match host_header {
        Some(value) => Some(read(value.to_str().map_err(|_| Refusal::Malformed("Host is no host name."))?)?),
        None => None,
    };
    let in_target = request.uri().authority().map(|authority| read(authority.as_str())).transpose()?;
    match (in_target, host_header) {
        (Some(target), Some(host)) if target.text != host.text => {
            Err(Refusal::Malformed("Host and the request target name different hosts."))
        }
        (Some(authority), _) | (None, Some(authority)) => Ok(authority),
        (None, None) => Err(Refusal::Malformed("No Host.")),
    }
}

/// A client that sent a server name may only ask for that host on this connection: certificates, and one day client
/// certificates, were chosen for it. Without a server name (IP literals have none) there is nothing to compare.
pub(super) fn matches_server_name(host: &str, peer: &Peer) -> Result<(), Refusal> {
    match &peer.server_name {
        Some(name) if name.strip_suffix('.').unwrap_or(name) != host => Err(Refusal::Misdirected),
        _ => Ok(()),
    }
}

fn read(text: &str) -> Result<Authority, Refusal> {
    let host = canonical_host(text).map_err(|_| Refusal::Malformed("Host is no host name."))?;
    // The default port of https is dropped, so that `a:443` and `a` agree (RFC 9110 §4.2.3).
    let port = match text.rfind(']').map_or(text, |bracket| &text[bracket..]).rsplit_once(':') {
        Some((_, "443" | "")) | None => "",
        Some((_, port)) => port,
    };
    let text = if port.is_empty() { host.clone() } else { format!("{host}:{port}") };
    Ok(Authority { text, host })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_has_one_spelling() {
        for (written, text, host) in [
            ("shop.example", "shop.example", "shop.example"),
            ("SHOP.Example.", "shop.example", "shop.example"),
            ("shop.example:443", "shop.example", "shop.example"),
            ("shop.example:", "shop.example", "shop.example"),
            ("shop.example.:8443", "shop.example:8443", "shop.example"),
            ("[2001:DB8::1]:443", "[2001:db8::1]", "[2001:db8::1]"),
            ("[2001:db8::1]:8443", "[2001:db8::1]:8443", "[2001:db8::1]"),
            ("[2001:db8::1]", "[2001:db8::1]", "[2001:db8::1]"),
            ("192.0.2.1:444", "192.0.2.1:444", "192.0.2.1"),
        ] {
            match read(written) {
                Ok(authority) => assert_eq!((&*authority.text, &*authority.host), (text, host), "{written}"),
                // RFC 9110 §4.2 allows an empty port; refusing it is as safe.
                Err(_) => assert!(written.ends_with(':'), "{written} was refused"),
            }
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for written in ["", "user@shop.example", "shop.example:99999", "shop example", "shop.example/admin", "[::1"] {
            assert!(read(written).is_err(), "{written:?}");
        }
    }

    proptest::proptest! {
        /// What was read once is read the same again: the backend's view of the host is ours.
        #[test]
        fn a_canonical_authority_is_its_own_canonical_form(written in "[A-Za-z0-9.:@\\[\\]-]{0,24}") {
            if let Ok(authority) = read(&written) {
                let again = read(&authority.text).expect("canonical forms are hosts");
                proptest::prop_assert_eq!((again.text, again.host), (authority.text, authority.host));
            }
        }
    }
}
