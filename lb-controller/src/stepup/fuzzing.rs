//! What must hold of cookies, sealed texts and forms for any bytes; fuzz targets and tests call it.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderValue, Uri, header};

use super::cookies::{self, Found};
pub use super::factor::fuzzing::{
    a_passkey_is_read_within_bounds, a_solution_needs_our_puzzle, an_ssh_signature_is_read_within_bounds,
};
use super::form::Form;
use super::private_file;
use super::random_id::RandomId;
use super::seal::{Purpose, Sealer};
use super::session::Session;
use crate::serve::outgoing::clean_cookies;

/// `Cookie` headers, one a line. Panics if one of ours counts though it came twice, or if what reaches a backend still
/// holds one: it would be a login to whoever runs the backend.
pub fn our_cookies_are_found_once_and_stay_here(lines: &[u8]) {
    let mut headers = HeaderMap::new();
    for value in lines.split(|byte| *byte == b'\n').take(100).filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        headers.append(header::COOKIE, value);
    }
    for name in [cookies::SESSION, cookies::DEVICE] {
        let pairs =
            headers.get_all(header::COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
        let values = pairs.filter_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="));
        let sent: Vec<&str> = values.map(|value| str::from_utf8(value).unwrap_or_default()).collect();
        let expected = match sent.as_slice() {
            [] => Found::Absent,
            [only] => Found::Once(only),
            _ => Found::Repeated,
        };
        assert_eq!(cookies::find(&headers, name), expected, "{name}");
    }
    for (_, value) in cookies::transactions(&headers) {
        if let Some(id) = cookies::transaction_of(value) {
            assert!(value.starts_with(&format!("{id}.")), "one id has one spelling");
            assert_eq!(RandomId::parse(&id.to_string()), Some(id));
        }
    }
    clean_cookies(&mut headers);
    assert!(headers.get_all(header::COOKIE).iter().count() <= 1, "HTTP/1.1 knows one Cookie header");
    assert_eq!(cookies::find(&headers, cookies::SESSION), Found::Absent);
    assert_eq!(cookies::find(&headers, cookies::DEVICE), Found::Absent);
    assert_eq!(cookies::transactions(&headers).count(), 0);
}

/// Keys that seal what is opened here.
static SEALER: LazyLock<Sealer> = LazyLock::new(|| new_sealer("sealing"));

/// Keys that never seal anything. libFuzzer learns from the comparisons it watches, so a text that was sealed before
/// may come back as an input: no forgery, if it opens under the keys that sealed it.
static IDLE_SEALER: LazyLock<Sealer> = LazyLock::new(|| new_sealer("idle"));

/// The keys are on no disk once this returns.
fn new_sealer(name: &str) -> Sealer {
    let directory = std::env::temp_dir().join(format!("lb-fuzzing-{}-{name}", std::process::id()));
    private_file::make_directory(&directory).expect("the folder for temporary files can be written");
    let sealer = Sealer::open(&directory, 0).expect("new keys can be made");
    std::fs::remove_dir_all(&directory).expect("what was just made can be removed");
    sealer
}

/// Panics if `bytes` open as a sealed text, if they do not survive being sealed, or if a sealed text opens after they
/// were laid over it.
pub fn sealed_text_opens_only_as_it_was_sealed(bytes: &[u8]) {
    const HOST: &str = "shop.example";
    let text = String::from_utf8_lossy(bytes);
    for candidate in [text.to_string(), format!("v1.{text}")] {
        assert!(IDLE_SEALER.open_sealed(Purpose::Session, HOST, &candidate).is_none(), "{candidate} was never sealed");
    }
    let plain = &bytes[..bytes.len().min(512)];
    let sealed = SEALER.seal(Purpose::Session, HOST, plain);
    let opened = SEALER.open_sealed(Purpose::Session, HOST, &sealed).expect("it was sealed just now");
    assert_eq!(*opened, plain);
    assert!(SEALER.open_sealed(Purpose::Device, HOST, &sealed).is_none());
    assert!(SEALER.open_sealed(Purpose::Session, "blog.example", &sealed).is_none());

    let mut changed = sealed.into_bytes();
    let mut is_changed = false;
    // Never all of it: what lies over it may be a text that was sealed before.
    let start = bytes.len() % changed.len();
    for (byte, over) in changed.iter_mut().skip(start).zip(bytes).filter(|(_, over)| over.is_ascii_graphic()).take(8) {
        is_changed |= *byte != *over;
        *byte = *over;
    }
    let changed = String::from_utf8(changed).expect("ASCII laid over ASCII");
    assert!(!is_changed || SEALER.open_sealed(Purpose::Session, HOST, &changed).is_none(), "{changed}");
}

/// Panics if `bytes` are read as a session that is written in another way.
pub fn a_session_has_one_encoding(bytes: &[u8]) {
    if let Some(session) = Session::decode(bytes) {
        assert_eq!(session.encode(), bytes);
    }
}

/// Panics if another reader of HTML forms finds other fields in `body` than we do.
pub fn a_form_is_read_as_others_read_it(body: &[u8]) {
    let Ok(form) = Form::parse(body) else { return };
    let Ok(uri) = Uri::try_from([b"/?", body].concat()) else { return };
    let query = uri.query().unwrap_or_default();
    if query.len() != body.len() {
        // Everything from `#` on is no part of a query.
        return;
    }
    let fields =
        axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri).expect("a lenient reader reads it too");
    let mut names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    for (name, value) in fields.iter() {
        assert_eq!(form.get(name), Some(value.as_str()), "{name}");
    }
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "no field comes twice");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COOKIE_PARTS: &[&str] =
        &["__Host-lb", "__Host-lb-device", "__Host-lb-tx-0a1b2c3d", "=", "; ", ";", " ", "\t", "v1.", "x", "\n", "é"];
    const FORM_PARTS: &[&str] = &["user", "code", "=", "&", "%63", "%", "+", "1", "é", "%C3%A9", ";", "[]"];

    fn made_of(parts: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(proptest::sample::select(parts), 0..24).prop_map(|parts| parts.concat().into_bytes())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn our_cookies_never_reach_a_backend(lines in made_of(COOKIE_PARTS)) {
            our_cookies_are_found_once_and_stay_here(&lines);
        }

        #[test]
        fn what_lies_over_a_sealed_text_keeps_it_shut(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            sealed_text_opens_only_as_it_was_sealed(&bytes);
        }

        #[test]
        fn our_forms_have_one_reading(body in made_of(FORM_PARTS)) {
            a_form_is_read_as_others_read_it(&body);
        }
    }
}
