//! Who may vouch for users, as configured: identity providers, issuers of bearer tokens, client certificates.

mod profile;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lb_policy::{Level, Method};
use zeroize::Zeroizing;

/// An OpenID provider that users log in at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityProvider {
    /// Part of URLs, sessions and logs.
    pub name: String,
    /// What the login page calls it.
    pub label: String,
    pub profile: Profile,
    /// `https://…`, exactly as its tokens say it (OpenID Connect Discovery §4.3).
    pub issuer: String,
    pub client_id: String,
    /// `None`: a public client, whose only proof is PKCE.
    pub client_secret: Option<Secret>,
    pub client_authentication: Option<ClientAuthentication>,
    /// Instead of a secret.
    pub client_key: Option<ClientKeyConfig>,
    pub scopes: Vec<String>,
    pub claims: ClaimNames,
    pub assurance: Assurance,
    pub freshness: Freshness,
    pub peer: PeerConfig,
}

/// How to talk to an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// PEM file of the authorities that its certificate may come from; `None`: those that this machine trusts.
    pub ca: Option<PathBuf>,
    /// For one question, from connecting to the last byte.
    pub timeout: Duration,
    /// How far its clock may be off.
    pub clock_skew: Duration,
    /// Between two questions for its keys: anybody can name a key that does not exist.
    pub keys_cooldown: Duration,
}

impl PeerConfig {
    #[cfg(test)]
    pub(crate) fn testing() -> PeerConfig {
        let seconds = Duration::from_secs;
        PeerConfig { ca: None, timeout: seconds(5), clock_skew: seconds(5), keys_cooldown: seconds(30) }
    }
}

/// Which claims say who somebody is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimNames {
    /// What names the user in rules and sessions: never given to another person by this issuer.
    pub user: String,
    pub groups: String,
    /// Groups that begin otherwise are left out; empty: all are taken.
    pub group_prefixes: Vec<String>,
}

/// What an issuer's words for the strength of a login mean here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assurance {
    /// Values of `acr`, compared exactly, those to be asked for first in front.
    pub acr: Vec<(String, Level)>,
    /// Values of `amr` (RFC 8176) and the methods that they count as.
    pub amr: Vec<(String, Method)>,
}

impl Assurance {
    /// The level that an `acr` vouches for; `None`: a word that means nothing here.
    pub fn level_of(&self, acr: &str) -> Option<Level> {
        self.acr.iter().find(|(value, _)| value == acr).map(|(_, level)| *level)
    }

    /// The `acr` values that reach a level, the least that do first.
    pub fn values_reaching(&self, level: Level) -> Vec<&str> {
        let mut reaching: Vec<_> = self.acr.iter().filter(|(_, reaches)| *reaches >= level).collect();
        reaching.sort_by_key(|(_, reaches)| *reaches);
        reaching.into_iter().map(|(value, _)| value.as_str()).collect()
    }

    /// The highest level that any `acr` vouches for.
    pub fn highest(&self) -> Option<Level> {
        self.acr.iter().map(|(_, level)| *level).max()
    }
}

/// Whose habits an issuer has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    #[default]
    Generic,
    Keycloak,
    Auth0,
    Entra,
    Okta,
}

/// How the time of a login is known. It is never `iat`, which is when the token was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Freshness {
    /// By `auth_time`.
    #[default]
    AuthTime,
    /// `amr` says `mfa`, or a value that counts as a method here, only when it was proved in this very login, while
    /// `auth_time` stands still (Auth0).
    AmrInTransaction,
    /// The issuer tells no time that can be trusted: a login was when it came back here.
    GatewayClock,
}

/// How this gateway proves to an issuer that it is the client (OpenID Connect Core §9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuthentication {
    Basic,
    Post,
}

/// The private key that proves to an issuer that this gateway is the client (`private_key_jwt`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientKeyConfig {
    pub file: PathBuf,
    /// What the file held when the configuration was read.
    pub pem: Secret,
    /// How the issuer names the key; `None`: it knows one key of this client.
    pub id: Option<String>,
}

/// A secret of the configuration. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    pub fn new(text: String) -> Secret {
        Secret(Arc::new(Zeroizing::new(text)))
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// An absolute https URL without user or fragment: where issuers are, and what their metadata may lead to.
pub fn is_https_url(url: &str) -> bool {
    let parsed = url.parse::<http::Uri>().ok();
    let has_host = parsed
        .as_ref()
        .and_then(http::Uri::authority)
        .is_some_and(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'));
    url.starts_with("https://") && has_host && !url.contains(['#', '"', '\\']) && url.len() <= 2048
}

/// An issuer whose access tokens are taken in `Authorization`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenIssuer {
    /// In sessions and logs.
    pub name: String,
    pub profile: Profile,
    pub issuer: String,
    /// Who this gateway is to the issuer: one of them must be in `aud`.
    pub audiences: Vec<String>,
    /// Names of JWS algorithms (RFC 7518 §3.1), asymmetric ones alone.
    pub algorithms: Vec<String>,
    /// Values of `typ`, lower-case: `at+jwt` (RFC 9068), and `jwt` for issuers that do not tell their tokens apart.
    pub types: Vec<String>,
    pub claims: ClaimNames,
    pub assurance: Assurance,
    /// DPoP proofs must hold a nonce of this gateway (RFC 9449 §9).
    pub dpop_nonce: bool,
    /// For tokens that only the issuer can read (RFC 7662); `None`: such are refused.
    pub introspection: Option<IntrospectionClient>,
    pub peer: PeerConfig,
}

/// As whom the issuer is asked about a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntrospectionClient {
    pub client_id: String,
    pub client_secret: Secret,
}

/// Certificates that clients may show in the TLS handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// PEM file of the authorities that they come from.
    pub ca: PathBuf,
    /// What in a certificate names its user; `None`: it names nobody, and is a fact alone.
    pub user: Option<CertificateUser>,
    /// The identity provider that these users come from; `None`: they are built in.
    pub provider: Option<String>,
}

/// Where in a certificate its user is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateUser {
    CommonName,
    /// The only e-mail address among the subject alternative names.
    Email,
}
