//! Cookies that name the backend a client stays with, without saying which it is.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, header};

use crate::config::StickyConfig;

/// What cookies are made with.
#[derive(Clone)]
pub struct StickyKey(hmac::Key);

/// Bytes of the tag in a cookie; nobody guesses another's.
const TAG_BYTES: usize = 12;

impl StickyKey {
    pub fn new(secret: &[u8]) -> StickyKey {
        StickyKey(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// A key that dies with this process.
    pub fn random() -> StickyKey {
        let mut secret = [0; 32];
        // Where there is no randomness no TLS connection has come this far either.
        let _ = aws_lc_rs::rand::fill(&mut secret);
        StickyKey::new(&secret)
    }

    fn tag(&self, pool: &str, address: SocketAddr) -> String {
        // A pool's name has no NUL.
        let tag = hmac::sign(&self.0, format!("lb-sticky\0{pool}\0{address}").as_bytes());
        URL_SAFE_NO_PAD.encode(&tag.as_ref()[..TAG_BYTES])
    }
}

impl fmt::Debug for StickyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StickyKey(…)")
    }
}

/// The cookies of one pool. Values that name no backend of it, forged or of another time, name nobody.
#[derive(Debug)]
pub(super) struct Sticky {
    cookie: String,
    by_tag: HashMap<String, usize>,
    set_cookie: HashMap<SocketAddr, HeaderValue>,
}

impl Sticky {
    pub(super) fn new(config: &StickyConfig, own: &StickyKey, pool: &str, backends: &[SocketAddr]) -> Sticky {
        let given = config.key.as_ref().map(|key| StickyKey::new(key.reveal().as_bytes()));
        let key = given.as_ref().unwrap_or(own);
        let tags: Vec<String> = backends.iter().map(|address| key.tag(pool, *address)).collect();
        let set_cookie = |tag: &String| {
            let text = format!("{}={tag}; Path=/; Secure; HttpOnly; SameSite=Lax", config.cookie);
            HeaderValue::try_from(text).expect("a cookie's name is checked, and base64 is plain")
        };
        Sticky {
            cookie: config.cookie.clone(),
            set_cookie: backends.iter().copied().zip(tags.iter().map(set_cookie)).collect(),
            by_tag: tags.into_iter().zip(0..).collect(),
        }
    }

    /// The index of the backend that a request's cookies name. Of several cookies of the name the first that means
    /// something counts: a sibling domain may have planted others.
    pub(super) fn named_by(&self, headers: &HeaderMap) -> Option<usize> {
        cookies(headers, &self.cookie).find_map(|value| self.by_tag.get(value)).copied()
    }

    pub(super) fn set_cookie(&self, backend: SocketAddr) -> Option<&HeaderValue> {
        self.set_cookie.get(&backend)
    }
}

/// The values of all cookies of this name.
pub fn cookies<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h str> {
    let texts = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.filter(move |(found, _)| found.trim() == name).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn backend(number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number], 80))
    }

    fn sticky(key: &StickyKey) -> Sticky {
        let config = StickyConfig { cookie: "at".into(), key: None };
        Sticky::new(&config, key, "web", &[backend(1), backend(2)])
    }

    fn asking(cookies: &[&str]) -> HeaderMap {
        cookies.iter().map(|cookie| (header::COOKIE, HeaderValue::try_from(*cookie).unwrap())).collect()
    }

    #[test]
    fn only_values_that_we_made_name_a_backend() {
        let key = StickyKey::new(b"secret");
        let of = |sticky: &Sticky, number| {
            let text = sticky.set_cookie(backend(number)).unwrap().to_str().unwrap().to_owned();
            text.split(';').next().unwrap().to_owned()
        };
        let ours = sticky(&key);
        let (first, second) = (of(&ours, 1), of(&ours, 2));
        let of_another_key = of(&sticky(&StickyKey::new(b"other")), 2);
        assert!(!first.contains("10.0"), "{first}");
        for (what, cookies, expected) in [
            ("none", vec![], None),
            ("the first", vec![&*first], Some(0)),
            ("the second, among others", vec!["a=b; c=d", &format!("x=y;  {second} ; z=1")], Some(1)),
            ("another host's key", vec![&*of_another_key], None),
            ("cut short", vec![&second[..second.len() - 1]], None),
            ("an address in plain text", vec!["at=10.0.0.2:80"], None),
            ("an index", vec!["at=1"], None),
            ("another name", vec![&*second.replace("at=", "bat=")], None),
            ("a planted one before ours", vec![&*format!("at=evil; {second}")], Some(1)),
        ] {
            assert_eq!(ours.named_by(&asking(&cookies)), expected, "{what}");
        }
    }

    proptest! {
        #[test]
        fn no_cookies_make_reading_panic_and_ours_is_found_among_them(before in "[ -~]{0,60}", after in "\\PC{0,60}") {
            let value = HeaderValue::try_from(format!("{before}; at=here; {after}"));
            let headers: HeaderMap = value.into_iter().map(|value| (header::COOKIE, value)).collect();
            let is_ascii = headers.values().any(|value| value.to_str().is_ok());
            prop_assert_eq!(cookies(&headers, "at").any(|value| value == "here"), is_ascii);
        }
    }

    #[test]
    fn two_pools_with_the_same_backend_do_not_read_each_others_cookies() {
        let key = StickyKey::new(b"secret");
        let address = "10.0.0.1:80".parse().unwrap();
        assert_ne!(key.tag("web", address), key.tag("api", address));
    }

    #[test]
    fn the_cookie_goes_back_over_tls_alone_and_no_script_reads_it() {
        let text = sticky(&StickyKey::random()).set_cookie(backend(1)).unwrap().to_str().unwrap().to_owned();
        assert!(text.ends_with("; Path=/; Secure; HttpOnly; SameSite=Lax"), "{text}");
    }
}
