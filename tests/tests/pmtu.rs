//! Bulk transfers over ways that are narrower than their ends know: TCP and UDP of the kernel, on both sides.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use lb_datapath::{Datapath, Desired, Forward, Reason, SourceClass};
use lb_tests::dsr::{Dsr, backend_address, decapsulate_gue};
use lb_tests::forwarding_link::{VIP_4, VIP_6, desired};
use lb_tests::level::has_root;
use lb_tests::netns::Namespace;

const PORT: u16 = 443;
const GUE_PORT: u16 = 6080;
const BULK_BYTES: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// On each backend and for each family: takes all that comes, then sends its own number and as much as it was asked for.
fn serve(backend: &Namespace, number: u8) {
    backend.run(move || {
        decapsulate_gue(GUE_PORT).expect("a tunnel");
        for vip in [VIP_4, VIP_6] {
            let vip = SocketAddr::new(vip.parse().expect("an address"), PORT);
            let listener = TcpListener::bind(vip).expect("bound to the VIP");
            thread::spawn(move || listener.incoming().for_each(|stream| answer(stream.expect("accepted"), number)));
            let socket = UdpSocket::bind(vip).expect("bound to the VIP");
            thread::spawn(move || {
                let mut datagram = [0; 2048];
                while let Ok((bytes, client)) = socket.recv_from(&mut datagram) {
                    // Short, so that the way back is no matter.
                    let _ = socket.send_to(&bytes.to_be_bytes(), client);
                }
            });
        }
    });
}

fn answer(mut stream: TcpStream, number: u8) {
    thread::spawn(move || {
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        let mut asked = Vec::new();
        // The client may give up first, and says so itself.
        let _ = stream.read_to_end(&mut asked);
        let _ = stream.write_all(&[&[number][..], &vec![0x62; if asked.len() < 2 { BULK_BYTES } else { 0 }]].concat());
    });
}

/// Sends `bytes`, and returns which backend answered with how much.
fn transfer(vip: &'static str, bytes: usize) -> (u8, usize) {
    let address = SocketAddr::new(vip.parse().expect("an address"), PORT);
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap_or_else(|error| panic!("{vip}: {error}"));
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream.set_write_timeout(Some(PATIENCE)).expect("set");
    stream.write_all(&vec![0x61; bytes]).unwrap_or_else(|error| panic!("{vip}, sending: {error}"));
    stream.shutdown(Shutdown::Write).expect("half closed");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap_or_else(|error| panic!("{vip}, after {} bytes: {error}", answer.len()));
    (answer[0], answer.len() - 1)
}

struct Scene {
    dsr: Dsr,
    datapath: Option<Datapath>,
}

impl Scene {
    fn new(forward: Forward, backends: usize) -> Self {
        Self::announcing(forward, backends, 0)
    }

    /// SYNs announce at most `max_segment_bytes`; 0: what they announce.
    fn announcing(forward: Forward, backends: usize, max_segment_bytes: u16) -> Self {
        let dsr = Dsr::new(backends);
        let addresses: Vec<String> = (0..backends).map(|number| backend_address(number, PORT)).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let mut desired: Desired = desired(forward, &addresses);
        desired.services.iter_mut().for_each(|service| service.max_segment_bytes = max_segment_bytes);
        (0_u8..).zip(&dsr.backends).for_each(|(number, backend)| serve(backend, number));
        let datapath = Some(dsr.forward(desired));
        Self { dsr, datapath }
    }

    fn packets(&self, reason: Reason) -> u64 {
        let reader = self.datapath.as_ref().expect("loaded").reader();
        reader.stats().expect("counters").packets(reason, SourceClass::Unknown)
    }

    /// The backends that answered with how much, over so many connections.
    fn transfer(&self, vip: &'static str, bytes: usize, times: usize) -> (BTreeSet<u8>, BTreeSet<usize>) {
        let answers = self.dsr.client.run(move || (0..times).map(|_| transfer(vip, bytes)).collect::<Vec<_>>());
        answers.into_iter().unzip()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // The lock goes with it: unloading comes next.
        self.datapath.take();
    }
}

