//! Sampled packets: what is written of each, how many are, and that none is unaccounted for.

use std::time::{Duration, SystemTime};

use lb_datapath::{
    BackendState, BlockOutcome, Desired, DesiredBackend, DesiredService, DropClass, Forward, Limits, Ports, Rate,
    Rates, Reason, Sample, SampleCounters, Sampling, Source, Verdict,
};
use lb_tests::level::has_root;
use lb_tests::packet::{ACK, Packet};
use lb_tests::program::{Bench, with_bench};

const CLIENT_4: &str = "192.0.2.1:40000";
const CLIENT_6: &str = "[2001:db8:1:1::1]:40000";
const WEB_4: &str = "198.51.100.10:443";
const WEB_6: &str = "[2001:db8:100::10]:443";

const SAMPLE_BYTES: usize = 128;
const LONG: Duration = Duration::from_secs(3600);

fn web(limits: Limits, sampling: Sampling) -> Desired {
    let vips = ["198.51.100.10", "2001:db8:100::10"].map(|vip| vip.parse().expect("an address")).to_vec();
    let name = String::from("web");
    let web = DesiredService { name, vips, ports: Ports::One(443), limits, ..DesiredService::default() };
    Desired { services: vec![web], sampling, ..Desired::default() }
}

fn sampling(per_second: u32, let_in_one_in: u64) -> Sampling {
    Sampling { per_second, let_in_one_in }
}

fn one_syn_a_second() -> Limits {
    Limits { source: Rates::of_syns(Rate { per_second: 1, burst: 1 }), ..Limits::default() }
}

fn block(bench: &mut Bench) {
    for source in ["192.0.2.1", "2001:db8:1:1::1"] {
        let source = Source::of(source.parse().expect("an address"));
        assert_eq!(bench.datapath.block(source, LONG).expect("blocks"), BlockOutcome::Blocked);
    }
}

fn counters(bench: &Bench) -> SampleCounters {
    bench.reader.stats().expect("counters").samples
}

/// Runs `test` where both clients are blocked.
fn with_blocked(sampling: Sampling, test: impl FnOnce(&mut Bench, &mut dyn FnMut() -> Vec<Sample>) + Send + 'static) {
    if !has_root("program runs") {
        return;
    }
    with_bench(web(Limits::default(), sampling), move |bench| {
        block(bench);
        let mut samples = bench.datapath.take_samples().expect("nobody took them");
        test(bench, &mut || samples.read());
    });
}

#[test]
fn a_dropped_packet_is_written_with_its_reason_its_ends_and_its_first_bytes() {
    with_blocked(sampling(1000, 0), |bench, read| {
        let rows: [(&str, Vec<u8>, &str, &str); 3] = [
            ("a SYN", Packet::new(CLIENT_4, WEB_4).build(), "192.0.2.1", "198.51.100.10"),
            (
                "a long packet",
                Packet::new(CLIENT_4, WEB_4).tcp_flags(ACK).data(1400).build(),
                "192.0.2.1",
                "198.51.100.10",
            ),
            ("IPv6", Packet::new(CLIENT_6, WEB_6).build(), "2001:db8:1:1::1", "2001:db8:100::10"),
        ];
        for (name, frame, source, destination) in rows {
            let before = SystemTime::now();
            assert_eq!(bench.judge(&frame).verdict, Verdict::Drop, "{name}");
            let samples = read();
            let [sample] = samples.as_slice() else { panic!("{name}: {samples:?}") };
            assert_eq!((sample.reason, sample.verdict), (Reason::Blocked, Verdict::Drop), "{name}");
            assert_eq!(sample.source, Some(source.parse().expect("an address")), "{name}");
            assert_eq!(sample.destination, Some(destination.parse().expect("an address")), "{name}");
            assert_eq!((sample.protocol, sample.ports), (Some(6), Some((40_000, 443))), "{name}");
            assert_eq!(sample.service.as_deref(), Some("web"), "{name}");
            assert_eq!(sample.frame_bytes as usize, frame.len(), "{name}");
            assert_eq!(sample.captured, frame[..frame.len().min(SAMPLE_BYTES)], "{name}");
            // The time of day is counted from the start of the machine, which may have been set by a millisecond since.
            let distance = sample.at.duration_since(before).unwrap_or_else(|error| error.duration());
            assert!(distance < Duration::from_secs(5), "{name}: {distance:?}");
        }
        assert_eq!(read(), [], "each sample is read once");
    });
}

