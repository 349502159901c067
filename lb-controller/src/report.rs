//! What the controller tells of itself: the JSON of the admin API, and of every `--json`.

mod api_keys;
mod certificates;
mod factors;
mod requests;
mod samples;
mod sealing_keys;
mod trace;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

pub use api_keys::{ApiKeyReport, NewSecret};
pub use certificates::{Certificate, CertificateOrder};
pub use factors::{ENROLMENT_TOKEN_LONGEST_SECONDS, EnrolledFactor, EnrolmentToken, TokenOrder};
pub use requests::{StatusSet, TailFilter, TailLine, Tailed, TailedRequest};
pub use samples::{PacketSample, SampleAccount, Sampled, Samples};
pub use sealing_keys::SealingKey;
use serde::{Deserialize, Serialize};
pub use trace::{Trace, TraceStep, TracedPacket};

/// The answer of `status`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// `None` when no controller runs.
    pub controller: Option<Controller>,
    /// `None` when nothing is attached: L7 alone, or not loaded.
    pub datapath: Option<Datapath>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Controller {
    pub version: String,
    pub pid: u32,
    pub uptime_seconds: u64,
    /// Counts up with every configuration that took effect.
    pub config_version: u64,
    /// Where the data port listens when no XDP steers to it.
    pub listen: Option<SocketAddr>,
    /// Connections accepted by each L7 worker.
    pub accepted_by_worker: Vec<u64>,
    /// Counts up with every upgrade, from 1.
    #[serde(default)]
    pub generation: u32,
    /// Processes that were replaced and have not ended yet.
    #[serde(default)]
    pub draining: Vec<DrainingProcess>,
    /// Pools whose backends are found, and how that goes.
    #[serde(default)]
    pub discovered: Vec<DiscoveredPool>,
}

/// A pool whose backends are found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscoveredPool {
    pub pool: String,
    /// `dns NAME:PORT`, `srv NAME` or `file PATH`.
    pub from: String,
    /// Found the last time that anything was.
    pub backends: usize,
    /// Found no more.
    pub draining: usize,
    /// Beyond `most`.
    pub left_out: usize,
    /// Addresses that may be no backends, each with why.
    pub refused: Vec<String>,
    /// `None`: nothing was found yet.
    pub found_seconds_ago: Option<u64>,
    /// Questions without a good answer.
    pub failures: u64,
    /// Why the last question had none; `None`: it had one.
    pub error: Option<String>,
}

/// A process that was replaced, and ends with the last of its connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainingProcess {
    pub pid: u32,
    pub generation: u32,
    /// Still open.
    pub connections: u64,
    /// Until what is open then is cut off.
    pub seconds_left: u64,
}

/// What the XDP program counts, read from its maps: right also while the controller is down.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Datapath {
    pub interfaces: Vec<Interface>,
    pub services: Vec<Service>,
    /// New flows to all services together; `None`: no limit.
    pub new_flows_per_second: Option<u64>,
    /// `None`: no tunnel ends here.
    #[serde(default)]
    pub decapsulation: Option<Decapsulation>,
    /// Packets to a service that were let in.
    pub admitted: Vec<Admitted>,
    /// Packets to a service that were dropped.
    pub dropped: Vec<Dropped>,
    /// All others: passed untouched, answered, sent on by themselves.
    #[serde(default)]
    pub others: Vec<Passed>,
    /// CPUs that judged packets.
    #[serde(default)]
    pub cpus: Vec<Cpu>,
    #[serde(default)]
    pub samples: SampleAccount,
    /// `None` while no service used NAT.
    pub nat: Option<Nat>,
    pub workers: Vec<Worker>,
    pub verified: Vec<Mark>,
    pub blocked: Vec<Mark>,
    /// What each map takes in the kernel, the largest first; lists are told of by themselves.
    #[serde(default)]
    pub maps: Vec<MapSize>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct MapSize {
    pub name: String,
    pub entries: u32,
    pub bytes: u64,
}

