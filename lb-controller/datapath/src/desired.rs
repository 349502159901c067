//! What the maps should say: the configuration's and the health checks' view, in names and addresses.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb_common::nat::{DEFAULT_CAPACITY, DEFAULT_PORTS, MAX_ADDRESSES, MAX_CAPACITY};
use lb_common::parse::{TCP, UDP};
use lb_common::quic::{ServerId, ServerIdLengths};
use lb_common::syn_cookie::SynCookies;
use lb_common::types::{BackendState, Forward, HashBy};
use lb_common::vip::VipPrefix;

use crate::lists::Prefix;

/// Everything the data plane should know. Applying it twice changes nothing the second time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    pub services: Vec<DesiredService>,
    pub backends: Vec<DesiredBackend>,
    /// Those of a backend that stands for none are nobody's.
    pub server_ids: Vec<DesiredServerId>,
    /// New flows to all services together: SYNs, and the first packets of other protocols' flows.
    pub new_flows: Rate,
    pub nat: DesiredNat,
    pub sampling: Sampling,
    /// Whose tunnels end on this host; `None`: nobody's.
    pub tier: Option<Tier>,
}

/// Load balancers that send this host packets in tunnels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Their addresses, which outer headers must come from. Who can send packets with these as their source can put any
    /// client's address inside.
    pub from: Vec<Prefix>,
    /// UDP destination port of GUE.
    pub gue_port: u16,
}

/// Which packets are written down for people to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Of each reason on each CPU, at most; a second's worth may come at once. 0: none.
    pub per_second: u32,
    /// Beside the dropped ones every so many-th packet that was let in, for each reason and CPU; rounded up to whole
    /// [`Self::LET_IN_STEP`]s. 0: none.
    pub let_in_one_in: u64,
}

impl Sampling {
    pub const LET_IN_STEP: u64 = lb_common::sample::LOOK_EVERY;
}

impl Default for Sampling {
    /// Enough to see what is dropped, and in a flood a cost that nobody notices.
    fn default() -> Self {
        Self { per_second: 100, let_in_one_in: 0 }
    }
}

/// How connections of services with [`Forward::Nat`] are translated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredNat {
    /// Addresses of this host that backends see. Of a family without any, each backend sees the one that the route to it
    /// prefers.
    pub addresses: Vec<IpAddr>,
    /// First and last port that backends answer to, on each of these addresses.
    pub ports: (u16, u16),
    /// How long a connection may be silent.
    pub tcp_idle: Duration,
    pub udp_idle: Duration,
}

impl Default for DesiredNat {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            ports: DEFAULT_PORTS,
            tcp_idle: Duration::from_secs(3600),
            udp_idle: Duration::from_secs(60),
        }
    }
}

impl DesiredNat {
    /// Addresses that one family may have.
    pub const MAX_ADDRESSES: usize = MAX_ADDRESSES;
    /// Connections that fit, unless [`crate::LoadOptions`] says otherwise, and at most.
    pub const DEFAULT_CAPACITY: usize = DEFAULT_CAPACITY;
    pub const MAX_CAPACITY: usize = MAX_CAPACITY;
}

/// One group of VIPs that share ports, limits and where their packets go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredService {
    /// At most 64 bytes; its counters follow the name across restarts.
    pub name: String,
    /// Of all VIPs that contain a destination, the longest decides alone.
    pub vips: Vec<VipPrefix>,
    pub ports: Ports,
    pub protocols: Protocols,
    pub limits: Limits,
    /// Off of a service that forwards: only the kernel that makes a cookie can take it back.
    pub syn_cookies: SynCookies,
    /// To the workers of this host, or on to the backends of `pool`.
    pub forward: Forward,
    /// Named by each service that forwards, and by no local one. Its backends are those of [`Desired::backends`].
    pub pool: Option<String>,
    pub hash_by: HashBy,
    /// UDP destination port, where `forward` is GUE.
    pub gue_port: u16,
    /// The largest TCP segment that a SYN may announce, less where less fits the way to the backend; 0 leaves it alone.
    pub max_segment_bytes: u16,
    /// How QUIC connection ids name a backend; nothing of a service that is not routed by them.
    pub quic: ServerIdLengths,
}

impl Default for DesiredService {
    /// A local TCP service without name, VIP and port: for those who fill in what they need.
    fn default() -> Self {
        Self {
            name: String::new(),
            vips: Vec::new(),
            ports: Ports::One(0),
            protocols: Protocols::TCP,
            limits: Limits::default(),
            syn_cookies: SynCookies::Off,
            forward: Forward::Local,
            pool: None,
            hash_by: HashBy::Connection,
            gue_port: Self::DEFAULT_GUE_PORT,
            max_segment_bytes: 0,
            quic: ServerIdLengths::default(),
        }
    }
}

impl DesiredService {
    /// As IANA assigned it.
    pub const DEFAULT_GUE_PORT: u16 = 6080;
}

