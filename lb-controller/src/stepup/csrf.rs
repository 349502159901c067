//! Cross-site request forgery: unsafe requests that a cookie authenticates must come from our own pages. `SameSite=Lax`
//! is not enough: a sibling subdomain is the same site. Why no hidden form field is needed: docs/decisions.

use http::{Method, header};

use crate::serve::request::Inbound;

/// The method may change something (RFC 9110 §9.2.1).
pub(super) fn is_unsafe(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

/// Some other site's page sent this request, or could have, and it may change something. An upgrade may, whatever its
/// method: browsers let any page open a WebSocket anywhere, send cookies along and let it read the answers (RFC 6455
/// §10.2).
/// Pages of `trusted` origins may do all that.
pub(super) fn is_forged(request: &Inbound, trusted: &[String]) -> bool {
    (is_unsafe(&request.method) || request.upgrade.is_some())
        && !comes_from_own_origin(request)
        && !comes_from_trusted_origin(request, trusted)
}

/// A page elsewhere cannot forge `Origin`. `same-site` keeps those out that a browser would send no cookies for.
fn comes_from_trusted_origin(request: &Inbound, trusted: &[String]) -> bool {
    let is_same_site = only(request, "sec-fetch-site").is_none_or(|site| site == "same-site");
    let origin = only(request, header::ORIGIN.as_str());
    is_same_site && origin.is_some_and(|origin| trusted.iter().any(|trusted| trusted == origin))
}

/// `None`: absent. A repeated header proves nothing; the empty text equals no origin and no site.
fn only<'r>(request: &'r Inbound, name: &str) -> Option<&'r str> {
    let mut values = request.headers.get_all(name).iter();
    values.next().map(|value| if values.next().is_some() { "" } else { value.to_str().unwrap_or("") })
}

fn comes_from_own_origin(request: &Inbound) -> bool {
    match (only(request, "sec-fetch-site"), only(request, header::ORIGIN.as_str())) {
        // `none`: typed, bookmarked, or reloaded by the user.
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => is_own_origin(origin, &request.authority),
        // Every browser sends at least one of the two with an unsafe request; what sends neither holds its cookies by
        // its own will.
        (None, None) => true,
    }
}

fn is_own_origin(origin: &str, authority: &str) -> bool {
    let without_default_port = |text: &str| text.strip_suffix(":443").unwrap_or(text).to_ascii_lowercase();
    let Some(origin_authority) = origin.strip_prefix("https://") else { return false };
    without_default_port(origin_authority) == without_default_port(authority)
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn unsafe_requests_pass_only_from_our_own_pages_or_from_what_is_no_browser() {
        type Headers = &'static [(&'static str, &'static str)];
        let rows: &[(&str, &str, Headers, bool)] = &[
            ("curl", "POST", &[], false),
            ("a page of ours", "POST", &[("sec-fetch-site", "same-origin")], false),
            ("a reload by the user", "POST", &[("sec-fetch-site", "none")], false),
            ("another site", "POST", &[("sec-fetch-site", "cross-site")], true),
            ("a sibling subdomain", "POST", &[("sec-fetch-site", "same-site")], true),
            (
                "another site, whatever it says in Origin",
                "POST",
                &[("sec-fetch-site", "cross-site"), ("origin", "https://shop.example")],
                true,
            ),
            ("an old browser, own page", "POST", &[("origin", "https://shop.example")], false),
            ("the default port spelled out", "POST", &[("origin", "https://shop.example:443")], false),
            ("an old browser, other page", "POST", &[("origin", "https://evil.example")], true),
            ("a name that begins like ours", "POST", &[("origin", "https://shop.example.evil.example")], true),
            ("another port", "POST", &[("origin", "https://shop.example:8443")], true),
            ("plain HTTP", "POST", &[("origin", "http://shop.example")], true),
            ("a sandboxed frame", "POST", &[("origin", "null")], true),
            ("Origin twice", "POST", &[("origin", "https://shop.example"), ("origin", "https://shop.example")], true),
            ("a site header twice", "POST", &[("sec-fetch-site", "none"), ("sec-fetch-site", "none")], true),
            ("DELETE from another site", "DELETE", &[("sec-fetch-site", "cross-site")], true),
            ("an unheard-of method from another site", "PURGE", &[("sec-fetch-site", "cross-site")], true),
            ("a link on another site", "GET", &[("sec-fetch-site", "cross-site")], false),
        ];
        for (name, method, headers, forged) in rows {
            let request = testing::request(method, "/refunds", headers, "");
            assert_eq!(is_forged(&request, &[]), *forged, "{name}");
        }
    }

    #[test]
    fn a_trusted_origin_of_the_same_site_may_send_what_others_may_not() {
        type Headers = &'static [(&'static str, &'static str)];
        let rows: &[(&str, Headers, bool)] = &[
            ("the trusted page", &[("sec-fetch-site", "same-site"), ("origin", "https://app.shop.example")], false),
            ("an old browser there", &[("origin", "https://app.shop.example")], false),
            ("its sibling", &[("sec-fetch-site", "same-site"), ("origin", "https://blog.shop.example")], true),
            (
                "what claims to be of another site",
                &[("sec-fetch-site", "cross-site"), ("origin", "https://app.shop.example")],
                true,
            ),
            ("a site and no origin", &[("sec-fetch-site", "same-site")], true),
        ];
        let trusted = ["https://app.shop.example".to_owned()];
        for (name, headers, forged) in rows {
            assert_eq!(is_forged(&testing::request("POST", "/refunds", headers, ""), &trusted), *forged, "{name}");
        }
    }

    #[test]
    fn a_web_socket_opens_only_from_our_own_pages_or_for_what_is_no_browser() {
        type Headers = &'static [(&'static str, &'static str)];
        let rows: &[(&str, Headers, bool)] = &[
            ("a tool", &[], false),
            ("a page of ours", &[("origin", "https://shop.example")], false),
            ("another site's page", &[("origin", "https://evil.example")], true),
            ("a sibling subdomain's page, with fetch metadata", &[("sec-fetch-site", "same-site")], true),
        ];
        for (name, headers, forged) in rows {
            let mut request = testing::request("GET", "/ws", headers, "");
            let tunnel = crate::serve::request::ClientTunnel::Http1(tokio::sync::oneshot::channel().1);
            request.upgrade = Some((tunnel, "websocket".to_owned()));
            assert_eq!(is_forged(&request, &[]), *forged, "{name}");
        }
    }
}