impl From<&lb_datapath::MapMemory> for MapSize {
    fn from(map: &lb_datapath::MapMemory) -> Self {
        Self { name: map.name.clone(), entries: map.entries, bytes: map.bytes }
    }
}

/// Tunnels of the L4 tier that end on this host.
#[derive(Debug, Serialize, Deserialize)]
pub struct Decapsulation {
    /// Prefixes that outer headers must come from.
    pub from: Vec<String>,
    /// UDP destination port of GUE.
    pub gue_port: u16,
    /// Packets taken out of IP in IP, and out of GUE, whatever became of them then.
    pub ip_packets: u64,
    pub gue_packets: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Interface {
    pub name: String,
    /// `native` or `generic`.
    pub mode: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Service {
    pub name: String,
    /// VIPs and ports: `198.51.100.10:443`, `[2001:db8::/48]:5000-5999/udp`.
    pub endpoints: Vec<String>,
    /// `l7` where this controller serves it, otherwise how packets are sent on: `ipip`, `gue`, `l2` or `nat`.
    pub forward: String,
    /// Where they are sent; `None` for `l7`.
    pub pool: Option<String>,
    pub packets: u64,
    pub bytes: u64,
    pub syns: u64,
    /// Not admitted.
    pub dropped_packets: u64,
    /// Dropped by class, those that were admitted and then reached no backend too: `list`, `block`, `source_limit`,
    /// `network_limit`, `service_limit`, `syn_cookie`, `undelivered`, `other`.
    #[serde(default)]
    pub drops: BTreeMap<String, u64>,
    /// Those in force.
    pub limits: Vec<Limit>,
    pub syn_cookies: SynCookies,
    /// Of `forward: nat` alone.
    pub nat: Option<ServiceNat>,
}

/// Connections whose packets are rewritten.
#[derive(Debug, Serialize, Deserialize)]
pub struct Nat {
    /// Those that are remembered now, and those that fit.
    pub in_use: u64,
    pub capacity: u64,
    pub tcp: u64,
    pub udp: u64,
    /// Of those in use, the ones that no answer, or no answer to it, has proven to be wanted.
    pub unproven: u64,
    /// Where backends answer.
    pub addresses: Vec<IpAddr>,
    pub first_port: u16,
    pub last_port: u16,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ServiceNat {
    /// What backends answered.
    pub reply_packets: u64,
    pub reply_bytes: u64,
    /// Connections that found no room, and that found no port towards their backend.
    pub refused_full: u64,
    pub refused_no_port: u64,
}

/// What XDP lets through a second.
#[derive(Debug, Serialize, Deserialize)]
pub struct Limit {
    /// For whom: each `source`, each `network`, the `service` as a whole, or each `verified` source.
    pub scope: String,
    /// `packets`, `syns` or `bytes`.
    pub of: String,
    pub per_second: u64,
    /// How many may come at once.
    pub burst: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct SynCookies {
    /// `off`, `auto` or `always`.
    pub mode: String,
    /// SYNs were answered within the last seconds.
    pub answering: bool,
    /// SYNs answered with a cookie.
    pub sent: u64,
    /// Valid cookies that came back, of those that XDP looked at.
    pub valid: u64,
    /// Packets that under pressure belonged to no connection and brought no cookie back.
    pub bad: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Admitted {
    /// `admitted` under the limits, `prioritised` where one bit and the source was verified, or `proven_by_cookie` where
    /// one bit that others may have exhausted and the source brought back a SYN cookie.
    pub reason: String,
    /// `unknown` or `verified`.
    pub class: String,
    pub packets: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Dropped {
    pub reason: String,
    /// `unknown` or `verified`.
    pub class: String,
    pub packets: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Passed {
    pub reason: String,
    /// `pass`, `transmit` or `redirect`.
    pub verdict: String,
    /// `unknown` or `verified`.
    pub class: String,
    pub packets: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Cpu {
    pub cpu: usize,
    /// Dropped ones too.
    pub packets: u64,
    pub dropped_packets: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Worker {
    pub worker: u64,
    /// SYNs that the connection hash gave to this worker in XDP.
    pub syns_picked: u64,
    /// Connections that sk_lookup, recomputing the hash, handed to this worker's socket.
    pub connections_steered: u64,
}

/// A source that XDP treats in its own way, for a while.
#[derive(Debug, Serialize, Deserialize)]
pub struct Mark {
    pub source: String,
    pub remaining_seconds: u64,
}

/// The answer of `lists`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Lists {
    /// What the kernel holds; nothing of a family without a list.
    pub families: Vec<ListFamily>,
    /// What is in force came from here; `None` when no controller runs.
    pub sources: Option<Vec<ListSource>>,
    /// A loading that is under way.
    pub loading: Option<ListLoading>,
    /// Why the files as they are now are not in force.
    pub refused: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ListFamily {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Prefixes that deny, each counted once; likewise those that allow.
    pub denied: u64,
    pub allowed: u64,
    /// In the kernel.
    pub memory_bytes: u64,
    /// RFC 3339, in UTC.
    pub loaded_at: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ListSource {
    /// `deny` or `allow`.
    pub list: String,
    /// `None`: the configuration itself.
    pub file: Option<String>,
    /// Prefixes, repeated ones too.
    pub ipv4: usize,
    pub ipv6: usize,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ListLoading {
    /// `reading` or `compiling`.
    pub stage: String,
    pub prefixes: usize,
    pub seconds: u64,
}

/// The answer of `lists ADDRESS`.
#[derive(Debug, Serialize, Deserialize)]
pub struct ListDecision {
    pub address: IpAddr,
    /// `denied`, `allowed` or `unlisted`.
    pub listed: String,
    /// The prefix that decides; `None` for an unlisted address.
    pub prefix: Option<String>,
    /// Where it stands; `None`: in the configuration itself.
    pub file: Option<String>,
    pub line: Option<u32>,
}

/// One row of `backends`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Backend {
    pub pool: String,
    pub address: SocketAddr,
    /// Where it was found; `None`: the configuration names it, or no controller runs.
    #[serde(default)]
    pub from: Option<String>,
    /// What L7 chooses by; `None` when no controller runs.
    pub l7: Option<BackendL7>,
    /// What the eBPF map holds; `None` when nothing is attached.
    pub ebpf: Option<String>,
    /// What XDP forwards to it; `None` when nothing is attached.
    pub l4: Option<BackendL4>,
}

/// A backend as packets are forwarded to it.
#[derive(Debug, Serialize, Deserialize)]
pub struct BackendL4 {
    /// Its share of new flows is this in proportion to its pool's sum.
    pub weight: u8,
    pub packets: u64,
    /// IP bytes of what the clients sent, without what forwarding adds.
    pub bytes: u64,
    pub new_flows: u64,
    /// `None` while the way is unknown, and where nothing is forwarded to the pool.
    pub way: Option<BackendWay>,
    /// What leads to it in QUIC connection ids, in hexadecimal; none where no service is routed by them.
    #[serde(default)]
    pub server_ids: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct BackendWay {
    pub interface: String,
    /// Ethernet address of the next hop.
    pub next_hop: String,
    /// The largest IP packet that fits.
    pub mtu_bytes: u16,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct BackendL7 {
    pub healthy: bool,
    /// Whether it gets new requests, and why not: `serving`, `slow_start`, `standby` while others are enough, `draining`,
    /// `down`, `ejected`, or `panic` when it is used though it seems down.
    #[serde(default)]
    pub state: String,
    pub for_seconds: u64,
    pub requests: u64,
    pub in_flight: u64,
    /// Expected until the head of a response, where the pool goes by it.
    #[serde(default)]
    pub latency_us: Option<u32>,
    pub last_error: Option<String>,
}
