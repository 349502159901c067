//! An edge whose users come from the tests' identity provider.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use crate::edge::{Edge, free_address, service_with};
use crate::idp::{
    AUDIENCE, CLIENT_ID, CLIENT_SECRET, Idp, OPAQUE_CLIENT_ID, PASSWORD_ACR, ROBOT_CLIENT_SECRET, TWO_FACTOR_ACR,
};
use crate::level;
use crate::origin::{self, Origin};
use crate::visitor::{Answer, Visitor};

/// The whole of it, running. Reading needs a session, `/transfer` a strong login, `/recent` a strong one of the last
/// minute, `/approve` one of its own, `/staff` a group, and `/scoped` of a
/// token two scopes.
#[derive(Debug)]
pub struct Federated {
    pub edge: Edge,
    pub idp: Idp,
    pub origin: Arc<Origin>,
}

impl Federated {
    /// What is lacking to start it, if anything.
    pub fn lacking() -> Option<&'static str> {
        Edge::lacking().or(Idp::lacking())
    }

    /// Starts it; `None`, said aloud, where it cannot run.
    pub async fn start() -> Result<Option<Federated>> {
        if level::is_skipped("peers", Federated::lacking()) {
            return Ok(None);
        }
        Federated::start_with(String::new()).await.map(Some)
    }

    /// With `more` in its configuration.
    pub async fn start_with(more: String) -> Result<Federated> {
        Federated::start_with_token_lines("", more).await
    }

    /// The same, with lines in its entry of `tokens` too.
    pub async fn start_with_token_lines(token_lines: &str, more: String) -> Result<Federated> {
        let acr = format!("    acr: {{'{PASSWORD_ACR}': 1, '{TWO_FACTOR_ACR}': 2}}\n");
        let introspection =
            format!("    introspection: {{client_id: {OPAQUE_CLIENT_ID}, client_secret: '{ROBOT_CLIENT_SECRET}'}}\n");
        let tokens = ["    algorithms: [ES256]\n", &acr, &introspection, token_lines].concat();
        Federated::start_whole("generic", acr, tokens, more).await
    }

    /// With a provider of the habits of `profile`, which the edge knows; `lines` are those of its entry beside the usual
    /// ones, and of the entry of its tokens.
    pub async fn start_like(profile: &'static str, lines: &str) -> Result<Federated> {
        let lines = format!("    profile: {profile}\n{lines}");
        Federated::start_whole(profile, lines.clone(), lines, String::new()).await
    }

    async fn start_whole(
        profile: &'static str,
        provider_lines: String,
        token_lines: String,
        more: String,
    ) -> Result<Federated> {
        let (origin, backend) = origin::start().await?;
        let address = free_address()?;
        let (edge, idp) = tokio::task::spawn_blocking(move || -> Result<_> {
            let idp = Idp::start_like(address, profile)?;
            let service = service_with(address, backend, ROUTES);
            let provider = entry("corp", &idp, &provider_lines);
            let tokens = tokens(&idp, &token_lines);
            let text = [&service, "identity_providers:\n", &provider, &tokens, RULES, &more].concat();
            Ok((Edge::start_at(address, &text)?, idp))
        })
        .await??;
        Ok(Federated { edge, idp, origin })
    }

    /// Logs somebody in, and says who the edge thinks it is.
    pub async fn log_in(&self, visitor: &mut Visitor) -> Result<String> {
        let (answer, at) = visitor.browse(&self.edge.url("/hello")).await?;
        ensure!(at == self.edge.url("/hello"), "the login ended at {at}: {} {}", answer.status, answer.text());
        let session = self.session(visitor).await?;
        Ok(session["user"].as_str().context("the session names nobody")?.to_owned())
    }

    /// What the edge says of the visitor's session.
    pub async fn session(&self, visitor: &mut Visitor) -> Result<serde_json::Value> {
        let answer = visitor.get(&self.edge.url("/.lb/session"), &[]).await?;
        ensure!(answer.status == 200, "there is no session: {} {}", answer.status, answer.text());
        answer.json()
    }

    /// A request with an access token.
    pub async fn with_token(&self, token: &str, path: &str) -> Result<Answer> {
        let authorization = format!("Bearer {token}");
        Visitor::default().get(&self.edge.url(path), &[("authorization", &authorization)]).await
    }
}

/// One entry of `identity_providers`.
pub fn provider_entry(name: &str, idp: &Idp) -> String {
    entry(name, idp, &format!("    acr: {{'{PASSWORD_ACR}': 1, '{TWO_FACTOR_ACR}': 2}}\n"))
}

fn entry(name: &str, idp: &Idp, lines: &str) -> String {
    let (issuer, ca) = (&idp.issuer, idp.ca());
    format!(
        "  - name: {name}
    label: The corporate login
    issuer: {issuer}
    client_id: {CLIENT_ID}
    client_secret: '{CLIENT_SECRET}'
    ca: {ca}
    timeout: 2s
    keys_cooldown: 1s
{lines}",
        ca = ca.display()
    )
}

fn tokens(idp: &Idp, lines: &str) -> String {
    let (issuer, ca) = (&idp.issuer, idp.ca());
    format!(
        "tokens:
  - name: corp-api
    issuer: {issuer}
    audiences: [{AUDIENCE}]
    ca: {ca}
    timeout: 2s
{lines}",
        ca = ca.display()
    )
}

/// Backends may ask for more proof themselves under `/vault`.
const ROUTES: &str = "  - {path: /scoped, pool: shop, scopes: [orders:read, orders:write]}
  - {path: /vault/**, pool: shop, backend_step_up: true}
  - {path: /**, pool: shop}
";

pub const RULES: &str = "rules:
  - id: staff
    match: {paths: [/staff]}
    when: '!(\"staff\" in session.groups)'
    deny: staff only
  - id: transfer
    match: {paths: [/transfer]}
    require: {level: 2}
  - id: recent
    match: {paths: [/recent]}
    require: {level: 2, max_age: 1m}
  - id: approve
    match: {paths: [/approve]}
    require: {methods: [idp], per_action: true}
  - id: payment
    match: {methods: [POST], paths: [/payments]}
    body: {facts: {amount: {pointer: /amount, kind: decimal2}}}
    require: {methods: [idp], per_action: true, show: [amount]}
  - id: keys-on-secrets
    match: {paths: [/secrets]}
    when: api_key.id.startsWith('lbk_')
    on_missing: skip
    regenerate_api_key: true
";
