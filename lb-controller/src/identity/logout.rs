//! The end of a login: telling the provider of ours (RP-Initiated Logout 1.0), and being told of the provider's
//! (Back-Channel Logout 1.0).

use std::collections::HashMap;
use std::sync::Mutex;

use lb_policy::UnixSeconds;

use super::jwt::{self, BadToken, Claims, Unverified};
use super::key_set::{self, NotVerified};
use super::login::encode;
use super::provider::Provider;

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
/// A logout token is for now: older ones are of no use but to whoever replays them.
const OLDEST_LOGOUT_TOKEN_SECONDS: u64 = 120;
const LONGEST_ID_BYTES: usize = 256;

/// Whose login ended at the provider: of a user, or one session of theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndedThere {
    pub(crate) subject: Option<String>,
    pub(crate) provider_session: Option<String>,
}

impl Provider {
    /// Where to send a browser that has logged out here, so that it is logged out there too. `None`: the provider has no
    /// such page, or cannot be asked for it.
    pub(crate) async fn logout_url(&self, id_token: Option<&str>, back: &str) -> Option<String> {
        let metadata = self.metadata.get().await.ok()?;
        let endpoint = metadata.end_session_endpoint.as_deref()?;
        let mut parameters =
            vec![("client_id", self.config.client_id.clone()), ("post_logout_redirect_uri", back.to_owned())];
        parameters.extend(id_token.map(|token| ("id_token_hint", token.to_owned())));
        let separator = if endpoint.contains('?') { '&' } else { '?' };
        Some(format!("{endpoint}{separator}{}", encode(&parameters)))
    }

    /// Reads the token that says whose login ended, once.
    pub(crate) async fn logout_token(&self, token: &str, seen: &SeenTokens) -> Result<EndedThere, NotVerified> {
        let unverified = Unverified::read(token)?;
        let kind = unverified.kind();
        // Signed like its ID tokens (§2.6); the provider says with what.
        let metadata = self.metadata.get().await?;
        let algorithms: Vec<_> = metadata.id_token_algorithms().into_iter().filter_map(jwt::algorithm_named).collect();
        let (_, claims) = key_set::verify(&self.keys, &algorithms, unverified).await?;
        Ok(self.accept_logout(kind.as_deref(), &claims, seen)?)
    }

    fn accept_logout(&self, kind: Option<&str>, claims: &Claims, seen: &SeenTokens) -> Result<EndedThere, BadToken> {
        let (now, skew_seconds) = (self.clock.now(), self.config.peer.clock_skew.as_secs());
        if !matches!(kind, None | Some("jwt" | "logout+jwt")) {
            return Err(BadToken::Kind("a logout token is meant"));
        }
        if claims.get("events").and_then(|events| events.get(EVENT)).is_none_or(|event| !event.is_object()) {
            return Err(BadToken::Kind("a logout token has the event of a back-channel logout"));
        }
        // An ID token must not pass for one (§2.4).
        if claims.get("nonce").is_some() {
            return Err(BadToken::Kind("a logout token has no nonce"));
        }
        if claims.text("iss") != Some(self.config.issuer.as_str()) {
            return Err(BadToken::Issuer);
        }
        if !claims.texts("aud").contains(&self.config.client_id.as_str()) {
            return Err(BadToken::Audience);
        }
        let issued_at = claims.seconds("iat")?.ok_or(BadToken::Claim("iat"))?;
        if issued_at > now.saturating_add(skew_seconds) {
            return Err(BadToken::Early("iat"));
        }
        let is_over = claims.seconds("exp")?.is_some_and(|end| now >= end.saturating_add(skew_seconds));
        if is_over || issued_at.saturating_add(OLDEST_LOGOUT_TOKEN_SECONDS + skew_seconds) < now {
            return Err(BadToken::Expired);
        }
        let id = |name: &'static str| match claims.text(name) {
            Some(text) if !text.is_empty() && text.len() <= LONGEST_ID_BYTES => Ok(Some(text.to_owned())),
            None if claims.get(name).is_none() => Ok(None),
            _ => Err(BadToken::Claim(name)),
        };
        let ended = EndedThere { subject: id("sub")?, provider_session: id("sid")? };
        if ended.subject.is_none() && ended.provider_session.is_none() {
            return Err(BadToken::Claim("sub or sid"));
        }
        let token_id = claims.required_text("jti")?;
        seen.first_time(&self.config.name, token_id, now, OLDEST_LOGOUT_TOKEN_SECONDS + 2 * skew_seconds)?;
        Ok(ended)
    }
}

/// Tokens that count once, by their ids.
#[derive(Debug, Default)]
pub(crate) struct SeenTokens {
    /// Until when each is remembered.
    until: Mutex<HashMap<[u8; 32], UnixSeconds>>,
}

/// Each was signed by somebody who may: this is far away.
const MOST_SEEN: usize = 64 * 1024;