#[test]
fn a_backend_hears_by_way_of_the_vip_that_the_clients_link_is_narrow() {
    if !has_root("namespaces") {
        return;
    }
    for forward in [Forward::L2, Forward::Gue] {
        let scene = Scene::new(forward, 2);
        // The client does not know, and announces segments of 1460 bytes.
        scene.dsr.router.ip("link set client mtu 1300");
        for vip in [VIP_4, VIP_6] {
            let before = scene.packets(Reason::IcmpForwarded);
            let (backends, answers) = scene.transfer(vip, 0, 12);
            assert_eq!(answers, [BULK_BYTES].into(), "{forward:?} {vip}");
            assert_eq!(backends, [0, 1].into(), "each had its share");
            let errors = scene.packets(Reason::IcmpForwarded) - before;
            assert!(errors >= 2, "{forward:?} {vip}: {errors} errors for two backends");
        }
    }
}

#[test]
fn a_backend_to_which_smaller_segments_are_announced_sends_none_that_the_clients_link_does_not_take() {
    if !has_root("namespaces") {
        return;
    }
    for forward in [Forward::L2, Forward::Gue] {
        // 1300 bytes less IPv6 and TCP.
        let scene = Scene::announcing(forward, 2, 1240);
        scene.dsr.router.ip("link set client mtu 1300");
        for vip in [VIP_4, VIP_6] {
            assert_eq!(scene.transfer(vip, 0, 12), ([0, 1].into(), [BULK_BYTES].into()), "{forward:?} {vip}");
        }
        assert_eq!(scene.packets(Reason::IcmpForwarded), 0, "{forward:?}: nobody had to be told");
    }
}

#[test]
fn a_client_whose_packets_do_not_fit_the_tunnel_is_told_and_succeeds() {
    if !has_root("namespaces") {
        return;
    }
    let scene = Scene::new(Forward::Gue, 1);
    for vip in [VIP_4, VIP_6] {
        let before = scene.packets(Reason::TooBigAnswered);
        assert_eq!(scene.transfer(vip, BULK_BYTES, 2), ([0].into(), [0].into()), "{vip}");
        let told = scene.packets(Reason::TooBigAnswered) - before;
        assert!((1..=100).contains(&told), "{vip}: told {told} times");
        // The kernel remembers it for every protocol; UDP starts where TCP left off.
        let received = scene.dsr.client.run(move || largest_datagram(vip));
        assert_eq!(received, 1452, "{vip}");
    }
}

#[test]
fn a_datagram_that_does_not_fit_is_sent_in_parts_once_the_client_is_told() {
    if !has_root("namespaces") {
        return;
    }
    let scene = Scene::new(Forward::Gue, 1);
    for vip in [VIP_4, VIP_6] {
        let received = scene.dsr.client.run(move || largest_datagram(vip));
        assert_eq!(received, 1452, "{vip}");
    }
    assert!(scene.packets(Reason::TooBigAnswered) >= 2);
}

/// Sends a datagram that fills the client's own link, again and again until it arrives; returns the bytes that did.
fn largest_datagram(vip: &'static str) -> usize {
    const BYTES: usize = 1452;
    let local = if vip == VIP_4 { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(local).expect("a socket");
    socket.connect(SocketAddr::new(vip.parse().expect("an address"), PORT)).expect("connected");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("set");
    for _ in 0..20 {
        // An error may be the answer to the datagram before.
        let _ = socket.send(&[0x61; BYTES]);
        let mut answer = [0; 8];
        if socket.recv(&mut answer).is_ok_and(|bytes| bytes == 8) {
            return usize::from_be_bytes(answer);
        }
    }
    panic!("{vip}: no datagram of {BYTES} bytes arrived");
}

#[test]
fn backends_that_announce_what_fits_the_tunnel_need_no_error_at_all() {
    if !has_root("namespaces") {
        return;
    }
    let scene = Scene::new(Forward::Gue, 1);
    // 1500 bytes less outer IPv4 and UDP, less the inner headers.
    scene.dsr.backends[0].ip("route replace default via 10.4.0.1 advmss 1432");
    scene.dsr.backends[0].ip("-6 route replace default via fd04:0::1 advmss 1412");
    for vip in [VIP_4, VIP_6] {
        assert_eq!(scene.transfer(vip, BULK_BYTES, 4), ([0].into(), [0].into()), "{vip}");
    }
    assert_eq!(scene.packets(Reason::TooBigAnswered) + scene.packets(Reason::TooBigForBackend), 0);
}
