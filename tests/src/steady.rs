//! Steady traffic through an edge that forwards, in which every lost packet is seen: clients send numbered datagrams and
//! talk over one TCP connection, and backends tell what arrived.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lb_datapath::{BackendState, Desired, DesiredBackend, DesiredService, Forward, Ports, Protocols};
use socket2::{Domain, Socket, Type};

use crate::lan::decapsulate;
use crate::netns::Namespace;

pub const VIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
pub const PORT: u16 = 7000;
/// Where the edge finds the backends on its interface `back`.
pub const BACKENDS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 9, 0, 2), Ipv4Addr::new(10, 9, 0, 3)];

const MAC: &str = "02:00:00:00:09:02";
const FLOWS: u16 = 16;
/// Between two datagrams: 2,000 a second.
const PACE: Duration = Duration::from_micros(500);
/// What is still under way when the clients have stopped arrives within this.
const SETTLES_WITHIN: Duration = Duration::from_secs(5);

/// A client, an edge with the interfaces `front` and `back`, and behind it one host that plays two backends: both
/// addresses and the VIP are its own, and it answers clients itself (direct server return).
pub struct Network {
    pub client: Namespace,
    pub edge: Namespace,
    pub backend: Namespace,
}

impl Network {
    pub fn new() -> Self {
        let network = Self { client: Namespace::new(), edge: Namespace::new(), backend: Namespace::new() };
        let Self { client, edge, backend } = &network;
        edge.connect("front", client, "uplink");
        edge.connect("back", backend, "uplink");
        edge.ip("address add 10.8.0.1/24 dev front");
        edge.ip("address add 10.9.0.1/24 dev back");
        client.ip("address add 10.8.0.2/24 dev uplink");
        client.ip(&format!("route add {VIP} via 10.8.0.1"));
        backend.ip(&format!("link set uplink address {MAC}"));
        for address in BACKENDS {
            backend.ip(&format!("address add {address}/24 dev uplink"));
            edge.ip(&format!("neighbour replace {address} dev back lladdr {MAC} nud permanent"));
        }
        backend.ip("route add default via 10.9.0.1");
        backend.ip(&format!("address add {VIP}/32 dev lo"));
        // Where no program takes them, packets to the VIP go nowhere instead of back and forth.
        edge.ip(&format!("route add blackhole {VIP}/32"));
        edge.set("/proc/sys/net/ipv4/ip_forward", "1");
        for (namespace, interfaces) in [(edge, ["all", "front", "back"].as_slice()), (backend, &["all", "uplink"])] {
            for interface in interfaces {
                namespace.set(&format!("/proc/sys/net/ipv4/conf/{interface}/rp_filter"), "0");
            }
        }
        client.leave_no_checksum_to("uplink");
        backend.take_from_xdp("uplink");
        backend.run(|| decapsulate().expect("raw sockets"));
        network
    }

