//! Requests whose credential is in `Authorization`: access tokens and API keys. Each stands for itself; there is no
//! cookie, no transaction and no page.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use lb_policy::{Challenge, Level, Requirement};
use serde_json::json;

use super::account::Account;
use super::client_kind::ClientKind;
use super::grpc;
use super::pages::{self, Rejection, with_retry_after};
use super::session::{Carrier, Session};
use super::terms::{Terms, is_per_action};
use super::{StepUp, Visit, factor};
use crate::config::{Config, Profile, TokenIssuer};
use crate::identity::{ApiKeys, Bearers, KeyRefused, Presented, Scheme, TokenRefused, credentials};
use crate::serve::facts::only_value;
use crate::serve::request::Inbound;
use crate::serve::respond::OwnResponse;
use crate::texts::say;

/// What a request brought to say who sends it.
pub enum Credential {
    /// Nothing that is read here.
    None,
    /// Somebody.
    Session(Session),
    /// Something that opens nothing. It counts as nobody; where somebody is needed, this is the answer.
    Refused(OwnResponse),
}

impl Credential {
    pub fn session(&self) -> Option<&Session> {
        match self {
            Credential::Session(session) => Some(session),
            Credential::None | Credential::Refused(_) => None,
        }
    }
}

/// The one credential that a request presents; none, if it presents two.
fn presented(headers: &HeaderMap) -> Option<(Scheme, &str)> {
    only_value(headers, header::AUTHORIZATION.as_str()).and_then(credentials)
}

/// However it is spelled, an API key is a secret between its owner and this gateway.
fn remove_keys(headers: &mut HeaderMap) {
    let has_key = |value: &HeaderValue| memchr::memmem::find(value.as_bytes(), ApiKeys::PREFIX.as_bytes()).is_some();
    if headers.get_all(header::AUTHORIZATION).iter().any(has_key) {
        headers.remove(header::AUTHORIZATION);
    }
}

impl StepUp {
    /// Whether the request brings a token that nobody has verified lately: to know who sends it would take long.
    pub fn has_new_token(&self, visit: &Visit<'_>, request: &Inbound) -> bool {
        let bearers = visit.identities.bearers();
        let is_new = |(_, text): (Scheme, &str)| !ApiKeys::has_form(text) && !bearers.remembers(text);
        !bearers.is_empty() && presented(&request.headers).is_some_and(is_new)
    }

    /// Who sends the request. A credential in `Authorization` is meant by whoever put it there: a cookie beside it does
    /// not count.
    pub async fn credential(&self, visit: &Visit<'_>, keys: &ApiKeys, request: &mut Inbound) -> Credential {
        let bearers = visit.identities.bearers();
        match presented(&request.headers) {
            Some((Scheme::Bearer, text)) if ApiKeys::has_form(text) => {
                let outcome = keys.authenticate(text, self.clock.now());
                // It is a secret between its owner and this gateway.
                request.headers.remove(header::AUTHORIZATION);
                match outcome {
                    Ok(key) => Credential::Session(Session::of_api_key(&key, self.clock.now())),
                    Err(refused) => Credential::Refused(self.key_refused(request, refused)),
                }
            }
            Some((scheme, token)) if !bearers.is_empty() => {
                let outcome = bearers.authenticate(presented_with(request, scheme, token)).await;
                match outcome {
                    Ok(token) => Credential::Session(Session::of_token(&token, scheme, self.clock.now())),
                    Err(refused) => Credential::Refused(self.token_refused(request, scheme, &refused)),
                }
            }
            // Twice, or of a scheme that is the backend's business: the cookie counts.
            _ => {
                remove_keys(&mut request.headers);
                self.session_or_certificate(visit.config, request).map_or(Credential::None, Credential::Session)
            }
        }
    }

    /// The cookie's session, with what the connection's certificate proves beside it; or the certificate's alone.
    fn session_or_certificate(&self, config: &Config, request: &Inbound) -> Option<Session> {
        let session = self.session(config, request);
        let Some(proof) = factor::certificate::proved(config, request, self.clock.now()) else { return session };
        Some(match session {
            Some(session) => session.with_certificate(&proof),
            None => {
                let account = Account::of(config, proof.account());
                let groups = account.and_then(|account| account.built_in).map(|user| user.groups).unwrap_or_default();
                Session::of_certificate(&proof, groups, self.clock.now())
            }
        })
    }

    /// Somebody is needed, and nobody is there: told why the credential that came opens nothing, or asked for one.
    pub fn nobody(&self, request: &Inbound, credential: &Credential) -> OwnResponse {
        match credential {
            Credential::Refused(answer) => answer.clone(),
            Credential::None | Credential::Session(_) => self.log_in(request),
        }
    }

