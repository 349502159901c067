//! Session tickets (RFC 8446 §4.6.1, RFC 5077) that all hosts of a fleet can open, under keys that change by the clock.
//!
//! A ticket: 8 bytes that name its key, 16 random bytes that make a key of its own from that one, 12 random bytes of nonce,
//! then AES-256-GCM. A key of its own for each ticket, because random nonces under one key are safe for 2³² tickets only, and
//! a fleet shares its keys.

mod secrets;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use lb_policy::UnixSeconds;
use rustls::server::ProducesTickets;

use super::beginning;
use super::client_authorities::ClientAuthorities;
use crate::clock::Clock;
use crate::config::TlsConfig;

use secrets::Secrets;
pub use secrets::TicketKeysError;

const NAME_BYTES: usize = 8;
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const HEAD_BYTES: usize = NAME_BYTES + SALT_BYTES + NONCE_BYTES;
const KEY_BYTES: usize = 32;

/// Chains of client certificates go into tickets too; what is longer than this is not ours.
const LONGEST_TICKET_BYTES: usize = 32 * 1024;

/// Seals and opens tickets.
#[derive(Debug)]
pub struct Tickets {
    keys: ArcSwap<Keys>,
    secrets: Mutex<Secrets>,
    clock: Clock,
    /// A ticket belongs to the authorities that were asked about when it was made: with others, clients must show their
    /// certificates anew.
    clients: Arc<ClientAuthorities>,
}

/// What tickets are sealed and opened with at one time.
#[derive(Debug)]
struct Keys {
    /// The first seals.
    all: Vec<TicketKey>,
    /// Seconds.
    lifetime: u32,
    /// When other keys are due.
    ends_at: UnixSeconds,
}

struct TicketKey {
    name: [u8; NAME_BYTES],
    prk: Prk,
    /// Since when it seals, and until when it opens.
    times: std::ops::Range<UnixSeconds>,
}

impl std::fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TicketKey").field("times", &self.times).finish_non_exhaustive()
    }
}

struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-Expand (RFC 5869) to N bytes.
fn expand<const N: usize>(prk: &Prk, info: &[&[u8]]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    prk.expand(info, Bytes(N)).ok()?.fill(&mut bytes).ok()?;
    Some(bytes)
}

impl TicketKey {
    /// The key that `secret` stands for from `times.start` on.
    fn of(secret: &[u8], times: std::ops::Range<UnixSeconds>) -> Option<TicketKey> {
        let prk = Salt::new(HKDF_SHA256, b"lb session tickets 2").extract(secret);
        let start = times.start.to_be_bytes();
        let own: [u8; KEY_BYTES] = expand(&prk, &[b"key", &start])?;
        let prk = Prk::new_less_safe(HKDF_SHA256, &own);
        Some(TicketKey { name: expand(&prk, &[b"name"])?, prk, times })
    }

    fn for_ticket(&self, salt: &[u8]) -> Option<LessSafeKey> {
        let key: [u8; KEY_BYTES] = expand(&self.prk, &[b"ticket", salt])?;
        Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).ok()?))
    }
}

impl Keys {
    fn seal(&self, plain: &[u8], now: UnixSeconds, context: &[u8]) -> Option<Vec<u8>> {
        let key = self.all.first().filter(|key| key.times.contains(&now))?;
        let mut ticket = vec![0; HEAD_BYTES];
        ticket[..NAME_BYTES].copy_from_slice(&key.name);
        aws_lc_rs::rand::fill(&mut ticket[NAME_BYTES..]).ok()?;
        let (salt, nonce) = ticket[NAME_BYTES..].split_at(SALT_BYTES);
        let (own, nonce) = (key.for_ticket(salt)?, Nonce::try_assume_unique_for_key(nonce).ok()?);
        let mut sealed = plain.to_vec();
        own.seal_in_place_append_tag(nonce, Aad::from(context), &mut sealed).ok()?;
        ticket.extend_from_slice(&sealed);
        Some(ticket)
    }

