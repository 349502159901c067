//! A real name server, NSD from Debian, with one zone of the test's.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

const STARTS_WITHIN: Duration = Duration::from_secs(20);

/// Dropping it ends it.
#[derive(Debug)]
pub struct NameServer {
    pub address: SocketAddr,
    folder: TempDir,
    process: Option<Child>,
    serial: u32,
}

impl NameServer {
    /// What is lacking to run one, if anything.
    pub fn lacking() -> Option<&'static str> {
        Command::new("nsd").arg("-v").output().is_err().then_some("needs Debian's nsd; run `cargo xtask setup`")
    }

    /// One for `app.example`, whose records are these lines.
    pub fn start(records: &str) -> Result<NameServer> {
        let folder = TempDir::new()?;
        let address = free()?;
        let path = folder.path().display();
        let settings = format!(
            "server:\n  ip-address: 127.0.0.1@{}\n  username: \"\"\n  chroot: \"\"\n  zonesdir: \"{path}\"\n  \
             pidfile: \"{path}/pid\"\n  xfrdfile: \"{path}/xfrd\"\n  zonelistfile: \"{path}/zones\"\n  \
             cookie-secret-file: \"\"\n  server-count: 1\n  zonefiles-check: yes\n\
             remote-control:\n  control-enable: no\n\
             zone:\n  name: \"app.example\"\n  zonefile: \"app.zone\"\n",
            address.port()
        );
        fs::write(folder.path().join("nsd.conf"), settings)?;
        let mut server = NameServer { address, folder, process: None, serial: 1 };
        server.write(records)?;
        server.run()?;
        Ok(server)
    }

    fn write(&mut self, records: &str) -> Result<()> {
        self.serial += 1;
        let head = format!(
            "$ORIGIN app.example.\n$TTL 1\n@ IN SOA ns hostmaster {} 3600 600 86400 1\n@ IN NS ns\nns IN A 127.0.0.1\n",
            self.serial
        );
        fs::write(self.folder.path().join("app.zone"), head + records)?;
        Ok(())
    }

    /// Starts the one that was stopped.
    pub fn run(&mut self) -> Result<()> {
        let log = fs::File::create(self.folder.path().join("log"))?;
        let mut nsd = Command::new("nsd");
        nsd.arg("-d").arg("-c").arg(self.folder.path().join("nsd.conf"));
        nsd.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.process = Some(nsd.spawn().context("starting nsd")?);
        let deadline = Instant::now() + STARTS_WITHIN;
        while std::net::TcpStream::connect(self.address).is_err() {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            ensure!(Instant::now() < deadline, "nsd does not answer; it said:\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Puts other records in the place of those there are. A server that is another process answers with these: an answer
    /// is all old or all new.
    pub fn change(&mut self, records: &str) -> Result<()> {
        self.write(records)?;
        if self.process.is_some() {
            self.stop();
            self.run()?;
        }
        Ok(())
    }

    /// Nobody answers any more.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = kill(Pid::from_raw(process.id() as i32), Signal::SIGTERM);
            let deadline = Instant::now() + Duration::from_secs(5);
            while Instant::now() < deadline && process.try_wait().is_ok_and(|ended| ended.is_none()) {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port that is free for both.
fn free() -> Result<SocketAddr> {
    for _ in 0..100 {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        if UdpSocket::bind(address).is_ok() {
            return Ok(address);
        }
    }
    anyhow::bail!("no port is free for both TCP and UDP")
}