/// Which ports of its VIPs a service has. An exact port is found before a range that contains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ports {
    One(u16),
    /// First and last, both included.
    Range(u16, u16),
    Any,
}

impl Ports {
    /// First and last.
    pub const fn bounds(self) -> (u16, u16) {
        match self {
            Self::One(port) => (port, port),
            Self::Range(first, last) => (first, last),
            Self::Any => (1, u16::MAX),
        }
    }

    pub const fn contains(self, port: u16) -> bool {
        let (first, last) = self.bounds();
        first <= port && port <= last
    }

    /// Would a packet not know which of the two it belongs to?
    pub const fn conflicts_with(self, other: Self) -> bool {
        match (self, other) {
            (Self::One(one), Self::One(other)) => one == other,
            // Exact ports win.
            (Self::One(_), _) | (_, Self::One(_)) => false,
            _ => {
                let ((first, last), (other_first, other_last)) = (self.bounds(), other.bounds());
                first <= other_last && other_first <= last
            }
        }
    }
}

/// As it is configured.
impl fmt::Display for Ports {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(port) => port.fmt(formatter),
            Self::Range(first, last) => write!(formatter, "{first}-{last}"),
            Self::Any => formatter.write_str("any"),
        }
    }
}

/// One of a service's places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub vip: VipPrefix,
    pub ports: Ports,
    /// IP protocol number.
    pub protocol: u8,
}

/// `192.0.2.1:443`, `[2001:db8::1]:53/udp`, `192.0.2.0/24:5000-5999`, `192.0.2.1:any/udp`.
impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vip.network() {
            IpAddr::V4(_) => write!(formatter, "{}:{}", self.vip, self.ports)?,
            IpAddr::V6(_) => write!(formatter, "[{}]:{}", self.vip, self.ports)?,
        }
        if self.protocol == UDP { formatter.write_str("/udp") } else { Ok(()) }
    }
}

/// At least one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocols {
    pub tcp: bool,
    pub udp: bool,
}

impl Protocols {
    pub const TCP: Self = Self { tcp: true, udp: false };
    pub const UDP: Self = Self { tcp: false, udp: true };
    pub const BOTH: Self = Self { tcp: true, udp: true };

    /// IP protocol numbers.
    pub fn numbers(self) -> impl Iterator<Item = u8> {
        self.tcp.then_some(TCP).into_iter().chain(self.udp.then_some(UDP))
    }

    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.numbers().map(protocol_name)
    }
}

/// Of the two that services have.
const fn protocol_name(number: u8) -> &'static str {
    if number == UDP { "udp" } else { "tcp" }
}

/// All unlimited by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// For each source (IPv4 /32, IPv6 /64).
    pub source: Rates,
    /// For each network (IPv4 /24, IPv6 /48).
    pub network: Rates,
    /// For all sources together.
    pub service: Rates,
    /// For each verified source, in packets, while one of the others bites.
    pub verified: Rate,
}

impl Limits {
    /// Each limit with whom it is for (`source`, `network`, `service`, `verified`) and what it counts (`packets`,
    /// `syns`, `bytes`); those that are no limit are left out.
    pub fn in_force(&self) -> Vec<(&'static str, &'static str, Rate)> {
        let of = |scope, rates: &Rates| {
            [(scope, "packets", rates.packets), (scope, "syns", rates.syns), (scope, "bytes", rates.bytes)]
        };
        let groups = [of("source", &self.source), of("network", &self.network), of("service", &self.service)];
        let all = groups.into_iter().flatten().chain([("verified", "packets", self.verified)]);
        all.filter(|(.., rate)| rate.per_second > 0).collect()
    }
}

/// What may be limited of somebody's traffic; each unlimited by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    pub packets: Rate,
    pub syns: Rate,
    /// IP bytes, without the Ethernet header.
    pub bytes: Rate,
}

impl Rates {
    /// A limit of packets alone.
    pub const fn of_packets(packets: Rate) -> Self {
        Self { packets, syns: Rate::UNLIMITED, bytes: Rate::UNLIMITED }
    }

    /// A limit of SYNs alone.
    pub const fn of_syns(syns: Rate) -> Self {
        Self { packets: Rate::UNLIMITED, syns, bytes: Rate::UNLIMITED }
    }
}

/// Packets, SYNs or bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// 0 means unlimited.
    pub per_second: u64,
    /// How many may come at once; raised to what two ticks of the kernel's clock let through, cut to what comes in half
    /// an hour.
    pub burst: u64,
}

impl Rate {
    pub const UNLIMITED: Self = Self { per_second: 0, burst: 0 };
}

/// One server of a pool, and whether it takes new work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredBackend {
    /// At most 64 bytes.
    pub pool: String,
    pub address: SocketAddr,
    /// New flows come in proportion to the weights of a pool; 0 gets none.
    pub weight: u8,
    pub state: BackendState,
}

/// What names a backend in the QUIC connection ids that it issues. One may have several, and each is one's alone in its
/// pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredServerId {
    pub pool: String,
    pub address: SocketAddr,
    pub id: ServerId,
}
