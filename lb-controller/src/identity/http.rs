//! Questions to identity providers: over HTTPS, within a time, and with answers of bounded size. Redirects are not
//! followed: whoever could send one could otherwise point this host at its own neighbours.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::runtime::Handle;

use super::peer::Peer;
use crate::config::PeerConfig;
use crate::failure::with_causes;

/// Key sets of large providers have some 20 KiB, metadata 10.
const LONGEST_ANSWER_BYTES: usize = 256 * 1024;
/// More wait for more than they are worth: whoever logs in or asks in vain must not make this host ask without end.
const MOST_QUESTIONS_AT_ONCE: usize = 64;

/// Asks one issuer. The connections live on the identity runtime, so that workers share them.
#[derive(Debug)]
pub(super) struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
    timeout: Duration,
    places: Arc<tokio::sync::Semaphore>,
    peer: Arc<Peer>,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    pub(super) body: Bytes,
    peer: Arc<Peer>,
}

/// Why there is no answer that can be used. Always the issuer's fault, or the network's: never the user's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unavailable {
    #[error("{url} did not answer within {within_ms} ms")]
    TooSlow { url: String, within_ms: u128 },
    #[error("{url} cannot be reached: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("{url} answered with more than {LONGEST_ANSWER_BYTES} bytes")]
    TooLong { url: String },
    #[error("{url} answered {status} instead of 200")]
    Refused { url: String, status: u16 },
    #[error("{url} answered with {kind} instead of JSON")]
    NotJson { url: String, kind: String },
    #[error("{url} answered with what cannot be used: {reason}")]
    Unusable { url: String, reason: String },
    #[error("{url} was not asked: too many questions wait for answers already")]
    Busy { url: String },
    #[error("{url} was not asked again: it failed {ago_seconds} s ago")]
    FailedLately { url: String, ago_seconds: u64 },
}

impl Unavailable {
    /// For metrics.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Unavailable::TooSlow { .. } => "too_slow",
            Unavailable::Unreachable { .. } => "unreachable",
            Unavailable::TooLong { .. } => "too_long",
            Unavailable::Refused { .. } => "refused",
            Unavailable::NotJson { .. } => "not_json",
            Unavailable::Unusable { .. } => "unusable",
            Unavailable::Busy { .. } => "busy",
            Unavailable::FailedLately { .. } => "failed_lately",
        }
    }

    /// What somebody is told who asks again too soon: the reason of then, and that it is one of then.
    pub(super) fn some_time_ago(self, ago_seconds: u64) -> Unavailable {
        match self {
            Unavailable::TooSlow { url, .. }
            | Unavailable::Unreachable { url, .. }
            | Unavailable::TooLong { url }
            | Unavailable::Refused { url, .. }
            | Unavailable::NotJson { url, .. }
            | Unavailable::Unusable { url, .. }
            | Unavailable::Busy { url }
            | Unavailable::FailedLately { url, .. } => Unavailable::FailedLately { url, ago_seconds },
        }
    }
}

