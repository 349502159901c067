//! An identity provider: npm's oidc-provider (tests/idp/server.mjs), which logs people in without asking, and lies when it
//! is told to.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::signing_key::jwk_of;
use crate::visitor::{Answer, Visitor};

/// A browser must see another site than the edge, which is at 127.0.0.1.
const HOST: &str = "localhost";
pub const CLIENT_ID: &str = "lb";
pub const CLIENT_SECRET: &str = "the edge secret, with a colon : and 64 characters of entropy";
/// This one is known by its key, and has no secret.
pub const KEY_CLIENT_ID: &str = "lb-with-a-key";
pub const ROBOT_CLIENT_ID: &str = "robot";
/// Only the provider can read the tokens of this one.
pub const OPAQUE_CLIENT_ID: &str = "opaque-robot";
/// The tokens of this one are bound to the certificate it shows (RFC 8705 §3).
pub const CERTIFICATE_CLIENT_ID: &str = "certificate-robot";
pub const ROBOT_CLIENT_SECRET: &str = "the robot secret, which is not much shorter than the other";
/// For whom access tokens are.
pub const AUDIENCE: &str = "https://api.example";
pub const PASSWORD_ACR: &str = "urn:idp:password";
pub const TWO_FACTOR_ACR: &str = "urn:idp:two-factor";

/// A running provider. Dropping it ends it.
#[derive(Debug)]
pub struct Idp {
    pub issuer: String,
    folder: TempDir,
    process: Child,
}

impl Idp {
    /// What is lacking to start one, if anything.
    pub fn lacking() -> Option<&'static str> {
        let is_set = std::env::var_os("LB_IDP_NODE").is_some() && std::env::var_os("LB_IDP_HOME").is_some();
        (!is_set).then_some("needs Node and oidc-provider; run `cargo xtask test`")
    }

    /// Starts one that knows the edge at `edge`, under the provider's name `corp` there.
    pub fn start(edge: SocketAddr) -> Result<Idp> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        Idp::start_at(edge, port, "corp")
    }

    /// Starts one with the habits of a hosted provider: a key of tests/idp/profiles.mjs.
    pub fn start_like(edge: SocketAddr, profile: &str) -> Result<Idp> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        Idp::run(edge, port, "corp", profile)
    }

    /// Starts one on a port of the caller's choosing, under the name that the edge's configuration has for it.
    pub fn start_at(edge: SocketAddr, port: u16, name: &str) -> Result<Idp> {
        Idp::run(edge, port, name, "generic")
    }

    fn run(edge: SocketAddr, port: u16, name: &str, profile: &str) -> Result<Idp> {
        let node = std::env::var_os("LB_IDP_NODE").context("LB_IDP_NODE is not set; run `cargo xtask test`")?;
        let folder = TempDir::new()?;
        let (certificate, key) = certificate()?;
        std::fs::write(folder.path().join("ca.pem"), &certificate)?;
        let server = concat!(env!("CARGO_MANIFEST_DIR"), "/idp/server.mjs");
        let client_key = KeyPair::generate()?;
        std::fs::write(folder.path().join("client-key.pem"), client_key.serialize_pem())?;
        let mut settings = settings(edge, port, name, &certificate, &key);
        settings["profile"] = profile.into();
        let keyed = keyed_client(edge, name, jwk_of(client_key.public_key_raw()));
        settings["clients"].as_array_mut().context("there are clients")?.push(keyed);
        let log = std::fs::File::create(folder.path().join("log"))?;
        let mut process = Command::new(node)
            .args([server, &settings.to_string()])
            // It tells the edge of logouts, whose certificate is self-signed.
            .env("NODE_TLS_REJECT_UNAUTHORIZED", "0")
            .env("NODE_NO_WARNINGS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("starting Node")?;
        let output = process.stdout.take().context("a pipe was asked for")?;
        let mut idp = Idp { issuer: format!("https://{HOST}:{port}"), folder, process };
        let said = BufReader::new(output).lines().map_while(Result::ok).find(|line| *line == idp.issuer);
        if said.is_none() {
            let log = std::fs::read_to_string(idp.folder.path().join("log")).unwrap_or_default();
            anyhow::bail!("the identity provider ended ({:?}); it said:\n{log}", idp.process.try_wait()?);
        }
        Ok(idp)
    }

    /// The authority that its certificate comes from.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The private key of the client that has one.
    pub fn client_key(&self) -> PathBuf {
        self.folder.path().join("client-key.pem")
    }

    /// Changes what it does from now on; see `honest` in server.mjs.
    pub async fn switch(&self, changes: Value) -> Result<()> {
        let answer = self.ask("POST", "/switches", &[], changes.to_string()).await?;
        ensure!(answer.status == StatusCode::OK, "the switches were answered {}", answer.status);
        Ok(())
    }

    /// It is honest again.
    pub async fn reset(&self) -> Result<()> {
        self.switch(json!({"reset": true})).await
    }

    /// The requests it saw: method, path and query of each.
    pub async fn seen(&self) -> Result<Vec<Value>> {
        Ok(serde_json::from_slice(&self.ask("GET", "/seen", &[], String::new()).await?.body)?)
    }

    /// An access token of a person, as `query` describes it; see `mintAccessToken` in server.mjs.
    pub async fn access_token(&self, query: &str) -> Result<String> {
        let answer = self.ask("GET", &format!("/account-tokens?{query}"), &[], String::new()).await?.json()?;
        Ok(answer["access_token"].as_str().context("no access token")?.to_owned())
    }

    /// An access token of a person, whose claims and header are the honest ones with others over them; null takes one away.
    pub async fn token_saying(&self, claims: &Value, header: &Value) -> Result<String> {
        let (claims, header) = (claims.to_string(), header.to_string());
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("client", "app"), ("account", "carol"), ("claims", &claims), ("header", &header)])
            .finish();
        self.access_token(&query).await
    }

    /// An access token that a program got for itself.
    pub async fn client_token(&self, client_id: &str) -> Result<String> {
        self.client_token_as(&mut Visitor::default(), client_id, &[]).await
    }

    /// Where tokens come from.
    pub fn token_url(&self) -> String {
        format!("{}/token", self.issuer)
    }

    /// The same, by a program that shows a certificate or sends headers of its own: the token is bound to what it proves.
    pub async fn client_token_as(
        &self,
        program: &mut Visitor,
        client_id: &str,
        headers: &[(&str, &str)],
    ) -> Result<String> {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "client_credentials")
            .append_pair("client_id", client_id)
            .append_pair("client_secret", ROBOT_CLIENT_SECRET)
            .append_pair("resource", AUDIENCE)
            .append_pair("scope", "orders:read")
            .finish();
        let kind = [("content-type", "application/x-www-form-urlencoded")];
        let answer = program.send("POST", &self.token_url(), &[&kind, headers].concat(), form).await?.json()?;
        Ok(answer["access_token"].as_str().with_context(|| format!("no access token in {answer}"))?.to_owned())
    }

    async fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: String) -> Result<Answer> {
        Visitor::default().send(method, &format!("{}{target}", self.issuer), headers, body).await
    }
}

