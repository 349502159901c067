//! What an ID token must say to be taken as the answer to one login (OpenID Connect Core §3.1.3.7).

use lb_policy::{Level, UnixSeconds};

use super::flow::Flow;
use super::jwt::{BadToken, Claims};
use super::login::LoginError;
use super::verified::{Proof, VerifiedClaims, acr_text, assurance};
use crate::config::{Freshness, IdentityProvider};

/// Kinds of tokens that an ID token is not, by `typ`. ID tokens carry `JWT` or nothing.
pub(super) fn check_kind(kind: Option<&str>, claims: &Claims) -> Result<(), BadToken> {
    if !matches!(kind, None | Some("jwt")) {
        return Err(BadToken::Kind("an ID token is meant"));
    }
    // Back-Channel Logout §2.4: a logout token has events, and must not be taken for an ID token.
    if claims.get("events").is_some() {
        return Err(BadToken::Kind("a logout token is no ID token"));
    }
    Ok(())
}

/// Accepts the claims of a token whose signature was verified as the answer to `flow`.
pub(super) fn accept(
    provider: &IdentityProvider,
    flow: &Flow,
    claims: &Claims,
    token: String,
    now: UnixSeconds,
) -> Result<VerifiedClaims, LoginError> {
    let skew_seconds = provider.peer.clock_skew.as_secs();
    check_parties(provider, claims)?;
    claims.check_times(now, skew_seconds)?;
    if claims.text("nonce") != Some(flow.nonce.as_str()) {
        return Err(BadToken::Nonce.into());
    }
    let subject = claims.required_text("sub")?;
    if flow.subject.as_deref().is_some_and(|expected| expected != subject) {
        return Err(LoginError::OtherUser);
    }
    let (level, methods) = assurance(claims, provider.profile.acr_claim(), &provider.assurance);
    if flow.level.is_some_and(|asked| level.is_none_or(|reached| reached < Level(asked))) {
        return Err(LoginError::Unmet("the login is not as strong as was asked for"));
    }
    let proved_at = proved_at(provider, claims, now)?;
    check_freshness(flow, proved_at, now, skew_seconds)?;
    let level = level.unwrap_or(Level(1));
    let acr = acr_text(claims, provider.profile.acr_claim());
    let proof = Proof { provider: provider.name.clone(), level, acr, methods, proved_at, id_token: token };
    Ok(VerifiedClaims::new(claims, &provider.claims, proof)?)
}

fn check_parties(provider: &IdentityProvider, claims: &Claims) -> Result<(), BadToken> {
    if claims.text("iss") != Some(provider.issuer.as_str()) {
        return Err(BadToken::Issuer);
    }
    let audiences = claims.texts("aud");
    if !audiences.contains(&provider.client_id.as_str()) {
        return Err(BadToken::Audience);
    }
    // With several audiences, one of the others could have asked for it.
    let authorized = claims.text("azp");
    let is_ours = authorized == Some(provider.client_id.as_str());
    if (audiences.len() > 1 || claims.get("azp").is_some()) && !is_ours {
        return Err(BadToken::Audience);
    }
    Ok(())
}

/// When the user proved who they are. Never `iat`: a token made now says nothing about a login of yesterday.
fn proved_at(provider: &IdentityProvider, claims: &Claims, now: UnixSeconds) -> Result<UnixSeconds, LoginError> {
    let skew_seconds = provider.peer.clock_skew.as_secs();
    let by_login = || -> Result<UnixSeconds, LoginError> {
        // `max_age` was sent, so it must be there (Core §2).
        let auth_time = claims.seconds("auth_time")?.ok_or(BadToken::Claim("auth_time"))?;
        if auth_time > now.saturating_add(skew_seconds) {
            return Err(BadToken::Early("auth_time").into());
        }
        Ok(auth_time.min(now))
    };
    // A password alone would be there too after a login that asked for nothing else.
    let is_known = |value: &&str| provider.assurance.amr.iter().any(|(known, _)| known == value);
    let shows_proof = || claims.texts("amr").iter().any(|value| *value == "mfa" || is_known(value));
    match provider.freshness {
        Freshness::GatewayClock => Ok(now),
        Freshness::AmrInTransaction if shows_proof() => Ok(now),
        Freshness::AmrInTransaction | Freshness::AuthTime => by_login(),
    }
}

