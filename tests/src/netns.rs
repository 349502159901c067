//! Network namespaces without names: each lives in a thread of its own and is gone with it, however the test ends.

use std::process::Command;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, gettid};

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace with its loopback up.
pub struct Namespace {
    thread_id: Pid,
    jobs: Sender<Job>,
}

impl Namespace {
    /// Needs root.
    pub fn new() -> Self {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (ready, is_ready) = mpsc::channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            let _ = ready.send(gettid());
            inbox.into_iter().for_each(|job| job());
        });
        let thread_id = is_ready.recv().expect("a thread in a namespace of its own");
        let namespace = Self { thread_id, jobs };
        namespace.ip("link set lo up");
        namespace
    }

    /// Runs `job` in the namespace and waits. Threads that it starts are in the namespace too.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        self.start(job).recv().expect("the job in the namespace ended; its panic is above")
    }

    /// Runs `job` in the namespace, where others wait until it is done. Its result arrives at the receiver, or nothing
    /// if it panicked.
    pub fn start<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
        let (answer, result) = mpsc::channel();
        let send = move || drop(answer.send(job()));
        self.jobs.send(Box::new(send)).expect("the namespace lives");
        result
    }

    /// `ip ARGUMENTS` in the namespace.
    pub fn ip(&self, arguments: &str) {
        let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
        self.run(move || {
            let output = Command::new("ip").args(&arguments).output().expect("ip runs");
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "ip {}: {errors}", arguments.join(" "));
        });
    }

    /// Writes a setting of the namespace, under /proc/sys/net.
    pub fn set(&self, path: &str, value: &str) {
        let (path, value) = (path.to_owned(), value.to_owned());
        self.run(move || std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}")));
    }

    /// Makes the kernel write the checksums of what it sends there: veth leaves them to a card that is not there, and
    /// packets that XDP sends on would arrive without.
    pub fn leave_no_checksum_to(&self, interface: &str) {
        let interface = interface.to_owned();
        self.run(move || {
            let output = Command::new("ethtool").args(["-K", &interface, "tx", "off"]).output().expect("ethtool runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        });
    }

    /// TCP segments that were sent again, of all connections of the namespace so far.
    pub fn retransmitted(&self) -> u64 {
        self.run(|| {
            let text = std::fs::read_to_string("/proc/thread-self/net/snmp").expect("counters");
            let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
            let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
            let mut columns = names.split(' ').zip(values.split(' '));
            let (_, value) = columns.find(|(name, _)| *name == "RetransSegs").expect("counted");
            value.parse().expect("a number")
        })
    }

    /// Makes a veth interface of the namespace take what XDP at its other end sends back, as long as the namespace lives.
    pub fn take_from_xdp(&self, interface: &str) {
        let interface = interface.to_owned();
        self.run(move || Box::leak(Box::new(crate::veth::take_from_xdp(&interface).expect("a program attached"))));
    }

    /// A pair of interfaces, `name` here and `peer_name` in `peer`, both up.
    pub fn connect(&self, name: &str, peer: &Self, peer_name: &str) {
        self.ip(&format!("link add {name} type veth peer name {peer_name} netns {}", peer.thread_id));
        self.ip(&format!("link set {name} up"));
        peer.ip(&format!("link set {peer_name} up"));
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}
