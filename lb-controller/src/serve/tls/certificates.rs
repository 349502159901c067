//! Which certificate for which client.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::sign::CertifiedKey;

use super::files::Loaded;

/// The certificates that handshakes see, by the names they are for.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    /// For clients that name no server (RFC 6066 §3: an IP literal is none), or one that no certificate covers.
    default: Candidates,
    exact: HashMap<String, Candidates>,
    /// `example.com` for `*.example.com`.
    wildcard: HashMap<String, Candidates>,
}

/// Certificates for the same name, the favourite first: those that are cheap to sign with, and of these the earlier one.
#[derive(Debug, Default)]
struct Candidates(Vec<Arc<CertifiedKey>>);

impl Certificates {
    /// The first is the default, and with it those that share a name with it.
    pub(super) fn of(all: &[Arc<Loaded>]) -> Certificates {
        let (cheap, dear): (Vec<_>, Vec<_>) = all.iter().partition(|loaded| !loaded.is_rsa());
        let mut certificates = Certificates::default();
        for loaded in cheap.into_iter().chain(dear) {
            for name in &loaded.names {
                let (table, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut certificates.wildcard, parent),
                    None => (&mut certificates.exact, name.as_str()),
                };
                table.entry(name.to_owned()).or_default().0.push(loaded.key.clone());
            }
            if all.first().is_some_and(|first| stands_in_for(loaded, first)) {
                certificates.default.0.push(loaded.key.clone());
            }
        }
        certificates
    }

    /// The certificate for a server name that a client can verify who knows these signature schemes. A wildcard stands for
    /// exactly one label (RFC 9525 §6.3). A client that can verify none gets the default, and ends the handshake itself.
    pub(super) fn choose(&self, server_name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        let named = server_name.map(|name| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase());
        let exact = named.as_deref().and_then(|name| self.exact.get(name));
        let parent = named.as_deref().and_then(|name| name.split_once('.')).map(|(_, parent)| parent);
        let wildcard = parent.and_then(|parent| self.wildcard.get(parent));
        let mut candidates = exact.into_iter().chain(wildcard).chain([&self.default]);
        candidates.find_map(|candidates| candidates.verifiable_by(schemes)).or_else(|| self.default.0.first())
    }
}

/// The default itself, and what serves one of its names to clients of the other kind of key.
fn stands_in_for(loaded: &Arc<Loaded>, default: &Arc<Loaded>) -> bool {
    let shares_a_name = || loaded.names.iter().any(|name| default.names.contains(name));
    Arc::ptr_eq(loaded, default) || (loaded.is_rsa() != default.is_rsa() && shares_a_name())
}

impl Candidates {
    fn verifiable_by(&self, schemes: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        self.0.iter().find(|candidate| candidate.key.choose_scheme(schemes).is_some())
    }
}
