//! Passkeys and security keys: WebAuthn Level 3, without attestation, user verification always required.

mod authenticator_data;
mod client_data;
mod cose;
#[cfg(test)]
pub(in crate::stepup) mod soft_authenticator;
#[cfg(test)]
mod tests;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::client_data::Ceremony;
use lb_policy::{Method, Strength};

use super::super::account::AccountId;
use super::super::enrolments::Wanted;
use super::public_key::PublicKey;
use super::{Attempt, Factor, FactorVerified, Failure, Input, Owner, Shape, Tools, Verify};
use crate::config::RelyingParty;
use crate::texts::say;

pub(in crate::stepup) const FACTOR: Factor = Factor {
    method: Method::Webauthn,
    input: Input {
        name: "passkey",
        label: say::passkey_label,
        hint: say::passkey_hint,
        shape: Shape::Passkey,
        refused: say::passkey_refused,
    },
    provable,
    verify: Verify::Disk(verify),
};

fn provable(owner: &Owner<'_>) -> Option<Strength> {
    owner.config.passkey.as_ref()?;
    let of_method = owner.enrolled.iter().filter(|enrolment| enrolment.method() == Some(Method::Webauthn));
    let credentials = of_method.filter_map(|enrolment| Credential::read(&enrolment.record));
    // Which one the user takes is not known before; what is asked for must be within reach.
    credentials.map(|credential| credential.strength()).max_by_key(|strength| *strength == Strength::DeviceBound)
}

fn verify(attempt: &Attempt) -> Result<FactorVerified, Failure> {
    let party = attempt.services.config.passkey.as_ref().ok_or(Failure::NotEnrolled)?;
    let challenge = Challenge(attempt.aim()?.approval.commitment);
    let enrolled = attempt.enrolled(Method::Webauthn, Credential::read)?;
    if enrolled.is_empty() {
        return Err(Failure::NotEnrolled);
    }
    let (enrolments, credentials): (Vec<_>, Vec<_>) = enrolled.into_iter().unzip();
    let handle = user_handle(&attempt.tools, &attempt.account.id);
    let asserted = authenticate(party, &challenge, &handle, &credentials, &attempt.answer)
        .inspect_err(|refusal| alarm(*refusal))?
        .credential;
    let at = credentials.iter().position(|credential| credential.id == asserted.id).ok_or(Failure::NotEnrolled)?;
    let saved = attempt.enrolments.change(&attempt.account.id, &enrolments[at].id, |enrolment| {
        // Another proof may have been counted since it was read.
        let counts_on =
            Credential::read(&enrolment.record).is_some_and(|kept| kept.sign_count == credentials[at].sign_count);
        if !counts_on {
            return (Wanted::Nothing, Err(Refusal::Counter));
        }
        enrolment.record = serde_json::to_vec(&asserted).expect("a credential is plain data").into();
        enrolment.last_used_at = Some(attempt.now);
        (Wanted::Save, Ok(()))
    })?;
    saved.ok_or(Failure::NotEnrolled)??;
    Ok(FactorVerified::new(attempt, Method::Webauthn, asserted.strength()))
}

/// Somebody may have copied the key: whoever runs the service should know.
fn alarm(refusal: Refusal) {
    if refusal == Refusal::Counter {
        tracing::warn!("the signature counter of a passkey went back; it may have been copied, and was refused");
    }
}

/// What authenticators know the account by: it tells nobody its name (WebAuthn L3 §14.6.1).
pub(in crate::stepup) fn user_handle(tools: &Tools, account: &AccountId) -> [u8; 32] {
    tools.keyed.of("webauthn-user-handle", &account.key(), "")
}

/// What one ceremony must sign: unguessable, and good once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Challenge([u8; 32]);

/// One enrolled passkey: what is kept of it (§4, credential record).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Credential {
    pub(crate) id: Vec<u8>,
    key: PublicKey,
    algorithm: i64,
    sign_count: u32,
    /// It may leave the device it was made on, so it never reaches level 3.
    pub(crate) backup_eligible: bool,
    transports: Vec<String>,
}

/// An assertion that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asserted {
    /// The credential with its new count, to be stored before the proof counts.
    pub(crate) credential: Credential,
}

