//! A device with a passkey, in memory, and every lie that it could tell over HTTP (WebAuthn L3 §6).

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// One passkey, and the browser it is used in.
#[derive(Debug)]
pub struct Authenticator {
    id: [u8; 16],
    key: EcdsaKeyPair,
    origin: String,
    relying_party: String,
    used: AtomicU32,
}

/// What an assertion says; [`Authenticator::truth`] is the truth.
#[derive(Clone, Debug)]
pub struct Said {
    pub kind: &'static str,
    /// As the page had it, base64url.
    pub challenge: String,
    pub origin: String,
    pub is_cross_origin: bool,
    pub relying_party: String,
    /// User present is 1, user verified 4.
    pub flags: u8,
    pub sign_count: u32,
    pub user_handle: Option<Vec<u8>>,
    /// Of the credential; `None`: its own.
    pub id: Option<Vec<u8>>,
}

pub const PRESENT: u8 = 1;
pub const VERIFIED: u8 = 4;

impl Authenticator {
    pub fn new(origin: &str, relying_party: &str) -> Result<Authenticator> {
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).ok().context("no random bytes")?;
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).ok().context("no key")?;
        let (origin, relying_party) = (origin.to_owned(), relying_party.to_owned());
        Ok(Authenticator { id, key, origin, relying_party, used: AtomicU32::new(0) })
    }

    /// Of its credential.
    pub fn id(&self) -> &[u8] {
        &self.id
    }

    /// RegistrationResponseJSON for PublicKeyCredentialCreationOptionsJSON.
    pub fn create(&self, options: &Value) -> Result<String> {
        let said = Said { kind: "webauthn.create", ..self.truth(options)? };
        let mut data = said.authenticator_data(0x40);
        data.extend([0; 16]);
        data.extend((self.id.len() as u16).to_be_bytes());
        data.extend(self.id);
        data.extend(self.cose_key());
        // {"fmt": "none", "attStmt": {}, "authData": …} in CBOR (RFC 8949).
        let mut object = b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x59".to_vec();
        object.extend((data.len() as u16).to_be_bytes());
        object.extend(data);
        let response = json!({
            "clientDataJSON": encoded(&said.client_data()),
            "attestationObject": encoded(&object),
            "transports": ["internal"],
        });
        Ok(self.answer(None, response))
    }

    /// What this device truly says to PublicKeyCredentialRequestOptionsJSON.
    pub fn truth(&self, options: &Value) -> Result<Said> {
        Ok(Said {
            kind: "webauthn.get",
            challenge: options["challenge"].as_str().context("no challenge")?.to_owned(),
            origin: self.origin.clone(),
            is_cross_origin: false,
            relying_party: self.relying_party.clone(),
            flags: PRESENT | VERIFIED,
            sign_count: self.used.fetch_add(1, Ordering::Relaxed) + 1,
            user_handle: None,
            id: None,
        })
    }

    /// AuthenticationResponseJSON that says `said`.
    pub fn get(&self, said: &Said) -> Result<String> {
        let (client_data, data) = (said.client_data(), said.authenticator_data(0));
        let signed = [&data[..], digest(&SHA256, &client_data).as_ref()].concat();
        let signature = self.key.sign(&SystemRandom::new(), &signed).ok().context("no signature")?;
        let response = json!({
            "clientDataJSON": encoded(&client_data),
            "authenticatorData": encoded(&data),
            "signature": encoded(signature.as_ref()),
            "userHandle": said.user_handle.as_deref().map(encoded),
        });
        Ok(self.answer(said.id.as_deref(), response))
    }

    fn answer(&self, id: Option<&[u8]>, response: Value) -> String {
        let id = encoded(id.unwrap_or(&self.id));
        json!({"id": id, "rawId": id, "type": "public-key", "clientExtensionResults": {}, "response": response})
            .to_string()
    }

    /// {1: 2, 3: -7, -1: 1, -2: x, -3: y} (RFC 9053 §7.1).
    fn cose_key(&self) -> Vec<u8> {
        let point = self.key.public_key().as_ref();
        let mut key = b"\xa5\x01\x02\x03\x26\x20\x01\x21\x58\x20".to_vec();
        key.extend(&point[1..33]);
        key.extend(b"\x22\x58\x20");
        key.extend(&point[33..65]);
        key
    }
}

impl Said {
    fn client_data(&self) -> Vec<u8> {
        let Said { kind, challenge, origin, is_cross_origin, .. } = self;
        json!({"type": kind, "challenge": challenge, "origin": origin, "crossOrigin": is_cross_origin})
            .to_string()
            .into_bytes()
    }

    fn authenticator_data(&self, more_flags: u8) -> Vec<u8> {
        let mut data = digest(&SHA256, self.relying_party.as_bytes()).as_ref().to_vec();
        data.push(self.flags | more_flags);
        data.extend(self.sign_count.to_be_bytes());
        data
    }
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
