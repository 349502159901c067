//! Requests at a steady rate, each at a time that chance picks. Loads that ask from each connection every so many milliseconds
//! ask from all of them at once, or in turns, as their handshakes happened to end: the sooner those are done with, the more
//! requests come together, and a proxy that is quick with handshakes seems slow with requests.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lb_tests::client::any_server;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::answer::is_whole;

/// An answer that takes longer will not come.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where to connect
    #[arg(long)]
    to: SocketAddr,
    /// Without TLS
    #[arg(long)]
    plain: bool,
    /// Connections that stay open
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Requests of all connections together
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    per_second: u32,
    #[arg(long, default_value_t = 1)]
    seconds: u64,
    /// What to ask for
    #[arg(long, default_value = "/")]
    path: String,
}

/// Prints the microseconds that each request took, a line each; an answer that is not a good one is an error.
pub(crate) fn run(options: Options) -> Result<()> {
    let tls = Arc::new(any_server(b"http/1.1")?);
    let clients: Result<Vec<_>> = (0..options.connections).map(|_| Client::connect(&options, &tls)).collect();
    let (clients, begin) = (clients?, Instant::now());
    let latencies: Result<Vec<_>> = thread::scope(|scope| {
        let options = &options;
        let ask = |(client, seed): (Client, u64)| scope.spawn(move || client.ask(options, begin, seed));
        let all: Vec<_> = clients.into_iter().zip(0..).map(ask).collect();
        all.into_iter().map(|one| one.join().unwrap_or_else(|_| bail!("a client panicked"))).collect()
    });
    let latencies = latencies?.concat();
    let lines: String = latencies.iter().map(|latency| format!("{}\n", latency.as_micros())).collect();
    print!("{lines}");
    Ok(())
}

trait Stream: Read + Write + Send {}
impl<Any: Read + Write + Send> Stream for Any {}

/// One connection.
struct Client {
    stream: Box<dyn Stream>,
    request: String,
}

impl Client {
    /// After a first request, so that no handshake is under way any more.
    fn connect(options: &Options, tls: &Arc<ClientConfig>) -> Result<Client> {
        let tcp = TcpStream::connect(options.to).context("connecting")?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        let stream: Box<dyn Stream> = match options.plain {
            true => Box::new(tcp),
            false => {
                Box::new(StreamOwned::new(ClientConnection::new(tls.clone(), ServerName::from(options.to.ip()))?, tcp))
            }
        };
        let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", options.path, options.to);
        let mut client = Client { stream, request };
        client.exchange()?;
        Ok(client)
    }

    fn ask(mut self, options: &Options, begin: Instant, seed: u64) -> Result<Vec<Duration>> {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mean = Duration::from_secs(1) * options.connections / options.per_second;
        let (mut due, mut latencies) = (Duration::ZERO, Vec::new());
        loop {
            // How long it is from one of many independent events to the next.
            due += mean.mul_f64(-(1.0 - chance.f64()).ln());
            if due >= Duration::from_secs(options.seconds) {
                return Ok(latencies);
            }
            thread::sleep(due.saturating_sub(begin.elapsed()));
            let sent = Instant::now();
            self.exchange()?;
            latencies.push(sent.elapsed());
        }
    }

    fn exchange(&mut self) -> Result<()> {
        self.stream.write_all(self.request.as_bytes())?;
        self.stream.flush()?;
        let (mut answer, mut part) = (Vec::new(), [0; 16 * 1024]);
        while !is_whole(&answer) {
            match self.stream.read(&mut part) {
                Ok(read @ 1..) => answer.extend_from_slice(&part[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                ended => bail!("no good answer ({ended:?}): {}", String::from_utf8_lossy(&answer)),
            }
        }
        Ok(())
    }
}
