//! What the numbers in some fields stand for.

/// May a backend be given new work?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BackendState {
    /// Takes new work.
    Healthy,
    /// Finishes what it has, takes nothing new.
    Draining,
    /// Failed its health checks.
    Down,
}

/// How a service's packets reach a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Forward {
    /// To the controller's workers on this host.
    #[default]
    Local,
    /// In an outer IP header of the backend's family (RFC 2003, RFC 2473).
    Ipip,
    /// In UDP, Generic UDP Encapsulation variant 1: IP directly in UDP (draft-ietf-intarea-gue).
    Gue,
    /// As it is, to the backend's Ethernet address; the backend owns the VIP and answers the client itself.
    L2,
    /// With addresses and ports rewritten, in both directions.
    Nat,
}

impl Forward {
    pub const fn to_number(self) -> u8 {
        match self {
            Self::Local => 0,
            Self::Ipip => 1,
            Self::Gue => 2,
            Self::L2 => 3,
            Self::Nat => 4,
        }
    }

    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Local),
            1 => Some(Self::Ipip),
            2 => Some(Self::Gue),
            3 => Some(Self::L2),
            4 => Some(Self::Nat),
            _ => None,
        }
    }

    /// As the configuration and the listings write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "l7",
            Self::Ipip => "ipip",
            Self::Gue => "gue",
            Self::L2 => "l2",
            Self::Nat => "nat",
        }
    }
}

/// What decides which backend a new flow gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HashBy {
    /// Addresses, ports and protocol.
    #[default]
    Connection,
    /// The client's address alone: all its connections reach one backend.
    Source,
}

impl HashBy {
    pub const fn to_number(self) -> u8 {
        match self {
            Self::Connection => 0,
            Self::Source => 1,
        }
    }

    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Connection),
            1 => Some(Self::Source),
            _ => None,
        }
    }
}

impl BackendState {
    pub const fn to_number(self) -> u8 {
        match self {
            Self::Healthy => 1,
            Self::Draining => 2,
            Self::Down => 3,
        }
    }

    /// `None` for a free slot.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Healthy),
            2 => Some(Self::Draining),
            3 => Some(Self::Down),
            _ => None,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Draining => "draining",
            Self::Down => "down",
        }
    }
}
