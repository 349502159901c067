//! The programs beside the first one, reached by a tail call: the verifier follows every combination of ways through a
//! program, and gives up at a million instructions.

use crate::verdict::Reason;

/// Index into the `SLOW_PATHS` map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum SlowPath {
    /// Packets whose ports are not where they usually are, or not there: IPv4 options, IPv6 extension headers,
    /// fragments.
    Unusual,
    /// A fragment whose headers are read.
    Fragment,
    /// A packet whose headers are read, wherever they were: the fast program's way from there on.
    Judge,
    /// A packet that may be a tunnel's end, whose outer headers are read.
    Tunnel,
    /// What was inside one.
    Inner,
    /// The same once its headers are read.
    InnerService,
    /// An admitted packet of a service with backends.
    Forward,
    /// ICMP and ICMPv6.
    Icmp,
    /// An ICMP error whose connection is read.
    IcmpError,
    /// A SYN that is answered here and now, if the kernel will know the answer's answer.
    SynCookie,
    /// That answer, once it is decided.
    CookieAnswer,
    /// A packet that must belong to a connection, or bring back a cookie.
    CookieCheck,
    /// A packet that is judged, and is to be written to the ring of samples.
    Sample,
    /// A packet that does not fit the way to its backend.
    TooBig,
    /// A SYN whose largest segment is to be lowered, on the way of [`SlowPath::Forward`].
    Mss,
    /// A packet of a service that is routed by QUIC connection ids, on the way of [`SlowPath::Forward`].
    Quic,
    /// An admitted packet of a service whose packets are rewritten for its backends.
    Nat,
    /// The first packet of a connection there.
    NatNew,
    /// A packet to an address and port where backends of such services answer.
    NatReply,
    /// An ICMP error about such a connection, from either side.
    NatError,
}

impl SlowPath {
    /// In the order of their indices.
    pub const ALL: &[Self] = &[
        Self::Unusual,
        Self::Fragment,
        Self::Judge,
        Self::Tunnel,
        Self::Inner,
        Self::InnerService,
        Self::Forward,
        Self::Icmp,
        Self::IcmpError,
        Self::SynCookie,
        Self::CookieAnswer,
        Self::CookieCheck,
        Self::Sample,
        Self::TooBig,
        Self::Mss,
        Self::Quic,
        Self::Nat,
        Self::NatNew,
        Self::NatReply,
        Self::NatError,
    ];

    /// Elements of the `SLOW_PATHS` map.
    pub const COUNT: usize = Self::ALL.len();

    /// The program's name in the eBPF object.
    pub const fn program_name(self) -> &'static str {
        match self {
            Self::Unusual => "lb_unusual",
            Self::Fragment => "lb_fragment",
            Self::Judge => "lb_judge",
            Self::Tunnel => "lb_tunnel",
            Self::Inner => "lb_inner",
            Self::InnerService => "lb_inner_service",
            Self::Forward => "lb_forward",
            Self::Icmp => "lb_icmp",
            Self::IcmpError => "lb_icmp_error",
            Self::SynCookie => "lb_syn_cookie",
            Self::CookieAnswer => "lb_cookie_answer",
            Self::CookieCheck => "lb_cookie_check",
            Self::Sample => "lb_sample",
            Self::TooBig => "lb_too_big",
            Self::Mss => "lb_mss",
            Self::Quic => "lb_quic",
            Self::Nat => "lb_nat",
            Self::NatNew => "lb_nat_new",
            Self::NatReply => "lb_nat_reply",
            Self::NatError => "lb_nat_error",
        }
    }

    #[inline(always)]
    pub const fn index(self) -> u32 {
        self as u32
    }
}

/// Where a packet's way through a program ends: with a verdict, or in another program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stop {
    Reason(Reason),
    Slow(SlowPath),
}

impl From<Reason> for Stop {
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self::Reason(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_has_an_index_of_its_own_inside_the_map() {
        for (index, path) in (0..).zip(SlowPath::ALL) {
            assert_eq!(path.index(), index, "{path:?}");
        }
    }
}
