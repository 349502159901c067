//! A real certificate authority that speaks ACME: Let's Encrypt's Pebble, from Debian. It asks back for answers on loopback.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use crate::issued::put;

const STARTS_WITHIN: Duration = Duration::from_secs(20);

/// How an authority differs from the usual one.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it comes to ask with tls-alpn-01, and with http-01.
    pub tls_port: u16,
    pub http_port: u16,
    /// How long its certificates are valid.
    pub valid_for: Duration,
    /// Names it issues nothing for.
    pub blocked: Vec<String>,
    /// The only customer, by key id and key, when it does not take everybody.
    pub customer: Option<(String, String)>,
}

impl Settings {
    pub fn asking(https: SocketAddr, http: SocketAddr) -> Settings {
        let valid_for = Duration::from_secs(90 * 86_400);
        Settings { tls_port: https.port(), http_port: http.port(), valid_for, blocked: Vec::new(), customer: None }
    }
}

/// A running authority. Dropping it ends it.
#[derive(Debug)]
pub struct Pebble {
    address: SocketAddr,
    folder: TempDir,
    names: Child,
    process: Option<Child>,
}

impl Pebble {
    /// What is lacking to run one, if anything.
    pub fn lacking() -> Option<&'static str> {
        let is_there = |program| Command::new(program).arg("-h").output().is_ok();
        (!is_there("pebble") || !is_there("pebble-challtestsrv"))
            .then_some("needs Debian's pebble; run `cargo xtask setup`")
    }

    /// Prepares one and the server that gives it every name's address. It does not run yet.
    pub fn new(settings: &Settings) -> Result<Pebble> {
        let folder = TempDir::new()?;
        let address = free_tcp()?;
        let key = KeyPair::generate()?;
        let certificate =
            CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?.self_signed(&key)?;
        put(&folder.path().join("own.crt"), &certificate.pem())?;
        put(&folder.path().join("own.key"), &key.serialize_pem())?;
        let mut config = serde_json::json!({
            "listenAddress": address.to_string(),
            "certificate": folder.path().join("own.crt"),
            "privateKey": folder.path().join("own.key"),
            "httpPort": settings.http_port,
            "tlsPort": settings.tls_port,
            "certificateValidityPeriod": settings.valid_for.as_secs(),
            "domainBlocklist": settings.blocked,
            "externalAccountBindingRequired": settings.customer.is_some(),
        });
        if let Some((id, key)) = &settings.customer {
            config["externalAccountMACKeys"] = serde_json::json!({ id: key });
        }
        fs::write(folder.path().join("config.json"), serde_json::json!({ "pebble": config }).to_string())?;
        let dns = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        fs::write(folder.path().join("dns"), dns.to_string())?;
        let names = Command::new("pebble-challtestsrv")
            .args(["-dns01", &dns.to_string(), "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""])
            .args(["-management", &free_tcp()?.to_string()])
            .stdin(Stdio::null())
            .stdout(fs::File::create(folder.path().join("dns.log"))?)
            .stderr(Stdio::null())
            .spawn()
            .context("pebble-challtestsrv is not installed")?;
        Ok(Pebble { address, folder, names, process: None })
    }

    /// A running one.
    pub fn start(settings: &Settings) -> Result<Pebble> {
        let mut pebble = Pebble::new(settings)?;
        pebble.run()?;
        Ok(pebble)
    }

    /// Starts it, with no memory of earlier accounts.
    pub fn run(&mut self) -> Result<()> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log"))?;
        let process = Command::new("pebble")
            .arg("-config")
            .arg(self.folder.path().join("config.json"))
            .args(["-strict", "-dnsserver", &fs::read_to_string(self.folder.path().join("dns"))?])
            .env("PEBBLE_VA_NOSLEEP", "1")
            // It refuses some good nonces, as authorities may at any moment.
            .env("PEBBLE_WFE_NONCEREJECT", "10")
            .env("PEBBLE_AUTHZREUSE", "0")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("pebble is not installed")?;
        self.process = Some(process);
        let deadline = Instant::now() + STARTS_WITHIN;
        while TcpStream::connect(self.address).is_err() {
            ensure!(Instant::now() < deadline, "pebble does not listen; it said:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Ends it, and with it what it knew.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.address)
    }

    /// Who vouches for its own certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("own.crt")
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// How many orders were placed.
    pub fn orders(&self) -> usize {
        self.log().matches("Added order").count()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
        let _ = self.names.kill();
        let _ = self.names.wait();
    }
}

fn free_tcp() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