#[test]
fn a_packet_that_no_service_can_be_told_of_is_written_without_one() {
    if !has_root("program runs") {
        return;
    }
    with_bench(web(Limits::default(), sampling(1000, 0)), |bench| {
        let mut samples = bench.datapath.take_samples().expect("nobody took them");
        // A TCP header that says it is shorter than the shortest.
        let mut frame = Packet::new(CLIENT_4, WEB_4).build();
        frame[14 + 20 + 12] = 0x10;
        assert_eq!(bench.judge(&frame).verdict, Verdict::Drop);
        let samples = samples.read();
        let [sample] = samples.as_slice() else { panic!("{samples:?}") };
        assert_eq!((sample.reason, sample.ports, sample.service.clone()), (Reason::BadTransportHeader, None, None));
        assert_eq!(sample.destination, Some("198.51.100.10".parse().expect("an address")));
    });
}

#[test]
fn in_a_burst_no_more_are_written_than_the_rate_allows_and_none_is_unaccounted_for() {
    const SENT: u64 = 20_000;
    with_blocked(sampling(50, 0), |bench, read| {
        let frame = Packet::new(CLIENT_4, WEB_4).build();
        bench.datapath.try_out(&frame, SENT as u32).expect("runs");
        let read = read().len() as u64;
        let drops = counters(bench).drops;
        assert_eq!((drops.seen, drops.lost), (SENT, 0));
        assert_eq!(drops.written, read, "what was written was read");
        assert_eq!(drops.not_chosen(), SENT - read);
        // A second's worth at once; 20,000 runs take far less than another second.
        assert!((50..100).contains(&read), "{read} were written");
    });
}

#[test]
fn a_flood_that_is_dropped_for_one_reason_hides_nothing_that_is_dropped_for_another() {
    with_blocked(sampling(10, 0), |bench, read| {
        let flood = Packet::new(CLIENT_4, WEB_4).build();
        bench.datapath.try_out(&flood, 20_000).expect("runs");
        let mut bent = Packet::new("203.0.113.9:1", WEB_4).build();
        bent[14 + 20 + 12] = 0x10;
        assert_eq!(bench.judge(&bent).verdict, Verdict::Drop);
        let samples = read();
        let found: Vec<_> = samples.iter().filter(|sample| sample.reason != Reason::Blocked).collect();
        assert_eq!((found.len(), found[0].reason), (1, Reason::BadTransportHeader));
    });
}

#[test]
fn a_ring_that_nobody_reads_fills_up_and_what_it_loses_is_counted() {
    const SENT: u64 = 9_000;
    with_blocked(sampling(10_000, 0), |bench, read| {
        let frame = Packet::new(CLIENT_4, WEB_4).build();
        bench.datapath.try_out(&frame, SENT as u32).expect("runs");
        let drops = counters(bench).drops;
        assert_eq!((drops.seen, drops.written + drops.lost), (SENT, SENT), "{drops:?}");
        assert!(drops.lost > 1000 && drops.written > 5000, "{drops:?}");
        assert_eq!(read().len() as u64, drops.written, "what was written is still there");
        // The reader made room.
        bench.datapath.try_out(&frame, 1).expect("runs");
        assert_eq!((read().len(), counters(bench).drops.lost), (1, drops.lost));
    });
}

#[test]
fn what_is_sampled_is_changed_while_packets_come() {
    with_blocked(sampling(0, 0), |bench, read| {
        let frame = Packet::new(CLIENT_4, WEB_4).build();
        bench.datapath.try_out(&frame, 3000).expect("runs");
        assert_eq!((read().len(), counters(bench).drops.not_chosen()), (0, 3000), "off");
        bench.datapath.apply(&web(Limits::default(), sampling(1000, 0))).expect("applies");
        // Soon, not at once: the programs look at the policy only now and then while it is off.
        bench.datapath.try_out(&frame, 1024 + 10).expect("runs");
        let samples = read().len();
        assert!((10..=1024 + 10).contains(&samples), "{samples}");
    });
}

