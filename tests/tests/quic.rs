//! Real QUIC clients whose addresses change, in front of real servers that issue connection ids with their server id.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use lb_datapath::{Datapath, DesiredServerId, Forward, ServerId, ServerIdLengths};
use lb_tests::dsr::{CLIENT_4, CLIENT_6, Dsr, backend_address, decapsulate_gue};
use lb_tests::forwarding_link::{VIP_4, VIP_6, desired};
use lb_tests::level::has_root;
use lb_tests::netns::Namespace;
use quinn::rustls::RootCertStore;
use quinn::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use quinn::{ClientConfig, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, ServerConfig, TokioRuntime};

const PORT: u16 = 443;
const GUE_PORT: u16 = 6080;
const BACKENDS: u8 = 3;
const CONFIG_ID: u8 = 1;
const SERVER_ID_BYTES: usize = 4;
const PATIENCE: Duration = Duration::from_secs(5);
/// Each is another port of the client's: that all of them reach the same of three servers by chance is one to 60,000.
const MOVES: u16 = 10;

fn server_id(number: u8) -> [u8; SERVER_ID_BYTES] {
    [0xa0, 0xb0, 0xc0, number]
}

/// Connection ids as the draft wants them: configuration, server id, and a nonce that never repeats.
struct Routable {
    number: u8,
    issued: u64,
}

impl ConnectionIdGenerator for Routable {
    fn generate_cid(&mut self) -> ConnectionId {
        self.issued += 1;
        let nonce = self.issued.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        ConnectionId::new(&[&[CONFIG_ID << 5][..], &server_id(self.number), &nonce].concat())
    }

    fn cid_len(&self) -> usize {
        1 + SERVER_ID_BYTES + 8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec![String::from("edge.test")]).expect("a certificate");
        let key = made.signing_key.serialize_der().try_into().expect("a key");
        Self { certificate: made.cert.der().clone(), key }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// On each backend and for each family: answers every stream with the server's number.
fn serve(backend: &Namespace, number: u8, identity: &Identity) {
    let (certificate, key) = (identity.certificate.clone(), identity.key.clone_key());
    backend.run(move || {
        decapsulate_gue(GUE_PORT).expect("a tunnel");
        let sockets = [VIP_4, VIP_6].map(|vip| {
            UdpSocket::bind(SocketAddr::new(vip.parse().expect("an address"), PORT)).expect("bound to the VIP")
        });
        std::thread::spawn(move || {
            runtime().block_on(async {
                let endpoints = sockets.map(|socket| {
                    let config = ServerConfig::with_single_cert(vec![certificate.clone()], key.clone_key());
                    let mut endpoint_config = EndpointConfig::default();
                    endpoint_config.cid_generator(move || Box::new(Routable { number, issued: 0 }));
                    let config = Some(config.expect("a usable certificate"));
                    Endpoint::new(endpoint_config, config, socket, Arc::new(TokioRuntime)).expect("an endpoint")
                });
                let [first, second] = endpoints.map(|endpoint| accept(endpoint, number));
                tokio::join!(first, second);
            });
        });
    });
}

async fn accept(endpoint: Endpoint, number: u8) {
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let connection = incoming.await.expect("a handshake");
            while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                receive.read_to_end(64).await.expect("a question");
                send.write_all(&[number]).await.expect("an answer");
                send.finish().expect("the end");
            }
        });
    }
}

