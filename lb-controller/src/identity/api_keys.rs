//! API keys: made, listed, replaced and revoked by the operator, shown once and kept as a hash.
//!
//! A key is `lbk_<id>.<secret>`. The id is public: it names the key in lists and logs. The secret has 256 random bits, so
//! a plain SHA-256 of it is as good as the slowest hash, and costs every request nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lb_policy::UnixSeconds;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::report::ApiKeyReport;
use crate::store::{Store, StoreError};

const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
/// Kept in memory, each some 300 bytes.
const MOST_KEYS: usize = 100_000;
const LONGEST_NAME_BYTES: usize = 128;
const MOST_WORDS: usize = 64;

/// What a key may do, and for whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ApiKey {
    /// How the key begins, `lbk_…`; the record is kept under it.
    #[serde(skip)]
    pub(crate) id: String,
    pub(crate) user: String,
    /// What its owner calls it.
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
    pub(crate) scopes: Vec<String>,
    pub(crate) created_at: UnixSeconds,
    pub(crate) rotated_at: Option<UnixSeconds>,
    /// `None`: it does not end by itself.
    pub(crate) expires_at: Option<UnixSeconds>,
    /// It opens nothing until it was rotated.
    pub(crate) regenerate_required: bool,
    secret_sha256: [u8; 32],
}

/// What a new key shall be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NewApiKey {
    pub(crate) user: String,
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
    pub(crate) scopes: Vec<String>,
    pub(crate) lifetime_seconds: Option<u64>,
}

/// Why a key that was presented opens nothing. The client learns only whether a new secret would help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyRefused {
    #[error("unknown")]
    Unknown,
    #[error("expired")]
    Expired,
    #[error("regenerate-required")]
    RegenerateRequired,
}

