//! Ceremonies that hold, and every kind that must not.

use proptest::prelude::*;

use super::soft_authenticator::{Claims, ORIGIN, PRESENT_AND_VERIFIED, RP_ID, SoftAuthenticator};
use super::*;

const HANDLE: &[u8] = b"handle of alice";
const BACKUP_ELIGIBLE: u8 = 1 << 3;
const BACKED_UP: u8 = 1 << 4;

fn party() -> RelyingParty {
    let related = "https://shop.example.net";
    RelyingParty { id: RP_ID.to_owned(), name: "Shop".to_owned(), origins: vec![ORIGIN.to_owned(), related.to_owned()] }
}

fn challenge() -> Challenge {
    Challenge::committing_to("this very request")
}

fn enrolled(authenticator: &SoftAuthenticator, flags: u8) -> Credential {
    let claims = Claims { flags, ..Claims::honest("webauthn.create") };
    register(&party(), &challenge(), &authenticator.create(&challenge(), &claims)).unwrap()
}

/// Each lie, and what it is refused as.
fn lies(kind: &'static str, other_kind: &'static str) -> Vec<(&'static str, Claims, Refusal)> {
    let honest = || Claims::honest(kind);
    vec![
        ("the other ceremony", Claims { kind: other_kind, ..honest() }, Refusal::Type),
        ("another site", Claims { origin: "https://evil.example", ..honest() }, Refusal::Origin),
        ("a longer name", Claims { origin: "https://shop.example.evil.example", ..honest() }, Refusal::Origin),
        ("a subdomain", Claims { origin: "https://x.shop.example", ..honest() }, Refusal::Origin),
        ("another port", Claims { origin: "https://shop.example:8443", ..honest() }, Refusal::Origin),
        ("no TLS", Claims { origin: "http://shop.example", ..honest() }, Refusal::Origin),
        ("a trailing slash", Claims { origin: "https://shop.example/", ..honest() }, Refusal::Origin),
        ("a framed page", Claims { cross_origin: true, ..honest() }, Refusal::CrossOrigin),
        ("a page within another", Claims { top_origin: Some(ORIGIN), ..honest() }, Refusal::CrossOrigin),
        ("another relying party", Claims { rp_id: "evil.example", ..honest() }, Refusal::RelyingParty),
        ("nobody there", Claims { flags: 0b100, ..honest() }, Refusal::NotPresent),
        ("nobody verified", Claims { flags: 0b001, ..honest() }, Refusal::NotVerified),
        (
            "backed up though it cannot be",
            Claims { flags: PRESENT_AND_VERIFIED | BACKED_UP, ..honest() },
            Refusal::Malformed,
        ),
        ("attested data that is not there", Claims { flags: 0b1000_0101, ..honest() }, Refusal::Malformed),
    ]
}

#[test]
fn an_honest_credential_is_enrolled_and_then_proves_its_holder() {
    for origin in [ORIGIN, "https://shop.example.net"] {
        let authenticator = SoftAuthenticator::new(b"credential one");
        let claims = Claims { origin, ..Claims::honest("webauthn.create") };
        let credential = register(&party(), &challenge(), &authenticator.create(&challenge(), &claims)).unwrap();
        assert_eq!((credential.id.as_slice(), credential.backup_eligible), (&b"credential one"[..], false));
        let claims = Claims { origin, sign_count: 2, user_handle: Some(HANDLE), ..Claims::honest("webauthn.get") };
        let answer = authenticator.get(&challenge(), &claims);
        let asserted = authenticate(&party(), &challenge(), HANDLE, &[credential], &answer).unwrap();
        assert_eq!(asserted.credential.sign_count, 2);
        let again = authenticate(&party(), &challenge(), HANDLE, &[asserted.credential], &answer);
        assert_eq!(again, Err(Refusal::Counter), "the very same answer once more");
    }
}

