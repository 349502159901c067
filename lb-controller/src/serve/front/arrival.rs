//! Whose a connection is: its peer's, or whose a peer that we trust says.

use std::io;
use std::net::SocketAddr;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::{Current, Front};
use crate::proxy_protocol::{self, Carried, Ends, MOST_BYTES};

/// A connection that was accepted.
#[derive(Clone, Copy, Debug)]
pub(in crate::serve) struct Arrival {
    pub(in crate::serve) address: SocketAddr,
    /// Where the client connected to.
    pub(in crate::serve) local: SocketAddr,
    /// The peer spoke for others.
    pub(in crate::serve) is_proxied: bool,
    /// It is not the own connection of a peer that speaks for others.
    pub(in crate::serve) is_a_clients: bool,
}

impl Arrival {
    /// Reads the header that a connection of `wire` begins with, where there must be one. Of what follows it nothing is taken.
    ///
    /// Errors: there is none, or the connection broke.
    pub(in crate::serve) async fn of(
        stream: &mut TcpStream,
        wire: SocketAddr,
        local: SocketAddr,
        (front, current): (&Front, &Current),
    ) -> io::Result<Arrival> {
        if !current.config.is_proxied(wire.ip(), local) {
            return Ok(Arrival { address: wire, local, is_proxied: false, is_a_clients: true });
        }
        let read = Box::pin(read(stream)).await;
        front.counts.proxy_header(match &read {
            Ok(Carried::Client(_)) => "client",
            Ok(Carried::Nobody) => "nobody",
            Err(_) => "refused",
        });
        Ok(match read? {
            Carried::Client(Ends { source, destination }) => {
                Arrival { address: source, local: destination, is_proxied: true, is_a_clients: true }
            }
            Carried::Nobody => Arrival { address: wire, local, is_proxied: true, is_a_clients: false },
        })
    }
}

/// Looks at what came before taking it: what follows the header is TLS' to read.
async fn read(stream: &mut TcpStream) -> io::Result<Carried> {
    let mut header = [0; MOST_BYTES];
    let mut taken = 0;
    loop {
        let seen = taken + stream.peek(&mut header[taken..]).await?;
        let found = proxy_protocol::read(&header[..seen]);
        let found = found.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if found.is_none() && seen == taken {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before the end of its PROXY header"));
        }
        // All of a header that is not whole is header.
        let end = found.map_or(seen, |(_, length)| length);
        stream.read_exact(&mut header[taken..end]).await?;
        taken = end;
        if let Some((carried, _)) = found {
            return Ok(carried);
        }
    }
}
