//! Ten million SYNs of forged sources through the loaded program: who is not part of the flood notices nothing.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use lb_datapath::{
    BackendState, Desired, DesiredBackend, DesiredService, Forward, Limits, Ports, Rate, Rates, Reason, SourceClass,
    Verdict,
};
use lb_tests::driver::{self, Driver};
use lb_tests::level::has_root;
use lb_tests::netns::Namespace;
use lb_tests::packet::{ACK, Packet, SYN};
use lb_tests::program::{Bench, with_bench_in};

const BACKENDS: u8 = 100;
const ETHERNET_BYTES: usize = 14;

/// Of each source.
const SYNS_PER_SECOND: u64 = 10;

fn desired(weights: &[u8], limits: Limits) -> Desired {
    let service = DesiredService {
        name: String::from("web"),
        vips: ["198.51.100.10", "2001:db8:100::10"].map(|vip| vip.parse().expect("a VIP")).to_vec(),
        ports: Ports::One(443),
        limits,
        forward: Forward::Ipip,
        pool: Some(String::from("app")),
        ..DesiredService::default()
    };
    let backend = |(number, weight): (u8, &u8)| DesiredBackend {
        pool: String::from("app"),
        address: address(number),
        weight: *weight,
        state: BackendState::Healthy,
    };
    Desired { services: vec![service], backends: (1..).zip(weights).map(backend).collect(), ..Desired::default() }
}

fn address(backend: u8) -> SocketAddr {
    (Ipv4Addr::new(10, 9, 1, backend), 443).into()
}

/// Loads the programs where all backends are behind one router.
fn with_backends(desired: Desired, test: impl FnOnce(&mut Bench, &[u8]) + Send + 'static) {
    if !has_root("program runs") {
        return;
    }
    let Some(object) = driver::object() else { return };
    let (edge, peer) = (Namespace::new(), Namespace::new());
    edge.connect("way", &peer, "uplink");
    edge.ip("address add 10.9.0.1/24 dev way");
    edge.ip("neighbour add 10.9.0.2 lladdr 02:00:00:00:09:02 dev way nud permanent");
    edge.ip("route add 10.9.1.0/24 via 10.9.0.2");
    with_bench_in(&edge, &[], desired, move |bench| test(bench, &object));
}

/// TCP of one family to the service. The program reads no checksum: sources are written into frames that are there.
#[derive(Clone, Copy)]
struct Family {
    is_ipv4: bool,
}

impl Family {
    fn frame(self, flags: u8) -> Vec<u8> {
        let packet = match self.is_ipv4 {
            true => Packet::new("0.0.0.0:40000", "198.51.100.10:443"),
            false => Packet::new("[2000::1]:40000", "[2001:db8:100::10]:443"),
        };
        packet.tcp_flags(flags).build()
    }

    /// From the client with this number, each an address (IPv6: a /64) of its own.
    fn from(self, client: u32, port: u16, flags: u8) -> Vec<u8> {
        let mut frame = self.frame(flags);
        let ports_at = if self.is_ipv4 {
            frame[26..30].copy_from_slice(&(u32::from(Ipv4Addr::new(192, 0, 0, 0)) + client).to_be_bytes());
            34
        } else {
            let source = Ipv6Addr::from_bits(0x3fff_0db8_u128 << 96 | u128::from(client) << 64 | 1);
            frame[22..38].copy_from_slice(&source.octets());
            54
        };
        frame[ports_at..ports_at + 2].copy_from_slice(&port.to_be_bytes());
        frame
    }

    /// Bits of the source address that a flood draws: all of IPv4, and of 2000::/3 both words that make a /64.
    const fn drawn(self) -> [u32; 2] {
        if self.is_ipv4 { [0, u32::MAX] } else { [u32::MAX >> 3, u32::MAX] }
    }
}

/// The backend that gets the frame: the last number of the outer header's destination.
fn backend_of(bench: &Bench, frame: &[u8]) -> u8 {
    let outcome = bench.datapath.try_out(frame, 1).expect("judged");
    assert_eq!(outcome.verdict, Verdict::Redirect);
    let outer = &outcome.frame[ETHERNET_BYTES..];
    assert_eq!(outer[0], 0x45);
    assert_eq!(outer[16..19], [10, 9, 1]);
    outer[19]
}

