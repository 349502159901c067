//! OpenSSL's own server, and its client: another reading of TLS than the edge's, and one that shows what was agreed on.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// What `openssl s_client` said of one connection, and the answer to one request.
#[derive(Debug)]
pub struct Connection(String);

/// Connects with `options` of s_client, and GETs `path` of `host` over HTTP/1.1 if the handshake is finished.
pub fn connect(address: SocketAddr, host: &str, path: &str, options: &[&str]) -> Result<Connection> {
    let mut command = Command::new("openssl");
    // It reads on after its input has ended, so that tickets, which come behind the handshake, are read.
    command.args(["s_client", "-ign_eof", "-showcerts", "-connect", &address.to_string()]).args(options);
    let mut process = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("openssl is not installed")?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    // It is gone already if the handshake failed.
    let _ = process.stdin.take().context("a pipe was asked for")?.write_all(request.as_bytes());
    let output = process.wait_with_output()?;
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok(Connection(format!("{said}\n{complained}")))
}

impl Connection {
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The handshake was finished.
    pub fn is_made(&self) -> bool {
        self.0.contains("-----BEGIN CERTIFICATE-----") || self.is_resumed()
    }

    pub fn is_resumed(&self) -> bool {
        self.0.contains("\nReused, ")
    }

    /// The certificate that the server showed.
    pub fn certificate(&self) -> Result<CertificateDer<'static>> {
        CertificateDer::from_pem_slice(self.0.as_bytes()).ok().with_context(|| format!("none in\n{}", self.0))
    }

    /// The status of the answer.
    pub fn status(&self) -> Result<u16> {
        let line = self.0.lines().find_map(|line| line.split_once("HTTP/1.1 "));
        let (_, rest) = line.with_context(|| format!("no answer in\n{}", self.0))?;
        Ok(rest.get(..3).context("no status")?.parse()?)
    }

    /// What stands behind `name: ` or `name is ` in what s_client tells.
    pub fn says(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| Some(line.trim().strip_prefix(name)?.trim_start_matches(':').trim()))
    }

    /// How often the server said hello: twice if it asked for another first message.
    pub fn server_hellos(&self) -> Result<usize> {
        ensure!(self.0.contains("ClientHello"), "to be asked of connections with -msg only");
        Ok(self.0.lines().filter(|line| line.ends_with("ServerHello")).count())
    }
}

/// OpenSSL's test server. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
    process: Child,
}

impl Server {
    /// Shows `NAME.pem` of `folder`, in which it runs; `options` are those of s_server.
    pub fn start(folder: &Path, name: &str, options: &[&str]) -> Result<Server> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let process = Command::new("openssl")
            .current_dir(folder)
            .args(["s_server", "-accept", &address.to_string()])
            .args(["-cert", &format!("{name}.pem"), "-key", &format!("{name}.key")])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("openssl s_server")?;
        Ok(Server { address, process })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A certificate for `name` that vouches for itself, and its key: `NAME.pem` and `NAME.key` in `folder`.
pub fn certify(folder: &Path, name: &str) -> Result<()> {
    let output = Command::new("openssl")
        .current_dir(folder)
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem"), "-subj", &format!("/CN={name}")])
        .args(["-addext", &format!("subjectAltName=DNS:{name}"), "-addext", "basicConstraints=critical,CA:FALSE"])
        .output()
        .context("openssl")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