#[test]
fn no_lie_enrols_a_credential() {
    let authenticator = SoftAuthenticator::new(b"one");
    for (name, claims, refusal) in lies("webauthn.create", "webauthn.get") {
        let outcome = register(&party(), &challenge(), &authenticator.create(&challenge(), &claims));
        assert_eq!(outcome, Err(refusal), "{name}");
    }
    let swapped = Claims { algorithm: -8, ..Claims::honest("webauthn.create") };
    let outcome = register(&party(), &challenge(), &authenticator.create(&challenge(), &swapped));
    assert_eq!(outcome, Err(Refusal::Algorithm), "an algorithm that is not the key's");
    let answer = authenticator.create(&challenge(), &Claims::honest("webauthn.create"));
    let other = Challenge::committing_to("another request");
    assert_eq!(register(&party(), &other, &answer), Err(Refusal::Challenge));
}

#[test]
fn no_lie_passes_for_an_assertion() {
    let authenticator = SoftAuthenticator::new(b"one");
    let credentials = [enrolled(&authenticator, PRESENT_AND_VERIFIED)];
    for (name, claims, refusal) in lies("webauthn.get", "webauthn.create") {
        let claims = Claims { sign_count: 2, ..claims };
        let answer = authenticator.get(&challenge(), &claims);
        assert_eq!(authenticate(&party(), &challenge(), HANDLE, &credentials, &answer), Err(refusal), "{name}");
    }
    let honest = Claims { sign_count: 2, ..Claims::honest("webauthn.get") };
    let rows = [
        ("another user's handle", Claims { user_handle: Some(b"mallory"), ..honest.clone() }, Refusal::OtherUser),
        (
            "a key that may suddenly leave its device",
            Claims { flags: PRESENT_AND_VERIFIED | BACKUP_ELIGIBLE, ..honest.clone() },
            Refusal::BackupEligibility,
        ),
        ("a count that stands still", Claims { sign_count: 1, ..honest.clone() }, Refusal::Counter),
        ("a count that went back to none", Claims { sign_count: 0, ..honest.clone() }, Refusal::Counter),
    ];
    for (name, claims, refusal) in rows {
        let answer = authenticator.get(&challenge(), &claims);
        assert_eq!(authenticate(&party(), &challenge(), HANDLE, &credentials, &answer), Err(refusal), "{name}");
    }
    let other = Challenge::committing_to("another request");
    let answer = authenticator.get(&other, &honest);
    let replayed = authenticate(&party(), &challenge(), HANDLE, &credentials, &answer);
    assert_eq!(replayed, Err(Refusal::Challenge), "approved for another request");
}

#[test]
fn another_key_under_the_same_or_another_id_proves_nothing() {
    let honest = Claims { sign_count: 2, ..Claims::honest("webauthn.get") };
    let credentials = [enrolled(&SoftAuthenticator::new(b"one"), PRESENT_AND_VERIFIED)];
    let rows = [("the same id", &b"one"[..], Refusal::Signature), ("its own id", b"two", Refusal::UnknownCredential)];
    for (name, id, refusal) in rows {
        let answer = SoftAuthenticator::new(id).get(&challenge(), &honest);
        assert_eq!(authenticate(&party(), &challenge(), HANDLE, &credentials, &answer), Err(refusal), "{name}");
    }
}

#[test]
fn an_authenticator_that_never_counts_is_good_for_any_number_of_times() {
    let authenticator = SoftAuthenticator::new(b"synced");
    let flags = PRESENT_AND_VERIFIED | BACKUP_ELIGIBLE;
    let claims = Claims { flags, sign_count: 0, ..Claims::honest("webauthn.create") };
    let credential = register(&party(), &challenge(), &authenticator.create(&challenge(), &claims)).unwrap();
    assert!(credential.backup_eligible);
    let claims = Claims { kind: "webauthn.get", ..claims };
    for _ in 0..2 {
        let answer = authenticator.get(&challenge(), &claims);
        let credentials = [credential.clone()];
        assert!(authenticate(&party(), &challenge(), HANDLE, &credentials, &answer).is_ok());
    }
}

#[test]
fn options_ask_for_verification_and_name_what_is_enrolled() {
    let credentials = [enrolled(&SoftAuthenticator::new(b"one"), PRESENT_AND_VERIFIED)];
    let create = creation_options(&party(), &challenge(), "alice", HANDLE, &credentials);
    assert_eq!(create["authenticatorSelection"]["userVerification"], "required");
    assert_eq!(create["excludeCredentials"][0]["id"], encoded(b"one"));
    let get = request_options(&party(), &challenge(), &credentials);
    assert_eq!((&get["userVerification"], &get["rpId"]), (&json!("required"), &json!(RP_ID)));
    assert_eq!(get["allowCredentials"][0]["id"], encoded(b"one"));
    assert_eq!(related_origins(&party())["origins"][1], "https://shop.example.net");
}

