//! Signatures by the real `ssh-keygen`, and what is no signature.

use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

const TEXT: &str = "lb step-up 1\nmethod: DELETE\ntarget: /v1/environments/live\n";

/// Runs the system's ssh-keygen in `directory`.
fn ssh_keygen(directory: &Path, arguments: &[&str]) {
    let status = Command::new("ssh-keygen").args(arguments).current_dir(directory).stdout(Stdio::null()).status();
    assert!(status.expect("ssh-keygen is installed (Debian: openssh-client)").success(), "{arguments:?}");
}

fn made_by_ssh_keygen(directory: &Path, kind: &str, bits: &str) -> DeveloperKey {
    ssh_keygen(directory, &["-q", "-t", kind, "-b", bits, "-N", "", "-C", "dev@example", "-f", kind]);
    DeveloperKey::parse(&std::fs::read_to_string(directory.join(format!("{kind}.pub"))).unwrap()).unwrap()
}

fn signed_by_ssh_keygen(directory: &Path, kind: &str, namespace: &str, extra: &[&str]) -> String {
    std::fs::write(directory.join("text"), TEXT).unwrap();
    let _ = std::fs::remove_file(directory.join("text.sig"));
    let arguments = [&["-q", "-Y", "sign", "-f", kind, "-n", namespace][..], extra, &["text"]].concat();
    ssh_keygen(directory, &arguments);
    std::fs::read_to_string(directory.join("text.sig")).unwrap()
}

#[test]
fn what_ssh_keygen_signs_with_any_kind_of_key_is_verified() {
    let directory = tempfile::tempdir().unwrap();
    for (kind, bits, extra) in [
        ("ed25519", "256", &[][..]),
        ("ed25519", "256", &["-O", "hashalg=sha256"]),
        ("ecdsa", "256", &[]),
        ("rsa", "2048", &[]),
    ] {
        let _ = std::fs::remove_file(directory.path().join(kind));
        let key = made_by_ssh_keygen(directory.path(), kind, bits);
        let signature = signed_by_ssh_keygen(directory.path(), kind, NAMESPACE, extra);
        let enrolled = [key.clone()];
        assert_eq!(verify(&signature, TEXT, &enrolled), Ok(&key), "{kind} {extra:?}");
        assert_eq!(verify(&signature, &TEXT.replace("live", "test"), &enrolled), Err(Refusal::Signature), "{kind}");
        assert_eq!(DeveloperKey::parse(&key.to_string()), Ok(key), "{kind} survives being stored");
    }
}

#[test]
fn a_signature_for_another_purpose_or_by_another_key_proves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let other = made_by_ssh_keygen(directory.path(), "ecdsa", "256");
    let key = made_by_ssh_keygen(directory.path(), "ed25519", "256");
    let for_git = signed_by_ssh_keygen(directory.path(), "ed25519", "git", &[]);
    assert_eq!(verify(&for_git, TEXT, &[key]), Err(Refusal::Namespace));
    let by_another = signed_by_ssh_keygen(directory.path(), "ed25519", NAMESPACE, &[]);
    assert_eq!(verify(&by_another, TEXT, &[other]), Err(Refusal::UnknownKey));
    assert_eq!(verify(&by_another, TEXT, &[]), Err(Refusal::UnknownKey));
}

#[test]
fn the_fingerprint_is_the_one_that_ssh_keygen_prints() {
    let directory = tempfile::tempdir().unwrap();
    let key = made_by_ssh_keygen(directory.path(), "ed25519", "256");
    let listed = Command::new("ssh-keygen").args(["-l", "-f", "ed25519.pub"]).current_dir(directory.path()).output();
    assert!(String::from_utf8(listed.unwrap().stdout).unwrap().contains(&key.fingerprint()));
}

#[test]
fn lines_that_are_no_key_or_a_weak_one_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    ssh_keygen(directory.path(), &["-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", "weak"]);
    let weak = std::fs::read_to_string(directory.path().join("weak.pub")).unwrap();
    let key = made_by_ssh_keygen(directory.path(), "ed25519", "256").to_string();
    let rows = [
        ("a weak key", weak.as_str(), Refusal::Algorithm),
        ("another name outside than inside", &key.replace("ssh-ed25519 ", "ssh-rsa "), Refusal::Malformed),
        ("options", &format!("no-pty {key}"), Refusal::Malformed),
        ("half a key", &key[..key.len() - 12], Refusal::Malformed),
        ("nothing", "", Refusal::Malformed),
        ("a private key", "-----BEGIN OPENSSH PRIVATE KEY-----", Refusal::Malformed),
    ];
    for (name, line, refusal) in rows {
        assert_eq!(DeveloperKey::parse(line), Err(refusal), "{name}");
    }
}

#[test]
fn a_security_key_must_have_been_touched() {
    use aws_lc_rs::digest::{SHA256, SHA512, digest};
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use wire::put_string;

    let strings = |parts: &[&[u8]]| {
        let mut bytes = Vec::new();
        parts.iter().for_each(|part| put_string(&mut bytes, part));
        bytes
    };
    let pair = Ed25519KeyPair::generate().unwrap();
    let name = &b"sk-ssh-ed25519@openssh.com"[..];
    let blob = strings(&[name, pair.public_key().as_ref(), b"ssh:"]);
    let line = format!("sk-ssh-ed25519@openssh.com {}", STANDARD.encode(&blob));
    let enrolled = [DeveloperKey::parse(&line).unwrap()];
    for (flags, outcome) in [(1, Ok(&enrolled[0])), (5, Ok(&enrolled[0])), (0, Err(Refusal::NotPresent))] {
        let hash = digest(&SHA512, TEXT.as_bytes());
        let signed = [&b"SSHSIG"[..], &strings(&[NAMESPACE.as_bytes(), b"", b"sha512", hash.as_ref()])].concat();
        let counted = [flags, 0, 0, 0, 7];
        let by_the_key = [digest(&SHA256, b"ssh:").as_ref(), &counted, digest(&SHA256, &signed).as_ref()].concat();
        let signature = [&strings(&[name, pair.sign(&by_the_key).as_ref()])[..], &counted].concat();
        let file = strings(&[&blob, NAMESPACE.as_bytes(), b"", b"sha512", &signature]);
        let file = STANDARD.encode([&b"SSHSIG\0\0\0\x01"[..], &file].concat());
        let armored = format!("-----BEGIN SSH SIGNATURE-----\n{file}\n-----END SSH SIGNATURE-----\n");
        assert_eq!(verify(&armored, TEXT, &enrolled), outcome, "flags {flags}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_parsers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        use base64::Engine as _;
        let base64 = base64::engine::general_purpose::STANDARD.encode(&bytes);
        let armored = format!("-----BEGIN SSH SIGNATURE-----\n{base64}\n-----END SSH SIGNATURE-----");
        prop_assert!(verify(&armored, TEXT, &[]).is_err());
        prop_assert!(verify(&String::from_utf8_lossy(&bytes), TEXT, &[]).is_err());
        let _ = DeveloperKey::parse(&format!("ssh-ed25519 {base64}"));
        let _ = DeveloperKey::parse(&String::from_utf8_lossy(&bytes));
    }
}
