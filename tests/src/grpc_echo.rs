//! A server and a client of gRPC's own making (PyPI's grpcio), for a service that echoes.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::grpc_health::python;

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct GrpcEcho {
    pub address: SocketAddr,
    said: BufReader<ChildStdout>,
    process: Child,
}

impl GrpcEcho {
    /// In plain, or with a certificate and its key.
    pub fn start(pair: Option<(&Path, &Path)>) -> Result<GrpcEcho> {
        let mut command = script()?;
        command.arg("serve").args(pair.iter().flat_map(|(certificate, key)| [certificate, key]));
        let mut process = command.stdout(Stdio::piped()).spawn().context("starting the gRPC server")?;
        let mut said = BufReader::new(process.stdout.take().context("a pipe was asked for")?);
        let port: u16 = line(&mut said)?.parse().context("the gRPC server tells no port")?;
        Ok(GrpcEcho { address: (Ipv4Addr::LOCALHOST, port).into(), said, process })
    }

    /// What it says next.
    pub fn says(&mut self) -> Result<String> {
        line(&mut self.said)
    }
}

impl Drop for GrpcEcho {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Calls the service at `address`, whose certificate must be of `authority`; what the client saw.
pub fn call(address: SocketAddr, authority: &Path) -> Result<String> {
    let output = script()?.arg("call").arg(address.to_string()).arg(authority).output()?;
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{said}\n{complained}");
    Ok(said.into_owned())
}

fn script() -> Result<Command> {
    let python = python().context("LB_GRPC_PYTHON is not set; run the tests with `cargo xtask test`")?;
    let mut command = Command::new(python);
    command.args(["-u", "-c", include_str!("grpc_echo.py")]);
    Ok(command)
}

fn line(said: &mut BufReader<ChildStdout>) -> Result<String> {
    let mut line = String::new();
    said.read_line(&mut line)?;
    Ok(line.trim().to_owned())
}
