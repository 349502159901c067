//! Every way a packet can end, named once for the kernel, the metrics and the command line.

/// What happens to the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// To this host's own network stack.
    Pass,
    Drop,
    /// Out of the interface it came in by.
    Transmit,
    /// Out of another interface.
    Redirect,
}

/// Was the source known to have finished a step-up when the packet was judged?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceClass {
    /// Nothing is known, or nobody had to look.
    Unknown,
    Verified,
}

/// Why packets to a service were dropped, in the few groups that are counted for each service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum DropClass {
    List,
    Block,
    /// Of the source, verified or not.
    SourceLimit,
    NetworkLimit,
    /// Of the service, or of new flows to all.
    ServiceLimit,
    SynCookie,
    /// Admitted, and then no way was found to a backend.
    Undelivered,
    Other,
}

impl DropClass {
    /// In the order of their counters.
    pub const ALL: [Self; 8] = [
        Self::List,
        Self::Block,
        Self::SourceLimit,
        Self::NetworkLimit,
        Self::ServiceLimit,
        Self::SynCookie,
        Self::Undelivered,
        Self::Other,
    ];
    pub const COUNT: usize = Self::ALL.len();

    /// Stable, for metric labels and JSON.
    pub const fn metric_name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Block => "block",
            Self::SourceLimit => "source_limit",
            Self::NetworkLimit => "network_limit",
            Self::ServiceLimit => "service_limit",
            Self::SynCookie => "syn_cookie",
            Self::Undelivered => "undelivered",
            Self::Other => "other",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident $verdict:ident $metric:literal $text:literal,)+) => {
        /// Why a packet was passed or dropped. Each packet ends with exactly one reason.
        ///
        /// A new reason is one line here: its counter, its metric and its text in the CLI follow.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $name,)+ }

        impl Reason {
            /// In the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            #[inline(always)]
            pub const fn verdict(self) -> Verdict {
                match self { $(Self::$name => Verdict::$verdict,)+ }
            }

            /// What `reason as u64` was made of.
            #[inline(always)]
            pub const fn of_number(number: u64) -> Option<Self> {
                $(if number == Self::$name as u64 { return Some(Self::$name); })+
                None
            }

            /// Stable, for metric labels and JSON.
            pub const fn metric_name(self) -> &'static str {
                match self { $(Self::$name => $metric,)+ }
            }

            /// For people.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }

        /// Part of the layout hash: a counter must never be read under another reason's name.
        pub(crate) const NAMES: &[&str] = &[$($metric,)+];
    };
}

