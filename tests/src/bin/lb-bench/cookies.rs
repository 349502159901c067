//! SYNs that are answered with a cookie.

use std::fs;
use std::net::TcpListener;
use std::os::fd::AsFd;

use lb_datapath::{DesiredService, Limits, Ports, Reason, SynCookies, WorkerSocket};
use lb_tests::netns::Namespace;
use lb_tests::packet::Packet;
use lb_tests::program::Bench;

use crate::cases::{ANY_SOURCE, Case, List, padded};

const SERVICE: &str = "cookies";
const VIP: &str = "198.51.100.13";

/// Without options, and with those that Linux sends.
pub(crate) fn cases() -> Vec<Case> {
    const USUAL_OPTIONS: [u8; 20] = [2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];
    let syn = Packet::new("0.0.0.0:40000", &format!("{VIP}:443"));
    let case = |name, packet: Packet| Case {
        name,
        frame: padded(packet.build()),
        varied_bits: ANY_SOURCE,
        list: List::Short,
        reason: Reason::SynCookieSent,
    };
    vec![case("syn_cookie", syn.clone()), case("syn_cookie_options", syn.tcp_options(&USUAL_OPTIONS))]
}

pub(crate) fn service(limits: Limits) -> DesiredService {
    DesiredService {
        name: SERVICE.into(),
        vips: vec![VIP.parse().expect("a VIP")],
        ports: Ports::One(443),
        limits,
        syn_cookies: SynCookies::Always { threshold_syns_per_second: 10_000 },
        ..DesiredService::default()
    }
}

/// To be called before the programs are loaded, which then know how the kernel takes cookies.
pub(crate) fn prepare_kernel(host: &Namespace) {
    host.run(|| {
        for name in ["tcp_syncookies", "tcp_timestamps"] {
            fs::write(format!("/proc/sys/net/ipv4/{name}"), "2").unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    });
}

/// The socket that a connection would get: nothing is answered without one. It must live as long as the bench.
pub(crate) fn listen(bench: &mut Bench) -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let socket = WorkerSocket { service: SERVICE, worker: 0, socket: listener.as_fd(), ipv6: false };
    bench.datapath.steer_to(&[socket]).expect("steered");
    listener
}
