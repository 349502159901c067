//! A connection that is not ours to read: its bytes go to a backend as they come, and the answer's back.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use lb_common::Source;
use prometheus_client::metrics::counter::Counter;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::Instant;

use super::{Arrival, Front, Through};
use crate::config::{Balance, HashKey};
use crate::pool::{InFlight, NoPick, Pool, Wish};
use crate::proxy_protocol::{self, Ends};
use crate::serve::access_log::PassedThrough;
use crate::serve::{target, upstream};

/// Moved at once. All connections of a worker share the buffer: only what the other end does not take at once is kept.
const BUFFER_BYTES: usize = 64 * 1024;

/// Pieces that one connection moves before others have their turn.
const PIECES_IN_A_ROW: u32 = 16;

/// One such connection.
pub(in crate::serve) struct Passing {
    pub(in crate::serve) stream: TcpStream,
    /// What came on it already.
    pub(in crate::serve) hello: Vec<u8>,
    pub(in crate::serve) server_name: String,
    pub(in crate::serve) arrival: Arrival,
}

/// Passes a connection through to its end, and writes that down.
pub(in crate::serve) async fn pass(front: &Front, through: Through, passing: Passing) {
    let started = Instant::now();
    let Through { pool, idle } = through;
    let Passing { stream, hello, server_name, arrival } = passing;
    let open = front.counts.passing(&pool.name);
    open.inc();
    let moved = Moved {
        inward: Way::counted(front.counts.bytes(&pool.name, "in")),
        outward: Way::counted(front.counts.bytes(&pool.name, "out")),
        last: Cell::new(started),
    };
    let (backend, ended) = match connect(&pool, &arrival).await {
        Err(none) => (None, none),
        Ok((backend, in_flight)) => {
            let address = in_flight.backend().address;
            (Some(address), relay((stream, backend), (hello, &arrival), in_flight, (&pool, idle), &moved).await)
        }
    };
    open.dec();
    front.counts.passed(&pool.name, ended);
    front.access_log.passed_through(&PassedThrough {
        client: arrival.address.ip().to_canonical(),
        server_name: &server_name,
        pool: &pool.name,
        backend,
        bytes_in: moved.inward.bytes.get(),
        bytes_out: moved.outward.bytes.get(),
        duration: started.elapsed(),
        ended,
    });
}

/// A connection to one of the pool's backends, or why there is none.
async fn connect(pool: &Pool, arrival: &Arrival) -> Result<(TcpStream, InFlight), &'static str> {
    let hash = match pool.balance() {
        Balance::Hash(HashKey::Source) => Some(target::hash_of_source(arrival.address.ip())),
        // Of requests, which nobody here sees.
        _ => None,
    };
    let (wish, source) = (Wish { hash, stuck_to: None }, Source::of(arrival.address.ip()));
    let mut avoid = Vec::new();
    for _ in 0..pool.retries.attempts.max(1) {
        let in_flight = pool.pick_or_wait(&wish, &avoid, source).await.map_err(|none| match none {
            NoPick::Busy => "overloaded",
            NoPick::Nobody if avoid.is_empty() => "no_backend",
            NoPick::Nobody => "backend_failed",
        })?;
        match upstream::connect_stream(in_flight.backend().address, pool.timeouts.connect).await {
            Ok(stream) => return Ok((stream, in_flight)),
            Err(error) => in_flight.backend().failed(format!("cannot connect: {error}")),
        }
        if !pool.retries.on.connect {
            break;
        }
        avoid.push(in_flight.backend().clone());
    }
    Err("backend_failed")
}

/// How much has moved, and when something did last.
struct Moved {
    inward: Way,
    outward: Way,
    last: Cell<Instant>,
}

/// One direction.
struct Way {
    bytes: Cell<u64>,
    counter: Counter,
}

impl Way {
    fn counted(counter: Counter) -> Way {
        Way { bytes: Cell::new(0), counter }
    }

    fn add(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes as u64);
        self.counter.inc_by(bytes as u64);
    }
}

