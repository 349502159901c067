//! An authenticator in memory for tests, with every lie that a hostile one could tell.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use ciborium::Value;
use serde_json::json;

use super::{Challenge, encoded};

pub(in crate::stepup) struct SoftAuthenticator {
    pub(in crate::stepup) id: Vec<u8>,
    key: EcdsaKeyPair,
}

/// What the browser and the authenticator say; [`Claims::honest`] is the truth.
#[derive(Clone)]
pub(in crate::stepup) struct Claims {
    pub(in crate::stepup) kind: &'static str,
    pub(in crate::stepup) origin: &'static str,
    pub(in crate::stepup) rp_id: &'static str,
    pub(in crate::stepup) cross_origin: bool,
    pub(in crate::stepup) top_origin: Option<&'static str>,
    pub(in crate::stepup) flags: u8,
    pub(in crate::stepup) sign_count: u32,
    pub(in crate::stepup) user_handle: Option<&'static [u8]>,
    pub(in crate::stepup) algorithm: i64,
}

pub(in crate::stepup) const ORIGIN: &str = "https://shop.example";
pub(in crate::stepup) const RP_ID: &str = "shop.example";
/// User present and verified.
pub(in crate::stepup) const PRESENT_AND_VERIFIED: u8 = 0b101;

impl Claims {
    pub(in crate::stepup) fn honest(kind: &'static str) -> Claims {
        Claims {
            kind,
            origin: ORIGIN,
            rp_id: RP_ID,
            cross_origin: false,
            top_origin: None,
            flags: PRESENT_AND_VERIFIED,
            sign_count: 1,
            user_handle: None,
            algorithm: -7,
        }
    }

    fn client_data(&self, challenge: &Challenge) -> Vec<u8> {
        let mut data = json!({
            "type": self.kind,
            "challenge": encoded(&challenge.0),
            "origin": self.origin,
            "crossOrigin": self.cross_origin,
            "other_keys_can_be_added_here": "and are ignored",
        });
        if let Some(origin) = self.top_origin {
            data["topOrigin"] = json!(origin);
        }
        data.to_string().into_bytes()
    }

    fn authenticator_data(&self, extra_flags: u8) -> Vec<u8> {
        let mut data = digest(&SHA256, self.rp_id.as_bytes()).as_ref().to_vec();
        data.push(self.flags | extra_flags);
        data.extend_from_slice(&self.sign_count.to_be_bytes());
        data
    }
}

impl SoftAuthenticator {
    pub(in crate::stepup) fn new(id: &[u8]) -> SoftAuthenticator {
        SoftAuthenticator { id: id.to_vec(), key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap() }
    }

    /// The attestation object that goes with `claims`.
    pub(in crate::stepup) fn attestation_object(&self, claims: &Claims) -> Vec<u8> {
        let point = self.key.public_key().as_ref();
        let integer = |number: i64| Value::Integer(number.into());
        let key = Value::Map(vec![
            (integer(1), integer(2)),
            (integer(3), integer(claims.algorithm)),
            (integer(-1), integer(1)),
            (integer(-2), Value::Bytes(point[1..33].to_vec())),
            (integer(-3), Value::Bytes(point[33..].to_vec())),
        ]);
        let mut data = claims.authenticator_data(0x40);
        data.extend_from_slice(&[0; 16]);
        data.extend_from_slice(&u16::try_from(self.id.len()).unwrap().to_be_bytes());
        data.extend_from_slice(&self.id);
        ciborium::into_writer(&key, &mut data).unwrap();
        let text = |text: &str| Value::Text(text.to_owned());
        let object = Value::Map(vec![
            (text("fmt"), text("none")),
            (text("attStmt"), Value::Map(Vec::new())),
            (text("authData"), Value::Bytes(data)),
        ]);
        let mut bytes = Vec::new();
        ciborium::into_writer(&object, &mut bytes).unwrap();
        bytes
    }

    /// RegistrationResponseJSON.
    pub(in crate::stepup) fn create(&self, challenge: &Challenge, claims: &Claims) -> String {
        json!({
            "id": encoded(&self.id),
            "rawId": encoded(&self.id),
            "type": "public-key",
            "clientExtensionResults": {},
            "response": {
                "clientDataJSON": encoded(&claims.client_data(challenge)),
                "attestationObject": encoded(&self.attestation_object(claims)),
                "transports": ["internal"],
            },
        })
        .to_string()
    }

    /// AuthenticationResponseJSON.
    pub(in crate::stepup) fn get(&self, challenge: &Challenge, claims: &Claims) -> String {
        let client_data = claims.client_data(challenge);
        let data = claims.authenticator_data(0);
        let signed = [&data[..], digest(&SHA256, &client_data).as_ref()].concat();
        let signature = self.key.sign(&SystemRandom::new(), &signed).unwrap();
        json!({
            "id": encoded(&self.id),
            "rawId": encoded(&self.id),
            "type": "public-key",
            "clientExtensionResults": {},
            "response": {
                "clientDataJSON": encoded(&client_data),
                "authenticatorData": encoded(&data),
                "signature": encoded(signature.as_ref()),
                "userHandle": claims.user_handle.map(encoded),
            },
        })
        .to_string()
    }
}