    /// Starts clients and backends, and waits until datagrams of every flow arrive.
    pub fn steady(&self) -> Steady {
        let (stop, arrived) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let backend = (stop.clone(), arrived.clone());
        let (receiver, acceptor) = self.backend.run(move || {
            let (stop, arrived) = backend;
            let (socket, listener, echo_stop) = (receiving(), listening(), stop.clone());
            (
                thread::spawn(move || receive(&socket, &stop, &arrived)),
                thread::spawn(move || echo(&listener, &echo_stop)),
            )
        });
        let of_client = (stop.clone(), arrived.clone());
        let (sender, talker) = self.client.run(move || {
            let (stop, arrived) = of_client;
            knock(&arrived);
            let of_talker = stop.clone();
            (thread::spawn(move || send(&stop)), thread::spawn(move || talk(&of_talker)))
        });
        let steady = Steady { stop, arrived, sender, talker, receiver, acceptor };
        steady.flows_on();
        steady
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

/// A service on [`VIP`] that sends TCP and UDP on in this way, as they are or by [`Forward::Ipip`], to both backends.
pub fn desired(forward: Forward) -> Desired {
    let service = DesiredService {
        name: String::from("echo"),
        vips: vec![std::net::IpAddr::from(VIP).into()],
        ports: Ports::One(PORT),
        protocols: Protocols { tcp: true, udp: true },
        forward,
        pool: Some(String::from("app")),
        ..DesiredService::default()
    };
    let backend = |address: Ipv4Addr| DesiredBackend {
        pool: String::from("app"),
        address: SocketAddr::from((address, PORT)),
        weight: 1,
        state: BackendState::Healthy,
    };
    Desired { services: vec![service], backends: BACKENDS.map(backend).into(), ..Desired::default() }
}

/// Traffic under way.
pub struct Steady {
    stop: Arc<AtomicBool>,
    arrived: Arc<AtomicU64>,
    sender: JoinHandle<u64>,
    talker: JoinHandle<u64>,
    receiver: JoinHandle<BTreeSet<u64>>,
    acceptor: JoinHandle<()>,
}

/// What became of it.
#[derive(Debug)]
pub struct Tally {
    pub sent: u64,
    /// Numbers of datagrams that never arrived.
    pub lost: Vec<u64>,
    /// Questions answered over the one TCP connection.
    pub answers: u64,
}

impl Steady {
    /// How many datagrams have arrived.
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Waits until a hundred more datagrams have arrived.
    pub fn flows_on(&self) {
        const MORE: u64 = 100;
        let (begin, deadline) = (self.arrived(), Instant::now() + Duration::from_secs(10));
        while self.arrived() < begin + MORE {
            assert!(Instant::now() < deadline, "only {} datagrams arrived", self.arrived() - begin);
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the clients first, and the backends once everything has arrived, or nothing comes any more.
    pub fn finish(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().expect("the sender ended well");
        let answers = self.talker.join().expect("the TCP client ended well");
        let received = self.receiver.join().expect("the receiver ended well");
        self.acceptor.join().expect("the echo ended well");
        Tally { sent, lost: (0..sent).filter(|number| !received.contains(number)).collect(), answers }
    }
}

/// Sends until something arrives: neighbours are asked for at the first packets, some of which may be lost.
fn knock(arrived: &AtomicU64) {
    let deadline = Instant::now() + SETTLES_WITHIN;
    while arrived.load(Ordering::Relaxed) == 0 {
        assert!(Instant::now() < deadline, "nothing arrives");
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
        socket.send_to(&u64::MAX.to_be_bytes(), (VIP, PORT)).expect("sent");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Numbers datagrams from 0 and sends them over [`FLOWS`] flows in turn; how many in all.
fn send(stop: &AtomicBool) -> u64 {
    let socket = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
    let sockets: Vec<_> = (0..FLOWS).map(|_| socket()).collect();
    let mut sent = 0;
    for socket in sockets.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        socket.send_to(&u64::to_be_bytes(sent), (VIP, PORT)).expect("sent");
        sent += 1;
        thread::sleep(PACE);
    }
    sent
}

fn receiving() -> UdpSocket {
    const BUFFER_BYTES: usize = 8 << 20;
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
    // What a stalled receiver leaves waiting must not count as lost on the way.
    let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
    socket.bind(&SocketAddr::from((VIP, PORT)).into()).expect("bound");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("set");
    UdpSocket::from(socket)
}

/// On every address: health checks come to the backends' own.
fn listening() -> TcpListener {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).expect("bound");
    listener.set_nonblocking(true).expect("set");
    listener
}

fn receive(socket: &UdpSocket, stop: &AtomicBool, arrived: &AtomicU64) -> BTreeSet<u64> {
    let (mut received, mut deadline) = (BTreeSet::new(), None);
    loop {
        let mut number = [0; 8];
        match socket.recv(&mut number) {
            Ok(_) => {
                received.insert(u64::from_be_bytes(number));
                arrived.fetch_add(1, Ordering::Relaxed);
            }
            // Nothing for a while after the end: nothing is under way any more.
            Err(_) if stop.load(Ordering::Relaxed) => return received,
            Err(_) => {}
        }
        if stop.load(Ordering::Relaxed) {
            let end = *deadline.get_or_insert_with(|| Instant::now() + SETTLES_WITHIN);
            if Instant::now() > end {
                return received;
            }
        }
    }
}

/// Asks over one connection until told to stop; how often it was answered.
fn talk(stop: &AtomicBool) -> u64 {
    let mut connection = TcpStream::connect((VIP, PORT)).expect("connected");
    connection.set_nodelay(true).expect("set");
    let mut answers = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let question = [answers as u8; 512];
        connection.write_all(&question).expect("the connection lives");
        let mut answer = [0; 512];
        connection.read_exact(&mut answer).expect("the connection lives");
        assert_eq!(answer, question);
        answers += 1;
        thread::sleep(Duration::from_millis(1));
    }
    answers
}

/// Answers connections one after the other with what they say; ends when told to and none is left.
fn echo(listener: &TcpListener, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Ok((mut connection, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        connection.set_nonblocking(false).expect("set");
        connection.set_nodelay(true).expect("set");
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length) = connection.read(&mut bytes)
                && length > 0
                && connection.write_all(&bytes[..length]).is_ok()
            {}
        });
    }
}
