//! Access tokens in `Authorization` (RFC 6750, RFC 9068), and tokens bound to a key (RFC 9449) or to a client certificate
//! (RFC 8705).
//!
//! A token that was verified is remembered for a minute at most, so that neither its signature nor its issuer is asked
//! for at each request. The proof of possession is checked at each.

mod access_token;
mod dpop;
mod introspection;

use std::sync::Arc;

use lb_policy::{Level, Method, UnixSeconds};
use quick_cache::sync::Cache;
use tokio::runtime::Handle;

use self::dpop::{Nonces, Proof};
use super::http::Unavailable;
use super::jwt::{BadToken, Unverified};
use super::key_set::NotVerified;
use super::logout::SeenTokens;
use super::provider::Published;
use crate::clock::Clock;
use crate::config::TokenIssuer;

/// A token may be used on for this long after its issuer stopped to vouch for it.
const LONGEST_MEMORY_SECONDS: u64 = 60;
/// Of a token that its issuer does not know; shorter, for it may be about to.
const MEMORY_OF_REFUSAL_SECONDS: u64 = 10;
/// Some 16 MiB when all are used.
const MOST_REMEMBERED: usize = 32 * 1024;

/// Whoever an access token speaks for, once it was verified. Only this module makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VerifiedToken {
    /// The issuer's name in the configuration.
    pub(crate) issuer: Arc<str>,
    pub(crate) user: Arc<str>,
    /// The token speaks for a person, who could prove more; otherwise for a program.
    pub(crate) has_user: bool,
    pub(crate) groups: Arc<[String]>,
    pub(crate) scopes: Arc<[String]>,
    pub(crate) level: Level,
    pub(crate) methods: Vec<Method>,
    /// When the user proved it; 0 when the issuer does not say.
    pub(crate) proved_at: UnixSeconds,
    pub(crate) expires_at: UnixSeconds,
    bound_to: Option<Possession>,
}

/// What else the sender of a token must hold: RFC 7800 `cnf`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Possession {
    /// The key with this JWK thumbprint (RFC 9449 §6).
    Key(String),
    /// The client certificate with this SHA-256 (RFC 8705 §3.1).
    Certificate([u8; 32]),
}

/// How a token was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Bearer,
    Dpop,
}

/// A token, and of the request that carries it what proofs are about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Presented<'r> {
    pub(crate) scheme: Scheme,
    pub(crate) token: &'r str,
    /// The value of the `DPoP` header; `None` when it did not come, or came twice.
    pub(crate) proof: Option<&'r str>,
    pub(crate) method: &'r str,
    pub(crate) authority: &'r str,
    /// Without query.
    pub(crate) path: &'r str,
    /// SHA-256 of the client's certificate.
    pub(crate) certificate: Option<[u8; 32]>,
}

/// Why a token gains nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenRefused {
    #[error("{0}")]
    Invalid(BadToken),
    /// The token may be good, the proof that goes with it is not.
    #[error("{0}")]
    Proof(BadToken),
    /// As a bearer token a stolen one would do (RFC 9449 §7.2).
    #[error("it is bound to a key: send it with the scheme DPoP and a proof")]
    BoundToKey,
    /// The proof must hold this (RFC 9449 §9).
    #[error("the proof does not hold the nonce that is asked for")]
    NonceWanted(String),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl From<NotVerified> for TokenRefused {
    fn from(not_verified: NotVerified) -> TokenRefused {
        match not_verified {
            NotVerified::Bad(bad) => TokenRefused::Invalid(bad),
            NotVerified::Unavailable(unavailable) => TokenRefused::Unavailable(unavailable),
        }
    }
}

impl From<BadToken> for TokenRefused {
    fn from(bad: BadToken) -> TokenRefused {
        TokenRefused::Invalid(bad)
    }
}

/// One issuer of the configuration.
pub(super) struct Issuer {
    config: TokenIssuer,
    published: Published,
    clock: Clock,
}

impl Issuer {
    pub(super) fn new(config: &TokenIssuer, clock: &Clock, runtime: &Handle) -> anyhow::Result<Issuer> {
        let published = Published::by(&config.issuer, &config.peer, clock, runtime)?;
        Ok(Issuer { config: config.clone(), published, clock: clock.clone() })
    }

    pub(super) fn config(&self) -> &TokenIssuer {
        &self.config
    }

    pub(super) fn published(&self) -> &Published {
        &self.published
    }

    /// Counts up when the issuer's keys change.
    fn version(&self) -> u64 {
        self.published.keys.version()
    }
}

/// The issuers whose tokens are taken, and the tokens that were verified lately.
pub(crate) struct Bearers {
    issuers: Vec<Arc<Issuer>>,
    /// By SHA-256: a dump of the memory shows no token.
    remembered: Cache<[u8; 32], Remembered>,
    proofs_seen: SeenTokens,
    nonces: Nonces,
    clock: Clock,
}

#[derive(Clone)]
struct Remembered {
    /// Of the issuers.
    issuer: usize,
    version: u64,
    until: UnixSeconds,
    outcome: Result<Arc<VerifiedToken>, BadToken>,
}

impl Bearers {
    pub(super) fn new(issuers: Vec<Arc<Issuer>>, clock: Clock) -> Bearers {
        let (remembered, proofs_seen) = (Cache::new(MOST_REMEMBERED), SeenTokens::default());
        Bearers { issuers, remembered, proofs_seen, nonces: Nonces::new(), clock }
    }

    pub(super) fn issuers(&self) -> &[Arc<Issuer>] {
        &self.issuers
    }