reasons! {
    /// Not IP, or IP that carries neither TCP nor UDP: ARP, ICMP, tunnels.
    NotInspected Pass "not_inspected" "not TCP or UDP over IP",
    NoService Pass "no_service" "addressed to no service",
    Admitted Pass "admitted" "admitted under the limits",
    /// A limit was over, but the source finished a step-up and is within the limit of its own.
    Prioritised Pass "prioritised" "admitted over a limit because the source is verified",
    /// A later fragment whose first one, with the ports, was not seen, not admitted, or is forgotten.
    FragmentUnknown Drop "fragment_unknown" "IP fragment to a VIP, of a datagram whose first fragment was not admitted",
    /// Overlaps serve to replace the header that was judged (RFC 1858, RFC 3128, RFC 5722).
    FragmentOverlap Drop "fragment_overlap" "IP fragment to a VIP that overlaps the first one",
    TinyFragment Drop "tiny_fragment" "first IP fragment to a VIP without the whole TCP or UDP header",
    BadFragment Drop "bad_fragment" "IP fragment to a VIP with impossible offset or length",
    BadIpHeader Drop "bad_ip_header" "IP header addressed to a VIP with impossible lengths",
    /// More extension headers than the bounded walk reads, or a chain that leaves the packet.
    BadExtensionChain Drop "bad_extension_chain" "IPv6 extension headers addressed to a VIP too many or cut short",
    BadTransportHeader Drop "bad_transport_header" "TCP or UDP header addressed to a VIP cut short or impossible",
    DeniedByList Drop "denied_by_list" "source is on a deny list",
    Blocked Drop "blocked" "source is blocked",
    SourceLimit Drop "source_limit" "source is over its limit of packets",
    SourceSynLimit Drop "source_syn_limit" "source is over its limit of SYNs",
    SourceByteLimit Drop "source_byte_limit" "source is over its limit of bytes",
    NetworkLimit Drop "network_limit" "the source's network is over its limit of packets",
    NetworkSynLimit Drop "network_syn_limit" "the source's network is over its limit of SYNs",
    NetworkByteLimit Drop "network_byte_limit" "the source's network is over its limit of bytes",
    ServiceLimit Drop "service_limit" "service is over its limit of packets and the source is not verified",
    ServiceSynLimit Drop "service_syn_limit" "service is over its limit of SYNs and the source is not verified",
    ServiceByteLimit Drop "service_byte_limit" "service is over its limit of bytes and the source is not verified",
    /// SYNs, and packets of other protocols that open a flow, to all services together.
    NewFlowLimit Drop "new_flow_limit" "too many new flows per second, and the source is not verified",
    VerifiedSourceLimit Drop "verified_source_limit" "verified source is over the limit of its own",
    /// A source ran into a limit that others may have exhausted in its name, but brought back a cookie and is within the
    /// limit of what is proven.
    ProvenByCookie Pass "proven_by_cookie" "admitted over a limit because the source brought back a SYN cookie",
    SynCookieSent Transmit "syn_cookie_sent" "SYN answered with a cookie",
    BadSynCookie Drop "bad_syn_cookie" "belongs to no connection and brings back no SYN cookie, under pressure",
    NoBackend Drop "no_backend" "no backend of the service is there to take it",
    NoWayToBackend Drop "no_way_to_backend" "the next hop on the way to the backend is not known",
    TooBigForBackend Drop "too_big_for_backend" "with its outer headers larger than the way to the backend takes, and the sender not told",
    /// Answered with "fragmentation needed" or "packet too big".
    TooBigAnswered Transmit "too_big_answered" "larger than the way to the backend takes, and the sender told what fits",
    /// The kernel would not make room for the outer header.
    NoRoom Drop "no_room" "no room in the frame for the headers that forwarding adds",
    /// A tunnel packet to one of this host's own addresses, which only the L4 tier may send.
    TunnelFromOutside Drop "tunnel_from_outside" "tunnel packet to this host from outside the L4 tier",
    BadTunnel Drop "bad_tunnel" "tunnel packet from the L4 tier cut short, in fragments, nested or of another kind",
    TunnelNotToVip Drop "tunnel_not_to_vip" "tunnel packet from the L4 tier that carries a packet to no service",
    /// A router of the tunnel marked what the packet inside cannot be marked with (RFC 6040 §4.2).
    TunnelCongested Drop "tunnel_congested" "tunnel packet that met congestion, of a sender that heeds no such mark",
    NatFull Drop "nat_full" "no room for another connection through NAT",
    NatNoPort Drop "nat_no_port" "no port of NAT towards the backend is free",
    /// Without the state that an earlier packet made there is nothing to rewrite it to.
    NatUnknown Drop "nat_unknown" "belongs to no connection through NAT, and begins none",
    NatReply Transmit "nat_reply" "answer of a backend, sent to the client through NAT",
    /// Late, or somebody else's: the host refuses it, or has a server there.
    NatReplyUnknown Pass "nat_reply_unknown" "to a port of NAT that no connection has; passed to this host",
    EchoAnswered Transmit "echo_answered" "ping to a VIP, answered",
    /// ICMP that the host's own stack makes use of: errors about connections that end here, neighbour discovery.
    IcmpPassed Pass "icmp_passed" "ICMP to a VIP, passed to this host",
    /// About a connection to a backend.
    IcmpForwarded Transmit "icmp_forwarded" "ICMP error sent on to the backend of the connection it is about",
    IcmpLimit Drop "icmp_limit" "source of ICMP to a VIP is over its limit",
    BadIcmp Drop "bad_icmp" "ICMP to a VIP cut short, or about a packet that the VIP never sent",
    /// The program could not read a map element that always exists: at L4 a fault of ours must not stop traffic.
    InternalError Pass "internal_error" "a map that always exists was missing; passed unjudged",
}

