//! One question to one backend.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::config::{HealthConfig, HealthKind};

/// Asks on a connection of its own: a backend that keeps old connections alive but accepts no new ones
/// is not healthy. The error is for people to read.
pub(super) async fn probe(address: SocketAddr, config: &HealthConfig) -> Result<(), String> {
    let (answer, question) = match &config.kind {
        HealthKind::Http { path } => {
            (tokio::time::timeout(config.timeout, ask(address, path)).await, format!("GET {path}"))
        }
        HealthKind::Tcp => (tokio::time::timeout(config.timeout, connect(address)).await, "a SYN".to_owned()),
    };
    answer.unwrap_or_else(|_| Err(format!("no answer to {question} within {:?}", config.timeout)))
}

/// Whoever takes the connection is at work; it is closed again without a word.
async fn connect(address: SocketAddr) -> Result<(), String> {
    TcpStream::connect(address).await.map(drop).map_err(|error| format!("cannot connect: {error}"))
}

async fn ask(address: SocketAddr, path: &str) -> Result<(), String> {
    let stream = TcpStream::connect(address).await.map_err(|error| format!("cannot connect: {error}"))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| format!("cannot speak HTTP/1.1: {error}"))?;
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
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
    match status {
        Ok(status) if status.is_success() => Ok(()),
        Ok(status) => Err(format!("GET {path} answered {status}")),
        Err(error) => Err(format!("no HTTP answer to GET {path}: {error}")),
    }
}

/// `interval` ± 10 %, so that the checks of many edges do not meet at the backend at the same moment.
pub(super) fn jittered(interval: Duration) -> Duration {
    let mut random = [0u8; 2];
    // Without randomness the checks merely line up.
    let _ = aws_lc_rs::rand::fill(&mut random);
    let fraction = f64::from(u16::from_ne_bytes(random)) / f64::from(u16::MAX);
    interval.mul_f64(0.9 + 0.2 * fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_a_tenth() {
        for _ in 0..1_000 {
            let wait = jittered(Duration::from_millis(1_000));
            assert!((899..=1_101).contains(&wait.as_millis()), "{wait:?}");
        }
    }
}
