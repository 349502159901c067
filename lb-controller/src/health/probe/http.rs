//! A page that must have one of the expected statuses.

use std::ops::RangeInclusive;

use bytes::Bytes;
use http::{Request, StatusCode, Version, header};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::Stream;

pub(super) async fn ask(
    stream: Box<dyn Stream>,
    path: &str,
    host: &str,
    expect: &[RangeInclusive<u16>],
) -> Result<(), String> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| format!("cannot speak HTTP/1.1: {error}"))?;
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, "lb-health")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("health path {path:?} is no request target: {error}"))?;
    let exchange = async { sender.send_request(request).await.map(|response| response.status()) };
    tokio::pin!(exchange);
    let status = tokio::select! {
        status = &mut exchange => status,
        // The connection may end in the same moment in which it delivers the answer.
        ended = connection => match ended { Ok(()) => exchange.await, Err(error) => Err(error) },
    };
    judge(path, status, expect)
}

/// The same over HTTP/2, of a whole URL.
pub(super) async fn ask_h2(stream: Box<dyn Stream>, url: &str, expect: &[RangeInclusive<u16>]) -> Result<(), String> {
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| format!("cannot speak HTTP/2: {error}"))?;
    let request = Request::get(url)
        .version(Version::HTTP_2)
        .header(header::USER_AGENT, "lb-health")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("{url:?} is no URL: {error}"))?;
    let exchange = async { sender.send_request(request).await.map(|response| response.status()) };
    tokio::pin!(exchange);
    let status = tokio::select! {
        status = &mut exchange => status,
        ended = connection => match ended { Ok(()) => exchange.await, Err(error) => Err(error) },
    };
    judge(url, status, expect)
}

fn judge(asked: &str, status: hyper::Result<StatusCode>, expect: &[RangeInclusive<u16>]) -> Result<(), String> {
    match status {
        Ok(status) if expect.iter().any(|range| range.contains(&status.as_u16())) => Ok(()),
        Ok(status) => Err(format!("GET {asked} answered {status}")),
        Err(error) => Err(format!("no HTTP answer to GET {asked}: {error}")),
    }
}
