//! How the backends of a pool are spoken to.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::tls::{Handshakes, Terms};
use crate::config::{BackendConfig, BackendProtocol, BackendTls, PoolConfig};

/// What is known before a backend is called.
#[derive(Debug)]
pub struct Dial {
    id: DialId,
    pub protocol: BackendProtocol,
    tls: Option<Tls>,
}

/// Tells connections that may stand in for one another from others: two pools may have the same address and want different
/// proofs of it, and what was proved under old settings is no proof under new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DialId(u64);

#[derive(Debug)]
struct Tls {
    config: BackendTls,
    backends: HashMap<SocketAddr, Handshakes>,
}

impl Dial {
    /// Settings that stay the same keep their connections and sessions.
    pub(super) fn of(config: &PoolConfig, previous: Option<&Dial>) -> Dial {
        let protocol = config.protocol;
        let Some(tls) = &config.tls else { return Dial { id: DialId::PLAIN, protocol, tls: None } };
        let previous = previous.filter(|dial| dial.protocol == protocol);
        let known = previous.and_then(|dial| Some((dial.id, dial.tls.as_ref().filter(|known| known.config == *tls)?)));
        if known.is_none() && tls.accepts_any_certificate {
            let pool = &*config.name;
            tracing::warn!(pool, "backends are believed whatever certificate they show; do so in tests only");
        }
        let terms = Terms::of(tls, protocol.offered());
        let handshakes = |backend: &BackendConfig| {
            let address = backend.address;
            let kept = known.and_then(|(_, known)| known.backends.get(&address).cloned());
            (address, kept.unwrap_or_else(|| terms.with(address.ip())))
        };
        let backends = config.backends.iter().map(handshakes).collect();
        let id = known.map_or_else(DialId::next, |(id, _)| id);
        Dial { id, protocol, tls: Some(Tls { config: tls.clone(), backends }) }
    }

    pub fn id(&self) -> DialId {
        self.id
    }

    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// How TLS begins with a backend of the pool; `None`: it is spoken to in plain.
    ///
    /// Errors: it is none of the pool's, and nothing is said to it.
    pub fn handshakes(&self, backend: SocketAddr) -> io::Result<Option<&Handshakes>> {
        let Some(tls) = &self.tls else { return Ok(None) };
        let known = tls.backends.get(&backend);
        known.map(Some).ok_or_else(|| io::Error::other(format!("{backend} is no backend of this pool")))
    }

    /// What the pool's backends must prove.
    pub fn tls(&self) -> Option<&BackendTls> {
        Some(&self.tls.as_ref()?.config)
    }
}

impl DialId {
    /// Of all that is plain.
    pub const PLAIN: DialId = DialId(0);

    fn next() -> DialId {
        static LAST: AtomicU64 = AtomicU64::new(0);
        DialId(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }
}
