//! Who vouches for users, beside the gateway itself: OpenID providers, issuers of bearer tokens.
//!
//! Whatever the way, what comes out is a value that only a verification can make: [`VerifiedClaims`] of a login. Nothing
//! here decides about a request.

mod api_keys;
mod bearer;
mod client_key;
mod flow;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod id_token;
mod jwt;
mod kept;
mod key_set;
mod login;
mod logout;
mod metadata;
mod peer;
mod provider;
mod runtime;
#[cfg(test)]
mod testing;
mod verified;

use std::sync::Arc;

use anyhow::Context as _;
use aws_lc_rs::digest::{Context, SHA256, digest};
use tokio::runtime::Handle;

pub use api_keys::ApiKeys;
pub(crate) use api_keys::{ApiKey, KeyError, KeyRefused, NewApiKey};
pub(crate) use bearer::{Bearers, Presented, Scheme, TokenRefused, VerifiedToken, credentials};
pub(crate) use flow::{Ask, Flow};
pub(crate) use http::Unavailable;
pub(crate) use key_set::NotVerified;
pub(crate) use login::{AuthorizationResponse, LoginError};
pub(crate) use logout::{EndedThere, SeenTokens};
pub(crate) use peer::Peer;
pub(crate) use provider::Provider;
pub use runtime::start as start_runtime;
pub(crate) use verified::VerifiedClaims;

use crate::clock::Clock;
use crate::config::Config;

/// The issuers of one configuration, with what is known of each.
pub struct Identities {
    providers: Vec<Arc<Provider>>,
    bearers: Bearers,
}

/// Nobody.
impl Default for Identities {
    fn default() -> Identities {
        Identities { providers: Vec::new(), bearers: Bearers::new(Vec::new(), Clock::system()) }
    }
}

/// Whether the files that the configuration names for issuers can be used; asks nobody.
pub fn check(config: &Config) -> anyhow::Result<()> {
    let providers = config.identity_providers.iter().map(|provider| (&provider.name, &provider.peer));
    let tokens = config.tokens.iter().map(|issuer| (&issuer.name, &issuer.peer));
    for (name, peer) in providers.chain(tokens) {
        http::authorities(peer).with_context(|| format!("the issuer {name}"))?;
    }
    for provider in &config.identity_providers {
        let key = provider.client_key.as_ref().map(client_key::ClientKey::read).transpose();
        key.with_context(|| format!("the identity provider {}", provider.name))?;
    }
    Ok(())
}

impl Identities {
    /// Those of `config`. An issuer whose section did not change is the one of `previous`, with the keys it had.
    ///
    /// Errors: a file that the configuration names cannot be used.
    pub fn build(
        config: &Config,
        previous: Option<&Identities>,
        clock: &Clock,
        runtime: &Handle,
    ) -> anyhow::Result<Identities> {
        let before = |wanted| previous.and_then(|all| all.providers.iter().find(|known| known.config() == wanted));
        let provider = |wanted| match before(wanted) {
            Some(known) => Ok(known.clone()),
            None => Provider::new(wanted, clock, runtime)
                .map(Arc::new)
                .with_context(|| format!("the identity provider {}", wanted.name)),
        };
        let before =
            |wanted| previous.and_then(|all| all.bearers.issuers().iter().find(|known| known.config() == wanted));
        let issuer = |wanted| match before(wanted) {
            Some(known) => Ok(known.clone()),
            None => bearer::Issuer::new(wanted, clock, runtime)
                .map(Arc::new)
                .with_context(|| format!("the token issuer {}", wanted.name)),
        };
        Ok(Identities {
            providers: config.identity_providers.iter().map(provider).collect::<anyhow::Result<_>>()?,
            bearers: Bearers::new(config.tokens.iter().map(issuer).collect::<anyhow::Result<_>>()?, clock.clone()),
        })
    }

    /// In the order of the configuration, which is the order in which they are tried.
    pub(crate) fn providers(&self) -> &[Arc<Provider>] {
        &self.providers
    }

    pub(crate) fn bearers(&self) -> &Bearers {
        &self.bearers
    }

    /// How each issuer does, by what it is for, its name, and how old its keys are in seconds if there are any.
    pub(crate) fn peers(&self) -> impl Iterator<Item = (&'static str, &str, &Peer, Option<u64>)> {
        let providers = self.providers.iter().map(|provider| {
            let (name, keys) = (provider.config().name.as_str(), provider.keys.age_seconds());
            ("login", name, &**provider.http.peer(), keys)
        });
        let tokens = self.bearers.issuers().iter().map(|issuer| {
            let (name, published) = (issuer.config().name.as_str(), issuer.published());
            ("tokens", name, &**published.http.peer(), published.keys.age_seconds())
        });
        providers.chain(tokens)
    }

    pub(crate) fn provider(&self, name: &str) -> Option<&Arc<Provider>> {
        self.providers.iter().find(|provider| provider.config().name == name)
    }
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

/// SHA-256 over the parts, each with its length, so that no two lists of parts have one hash.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

/// A provider as tests configure it.
#[cfg(test)]
pub(crate) fn testing_provider(profile: crate::config::Profile) -> crate::config::IdentityProvider {
    use lb_policy::Level;

    use crate::config::{Assurance, IdentityProvider, PeerConfig, Secret};
    IdentityProvider {
        name: "idp".to_owned(),
        label: "The provider".to_owned(),
        profile,
        issuer: "https://idp.example".to_owned(),
        client_id: "lb".to_owned(),
        client_secret: Some(Secret::new("secret".to_owned())),
        client_authentication: None,
        client_key: None,
        scopes: vec!["openid".to_owned()],
        claims: profile.default_claims(),
        assurance: Assurance { acr: vec![("silver".into(), Level(1)), ("gold".into(), Level(2))], amr: Vec::new() },
        freshness: profile.default_freshness(),
        peer: PeerConfig::testing(),
    }
}