impl HttpClient {
    /// Errors: the file of authorities cannot be read, or this machine trusts nobody.
    pub(super) fn new(peer: &PeerConfig, runtime: Handle) -> anyhow::Result<HttpClient> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(authorities(peer)?)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(peer.timeout));
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(hyper_util::rt::TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .pool_max_idle_per_host(8)
            .build(connector);
        let places = Arc::new(tokio::sync::Semaphore::new(MOST_QUESTIONS_AT_ONCE));
        Ok(HttpClient { client, runtime, timeout: peer.timeout, places, peer: Arc::default() })
    }

    /// How the issuer does.
    pub(super) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    pub(super) async fn get(&self, url: &str) -> Result<Answer, Unavailable> {
        let request = Request::get(url).header(header::ACCEPT, "application/json").body(Full::default());
        self.send(url, request).await
    }

    /// With an access token of the issuer's own.
    pub(super) async fn get_with_token(&self, url: &str, token: &str) -> Result<Answer, Unavailable> {
        let request = Request::get(url)
            .header(header::ACCEPT, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {token}"));
        self.send(url, request.body(Full::default())).await
    }

    /// Posts a form; `authorization` goes along when the client proves itself by it.
    pub(super) async fn post(
        &self,
        url: &str,
        form: String,
        authorization: Option<&str>,
    ) -> Result<Answer, Unavailable> {
        let mut request = Request::post(url)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        self.send(url, request.body(Full::from(form))).await
    }

    async fn send(&self, url: &str, request: http::Result<Request<Full<Bytes>>>) -> Result<Answer, Unavailable> {
        let url = url.to_owned();
        let unreachable = |url: &str, reason: String| Unavailable::Unreachable { url: url.to_owned(), reason };
        let request = request.map_err(|error| unreachable(&url, error.to_string()))?;
        let failed = |unavailable: Unavailable| {
            self.peer.answered(Some(&unavailable));
            unavailable
        };
        let Ok(place) = self.places.clone().try_acquire_owned() else { return Err(failed(Unavailable::Busy { url })) };
        let (client, timeout, peer) = (self.client.clone(), self.timeout, self.peer.clone());
        let (asked, started) = (url.clone(), Instant::now());
        // Not on the worker's own runtime: the pool's connections would end with the worker that opened them.
        let asking = self.runtime.spawn(async move {
            let _place = place;
            let answer = tokio::time::timeout(timeout, ask(&client, &asked, request)).await;
            let answer = answer.unwrap_or(Err(Unavailable::TooSlow { url: asked, within_ms: timeout.as_millis() }));
            answer.map(|(parts, body)| Answer { status: parts.status, headers: parts.headers, body, peer })
        });
        let answer = asking.await.unwrap_or_else(|error| Err(unreachable(&url, error.to_string())));
        self.peer.took(started.elapsed().as_secs_f64());
        answer.map_err(failed)
    }
}

async fn ask(
    client: &Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: &str,
    request: Request<Full<Bytes>>,
) -> Result<(http::response::Parts, Bytes), Unavailable> {
    let unreachable =
        |error: &dyn std::error::Error| Unavailable::Unreachable { url: url.to_owned(), reason: with_causes(error) };
    let response = client.request(request).await.map_err(|error| unreachable(&error))?;
    let (parts, body) = response.into_parts();
    match Limited::new(body, LONGEST_ANSWER_BYTES).collect().await {
        Ok(body) => Ok((parts, body.to_bytes())),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Unavailable::TooLong { url: url.to_owned() })
        }
        Err(error) => Err(unreachable(&*error)),
    }
}

impl Answer {
    /// The body of a 200 that says it is JSON: a captive portal or an error page is none.
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self, url: &str) -> Result<T, Unavailable> {
        if self.status != StatusCode::OK {
            return Err(self.failed(Unavailable::Refused { url: url.to_owned(), status: self.status.as_u16() }));
        }
        self.parse(url)
    }

    /// 400: the issuer answers, and does not take what it was sent.
    pub(super) fn is_bad_request(&self) -> bool {
        let is_bad_request = self.status == StatusCode::BAD_REQUEST;
        if is_bad_request {
            self.peer.answered(None);
        }
        is_bad_request
    }

    /// The body, if it says it is JSON and is, whatever the status.
    pub(super) fn parse<T: serde::de::DeserializeOwned>(&self, url: &str) -> Result<T, Unavailable> {
        let kind = self.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("no type");
        let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if essence != "application/json" && !(essence.starts_with("application/") && essence.ends_with("+json")) {
            let kind = essence.chars().take(64).collect();
            return Err(self.failed(Unavailable::NotJson { url: url.to_owned(), kind }));
        }
        let parsed = serde_json::from_slice(&self.body);
        let unusable =
            |error: serde_json::Error| Unavailable::Unusable { url: url.to_owned(), reason: error.to_string() };
        let parsed = parsed.map_err(|error| self.failed(unusable(error)))?;
        self.peer.answered(None);
        Ok(parsed)
    }

    fn failed(&self, unavailable: Unavailable) -> Unavailable {
        self.peer.answered(Some(&unavailable));
        unavailable
    }
}

pub(super) fn authorities(peer: &PeerConfig) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match &peer.ca {
        Some(file) => {
            let pem =
                std::fs::read(file).map_err(|error| anyhow::anyhow!("cannot read {}: {error}", file.display()))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                roots.add(certificate.map_err(|error| anyhow::anyhow!("{} is no PEM: {error}", file.display()))?)?;
            }
            anyhow::ensure!(!roots.is_empty(), "{} holds no certificate", file.display());
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            anyhow::ensure!(
                !roots.is_empty(),
                "this machine trusts no certificate authority; install ca-certificates, or give `ca:` for the issuer"
            );
        }
    }
    Ok(roots)
}
