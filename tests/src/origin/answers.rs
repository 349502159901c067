//! What the origin answers to each path.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use super::Origin;
use super::drip::Drip;
use crate::websocket;

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

const PAGE: &str = include_str!("shop.html");
const APP: &str = include_str!("app.html");
/// The challenge of RFC 9470.
const ASKS: &str = r#"Bearer error="insufficient_user_authentication", acr_values="urn:lb:acr:2""#;
/// The same in words that the edge does not know.
const ASKS_ELSEWHERE: &str = r#"Bearer error="insufficient_user_authentication", acr_values="urn:elsewhere:9""#;

pub(super) async fn answer(origin: Arc<Origin>, request: Request<Incoming>) -> Result<Answer, hyper::Error> {
    let method = request.method().clone();
    // Under /open the edge lets everybody in; the origin has the same there as everywhere.
    let path = request.uri().path();
    let path = path.strip_prefix("/open").filter(|rest| rest.starts_with('/')).unwrap_or(path);
    if path != "/healthz" {
        origin.saw(format!("{method} {path}"));
    }
    Ok(match (method, path) {
        (Method::GET, "/healthz") => text(StatusCode::OK, "text/plain", "ok\n".into()),
        (Method::GET, "/") if wants_html(request.headers()) => text(StatusCode::OK, "text/html", page(&origin)),
        (Method::POST, "/refunds") => refund(&origin, request).await?,
        (Method::GET, "/refunds") => json_answer(StatusCode::OK, &refund_count(&origin)),
        (_, "/stream") => Response::new(request.into_body().boxed()),
        (_, "/slow") => Response::new(Drip::new(10, Duration::from_millis(200)).map_err(never).boxed()),
        (Method::GET, path) if path.ends_with("/ws") => web_socket(request),
        (Method::GET, "/app") => text(StatusCode::OK, "text/html", APP.into()),
        (_, "/vault") if !is_at_level_two(request.headers()) => asks(request, ASKS).await?,
        (_, "/vault/never") => asks(request, ASKS).await?,
        (_, "/vault/elsewhere") => asks(request, ASKS_ELSEWHERE).await?,
        (_, "/events") => stream("text/event-stream"),
        (_, "/grpc") => stream("application/grpc"),
        _ => json_answer(StatusCode::OK, &received(&origin, request).await?),
    })
}

/// Reads the whole body before it counts: a refund that arrived in part did not happen.
async fn refund(origin: &Origin, request: Request<Incoming>) -> Result<Answer, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    origin.remember(&parts, &body);
    let number = origin.refunds.fetch_add(1, Ordering::SeqCst) + 1;
    if wants_html(&parts.headers) {
        let page =
            format!("<!doctype html><html lang=en><title>Refunded</title><h1>Refund {number} is on its way</h1>");
        return Ok(text(StatusCode::CREATED, "text/html", page));
    }
    let told = json!({
        "backend": origin.name,
        "refund": number,
        "body": String::from_utf8_lossy(&body),
        "assertion": claims(&parts.headers),
    });
    Ok(json_answer(StatusCode::CREATED, &told))
}

/// What the edge asserts about the user. Only told, never relied on: a real backend verifies the signature first.
fn claims(headers: &HeaderMap) -> Option<Value> {
    let token = headers.get("lb-assertion")?.to_str().ok()?;
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&payload).ok()
}

fn is_at_level_two(headers: &HeaderMap) -> bool {
    claims(headers).is_some_and(|claims| claims["acr"] == "urn:lb:acr:2" || claims["acr"] == "urn:lb:acr:3")
}

/// Reads the body first: closing with some of it unread would reset the connection, and the answer could be lost.
async fn asks(request: Request<Incoming>, challenge: &'static str) -> Result<Answer, hyper::Error> {
    request.into_body().collect().await?;
    let mut answer = text(StatusCode::UNAUTHORIZED, "text/plain", "more proof, please\n".into());
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    Ok(answer)
}

fn stream(content_type: &'static str) -> Answer {
    let mut answer = Response::new(Drip::new(u32::MAX, Duration::from_millis(100)).map_err(never).boxed());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn refund_count(origin: &Origin) -> Value {
    json!({"backend": origin.name, "count": origin.refunds()})
}

/// The request as it arrived, every header with all its values.
async fn received(origin: &Origin, request: Request<Incoming>) -> Result<Value, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    origin.remember(&parts, &body);
    let mut headers = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in &parts.headers {
        headers.entry(name.to_string()).or_default().push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    Ok(json!({
        "backend": origin.name,
        "method": parts.method.as_str(),
        "path": parts.uri.to_string(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
        "body_bytes": body.len(),
    }))
}

fn web_socket(mut request: Request<Incoming>) -> Answer {
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok()) else {
        return text(StatusCode::BAD_REQUEST, "text/plain", "no Sec-WebSocket-Key\n".into());
    };
    let accept = websocket::accept_value(key);
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            // The peer's going away ends the echo; there is nobody left to tell.
            let _ = echo_messages(TokioIo::new(upgraded)).await;
        }
    });
    let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "text/plain", String::new());
    let headers = response.headers_mut();
    headers.clear();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept.parse().expect("Base64 is a header value"));
    response
}

async fn echo_messages(mut stream: TokioIo<hyper::upgrade::Upgraded>) -> Result<()> {
    while let Some(frame) = websocket::read(&mut stream).await? {
        websocket::write(&mut stream, &frame, None).await?;
        if frame.opcode == websocket::CLOSE {
            break;
        }
    }
    Ok(())
}

fn page(origin: &Origin) -> String {
    PAGE.replace("{{backend}}", &origin.name)
}

fn wants_html(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT).is_some_and(|accept| accept.as_bytes().windows(9).any(|word| word == b"text/html"))
}

fn json_answer(status: StatusCode, value: &Value) -> Answer {
    text(status, "application/json", format!("{value}\n"))
}

fn text(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)).map_err(never).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn never(impossible: Infallible) -> hyper::Error {
    match impossible {}
}
