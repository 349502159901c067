//! Calls to services that the configuration names: who sends text messages, who verifies a proof for us. Signed, bounded
//! in time and size, one connection a call, and no redirect is followed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use lb_policy::UnixSeconds;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::config::EndpointConfig;

/// Where to call, and the secret that both sides share.
pub(crate) struct Endpoint {
    url: Uri,
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
    secret: Zeroizing<Vec<u8>>,
    timeout: Duration,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// Why there is no answer. It never means yes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebhookError {
    #[error("{url} did not answer within {within_ms} ms")]
    TooSlow { url: Uri, within_ms: u128 },
    #[error("{url} cannot be reached: {reason}")]
    Unreachable { url: Uri, reason: String },
    #[error("{url} answered with more than {LONGEST_REPLY_BYTES} bytes, or broke off")]
    BadReply { url: Uri },
}

const LONGEST_REPLY_BYTES: usize = 64 * 1024;

impl Endpoint {
    /// Errors when the authorities that sign the service's certificate cannot be read, or there are none.
    pub(crate) fn new(config: &EndpointConfig) -> Result<Endpoint> {
        let authority = config.url.authority().context("a URL without a host")?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let (tls, default_port) = match config.url.scheme_str() {
            Some("https") => (Some(connector(config.ca.as_deref())?), 443),
            _ => (None, 80),
        };
        let port = authority.port_u16().unwrap_or(default_port);
        Ok(Endpoint {
            host,
            port,
            tls,
            url: config.url.clone(),
            secret: config.secret.clone(),
            timeout: config.timeout,
        })
    }

    /// Posts JSON, signed as Standard Webhooks does: `webhook-signature` is an HMAC-SHA-256 over id, time and body.
    pub(crate) async fn post_json(
        &self,
        id: &str,
        now: UnixSeconds,
        body: &serde_json::Value,
    ) -> Result<Reply, WebhookError> {
        let body = body.to_string();
        let signature = self.signature(id, now, &body);
        let headers = [
            (HeaderName::from_static("webhook-id"), id.to_owned()),
            (HeaderName::from_static("webhook-timestamp"), now.to_string()),
            (HeaderName::from_static("webhook-signature"), signature),
            (header::CONTENT_TYPE, "application/json".to_owned()),
        ];
        self.post(&headers, body).await
    }

    /// Posts a form, unsigned: for services whose protocol is not ours to choose.
    pub(crate) async fn post_form(&self, body: String) -> Result<Reply, WebhookError> {
        self.post(&[(header::CONTENT_TYPE, "application/x-www-form-urlencoded".to_owned())], body).await
    }

    /// The shared secret, for forms that carry it.
    pub(crate) fn secret(&self) -> &[u8] {
        &self.secret
    }

    fn signature(&self, id: &str, now: UnixSeconds, body: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.secret);
        let tag = hmac::sign(&key, format!("{id}.{now}.{body}").as_bytes());
        format!("v1,{}", STANDARD.encode(tag))
    }

    /// Posts a body with these headers, unsigned.
    pub(crate) async fn post(
        &self,
        headers: &[(HeaderName, String)],
        body: impl Into<Bytes>,
    ) -> Result<Reply, WebhookError> {
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        let authority = self.url.authority().map_or("", |authority| authority.as_str());
        let mut request = Request::post(path).header(header::HOST, authority);
        for (name, value) in headers {
            let value = HeaderValue::try_from(value).map_err(|error| self.unreachable(&error))?;
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body.into())).map_err(|error| self.unreachable(&error))?;
        let within_ms = self.timeout.as_millis();
        tokio::time::timeout(self.timeout, self.send(request))
            .await
            .unwrap_or_else(|_| Err(WebhookError::TooSlow { url: self.url.clone(), within_ms }))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Reply, WebhookError> {
        let address = (self.host.as_str(), self.port);
        let tcp = TcpStream::connect(address).await.map_err(|error| self.unreachable(&error))?;
        match &self.tls {
            None => self.exchange(tcp, request).await,
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone()).map_err(|error| self.unreachable(&error))?;
                let stream = tls.connect(name, tcp).await.map_err(|error| self.unreachable(&error))?;
                self.exchange(stream, request).await
            }
        }
    }

    async fn exchange<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
    ) -> Result<Reply, WebhookError> {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.unreachable(&error))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|error| self.unreachable(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LONGEST_REPLY_BYTES).collect().await;
            let body = body.map_err(|_| WebhookError::BadReply { url: self.url.clone() })?.to_bytes();
            Ok(Reply { status, body })
        };
        // The connection makes progress only while it is polled, and ends with this call.
        tokio::select! {
            biased;
            reply = exchange => reply,
            // It may close as soon as the last byte was read; then the exchange has what it needs.
            Err(error) = connection => Err(self.unreachable(&error)),
        }
    }

    fn unreachable(&self, error: &dyn std::error::Error) -> WebhookError {
        let causes = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
        WebhookError::Unreachable { url: self.url.clone(), reason: causes.collect::<Vec<_>>().join(": ") }
    }
}

fn connector(ca: Option<&[u8]>) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                roots.add(certificate.context("`ca` is no PEM")?).context("`ca` holds what is no authority")?;
            }
        }
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    ensure!(!roots.is_empty(), "no certificate authority is trusted; install ca-certificates, or give `ca`");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
