use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SignatureAlgorithm};
use rustls::SignatureScheme;
use time::{Duration, OffsetDateTime};

use super::certificates::Certificates;
use super::*;
use crate::config::{PassThrough, ServerNames};

mod records;
mod resumption;
mod streams;

/// Writes a certificate for `names`, valid from `from` to `until` days from now, and its key.
fn pair(dir: &Path, file: &str, names: &[&str], from: i64, until: i64) -> CertificateFiles {
    pair_of(&PKCS_ECDSA_P256_SHA256, dir, file, names, from..until)
}

fn pair_of(
    kind: &'static SignatureAlgorithm,
    dir: &Path,
    file: &str,
    names: &[&str],
    days: std::ops::Range<i64>,
) -> CertificateFiles {
    let key = KeyPair::generate_for(kind).unwrap();
    let mut params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
    params.not_before = OffsetDateTime::now_utc() + Duration::days(days.start);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(days.end);
    let place = None;
    let (certificate, key_file) = (dir.join(format!("{file}.crt")), dir.join(format!("{file}.key")));
    fs::write(&certificate, params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(&key_file, key.serialize_pem()).unwrap();
    CertificateFiles { certificate, key: key_file, place }
}

fn now() -> UnixSeconds {
    Clock::system().now()
}

fn wanted(files: &[CertificateFiles]) -> Vec<Wanted> {
    files.iter().map(|files| Wanted { files: files.clone(), origin: Origin::Files }).collect()
}

/// What modern clients can verify; and clients of one kind of key only.
const BOTH: &[SignatureScheme] =
    &[SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256, SignatureScheme::ECDSA_NISTP256_SHA256];
const RSA: &[SignatureScheme] = &[SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256];
const ECDSA: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256];

#[test]
fn the_server_name_and_what_the_client_can_verify_choose_the_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let days = || -1..1;
    let files = [
        pair(dir.path(), "first", &["first.example"], -1, 1),
        pair_of(&PKCS_RSA_SHA256, dir.path(), "shop-rsa", &["shop.example", "*.shop.example"], days()),
        pair(dir.path(), "shop", &["shop.example", "*.shop.example"], -1, 1),
        pair(dir.path(), "other", &["shop.example", "www.shop.example"], -1, 1),
        pair_of(&PKCS_RSA_SHA256, dir.path(), "first-rsa", &["first.example", "more.example"], days()),
        pair_of(&PKCS_RSA_SHA256, dir.path(), "old", &["old.example"], days()),
    ];
    let loaded: Vec<_> = files.iter().map(|files| Arc::new(files::load(files).unwrap())).collect();
    let certificates = Certificates::of(&loaded);
    let [first, shop_rsa, shop, other, first_rsa, old] = [0, 1, 2, 3, 4, 5];
    for (server_name, schemes, expected, what) in [
        (None, BOTH, first, "no name: the default"),
        (None, RSA, first_rsa, "no name, and RSA alone: what has the default's name"),
        (Some("unknown.example"), BOTH, first, "an unknown name: the default"),
        (Some("shop.example"), BOTH, shop, "ECDSA before RSA, whatever stands first; then the earlier of two"),
        (Some("shop.example"), RSA, shop_rsa, "a client that knows RSA alone"),
        (Some("shop.example"), ECDSA, shop, "a client that knows ECDSA alone"),
        (Some("SHOP.example."), BOTH, shop, "case and trailing dot do not matter"),
        (Some("www.shop.example"), BOTH, other, "an exact name wins over a wildcard"),
        (Some("www.shop.example"), RSA, shop_rsa, "unless the client cannot verify it"),
        (Some("api.shop.example"), BOTH, shop, "a wildcard stands for a label"),
        (Some("a.b.shop.example"), BOTH, first, "and for one only"),
        (Some(".shop.example"), BOTH, shop, "an empty label is no name that clients can send"),
        (Some("old.example"), BOTH, old, "RSA, where there is nothing else"),
        (Some("old.example"), ECDSA, first, "what nobody can verify: the default"),
        (Some("old.example"), &[], first, "and for who can verify nothing"),
    ] {
        let chosen = certificates.choose(server_name, schemes).unwrap();
        let position = loaded.iter().position(|loaded| Arc::ptr_eq(&loaded.key, chosen));
        assert_eq!(position, Some(expected), "{what}");
    }
}

#[test]
fn every_bad_file_is_named_with_its_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let good = pair(dir.path(), "good", &["a.example"], -1, 1);
    let other = pair(dir.path(), "other", &["a.example"], -1, 1);
    let text = dir.path().join("text");
    fs::write(&text, "hello").unwrap();
    let broken = dir.path().join("broken");
    fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let with = |certificate: &Path, key: &Path| CertificateFiles {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        place: None,
    };
    for (files, expected) in [
        (with(&dir.path().join("absent"), &good.key), "cannot read"),
        (with(&text, &good.key), "holds no certificate"),
        (with(&good.certificate, &text), "holds no private key"),
        (with(&broken, &good.key), "cannot be read"),
        (with(&good.certificate, &other.key), "does not belong to"),
        (pair(dir.path(), "old", &["a.example"], -3, -1), "expired on"),
        (pair(dir.path(), "young", &["a.example"], 1, 3), "not valid before"),
        (pair(dir.path(), "nameless", &[], -1, 1), "names no host"),
    ] {
        let files = [files, good.clone()];
        let errors = check(&files, now());
        assert_eq!(errors.len(), 1, "{expected}: {errors:?}");
        let error = errors[0].1.to_string();
        assert!(error.contains(expected) && error.contains(dir.path().to_str().unwrap()), "{expected}: {error}");
    }
    assert!(matches!(prepare_first(vec![], now()).unwrap_err()[..], [TlsError::NoCertificate]));
}

