//! WebSockets by other people's hands: PyPI's `websockets` at both ends, with an edge between them.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

/// A running backend, which is also the clients. Dropping it ends it.
#[derive(Debug)]
pub struct WebSocketPeer {
    /// Of the backend.
    pub address: SocketAddr,
    orders: ChildStdin,
    said: BufReader<ChildStdout>,
    process: Child,
}

impl WebSocketPeer {
    /// What is lacking to start one, if anything.
    pub fn lacking() -> Option<&'static str> {
        python().is_none().then_some("needs another WebSocket client; run `cargo xtask test`")
    }

    pub fn start() -> Result<WebSocketPeer> {
        let python = python().context("LB_WEBSOCKETS_PYTHON is not set; run the tests with `cargo xtask test`")?;
        let mut process = Command::new(python)
            .args(["-u", "-c", include_str!("websocket_peer.py")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the WebSocket peer")?;
        let orders = process.stdin.take().context("a pipe was asked for")?;
        let mut said = BufReader::new(process.stdout.take().context("a pipe was asked for")?);
        let mut port = String::new();
        said.read_line(&mut port)?;
        let port: u16 = port.trim().parse().context("the WebSocket peer tells no port")?;
        Ok(WebSocketPeer { address: (Ipv4Addr::LOCALHOST, port).into(), orders, said, process })
    }

    /// What both ends see when clients go to `url` on this machine, with compression or not, and with a subprotocol or none.
    pub fn go(&mut self, url: &str, compresses: bool, subprotocol: Option<&str>) -> Result<Value> {
        let deflate = if compresses { "yes" } else { "no" };
        writeln!(self.orders, "{url} {deflate} {}", subprotocol.unwrap_or("-"))?;
        let mut seen = String::new();
        self.said.read_line(&mut seen)?;
        serde_json::from_str(&seen).with_context(|| format!("the WebSocket peer says {seen:?}"))
    }
}

impl Drop for WebSocketPeer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The Python that has `websockets`.
fn python() -> Option<PathBuf> {
    std::env::var_os("LB_WEBSOCKETS_PYTHON").map(PathBuf::from)
}