    fn key_refused(&self, request: &Inbound, refused: KeyRefused) -> OwnResponse {
        self.counters.token_refused("api_key");
        self.event("api-key", &refused.to_string(), request, None).record();
        let (problem, title, detail) = match refused {
            KeyRefused::RegenerateRequired => {
                ("api-key-regenerate", say::api_key_replace(), say::api_key_replace_about())
            }
            KeyRefused::Unknown | KeyRefused::Expired => {
                ("invalid_token", say::api_key_invalid(), say::api_key_invalid_about())
            }
        };
        let answer = Rejection { status: StatusCode::UNAUTHORIZED, problem, title, detail }.answer(request);
        with_challenge(answer, "Bearer error=\"invalid_token\"".to_owned())
    }

    fn token_refused(&self, request: &Inbound, scheme: Scheme, refused: &TokenRefused) -> OwnResponse {
        let (error, why) = match refused {
            TokenRefused::Unavailable(unavailable) => {
                tracing::warn!(%unavailable, "a token cannot be verified");
                self.counters.token_refused("idp_unavailable");
                let rejection = Rejection {
                    status: StatusCode::SERVICE_UNAVAILABLE,
                    problem: "idp_unavailable",
                    title: say::token_unavailable(),
                    detail: say::token_unavailable_about(),
                };
                return with_retry_after(rejection.answer(request), 5);
            }
            TokenRefused::Invalid(bad) => ("invalid_token", bad.to_string()),
            TokenRefused::Proof(bad) => ("invalid_dpop_proof", bad.to_string()),
            TokenRefused::BoundToKey => ("invalid_token", refused.to_string()),
            TokenRefused::NonceWanted(_) => ("use_dpop_nonce", refused.to_string()),
        };
        let scheme = if *refused == TokenRefused::BoundToKey { Scheme::Dpop } else { scheme };
        self.counters.token_refused(error);
        // Asking for a nonce is part of a good client's way.
        if !matches!(refused, TokenRefused::NonceWanted(_)) {
            self.event("token", error, request, None).record();
        }
        let rejection = Rejection {
            status: StatusCode::UNAUTHORIZED,
            problem: error,
            title: say::token_invalid(),
            detail: say::token_invalid_about(&why),
        };
        let text = challenge(scheme, &[("error", error), ("error_description", &why)]);
        let mut answer = with_challenge(rejection.answer(request), text);
        if let TokenRefused::NonceWanted(nonce) = refused
            && let Ok(nonce) = HeaderValue::try_from(nonce)
        {
            answer.headers_mut().insert("dpop-nonce", nonce);
        }
        answer
    }

    /// The route wants scopes that the credential does not have. A cookie's session has none, and needs none.
    pub fn scope_check(
        &self,
        request: &Inbound,
        session: Option<&Session>,
        wanted: &[String],
    ) -> Result<(), OwnResponse> {
        let Some(Carrier::Token { scopes, scheme, .. }) = session.map(Session::carrier) else { return Ok(()) };
        if wanted.iter().all(|scope| scopes.contains(scope)) {
            return Ok(());
        }
        self.counters.token_refused("insufficient_scope");
        self.event_of("token", "insufficient_scope", request, session).record();
        let wanted = wanted.join(" ");
        let rejection = Rejection {
            status: StatusCode::FORBIDDEN,
            problem: "insufficient_scope",
            title: say::token_scope(),
            detail: say::token_scope_about(&wanted),
        };
        let text = challenge(*scheme, &[("error", "insufficient_scope"), ("scope", &wanted)]);
        Err(with_challenge(rejection.answer(request), text))
    }

    /// RFC 9470: the client goes back to the issuer for a better token. Terminal where no token would do.
    pub(super) fn challenge_token(
        &self,
        visit: &Visit<'_>,
        request: &Inbound,
        session: &Session,
        challenge: &Challenge,
    ) -> OwnResponse {
        let better = better_token(visit.identities.bearers(), session, challenge);
        let result = if better.is_some() { "issued" } else { "impossible" };
        self.audit_asked(visit, request, (session, challenge), (result, None, None));
        let Some(better) = better else {
            return Rejection {
                status: StatusCode::FORBIDDEN,
                problem: "step_up_impossible",
                title: say::token_impossible(),
                detail: say::token_impossible_about(),
            }
            .answer(request);
        };
        if ClientKind::of(request) == ClientKind::Grpc {
            let terms = Terms { acr: better.acr_values.join(" "), max_age_seconds: better.max_age };
            return with_challenge(grpc::step_up(&terms, None), better.header);
        }
        let mut body = json!({
            "type": "urn:lb:problem:step-up",
            "title": "Step-up required",
            "status": 401,
            "detail": "Ask the issuer for a token with one of acr_values, no older than max_age, and send the request again.",
            "acr_values": better.acr_values,
            "resume": "retry",
        });
        if let Some(seconds) = better.max_age {
            body["max_age"] = json!(seconds);
        }
        let answer = pages::own(StatusCode::UNAUTHORIZED, "application/problem+json", body.to_string());
        with_challenge(answer, better.header)
    }
}