#[test]
fn all_bad_files_are_reported_at_once_and_what_is_merely_over_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let old = pair(dir.path(), "old", &["a.example"], -3, -1);
    let absent =
        |name: &str| CertificateFiles { certificate: dir.path().join(name), key: dir.path().join("y"), place: None };
    assert_eq!(prepare_first(wanted(&[old.clone(), absent("x"), absent("z")]), now()).unwrap_err().len(), 2);
    let store = CertificateStore::new(prepare_first(wanted(&[old]), now()).unwrap(), Clock::system());
    assert_eq!(store.list()[0].days_left, Some(-1));
}

#[test]
fn files_are_followed_and_a_broken_pair_is_refused_until_it_is_whole() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let files = pair(dir.path(), "shop", &["one.example"], -1, 9);
    let still = pair(dir.path(), "still", &["still.example"], -1, 9);
    let all = wanted(&[files.clone(), still]);
    let store = CertificateStore::new(prepare_first(all.clone(), now()).unwrap(), Clock::system());
    let next = pair(elsewhere.path(), "shop", &["two.example"], -1, 9);
    let over = pair(elsewhere.path(), "over", &["three.example"], -3, -1);
    let put = |new: &Path, old: &Path| {
        fs::copy(new, dir.path().join("aside")).unwrap();
        fs::rename(dir.path().join("aside"), old).unwrap();
    };
    let looked = || {
        // The first look finds them changed, the second that nobody writes them any more.
        store.look();
        store.look();
        let first = &store.list()[0];
        let refused = first.refused.clone().unwrap_or_default();
        (first.names[0].clone(), refused, store.changes())
    };
    let (one, two) = ("one.example".to_owned(), "two.example".to_owned());
    assert_eq!(looked(), (one.clone(), String::new(), (0, 0)), "nothing changed");

    put(&next.certificate, &files.certificate);
    store.look();
    assert_eq!(store.list()[0].refused, None, "whoever replaces two files is between them");
    let (name, refused, changes) = looked();
    assert_eq!((name, changes), (one.clone(), (0, 1)));
    assert!(refused.contains("does not belong to"), "{refused}");
    // An edit of the configuration does not wait for it, and forgets nothing.
    store.put(store.prepare(all.clone()).unwrap());
    assert!(store.list()[0].refused.is_some());
    assert_eq!(looked().2, (0, 1), "told once");

    put(&next.key, &files.key);
    assert_eq!(looked(), (two.clone(), String::new(), (1, 1)), "whole");

    put(&over.certificate, &files.certificate);
    put(&over.key, &files.key);
    let (name, refused, changes) = looked();
    assert_eq!((name, changes), (two.clone(), (1, 2)), "one that is over is no better");
    assert!(refused.contains("expired on"), "{refused}");

    fs::remove_file(&files.certificate).unwrap();
    let (name, refused, changes) = looked();
    assert_eq!((name, changes), (two, (1, 3)), "gone, and what it held goes on");
    assert!(refused.contains("cannot read"), "{refused}");
}

#[test]
fn a_pair_that_was_never_served_refuses_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let good = pair(dir.path(), "good", &["a.example"], -1, 1);
    let store =
        CertificateStore::new(prepare_first(wanted(std::slice::from_ref(&good)), now()).unwrap(), Clock::system());
    let bad = CertificateFiles { key: good.certificate.clone(), ..good.clone() };
    assert!(matches!(store.prepare(wanted(&[good, bad])).unwrap_err()[..], [TlsError::NoKeyIn { .. }]));
}

#[test]
fn the_self_signed_certificate_survives_restarts_and_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["192.0.2.1".to_owned(), "Shop.Example".to_owned()];
    let files = self_signed(dir.path(), &names).unwrap();
    let before = fs::read(&files.certificate).unwrap();
    assert_eq!(fs::metadata(&files.key).unwrap().permissions().mode() & 0o777, 0o600);
    let names_in_it = files::load(&files).unwrap().names;
    for name in ["192.0.2.1", "shop.example", "localhost", "127.0.0.1", "::1"] {
        assert!(names_in_it.iter().any(|in_it| in_it == name), "{name} is not in {names_in_it:?}");
    }
    assert_eq!(fs::read(self_signed(dir.path(), &names).unwrap().certificate).unwrap(), before, "kept");
    let more = ["198.51.100.1".to_owned()];
    assert_ne!(fs::read(self_signed(dir.path(), &more).unwrap().certificate).unwrap(), before, "a name was missing");
}

#[test]
fn a_certificate_for_a_name_that_is_passed_through_is_refused_by_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let through = |server_names| PassThrough { server_names, pool: "vault".into(), idle: Default::default() };
    for (what, names, refused) in [
        ("for the name", ["shop.example", "vault.example"], Some("vault.example")),
        ("for one below", ["shop.example", "a.deep.example"], Some("a.deep.example")),
        ("of many names by a star", ["shop.example", "*.example"], None),
        ("for others", ["shop.example", "deep.example"], None),
    ] {
        let server_names = vec![ServerNames::Exact("vault.example".into()), ServerNames::Below("deep.example".into())];
        let certificates = vec![pair(dir.path(), "both", &names, -1, 1)];
        let config = Config { pass_through: vec![through(server_names)], certificates, ..Config::default() };
        let said = check_not_passed_through(&config).map_err(|error| error.to_string());
        match refused {
            None => assert_eq!(said, Ok(()), "{what}"),
            Some(name) => assert!(said.unwrap_err().contains(&format!("both.crt is for {name}")), "{what}"),
        }
    }
}