    fn open(&self, ticket: &[u8], now: UnixSeconds, context: &[u8]) -> Option<Vec<u8>> {
        if !(HEAD_BYTES + TAG_BYTES..=LONGEST_TICKET_BYTES).contains(&ticket.len()) {
            return None;
        }
        let (head, sealed) = ticket.split_at(HEAD_BYTES);
        let (name, rest) = head.split_at(NAME_BYTES);
        let (salt, nonce) = rest.split_at(SALT_BYTES);
        // Names are no secrets: they stand in every ticket.
        let key = self.all.iter().find(|key| key.name == name && key.times.contains(&now))?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut plain = sealed.to_vec();
        let length = key.for_ticket(salt)?.open_in_place(nonce, Aad::from(context), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

impl Tickets {
    /// Errors: the file of secrets cannot be used; or the state folder cannot be written, when there is none.
    pub fn open(
        config: &TlsConfig,
        state_dir: &std::path::Path,
        clients: Arc<ClientAuthorities>,
        clock: Clock,
    ) -> Result<Arc<Tickets>, TicketKeysError> {
        let mut secrets = Secrets::open(config, state_dir, clock.now())?;
        let keys = ArcSwap::from_pointee(secrets.keys(clock.now())?);
        Ok(Arc::new(Tickets { keys, secrets: Mutex::new(secrets), clock, clients }))
    }

    /// Reads what a new configuration names. What cannot be read changes nothing.
    pub fn apply(&self, config: &TlsConfig, state_dir: &std::path::Path) -> Result<(), TicketKeysError> {
        let mut secrets = Secrets::open(config, state_dir, self.clock.now())?;
        self.keys.store(Arc::new(secrets.keys(self.clock.now())?));
        *self.secrets.lock().unwrap_or_else(PoisonError::into_inner) = secrets;
        Ok(())
    }

    /// Changes keys when it is time, or when their file is another one. To be called about once a second.
    pub fn look(&self) {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        if !secrets.have_changed() && now < self.keys.load().ends_at {
            return;
        }
        match secrets.keys(now) {
            Ok(keys) => self.keys.store(Arc::new(keys)),
            Err(error) => tracing::error!("the keys of session tickets stay as they were: {error:#}"),
        }
    }
}

/// Whether the file of secrets can be used, if one is configured.
pub(super) fn check(config: &TlsConfig) -> Result<(), TicketKeysError> {
    config.ticket_keys.as_deref().map_or(Ok(()), secrets::check)
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.keys.load().lifetime
    }

    /// `None`: the client gets no ticket, and shakes hands in full the next time.
    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let now = self.clock.now();
        self.keys.load().seal(&beginning::note(plain, now), now, &self.clients.fingerprint())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let now = self.clock.now();
        let plain = self.keys.load().open(ticket, now, &self.clients.fingerprint())?;
        let longest = Duration::from_secs(2 * u64::from(self.lifetime()));
        beginning::go_on(plain, now, longest)
    }
}

/// Clients send whatever they like as a ticket, also under the name of a key that is in force. The bytes are a session too, as
/// if a ticket had been opened: reading when it began must end within them.
#[cfg(any(test, fuzzing))]
pub fn no_bytes_are_a_ticket_or_a_session(bytes: &[u8]) {
    let times = 0..100;
    let Some(key) = TicketKey::of(&[7; KEY_BYTES], times) else { return };
    let named = [&key.name[..], bytes].concat();
    let keys = Keys { all: vec![key], lifetime: 60, ends_at: 100 };
    for ticket in [bytes, &named] {
        assert_eq!(keys.open(ticket, 50, b""), None);
    }
    let session = beginning::go_on(bytes.to_vec(), 50, Duration::from_secs(60));
    assert!(session.is_none_or(|session| bytes.ends_with(&session)));
}

#[cfg(test)]
mod tests;