    /// Whether anybody's tokens are taken at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.issuers.is_empty()
    }

    /// The issuer of that name.
    pub(crate) fn issuer(&self, name: &str) -> Option<&TokenIssuer> {
        self.issuers.iter().map(|issuer| issuer.config()).find(|config| config.name == name)
    }

    /// Where people log in at the issuer of that name, as far as it is known.
    pub(crate) fn authorization_endpoint(&self, name: &str) -> Option<String> {
        let issuer = self.issuers.iter().find(|issuer| issuer.config.name == name)?;
        issuer.published.metadata.at_hand()?.authorization_endpoint.clone()
    }

    /// Whether it is known what this token is worth.
    pub(crate) fn remembers(&self, token: &str) -> bool {
        self.recall(&super::sha256(token.as_bytes())).is_some()
    }

    /// Forgets every token: each is verified anew when it comes next.
    pub(crate) fn forget(&self) {
        self.remembered.clear();
    }

    pub(crate) async fn authenticate(&self, presented: Presented<'_>) -> Result<Arc<VerifiedToken>, TokenRefused> {
        let key = super::sha256(presented.token.as_bytes());
        let verified = match self.recall(&key) {
            Some(outcome) => outcome?,
            // Boxed: nearly every token is remembered, and waits for nobody.
            None => Box::pin(self.verify(key, presented.token)).await?,
        };
        self.check_possession(&verified, &presented)?;
        Ok(verified)
    }

    /// What was found of this token lately, unless its issuer's keys changed since.
    fn recall(&self, key: &[u8; 32]) -> Option<Result<Arc<VerifiedToken>, BadToken>> {
        let remembered = self.remembered.get(key)?;
        let issuer = self.issuers.get(remembered.issuer)?;
        let holds = remembered.until > self.clock.now() && remembered.version == issuer.version();
        holds.then_some(remembered.outcome)
    }

    async fn verify(&self, key: [u8; 32], token: &str) -> Result<Arc<VerifiedToken>, TokenRefused> {
        let (index, issuer, unverified) = self.issuer_of(token)?;
        let outcome = match unverified {
            Some(unverified) => access_token::verify(issuer, unverified).await,
            None => introspection::ask(issuer, token).await,
        };
        let now = self.clock.now();
        let (outcome, until) = match outcome {
            Ok(verified) => {
                let until = verified.expires_at.min(now + LONGEST_MEMORY_SECONDS);
                (Ok(Arc::new(verified)), until)
            }
            Err(TokenRefused::Invalid(bad)) => (Err(bad), now + MEMORY_OF_REFUSAL_SECONDS),
            Err(other) => return Err(other),
        };
        let version = issuer.version();
        self.remembered.insert(key, Remembered { issuer: index, version, until, outcome: outcome.clone() });
        Ok(outcome?)
    }

    /// Whose token it is: of a JWT the issuer that it names, of another the one that can be asked.
    fn issuer_of<'t>(&self, token: &'t str) -> Result<(usize, &Issuer, Option<Unverified<'t>>), BadToken> {
        let all = || self.issuers.iter().map(|issuer| &**issuer).enumerate();
        match Unverified::read(token) {
            Ok(unverified) => {
                let alleged = unverified.alleged_issuer().ok_or(BadToken::Claim("iss"))?;
                let found = all().find(|(_, issuer)| issuer.config.issuer == alleged);
                let (index, issuer) = found.ok_or(BadToken::Issuer)?;
                Ok((index, issuer, Some(unverified)))
            }
            // What has the form of a JWT is judged as one: an issuer must not be asked to excuse a bad one.
            Err(bad) if bad != BadToken::Malformed || token.matches('.').count() == 2 => Err(bad),
            Err(bad) => {
                let is_token = token.len() <= super::jwt::LONGEST_TOKEN_BYTES && is_b64token(token);
                let found = all().find(|(_, issuer)| issuer.config.introspection.is_some() && is_token);
                let (index, issuer) = found.ok_or(bad)?;
                Ok((index, issuer, None))
            }
        }
    }

    fn check_possession(&self, token: &VerifiedToken, presented: &Presented<'_>) -> Result<(), TokenRefused> {
        match (&token.bound_to, presented.scheme) {
            (None, Scheme::Bearer) => Ok(()),
            (Some(Possession::Certificate(bound)), Scheme::Bearer) if presented.certificate == Some(*bound) => Ok(()),
            (Some(Possession::Certificate(_)), _) => Err(BadToken::Possession("another client certificate").into()),
            (Some(Possession::Key(thumbprint)), Scheme::Dpop) => {
                let proof =
                    presented.proof.ok_or(TokenRefused::Proof(BadToken::Possession("no single DPoP header")))?;
                let wants_nonce = self.issuer(&token.issuer).is_some_and(|issuer| issuer.dpop_nonce);
                let nonces = wants_nonce.then_some(&self.nonces);
                Proof { proof, presented, thumbprint, nonces }.check(&self.proofs_seen, self.clock.now())
            }
            (Some(Possession::Key(_)), Scheme::Bearer) => Err(TokenRefused::BoundToKey),
            (None, Scheme::Dpop) => Err(BadToken::Possession("the token is bound to no key").into()),
        }
    }
}

/// RFC 6750 §2.1.
fn is_b64token(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    let unpadded = text.trim_end_matches('=');
    !unpadded.is_empty() && unpadded.bytes().all(is_plain)
}

/// The token of an `Authorization` header, if its scheme is one of these. Schemes are case-insensitive (RFC 9110 §11.1).
pub(crate) fn credentials(header: &str) -> Option<(Scheme, &str)> {
    let (scheme, token) = header.split_once(' ')?;
    let scheme = match scheme {
        name if name.eq_ignore_ascii_case("bearer") => Scheme::Bearer,
        name if name.eq_ignore_ascii_case("dpop") => Scheme::Dpop,
        _ => return None,
    };
    Some((scheme, token.trim_matches(' ')))
}

#[cfg(test)]
mod tests;