#[test]
fn of_packets_let_in_one_in_so_many_is_written_and_of_others_business_none() {
    if !has_root("program runs") {
        return;
    }
    with_bench(web(Limits::default(), sampling(10_000, 128)), |bench| {
        let mut samples = bench.datapath.take_samples().expect("nobody took them");
        let admitted = Packet::new(CLIENT_4, WEB_4).tcp_flags(ACK).build();
        bench.datapath.try_out(&admitted, 1280).expect("runs");
        let read = samples.read();
        // One CPU runs them all; another may run the next batch.
        assert!((9..=10).contains(&read.len()), "{} were written", read.len());
        for sample in &read {
            assert_eq!((sample.reason, sample.verdict), (Reason::Admitted, Verdict::Pass));
            assert_eq!((sample.service.as_deref(), sample.captured.as_slice()), (Some("web"), admitted.as_slice()));
        }
        let let_in = counters(bench).let_in;
        assert_eq!((let_in.seen, let_in.written, let_in.lost), (1280, read.len() as u64, 0));
        let other = Packet::new(CLIENT_4, "203.0.113.9:443").build();
        bench.datapath.try_out(&other, 1280).expect("runs");
        assert_eq!((samples.read().len(), counters(bench).let_in), (0, let_in), "not this load balancer's");
    });
}

#[test]
fn drops_of_a_service_are_counted_by_why_and_packets_by_cpu() {
    if !has_root("program runs") {
        return;
    }
    with_bench(web(one_syn_a_second(), sampling(1000, 0)), |bench| {
        let classes = |bench: &Bench| -> Vec<(DropClass, u64)> {
            let stats = bench.reader.stats().expect("counters");
            stats.services["web"].drops.all().filter(|(_, packets)| *packets > 0).collect()
        };
        let syn = Packet::new(CLIENT_4, WEB_4).build();
        // SYN cookies are off for the service: over its limit it is dropped.
        bench.datapath.try_out(&syn, 10).expect("runs");
        let limited = classes(bench);
        let [(DropClass::SourceLimit, packets)] = limited[..] else { panic!("{limited:?}") };
        assert!((8..=9).contains(&packets), "{packets}");
        block(bench);
        bench.judge(&syn);
        assert_eq!(classes(bench), [(DropClass::Block, 1), (DropClass::SourceLimit, packets)]);
        let stats = bench.reader.stats().expect("counters");
        assert_eq!(stats.services["web"].dropped_packets, packets + 1);
        assert_eq!(stats.cpus.iter().map(|cpu| cpu.packets).sum::<u64>(), 11);
        assert_eq!(stats.cpus.iter().map(|cpu| cpu.dropped_packets).sum::<u64>(), packets + 1);
    });
}

#[test]
fn a_packet_that_is_admitted_and_reaches_no_backend_is_told_apart_from_those_that_are_refused() {
    if !has_root("program runs") {
        return;
    }
    let mut desired = web(Limits::default(), sampling(1000, 0));
    desired.services[0].forward = Forward::Ipip;
    desired.services[0].pool = Some(String::from("pool"));
    desired.backends = vec![DesiredBackend {
        pool: String::from("pool"),
        address: "192.0.2.9:1".parse().expect("an address"),
        weight: 1,
        state: BackendState::Healthy,
    }];
    with_bench(desired, |bench| {
        let mut samples = bench.datapath.take_samples().expect("nobody took them");
        // In a namespace without routes no way leads to the backend.
        let syn = Packet::new(CLIENT_4, WEB_4).build();
        assert_eq!(bench.judge(&syn).verdict, Verdict::Drop);
        let stats = bench.reader.stats().expect("counters");
        let web = &stats.services["web"];
        let drops: Vec<_> = web.drops.all().filter(|(_, packets)| *packets > 0).collect();
        assert_eq!((web.admitted_packets, web.dropped_packets), (1, 0));
        assert_eq!(drops, [(DropClass::Undelivered, 1)]);
        let read = samples.read();
        let [sample] = read.as_slice() else { panic!("{read:?}") };
        assert_eq!((sample.reason, sample.service.as_deref()), (Reason::NoWayToBackend, Some("web")));
        assert_eq!(sample.captured, syn, "as it came: nothing was put before it");
    });
}