fn new_flows(bench: &Bench) -> BTreeMap<SocketAddr, u64> {
    let backends = bench.reader.backends().expect("listed").into_iter();
    backends.map(|backend| (backend.address, backend.counters.new_flows)).collect()
}

/// How many flows were new to the backends that are there now.
fn new_since(bench: &Bench, before: &BTreeMap<SocketAddr, u64>) -> u64 {
    new_flows(bench).iter().map(|(address, flows)| flows - before[address]).sum()
}

/// Clients that each open a connection as often as they may, whatever the time the rest takes.
struct Clients {
    family: Family,
    due: Vec<Instant>,
    sent: u32,
    lost: u32,
}

impl Clients {
    const COUNT: u32 = 1000;
    const PAUSE: Duration = Duration::from_millis(1000 / SYNS_PER_SECOND);
    const FIRST: u32 = 10_000;

    fn new(family: Family) -> Self {
        let start = Instant::now();
        let due = (0..Self::COUNT).map(|client| start + Self::PAUSE * client / Self::COUNT).collect();
        Self { family, due, sent: 0, lost: 0 }
    }

    fn send_what_is_due(&mut self, bench: &Bench) {
        for (client, due) in (Self::FIRST..).zip(&mut self.due) {
            let now = Instant::now();
            if *due > now {
                continue;
            }
            *due = now + Self::PAUSE;
            let frame = self.family.from(client, 1024 + (self.sent % 60_000) as u16, SYN);
            let outcome = bench.datapath.try_out(&frame, 1).expect("judged");
            self.sent += 1;
            self.lost += u32::from(outcome.verdict != Verdict::Redirect);
        }
    }
}

/// Connections whose client has answered the SYN-ACK, and the backend of each.
struct Established {
    family: Family,
    backends: Vec<u8>,
}

impl Established {
    const COUNT: u32 = 1000;
    const PORT: u16 = 40_000;

    fn open(bench: &Bench, family: Family) -> Self {
        let backends = (0..Self::COUNT).map(|client| {
            let backend = backend_of(bench, &family.from(client, Self::PORT, SYN));
            assert_eq!(backend_of(bench, &family.from(client, Self::PORT, ACK)), backend);
            backend
        });
        Self { family, backends: backends.collect() }
    }

    /// Where the next packet of each goes.
    fn now(&self, bench: &Bench) -> Vec<u8> {
        (0..Self::COUNT).map(|client| backend_of(bench, &self.family.from(client, Self::PORT, ACK))).collect()
    }

    /// The backend leaves, and with it nobody but its own flows. None of the others is even looked up anew.
    fn stay_when_it_leaves(&mut self, bench: &mut Bench, desired: &mut Desired, leaver: u8) {
        let before = new_flows(bench);
        desired.backends.retain(|backend| backend.address != address(leaver));
        bench.datapath.apply(desired).expect("applied");
        let now = self.now(bench);
        let mut homeless = 0;
        for (client, (before, now)) in self.backends.iter().zip(&now).enumerate() {
            assert_ne!(*now, leaver, "client {client}");
            assert!(before == now || *before == leaver, "client {client} moved from {before} to {now}");
            homeless += u64::from(*before == leaver);
        }
        assert_eq!(new_since(bench, &before), homeless, "backend {leaver} left");
        self.backends = now;
    }
}

