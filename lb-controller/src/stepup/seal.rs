//! Text that clients carry for us but can neither read nor change: AES-256-GCM under a key ring kept on disk.
//!
//! `v1.<key id>.<base64url(nonce ‖ ciphertext ‖ tag)>`. The purpose, the host and the key id are authenticated with it,
//! so text sealed for one cookie, virtual host or key opens as no other.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lb_policy::UnixSeconds;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::private_file;
use super::random_id::{hex, random_bytes};
use crate::report::SealingKey;

/// What a sealed text is for; one never opens as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Session,
    Device,
    ReturnPath,
    /// A way to an identity provider and back.
    Trip,
    /// What a puzzle is for, and what has been done.
    Errand,
    Work,
    /// Kept in the store until the logout.
    IdToken,
}

impl Purpose {
    fn label(self) -> &'static str {
        match self {
            Purpose::Session => "__Host-lb",
            Purpose::Device => "__Host-lb-device",
            Purpose::ReturnPath => "to",
            Purpose::Trip => "__Host-lb-idp-",
            Purpose::Errand => "errand",
            Purpose::Work => "__Host-lb-work",
            Purpose::IdToken => "id_token",
        }
    }

    /// No text that is sealed for it comes near; longer ones are not worth decoding.
    fn longest_text(self) -> usize {
        match self {
            Purpose::IdToken => 32 * 1024,
            _ => 4096,
        }
    }
}

/// Seals with the current key, opens with the current one or the one before it.
pub(super) struct Sealer {
    file: PathBuf,
    keys: ArcSwap<Vec<Key>>,
    /// Changes come one at a time.
    changing: Mutex<()>,
}

const VERSION: &str = "v1";
/// Nonces are random: NIST SP 800-38D allows 2^32 seals per key. At 500 seals a second, 30 days stay below a third of it.
const KEY_LIFETIME_SECONDS: u64 = 30 * 24 * 3600;

impl Sealer {
    /// Reads the keys of `directory`, or makes the first one.
    pub(super) fn open(directory: &Path, now: UnixSeconds) -> Result<Sealer> {
        let file = directory.join("sealing-keys.json");
        let keys = match private_file::read(&file)? {
            Some(bytes) => read_keys(&bytes).with_context(|| {
                format!("{} is damaged; delete it to end all sessions and make new keys", file.display())
            })?,
            None => Vec::new(),
        };
        let sealer = Sealer { file, keys: ArcSwap::from_pointee(keys), changing: Mutex::default() };
        sealer.rotate_if_due(now)?;
        Ok(sealer)
    }

    /// Puts a new key first once the current one has done its time. Texts sealed before stay readable for one more
    /// key lifetime, longer than any session lives.
    pub(super) fn rotate_if_due(&self, now: UnixSeconds) -> Result<()> {
        let is_due = |current: &Key| now >= current.saved.made_at + KEY_LIFETIME_SECONDS;
        if self.keys.load().first().is_none_or(is_due) { self.rotate(now) } else { Ok(()) }
    }

    /// Puts a new key first, as if it were due.
    pub(super) fn rotate(&self, now: UnixSeconds) -> Result<()> {
        self.change(|keys| {
            keys.truncate(1);
            keys.insert(0, SavedKey::new(now));
        })
    }

    /// Takes a key away for good, with a new one in its place if it was the one that seals. `false`: it is not there.
    pub(super) fn revoke(&self, id: &str, now: UnixSeconds) -> Result<bool> {
        let mut is_there = false;
        self.change(|keys| {
            let seals = keys.first().is_some_and(|key| key.kid == id);
            let before = keys.len();
            keys.retain(|key| key.kid != id);
            is_there = keys.len() < before;
            if seals {
                keys.insert(0, SavedKey::new(now));
            }
        })?;
        Ok(is_there)
    }

    /// The keys without their secrets, the one that seals first.
    pub(super) fn list(&self) -> Vec<SealingKey> {
        let keys = self.keys.load();
        let shown = |(index, key): (usize, &Key)| SealingKey {
            id: key.saved.kid.clone(),
            made_at: key.saved.made_at,
            seals: index == 0,
        };
        keys.iter().enumerate().map(shown).collect()
    }