/// How it ended.
async fn relay(
    (mut client, mut backend): (TcpStream, TcpStream),
    (hello, arrival): (Vec<u8>, &Arrival),
    mut in_flight: InFlight,
    (pool, idle): (&Arc<Pool>, Duration),
    moved: &Moved,
) -> &'static str {
    in_flight.sent(Instant::now().into_std());
    let ends = Ends { source: canonical(arrival.address), destination: arrival.local };
    let header = pool.send_proxy_protocol.map(|version| match arrival.is_a_clients {
        true => proxy_protocol::of_client(version, ends),
        false => proxy_protocol::of_nobody(version).to_vec(),
    });
    let first = [header.unwrap_or_default(), hello].concat();
    let copied = async {
        let (from_client, to_client) = client.split();
        let (from_backend, mut to_backend) = backend.split();
        to_backend.write_all(&first).await.map_err(|_| BACKEND)?;
        moved.inward.add(first.len());
        drop(first);
        let inward = copy((from_client, CLIENT), (to_backend, BACKEND), (&moved.inward, &moved.last));
        let outward = copy((from_backend, BACKEND), (to_client, CLIENT), (&moved.outward, &moved.last));
        tokio::try_join!(inward, outward).map(drop)
    };
    let ended = tokio::select! {
        copied = copied => copied.err().unwrap_or("ended"),
        () = quiet(&moved.last, idle) => "idle",
    };
    // Whoever takes a connection and says nothing on it at all is not serving, unless the client would not wait.
    match moved.outward.bytes.get() {
        0 if ended == CLIENT => {}
        0 => in_flight.backend().failed(format!("not a byte on a connection that was passed through: {ended}")),
        _ => in_flight.answered(StatusCode::OK),
    }
    ended
}

/// Whose end of a connection broke.
type Broke = &'static str;
const CLIENT: Broke = "client_broke";
const BACKEND: Broke = "backend_broke";

/// Copies one direction to its end, and tells the other side of that end.
async fn copy(
    (from, from_whom): (ReadHalf<'_>, Broke),
    (mut to, to_whom): (WriteHalf<'_>, Broke),
    (way, last): (&Way, &Cell<Instant>),
) -> Result<(), Broke> {
    let mut pieces = 0;
    loop {
        from.readable().await.map_err(|_| from_whom)?;
        let (read, left) = match piece(&from, &to) {
            Ok(piece) => piece,
            Err(Piece::NotYet) => continue,
            Err(Piece::End) => return to.shutdown().await.map_err(|_| to_whom),
            Err(Piece::NotRead) => return Err(from_whom),
            Err(Piece::NotWritten) => return Err(to_whom),
        };
        last.set(Instant::now());
        if !left.is_empty() {
            to.write_all(&left).await.map_err(|_| to_whom)?;
            last.set(Instant::now());
        }
        way.add(read);
        pieces += 1;
        if pieces % PIECES_IN_A_ROW == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Why there is no piece.
enum Piece {
    NotYet,
    End,
    NotRead,
    NotWritten,
}

/// Reads a piece, and writes of it what is taken at once: how much was read, and what is left to write.
fn piece(from: &ReadHalf<'_>, to: &WriteHalf<'_>) -> Result<(usize, Vec<u8>), Piece> {
    thread_local!(static BUFFER: RefCell<Box<[u8; BUFFER_BYTES]>> = RefCell::new(Box::new([0; BUFFER_BYTES])));
    BUFFER.with_borrow_mut(|buffer| {
        let read = match from.try_read(&mut buffer[..]) {
            Ok(0) => return Err(Piece::End),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Piece::NotYet),
            Err(_) => return Err(Piece::NotRead),
        };
        let written = match to.try_write(&buffer[..read]) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return Err(Piece::NotWritten),
        };
        Ok((read, buffer[written..read].to_vec()))
    })
}

/// Waits until nothing has moved for `idle`.
async fn quiet(last: &Cell<Instant>, idle: Duration) {
    while last.get().elapsed() < idle {
        tokio::time::sleep_until(last.get() + idle).await;
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
