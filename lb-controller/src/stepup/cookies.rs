//! The cookies the gateway sets. The `__Host-` prefix (RFC 6265bis §4.1.3.2) makes browsers refuse them from sibling
//! domains and over plain HTTP.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, header};

use super::random_id::{RandomId, random_bytes};

pub(super) const SESSION: &str = "__Host-lb";
/// Says that this browser has proved itself before; see [`super::device`].
pub(super) const DEVICE: &str = "__Host-lb-device";
/// What work this browser has done; see [`super::work`].
pub(super) const WORK: &str = "__Host-lb-work";
/// Of a way to an identity provider and back; the beginning of its state follows.
const TRIP_PREFIX: &str = "__Host-lb-idp-";
const TRANSACTION_PREFIX: &str = "__Host-lb-tx-";
/// As many transactions as one login may have, and so as many cookies.
pub(super) const MOST_TRANSACTIONS: usize = 5;

/// A cookie as the client sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    Absent,
    Once(&'a str),
    /// One of them was planted by somebody else, and nothing says which.
    Repeated,
}

pub(super) fn find<'a>(headers: &'a HeaderMap, name: &str) -> Found<'a> {
    let mut values = all(headers).filter(|cookie| cookie.0 == name).map(|cookie| cookie.1);
    match (values.next(), values.next()) {
        (None, _) => Found::Absent,
        (Some(value), None) => Found::Once(value),
        (Some(_), Some(_)) => Found::Repeated,
    }
}

/// The value of the cookie of one transaction.
pub(super) fn transaction_secret<'a>(headers: &'a HeaderMap, transaction: &RandomId) -> Option<&'a str> {
    match find(headers, &transaction_name(&transaction.to_string()[..8])) {
        Found::Once(value) => Some(value),
        Found::Absent | Found::Repeated => None,
    }
}

/// Each transaction cookie: the digits at the end of its name, and its value.
pub(super) fn transactions(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    all(headers).filter_map(|(name, value)| Some((name.strip_prefix(TRANSACTION_PREFIX)?, value)))
}

/// A value for the cookie of `transaction`: the id, so that it is found by it, and 256 random bits.
pub(super) fn new_transaction_secret(transaction: &RandomId) -> String {
    format!("{transaction}.{}", URL_SAFE_NO_PAD.encode(random_bytes::<32>()))
}

/// The id within a transaction cookie's value.
pub(super) fn transaction_of(secret: &str) -> Option<RandomId> {
    RandomId::parse(secret.split_once('.')?.0)
}

/// The name of the cookie of a trip with this state; `None` for what is no state of ours.
pub(super) fn trip_name(state: &str) -> Option<String> {
    const STATE_LENGTH: usize = 43;
    let is_ours =
        state.len() == STATE_LENGTH && state.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    is_ours.then(|| format!("{TRIP_PREFIX}{}", &state[..8]))
}

/// The names of all trips' cookies that a name of ours could be.
pub(super) fn trips(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let is_plain = |digits: &str| {
        digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    all(headers).map(|(name, _)| name).filter(move |name| name.strip_prefix(TRIP_PREFIX).is_some_and(is_plain))
}

/// How long a browser keeps a cookie.
#[derive(Clone, Copy, Debug)]
pub(super) enum Keep {
    UntilBrowserCloses,
    Seconds(u64),
    /// Deletes it.
    NotAtAll,
}

pub(super) fn set(name: &str, value: &str, keep: Keep) -> HeaderValue {
    let max_age = match keep {
        Keep::UntilBrowserCloses => String::new(),
        Keep::Seconds(seconds) => format!("; Max-Age={seconds}"),
        Keep::NotAtAll => "; Max-Age=0".to_owned(),
    };
    let text = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax{max_age}");
    HeaderValue::try_from(text).expect("our cookie names and values are base64url, hex and punctuation")
}

pub(super) fn set_transaction(transaction: &RandomId, secret: &str, lifetime_seconds: u64) -> HeaderValue {
    set(&transaction_name(&transaction.to_string()[..8]), secret, Keep::Seconds(lifetime_seconds))
}

/// Deletes the cookie of the transaction whose id begins with `digits`; `None` for what no id of ours begins with.
pub(super) fn clear_transaction(digits: &str) -> Option<HeaderValue> {
    let is_ours = digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_ours.then(|| set(&transaction_name(digits), "", Keep::NotAtAll))
}

fn transaction_name(digits: &str) -> String {
    format!("{TRANSACTION_PREFIX}{digits}")
}

/// Every cookie of every `Cookie` header: h2 clients may send one header each (RFC 9113 §8.2.3). Each pair is read by
/// itself: some other application's value that is not ASCII must not hide ours and log its user out.
fn all(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers.get_all(header::COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';')).filter_map(
        |pair| {
            let pair = pair.trim_ascii();
            let (name, value) = pair.split_at(memchr::memchr(b'=', pair)?);
            // A value that is no text still counts as having come, but opens as nothing.
            Some((str::from_utf8(name).ok()?, str::from_utf8(&value[1..]).unwrap_or_default()))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_counts_only_when_it_came_once() {
        let rows: &[(&str, &[&str], Found<'_>)] = &[
            ("none", &["a=b"], Found::Absent),
            ("one among others", &["a=b; __Host-lb=x; c=d"], Found::Once("x")),
            ("in a header of its own", &["a=b", "__Host-lb=x"], Found::Once("x")),
            ("beside one that is no ASCII", &["a=é; __Host-lb=x"], Found::Once("x")),
            ("twice in one header", &["__Host-lb=x; __Host-lb=y"], Found::Repeated),
            ("in two headers, even alike", &["__Host-lb=x", "__Host-lb=x"], Found::Repeated),
            ("another name in capitals", &["__host-lb=x"], Found::Absent),
            ("a longer name", &["__Host-lb-tx-00000000=x"], Found::Absent),
            ("without a value", &["__Host-lb"], Found::Absent),
            ("beside a text that is not ASCII", &["theme=\u{e9}; __Host-lb=x"], Found::Once("x")),
        ];
        for (name, values, expected) in rows {
            let mut headers = HeaderMap::new();
            for value in *values {
                headers.append(header::COOKIE, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            assert_eq!(find(&headers, SESSION), *expected, "{name}");
        }
    }

    #[test]
    fn cookies_are_closed_to_scripts_other_sites_and_plain_http() {
        let header = set(SESSION, "v", Keep::UntilBrowserCloses);
        assert_eq!(header, "__Host-lb=v; Path=/; Secure; HttpOnly; SameSite=Lax");
        assert!(clear_transaction("0123abcd").unwrap().to_str().unwrap().ends_with("Max-Age=0"));
        assert!(clear_transaction("0123; x=").is_none());
    }
}
