//! An access token that its issuer's keys verified: what its user proved there, brought along by a program.

use lb_policy::{Method, ProvedFactor, Strength};

use super::FactorVerified;
use crate::identity::VerifiedToken;
use crate::stepup::account::AccountId;

/// `None`: nobody proved anything, because the token speaks for a program alone.
pub(in crate::stepup) fn proved(token: &VerifiedToken) -> Option<FactorVerified> {
    let at = token.proved_at;
    let login = ProvedFactor { method: Method::IdentityProvider, at, strength: Strength::Vouched(token.level) };
    let methods = token.methods.iter().map(|method| ProvedFactor::ordinary(*method, at));
    token.has_user.then(|| FactorVerified { account: account(token), proved: login, also: methods.collect() })
}

pub(in crate::stepup) fn account(token: &VerifiedToken) -> AccountId {
    AccountId { issuer: Some(token.issuer.clone()), name: token.user.clone() }
}
