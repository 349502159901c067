//! Proof that the sender of a token holds the key it is bound to (RFC 9449 §4.3).

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::ThumbprintHash;
use lb_policy::UnixSeconds;

use super::{Presented, TokenRefused};
use crate::identity::jwt::{BadToken, Claims, Unverified};
use crate::identity::key_set::usable_key;
use crate::identity::logout::SeenTokens;

/// How old a proof may be, and how far its maker's clock ahead.
const LIFETIME_SECONDS: u64 = 60;
const LONGEST_ID_BYTES: usize = 256;

pub(super) struct Proof<'a> {
    /// The JWT in the `DPoP` header.
    pub(super) proof: &'a str,
    pub(super) presented: &'a Presented<'a>,
    /// Of the key that the token is bound to (RFC 7638, base64url).
    pub(super) thumbprint: &'a str,
    /// Where proofs must hold something that this gateway said lately.
    pub(super) nonces: Option<&'a Nonces>,
}

/// What proofs must contain (RFC 9449 §9): one made beforehand, or by a clock that is wrong, is of no use. Nothing is kept: a
/// nonce is a keyed hash of the minute.
pub(super) struct Nonces(hmac::Key);

const NONCE_PERIOD_SECONDS: u64 = 60;

impl Nonces {
    pub(super) fn new() -> Nonces {
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret).expect("the system's random generator answers");
        Nonces(hmac::Key::new(hmac::HMAC_SHA256, &secret))
    }

    pub(super) fn at(&self, now: UnixSeconds) -> String {
        let minute = now / NONCE_PERIOD_SECONDS;
        URL_SAFE_NO_PAD.encode(&hmac::sign(&self.0, &minute.to_be_bytes()).as_ref()[..16])
    }

    /// The one of this minute, or of the last.
    fn accept(&self, text: &str, now: UnixSeconds) -> bool {
        let is_of = |at| verify_slices_are_equal(text.as_bytes(), self.at(at).as_bytes()).is_ok();
        is_of(now) || is_of(now.saturating_sub(NONCE_PERIOD_SECONDS))
    }
}

impl Proof<'_> {
    pub(super) fn check(&self, seen: &SeenTokens, now: UnixSeconds) -> Result<(), TokenRefused> {
        let claims = self.claims(now).map_err(TokenRefused::Proof)?;
        if let Some(nonces) = self.nonces
            && !claims.text("nonce").is_some_and(|nonce| nonces.accept(nonce, now))
        {
            return Err(TokenRefused::NonceWanted(nonces.at(now)));
        }
        // Ids are unique for each key alone.
        let id = claims.required_text("jti").map_err(TokenRefused::Proof)?;
        seen.first_time(self.thumbprint, id, now, 2 * LIFETIME_SECONDS + 1).map_err(TokenRefused::Proof)
    }

    /// The claims of a proof that is for this request and this token, made lately by the right key.
    fn claims(&self, now: UnixSeconds) -> Result<Claims, BadToken> {
        let wrong = BadToken::Possession;
        let unverified = Unverified::read(self.proof)?;
        if unverified.kind().as_deref() != Some("dpop+jwt") {
            return Err(BadToken::Kind("a DPoP proof is meant"));
        }
        let jwk = unverified.header.jwk.clone().ok_or(wrong("it carries no key"))?;
        let key = usable_key(&jwk).ok_or(wrong("its key cannot be used"))?;
        let (_, claims) = unverified.verify(&key)?;
        // After the key was read: the thumbprint is made of its text.
        let thumbprint = jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| wrong("its key cannot be used"))?;
        if thumbprint != self.thumbprint {
            return Err(wrong("the token is bound to another key"));
        }
        if claims.text("htm") != Some(self.presented.method) {
            return Err(wrong("htm is another method"));
        }
        if !claims.text("htu").is_some_and(|url| self.is_of_this_request(url)) {
            return Err(wrong("htu is another URL"));
        }
        let token_hash = URL_SAFE_NO_PAD.encode(crate::identity::sha256(self.presented.token.as_bytes()));
        if claims.text("ath") != Some(token_hash.as_str()) {
            return Err(wrong("ath is of another token"));
        }
        let made_at = claims.seconds("iat")?.ok_or(BadToken::Claim("iat"))?;
        if made_at > now.saturating_add(LIFETIME_SECONDS) {
            return Err(BadToken::Early("iat"));
        }
        if made_at.saturating_add(LIFETIME_SECONDS) < now {
            return Err(BadToken::Expired);
        }
        let id = claims.required_text("jti")?;
        if id.len() > LONGEST_ID_BYTES {
            return Err(BadToken::Claim("jti"));
        }
        Ok(claims)
    }

    /// Compared without query and fragment, and with scheme and host in the form of RFC 3986 §6.2.2.
    fn is_of_this_request(&self, url: &str) -> bool {
        let Some(rest) = url.get(..8).filter(|scheme| scheme.eq_ignore_ascii_case("https://")).map(|_| &url[8..])
        else {
            return false;
        };
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let without_port = |text: &str| text.strip_suffix(":443").unwrap_or(text).to_ascii_lowercase();
        without_port(authority) == without_port(self.presented.authority) && path == self.presented.path
    }
}
