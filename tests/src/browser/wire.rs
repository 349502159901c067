//! WebDriver's wire: JSON over HTTP to a driver on this machine.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream as BlockingStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

#[derive(Debug)]
pub(super) struct Driver {
    address: SocketAddr,
}

impl Driver {
    pub(super) fn new(port: u16) -> Driver {
        Driver { address: (Ipv4Addr::LOCALHOST, port).into() }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    pub(super) async fn post(&self, path: &str, value: &Value) -> Result<Value> {
        self.ask(Method::POST, path, value.to_string().into()).await
    }

    /// For `drop`, which cannot await. What goes wrong here ends with the driver's process anyway.
    pub(super) fn end_session_blocking(&self, session: &str) {
        let Ok(mut stream) = BlockingStream::connect_timeout(&self.address, Duration::from_secs(2)) else { return };
        let head = format!("DELETE /session/{session} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.read(&mut [0; 64]);
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Value> {
        let stream = TcpStream::connect(self.address).await.context("chromedriver is gone")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        let response = sender.send_request(request).await?;
        let success = response.status().is_success();
        let answer = response.into_body().collect().await?.to_bytes();
        connection.abort();
        let mut answer: Value = serde_json::from_slice(&answer).context("chromedriver answered no JSON")?;
        let value = answer["value"].take();
        if !success {
            bail!("{path}: {}: {}", value["error"], value["message"].as_str().unwrap_or_default());
        }
        Ok(value)
    }
}