    /// Changes the keys on disk, then those in use: after a crash in between the newer ones hold.
    fn change(&self, change: impl FnOnce(&mut Vec<SavedKey>)) -> Result<()> {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut saved: Vec<SavedKey> = self.keys.load().iter().map(|key| key.saved.clone()).collect();
        change(&mut saved);
        private_file::replace(&self.file, &serde_json::to_vec(&saved)?)?;
        self.keys.store(Arc::new(saved.into_iter().map(Key::new).collect::<Result<_>>()?));
        Ok(())
    }

    pub(super) fn seal(&self, purpose: Purpose, host: &str, plain: &[u8]) -> String {
        let keys = self.keys.load();
        let key = keys.first().expect("a key is made before the first seal");
        let nonce: [u8; NONCE_LEN] = random_bytes();
        let mut sealed = Vec::with_capacity(plain.len() + 16);
        sealed.extend_from_slice(plain);
        key.aead
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                associated_data(purpose, host, &key.saved.kid),
                &mut sealed,
            )
            .expect("AES-GCM seals anything shorter than 64 GiB");
        let encoded = URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat());
        format!("{VERSION}.{}.{encoded}", key.saved.kid)
    }

    /// The plain bytes, or `None` for anything we did not seal for this purpose and host. An unknown key id costs the
    /// same as a wrong tag, so the time taken does not tell which keys we hold.
    pub(super) fn open_sealed(&self, purpose: Purpose, host: &str, text: &str) -> Option<Zeroizing<Vec<u8>>> {
        if text.len() > purpose.longest_text() {
            return None;
        }
        let (kid, encoded) = text.strip_prefix(VERSION)?.strip_prefix('.')?.split_once('.')?;
        let mut bytes = URL_SAFE_NO_PAD.decode(encoded).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk_mut::<NONCE_LEN>()?;
        let keys = self.keys.load();
        // The key id is authenticated as written, so trying another key than it names can only fail.
        let key = keys.iter().find(|key| key.saved.kid == kid).or_else(|| keys.first())?;
        let plain = key
            .aead
            .open_in_place(Nonce::assume_unique_for_key(*nonce), associated_data(purpose, host, kid), sealed)
            .ok()?;
        Some(Zeroizing::new(plain.to_vec()))
    }
}

fn associated_data(purpose: Purpose, host: &str, kid: &str) -> Aad<Vec<u8>> {
    // Neither label, host nor key id can hold a NUL, so no two triples give the same bytes.
    Aad::from([purpose.label(), host, VERSION, kid].join("\0").into_bytes())
}

struct Key {
    saved: SavedKey,
    aead: LessSafeKey,
}

impl Key {
    fn new(saved: SavedKey) -> Result<Key> {
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.decode(&*saved.secret).context("a secret is not base64url")?);
        let unbound = UnboundKey::new(&AES_256_GCM, &secret).ok().context("a secret is not 32 bytes long")?;
        Ok(Key { saved, aead: LessSafeKey::new(unbound) })
    }
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedKey {
    kid: String,
    made_at: UnixSeconds,
    secret: Zeroizing<String>,
}

impl SavedKey {
    fn new(now: UnixSeconds) -> SavedKey {
        let secret: Zeroizing<[u8; 32]> = Zeroizing::new(random_bytes());
        SavedKey {
            kid: hex(&random_bytes::<4>()),
            made_at: now,
            secret: Zeroizing::new(URL_SAFE_NO_PAD.encode(*secret)),
        }
    }
}

