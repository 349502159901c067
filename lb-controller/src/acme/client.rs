//! How an authority is asked: over HTTPS, within a time, and with answers of bounded size. What it says of when to come again
//! is remembered.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::failure::with_causes;
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// Chains have some 10 KiB.
const LONGEST_ANSWER_BYTES: usize = 1024 * 1024;
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// Asks one authority.
#[derive(Clone)]
pub(super) struct Http {
    client: Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>,
    retry_after: RetryAfter,
}

/// What the authority said last with a refusal.
#[derive(Clone, Default)]
pub(super) struct RetryAfter(Arc<Mutex<Option<SystemTime>>>);

impl RetryAfter {
    /// How long to stay away.
    pub(super) fn remaining(&self) -> Duration {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.and_then(|until| until.duration_since(SystemTime::now()).ok()).unwrap_or_default()
    }

    fn note(&self, status: StatusCode, headers: &HeaderMap) {
        let until = if status.is_client_error() || status.is_server_error() { read(headers) } else { None };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

/// Seconds, or a date (RFC 9110 §10.2.3).
fn read(headers: &HeaderMap) -> Option<SystemTime> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => SystemTime::now().checked_add(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok(),
    }
}

impl Http {
    /// Errors: the file of authorities cannot be read, or this machine trusts nobody.
    pub(super) fn new(ca: Option<&Path>) -> anyhow::Result<Http> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(authorities(ca)?)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECTED_WITHIN));
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Http { client, retry_after: RetryAfter::default() })
    }

    pub(super) fn retry_after(&self) -> RetryAfter {
        self.retry_after.clone()
    }
}

/// Whom to trust about the authority's own certificate.
pub(super) fn authorities(ca: Option<&Path>) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(file) => {
            let pem = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.with_context(|| format!("{} is no PEM", file.display()))?;
                roots.add(certificate).with_context(|| format!("{} cannot be used", file.display()))?;
            }
            ensure!(!roots.is_empty(), "{} holds no certificate", file.display());
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            ensure!(!roots.is_empty(), "this machine trusts no authority; install ca-certificates, or give `ca:`");
        }
    }
    Ok(roots)
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (client, retry_after, url) = (self.client.clone(), self.retry_after.clone(), request.uri().to_string());
        let unreachable = |url: &str, error: &dyn std::error::Error| {
            Error::Other(format!("{url} cannot be reached: {}", with_causes(error)).into())
        };
        Box::pin(async move {
            let asking = async {
                let response = client.request(request).await.map_err(|error| unreachable(&url, &error))?;
                let (parts, body) = response.into_parts();
                retry_after.note(parts.status, &parts.headers);
                let body = Limited::new(body, LONGEST_ANSWER_BYTES).collect().await;
                let body = body.map_err(|error| Error::Other(format!("{url} answered badly: {error}").into()))?;
                Ok(BytesResponse { parts, body: Box::new(body.to_bytes()) })
            };
            let slow = || Error::Other(format!("{url} did not answer within {} s", ANSWERED_WITHIN.as_secs()).into());
            tokio::time::timeout(ANSWERED_WITHIN, asking).await.map_err(|_| slow())?
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_to_come_again_is_read_from_refusals_only() {
        let rows = [
            (429, "120", 110..121),
            (503, " 7 ", 1..8),
            (429, "Fri, 31 Dec 1999 23:59:59 GMT", 0..1),
            (429, "soon", 0..1),
            (429, "99999999999999999999", 0..1),
            (200, "120", 0..1),
        ];
        for (status, text, expected) in rows {
            let retry_after = RetryAfter::default();
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, text.parse().unwrap())]);
            retry_after.note(StatusCode::from_u16(status).unwrap(), &headers);
            assert!(expected.contains(&retry_after.remaining().as_secs()), "{status} {text}");
        }
    }
}