fn flood(family: Family, packets: u32) {
    const CHUNK: u32 = 50_000;
    let limit = Rate { per_second: SYNS_PER_SECOND, burst: SYNS_PER_SECOND };
    let limits = Limits { source: Rates::of_syns(limit), ..Limits::default() };
    let mut desired = desired(&[1; BACKENDS as usize], limits);
    with_backends(desired.clone(), move |bench, object| {
        let mut established = Established::open(bench, family);
        let half_open = |bench: &Bench| {
            let before = new_flows(bench);
            for client in 20_000..21_000 {
                backend_of(bench, &family.from(client, 40_000, SYN));
            }
            new_since(bench, &before)
        };
        assert_eq!([half_open(bench), half_open(bench)], [1000, 0], "half-open flows are remembered too, for a while");

        let mut driver = Driver::load(object, &family.frame(SYN), family.drawn());
        driver.set_subject(bench.datapath.xdp_program().expect("loaded"));
        let before = bench.reader.stats().expect("counters");
        let mut clients = Clients::new(family);
        let start = Instant::now();
        for _ in 0..packets / CHUNK {
            driver.run(CHUNK);
            clients.send_what_is_due(bench);
        }
        let Clients { sent, lost, .. } = clients;
        println!("{packets} spoofed SYNs in {:?}; of {sent} others {lost} were lost", start.elapsed());
        assert_eq!(lost, 0, "of {sent}");
        assert!(sent >= Clients::COUNT * 3, "{sent}");
        let after = bench.reader.stats().expect("counters");
        let ended = |reason| after.packets(reason, SourceClass::Unknown) - before.packets(reason, SourceClass::Unknown);
        let [admitted, limited] = [Reason::Admitted, Reason::SourceSynLimit].map(ended);
        assert_eq!(admitted + limited, u64::from(packets + sent), "all of them were SYNs to the service");
        // Each forged source comes once or twice: hardly any is over its limit.
        assert!(limited < u64::from(packets) / 1000, "{limited}");

        assert_eq!(established.now(bench), established.backends, "after the flood");
        let forgotten = half_open(bench);
        assert!(forgotten > 950, "the flood took the place of half-open flows, not of only {forgotten}");

        // One leaves, and then others: a table alone would move half a percent of the rest each time.
        for leaver in [established.backends[0], 50, 51, 52, 53, 54] {
            established.stay_when_it_leaves(bench, &mut desired, leaver);
        }
        its_own_address_does_not_help_who_floods(bench, object, family);
    });
}

fn its_own_address_does_not_help_who_floods(bench: &Bench, object: &[u8], family: Family) {
    const PACKETS: u32 = 100_000;
    let dropped = || bench.reader.stats().expect("counters").packets(Reason::SourceSynLimit, SourceClass::Unknown);
    let before = dropped();
    let mut driver = Driver::load(object, &family.from(30_000, 40_000, SYN), [0, 0]);
    driver.set_subject(bench.datapath.xdp_program().expect("loaded"));
    let start = Instant::now();
    driver.run(PACKETS);
    let passed = u64::from(PACKETS) - (dropped() - before);
    let allowed = SYNS_PER_SECOND + SYNS_PER_SECOND * (start.elapsed().as_secs() + 1);
    assert!((SYNS_PER_SECOND..=allowed).contains(&passed), "{passed} of {allowed}");
}

#[test]
fn ten_million_spoofed_syns_cost_nobody_a_packet_and_move_no_flow() {
    flood(Family { is_ipv4: true }, 10_000_000);
}

#[test]
fn a_flood_of_ipv6_costs_nobody_a_packet_and_moves_no_flow() {
    flood(Family { is_ipv4: false }, 2_000_000);
}

#[test]
fn new_flows_are_shared_out_by_weight_exactly_in_the_loaded_table() {
    const WEIGHTS: [u8; 6] = [1, 2, 3, 10, 0, 100];
    const PACKETS: u32 = 500_000;
    with_backends(desired(&WEIGHTS, Limits::default()), |bench, object| {
        let sum: f64 = WEIGHTS.iter().map(|weight| f64::from(*weight)).sum();
        let shares = bench.reader.shares("web").expect("read");
        let places: u32 = shares.values().sum();
        assert_eq!(places, 65_537);
        let family = Family { is_ipv4: true };
        let mut driver = Driver::load(object, &family.frame(SYN), family.drawn());
        driver.set_subject(bench.datapath.xdp_program().expect("loaded"));
        driver.run(PACKETS);
        let flows = new_flows(bench);
        for (number, weight) in (1..).zip(WEIGHTS) {
            let share = f64::from(weight) / sum;
            let in_table = f64::from(shares.get(&address(number)).copied().unwrap_or(0));
            let exact = share * f64::from(places);
            assert!((in_table - exact).abs() < 1.0, "weight {weight}: {in_table} places instead of {exact}");
            // What the hash makes of it: six standard deviations.
            let expected = share * f64::from(PACKETS);
            let got = flows[&address(number)] as f64;
            let most = 6.0 * (expected * (1.0 - share)).sqrt() + 1.0;
            assert!((got - expected).abs() <= most, "weight {weight}: {got} flows instead of {expected}");
        }
        assert_eq!(bench.reader.shares("nobody").expect("read"), BTreeMap::new());
    });
}