impl SeenTokens {
    /// Refuses an id that was seen before, and, when there is no room for one more, every new one: what cannot be
    /// remembered cannot be told from a replay.
    pub(super) fn first_time(
        &self,
        issuer: &str,
        id: &str,
        now: UnixSeconds,
        remember_seconds: u64,
    ) -> Result<(), BadToken> {
        let key = super::hash(&[issuer.as_bytes(), id.as_bytes()]);
        let mut until = self.until.lock().expect("no holder of this lock panics");
        if until.len() >= MOST_SEEN {
            until.retain(|_, end| *end > now);
        }
        let is_new = until.get(&key).is_none_or(|end| *end <= now);
        if !is_new || until.len() >= MOST_SEEN {
            return Err(BadToken::Replayed);
        }
        until.insert(key, now.saturating_add(remember_seconds));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::runtime::Handle;

    use super::*;
    use crate::clock::Clock;
    use crate::config::Profile;
    use crate::identity::testing_provider;

    const NOW: u64 = 10_000;

    #[tokio::test]
    async fn a_logout_token_ends_a_login_once_and_nothing_else_passes_for_one() {
        let provider =
            Provider::new(&testing_provider(Profile::Generic), &Clock::fixed(NOW), &Handle::current()).unwrap();
        let honest = json!({
            "iss": "https://idp.example", "aud": "lb", "sub": "carol", "sid": "s1", "iat": NOW - 1, "exp": NOW + 100,
            "events": {EVENT: {}},
        });
        let carol = Ok((Some("carol"), Some("s1")));
        type Ended = Result<(Option<&'static str>, Option<&'static str>), BadToken>;
        let rows: &[(&str, Option<&str>, Value, Ended)] = &[
            ("honest", Some("logout+jwt"), json!({}), carol.clone()),
            ("with no typ", None, json!({}), carol),
            ("a session alone", None, json!({"sub": null}), Ok((None, Some("s1")))),
            ("a user alone", None, json!({"sid": null}), Ok((Some("carol"), None))),
            ("nobody", None, json!({"sub": null, "sid": null}), Err(BadToken::Claim("sub or sid"))),
            ("a number", None, json!({"sid": 7}), Err(BadToken::Claim("sid"))),
            ("an access token", Some("at+jwt"), json!({}), Err(BadToken::Kind("a logout token is meant"))),
            (
                "no event",
                None,
                json!({"events": null}),
                Err(BadToken::Kind("a logout token has the event of a back-channel logout")),
            ),
            (
                "another event",
                None,
                json!({"events": {"urn:x": {}}}),
                Err(BadToken::Kind("a logout token has the event of a back-channel logout")),
            ),
            ("with a nonce", None, json!({"nonce": "n"}), Err(BadToken::Kind("a logout token has no nonce"))),
            ("another issuer", None, json!({"iss": "https://evil"}), Err(BadToken::Issuer)),
            ("another audience", None, json!({"aud": ["other"]}), Err(BadToken::Audience)),
            ("from the future", None, json!({"iat": NOW + 6}), Err(BadToken::Early("iat"))),
            ("over", None, json!({"exp": NOW - 5}), Err(BadToken::Expired)),
            ("of long ago", None, json!({"iat": NOW - 200}), Err(BadToken::Expired)),
            ("without a time", None, json!({"iat": null}), Err(BadToken::Claim("iat"))),
            ("without an id", None, json!({"jti": null}), Err(BadToken::Claim("jti"))),
        ];
        let seen = SeenTokens::default();
        for (number, (name, kind, changes, expected)) in rows.iter().enumerate() {
            let mut claims = honest.as_object().unwrap().clone();
            claims.insert("jti".to_owned(), json!(format!("id-{number}")));
            for (name, value) in changes.as_object().unwrap() {
                match value {
                    Value::Null => drop(claims.remove(name)),
                    value => drop(claims.insert(name.clone(), value.clone())),
                }
            }
            let claims = Claims::of(claims);
            let ended = provider.accept_logout(*kind, &claims, &seen);
            let ended = ended.as_ref().map(|ended| (ended.subject.as_deref(), ended.provider_session.as_deref()));
            assert_eq!(ended.map_err(Clone::clone), *expected, "{name}");
            if expected.is_ok() {
                assert_eq!(provider.accept_logout(*kind, &claims, &seen), Err(BadToken::Replayed), "{name}, again");
            }
        }
    }

    #[test]
    fn ids_are_forgotten_in_time_and_a_full_memory_takes_none() {
        let seen = SeenTokens::default();
        for number in 0..MOST_SEEN {
            seen.first_time("idp", &number.to_string(), 100, 10).unwrap();
        }
        assert_eq!(seen.first_time("idp", "one more", 105, 10), Err(BadToken::Replayed));
        assert_eq!(seen.first_time("idp", "one more", 110, 10), Ok(()));
        assert_eq!(seen.first_time("other", "one more", 110, 10), Ok(()), "each issuer has ids of its own");
    }
}