#[test]
fn a_stored_credential_is_read_back_as_it_was() {
    let credential = enrolled(&SoftAuthenticator::new(b"one"), PRESENT_AND_VERIFIED);
    let stored = serde_json::to_vec(&credential).unwrap();
    assert_eq!(serde_json::from_slice::<Credential>(&stored).unwrap(), credential);
}

/// An answer whose one member is replaced.
fn with(answer: &str, member: &str, value: Value) -> String {
    let mut answer: Value = serde_json::from_str(answer).unwrap();
    answer["response"][member] = value;
    answer.to_string()
}

#[test]
fn answers_that_could_be_read_in_two_ways_are_refused() {
    let authenticator = SoftAuthenticator::new(b"one");
    let claims = Claims::honest("webauthn.create");
    let answer = authenticator.create(&challenge(), &claims);
    let object = authenticator.attestation_object(&claims);
    let trailing = encoded(&[&object[..], &[0]].concat());
    // {"fmt": "none", "fmt": "none", …}: one pair more than the head of the map says it has.
    let mut repeated = object.clone();
    repeated[0] += 1;
    repeated.splice(1..1, *b"\x63fmt\x64none");
    let rows = [
        ("bytes after the object", with(&answer, "attestationObject", json!(trailing))),
        ("a name that comes twice", with(&answer, "attestationObject", json!(encoded(&repeated)))),
        ("an object cut short", with(&answer, "attestationObject", json!(encoded(&object[..object.len() - 1])))),
        ("padding", with(&answer, "attestationObject", json!(format!("{}==", encoded(&object))))),
        ("nothing", with(&answer, "attestationObject", json!(""))),
        ("client data that is no JSON", with(&answer, "clientDataJSON", json!(encoded(b"no")))),
        ("another type", answer.replace("public-key", "password")),
        ("another thing altogether", "[]".to_owned()),
    ];
    for (name, answer) in rows {
        assert_eq!(register(&party(), &challenge(), &answer), Err(Refusal::Malformed), "{name}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_parsers_panic_or_pass(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(authenticator_data::read_attestation(&bytes).is_err());
        let _ = authenticator_data::read(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        prop_assert!(register(&party(), &challenge(), &text).is_err());
        prop_assert!(authenticate(&party(), &challenge(), HANDLE, &[], &text).is_err());
    }

    #[test]
    fn an_attestation_with_any_byte_changed_is_read_as_what_it_says_or_not_at_all(at in 0usize..400, to in any::<u8>()) {
        let authenticator = SoftAuthenticator::new(b"one");
        let mut object = authenticator.attestation_object(&Claims::honest("webauthn.create"));
        let at = at % object.len();
        object[at] = to;
        if let Ok(attested) = authenticator_data::read_attestation(&object) {
            // Whatever is read is a key that could be used.
            prop_assert!(cose::scheme(attested.algorithm).is_some());
            prop_assert!(!attested.credential_id.is_empty());
        }
    }

    #[test]
    fn an_assertion_with_any_signed_byte_changed_proves_nothing(at in 0usize..37, bit in 0u8..8) {
        let authenticator = SoftAuthenticator::new(b"one");
        let credentials = [enrolled(&authenticator, PRESENT_AND_VERIFIED)];
        let honest = authenticator.get(&challenge(), &Claims { sign_count: 2, ..Claims::honest("webauthn.get") });
        let answer: Value = serde_json::from_str(&honest).unwrap();
        let text = answer["response"]["authenticatorData"].as_str().unwrap();
        let mut data = URL_SAFE_NO_PAD.decode(text).unwrap();
        data[at] ^= 1 << bit;
        let changed = with(&honest, "authenticatorData", json!(encoded(&data)));
        prop_assert!(authenticate(&party(), &challenge(), HANDLE, &credentials, &changed).is_err());
    }
}
