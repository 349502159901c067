//! What stands in elements that nothing is in.

use super::{BackendEntry, Forward, HashBy, Name, ServiceForward, ServiceRange};
use crate::address::Address;

impl ServiceForward {
    /// Of a local service, and of an index without service.
    pub const FREE: Self = Self {
        table: 0,
        previous_table: 0,
        forward: Forward::Local.to_number(),
        hash_by: HashBy::Connection.to_number(),
        gue_port: 0,
        max_segment_bytes: 0,
        pool: 0,
        quic_server_id_lengths: 0,
    };
}

impl ServiceRange {
    pub const FREE: Self =
        Self { first_port: 0, last_port: 0, protocol: 0, unused: 0, service: 0, workers: 0, unused_too: [0; 3] };
}

impl BackendEntry {
    /// A slot without a backend.
    pub const FREE: Self = Self {
        address: Address { words_be: [0; 4] },
        port: 0,
        pool: 0,
        state: 0,
        weight: 0,
        mtu_bytes: 0,
        next_hop_mac: [0; 6],
        own_mac: [0; 6],
        interface: 0,
        tunnel_source: Address { words_be: [0; 4] },
        outer_sum: 0,
        freed_order: 0,
    };
}

impl Name {
    /// Bytes a name may have.
    pub const MAX_BYTES: usize = 64;

    /// `None` if `text` is empty or longer than [`Self::MAX_BYTES`].
    pub fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; Self::MAX_BYTES];
        let place = bytes.get_mut(..text.len())?;
        place.copy_from_slice(text.as_bytes());
        (!text.is_empty()).then_some(Self { bytes })
    }

    /// `None` if the index is free.
    pub fn as_str(&self) -> Option<&str> {
        let length = self.bytes.iter().position(|byte| *byte == 0).unwrap_or(Self::MAX_BYTES);
        core::str::from_utf8(&self.bytes[..length]).ok().filter(|text| !text.is_empty())
    }
}