impl Reason {
    pub const COUNT: usize = Self::ALL.len();

    /// Elements of the `REASONS` map: one for each reason and class.
    pub const COUNTERS: usize = Self::COUNT * SourceClass::COUNT;

    /// Index into the `REASONS` map.
    #[inline(always)]
    pub const fn counter(self, class: SourceClass) -> u32 {
        self as u32 * SourceClass::COUNT as u32 + class as u32
    }

    /// A limit that whoever forges addresses can exhaust in the name of others: its packet may prove its source instead.
    #[inline(always)]
    pub const fn is_exhaustible_limit(self) -> bool {
        matches!(
            self,
            Self::SourceLimit
                | Self::SourceSynLimit
                | Self::SourceByteLimit
                | Self::NetworkLimit
                | Self::NetworkSynLimit
                | Self::NetworkByteLimit
                | Self::ServiceLimit
                | Self::ServiceSynLimit
                | Self::ServiceByteLimit
                | Self::NewFlowLimit
        )
    }

    /// Under which of a service's drops it is counted.
    #[inline(always)]
    pub const fn drop_class(self) -> DropClass {
        match self {
            Self::DeniedByList => DropClass::List,
            Self::Blocked => DropClass::Block,
            Self::SourceLimit | Self::SourceSynLimit | Self::SourceByteLimit | Self::VerifiedSourceLimit => {
                DropClass::SourceLimit
            }
            Self::NetworkLimit | Self::NetworkSynLimit | Self::NetworkByteLimit => DropClass::NetworkLimit,
            Self::ServiceLimit | Self::ServiceSynLimit | Self::ServiceByteLimit | Self::NewFlowLimit => {
                DropClass::ServiceLimit
            }
            Self::BadSynCookie => DropClass::SynCookie,
            Self::NoBackend | Self::NoWayToBackend | Self::TooBigForBackend | Self::NoRoom => DropClass::Undelivered,
            _ => DropClass::Other,
        }
    }

    /// Is the packet, which was not dropped, one that this load balancer is there for?
    #[inline(always)]
    pub const fn is_ours(self) -> bool {
        !matches!(self, Self::NotInspected | Self::NoService | Self::InternalError)
    }

    /// The class that follows from the reason itself.
    #[inline(always)]
    pub const fn class(self) -> SourceClass {
        match self {
            Self::Prioritised | Self::VerifiedSourceLimit => SourceClass::Verified,
            _ => SourceClass::Unknown,
        }
    }
}

impl SourceClass {
    pub const ALL: [Self; 2] = [Self::Unknown, Self::Verified];
    pub const COUNT: usize = Self::ALL.len();

    /// Stable, for metric labels and JSON.
    pub const fn metric_name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Verified => "verified",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_and_class_has_a_counter_of_its_own_inside_the_map() {
        let counters: HashSet<u32> =
            Reason::ALL.iter().flat_map(|reason| SourceClass::ALL.map(|class| reason.counter(class))).collect();
        assert_eq!(counters.len(), Reason::COUNTERS);
        assert!(counters.iter().all(|counter| (*counter as usize) < Reason::COUNTERS));
    }

    #[test]
    fn every_class_of_drops_has_a_place_and_a_name_of_its_own() {
        for (index, class) in DropClass::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, index, "{class:?}");
        }
        let names: HashSet<_> = DropClass::ALL.map(DropClass::metric_name).into();
        assert_eq!(names.len(), DropClass::COUNT);
    }

    #[test]
    fn a_reason_survives_the_round_trip_to_its_number() {
        assert!(Reason::ALL.iter().all(|reason| Reason::of_number(*reason as u64) == Some(*reason)));
        assert_eq!(Reason::of_number(Reason::COUNT as u64), None);
    }

    #[test]
    fn no_two_reasons_share_a_metric_name_or_a_text() {
        let names: HashSet<_> = Reason::ALL.iter().map(|reason| reason.metric_name()).collect();
        let texts: HashSet<_> = Reason::ALL.iter().map(|reason| reason.text()).collect();
        assert_eq!((names.len(), texts.len()), (Reason::COUNT, Reason::COUNT));
    }
}
