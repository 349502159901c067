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
/// minute, `/approve` one of its own.
#[derive(Debug)]
pub struct Federated {
    pub edge: Edge,
    pub idp: Idp,
    pub origin: Arc<Origin>,
}

impl Federated {
    /// Starts it; `None`, said aloud, where it cannot run.
    pub async fn start() -> Result<Option<Federated>> {
        if level::is_skipped("peers", Edge::lacking().or(Idp::lacking())) {
            return Ok(None);
        }
        let (origin, backend) = origin::start().await?;
        let address = free_address()?;
        let (edge, idp) = tokio::task::spawn_blocking(move || -> Result<_> {
            let idp = Idp::start(address)?;
            let text = [service_with(address, backend, ROUTES), provider("corp", &idp), tokens(&idp), RULES.to_owned()]
                .concat();
            Ok((Edge::start_at(address, &text)?, idp))
        })
        .await??;
        Ok(Some(Federated { edge, idp, origin }))
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

/// `identity_providers` with one entry.
pub fn provider(name: &str, idp: &Idp) -> String {
    ["identity_providers:\n", &provider_entry(name, idp)].concat()
}

/// One entry of `identity_providers`.
pub fn provider_entry(name: &str, idp: &Idp) -> String {
    let (issuer, ca) = (&idp.issuer, idp.ca());
    format!(
        "  - name: {name}
    label: The corporate login
    issuer: {issuer}
    client_id: {CLIENT_ID}
    client_secret: '{CLIENT_SECRET}'
    ca: {ca}
    timeout: 2s
    acr: {{'{PASSWORD_ACR}': 1, '{TWO_FACTOR_ACR}': 2}}
",
        ca = ca.display()
    )
}

fn tokens(idp: &Idp) -> String {
    let (issuer, ca) = (&idp.issuer, idp.ca());
    format!(
        "tokens:
  - name: corp-api
    issuer: {issuer}
    audiences: [{AUDIENCE}]
    algorithms: [ES256]
    ca: {ca}
    timeout: 2s
    acr: {{'{PASSWORD_ACR}': 1, '{TWO_FACTOR_ACR}': 2}}
    introspection: {{client_id: {OPAQUE_CLIENT_ID}, client_secret: '{ROBOT_CLIENT_SECRET}'}}
",
        ca = ca.display()
    )
}

/// Backends may ask for more proof themselves under `/vault`.
const ROUTES: &str = "  - {path: /vault/**, pool: shop, backend_step_up: true}
  - {path: /**, pool: shop}
";

pub const RULES: &str = "rules:
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
