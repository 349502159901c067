//! Counts finished handshakes by what was agreed on.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use rustls::{CommonState, HandshakeKind, NamedGroup, ProtocolVersion};

const VERSIONS: [&str; 2] = ["1.2", "1.3"];
/// `retried`: a client guessed wrong how keys are exchanged, which cost it a round trip.
const KINDS: [&str; 3] = ["full", "retried", "resumed"];
const GROUPS: [&str; 6] = ["none", "X25519MLKEM768", "X25519", "secp256r1", "secp384r1", "other"];

/// One counter for each that can be, so that counting takes no lock.
#[derive(Debug, Default)]
pub struct Handshakes([[[AtomicU64; GROUPS.len()]; KINDS.len()]; VERSIONS.len()]);

impl Handshakes {
    pub(in crate::serve) fn count(&self, connection: &CommonState) {
        let version = usize::from(connection.protocol_version() == Some(ProtocolVersion::TLSv1_3));
        let kind = match connection.handshake_kind() {
            Some(HandshakeKind::Resumed) => 2,
            Some(HandshakeKind::FullWithHelloRetryRequest) => 1,
            _ => 0,
        };
        let group = match connection.negotiated_key_exchange_group().map(|group| group.name()) {
            None => 0,
            Some(NamedGroup::X25519MLKEM768) => 1,
            Some(NamedGroup::X25519) => 2,
            Some(NamedGroup::secp256r1) => 3,
            Some(NamedGroup::secp384r1) => 4,
            Some(_) => 5,
        };
        self.0[version][kind][group].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "TLS handshakes that clients finished, by version, kind and key exchange";
        let mut family = encoder.encode_descriptor("tls_handshakes", help, None, MetricType::Counter)?;
        for (version, kinds) in VERSIONS.iter().zip(&self.0) {
            for (kind, groups) in KINDS.iter().zip(kinds) {
                for (group, count) in GROUPS.iter().zip(groups) {
                    let count = count.load(Ordering::Relaxed);
                    if count > 0 {
                        let labels = [("version", *version), ("kind", *kind), ("key_exchange", *group)];
                        ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
                    }
                }
            }
        }
        Ok(())
    }
}
