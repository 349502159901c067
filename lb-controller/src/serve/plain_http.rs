//! Plain HTTP: whoever comes is sent to HTTPS, and an authority that asks whose a name is gets its answer. Nothing is ever
//! forwarded from here, and no session is looked at: what travels in plain text is anybody's.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use lb_datapath::Ports;
use tokio::net::TcpStream;

use super::tls::Challenges;
use crate::config::Config;

const HTTPS_PORT: u16 = 443;
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// From the first byte to the last of the answer. There is one request a connection.
const WITHIN: Duration = Duration::from_secs(10);
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// Where plain HTTP is spoken.
#[derive(Debug, Default)]
pub struct PlainHttp {
    config: ArcSwap<Config>,
    direct: Option<Direct>,
    redirected: AtomicU64,
    refused: AtomicU64,
}

/// L7 alone: one address for each.
#[derive(Clone, Copy, Debug)]
pub struct Direct {
    pub http: SocketAddr,
    pub https: SocketAddr,
}

impl PlainHttp {
    pub fn new(config: Arc<Config>, direct: Option<Direct>) -> PlainHttp {
        PlainHttp { config: ArcSwap::new(config), direct, ..PlainHttp::default() }
    }

    /// With the services of another configuration.
    pub fn apply(&self, config: Arc<Config>) {
        self.config.store(config);
    }

    /// Where HTTPS is spoken for clients that came to `local`; `None`: it is spoken there.
    pub(super) fn https_port(&self, local: SocketAddr) -> Option<u16> {
        if let Some(direct) = self.direct {
            return (local.port() == direct.http.port()).then(|| direct.https.port());
        }
        let config = self.config.load();
        let local_services = || config.services.iter().filter(|service| service.is_local());
        // Few have any: this is each connection's way.
        local_services().find(|service| service.plain_http && service.takes_tcp(local))?;
        let siblings = local_services().filter(|service| !service.plain_http && service.has_vip(local.ip()));
        let ports: Vec<Ports> = siblings.filter(|service| service.protocols.tcp).map(|service| service.ports).collect();
        let has_usual = ports.is_empty() || ports.iter().any(|ports| ports.contains(HTTPS_PORT));
        let first = ports.iter().find_map(|ports| match ports {
            Ports::One(port) | Ports::Range(port, _) => Some(*port),
            Ports::Any => None,
        });
        Some(if has_usual { HTTPS_PORT } else { first.unwrap_or(HTTPS_PORT) })
    }

    /// How many requests were sent to HTTPS, and how many could not be.
    pub(super) fn counts(&self) -> [(&'static str, u64); 2] {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [("redirected", count(&self.redirected)), ("refused", count(&self.refused))]
    }
}

/// Answers one request on a connection, and closes it.
pub(super) async fn serve(stream: TcpStream, https_port: u16, plain: &PlainHttp, challenges: &Challenges) {
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let answer = answer(&request, https_port, challenges);
        match answer.status() {
            StatusCode::PERMANENT_REDIRECT => plain.redirected.fetch_add(1, Ordering::Relaxed),
            StatusCode::OK => 0,
            _ => plain.refused.fetch_add(1, Ordering::Relaxed),
        };
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(WITHIN)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Neither is anything of ours.
    let _ = tokio::time::timeout(WITHIN, connection).await;
}

/// Of the request only host and target are looked at.
fn answer<B>(request: &Request<B>, https_port: u16, challenges: &Challenges) -> Response<Full<Bytes>> {
    let Some(host) = host(request) else {
        return text(StatusCode::BAD_REQUEST, "This request names no host.\n".into());
    };
    if let Some(token) = request.uri().path().strip_prefix(CHALLENGES) {
        return match challenges.in_http(&host, token) {
            Some(answer) => text(StatusCode::OK, answer),
            None => text(StatusCode::NOT_FOUND, "Nobody asks this here.\n".into()),
        };
    }
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let target = if target.starts_with('/') { target } else { "/" };
    let port = if https_port == HTTPS_PORT { String::new() } else { format!(":{https_port}") };
    let Ok(location) = HeaderValue::from_str(&format!("https://{host}{port}{target}")) else {
        return text(StatusCode::BAD_REQUEST, "This target cannot be redirected.\n".into());
    };
    // 308: a POST stays one.
    let mut response = text(StatusCode::PERMANENT_REDIRECT, String::new());
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// The one host that the request names, as rules see hosts.
fn host<B>(request: &Request<B>) -> Option<String> {
    let mut named = request.headers().get_all(header::HOST).iter();
    let header = named.next().and_then(|host| host.to_str().ok());
    if named.next().is_some() {
        return None;
    }
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    lb_policy::canonical_host(authority.or(header)?).ok()
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests;
