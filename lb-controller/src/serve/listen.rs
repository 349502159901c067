//! Listening sockets: one set a worker, so that workers never contend for an accept queue.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// Connections that may wait to be accepted. The kernel takes the smaller of this and `net.core.somaxconn`.
const BACKLOG: i32 = 4_096;

/// Why there is no listening socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(
        "port {} of {} is taken by another program; stop it (`ss -ltnp 'sport = :{}'` names it) or choose another port",
        .0.port(), .0.ip(), .0.port()
    )]
    Busy(SocketAddr),
    #[error("listening on {0} needs root or CAP_NET_BIND_SERVICE; give it, or choose a port from 1024 on")]
    NotPermitted(SocketAddr),
    #[error("no interface has the address {}; add it, or correct the address", .0.ip())]
    NoSuchAddress(SocketAddr),
    #[error("cannot listen on {address}: {source}")]
    Other { address: SocketAddr, source: std::io::Error },
}

/// For each worker one socket an address family, on a loopback port of the kernel's choice. Clients never connect to
/// it: the XDP program's companion at `sk_lookup` hands it the connections to a VIP that belong to this worker.
/// A machine without IPv6 gets IPv4 sockets only.
pub fn steered(workers: usize) -> Result<Vec<Vec<TcpListener>>, ListenError> {
    let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let v6 = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0);
    let serves_v6 = listen(v6, false).is_ok();
    if !serves_v6 {
        tracing::warn!(
            "only IPv4 clients are served: there is no IPv6 on the loopback interface (`ip -6 addr show lo`)"
        );
    }
    let of_one_worker = || {
        let families = [v4].into_iter().chain(serves_v6.then_some(v6));
        families.map(|address| listen(address, false)).collect()
    };
    (0..workers).map(|_| of_one_worker()).collect()
}

/// Likewise on two addresses, if there is a second one.
pub fn direct_all(
    address: SocketAddr,
    second: Option<SocketAddr>,
    workers: usize,
) -> Result<Vec<Vec<TcpListener>>, ListenError> {
    let mut sets = direct(address, workers)?;
    if let Some(second) = second {
        for (set, more) in sets.iter_mut().zip(direct(second, workers)?) {
            set.extend(more);
        }
    }
    Ok(sets)
}

/// More such sockets on an address that this edge has already, of sockets that it was handed.
pub fn more_direct(address: SocketAddr, workers: usize) -> Result<Vec<TcpListener>, ListenError> {
    (0..workers).map(|_| listen(address, true)).collect()
}

/// For each worker one socket on `address` itself, among which the kernel spreads connections (L7 alone, without XDP).
/// With port 0, all workers share the port that the kernel chose for the first.
pub fn direct(address: SocketAddr, workers: usize) -> Result<Vec<Vec<TcpListener>>, ListenError> {
    // SO_REUSEPORT would let us share the port with another program of the same user, a forgotten edge for instance,
    // and lose connections to it. Only a socket without it notices; the probe closes before anybody can connect.
    if address.port() != 0 {
        drop(listen(address, false)?);
    }
    let mut shared = address;
    let of_one_worker = || {
        let listener = listen(shared, true)?;
        shared = listener.local_addr().map_err(|source| ListenError::Other { address, source })?;
        Ok(vec![listener])
    };
    std::iter::repeat_with(of_one_worker).take(workers).collect()
}

fn listen(address: SocketAddr, shared: bool) -> Result<TcpListener, ListenError> {
    open(address, shared).map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => ListenError::Busy(address),
        std::io::ErrorKind::PermissionDenied => ListenError::NotPermitted(address),
        std::io::ErrorKind::AddrNotAvailable => ListenError::NoSuchAddress(address),
        _ => ListenError::Other { address, source },
    })
}

fn open(address: SocketAddr, shared: bool) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // After a restart, connections of the old process may still be in TIME_WAIT on this port.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // `[::]` must not also take the IPv4 port, which another listener may want.
        socket.set_only_v6(true)?;
    }
    // Before anybody can connect.
    prepare(SockRef::from(&socket))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Makes the connections of a listening socket send at once, and end when their other end has silently gone: after 60 s
/// without a byte the kernel asks, and gives up 60 s later. Idle tunnels have no timeout but this. On Linux a connection is
/// born with what its listener has, which spares each of them five system calls.
///
/// For sockets that another process made; ours are made so.
pub(super) fn prepare(listener: SockRef<'_>) -> std::io::Result<()> {
    listener.set_tcp_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4);
    listener.set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_a_direct_port() {
        let listeners = direct("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let ports: Vec<u16> =
            listeners.iter().flatten().map(|listener| listener.local_addr().unwrap().port()).collect();
        assert_eq!(ports.len(), 3);
        assert!(ports.iter().all(|&port| port == ports[0]));
    }

    #[test]
    fn connections_are_born_with_what_their_listener_has() {
        let listener = direct("127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0).remove(0);
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let accepted = SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().unwrap() && accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
    }

    #[test]
    fn workers_have_steered_ports_of_their_own() {
        let listeners = steered(2).unwrap();
        let port = |worker: usize| listeners[worker][0].local_addr().unwrap().port();
        assert_ne!(port(0), port(1));
    }

    #[test]
    fn a_taken_port_is_named_with_the_remedy() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = direct(address, 1).unwrap_err().to_string();
        assert!(error.contains(&format!("port {} of 127.0.0.1 is taken", address.port())), "{error}");
        assert!(error.contains("ss -ltnp"), "{error}");
    }

    #[test]
    fn an_edge_that_still_runs_is_noticed() {
        let first = direct("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let address = first[0][0].local_addr().unwrap();
        assert!(matches!(direct(address, 1), Err(ListenError::Busy(_))));
    }

    #[test]
    fn a_foreign_address_is_named() {
        let error = direct("192.0.2.1:0".parse().unwrap(), 1).unwrap_err();
        assert!(matches!(error, ListenError::NoSuchAddress(_)), "{error}");
    }
}