/// Why a key cannot be made or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("there is no API key {0}; `lb-controller api-keys list` shows those there are")]
    NoSuchKey(String),
    #[error("{0}")]
    Unfit(&'static str),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All keys of this host: in memory for every request, on disk for the next start.
pub struct ApiKeys {
    known: RwLock<HashMap<[u8; ID_BYTES], Arc<ApiKey>>>,
    /// Held while a key changes, from reading it to the disk.
    changing: Mutex<()>,
    /// Keys that were made, changed or revoked since this process started.
    changes: AtomicU64,
    store: Arc<Store>,
}

impl ApiKeys {
    /// Reads those of earlier starts.
    pub fn open(store: Arc<Store>) -> Result<ApiKeys, StoreError> {
        let mut known = HashMap::new();
        for (id, record) in store.api_keys()? {
            match serde_json::from_slice::<ApiKey>(&record) {
                Ok(key) => drop(known.insert(id, Arc::new(ApiKey { id: name_of(id), ..key }))),
                Err(error) => tracing::error!(id = written(id), %error, "an API key cannot be read, and opens nothing"),
            }
        }
        Ok(ApiKeys { known: RwLock::new(known), changing: Mutex::default(), changes: AtomicU64::new(0), store })
    }

    /// Counts up with each key that is made, changed or revoked.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// From now on none opens anything here: another process has them, and changed one.
    pub(crate) fn forget_all(&self) {
        self.known.write().expect("no holder of this lock panics").clear();
    }

    /// How every key begins: scanners for leaked secrets go by it.
    pub(crate) const PREFIX: &str = "lbk_";

    /// Whether a credential has the form of a key of ours. Such are never sent on.
    pub(crate) fn has_form(text: &str) -> bool {
        text.starts_with(ApiKeys::PREFIX)
    }

    /// The key that `text` is. An id that does not exist costs the same as a wrong secret.
    pub(crate) fn authenticate(&self, text: &str, now: UnixSeconds) -> Result<Arc<ApiKey>, KeyRefused> {
        let (id, secret) = parse(text).ok_or(KeyRefused::Unknown)?;
        let hash = super::sha256(&*secret);
        let key = self.known.read().expect("no holder of this lock panics").get(&id).cloned();
        let expected = key.as_ref().map_or([0; 32], |key| key.secret_sha256);
        let is_right = verify_slices_are_equal(&hash, &expected).is_ok();
        let key = key.filter(|_| is_right).ok_or(KeyRefused::Unknown)?;
        if key.expires_at.is_some_and(|end| now >= end) {
            return Err(KeyRefused::Expired);
        }
        if key.regenerate_required {
            return Err(KeyRefused::RegenerateRequired);
        }
        Ok(key)
    }

    /// Whether a key that opened once still does with the secret it had then.
    pub(crate) fn still_opens(&self, id: &str, made_at: UnixSeconds, now: UnixSeconds) -> bool {
        let Ok(id) = self.find(id) else { return false };
        let known = self.known.read().expect("no holder of this lock panics").get(&id).cloned();
        known.is_some_and(|key| {
            key.rotated_at.unwrap_or(key.created_at) == made_at
                && !key.regenerate_required
                && key.expires_at.is_none_or(|end| now < end)
        })
    }

    /// Makes a key. The whole text is returned this once. Blocks on the disk.
    pub(crate) fn create(&self, new: NewApiKey, now: UnixSeconds) -> Result<Zeroizing<String>, KeyError> {
        check(&new)?;
        let _changing = self.changing.lock().expect("no holder of this lock panics");
        if self.known.read().expect("no holder of this lock panics").len() >= MOST_KEYS {
            return Err(KeyError::Unfit("there are 100,000 API keys; revoke some first"));
        }
        let mut id = [0; ID_BYTES];
        fill(&mut id);
        let secret = secret();
        let key = ApiKey {
            id: name_of(id),
            user: new.user,
            name: new.name,
            groups: new.groups,
            scopes: new.scopes,
            created_at: now,
            rotated_at: None,
            expires_at: new.lifetime_seconds.map(|seconds| now.saturating_add(seconds)),
            regenerate_required: false,
            secret_sha256: super::sha256(&*secret),
        };
        self.save(id, key)?;
        Ok(whole(id, &secret))
    }

    /// Gives a key another secret, at once. It opens again what it did. Blocks on the disk.
    pub(crate) fn rotate(&self, id: &str, now: UnixSeconds) -> Result<Zeroizing<String>, KeyError> {
        let secret = secret();
        let id = self.change(id, |key| {
            key.secret_sha256 = super::sha256(&*secret);
            key.regenerate_required = false;
            key.rotated_at = Some(now);
        })?;
        Ok(whole(id, &secret))
    }

    /// From now on the key opens nothing until it is rotated. Blocks on the disk.
    pub(crate) fn require_regeneration(&self, id: &str) -> Result<(), KeyError> {
        self.change(id, |key| key.regenerate_required = true).map(drop)
    }

    /// The same for all keys of a user; returns how many. Blocks on the disk.
    pub(crate) fn require_regeneration_of_user(&self, user: &str) -> Result<usize, KeyError> {
        let ids: Vec<_> = self.list().into_iter().filter(|key| key.user == user).map(|key| key.id).collect();
        ids.iter().try_for_each(|id| self.require_regeneration(id))?;
        Ok(ids.len())
    }

    /// Blocks on the disk.
    pub(crate) fn revoke(&self, id: &str) -> Result<(), KeyError> {
        let _changing = self.changing.lock().expect("no holder of this lock panics");
        let parsed = self.find(id)?;
        // From memory first: on a failing disk it is dead until the next start at least.
        self.known.write().expect("no holder of this lock panics").remove(&parsed);
        self.changes.fetch_add(1, Ordering::Relaxed);
        Ok(self.store.remove_api_key(parsed)?)
    }

    /// Ordered by the time they were made.
    pub(crate) fn list(&self) -> Vec<ApiKeyReport> {
        let known = self.known.read().expect("no holder of this lock panics");
        let mut all: Vec<_> = known.iter().map(|(id, key)| report(*id, key)).collect();
        all.sort_by(|one, other| (one.created_at, &one.id).cmp(&(other.created_at, &other.id)));
        all
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut ApiKey)) -> Result<[u8; ID_BYTES], KeyError> {
        let _changing = self.changing.lock().expect("no holder of this lock panics");
        let parsed = self.find(id)?;
        let known = self.known.read().expect("no holder of this lock panics").get(&parsed).cloned();
        let mut key = known.as_deref().cloned().ok_or_else(|| KeyError::NoSuchKey(id.to_owned()))?;
        change(&mut key);
        self.save(parsed, key)?;
        Ok(parsed)
    }

    fn find(&self, id: &str) -> Result<[u8; ID_BYTES], KeyError> {
        let bare = id.strip_prefix(ApiKeys::PREFIX).unwrap_or(id);
        // Whoever gives the whole key means it too; the rest is not looked at, and not repeated.
        let bare = bare.split('.').next().unwrap_or_default();
        let parsed = u64::from_str_radix(bare, 16).ok().filter(|_| bare.len() == 2 * ID_BYTES).map(u64::to_be_bytes);
        let is_known = |id: &[u8; ID_BYTES]| self.known.read().expect("no holder of this lock panics").contains_key(id);
        parsed.filter(is_known).ok_or_else(|| KeyError::NoSuchKey(bare.chars().take(16).collect()))
    }

    fn save(&self, id: [u8; ID_BYTES], key: ApiKey) -> Result<(), KeyError> {
        let record = serde_json::to_vec(&key).expect("text, numbers and bytes");
        // To the disk first: a key that was shown and is forgotten at the next start would be worse than none.
        self.store.put_api_key(id, &record)?;
        self.known.write().expect("no holder of this lock panics").insert(id, Arc::new(key));
        self.changes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn check(new: &NewApiKey) -> Result<(), KeyError> {
    let is_plain =
        |text: &String| !text.is_empty() && text.len() <= LONGEST_NAME_BYTES && !text.contains(char::is_control);
    if !is_plain(&new.user) || !is_plain(&new.name) {
        return Err(KeyError::Unfit("user and name have 1 to 128 bytes without control characters"));
    }
    let words = new.groups.iter().chain(&new.scopes);
    if words.clone().count() > MOST_WORDS || !words.clone().all(|word| is_plain(word) && !word.contains(' ')) {
        return Err(KeyError::Unfit("a key has at most 64 groups and scopes, without spaces"));
    }
    if new.lifetime_seconds == Some(0) {
        return Err(KeyError::Unfit("a key that expires at once opens nothing"));
    }
    Ok(())
}

fn report(id: [u8; ID_BYTES], key: &ApiKey) -> ApiKeyReport {
    ApiKeyReport {
        id: name_of(id),
        user: key.user.clone(),
        name: key.name.clone(),
        groups: key.groups.clone(),
        scopes: key.scopes.clone(),
        created_at: key.created_at,
        rotated_at: key.rotated_at,
        expires_at: key.expires_at,
        regenerate_required: key.regenerate_required,
    }
}

fn fill(bytes: &mut [u8]) {
    aws_lc_rs::rand::fill(bytes).expect("the system's random generator answers");
}

fn secret() -> Zeroizing<[u8; SECRET_BYTES]> {
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    fill(&mut *secret);
    secret
}

fn name_of(id: [u8; ID_BYTES]) -> String {
    format!("{}{}", ApiKeys::PREFIX, written(id))
}

fn written(id: [u8; ID_BYTES]) -> String {
    format!("{:016x}", u64::from_be_bytes(id))
}

fn whole(id: [u8; ID_BYTES], secret: &[u8; SECRET_BYTES]) -> Zeroizing<String> {
    Zeroizing::new(format!("{}{}.{}", ApiKeys::PREFIX, written(id), URL_SAFE_NO_PAD.encode(secret)))
}

/// Only the spelling that [`whole`] writes.
fn parse(text: &str) -> Option<([u8; ID_BYTES], Zeroizing<[u8; SECRET_BYTES]>)> {
    let (id, secret) = text.strip_prefix(ApiKeys::PREFIX)?.split_once('.')?;
    let is_hex = id.len() == 2 * ID_BYTES && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let id = u64::from_str_radix(id, 16).ok().filter(|_| is_hex)?.to_be_bytes();
    let decoded = Zeroizing::new(URL_SAFE_NO_PAD.decode(secret).ok()?);
    Some((id, Zeroizing::new(decoded.as_slice().try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(user: &str) -> NewApiKey {
        NewApiKey {
            user: user.to_owned(),
            name: "nightly export".to_owned(),
            groups: vec!["robots".to_owned()],
            scopes: vec!["orders:read".to_owned()],
            lifetime_seconds: Some(100),
        }
    }

    fn open(folder: &tempfile::TempDir) -> ApiKeys {
        ApiKeys::open(Arc::new(Store::open(&folder.path().join("store.redb")).unwrap())).unwrap()
    }

    #[test]
    fn a_key_opens_until_it_ends_is_replaced_is_to_be_regenerated_or_is_revoked_and_a_restart_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let keys = open(&folder);
        let first = keys.create(new("carol"), 1_000).unwrap();
        let id = keys.list()[0].id.clone();
        let outcome = |keys: &ApiKeys, text: &str, now| keys.authenticate(text, now).map(|key| key.user.clone());
        assert_eq!(outcome(&keys, &first, 1_099), Ok("carol".to_owned()));
        assert_eq!(outcome(&keys, &first, 1_100), Err(KeyRefused::Expired));
        assert!(first.starts_with(&format!("{id}.")), "its list entry names it");

        keys.require_regeneration(&id).unwrap();
        assert_eq!(outcome(&keys, &first, 1_001), Err(KeyRefused::RegenerateRequired));
        drop(keys);
        let keys = open(&folder);
        assert_eq!(outcome(&keys, &first, 1_001), Err(KeyRefused::RegenerateRequired));

        let second = keys.rotate(&id, 1_002).unwrap();
        assert_eq!(outcome(&keys, &first, 1_003), Err(KeyRefused::Unknown));
        assert_eq!(outcome(&keys, &second, 1_003), Ok("carol".to_owned()));

        keys.revoke(&id).unwrap();
        assert_eq!(outcome(&keys, &second, 1_003), Err(KeyRefused::Unknown));
        assert!(matches!(keys.rotate(&id, 1_004), Err(KeyError::NoSuchKey(_))));
        drop(keys);
        assert_eq!(outcome(&open(&folder), &second, 1_003), Err(KeyRefused::Unknown));
    }

    #[test]
    fn all_keys_of_a_user_and_of_nobody_else_are_to_be_regenerated() {
        let folder = tempfile::tempdir().unwrap();
        let keys = open(&folder);
        let (one, two, other) = (
            keys.create(new("carol"), 1).unwrap(),
            keys.create(new("carol"), 2).unwrap(),
            keys.create(new("dave"), 3).unwrap(),
        );
        assert_eq!(keys.require_regeneration_of_user("carol").unwrap(), 2);
        for (text, expected) in [(one, false), (two, false), (other, true)] {
            assert_eq!(keys.authenticate(&text, 10).is_ok(), expected);
        }
    }

    #[test]
    fn neither_the_disk_nor_a_list_shows_a_secret() {
        let folder = tempfile::tempdir().unwrap();
        let keys = open(&folder);
        let text = keys.create(new("carol"), 1).unwrap();
        let secret = text.rsplit('.').next().unwrap();
        let raw = parse(&text).unwrap().1;
        assert!(!serde_json::to_string(&keys.list()).unwrap().contains(secret));
        drop(keys);
        let bytes = std::fs::read(folder.path().join("store.redb")).unwrap();
        let shows = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        assert!(shows(b"nightly export"), "the record is there");
        assert!(!shows(secret.as_bytes()) && !shows(&*raw));
    }

    #[test]
    fn a_key_has_one_spelling() {
        let folder = tempfile::tempdir().unwrap();
        let keys = open(&folder);
        let text = keys.create(new("carol"), 1).unwrap();
        let (head, secret) = text.rsplit_once('.').unwrap();
        let upper = head.strip_prefix("lbk_").unwrap().to_uppercase();
        for other in [
            String::new(),
            head.to_owned(),
            format!("{head}."),
            format!("{} ", &*text),
            format!("{}=", &*text),
            secret.to_owned(),
        ] {
            assert_eq!(keys.authenticate(&other, 2).err(), Some(KeyRefused::Unknown), "{other}");
        }
        if upper != upper.to_lowercase() {
            assert_eq!(keys.authenticate(&format!("lbk_{upper}.{secret}"), 2).err(), Some(KeyRefused::Unknown));
        }
    }

    #[test]
    fn what_would_not_fit_a_list_or_a_log_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let keys = open(&folder);
        let refused = |change: fn(&mut NewApiKey)| {
            let mut wanted = new("carol");
            change(&mut wanted);
            matches!(keys.create(wanted, 1), Err(KeyError::Unfit(_)))
        };
        assert!(refused(|new| new.user.clear()));
        assert!(refused(|new| new.name = "a\nb".to_owned()));
        assert!(refused(|new| new.scopes = vec!["two words".to_owned()]));
        assert!(refused(|new| new.groups = vec!["g".to_owned(); 70]));
        assert!(refused(|new| new.lifetime_seconds = Some(0)));
        assert!(keys.list().is_empty());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_parsing_panic(text in "(lbk_)?[0-9a-f.]{0,40}.{0,60}") {
            if let Some((id, secret)) = parse(&text) {
                proptest::prop_assert_eq!(&*whole(id, &secret), &text);
            }
        }
    }
}
