//! Asking an issuer about a token that only it can read (RFC 7662).

use serde_json::{Map, Value};

use super::{Issuer, TokenRefused, VerifiedToken, access_token};
use crate::identity::http::Unavailable;
use crate::identity::jwt::{BadToken, Claims};
use crate::identity::login::{basic, encode};

pub(super) async fn ask(issuer: &Issuer, token: &str) -> Result<VerifiedToken, TokenRefused> {
    let config = &issuer.config;
    let Some(client) = &config.introspection else { return Err(BadToken::Malformed.into()) };
    let metadata = issuer.published.metadata.get().await?;
    let url = metadata.introspection_endpoint.as_deref().ok_or_else(|| Unavailable::Unusable {
        url: config.issuer.clone(),
        reason: "its metadata has no introspection_endpoint".to_owned(),
    })?;
    let form = encode(&[("token", token.to_owned()), ("token_type_hint", "access_token".to_owned())]);
    let authorization = basic(&client.client_id, client.client_secret.reveal());
    let answer = issuer.published.http.post(url, form, Some(&authorization)).await?;
    // It has no form that this issuer's tokens have. The client chose it, so it says nothing of the issuer.
    if answer.is_bad_request() {
        return Err(BadToken::Inactive.into());
    }
    let answer: Map<String, Value> = answer.json(url)?;
    accept(issuer, answer)
}

/// What the issuer says of the token is judged like the claims of one that it signed.
fn accept(issuer: &Issuer, mut answer: Map<String, Value>) -> Result<VerifiedToken, TokenRefused> {
    if answer.get("active") != Some(&Value::Bool(true)) {
        return Err(BadToken::Inactive.into());
    }
    // Optional in an answer (RFC 7662 §2.2), and there is no doubt about who gave it.
    answer.entry("iss").or_insert_with(|| issuer.config.issuer.clone().into());
    Ok(access_token::accept(&issuer.config, &Claims::of(answer), issuer.clock.now())?)
}
