//! The loaded programs on made-up packets, and which counters each one moves.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use lb_datapath::{BackendStatus, Datapath, Desired, LoadOptions, Reader, Stats, Verdict};

use crate::netns::Namespace;

/// A loaded data plane that is attached to no interface.
pub struct Bench {
    pub datapath: Datapath,
    pub reader: Reader,
}

/// What a packet did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    pub verdict: Verdict,
    /// By how much each counter went up, in words such as `reason source_limit unknown`. Counters that stood still are
    /// absent, so that comparing says that nothing else moved.
    pub moved: BTreeMap<String, u64>,
}

/// Loads the programs in a namespace of their own, applies `desired`, runs `test` and unloads.
pub fn with_bench(desired: Desired, test: impl FnOnce(&mut Bench) + Send + 'static) {
    with_bench_in(&Namespace::new(), &[], desired, test);
}

/// [`with_bench`] in a namespace that has these interfaces, and attached to them.
pub fn with_bench_in(
    namespace: &Namespace,
    interfaces: &[&str],
    desired: Desired,
    test: impl FnOnce(&mut Bench) + Send + 'static,
) {
    let interfaces = interfaces.iter().map(|name| (*name).to_owned()).collect();
    with_bench_of(namespace, LoadOptions { interfaces, ..unique_options() }, desired, test);
}

/// [`with_bench`] in a namespace, and loaded with these options.
pub fn with_bench_of(
    namespace: &Namespace,
    options: LoadOptions,
    desired: Desired,
    test: impl FnOnce(&mut Bench) + Send + 'static,
) {
    namespace.run(move || {
        stay_on_this_cpu();
        let (mut datapath, _) = Datapath::load(&options).unwrap_or_else(|error| panic!("{}", chain(&error)));
        datapath.apply(&desired).unwrap_or_else(|error| panic!("{}", chain(&error)));
        let reader = datapath.reader();
        let mut bench = Bench { datapath, reader };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&mut bench)));
        drop(bench);
        lb_datapath::unload(&options.pin_root, &options.lock_folder).expect("unloads");
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Flows are remembered by each CPU for itself: a test that wandered would find its own forgotten.
pub fn stay_on_this_cpu() {
    let cpu = nix::sched::sched_getcpu().expect("this CPU");
    let mut only = nix::sched::CpuSet::new();
    only.set(cpu).expect("a CPU's number");
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &only).expect("affinity");
}

/// For a thread that a test starts, which would share the test's CPU.
pub fn use_any_cpu() {
    let mut all = nix::sched::CpuSet::new();
    // What the machine does not have the kernel leaves out.
    (0..nix::sched::CpuSet::count()).for_each(|cpu| all.set(cpu).expect("a CPU's number"));
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &all).expect("affinity");
}

/// Pins and lock that no other test and no other process uses.
pub fn unique_options() -> LoadOptions {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("lb-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    LoadOptions {
        pin_root: PathBuf::from("/sys/fs/bpf").join(&name),
        lock_folder: PathBuf::from("/run/lb-test-locks"),
        ..LoadOptions::default()
    }
}

impl Bench {
    /// Runs the XDP program once. It must leave the packet as it is.
    pub fn judge(&self, frame: &[u8]) -> Judged {
        let (judged, frame_out) = self.judge_and_send(frame);
        assert_eq!(frame_out, frame, "the program changed the packet");
        judged
    }

    /// The same of a packet that may be changed, and what became of it.
    pub fn judge_and_send(&self, frame: &[u8]) -> (Judged, Vec<u8>) {
        let before = Counters::read(&self.reader);
        let outcome = self.datapath.try_out(frame, 1).unwrap_or_else(|error| panic!("{}", chain(&error)));
        let moved = Counters::read(&self.reader).since(&before);
        (Judged { verdict: outcome.verdict, moved }, outcome.frame)
    }
}

impl Judged {
    /// Without what it moved of the backend that got it, which must be one packet of these bytes; and whether its flow was
    /// new there. Of a packet that no backend got nothing is taken away.
    pub fn apart_from_backend(mut self, ip_bytes: usize) -> (Self, bool) {
        let taken: BTreeMap<String, u64> = self.moved.extract_if(.., |name, _| name.starts_with("backend ")).collect();
        let of = |what: &str| taken.iter().find(|(name, _)| name.ends_with(what)).map_or(0, |(_, count)| *count);
        if !taken.is_empty() {
            assert_eq!((of(" packets"), of(" bytes")), (1, ip_bytes as u64), "{taken:?}");
            assert_eq!(taken.len() as u64, 2 + of(" new"), "one backend: {taken:?}");
        }
        (self, of(" new") == 1)
    }

