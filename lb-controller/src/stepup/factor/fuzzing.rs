//! What must hold of what authenticators, SSH agents and puzzle solvers send, for any bytes; fuzz targets and tests call
//! it.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use lb_policy::{BodyFactKind, ShownFact};
use serde_json::json;

use super::approval::Approval;
use super::developer_key::{self, DeveloperKey};
use super::passkey::{self, Challenge};
use super::proof_of_work::{Difficulty, ProofOfWork, Scope};
use crate::config::RelyingParty;

fn party() -> RelyingParty {
    RelyingParty {
        id: "shop.example".to_owned(),
        name: "Shop".to_owned(),
        origins: vec!["https://shop.example".to_owned()],
    }
}

/// `bytes` as an attestation object, and as a browser's whole answer. Panics if a credential that is enrolled could not be
/// stored and read back, or if bytes that nobody signed pass for an assertion by it.
pub fn a_passkey_is_read_within_bounds(bytes: &[u8]) {
    let (party, challenge) = (party(), Challenge::committing_to("a request"));
    let text = String::from_utf8_lossy(bytes);
    assert!(passkey::authenticate(&party, &challenge, b"handle", &[], &text).is_err());
    let _ = passkey::register(&party, &challenge, &text);
    let Ok(credential) = passkey::credential_of_attestation(&party, bytes) else { return };
    let stored = serde_json::to_vec(&credential).expect("a credential is plain data");
    assert_eq!(serde_json::from_slice::<passkey::Credential>(&stored).ok().as_ref(), Some(&credential));
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let client_data = json!({
        "type": "webauthn.get",
        "challenge": encode(challenge.bytes()),
        "origin": party.origins[0],
    });
    let answer = json!({
        "rawId": encode(&credential.id),
        "type": "public-key",
        "response": {
            "clientDataJSON": encode(client_data.to_string().as_bytes()),
            "authenticatorData": encode(bytes.get(..37).unwrap_or(bytes)),
            "signature": encode(bytes),
        },
    });
    let asserted = passkey::authenticate(&party, &challenge, b"handle", &[credential], &answer.to_string());
    assert!(asserted.is_err(), "nobody signed it");
}

/// A key nobody has the private half of.
static DEVELOPER_KEY: LazyLock<DeveloperKey> = LazyLock::new(|| {
    DeveloperKey::parse("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMcGC9uqr4Hq7uEk3V1tEoTQZ3s4qs8U7uS1mmbwDiIW")
        .expect("it is a key")
});

/// `bytes` as a signature, armored or still to be, and as a key. Panics if they pass for a signature, or if a key is read
/// that is not written the same way again.
pub fn an_ssh_signature_is_read_within_bounds(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let armored = format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----", STANDARD.encode(bytes));
    for candidate in [&*text, &armored] {
        assert!(developer_key::verify(candidate, "a request", std::slice::from_ref(&*DEVELOPER_KEY)).is_err());
    }
    let lines = ["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "sk-ssh-ed25519@openssh.com"];
    let lines = lines.iter().map(|name| format!("{name} {}", STANDARD.encode(bytes)));
    for key in lines.chain([text.to_string()]).filter_map(|line| DeveloperKey::parse(&line).ok()) {
        assert_eq!(DeveloperKey::parse(&key.to_string()).as_ref(), Ok(&key));
    }
}

static WORK: LazyLock<ProofOfWork> = LazyLock::new(ProofOfWork::new);

/// Panics if `bytes` pass for the solution of a puzzle that was never made, or if one of our puzzles is taken unsolved
/// for having them appended. The text that is approved must stay on its lines whatever they say.
pub fn a_solution_needs_our_puzzle(bytes: &[u8]) {
    let difficulty = Difficulty { base: 18, most: 22 };
    let scope = Scope { client: [192, 0, 2, 7].into(), rules: "login", difficulty };
    let text = String::from_utf8_lossy(bytes);
    assert!(WORK.check(scope, &text, 0).is_err());
    let (puzzle, _) = WORK.puzzle(scope, 0);
    // One guess in a quarter of a million is right, whoever makes it.
    let outcome = WORK.check(scope, &format!("{puzzle}:{text}"), 0);
    assert!(outcome.is_err() || text.bytes().all(|byte| byte.is_ascii_digit()));
    let (name, value) = ("amount".to_owned(), Some(text.to_string()));
    let facts = [ShownFact { name, kind: BodyFactKind::Text, value }];
    let approval = Approval {
        user: &text,
        authority: "shop.example",
        method: "POST",
        target: &text,
        facts: &facts,
        body_sha256: None,
        nonce: [0; 32],
        expires_at: 0,
    };
    assert_eq!(approval.text().lines().count(), 9, "a value began a line of its own");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_outsiders_send_is_read_within_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            a_passkey_is_read_within_bounds(&bytes);
            an_ssh_signature_is_read_within_bounds(&bytes);
            a_solution_needs_our_puzzle(&bytes);
        }
    }

    #[test]
    fn an_honest_attestation_is_not_an_assertion() {
        use crate::stepup::factor::passkey::soft_authenticator::{Claims, SoftAuthenticator};
        let object = SoftAuthenticator::new(b"one").attestation_object(&Claims::honest("webauthn.create"));
        assert!(passkey::credential_of_attestation(&party(), &object).is_ok());
        a_passkey_is_read_within_bounds(&object);
    }
}
