//! The two families, each with a client, a VIP and backends.

use lb_tests::packet::Packet;

use super::ETHERNET_BYTES;

/// One family: who speaks with whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    pub(crate) is_v4: bool,
    pub(crate) service: &'static str,
    pub(crate) client: &'static str,
    pub(crate) vip: &'static str,
    pub(crate) own: &'static str,
    pub(crate) backend: &'static str,
    pub(crate) spare: &'static str,
}

pub(crate) const V4: Family = Family {
    is_v4: true,
    service: "four",
    client: "192.0.2.1:40000",
    vip: "198.51.100.10:80",
    own: "10.9.0.1",
    backend: "10.9.0.2:8080",
    spare: "10.9.0.3:8080",
};
pub(crate) const V6: Family = Family {
    is_v4: false,
    service: "six",
    client: "[2001:db8:1:1::1]:40000",
    vip: "[2001:db8:100::10]:80",
    own: "[2001:db8:9::1]",
    backend: "[2001:db8:9::2]:8080",
    spare: "[2001:db8:9::3]:8080",
};
pub(crate) const FAMILIES: [Family; 2] = [V4, V6];

impl Family {
    pub(crate) fn header_bytes(self) -> usize {
        if self.is_v4 { 20 } else { 40 }
    }

    pub(crate) fn by_client(self) -> Packet {
        Packet::new(self.client, self.vip)
    }

    pub(crate) fn to_backend(self, port: u16) -> Packet {
        Packet::new(&format!("{}:{port}", self.own), self.backend)
    }

    pub(crate) fn by_backend(self, port: u16) -> Packet {
        Packet::new(self.backend, &format!("{}:{port}", self.own))
    }

    pub(crate) fn to_client(self) -> Packet {
        Packet::new(self.vip, self.client)
    }

    /// The port that the backend sees.
    pub(crate) fn port(self, frame: &[u8]) -> u16 {
        let at = ETHERNET_BYTES + self.header_bytes();
        u16::from_be_bytes([frame[at], frame[at + 1]])
    }
}
