//! Ten thousand backends before the running program: all addresses of one server.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::edge::{Edge, free_address, service_with};
use lb_tests::level;
use lb_tests::visitor::Visitor;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const BACKENDS: u32 = 10_000;
const ROUTES: &str = "  - {path: /**, pool: shop, public: true}\n";
/// Of an unoptimised program, beside other tests.
const WITHIN: Duration = Duration::from_secs(120);

/// The addresses that were connected to.
type Asked = Arc<Mutex<HashSet<IpAddr>>>;

async fn listen(port: u16, asked: &Asked) -> Result<(u16, JoinHandle<()>)> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
    let (port, asked) = (listener.local_addr()?.port(), asked.clone());
    let accept = async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(address) = stream.local_addr() {
                asked.lock().unwrap_or_else(PoisonError::into_inner).insert(address.ip());
            }
            tokio::spawn(answer(stream));
        }
    };
    Ok((port, tokio::spawn(accept)))
}

/// Every head with the same few bytes.
async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let (mut received, mut bytes) = (Vec::new(), [0; 1024]);
    loop {
        match stream.read(&mut bytes).await? {
            0 => return Ok(()),
            length => received.extend_from_slice(&bytes[..length]),
        }
        while let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            received.drain(..end + 4);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
        }
    }
}

fn configuration(address: SocketAddr, port: u16, backends: u32) -> String {
    let all = (1..=backends).map(|number| {
        let [_, b, c, d] = number.to_be_bytes();
        format!("\"127.{b}.{c}.{d}:{port}\"")
    });
    let all = all.collect::<Vec<_>>().join(", ");
    let one: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
    let text = service_with(address, one, ROUTES);
    let text = text.replace(&format!("[\"{one}\"]"), &format!("[{all}]"));
    text.replace("path: /healthz, interval: 1s,", "kind: tcp, interval: 5s,")
}

async fn eventually(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + WITHIN;
    while !holds()? {
        ensure!(Instant::now() < deadline, "not within {WITHIN:?}: {what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

fn up(edge: &Edge) -> Result<f64> {
    Ok(edge.metrics()?.sum("lb_backend_up"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_backends_are_checked_serve_go_together_and_come_back() -> Result<()> {
    if level::is_skipped("peers", Edge::lacking()) {
        return Ok(());
    }
    let asked = Asked::default();
    let (port, listening) = listen(0, &asked).await?;
    let address = free_address()?;
    let text = configuration(address, port, BACKENDS);
    let edge = tokio::task::spawn_blocking(move || Edge::start_at(address, &text)).await??;

    let count = || asked.lock().unwrap_or_else(PoisonError::into_inner).len();
    eventually("each was asked how it is", || Ok(count() == BACKENDS as usize)).await?;
    eventually("all are up", || Ok(up(&edge)? == f64::from(BACKENDS))).await?;
    let status = async || -> Result<u16> { Ok(Visitor::default().get(&edge.url("/"), &[]).await?.status.as_u16()) };
    for _ in 0..20 {
        ensure!(status().await? == 200);
    }
    let listed = |edge: &Edge| -> Result<usize> {
        let all: Value = serde_json::from_str(&edge.command(&["backends", "--json"])?)?;
        Ok(all.as_array().context("no list")?.len())
    };
    ensure!(listed(&edge)? == BACKENDS as usize);
    edge.command(&["status"])?;

    listening.abort();
    eventually("all are down", || Ok(up(&edge)? == 0.0)).await?;
    ensure!(status().await? == 503, "nobody is there to answer");
    let (_, _listening) = listen(port, &asked).await?;
    eventually("all are back", || Ok(up(&edge)? == f64::from(BACKENDS))).await?;
    ensure!(status().await? == 200);

    edge.reconfigure(&configuration(address, port, BACKENDS / 2))?;
    ensure!(listed(&edge)? == BACKENDS as usize / 2, "half of them are gone");
    ensure!(status().await? == 200);
    Ok(())
}
