//! A gRPC server with the health service of PyPI's grpcio-health-checking.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct GrpcHealth {
    pub address: SocketAddr,
    orders: ChildStdin,
    said: BufReader<ChildStdout>,
    process: Child,
}

impl GrpcHealth {
    /// What is lacking to start one, if anything.
    pub fn lacking() -> Option<&'static str> {
        python().is_none().then_some("needs a gRPC server; run `cargo xtask test`")
    }

    /// One that knows no service yet; with `--without-health` one that does not speak the protocol.
    pub fn start(arguments: &[&str]) -> Result<GrpcHealth> {
        let python = python().context("LB_GRPC_PYTHON is not set; run the tests with `cargo xtask test`")?;
        let mut process = Command::new(python)
            .args(["-u", "-c", include_str!("health_server.py")])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the gRPC server")?;
        let orders = process.stdin.take().context("a pipe was asked for")?;
        let mut said = BufReader::new(process.stdout.take().context("a pipe was asked for")?);
        let mut port = String::new();
        said.read_line(&mut port)?;
        let port: u16 = port.trim().parse().context("the gRPC server tells no port")?;
        Ok(GrpcHealth { address: (Ipv4Addr::LOCALHOST, port).into(), orders, said, process })
    }

    /// `status` as the protocol writes it: `SERVING`, `NOT_SERVING`.
    pub fn set(&mut self, service: &str, status: &str) -> Result<()> {
        writeln!(self.orders, "{service} {status}")?;
        let mut answer = String::new();
        self.said.read_line(&mut answer)?;
        ensure!(answer.trim() == "set", "the gRPC server says {answer:?}");
        Ok(())
    }
}

impl Drop for GrpcHealth {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The Python that has grpcio-health-checking.
pub(crate) fn python() -> Option<PathBuf> {
    std::env::var_os("LB_GRPC_PYTHON").map(PathBuf::from)
}
