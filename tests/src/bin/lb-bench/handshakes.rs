//! Requests, each on a connection of its own that resumes nothing: wrk and its like keep TLS sessions, and what they count
//! then is half of a handshake.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::client::any_server;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::answer::is_whole;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where to connect
    #[arg(long)]
    to: SocketAddr,
    /// Connections at once
    #[arg(long, default_value_t = 16)]
    connections: usize,
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// What to ask for
    #[arg(long, default_value = "/")]
    path: String,
}

/// Prints how many requests were answered well; any other answer is an error.
pub(crate) fn run(options: Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let requests = runtime.block_on(async {
        let mut client = any_server(b"http/1.1")?;
        client.resumption = Resumption::disabled();
        let (options, connector) = (Arc::new(options), TlsConnector::from(Arc::new(client)));
        let until = Instant::now() + Duration::from_secs(options.seconds);
        let one = |_| tokio::spawn(ask_until(until, options.clone(), connector.clone()));
        let all: Vec<_> = (0..options.connections).map(one).collect();
        let mut requests = 0;
        for one in all {
            requests += one.await??;
        }
        anyhow::Ok(requests)
    })?;
    println!("{requests}");
    Ok(())
}

async fn ask_until(until: Instant, options: Arc<Options>, connector: TlsConnector) -> Result<u64> {
    let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", options.path, options.to);
    let name = ServerName::from(options.to.ip());
    let (mut requests, mut answer) = (0, Vec::new());
    while Instant::now() < until {
        let stream = TcpStream::connect(options.to).await.context("connecting")?;
        stream.set_nodelay(true)?;
        let mut stream = connector.connect(name.clone(), stream).await.context("shaking hands")?;
        stream.write_all(request.as_bytes()).await?;
        answer.clear();
        // Some end without TLS' own goodbye; whether all has come its length tells.
        let _ = stream.read_to_end(&mut answer).await;
        ensure!(is_whole(&answer), "no good answer: {}", String::from_utf8_lossy(&answer));
        requests += 1;
    }
    Ok(requests)
}