/// Why a ceremony proves nothing. Clients are told none of it; the audit trail is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("malformed")]
    Malformed,
    #[error("wrong-ceremony")]
    Type,
    #[error("wrong-challenge")]
    Challenge,
    #[error("wrong-origin")]
    Origin,
    #[error("cross-origin")]
    CrossOrigin,
    #[error("wrong-relying-party")]
    RelyingParty,
    #[error("user-not-present")]
    NotPresent,
    #[error("user-not-verified")]
    NotVerified,
    #[error("algorithm")]
    Algorithm,
    #[error("unknown-credential")]
    UnknownCredential,
    #[error("other-user")]
    OtherUser,
    #[error("wrong-signature")]
    Signature,
    #[error("backup-state-changed")]
    BackupEligibility,
    /// Two devices seem to hold one key: §6.1.1.
    #[error("signature-counter-went-back")]
    Counter,
}

/// How long a browser waits for the user; a transaction lives no longer by default.
const TIMEOUT_MS: u64 = 5 * 60 * 1000;
/// Hints that browsers may give and later want back; nothing depends on them.
const MOST_TRANSPORTS: usize = 8;
const LONGEST_TRANSPORT: usize = 32;
/// The whole answer of a browser, as JSON.
pub(crate) const LONGEST_RESPONSE_BYTES: usize = 100 * 1024;

impl Credential {
    /// Reads an enrolment's record.
    pub(in crate::stepup) fn read(record: &[u8]) -> Option<Credential> {
        serde_json::from_slice(record).ok()
    }

    /// Every proof has its user verified; level 3 takes a key that cannot be copied off its device.
    pub(crate) fn strength(&self) -> Strength {
        if self.backup_eligible { Strength::UserVerified } else { Strength::DeviceBound }
    }
}

impl Challenge {
    /// The challenge that is itself the hash of what is approved.
    pub(in crate::stepup) fn of_commitment(commitment: [u8; 32]) -> Challenge {
        Challenge(commitment)
    }

    /// The challenge that commits to everything in `text`, which holds a nonce of its own.
    pub(crate) fn committing_to(text: &str) -> Challenge {
        let hash = digest(&SHA256, text.as_bytes());
        Challenge(hash.as_ref().try_into().expect("SHA-256 gives 32 bytes"))
    }

