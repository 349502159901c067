//! Packets per second over a veth and back, the sender, the edge and the receiver sharing one CPU: beside the floor, and
//! SYN cookies beside the kernel's own.

use std::fs;
use std::net::TcpListener;
use std::time::Instant;

use aya::maps::PerCpuArray;
use aya::programs::{Xdp, xdp::XdpMode};
use aya::{Ebpf, EbpfLoader};
use lb_datapath::Reason;
use lb_tests::netns::Namespace;

use crate::cases::{self, Case, INTERFACE, UPLINK};
use crate::driver::{Companion, Driver};
use crate::measure::{median, stay_on_one_cpu};

/// One case's figures.
#[derive(serde::Serialize)]
pub(crate) struct Rate {
    pub(crate) case: &'static str,
    /// Packets that came back in a second.
    pub(crate) pps: f64,
    /// Of what it is compared with, in the same rounds.
    pub(crate) floor_pps: f64,
    /// `pps / floor_pps`.
    pub(crate) ratio: f64,
}

/// Where a sender's packets go to and come back from.
struct Line {
    /// Holds [`UPLINK`], and runs the sender.
    far: Namespace,
    near: Namespace,
}

impl Line {
    fn new() -> Self {
        let (far, near) = (Namespace::new(), Namespace::new());
        near.connect(INTERFACE, &far, UPLINK);
        Self { far, near }
    }

    /// All that arrives goes back as it is.
    fn floor(object: &[u8]) -> Self {
        let line = Self::new();
        let object = object.to_vec();
        line.near.run(move || Box::leak(Box::new(attached(&object, "floor", INTERFACE))));
        line
    }

    /// The kernel answers SYNs to the case's destination with cookies.
    fn kernel(case: &Case) -> Self {
        let line = Self::new();
        let own_mac: Vec<_> = case.frame[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        line.near.ip(&format!("link set {INTERFACE} address {}", own_mac.join(":")));
        line.near.ip(&format!("address add 10.9.0.1/16 dev {INTERFACE}"));
        line.near.ip("address add 198.51.100.13/32 dev lo");
        line.near.ip(&format!("neighbour add 10.9.1.1 lladdr 02:00:00:09:01:01 dev {INTERFACE}"));
        line.near.ip("route add default via 10.9.1.1");
        line.near.take_from_xdp(INTERFACE);
        line.near.run(|| {
            for (name, value) in [("tcp_syncookies", "2"), ("conf/all/rp_filter", "0"), ("conf/front/rp_filter", "0")] {
                fs::write(format!("/proc/sys/net/ipv4/{name}"), value)
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
            }
            Box::leak(Box::new(TcpListener::bind("198.51.100.13:443").expect("a free port")));
        });
        line
    }
}

/// Sends a case's packets and counts what comes back.
struct Sender {
    driver: Driver,
    sink: Ebpf,
}

impl Sender {
    /// In the calling thread's namespace, which has [`UPLINK`].
    fn new(object: &[u8], case: &Case) -> Self {
        stay_on_one_cpu();
        let sink = attached(object, "sink", UPLINK);
        Self { driver: Driver::at(object, case, Companion::Bare, UPLINK), sink }
    }

    fn arrived(&self) -> u64 {
        let map = self.sink.map("ARRIVED").expect("the sink counts");
        let arrived = PerCpuArray::<_, u64>::try_from(map).expect("an array for each CPU");
        arrived.get(&0, 0).expect("readable").iter().sum()
    }

    /// Packets per second that came back.
    fn rate(&self, packets: u32) -> f64 {
        let (before, begun) = (self.arrived(), Instant::now());
        self.driver.send(packets);
        (self.arrived() - before) as f64 / begun.elapsed().as_secs_f64()
    }
}

fn attached(object: &[u8], program: &str, interface: &str) -> Ebpf {
    let mut ebpf = EbpfLoader::new().load(object).expect("the object loads");
    let xdp: &mut Xdp = ebpf.program_mut(program).expect("in the object").try_into().expect("an XDP program");
    xdp.load().unwrap_or_else(|error| panic!("the verifier takes {program}: {error}"));
    xdp.attach(interface, XdpMode::Driver).unwrap_or_else(|error| panic!("{program} at {interface}: {error}"));
    ebpf
}

/// `edge` holds [`UPLINK`], at whose other end the data plane is attached.
pub(crate) fn all(object: &[u8], edge: &Namespace, only: &str, rounds: usize, packets: u32) -> Vec<Rate> {
    let case = |name: &'static str, of: &str| {
        let case = cases::all().into_iter().find(|case| case.name == of).expect("a case of that name");
        Case { name, ..case }
    };
    let one_flow = case("e2e_one_flow", "known_flow");
    let new_flows = case("e2e_new_flows", "distinct_syn");
    let cookies = case("syn_cookie_vs_kernel", "syn_cookie");
    assert_eq!(cookies.reason, Reason::SynCookieSent);
    let rows = [(Line::floor(object), one_flow), (Line::floor(object), new_flows), (Line::kernel(&cookies), cookies)];
    let wanted = rows.into_iter().filter(|(_, case)| case.name.contains(only));
    wanted.map(|(other, case)| compare(object, edge, &other.far, case, rounds, packets)).collect()
}

fn compare(object: &[u8], edge: &Namespace, other: &Namespace, case: Case, rounds: usize, packets: u32) -> Rate {
    let name = case.name;
    let [mut subject, mut floor] = [edge, other].map(|namespace| Some(at(namespace, object, case.clone())));
    let (mut rates, mut floor_rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let rate = measured(edge, &mut subject, packets);
        let floor_rate = measured(other, &mut floor, packets);
        assert!(rate > 0.0 && floor_rate > 0.0, "{name}: {rate} and {floor_rate} packets came back in a second");
        rates.push(rate);
        floor_rates.push(floor_rate);
        ratios.push(rate / floor_rate);
    }
    Rate { case: name, pps: median(rates), floor_pps: median(floor_rates), ratio: median(ratios) }
}

fn at(namespace: &Namespace, object: &[u8], case: Case) -> Sender {
    let object = object.to_vec();
    namespace.run(move || Sender::new(&object, &case))
}

fn measured(namespace: &Namespace, sender: &mut Option<Sender>, packets: u32) -> f64 {
    let own = sender.take().expect("put back after each round");
    let (own, rate) = namespace.run(move || {
        let rate = own.rate(packets);
        (own, rate)
    });
    *sender = Some(own);
    rate
}