impl Drop for Idp {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn settings(edge: SocketAddr, port: u16, name: &str, certificate: &str, key: &str) -> Value {
    json!({
        "host": HOST, "port": port, "certificate": certificate, "key": key,
        "clients": [
            {
                "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET,
                "grant_types": ["authorization_code"], "response_types": ["code"],
                "redirect_uris": [format!("https://{edge}/.lb/callback/{name}")],
                "post_logout_redirect_uris": [format!("https://{edge}/.lb/login")],
                "backchannel_logout_uri": format!("https://{edge}/.lb/backchannel-logout/{name}"),
                "backchannel_logout_session_required": true,
            },
            robot(ROBOT_CLIENT_ID),
            robot(OPAQUE_CLIENT_ID),
            bound_robot(CERTIFICATE_CLIENT_ID),
        ],
    })
}

fn keyed_client(edge: SocketAddr, name: &str, jwk: Value) -> Value {
    json!({
        "client_id": KEY_CLIENT_ID, "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_signing_alg": "ES256", "jwks": {"keys": [jwk]},
        "grant_types": ["authorization_code"], "response_types": ["code"],
        "redirect_uris": [format!("https://{edge}/.lb/callback/{name}")],
    })
}

fn bound_robot(client_id: &str) -> Value {
    let mut client = robot(client_id);
    client["tls_client_certificate_bound_access_tokens"] = true.into();
    client
}

fn robot(client_id: &str) -> Value {
    json!({
        "client_id": client_id, "client_secret": ROBOT_CLIENT_SECRET, "redirect_uris": [], "response_types": [],
        "grant_types": ["client_credentials"], "token_endpoint_auth_method": "client_secret_post",
    })
}

/// A self-signed one, which is its own authority.
fn certificate() -> Result<(String, String)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![HOST.to_owned(), Ipv4Addr::LOCALHOST.to_string()])?;
    params.distinguished_name.push(DnType::CommonName, "the tests' identity provider");
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}