/// The number of the server that answers.
async fn ask(connection: &quinn::Connection) -> Result<u8, String> {
    let answer = async {
        let (mut send, mut receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
        send.write_all(b"who are you").await.map_err(|error| error.to_string())?;
        send.finish().map_err(|error| error.to_string())?;
        let answer = receive.read_to_end(64).await.map_err(|error| error.to_string())?;
        answer.first().copied().ok_or_else(|| String::from("no answer"))
    };
    tokio::time::timeout(PATIENCE, answer).await.map_err(|_| String::from("no answer in time"))?
}

/// Connects from `addresses[0]`, then moves on to the next, ten times; returns how many answers came from the first
/// server before the connection was lost, if it was.
async fn roam(vip: &str, addresses: &[String], certificate: CertificateDer<'static>) -> u16 {
    let socket = |number: u16| {
        let address = &addresses[usize::from(number) % addresses.len()];
        UdpSocket::bind(SocketAddr::new(address.parse().expect("an address"), 0)).expect("a port")
    };
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a root");
    let mut endpoint =
        Endpoint::new(EndpointConfig::default(), None, socket(0), Arc::new(TokioRuntime)).expect("an endpoint");
    endpoint.set_default_client_config(ClientConfig::with_root_certificates(Arc::new(roots)).expect("a configuration"));
    let connecting = endpoint.connect(SocketAddr::new(vip.parse().expect("an address"), PORT), "edge.test");
    let connecting = tokio::time::timeout(PATIENCE, connecting.expect("begun"));
    let connection = connecting.await.expect("in time").expect("a connection");
    let first = ask(&connection).await.expect("an answer before any move");
    for moves in 1..=MOVES {
        endpoint.rebind(socket(moves)).expect("another socket");
        match ask(&connection).await {
            Ok(server) if server == first => {}
            Ok(server) => panic!("a connection to server {first} was answered by server {server}"),
            Err(_) => return moves - 1,
        }
    }
    MOVES
}

/// The data plane is unloaded when it goes out of scope, before the namespaces do.
struct Scene {
    datapath: Option<Datapath>,
    dsr: Dsr,
    identity: Identity,
}

impl Scene {
    fn new(forward: Forward, quic: ServerIdLengths) -> Self {
        let (dsr, identity) = (Dsr::new(BACKENDS.into()), Identity::new());
        let addresses: Vec<String> = (0..BACKENDS.into()).map(|number| backend_address(number, PORT)).collect();
        let mut desired = desired(forward, &addresses.iter().map(String::as_str).collect::<Vec<_>>());
        desired.services[0].quic = quic;
        let ids = (0..BACKENDS).zip(&desired.backends).map(|(number, backend)| DesiredServerId {
            pool: backend.pool.clone(),
            address: backend.address,
            id: ServerId::new(&server_id(number)).expect("a server id"),
        });
        desired.server_ids = ids.collect();
        (0..BACKENDS).zip(&dsr.backends).for_each(|(number, backend)| serve(backend, number, &identity));
        // The client's second address.
        dsr.client.ip("address add 10.1.0.3/24 dev uplink");
        dsr.client.ip("address add fd01::3/64 dev uplink nodad");
        let datapath = Some(dsr.forward(desired));
        Self { datapath, dsr, identity }
    }

    fn roam(&self, vip: &'static str) -> u16 {
        let addresses = if vip == VIP_4 { [CLIENT_4, "10.1.0.3"] } else { [CLIENT_6, "fd01::3"] }.map(String::from);
        let certificate = self.identity.certificate.clone();
        self.dsr.client.run(move || runtime().block_on(roam(vip, &addresses, certificate)))
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.datapath.take();
    }
}

#[test]
fn a_connection_survives_every_change_of_its_clients_address_and_port() {
    if !has_root("namespaces") {
        return;
    }
    for forward in [Forward::L2, Forward::Gue] {
        let scene = Scene::new(forward, ServerIdLengths::default().with(CONFIG_ID, SERVER_ID_BYTES as u8));
        for vip in [VIP_4, VIP_6] {
            assert_eq!(scene.roam(vip), MOVES, "{forward:?} {vip}");
        }
    }
}

/// What the test above would not show if any server could answer, or none of the moves reached another one.
#[test]
fn without_connection_ids_a_connection_is_lost_on_the_way() {
    if !has_root("namespaces") {
        return;
    }
    let scene = Scene::new(Forward::L2, ServerIdLengths::default());
    assert!(scene.roam(VIP_4) < MOVES);
}
