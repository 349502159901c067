//! What must hold of tokens and of issuers' answers for any bytes; fuzz targets call it.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;

use super::bearer::credentials;
use super::jwt::Unverified;
use super::key_set::KeySet;
use super::login::AuthorizationResponse;
use super::metadata::Metadata;
use crate::config::is_https_url;

/// A P-256 key whose other half is nowhere.
static KEY: LazyLock<DecodingKey> = LazyLock::new(|| {
    // The point of RFC 7515 appendix A.3, written anew: its private half is in the RFC, and no fuzzer signs with it.
    let (x, y) = ("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
    DecodingKey::from_ec_components(x, y).expect("the RFC's key is a key")
});

/// The text of an `Authorization` header. Panics if a token counts that no key signed, or that has a second spelling.
pub fn a_token_counts_only_when_it_is_signed(text: &str) {
    let token = credentials(text).map_or(text, |(_, token)| token);
    let Ok(unverified) = Unverified::read(token) else { return };
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts.len(), 3, "compact form");
    for part in &parts[..2] {
        let decoded = URL_SAFE_NO_PAD.decode(part).expect("what was read is base64url");
        assert_eq!(URL_SAFE_NO_PAD.encode(decoded), *part, "one spelling");
    }
    assert!(unverified.verify(&KEY).is_err(), "nobody signed it");
}

/// Metadata, a key set, and a way back, one of them. Panics if an answer leads away from https.
pub fn an_answer_leads_over_https_or_is_refused(bytes: &[u8]) {
    const ISSUER: &str = "https://idp.example";
    if let Some(metadata) = Metadata::read(bytes, ISSUER) {
        for url in [metadata.authorization_endpoint, metadata.token_endpoint, metadata.end_session_endpoint]
            .into_iter()
            .flatten()
        {
            assert!(is_https_url(&url), "{url}");
        }
    }
    KeySet::read(bytes);
    if let Some(response) = str::from_utf8(bytes).ok().and_then(AuthorizationResponse::read) {
        let text = str::from_utf8(bytes).unwrap_or_default();
        let states = form_urlencoded::parse(text.as_bytes()).filter(|(name, _)| name == "state").count();
        assert_eq!(states, 1, "one answer to one question: {response:?}");
    }
}
