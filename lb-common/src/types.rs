//! The values that live in eBPF maps.
//!
//! The zerocopy derives refuse to compile a struct with padding, so that no uninitialised byte can differ between two
//! equal keys. The text of every definition goes into the layout hash of the pin path (see [`crate::maps::LAYOUT`]):
//! whoever changes a field gets fresh maps, never old bytes read with new eyes.

mod choices;
mod free;
mod shared;

pub use choices::{BackendState, Forward, HashBy};
pub use shared::Shared;

use crate::address::{Address, HINT_WORDS};
use crate::fragment::SET_WORDS;
use crate::lists::{FAMILIES, ROOT_BLOCK_WORDS};
use crate::maps::MAGLEV_TABLE_LENGTH;
use crate::nat::{BLOCK_WORDS, MAX_ADDRESSES};
use crate::sample::SAMPLE_BYTES;
use crate::verdict::DropClass;

macro_rules! shared_types {
    ($($(#[$doc:meta])* pub struct $name:ident { $($(#[$field_doc:meta])* pub $field:ident : $kind:ty,)+ })+) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            #[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
            #[repr(C)]
            pub struct $name { $($(#[$field_doc])* pub $field: $kind,)+ }

            impl Shared for $name {
                type Bytes = [u8; size_of::<$name>()];
                #[inline]
                fn to_bytes(self) -> Self::Bytes { zerocopy::transmute!(self) }
                #[inline]
                fn from_bytes(bytes: Self::Bytes) -> Self { zerocopy::transmute!(bytes) }
            }
        )+
        /// The definitions as written: name, fields and field types of each shared struct.
        pub(crate) const DEFINITIONS: &[&str] = &[$(concat!(stringify!($name), $(" ", stringify!($field), ":", stringify!($kind)),+)),+];
    };
}

shared_types! {
    /// What the XDP program reads for every TCP or UDP packet, found at once. A bit that is clear among the hints is a promise.
    pub struct Control {
        /// Which of the two tables in `SERVICES` is live: 0 or 1.
        pub active_table: u32,
        /// One more than the last element of `BACKENDS` that was ever in use: who lists them stops there.
        pub backends_end: u32,
        /// For each table: non-zero while a prefix is a VIP, so that otherwise no packet costs a lookup in `VIP_PREFIXES`.
        pub any_vip_prefixes: [u32; 2],
        /// The seed of each table, chosen by user space so that every key found a slot.
        pub seeds: [u64; 2],
        /// Of all services together.
        pub new_flows: SharedLimit,
        /// For each table: [`Address::hint`] of every VIP.
        pub vip_hints: [[u64; HINT_WORDS]; 2],
        /// [`crate::source::Source::block_hint`] of every source in `BLOCKS`.
        pub block_hints: [u64; HINT_WORDS],
        /// For each family: [`crate::lists::hint`] of every prefix in its list.
        pub list_hints: [[u64; ROOT_BLOCK_WORDS]; FAMILIES],
    }

    /// Where one VIP:port leads. The key is `(address, port, protocol, kind)`; the rest is the value.
    pub struct ServiceEntry {
        /// Of a VIP that is a prefix, what [`crate::vip::VipPrefix::stand_in`] makes of it.
        pub address: Address,
        pub port: u16,
        /// IP protocol number: 6 for TCP, 17 for UDP, 0 in the entry of a whole VIP.
        pub protocol: u8,
        /// [`crate::service::EMPTY`], or one of the kinds beside it.
        pub kind: u8,
        /// Index into `LIMITS`, `FORWARDS`, `SERVICE_STATS` and `SERVICE_NAMES`.
        pub service: u16,
        /// How many worker sockets share the service's connections; 0 until the workers listen.
        pub workers: u16,
        /// Of a whole VIP: where its port ranges begin in this table's half of `RANGES`, and how many there are, at
        /// most [`crate::vip::MAX_RANGES_PER_VIP`].
        pub ranges_start: u16,
        pub ranges_count: u16,
        /// Of a whole VIP: which protocols have a service there; see [`ServiceEntry::has_protocol`].
        pub protocols: u8,
        pub unused: [u8; 3],
    }

    /// Some ports of a VIP that lead to one service. Those of a VIP do not overlap for a protocol.
    pub struct ServiceRange {
        pub first_port: u16,
        /// Included.
        pub last_port: u16,
        /// IP protocol number; 0 in a free element.
        pub protocol: u8,
        pub unused: u8,
        /// As in [`ServiceEntry`].
        pub service: u16,
        pub workers: u16,
        pub unused_too: [u16; 3],
    }

    /// What `VIP_PREFIXES` finds for a destination inside a prefix.
    pub struct VipPrefixEntry {
        /// What to search in the place of the VIP, with the kinds of a prefix.
        pub stand_in: Address,
    }

    /// One GCRA limit in the units of its arithmetic; see [`crate::rate`].
    pub struct Limit {
        /// Picoseconds that one packet, SYN or byte costs; 0 means unlimited.
        pub cost_ps: u64,
        /// How far ahead of the clock the theoretical arrival time may run: the burst.
        pub tolerance_ps: u64,
    }

    /// A limit that all CPUs charge; see [`crate::rate::shared`].
    pub struct SharedLimit {
        pub cost_ps: u64,
        pub tolerance_ps: u64,
        /// Packets, SYNs or bytes that a CPU takes at once.
        pub batch_units: u64,
    }

    /// What each source or network may send.
    pub struct RateLimits {
        pub packets: Limit,
        pub syns: Limit,
        pub bytes: Limit,
    }

    /// What all sources together may send.
    pub struct SharedRateLimits {
        pub packets: SharedLimit,
        pub syns: SharedLimit,
        pub bytes: SharedLimit,
    }

    /// What one service allows.
    pub struct ServiceLimits {
        /// Which of the groups below hold a limit at all: `ServiceLimits::LIMITS_…`.
        pub in_force: u64,
        /// For each source (IPv4 /32, IPv6 /64).
        pub source: RateLimits,
        /// For each network (IPv4 /24, IPv6 /48).
        pub network: RateLimits,
        /// For all sources together.
        pub service: SharedRateLimits,
        /// For each verified source, in packets, while another limit bites.
        pub verified: Limit,
    }

    /// Entries of the limiter that belong together; see [`crate::rate::set`].
    pub struct LimiterSet {
        pub entries: [u64; 4],
    }

    /// The theoretical arrival times of shared limits, alone on their cache line: every CPU writes them.
    pub struct SharedClocks {
        pub packets_ps: u64,
        pub syns_ps: u64,
        pub bytes_ps: u64,
        pub unused: [u64; 5],
    }

    /// What one CPU has taken from [`SharedClocks`] and not spent, in units.
    pub struct SharedReserves {
        pub packets: u64,
        pub syns: u64,
        pub bytes: u64,
    }

    /// What is known about a source that finished a step-up.
    pub struct VerifiedSource {
        /// `CLOCK_MONOTONIC` nanoseconds; a later packet is an unknown source's again.
        pub verified_until_ns: u64,
        /// `CLOCK_MONOTONIC` nanoseconds of the last step-up; outlives `verified_until_ns`.
        pub last_verified_ns: u64,
        /// The source's own limit while another limit bites.
        pub theoretical_arrival_ps: u64,
    }

    /// Per service and CPU.
    pub struct ServiceCounters {
        pub admitted_packets: u64,
        /// IP bytes, without the Ethernet header.
        pub admitted_bytes: u64,
        pub admitted_syns: u64,
        pub dropped_packets: u64,
    }

    /// Per worker and CPU. XDP and sk_lookup compute the worker independently: the two columns prove that they agree.
    pub struct WorkerCounters {
        /// SYNs whose connection hash chose this worker in XDP.
        pub picked_syns: u64,
        /// Connections that sk_lookup handed to this worker's socket.
        pub steered_connections: u64,
    }

    /// Whether and when a service's SYNs are answered with cookies; see [`crate::syn_cookie`].
    pub struct CookiePolicy {
        /// 0: never, 1: under pressure and over limits, 2: each.
        pub mode: u32,
        /// One less than the SYNs that a CPU counts for itself between two looks at the shared clock: a power of two.
        pub batch_mask: u32,
        /// Over it is pressure; one packet of it is a batch.
        pub pressure: Limit,
    }

    /// What the programs remember of a service's cookies: one cache line. Times in nanoseconds of the limiters' clock,
    /// 0 before the first.
    pub struct CookieState {
        /// All packets read it, so it is written once a tick at most.
        pub pressure_until_ns: u64,
        /// Until when ACKs may bring cookies back.
        pub answered_until_ns: u64,
        /// Theoretical arrival time of the next batch of SYNs.
        pub pressure_arrival_ps: u64,
        /// Theoretical arrival time, for the service's limit, of packets whose source is proven.
        pub proven_arrival_ps: u64,
        /// `CLOCK_MONOTONIC` nanoseconds of the last second in which SYNs were answered, for user space.
        pub last_answered_ns: u64,
        pub unused: [u64; 3],
    }

    /// Per service and CPU.
    pub struct CookieCounters {
        /// Every SYN, whatever became of it.
        pub seen_syns: u64,
        /// SYNs answered with a cookie.
        pub answered_syns: u64,
        /// Valid cookies that came back, of those that were looked at: without pressure the kernel alone looks.
        pub valid_cookies: u64,
        /// Packets without connection and cookie, dropped under pressure.
        pub bad_cookies: u64,
    }

    /// When the kernel was last told, for one listening socket, that cookies are about; it takes none otherwise.
    pub struct CookieStamp {
        pub stamped_ns: u64,
        pub tried_ns: u64,
    }

    /// A source that brought back a cookie. Only what is proven moves its clocks, so that nobody else can exhaust them.
    pub struct ValidatedSource {
        /// Nanoseconds of the limiters' clock.
        pub valid_until_ns: u64,
        /// Theoretical arrival time of its next connection.
        pub connection_arrival_ps: u64,
        /// Theoretical arrival time of its next packet in a connection that exists.
        pub packet_arrival_ps: u64,
        /// The last cookie that was charged: our sequence number and the client's port.
        pub last_cookie: u64,
    }

    /// One backend server, written from its health, and the way to it: one cache line.
    pub struct BackendEntry {
        pub address: Address,
        /// Of the backend itself: what NAT writes.
        pub port: u16,
        /// Index into `POOL_NAMES`.
        pub pool: u16,
        /// A [`BackendState`] as a number; 0 for a free slot.
        pub state: u8,
        /// As it is configured: tables are built by it, here it is for listings only.
        pub weight: u8,
        /// The largest IP packet that the way to the backend takes.
        pub mtu_bytes: u16,
        /// Ethernet addresses of the next hop on the way to the backend, and of our interface there.
        pub next_hop_mac: [u8; 6],
        pub own_mac: [u8; 6],
        /// Index of our interface there; 0 while the way is unknown, and then the kernel's routes are asked.
        pub interface: u32,
        /// Our address in the outer header, of the backend's family; of an IPv4 one also its
        /// [`crate::outer::outer_ipv4_sum`] with protocol 0: packets of both families and kinds of tunnel go there, so
        /// each adds the protocol it is sent as.
        pub tunnel_source: Address,
        pub outer_sum: u32,
        /// Of a free slot, and only there: how many were freed before it. The one that was freed first is taken first,
        /// because flows may still name it.
        pub freed_order: u32,
    }

    /// What happens to a service's admitted packets. The first eight bytes are read and written at once.
    pub struct ServiceForward {
        /// Index into `TABLES`; beyond its end if the service has no backend at all.
        pub table: u16,
        /// What `table` was before the last change, while that is recent; the same index otherwise.
        pub previous_table: u16,
        /// A [`Forward`] as a number.
        pub forward: u8,
        /// A [`HashBy`] as a number.
        pub hash_by: u8,
        /// UDP destination port of GUE.
        pub gue_port: u16,
        /// The largest TCP segment announced in a SYN that passes, less where less fits the way to the backend; 0 leaves it
        /// alone.
        pub max_segment_bytes: u16,
        /// Index into `POOL_NAMES`, for listings.
        pub pool: u16,
        /// A [`crate::quic::ServerIdLengths`]; 0 for a service that is not routed by connection ids.
        pub quic_server_id_lengths: u32,
    }

    /// A server id of the QUIC services that forward to a pool. The value is an index into `BACKENDS`.
    pub struct QuicServerKey {
        /// Its bytes in order, then zeros.
        pub id_le: [u64; 2],
        pub pool: u32,
        pub id_bytes: u32,
    }

    /// Which backend a connection hash leads to, one index into `BACKENDS` for each of the table's places.
    pub struct MaglevTable {
        pub backends: [u16; MAGLEV_TABLE_LENGTH],
    }

    /// Connections that hash to the same bucket: one cache line. See [`crate::flow`].
    pub struct FlowBucket {
        pub words: [u64; 8],
    }

    /// Per backend and CPU.
    pub struct BackendCounters {
        pub packets: u64,
        /// IP bytes of what the client sent, without what forwarding adds.
        pub bytes: u64,
        /// Connections, or UDP flows, that were given to the backend as new.
        pub new_flows: u64,
    }

    /// Whose tunnels end on this host.
    pub struct TunnelPolicy {
        /// 0: nobody's.
        pub is_on: u32,
        /// UDP destination port of GUE; 0: none.
        pub gue_port: u32,
    }

    /// Packets taken out of tunnels, per CPU.
    pub struct TunnelCounters {
        /// Of IP in IP.
        pub ip_packets: u64,
        pub gue_packets: u64,
    }

    /// The secrets behind the hashes. They outlive a restart, so that a reload moves no connection to another worker.
    pub struct HashKeys {
        /// Chooses the worker of a connection.
        pub connection: [u64; 2],
        /// Places a source in the limiter.
        pub source: [u64; 2],
    }

    /// What the deny and allow list of one family holds; all zero when there is none. For people: no packet reads it.
    pub struct ListFacts {
        /// Prefixes that deny, each once; likewise those that allow.
        pub denied: u64,
        pub allowed: u64,
        /// Of the root and the table in the kernel.
        pub memory_bytes: u64,
        /// Seconds since 1970 of the loading.
        pub loaded_unix_s: u64,
        /// Which of `LIST_TABLES` the root names.
        pub table: u64,
    }

    /// Datagrams of which a first fragment was seen, as many as fit a cache line. See [`crate::fragment`].
    pub struct FragmentSet {
        pub words: [u64; SET_WORDS],
    }

    /// Packets to one service that were dropped, per CPU, by [`crate::verdict::DropClass`].
    pub struct ServiceDrops {
        pub packets: [u64; DropClass::COUNT],
    }

    /// Which packets are written to `SAMPLES`; see [`crate::sample`].
    pub struct SamplePolicy {
        /// Samples of each reason on each CPU; a cost of 0 means none at all.
        pub rate: Limit,
        /// Of the packets let in every so many-th [`crate::sample::LOOK_EVERY`] is written; 0 means none.
        pub let_in_looks: u64,
    }

    /// Per reason and CPU: what the programs remember between samples, and what came of them.
    pub struct Sampler {
        /// Dropped packets that pass by before the next one is looked at.
        pub drops_to_skip: u64,
        /// Looks at packets let in that pass by before the next one.
        pub looks_to_skip: u64,
        /// Theoretical arrival time of the next sample.
        pub arrival_ps: u64,
        /// Packets that were written, and those that found the ring full.
        pub written: u64,
        pub lost: u64,
    }

    /// One packet as it was when XDP was done with it.
    pub struct PacketSample {
        /// `CLOCK_MONOTONIC` nanoseconds.
        pub monotonic_ns: u64,
        /// Index of the interface that it came in by, and the receive queue there.
        pub interface: u32,
        pub queue: u32,
        /// All of the frame.
        pub frame_bytes: u32,
        /// As much of it as is in `bytes`.
        pub captured_bytes: u32,
        /// A `Reason` as a number, and the XDP action.
        pub reason: u32,
        pub action: u32,
        pub cpu: u32,
        pub unused: u32,
        pub bytes: [u8; SAMPLE_BYTES],
    }

    /// What the packets of a connection through NAT say of it, in one direction.
    pub struct NatKey {
        pub source: Address,
        pub destination: Address,
        /// Host order.
        pub source_port: u16,
        pub destination_port: u16,
        pub protocol: u8,
        pub unused: [u8; 3],
    }

    /// A connection through NAT. See [`crate::nat`].
    pub struct NatSlot {
        pub client: Address,
        pub vip: Address,
        pub backend: Address,
        /// The address of ours that the backend sees.
        pub nat: Address,
        /// Host order.
        pub client_port: u16,
        pub vip_port: u16,
        pub backend_port: u16,
        pub nat_port: u16,
        /// Index into `BACKENDS`, where another backend may be by now.
        pub backend_number: u16,
        pub service: u16,
        pub protocol: u8,
        pub unused: [u8; 3],
        /// Of TCP: the first sequence number of the backend, once it has answered.
        pub backend_sequence: u32,
        /// Where the client's packets come in.
        pub interface: u32,
        /// Their Ethernet addresses the other way round, as replies have them.
        pub reply_link: [u32; 3],
        pub unused_too: u32,
    }

    /// The words of some slots of `NAT_SLOTS`, together so that looking for a free one reads few cache lines.
    pub struct NatWords {
        pub words: [u64; BLOCK_WORDS],
    }

    /// How connections are translated.
    pub struct NatPolicy {
        /// Elements of `NAT_WORDS`.
        pub blocks: u32,
        /// Where replies come in.
        pub first_port: u16,
        pub last_port: u16,
        /// In steps of [`crate::nat::STEP_BITS`].
        pub tcp_idle_steps: u32,
        pub udp_idle_steps: u32,
        /// Of IPv4 and of IPv6: without any, the backend's `tunnel_source`.
        pub addresses_count: [u16; 2],
        pub unused: u32,
        pub addresses: [[Address; MAX_ADDRESSES]; 2],
    }

    /// Per service and CPU.
    pub struct NatCounters {
        pub reply_packets: u64,
        /// IP bytes.
        pub reply_bytes: u64,
        /// Connections that found no room, and that found no port towards their backend.
        pub refused_full: u64,
        pub refused_no_port: u64,
    }

    /// UTF-8, zero-padded; all zero when the index is free.
    pub struct Name {
        pub bytes: [u8; 64],
    }
}

#[cfg(test)]
mod tests;
