//! One question to one backend.

mod grpc;
mod http;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::config::{Alpn, BackendProtocol, BackendTls, HealthConfig, HealthKind, ProxyVersion};
use crate::descriptors;
use crate::pool::{Dial, Handshakes};
use crate::proxy_protocol;

#[cfg(any(test, fuzzing))]
pub(super) use grpc::read_reply;

/// How a backend is asked, with what need not be made for each question.
pub(super) struct Prober {
    kind: HealthKind,
    address: SocketAddr,
    /// `None`: in plain.
    handshakes: Option<Handshakes>,
    protocol: BackendProtocol,
    /// What the connection begins with.
    preface: Option<ProxyVersion>,
}

/// What came of a question.
#[derive(Debug)]
pub(super) enum Outcome {
    Good,
    /// Why it is not; for people to read.
    Bad(String),
    /// There was nothing to ask with.
    NotAsked(io::Error),
}

/// Whatever a question travels on.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<Any: AsyncRead + AsyncWrite + Send + Unpin> Stream for Any {}

impl Prober {
    /// Of `backend`, whose pool is dialled so.
    pub(super) fn new(config: &HealthConfig, dial: &Dial, backend: SocketAddr) -> Prober {
        let address = SocketAddr::new(backend.ip(), config.port.unwrap_or(backend.port()));
        let preface = config.send_proxy_protocol;
        // Sessions of its own: a check that resumes one of the requests' would not see the certificate of today.
        let handshakes = |tls: &BackendTls, protocols: &[Alpn]| Handshakes::with(tls, protocols, address.ip());
        let of_pool = dial.tls().filter(|_| config.tls);
        let handshakes = match &config.kind {
            HealthKind::Tcp => None,
            HealthKind::Tls(own) => own.as_deref().or(dial.tls()).map(|tls| handshakes(tls, &[])),
            HealthKind::Http { .. } => of_pool.map(|tls| handshakes(tls, dial.protocol.offered())),
            HealthKind::Grpc { .. } => of_pool.map(|tls| handshakes(tls, &[Alpn::H2])),
        };
        Prober { kind: config.kind.clone(), address, handshakes, protocol: dial.protocol, preface }
    }

    /// Asks on a connection of its own: a backend that keeps old connections alive but accepts no new ones
    /// is not healthy.
    pub(super) async fn probe(&self, timeout: Duration) -> Outcome {
        let asking = async {
            match TcpStream::connect(self.address).await {
                Ok(stream) => self.ask(stream).await.map_or_else(Outcome::Bad, |()| Outcome::Good),
                Err(error) if descriptors::is_want_of_our_own(&error) => Outcome::NotAsked(error),
                Err(error) => Outcome::Bad(cannot(error)),
            }
        };
        let silence = |_| Outcome::Bad(format!("no answer to {} within {timeout:?}", self.question()));
        tokio::time::timeout(timeout, asking).await.unwrap_or_else(silence)
    }

    async fn ask(&self, mut stream: TcpStream) -> Result<(), String> {
        if let Some(version) = self.preface {
            stream.write_all(proxy_protocol::of_nobody(version)).await.map_err(cannot)?;
        }
        let (stream, speaks_h2): (Box<dyn Stream>, bool) = match &self.handshakes {
            None => (Box::new(stream), self.protocol == BackendProtocol::H2c),
            Some(handshakes) => {
                let begun = handshakes.over(stream).await;
                let begun = begun.map_err(|error| format!("the TLS handshake failed: {error}"))?;
                let speaks_h2 = begun.get_ref().1.alpn_protocol() == Some(Alpn::H2.name().as_bytes());
                (Box::new(begun), speaks_h2)
            }
        };
        let scheme = if self.handshakes.is_some() { "https" } else { "http" };
        match &self.kind {
            // Whoever takes the connection is at work; it is closed again without a word.
            HealthKind::Tcp => Ok(()),
            HealthKind::Tls(_) if self.handshakes.is_some() => Ok(()),
            HealthKind::Tls(_) => Err("a TLS check without settings of TLS".to_owned()),
            HealthKind::Http { path, host, expect } => {
                let host = host.clone().unwrap_or_else(|| self.address.to_string());
                match speaks_h2 {
                    true => http::ask_h2(stream, &format!("{scheme}://{host}{path}"), expect).await,
                    false => http::ask(stream, path, &host, expect).await,
                }
            }
            HealthKind::Grpc { service } => grpc::ask(stream, (scheme, self.address), service).await,
        }
    }

    fn question(&self) -> String {
        match &self.kind {
            HealthKind::Http { path, .. } => format!("GET {path}"),
            HealthKind::Grpc { .. } => "grpc.health.v1.Health/Check".to_owned(),
            HealthKind::Tcp => "a SYN".to_owned(),
            HealthKind::Tls(_) => "a TLS handshake".to_owned(),
        }
    }
}

fn cannot(error: io::Error) -> String {
    format!("cannot connect: {error}")
}

/// `interval` give or take a part of it, so that the checks of many edges do not meet at the backend at the same moment.
pub(super) fn jittered(interval: Duration, percent: u8) -> Duration {
    let spread = f64::from(percent) / 100.0;
    interval.mul_f64(1.0 - spread + 2.0 * spread * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_its_share() {
        for (percent, shortest_ms, longest_ms) in [(10, 899, 1_101), (0, 1_000, 1_000), (50, 499, 1_501)] {
            for _ in 0..1_000 {
                let wait = jittered(Duration::from_millis(1_000), percent);
                assert!((shortest_ms..=longest_ms).contains(&wait.as_millis()), "{percent}: {wait:?}");
            }
        }
    }
}