    /// The challenge that a page shows.
    #[cfg(test)]
    pub(crate) fn of_options(options: &Value) -> Challenge {
        let bytes = URL_SAFE_NO_PAD.decode(options["challenge"].as_str().unwrap()).unwrap();
        Challenge(bytes.try_into().unwrap())
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn is(&self, given: &[u8]) -> bool {
        verify_slices_are_equal(&self.0, given).is_ok()
    }
}

/// `navigator.credentials.create()` is called with this (PublicKeyCredentialCreationOptionsJSON).
pub(crate) fn creation_options(
    party: &RelyingParty,
    challenge: &Challenge,
    user: &str,
    handle: &[u8],
    enrolled: &[Credential],
) -> Value {
    let algorithms = cose::ALGORITHMS.map(|algorithm| json!({"type": "public-key", "alg": algorithm}));
    json!({
        "rp": {"id": party.id, "name": party.name},
        "user": {"id": encoded(handle), "name": user, "displayName": user},
        "challenge": encoded(&challenge.0),
        "pubKeyCredParams": algorithms,
        "timeout": TIMEOUT_MS,
        "excludeCredentials": descriptors(enrolled),
        "authenticatorSelection": {"residentKey": "preferred", "userVerification": "required"},
        "attestation": "none",
    })
}

/// `navigator.credentials.get()` is called with this (PublicKeyCredentialRequestOptionsJSON).
pub(crate) fn request_options(party: &RelyingParty, challenge: &Challenge, enrolled: &[Credential]) -> Value {
    json!({
        "challenge": encoded(&challenge.0),
        "rpId": party.id,
        "timeout": TIMEOUT_MS,
        "userVerification": "required",
        "allowCredentials": descriptors(enrolled),
    })
}

/// What browsers fetch from `/.well-known/webauthn` before an origin outside `id` may use its credentials (§5.11.1).
pub(crate) fn related_origins(party: &RelyingParty) -> Value {
    json!({ "origins": party.origins })
}

fn descriptors(credentials: &[Credential]) -> Vec<Value> {
    let describe = |credential: &Credential| json!({"type": "public-key", "id": encoded(&credential.id), "transports": credential.transports});
    credentials.iter().map(describe).collect()
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The part of `PublicKeyCredential.toJSON()` that both ceremonies share.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer<R> {
    raw_id: Base64,
    r#type: String,
    response: R,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attestation {
    #[serde(rename = "clientDataJSON")]
    client_data: Base64,
    attestation_object: Base64,
    #[serde(default)]
    transports: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Assertion {
    #[serde(rename = "clientDataJSON")]
    client_data: Base64,
    authenticator_data: Base64,
    signature: Base64,
    user_handle: Option<Base64>,
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Base64(Vec<u8>);

impl TryFrom<String> for Base64 {
    type Error = base64::DecodeError;

    fn try_from(text: String) -> Result<Base64, base64::DecodeError> {
        URL_SAFE_NO_PAD.decode(text).map(Base64)
    }
}

fn answer<'a, R: Deserialize<'a>>(json: &'a str) -> Result<Answer<R>, Refusal> {
    if json.len() > LONGEST_RESPONSE_BYTES {
        return Err(Refusal::Malformed);
    }
    let answer: Answer<R> = serde_json::from_str(json).map_err(|_| Refusal::Malformed)?;
    if answer.r#type != "public-key" { Err(Refusal::Malformed) } else { Ok(answer) }
}

/// Verifies a new credential (§7.1). `json` is the browser's RegistrationResponseJSON.
pub(crate) fn register(party: &RelyingParty, challenge: &Challenge, json: &str) -> Result<Credential, Refusal> {
    let answer: Answer<Attestation> = answer(json)?;
    let response = answer.response;
    client_data::check(&response.client_data.0, Ceremony::Create, party, challenge)?;
    let credential = credential_of_attestation(party, &response.attestation_object.0)?;
    if credential.id != answer.raw_id.0 {
        return Err(Refusal::UnknownCredential);
    }
    let known = |transport: &String| transport.len() <= LONGEST_TRANSPORT && transport.is_ascii();
    let transports = response.transports.into_iter().filter(known).take(MOST_TRANSPORTS).collect();
    Ok(Credential { transports, ..credential })
}

/// The credential in an attestation object, if it is for `party` and its user was verified.
pub(crate) fn credential_of_attestation(party: &RelyingParty, object: &[u8]) -> Result<Credential, Refusal> {
    let attested = authenticator_data::read_attestation(object)?;
    check_flags(party, &attested.data)?;
    Ok(Credential {
        id: attested.credential_id,
        key: attested.key,
        algorithm: attested.algorithm,
        sign_count: attested.data.sign_count,
        backup_eligible: attested.data.backup_eligible,
        transports: Vec::new(),
    })
}

/// Verifies an assertion by one of `enrolled`, all of which are the user's whose handle is `handle` (§7.2). `json` is the
/// browser's AuthenticationResponseJSON.
pub(crate) fn authenticate(
    party: &RelyingParty,
    challenge: &Challenge,
    handle: &[u8],
    enrolled: &[Credential],
    json: &str,
) -> Result<Asserted, Refusal> {
    let answer: Answer<Assertion> = answer(json)?;
    let credential =
        enrolled.iter().find(|credential| credential.id == answer.raw_id.0).ok_or(Refusal::UnknownCredential)?;
    let response = answer.response;
    if response.user_handle.as_ref().is_some_and(|given| !given.0.is_empty() && given.0 != handle) {
        return Err(Refusal::OtherUser);
    }
    client_data::check(&response.client_data.0, Ceremony::Get, party, challenge)?;
    let data = authenticator_data::read(&response.authenticator_data.0)?;
    check_flags(party, &data)?;
    if data.backup_eligible != credential.backup_eligible {
        return Err(Refusal::BackupEligibility);
    }
    let client_data_hash = digest(&SHA256, &response.client_data.0);
    let signed = [&response.authenticator_data.0, client_data_hash.as_ref()].concat();
    let scheme = cose::scheme(credential.algorithm).ok_or(Refusal::Algorithm)?;
    credential.key.verify(scheme, &signed, &response.signature.0).map_err(|_| Refusal::Signature)?;
    // Last, so that only the key's holder can raise the alarm. Authenticators that do not count always send zero.
    let counts = data.sign_count != 0 || credential.sign_count != 0;
    if counts && data.sign_count <= credential.sign_count {
        return Err(Refusal::Counter);
    }
    Ok(Asserted { credential: Credential { sign_count: data.sign_count, ..credential.clone() } })
}

fn check_flags(party: &RelyingParty, data: &authenticator_data::AuthenticatorData) -> Result<(), Refusal> {
    if data.rp_id_hash != digest(&SHA256, party.id.as_bytes()).as_ref() {
        return Err(Refusal::RelyingParty);
    }
    if !data.user_present {
        return Err(Refusal::NotPresent);
    }
    if !data.user_verified {
        return Err(Refusal::NotVerified);
    }
    Ok(())
}