fn read_keys(bytes: &[u8]) -> Result<Vec<Key>> {
    let saved: Vec<SavedKey> = serde_json::from_slice(bytes)?;
    ensure!(!saved.is_empty(), "it holds no key");
    saved.into_iter().map(Key::new).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sealer() -> (tempfile::TempDir, Sealer) {
        let directory = tempfile::tempdir().unwrap();
        let sealer = Sealer::open(directory.path(), 0).unwrap();
        (directory, sealer)
    }

    #[test]
    fn a_sealed_text_opens_only_for_its_own_purpose_and_host() {
        let (_directory, sealer) = sealer();
        let text = sealer.seal(Purpose::Session, "shop.example", b"alice");
        let rows = [
            ("the purpose and host it was sealed for", Purpose::Session, "shop.example", true),
            ("another purpose", Purpose::Device, "shop.example", false),
            ("another virtual host", Purpose::Session, "blog.example", false),
        ];
        for (name, purpose, host, opens) in rows {
            assert_eq!(sealer.open_sealed(purpose, host, &text).is_some(), opens, "{name}");
        }
    }

    #[test]
    fn renaming_the_key_of_a_sealed_text_does_not_open_it() {
        let (_directory, sealer) = sealer();
        let text = sealer.seal(Purpose::Session, "h", b"alice");
        let (_, encoded) = text.rsplit_once('.').unwrap();
        assert!(sealer.open_sealed(Purpose::Session, "h", &format!("v1.00000000.{encoded}")).is_none());
    }

    #[test]
    fn a_restart_and_one_rotation_keep_texts_readable_and_a_second_rotation_does_not() {
        let (directory, sealer) = sealer();
        let text = sealer.seal(Purpose::Session, "h", b"alice");
        let reopened = |now| Sealer::open(directory.path(), now).unwrap();
        assert!(reopened(1).open_sealed(Purpose::Session, "h", &text).is_some(), "after a restart");
        sealer.rotate_if_due(KEY_LIFETIME_SECONDS).unwrap();
        assert!(sealer.open_sealed(Purpose::Session, "h", &text).is_some(), "after one rotation");
        assert!(reopened(KEY_LIFETIME_SECONDS).open_sealed(Purpose::Session, "h", &text).is_some(), "after both");
        let twice = reopened(2 * KEY_LIFETIME_SECONDS);
        assert!(twice.open_sealed(Purpose::Session, "h", &text).is_none(), "after two rotations");
    }

    #[test]
    fn a_key_that_is_revoked_opens_nothing_even_after_a_restart_and_others_open_on() {
        let (directory, sealer) = sealer();
        let old = sealer.seal(Purpose::Session, "h", b"alice");
        sealer.rotate(10).unwrap();
        let new = sealer.seal(Purpose::Session, "h", b"alice");
        let ids: Vec<String> = sealer.list().into_iter().map(|key| key.id).collect();
        assert!(!sealer.revoke("00000000", 20).unwrap());
        assert!(sealer.revoke(&ids[1], 20).unwrap());
        for sealer in [&sealer, &Sealer::open(directory.path(), 20).unwrap()] {
            assert!(sealer.open_sealed(Purpose::Session, "h", &old).is_none());
            assert!(sealer.open_sealed(Purpose::Session, "h", &new).is_some());
        }
        assert!(sealer.revoke(&ids[0], 30).unwrap());
        assert!(sealer.open_sealed(Purpose::Session, "h", &new).is_none());
        let newest = sealer.seal(Purpose::Session, "h", b"alice");
        assert!(sealer.open_sealed(Purpose::Session, "h", &newest).is_some());
    }

    #[test]
    fn a_damaged_key_file_is_named_with_its_remedy() {
        for damaged in [&b"not json"[..], b"[]", br#"[{"kid":"a","made_at":0,"secret":"AAAA"}]"#] {
            let directory = tempfile::tempdir().unwrap();
            private_file::replace(&directory.path().join("sealing-keys.json"), damaged).unwrap();
            let error = format!("{:#}", Sealer::open(directory.path(), 0).err().unwrap());
            assert!(error.contains("sealing-keys.json is damaged; delete it"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn random_text_never_opens(text in "\\PC{0,200}") {
            let (_directory, sealer) = sealer();
            prop_assert!(sealer.open_sealed(Purpose::Session, "h", &text).is_none());
            let prefixed = format!("v1.{text}");
            prop_assert!(sealer.open_sealed(Purpose::Session, "h", &prefixed).is_none());
        }

        #[test]
        fn a_text_with_any_byte_changed_or_cut_off_never_opens(at in 0usize..80, to in 33u8..127, cut in 1usize..80) {
            let (_directory, sealer) = sealer();
            let text = sealer.seal(Purpose::Session, "h", b"who is here, and since when");
            let at = at % text.len();
            let mut bytes = text.clone().into_bytes();
            if bytes[at] != to {
                bytes[at] = to;
                let changed = String::from_utf8(bytes).unwrap();
                prop_assert!(sealer.open_sealed(Purpose::Session, "h", &changed).is_none());
            }
            let cut_off = &text[..text.len() - cut.min(text.len())];
            prop_assert!(sealer.open_sealed(Purpose::Session, "h", cut_off).is_none());
        }
    }
}