fn presented_with<'r>(request: &'r Inbound, scheme: Scheme, token: &'r str) -> Presented<'r> {
    Presented {
        scheme,
        token,
        proof: only_value(&request.headers, "dpop"),
        method: request.method.as_str(),
        authority: &request.authority,
        path: request.target.split('?').next().unwrap_or_default(),
        certificate: request.certificate.as_ref().map(|certificate| certificate.fingerprint),
    }
}

/// What a client is told to fetch.
struct Better {
    header: String,
    acr_values: Vec<String>,
    max_age: Option<u64>,
}

/// The token that would do, in the issuer's own words. `None`: there is no such token.
fn better_token(bearers: &Bearers, session: &Session, challenge: &Challenge) -> Option<Better> {
    let Carrier::Token { has_user: true, scheme, issuer: Some(issuer), .. } = session.carrier() else { return None };
    let issuer = bearers.issuer(issuer)?;
    let requirements = || challenge.unmet.iter().map(|(_, requirement)| requirement);
    // A token is not made for one request, and what its issuer cannot vouch for it never brings.
    if requirements().any(is_per_action) || !requirements().all(|requirement| can_bring(issuer, requirement)) {
        return None;
    }
    let level = requirements().filter_map(|requirement| requirement.level).max().unwrap_or(Level(1));
    let acr_values: Vec<String> = issuer.assurance.values_reaching(level).into_iter().map(str::to_owned).collect();
    if acr_values.is_empty() && level > Level(1) {
        return None;
    }
    let max_age = requirements().filter_map(|requirement| requirement.max_age_seconds).min();
    let header = match issuer.profile {
        Profile::Entra => {
            let endpoint = bearers.authorization_endpoint(&issuer.name).unwrap_or_default();
            insufficient_claims(*scheme, &acr_values, &endpoint)
        }
        _ => insufficient_authentication(*scheme, &acr_values, max_age),
    };
    Some(Better { header, acr_values, max_age })
}

fn can_bring(issuer: &TokenIssuer, requirement: &Requirement) -> bool {
    let brings = |method| {
        method == lb_policy::Method::IdentityProvider || issuer.assurance.amr.iter().any(|(_, known)| *known == method)
    };
    requirement.methods.is_empty() || requirement.methods.iter().copied().any(brings)
}

/// RFC 9470 §3.
fn insufficient_authentication(scheme: Scheme, acr_values: &[String], max_age: Option<u64>) -> String {
    let (acr_values, max_age) = (acr_values.join(" "), max_age.map(|seconds| seconds.to_string()));
    let mut parameters = vec![("error", "insufficient_user_authentication")];
    parameters.extend((!acr_values.is_empty()).then_some(("acr_values", acr_values.as_str())));
    parameters.extend(max_age.as_deref().map(|seconds| ("max_age", seconds)));
    challenge(scheme, &parameters)
}

/// The claims challenge of Microsoft Entra: https://learn.microsoft.com/entra/identity-platform/claims-challenge
fn insufficient_claims(scheme: Scheme, contexts: &[String], authorization_endpoint: &str) -> String {
    use base64::Engine as _;
    let claims = json!({"access_token": {"acrs": {"essential": true, "value": contexts.first()}}}).to_string();
    let claims = base64::engine::general_purpose::STANDARD.encode(claims);
    let parameters = [
        ("realm", ""),
        ("authorization_uri", authorization_endpoint),
        ("error", "insufficient_claims"),
        ("claims", &claims),
    ];
    challenge(scheme, &parameters)
}

/// A value of `WWW-Authenticate` (RFC 9110 §11.6.1). Quotes and backslashes never get into one of ours.
fn challenge(scheme: Scheme, parameters: &[(&str, &str)]) -> String {
    let name = match scheme {
        Scheme::Bearer => "Bearer",
        Scheme::Dpop => "DPoP",
    };
    let algorithms = (scheme == Scheme::Dpop).then_some(("algs", "ES256 ES384 EdDSA PS256 RS256"));
    let plain =
        |text: &str| text.chars().filter(|char| matches!(char, ' '..='~') && !matches!(char, '"' | '\\')).collect();
    let written = parameters.iter().copied().chain(algorithms).map(|(key, value)| {
        let value: String = plain(value);
        format!("{key}=\"{value}\"")
    });
    format!("{name} {}", written.collect::<Vec<_>>().join(", "))
}

fn with_challenge(mut answer: OwnResponse, challenge: String) -> OwnResponse {
    let value = HeaderValue::try_from(challenge).unwrap_or(HeaderValue::from_static("Bearer"));
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    answer
}
