//! `lb-peer`: the edge's neighbours in the demo, as one program: an origin behind it, clients and a flood before it.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use lb_tests::client::{Client, Protocol};
use lb_tests::flood::Flood;
use lb_tests::origin::Origin;
use lb_tests::veth::take_from_xdp;
use tokio::net::TcpListener;

/// The edge's neighbours in the demo.
#[derive(Parser)]
enum Command {
    /// Serve HTTP/1.1 and tell what was received
    Origin {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        name: String,
    },
    /// Send pieces of a body and wait for each to come back
    Stream {
        #[command(flatten)]
        to: To,
        #[arg(long)]
        http2: bool,
    },
    /// Send a WebSocket message and wait for its echo
    Websocket {
        #[command(flatten)]
        to: To,
    },
    /// Make a veth interface take what XDP at its other end sends back, until stopped
    TakeFromXdp { interface: String },
    /// Send TCP SYNs, bounded in number and time; prints how many left
    Flood {
        #[arg(long)]
        to: SocketAddrV4,
        #[arg(long)]
        first_source: Ipv4Addr,
        #[arg(long, default_value_t = 1)]
        sources: u32,
        #[arg(long)]
        packets_per_second: u64,
        #[arg(long)]
        seconds: u64,
    },
}

#[derive(clap::Args)]
struct To {
    #[arg(long)]
    edge: SocketAddr,
    #[arg(long)]
    path: String,
    #[arg(long, default_value = "")]
    cookie: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Command::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Origin { listen, name } => {
            let listener = TcpListener::bind(listen).await.with_context(|| format!("listening on {listen}"))?;
            Origin::new(name).serve(listener).await
        }
        Command::Stream { to, http2 } => {
            let protocol = if http2 { Protocol::Http2 } else { Protocol::Http1 };
            to.client().stream_both_ways(protocol, &to.path).await
        }
        Command::Websocket { to } => to.client().websocket_echo(&to.path).await,
        Command::TakeFromXdp { interface } => {
            let _attached = take_from_xdp(&interface)?;
            std::future::pending().await
        }
        Command::Flood { to, first_source, sources, packets_per_second, seconds } => {
            let duration = Duration::from_secs(seconds);
            let sent = Flood { target: to, first_source, sources, packets_per_second, duration }.run()?;
            println!("{sent}");
            Ok(())
        }
    }
}

impl To {
    fn client(&self) -> Client {
        Client { edge: self.edge, authority: None, cookie: self.cookie.clone() }
    }
}
