use std::fs;
use std::os::unix::fs::PermissionsExt;

use rcgen::{CertificateParams, KeyPair};
use time::{Duration, OffsetDateTime};

use super::*;

/// Writes a certificate for `names`, valid from `from` to `until` days from now, and its key.
fn pair(dir: &std::path::Path, file: &str, names: &[&str], from: i64, until: i64) -> CertificateFiles {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
    params.not_before = OffsetDateTime::now_utc() + Duration::days(from);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(until);
    let files = CertificateFiles { certificate: dir.join(format!("{file}.crt")), key: dir.join(format!("{file}.key")) };
    fs::write(&files.certificate, params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

#[test]
fn the_server_name_chooses_the_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let files = [
        pair(dir.path(), "first", &["first.example"], -1, 1),
        pair(dir.path(), "shop", &["shop.example", "*.shop.example"], -1, 1),
        pair(dir.path(), "other", &["shop.example", "www.shop.example"], -1, 1),
    ];
    let certificates = Certificates::load(&files).unwrap();
    let leaf = |files: &CertificateFiles| files::load(files).unwrap().key.cert[0].clone();
    let [first, shop, other] = [&files[0], &files[1], &files[2]].map(leaf);
    for (server_name, expected, what) in [
        (None, &first, "no name: the default"),
        (Some("unknown.example"), &first, "an unknown name: the default"),
        (Some("shop.example"), &shop, "an exact name: the earlier of two"),
        (Some("SHOP.example."), &shop, "case and trailing dot do not matter"),
        (Some("www.shop.example"), &other, "an exact name wins over a wildcard"),
        (Some("api.shop.example"), &shop, "a wildcard stands for a label"),
        (Some("a.b.shop.example"), &first, "and for one only"),
    ] {
        assert_eq!(&certificates.for_name(server_name).cert[0], expected, "{what}");
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
    let with = |certificate: &std::path::Path, key: &std::path::Path| CertificateFiles {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
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
        let errors = Certificates::load(&[files, good.clone()]).unwrap_err();
        assert_eq!(errors.len(), 1, "{expected}: {errors:?}");
        let error = errors[0].to_string();
        assert!(error.contains(expected) && error.contains(dir.path().to_str().unwrap()), "{expected}: {error}");
    }
    assert!(matches!(Certificates::load(&[]).unwrap_err()[..], [TlsError::NoCertificate]));
}

#[test]
fn all_bad_files_are_reported_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let old = pair(dir.path(), "old", &["a.example"], -3, -1);
    let absent = CertificateFiles { certificate: dir.path().join("x"), key: dir.path().join("y") };
    assert_eq!(Certificates::load(&[old, absent]).unwrap_err().len(), 2);
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
