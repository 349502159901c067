//! A login at an identity provider. The provider's word was verified before: what comes here is proof already.

use lb_policy::{Level, Method, ProvableFactor, ProvedFactor, Strength};

use super::FactorVerified;
use crate::config::Config;
use crate::identity::VerifiedClaims;
use crate::stepup::account::AccountId;

/// The login itself, worth the level that the provider vouches for, and each method that it says was used.
pub(in crate::stepup) fn proved(claims: &VerifiedClaims) -> FactorVerified {
    let at = claims.proved_at;
    let login = ProvedFactor { method: Method::IdentityProvider, at, strength: Strength::Vouched(claims.level) };
    let methods = claims.methods.iter().map(|method| ProvedFactor::ordinary(*method, at));
    FactorVerified { account: account(claims), proved: login, also: methods.collect() }
}

pub(in crate::stepup) fn account(claims: &VerifiedClaims) -> AccountId {
    AccountId { issuer: Some(claims.provider.as_str().into()), name: claims.user.as_str().into() }
}

/// What the account could prove at its provider; `None`: it has none.
pub(in crate::stepup) fn provable(config: &Config, account: &AccountId) -> Option<ProvableFactor> {
    let issuer = account.issuer.as_deref()?;
    let provider = config.identity_providers.iter().find(|provider| provider.name == issuer)?;
    let level = provider.assurance.highest().unwrap_or(Level(1));
    Some(ProvableFactor { method: Method::IdentityProvider, strength: Strength::Vouched(level) })
}
