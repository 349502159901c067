//! Somebody with cookies who goes from site to site on this machine, as a browser or as a command-line client does. Any
//! certificate will do.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::{OwnCertificate, trust};

const DEADLINE: Duration = Duration::from_secs(20);
/// What a browser says when somebody follows a link.
pub const NAVIGATION: &[(&str, &str)] = &[("accept", "text/html"), ("sec-fetch-mode", "navigate")];
/// What a browser says when somebody sends a form of the site's own page.
pub const FORM: &[(&str, &str)] =
    &[("accept", "text/html"), ("sec-fetch-mode", "navigate"), ("sec-fetch-site", "same-origin")];
const MOST_REDIRECTS: usize = 12;

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("no JSON: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// One header; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The problem's name, when the answer is one (RFC 9457).
    pub fn problem(&self) -> String {
        let kind = self.json().ok().and_then(|json| Some(json["type"].as_str()?.to_owned())).unwrap_or_default();
        kind.trim_start_matches("urn:lb:problem:").to_owned()
    }
}

/// Cookies by site, which is a host and a port here.
#[derive(Clone, Debug, Default)]
pub struct Visitor {
    /// Shown to whoever asks for one.
    pub certificate: Option<Arc<OwnCertificate>>,
    jars: BTreeMap<String, BTreeMap<String, String>>,
}

impl Visitor {
    /// The cookies of one site; to be looked at, planted or stolen.
    pub fn jar(&mut self, site: &str) -> &mut BTreeMap<String, String> {
        self.jars.entry(site.to_owned()).or_default()
    }

    pub async fn get(&mut self, url: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        self.send("GET", url, headers, String::new()).await
    }

    /// POSTs a form.
    pub async fn post(&mut self, url: &str, headers: &[(&str, &str)], form: &[(&str, &str)]) -> Result<Answer> {
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let kind = [("content-type", "application/x-www-form-urlencoded")];
        self.send("POST", url, &[&kind, headers].concat(), form).await
    }

    /// Opens a page as a browser does, going wherever it is sent. Returns the last answer and where that was.
    pub async fn browse(&mut self, url: &str) -> Result<(Answer, String)> {
        let mut url = url.to_owned();
        for _ in 0..MOST_REDIRECTS {
            let answer = self.get(&url, NAVIGATION).await?;
            match answer.header("location") {
                "" => return Ok((answer, url)),
                location => url = absolute(&url, location),
            }
        }
        anyhow::bail!("{url} is one of more than {MOST_REDIRECTS} redirects")
    }

    /// As [`Visitor::browse`], but stops before it would open an address that contains `part`.
    pub async fn browse_until(&mut self, url: &str, part: &str) -> Result<String> {
        let mut url = url.to_owned();
        for _ in 0..MOST_REDIRECTS {
            if url.contains(part) {
                return Ok(url);
            }
            let answer = self.get(&url, NAVIGATION).await?;
            let location = answer.header("location");
            ensure!(!location.is_empty(), "{url} leads nowhere: {} {}", answer.status, answer.text());
            url = absolute(&url, location);
        }
        anyhow::bail!("nothing led to {part}")
    }

    pub async fn send(&mut self, method: &str, url: &str, headers: &[(&str, &str)], body: String) -> Result<Answer> {
        let uri: Uri = url.parse().with_context(|| format!("{url} is no URL"))?;
        let site = uri.authority().with_context(|| format!("{url} names no host"))?.to_string();
        let cookies: Vec<_> = self.jar(&site).iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = Request::builder().method(method).uri(uri.path_and_query().map_or("/", |path| path.as_str()));
        request = request.header(header::HOST, &site);
        if !cookies.is_empty() {
            request = request.header(header::COOKIE, cookies.join("; "));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer =
            timeout(DEADLINE, exchange(&uri, self.certificate.as_deref(), request.body(Full::from(body))?)).await;
        let answer = answer.with_context(|| format!("{url} does not answer"))??;
        for cookie in answer.headers.get_all(header::SET_COOKIE) {
            self.take_cookie(&site, cookie.to_str()?);
        }
        Ok(answer)
    }

    /// Sends the head of a request that announces `length` bytes, and none of them. The connection stays open until it is
    /// dropped.
    pub async fn stall(
        &mut self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        length: usize,
    ) -> Result<TlsStream<TcpStream>> {
        let uri: Uri = url.parse().with_context(|| format!("{url} is no URL"))?;
        let site = uri.authority().with_context(|| format!("{url} names no host"))?.to_string();
        let cookies: Vec<_> = self.jar(&site).iter().map(|(name, value)| format!("{name}={value}")).collect();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {site}\r\ncontent-length: {length}\r\n");
        head += &format!("cookie: {}\r\n", cookies.join("; "));
        head.extend(headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")));
        let mut connection = connect(&uri, None).await?;
        connection.write_all(format!("{head}\r\n").as_bytes()).await?;
        connection.flush().await?;
        Ok(connection)
    }

    fn take_cookie(&mut self, site: &str, text: &str) {
        let Some((name, value)) = text.split(';').next().and_then(|pair| pair.split_once('=')) else { return };
        let is_over = text.contains("Max-Age=0") || text.contains("expires=Thu, 01 Jan 1970");
        match is_over {
            true => drop(self.jar(site).remove(name)),
            false => drop(self.jar(site).insert(name.to_owned(), value.to_owned())),
        }
    }
}

async fn connect(uri: &Uri, own: Option<&OwnCertificate>) -> Result<TlsStream<TcpStream>> {
    let host = uri.host().context("no host")?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, uri.port_u16().unwrap_or(443)));
    let connector = TlsConnector::from(Arc::new(trust::any_certificate_as(b"http/1.1", own)?));
    Ok(connector.connect(ServerName::try_from(host.to_owned())?, TcpStream::connect(address).await?).await?)
}

async fn exchange(uri: &Uri, own: Option<&OwnCertificate>, request: Request<Full<Bytes>>) -> Result<Answer> {
    let tls = connect(uri, own).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
    tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await?.into_parts();
    Ok(Answer { status: parts.status, headers: parts.headers, body: body.collect().await?.to_bytes() })
}

fn absolute(base: &str, location: &str) -> String {
    match location.starts_with('/') {
        true => base.splitn(4, '/').take(3).collect::<Vec<_>>().join("/") + location,
        false => location.to_owned(),
    }
}
