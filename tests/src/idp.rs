//! An identity provider: npm's oidc-provider (tests/idp/server.mjs), which logs people in without asking, and lies when it
//! is told to.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::client::trust;

/// A browser must see another site than the edge, which is at 127.0.0.1.
const HOST: &str = "localhost";
pub const CLIENT_ID: &str = "lb";
pub const CLIENT_SECRET: &str = "the edge's secret, with a colon : and 64 characters of entropy";
pub const ROBOT_CLIENT_ID: &str = "robot";
/// Only the provider can read the tokens of this one.
pub const OPAQUE_CLIENT_ID: &str = "opaque-robot";
pub const ROBOT_CLIENT_SECRET: &str = "the robot's secret, which is not much shorter than the other";
/// For whom access tokens are.
pub const AUDIENCE: &str = "https://api.example";
pub const PASSWORD_ACR: &str = "urn:idp:password";
pub const TWO_FACTOR_ACR: &str = "urn:idp:two-factor";

const DEADLINE: Duration = Duration::from_secs(15);

/// A running provider. Dropping it ends it.
#[derive(Debug)]
pub struct Idp {
    pub issuer: String,
    address: SocketAddr,
    folder: TempDir,
    process: Child,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub location: Option<String>,
    pub cookies: Vec<String>,
    pub body: Bytes,
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

    /// Starts one on a port of the caller's choosing, under the name that the edge's configuration has for it.
    pub fn start_at(edge: SocketAddr, port: u16, name: &str) -> Result<Idp> {
        let node = std::env::var_os("LB_IDP_NODE").context("LB_IDP_NODE is not set; run `cargo xtask test`")?;
        let folder = TempDir::new()?;
        let (certificate, key) = certificate()?;
        std::fs::write(folder.path().join("ca.pem"), &certificate)?;
        let server = concat!(env!("CARGO_MANIFEST_DIR"), "/idp/server.mjs");
        let settings = settings(edge, port, name, &certificate, &key);
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
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut idp = Idp { issuer: format!("https://{HOST}:{port}"), address, folder, process };
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

    /// Changes what it does from now on; see `honest` in server.mjs.
    pub async fn switch(&self, changes: Value) -> Result<()> {
        let answer = self.post("/switches", "application/json", changes.to_string()).await?;
        ensure!(answer.status == StatusCode::OK, "the switches were answered {}", answer.status);
        Ok(())
    }

    /// It is honest again.
    pub async fn reset(&self) -> Result<()> {
        self.switch(json!({"reset": true})).await
    }

    /// The requests it saw: method, path and query of each.
    pub async fn seen(&self) -> Result<Vec<Value>> {
        Ok(serde_json::from_slice(&self.get("/seen", &[]).await?.body)?)
    }

    /// An access token of a person, as `query` describes it; see `mintAccessToken` in server.mjs.
    pub async fn access_token(&self, query: &str) -> Result<String> {
        let answer: Value = serde_json::from_slice(&self.get(&format!("/account-tokens?{query}"), &[]).await?.body)?;
        Ok(answer["access_token"].as_str().context("no access token")?.to_owned())
    }

    /// An access token that a program got for itself.
    pub async fn client_token(&self, client_id: &str) -> Result<String> {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "client_credentials")
            .append_pair("client_id", client_id)
            .append_pair("client_secret", ROBOT_CLIENT_SECRET)
            .append_pair("resource", AUDIENCE)
            .append_pair("scope", "orders:read")
            .finish();
        let answer = self.post("/token", "application/x-www-form-urlencoded", form).await?;
        let answer: Value = serde_json::from_slice(&answer.body)?;
        Ok(answer["access_token"].as_str().with_context(|| format!("no access token in {answer}"))?.to_owned())
    }

    pub async fn get(&self, target: &str, cookies: &[String]) -> Result<Answer> {
        let request = Request::get(target).header(header::HOST, self.host()).header(header::COOKIE, cookies.join("; "));
        self.send(request.body(Full::default())?).await
    }

    async fn post(&self, target: &str, kind: &str, body: String) -> Result<Answer> {
        let request = Request::post(target).header(header::HOST, self.host()).header(header::CONTENT_TYPE, kind);
        self.send(request.body(Full::from(body))?).await
    }

    fn host(&self) -> &str {
        self.issuer.trim_start_matches("https://")
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer> {
        let exchange = async {
            let tcp = TcpStream::connect(self.address).await?;
            let connector = TlsConnector::from(Arc::new(trust::any_certificate(b"http/1.1")?));
            let tls = connector.connect(ServerName::try_from(HOST)?, tcp).await?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
            tokio::spawn(connection);
            let (parts, body) = sender.send_request(request).await?.into_parts();
            let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
            let cookies = parts.headers.get_all(header::SET_COOKIE).iter();
            let cookies = cookies.filter_map(|cookie| Some(text(cookie).split(';').next()?.to_owned())).collect();
            let location = parts.headers.get(header::LOCATION).map(text);
            Ok(Answer { status: parts.status, location, cookies, body: body.collect().await?.to_bytes() })
        };
        timeout(DEADLINE, exchange).await.context("the identity provider does not answer")?
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
        ],
    })
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