fn check_freshness(flow: &Flow, proved_at: UnixSeconds, now: UnixSeconds, skew_seconds: u64) -> Result<(), LoginError> {
    let is_within = |since: UnixSeconds| proved_at.saturating_add(skew_seconds) >= since;
    if flow.per_action && !is_within(flow.started_at) {
        return Err(LoginError::Unmet("the provider asked for no new proof"));
    }
    if flow.max_age.is_some_and(|max_age| !is_within(now.saturating_sub(max_age))) {
        return Err(LoginError::Unmet("the login is older than was asked for"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::flow::Flow;
    use super::*;
    use crate::config::Profile;
    use crate::identity::testing_provider;

    const NOW: u64 = 10_000;

    fn honest() -> Value {
        json!({
            "iss": "https://idp.example", "aud": "lb", "sub": "carol", "nonce": "the nonce",
            "exp": NOW + 60, "iat": NOW, "auth_time": NOW - 100, "acr": "gold", "sid": "s1",
        })
    }

    fn flow(level: Option<u8>, max_age: Option<u64>, per_action: bool) -> Flow {
        Flow { level, max_age, per_action, subject: Some("carol".into()), ..Flow::for_tests("the nonce", NOW - 30) }
    }

    fn outcome(provider: &IdentityProvider, flow: &Flow, changes: &Value) -> Result<VerifiedClaims, LoginError> {
        let mut claims = honest().as_object().unwrap().clone();
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.remove(name)),
                value => drop(claims.insert(name.clone(), value.clone())),
            }
        }
        let claims = Claims::of(claims);
        check_kind(None, &claims)?;
        accept(provider, flow, &claims, "token".to_owned(), NOW)
    }

    #[test]
    fn an_id_token_is_the_answer_to_one_login_of_one_user_at_one_provider() {
        let unmet = |why| Err(LoginError::Unmet(why));
        let bad = |bad: BadToken| Err(LoginError::Bad(bad));
        let rows: &[(&str, Value, Result<(), LoginError>)] = &[
            ("honest", json!({}), Ok(())),
            ("another issuer", json!({"iss": "https://idp.example/"}), bad(BadToken::Issuer)),
            ("no issuer", json!({"iss": null}), bad(BadToken::Issuer)),
            ("another audience", json!({"aud": "other"}), bad(BadToken::Audience)),
            ("no audience", json!({"aud": null}), bad(BadToken::Audience)),
            ("several audiences", json!({"aud": ["lb", "other"]}), bad(BadToken::Audience)),
            ("several, and we asked", json!({"aud": ["lb", "other"], "azp": "lb"}), Ok(())),
            ("somebody else asked", json!({"azp": "other"}), bad(BadToken::Audience)),
            ("another nonce", json!({"nonce": "x"}), bad(BadToken::Nonce)),
            ("no nonce", json!({"nonce": null}), bad(BadToken::Nonce)),
            ("over", json!({"exp": NOW - 10}), bad(BadToken::Expired)),
            ("without an end", json!({"exp": null}), bad(BadToken::Claim("exp"))),
            ("from the future", json!({"iat": NOW + 10}), bad(BadToken::Early("iat"))),
            ("another user", json!({"sub": "mallory"}), Err(LoginError::OtherUser)),
            ("nobody", json!({"sub": null}), bad(BadToken::Claim("sub"))),
            ("a logout token", json!({"events": {}}), bad(BadToken::Kind("a logout token is no ID token"))),
            ("no auth_time", json!({"auth_time": null}), bad(BadToken::Claim("auth_time"))),
            ("auth_time in the future", json!({"auth_time": NOW + 6}), bad(BadToken::Early("auth_time"))),
            (
                "a fresh iat for an old login",
                json!({"auth_time": NOW - 306}),
                unmet("the login is older than was asked for"),
            ),
            ("the oldest that will do", json!({"auth_time": NOW - 305}), Ok(())),
            ("a weaker login", json!({"acr": "silver"}), unmet("the login is not as strong as was asked for")),
            ("an unknown strength", json!({"acr": "platinum"}), unmet("the login is not as strong as was asked for")),
            ("no strength", json!({"acr": null}), unmet("the login is not as strong as was asked for")),
        ];
        let provider = testing_provider(Profile::Generic);
        for (name, changes, expected) in rows {
            let outcome = outcome(&provider, &flow(Some(2), Some(300), false), changes).map(drop);
            assert_eq!(outcome, *expected, "{name}");
        }
    }

    #[test]
    fn an_approval_needs_a_login_of_its_own() {
        let provider = testing_provider(Profile::Generic);
        let at = |auth_time| outcome(&provider, &flow(None, None, true), &json!({"auth_time": auth_time})).map(drop);
        assert_eq!(at(NOW - 35), Ok(()), "it began 30 s ago, and clocks may be 5 s apart");
        assert_eq!(at(NOW - 36), Err(LoginError::Unmet("the provider asked for no new proof")));
    }

    #[test]
    fn freshness_is_known_as_each_provider_tells_it() {
        let rows = [
            ("auth_time", Freshness::AuthTime, json!({}), Ok(NOW - 100)),
            ("auth_time a little ahead", Freshness::AuthTime, json!({"auth_time": NOW + 3}), Ok(NOW)),
            ("a method of this login", Freshness::AmrInTransaction, json!({"amr": ["mfa"]}), Ok(NOW)),
            ("no method in this login", Freshness::AmrInTransaction, json!({}), Ok(NOW - 100)),
            ("a method that means nothing here", Freshness::AmrInTransaction, json!({"amr": ["pwd"]}), Ok(NOW - 100)),
            ("the gateway's own clock", Freshness::GatewayClock, json!({"auth_time": null}), Ok(NOW)),
        ];
        for (name, freshness, changes, expected) in rows {
            let provider = IdentityProvider { freshness, ..testing_provider(Profile::Generic) };
            let proved_at = outcome(&provider, &flow(None, None, false), &changes).map(|verified| verified.proved_at);
            assert_eq!(proved_at, expected, "{name}");
        }
    }
}
