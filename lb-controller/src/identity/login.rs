//! Logging in at a provider: the authorization code flow with PKCE, state and nonce (OpenID Connect Core §3.1), pushed
//! where the provider takes that (RFC 9126).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lb_policy::Level;
use serde::Deserialize;
use serde_json::json;

use super::client_key::ASSERTION_TYPE;
use super::flow::{Ask, Flow};
use super::http::Unavailable;
use super::jwt::{BadToken, Claims, Unverified};
use super::key_set::{self, NotVerified};
use super::metadata::Metadata;
use super::provider::Provider;
use super::verified::VerifiedClaims;
use super::{id_token, jwt};
use crate::config::{ClientAuthentication, IdentityProvider};

/// How old the metadata may be when a login begins: this is also how it is known that a provider is down.
const METADATA_AT_LOGIN_SECONDS: u64 = 30;

/// Why a login at a provider came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LoginError {
    #[error("the provider's answer is refused: {0}")]
    Bad(#[from] BadToken),
    /// It answered, and not with what was asked for. Asking again would loop.
    #[error("{0}")]
    Unmet(&'static str),
    #[error("somebody else logged in there")]
    OtherUser,
    /// The user, or the provider, said no.
    #[error("the provider says {0}")]
    Declined(String),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl From<NotVerified> for LoginError {
    fn from(not_verified: NotVerified) -> LoginError {
        match not_verified {
            NotVerified::Bad(bad) => LoginError::Bad(bad),
            NotVerified::Unavailable(unavailable) => LoginError::Unavailable(unavailable),
        }
    }
}

/// What the browser brought back (RFC 6749 §4.1.2, RFC 9207).
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct AuthorizationResponse {
    pub(crate) state: String,
    code: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

impl AuthorizationResponse {
    /// `None`: a parameter came twice, or there is no state. Parameters that nobody knows are ignored (RFC 6749 §3.1).
    pub(crate) fn read(query: &str) -> Option<AuthorizationResponse> {
        let mut response = AuthorizationResponse::default();
        let mut state = None;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let place = match &*name {
                "state" => &mut state,
                "code" => &mut response.code,
                "error" => &mut response.error,
                "iss" => &mut response.iss,
                _ => continue,
            };
            if place.replace(value.into_owned()).is_some() {
                return None;
            }
        }
        Some(AuthorizationResponse { state: state?, ..response })
    }
}

#[derive(Deserialize)]
struct TokenResponse {
    id_token: Option<String>,
    access_token: Option<String>,
}

/// What a code was traded for.
struct Tokens {
    id_token: String,
    /// For the user info endpoint; it is not kept.
    access_token: Option<String>,
}

/// RFC 6749 §5.2.
#[derive(Deserialize)]
struct ErrorResponse {
    error: String,
    error_description: Option<String>,
}

impl ErrorResponse {
    /// For logs: an operator who mistyped something is told so by the provider.
    fn text(&self) -> String {
        let description = self.error_description.as_deref().unwrap_or_default();
        shortened(&format!("{} {description}", self.error)).trim_end().to_owned()
    }
}

impl Provider {
    /// Where to send the browser, and what to keep until it comes back.
    pub(crate) async fn begin(&self, ask: Ask) -> Result<(String, Flow), Unavailable> {
        let metadata = self.metadata.get_younger_than(METADATA_AT_LOGIN_SECONDS).await?;
        let endpoint =
            metadata.authorization_endpoint.as_deref().ok_or_else(|| self.lacks("authorization_endpoint"))?;
        let flow = Flow::begin(&self.config.name, ask, self.clock.now());
        let parameters = parameters(&self.config, &metadata, &flow);
        let parameters = match &metadata.pushed_authorization_request_endpoint {
            Some(url) => self.push(&metadata, url, parameters).await?,
            None if metadata.require_pushed_authorization_requests => {
                return Err(self.lacks("pushed_authorization_request_endpoint"));
            }
            None => parameters,
        };
        let separator = if endpoint.contains('?') { '&' } else { '?' };
        Ok((format!("{endpoint}{separator}{}", encode(&parameters)), flow))
    }

    /// RFC 9126: the parameters go to the provider directly, and the browser carries a reference to them.
    async fn push(
        &self,
        metadata: &Metadata,
        url: &str,
        parameters: Vec<(&'static str, String)>,
    ) -> Result<Vec<(&'static str, String)>, Unavailable> {
        #[derive(Deserialize)]
        struct Pushed {
            request_uri: String,
        }
        let answer = self.post_as_client(metadata, url, parameters).await?;
        // 201 (RFC 9126 §2.2).
        if !answer.status.is_success() {
            let error = answer.parse::<ErrorResponse>(url);
            let reason = error.map_or_else(|_| answer.status.to_string(), |error| error.text());
            return Err(Unavailable::Unusable { url: url.to_owned(), reason });
        }
        let pushed: Pushed = answer.parse(url)?;
        Ok(vec![("client_id", self.config.client_id.clone()), ("request_uri", pushed.request_uri)])
    }

    /// Takes what the browser brought back, and trades the code for who it was.
    pub(crate) async fn finish(
        &self,
        flow: &Flow,
        response: AuthorizationResponse,
    ) -> Result<VerifiedClaims, LoginError> {
        let metadata = self.metadata.get().await?;
        self.check_issuer(&metadata, &response)?;
        if let Some(error) = response.error {
            return Err(declined(&error));
        }
        let code = response.code.ok_or(LoginError::Declined("neither a code nor an error".to_owned()))?;
        let tokens = self.trade(&metadata, flow, code).await?;
        let unverified = Unverified::read(&tokens.id_token)?;
        let kind = unverified.kind();
        let (_, claims) = key_set::verify(&self.keys, &self.id_token_algorithms(&metadata), unverified).await?;
        id_token::check_kind(kind.as_deref(), &claims)?;
        let claims = self.with_user_info(&metadata, claims, tokens.access_token.as_deref()).await?;
        id_token::accept(&self.config, flow, &claims, tokens.id_token, self.clock.now())
    }

    /// Asks the provider for what names the user and their groups, where the ID token leaves it out (OpenID Connect Core
    /// §5.3). What is there already stays: the answer is not signed.
    async fn with_user_info(
        &self,
        metadata: &Metadata,
        claims: Claims,
        access_token: Option<&str>,
    ) -> Result<Claims, LoginError> {
        let wanted = [&self.config.claims.user, &self.config.claims.groups];
        let missing: Vec<&str> = wanted.into_iter().map(|path| outermost(&claims, path)).collect();
        let missing: Vec<&str> = missing.into_iter().filter(|name| claims.get(name).is_none()).collect();
        let (false, Some(url), Some(token)) = (missing.is_empty(), &metadata.userinfo_endpoint, access_token) else {
            return Ok(claims);
        };
        let answer = self.http.get_with_token(url, token).await?;
        let told: serde_json::Map<String, serde_json::Value> = answer.json(url)?;
        // §5.3.2: or somebody else's claims could be put in place of theirs.
        if told.get("sub").and_then(serde_json::Value::as_str) != claims.text("sub") {
            return Err(LoginError::OtherUser);
        }
        let added = missing.into_iter().filter_map(|name| Some((name.to_owned(), told.get(name)?.clone())));
        Ok(claims.with(added))
    }

    /// RFC 9207 §2.4: or an attacker's provider could send its code to be traded at an honest one.
    fn check_issuer(&self, metadata: &Metadata, response: &AuthorizationResponse) -> Result<(), BadToken> {
        match response.iss.as_deref() {
            Some(iss) if iss == self.config.issuer => Ok(()),
            None if !metadata.authorization_response_iss_parameter_supported => Ok(()),
            _ => Err(BadToken::Issuer),
        }
    }

    async fn trade(&self, metadata: &Metadata, flow: &Flow, code: String) -> Result<Tokens, LoginError> {
        let url = metadata.token_endpoint.as_deref().ok_or_else(|| self.lacks("token_endpoint"))?;
        let form = vec![
            ("grant_type", "authorization_code".to_owned()),
            ("code", code),
            ("redirect_uri", flow.redirect_uri.clone()),
            ("code_verifier", flow.verifier.clone()),
        ];
        let answer = self.post_as_client(metadata, url, form).await?;
        if answer.is_bad_request() {
            // The code was used before, has expired, or is another client's.
            return Err(LoginError::Declined(answer.parse::<ErrorResponse>(url)?.text()));
        }
        let tokens: TokenResponse = answer.json(url)?;
        let id_token = tokens.id_token.ok_or(BadToken::Claim("id_token"))?;
        Ok(Tokens { id_token, access_token: tokens.access_token })
    }

    /// What the metadata offers and this gateway can verify.
    fn id_token_algorithms(&self, metadata: &Metadata) -> Vec<jsonwebtoken::Algorithm> {
        metadata.id_token_algorithms().into_iter().filter_map(jwt::algorithm_named).collect()
    }

    pub(super) async fn post_as_client(
        &self,
        metadata: &Metadata,
        url: &str,
        mut form: Vec<(&'static str, String)>,
    ) -> Result<super::http::Answer, Unavailable> {
        let IdentityProvider { client_id, client_secret, client_authentication, .. } = &self.config;
        let in_form = match client_authentication {
            Some(way) => *way == ClientAuthentication::Post,
            None => metadata.wants_secret_in_form(),
        };
        let authorization = match client_secret {
            Some(secret) if !in_form => Some(basic(client_id, secret.reveal())),
            _ => None,
        };
        if !form.iter().any(|(name, _)| *name == "client_id") {
            form.push(("client_id", client_id.clone()));
        }
        if let Some(key) = &self.client_key {
            let audience = if self.config.profile.asserts_to_endpoint() { url } else { &self.config.issuer };
            form.push(("client_assertion_type", ASSERTION_TYPE.to_owned()));
            form.push(("client_assertion", key.assertion(client_id, audience, self.clock.now())));
        }
        if let (Some(secret), true) = (client_secret, in_form) {
            form.push(("client_secret", secret.reveal().to_owned()));
        }
        self.http.post(url, encode(&form), authorization.as_deref()).await
    }

    pub(super) fn lacks(&self, what: &str) -> Unavailable {
        Unavailable::Unusable { url: self.config.issuer.clone(), reason: format!("its metadata has no {what}") }
    }
}

/// The claim that `path` begins with: all of it, or what stands before its first dot.
fn outermost<'p>(claims: &Claims, path: &'p str) -> &'p str {
    match path.split_once('.') {
        Some((outer, _)) if claims.get(path).is_none() && !path.contains("://") => outer,
        _ => path,
    }
}

/// Of the authorization request.
fn parameters(provider: &IdentityProvider, metadata: &Metadata, flow: &Flow) -> Vec<(&'static str, String)> {
    let mut parameters = vec![
        ("response_type", "code".to_owned()),
        ("client_id", provider.client_id.clone()),
        ("redirect_uri", flow.redirect_uri.clone()),
        ("scope", provider.scopes.join(" ")),
        ("state", flow.state.clone()),
        ("nonce", flow.nonce.clone()),
        ("code_challenge", flow.challenge()),
        ("code_challenge_method", "S256".to_owned()),
    ];
    if let Some(seconds) = flow.max_age {
        parameters.push(("max_age", seconds.to_string()));
    }
    if flow.per_action {
        parameters.push(("prompt", "login".to_owned()));
    }
    let acr = flow.level.map(|level| provider.assurance.values_reaching(Level(level))).unwrap_or_default();
    if !acr.is_empty() && !provider.profile.asks_by_claim_only() {
        parameters.push(("acr_values", acr.join(" ")));
    }
    if metadata.claims_parameter_supported || provider.profile.asks_by_claim_only() {
        parameters.extend(claims_parameter(provider, flow, &acr).map(|claims| ("claims", claims)));
    }
    parameters
}

/// An essential `acr` must fail where it cannot be met; `acr_values` alone is a wish (OpenID Connect Core §5.5.1.1).
fn claims_parameter(provider: &IdentityProvider, flow: &Flow, acr: &[&str]) -> Option<String> {
    let mut claims = serde_json::Map::new();
    if !acr.is_empty() {
        claims.insert(provider.profile.acr_claim().to_owned(), json!({"essential": true, "values": acr}));
    }
    if let Some(subject) = &flow.subject {
        claims.insert("sub".to_owned(), json!({"value": subject}));
    }
    (!claims.is_empty()).then(|| json!({ "id_token": claims }).to_string())
}

fn declined(error: &str) -> LoginError {
    match error {
        "unmet_authentication_requirements" | "interaction_required" | "login_required" => {
            LoginError::Unmet("the provider cannot give what was asked for")
        }
        "temporarily_unavailable" | "server_error" => {
            LoginError::Unavailable(Unavailable::Unusable { url: "the provider".to_owned(), reason: shortened(error) })
        }
        _ => LoginError::Declined(shortened(error)),
    }
}

/// A provider's error code is shown and logged; whoever can make up a redirect can make it up.
fn shortened(error: &str) -> String {
    error.chars().filter(|char| char.is_ascii_alphanumeric() || "_- '.".contains(*char)).take(160).collect()
}

/// RFC 6749 §2.3.1: both parts are form-encoded first.
pub(super) fn basic(client_id: &str, secret: &str) -> String {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    format!("Basic {}", STANDARD.encode(format!("{}:{}", encoded(client_id), encoded(secret))))
}

pub(super) fn encode(parameters: &[(&'static str, String)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Assurance, Profile};
    use crate::identity::testing_provider;

    fn sent(profile: Profile, claims_supported: bool, change: impl FnOnce(&mut Flow)) -> Vec<(&'static str, String)> {
        let assurance =
            Assurance { acr: vec![("gold".into(), Level(2)), ("silver".into(), Level(1))], amr: Vec::new() };
        let provider = IdentityProvider { assurance, ..testing_provider(profile) };
        let metadata = serde_json::json!({
            "issuer": "https://idp.example", "jwks_uri": "https://idp.example/jwks",
            "claims_parameter_supported": claims_supported,
        });
        let metadata = Metadata::read(metadata.to_string().as_bytes(), "https://idp.example").unwrap();
        let mut flow = Flow::for_tests("n", 0);
        change(&mut flow);
        parameters(&provider, &metadata, &flow)
    }

    #[test]
    fn the_request_asks_for_what_is_needed_in_the_form_that_the_provider_takes() {
        let value =
            |sent: &[(&str, String)], name| sent.iter().find(|(own, _)| *own == name).map(|(_, value)| value.clone());
        let step_up = |flow: &mut Flow| {
            flow.level = Some(2);
            flow.max_age = Some(300);
            flow.subject = Some("carol".into());
        };
        let plain = sent(Profile::Generic, true, |_| ());
        assert_eq!(value(&plain, "acr_values"), None);
        assert_eq!(value(&plain, "claims"), None);
        assert_eq!(value(&plain, "prompt"), None);

        let generic = sent(Profile::Generic, true, step_up);
        assert_eq!(value(&generic, "acr_values").as_deref(), Some("gold"));
        assert_eq!(value(&generic, "max_age").as_deref(), Some("300"));
        let essential = r#"{"id_token":{"acr":{"essential":true,"values":["gold"]},"sub":{"value":"carol"}}}"#;
        assert_eq!(value(&generic, "claims").as_deref(), Some(essential));

        let without_claims = sent(Profile::Generic, false, step_up);
        assert_eq!(value(&without_claims, "claims"), None);

        let entra = sent(Profile::Entra, false, step_up);
        assert_eq!(value(&entra, "acr_values"), None);
        let essential = r#"{"id_token":{"acrs":{"essential":true,"values":["gold"]},"sub":{"value":"carol"}}}"#;
        assert_eq!(value(&entra, "claims").as_deref(), Some(essential));

        let approval = sent(Profile::Generic, true, |flow| flow.per_action = true);
        assert_eq!(value(&approval, "prompt").as_deref(), Some("login"));
    }

    #[test]
    fn an_answer_with_two_readings_is_none() {
        let read = AuthorizationResponse::read;
        assert_eq!(read("code=a&state=s&iss=https%3A%2F%2Fidp&x=1").unwrap().iss.as_deref(), Some("https://idp"));
        for query in ["", "code=a", "state=s&state=s&code=a", "state=s&code=a&code=b", "state=s&code=a&iss=x&iss=y"] {
            assert!(read(query).is_none(), "{query}");
        }
    }

    #[test]
    fn an_error_code_is_never_repeated_whole() {
        assert_eq!(shortened("access_denied"), "access_denied");
        assert_eq!(shortened("<script>\r\nSet-Cookie: a"), "scriptSet-Cookie a");
        assert_eq!(shortened(&"x".repeat(500)).len(), 160);
    }

    #[test]
    fn credentials_with_unusual_characters_are_encoded_before_they_are_joined() {
        assert_eq!(basic("a:b", "c d%"), format!("Basic {}", STANDARD.encode("a%3Ab:c+d%25")));
    }

    proptest::proptest! {
        #[test]
        fn no_query_makes_reading_panic(query in ".{0,200}") {
            AuthorizationResponse::read(&query);
        }
    }
}
