//! What a JWT must say to be taken for an access token (RFC 9068), and for none of the other kinds an issuer signs.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lb_policy::Level;

use super::{Issuer, Possession, TokenRefused, VerifiedToken};
use crate::config::{Profile, TokenIssuer};
use crate::identity::jwt::{self, BadToken, Claims, Unverified};
use crate::identity::key_set;
use crate::identity::verified::{assurance, groups, user_name};

/// More than any API has.
const MOST_SCOPES: usize = 128;

pub(super) async fn verify(issuer: &Issuer, unverified: Unverified<'_>) -> Result<VerifiedToken, TokenRefused> {
    let config = &issuer.config;
    let kind = unverified.kind();
    let algorithms: Vec<_> = config.algorithms.iter().filter_map(|name| jwt::algorithm_named(name)).collect();
    let (_, claims) = key_set::verify(&issuer.published.keys, &algorithms, unverified).await?;
    check_kind(config, kind.as_deref(), &claims)?;
    Ok(accept(config, &claims, issuer.clock.now())?)
}

/// ID tokens, logout tokens and proofs are signed by the same keys.
fn check_kind(config: &TokenIssuer, kind: Option<&str>, claims: &Claims) -> Result<(), BadToken> {
    // No `typ` is what issuers send that do not tell their tokens apart.
    if !config.types.iter().any(|known| known == kind.unwrap_or("jwt")) {
        return Err(BadToken::Kind("an access token is meant"));
    }
    if kind == Some("at+jwt") {
        return Ok(());
    }
    if ["nonce", "at_hash", "c_hash", "events", "s_hash"].iter().any(|name| claims.get(name).is_some()) {
        return Err(BadToken::Kind("an ID token or a logout token is no access token"));
    }
    // Keycloak says the kind inside.
    if claims.text("typ").is_some_and(|typ| !typ.eq_ignore_ascii_case("bearer")) {
        return Err(BadToken::Kind("an access token is meant"));
    }
    Ok(())
}

/// Accepts the claims of a token that was verified, or of an issuer's answer about one.
pub(super) fn accept(config: &TokenIssuer, claims: &Claims, now: u64) -> Result<VerifiedToken, BadToken> {
    if claims.text("iss") != Some(config.issuer.as_str()) {
        return Err(BadToken::Issuer);
    }
    if !claims.texts("aud").iter().any(|audience| config.audiences.iter().any(|own| own == audience)) {
        return Err(BadToken::Audience);
    }
    let skew_seconds = config.peer.clock_skew.as_secs();
    let expires_at = claims.check_times(now, skew_seconds)?;
    let has_user = has_user(config.profile, claims);
    let user = match has_user {
        true => user_name(claims, &config.claims)?,
        false => {
            let names = ["client_id", "azp", "cid", "sub"];
            names.into_iter().find_map(|name| claims.text(name)).unwrap_or_default().to_owned()
        }
    };
    if user.is_empty() {
        return Err(BadToken::Claim("sub"));
    }
    let (level, methods) = assurance(claims, config.profile.acr_claim(), &config.assurance);
    let proved_at = claims.seconds("auth_time")?.unwrap_or_default();
    if proved_at > now.saturating_add(skew_seconds) {
        return Err(BadToken::Early("auth_time"));
    }
    Ok(VerifiedToken {
        issuer: config.name.as_str().into(),
        user: user.into(),
        has_user,
        groups: groups(claims, &config.claims, &config.name).into(),
        scopes: scopes(claims).into(),
        level: level.unwrap_or(Level(1)),
        methods,
        proved_at: proved_at.min(now),
        expires_at,
        bound_to: possession(claims)?,
    })
}

/// Whether a person stands behind it: a token that a client got for itself names that client as its subject (RFC 9068
/// §2.2), or says so in its issuer's own way.
fn has_user(profile: Profile, claims: &Claims) -> bool {
    let Some(subject) = claims.text("sub") else { return false };
    let is_client = |name| claims.text(name) == Some(subject);
    let says_so = claims.text("idtyp") == Some("app") || claims.text("gty") == Some("client-credentials");
    let is_program = match profile {
        // A client has a user of its own there.
        Profile::Keycloak => {
            let name = claims.text("preferred_username").unwrap_or_default();
            name.strip_prefix("service-account-").is_some_and(|client| {
                ["azp", "client_id"]
                    .iter()
                    .any(|claim| claims.text(claim).is_some_and(|own| own.eq_ignore_ascii_case(client)))
            })
        }
        // People consent to scopes; what is granted to a program itself are roles, and `idtyp` is an optional claim.
        Profile::Entra => claims.get("scp").is_none(),
        Profile::Generic | Profile::Auth0 | Profile::Okta => false,
    };
    let names_client = ["client_id", "azp", "cid"].into_iter().any(is_client) || subject.ends_with("@clients");
    !is_program && !names_client && !says_so
}

/// `scope` (RFC 9068 §2.2.3), or `scp` of Okta and Entra.
fn scopes(claims: &Claims) -> Vec<String> {
    let all = ["scope", "scp"].into_iter().flat_map(|name| claims.texts(name));
    all.flat_map(|text| text.split(' '))
        .filter(|scope| !scope.is_empty())
        .take(MOST_SCOPES)
        .map(str::to_owned)
        .collect()
}

/// What `cnf` asks for. One that is not understood is not skipped: the token would become a bearer token.
fn possession(claims: &Claims) -> Result<Option<Possession>, BadToken> {
    let Some(confirmation) = claims.get("cnf") else { return Ok(None) };
    let member = |name: &str| confirmation.get(name).and_then(serde_json::Value::as_str);
    match (member("jkt"), member("x5t#S256")) {
        (Some(thumbprint), None) => Ok(Some(Possession::Key(thumbprint.to_owned()))),
        (None, Some(encoded)) => {
            let bytes = URL_SAFE_NO_PAD.decode(encoded).ok().and_then(|bytes| bytes.try_into().ok());
            Ok(Some(Possession::Certificate(bytes.ok_or(BadToken::Claim("cnf"))?)))
        }
        _ => Err(BadToken::Claim("cnf")),
    }
}