    /// Ended for `reason`, and no other counter moved.
    pub fn only(verdict: Verdict, reason: &str) -> Self {
        Self { verdict, moved: BTreeMap::from([(format!("reason {reason} unknown"), 1)]) }
    }

    /// The same, and these counters moved too.
    pub fn with(mut self, moved: &[(&str, u64)]) -> Self {
        self.moved.extend(moved.iter().map(|(name, count)| ((*name).to_owned(), *count)));
        self
    }

    /// Let into `service`, of whose counters SYNs stood still.
    pub fn let_into(service: &str, ip_bytes: usize) -> Self {
        let mut judged = Self::only(Verdict::Pass, "admitted");
        judged.moved.insert(format!("service {service} admitted"), 1);
        judged.moved.insert(format!("service {service} bytes"), ip_bytes as u64);
        judged
    }
}

/// All counters at one time, those of backends too.
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    pub fn read(reader: &Reader) -> Self {
        let mut all = counters(&reader.stats().expect("counters"));
        reader.backends().expect("listed").iter().for_each(|backend| add_backend(&mut all, backend));
        Self(all)
    }

    /// Those that went up.
    pub fn since(&self, before: &Self) -> BTreeMap<String, u64> {
        difference(&before.0, &self.0)
    }
}

fn add_backend(counters: &mut BTreeMap<String, u64>, backend: &BackendStatus) {
    let BackendStatus { address, counters: of_backend, .. } = backend;
    for (what, count) in [("packets", of_backend.packets), ("bytes", of_backend.bytes), ("new", of_backend.new_flows)] {
        *counters.entry(format!("backend {address} {what}")).or_insert(0) += count;
    }
}

fn difference(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let more = |name: &String, count: &u64| count - before.get(name).copied().unwrap_or(0);
    let all = after.iter().map(|(name, count)| (name.clone(), more(name, count)));
    all.filter(|(_, difference)| *difference > 0).collect()
}

/// The counters that went up between two looks.
pub fn moved(before: &Stats, after: &Stats) -> BTreeMap<String, u64> {
    difference(&counters(before), &counters(after))
}

fn counters(stats: &Stats) -> BTreeMap<String, u64> {
    let mut counters = BTreeMap::new();
    for (reason, class, packets) in stats.outcomes() {
        counters.insert(format!("reason {} {}", reason.metric_name(), class.metric_name()), packets);
    }
    for (name, service) in &stats.services {
        counters.insert(format!("service {name} admitted"), service.admitted_packets);
        counters.insert(format!("service {name} bytes"), service.admitted_bytes);
        counters.insert(format!("service {name} syns"), service.admitted_syns);
        counters.insert(format!("service {name} dropped"), service.dropped_packets);
        counters.insert(format!("cookies {name} seen"), service.cookies.seen_syns);
        counters.insert(format!("cookies {name} answered"), service.cookies.answered_syns);
        counters.insert(format!("cookies {name} valid"), service.cookies.valid_cookies);
        counters.insert(format!("cookies {name} bad"), service.cookies.bad_cookies);
        counters.insert(format!("nat {name} reply packets"), service.nat.reply_packets);
        counters.insert(format!("nat {name} reply bytes"), service.nat.reply_bytes);
        counters.insert(format!("nat {name} full"), service.nat.refused_full);
        counters.insert(format!("nat {name} no port"), service.nat.refused_no_port);
    }
    counters.insert(String::from("tunnels ip"), stats.tunnels.ip_packets);
    counters.insert(String::from("tunnels gue"), stats.tunnels.gue_packets);
    for (number, worker) in stats.workers.iter().enumerate() {
        counters.insert(format!("worker {number} picked"), worker.picked_syns);
        counters.insert(format!("worker {number} steered"), worker.steered_connections);
    }
    counters
}

/// The error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(&format!(": {next}"));
        cause = next.source();
    }
    text
}
