//! Lists of a million prefixes of each family: loaded in seconds, and replaced while packets come.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lb_datapath::{
    CompiledLists, Desired, DesiredService, Listed, ListedPrefix, Ports, Prefix, Reason, SourceClass, compile_lists,
};
use lb_tests::driver::{self, Driver};
use lb_tests::level::has_root;
use lb_tests::packet::{Packet, SYN};
use lb_tests::program::{Bench, use_any_cpu, with_bench};

const MILLION: u32 = 1_000_000;

/// In a quiet moment of the slowest machine a tenth of that.
const SECONDS: Duration = Duration::from_secs(60);

fn desired() -> Desired {
    let vips = ["198.51.100.10", "2001:db8:100::10"].map(|vip| vip.parse().expect("an address")).to_vec();
    let web = DesiredService { name: String::from("web"), vips, ports: Ports::One(443), ..DesiredService::default() };
    Desired { services: vec![web], ..Desired::default() }
}

fn denied(address: impl Into<std::net::IpAddr>, length: u8) -> ListedPrefix {
    ListedPrefix { prefix: Prefix::new(address.into(), length).expect("a length"), listed: Listed::Denied }
}

/// Denies 10.0.0.0/8 and 3fff::/32, each by as many prefixes of equal length, and a million more of each family that
/// are others for each `seed`.
fn million(parts_bits: u32, seed: u32) -> CompiledLists {
    let parts = 0..1_u32 << parts_bits;
    let parts_4 = parts
        .clone()
        .map(|part| denied(Ipv4Addr::from_bits(10 << 24 | part << (24 - parts_bits)), 8 + parts_bits as u8));
    let parts_6 = parts.map(|part| {
        let bits = 0x3fff_u128 << 112 | u128::from(part) << (96 - parts_bits);
        denied(Ipv6Addr::from_bits(bits), 32 + parts_bits as u8)
    });
    // An odd number's multiples are all different. Single hosts are what a list's root cannot hold.
    let spread = |number: u32| number.wrapping_mul(0x9e37_79b1).wrapping_add(seed);
    let others_4 = (0..MILLION).map(|number| match number % 2 {
        0 => denied(Ipv4Addr::from_bits(128 << 24 | (spread(number / 2) & 0x007f_ffff) << 8), 24),
        _ => denied(Ipv4Addr::from_bits(64 << 24 | spread(number) & 0x3fff_ffff), 32),
    });
    let others_6 = (0..MILLION).map(|number| match number % 2 {
        0 => denied(Ipv6Addr::from_bits(0x2001_u128 << 112 | u128::from(spread(number)) << 80), 48),
        _ => denied(Ipv6Addr::from_bits(0x2002_u128 << 112 | u128::from(spread(number)) << 64), 64),
    });
    compile_lists(parts_4.chain(parts_6).chain(others_4).chain(others_6).collect()).expect("compiles")
}

/// Packets of ever other sources from the denied networks, without end.
fn drivers(bench: &Bench, object: &[u8]) -> [Driver; 2] {
    let web = |source: &str, vip: &str, varied_bits| {
        let mut driver = Driver::load(object, &Packet::new(source, vip).tcp_flags(SYN).build(), varied_bits);
        driver.set_subject(bench.datapath.xdp_program().expect("loaded"));
        driver
    };
    // Of IPv6 the second word.
    [
        web("10.0.0.0:40000", "198.51.100.10:443", [0, 0x00ff_ffff]),
        web("[3fff::1]:40000", "[2001:db8:100::10]:443", [0, u32::MAX]),
    ]
}

#[test]
fn two_million_prefixes_are_loaded_in_seconds_and_no_packet_slips_through_while_they_are_replaced() {
    const CHUNK: u32 = 10_000;
    const REPLACEMENTS: usize = 6;
    if !has_root("program runs") {
        return;
    }
    let Some(object) = driver::object() else { return };
    with_bench(desired(), move |bench| {
        let start = Instant::now();
        let lists = [million(0, 1), million(10, 77)];
        let compiled = start.elapsed() / 2;
        let start = Instant::now();
        bench.datapath.replace_lists(&lists[0]).expect("written");
        let written = start.elapsed();
        println!("two million prefixes: compiled in {compiled:?}, in force {written:?} later");
        assert!(compiled + written < SECONDS, "{compiled:?} and {written:?}");

        let [ipv4, ipv6] = bench.reader.lists().expect("read").map(|list| list.expect("a list"));
        for (family, status) in [("IPv4", &ipv4), ("IPv6", &ipv6)] {
            assert_eq!(status.denied, u64::from(MILLION) + 1, "{family}");
            let megabytes = status.memory_bytes >> 20;
            println!("{family}: {megabytes} MiB");
            assert!((12..=12 + 32).contains(&megabytes), "{family}: {megabytes} MiB are not what is documented");
        }
        assert_eq!(lists[0].memory_bytes(), ipv4.memory_bytes + ipv6.memory_bytes, "as it was said before");

        let drivers = drivers(bench, &object);
        let before = bench.reader.stats().expect("counters");
        let is_over = AtomicBool::new(false);
        let (packets, replaced) = thread::scope(|scope| {
            let flood = scope.spawn(|| {
                use_any_cpu();
                let mut packets = 0;
                while !is_over.load(Ordering::Relaxed) {
                    for driver in &drivers {
                        driver.run(CHUNK);
                        packets += u64::from(CHUNK);
                    }
                }
                packets
            });
            let replaced = (0..REPLACEMENTS).map(|turn| bench.datapath.replace_lists(&lists[(turn + 1) % 2]));
            let replaced: Result<Vec<()>, _> = replaced.collect();
            is_over.store(true, Ordering::Relaxed);
            (flood.join().expect("it ran"), replaced)
        });
        replaced.expect("written");
        let after = bench.reader.stats().expect("counters");
        let ended = |reason| after.packets(reason, SourceClass::Unknown) - before.packets(reason, SourceClass::Unknown);
        println!("{packets} packets during {REPLACEMENTS} replacements");
        assert_eq!(ended(Reason::Admitted), 0, "of {packets}");
        assert_eq!(ended(Reason::DeniedByList), packets);
        assert!(packets >= u64::from(CHUNK) * 20, "{packets}");

        bench.datapath.replace_lists(&CompiledLists::default()).expect("written");
        assert_eq!(bench.reader.lists().expect("read"), [None, None], "no list takes no memory");
    });
}
