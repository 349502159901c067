//! Factors that users enrolled. Records are sealed before they reach the disk: a copy of the store alone tells no secret.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use lb_policy::{Method, UnixSeconds};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::account::AccountId;
use super::private_file;
use super::random_id::{RandomId, random_bytes};
use crate::store::{Change, Store, StoreError};

/// One enrolled factor.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Enrolment {
    #[serde(skip, default = "RandomId::new")]
    pub(super) id: RandomId,
    /// By name: it outlives versions of this program.
    method: String,
    /// What its owner calls it.
    pub(super) name: String,
    pub(super) created_at: UnixSeconds,
    pub(super) last_used_at: Option<UnixSeconds>,
    /// What its verifier needs: a secret, a hash or a public key.
    pub(super) record: Zeroizing<Vec<u8>>,
}

impl Enrolment {
    pub(super) fn new(method: Method, name: &str, record: Vec<u8>, now: UnixSeconds) -> Enrolment {
        Enrolment {
            id: RandomId::new(),
            method: method.name().to_owned(),
            name: name.to_owned(),
            created_at: now,
            last_used_at: None,
            record: Zeroizing::new(record),
        }
    }

    /// `None`: a method that this version does not know.
    pub(super) fn method(&self) -> Option<Method> {
        Method::from_name(&self.method)
    }
}

/// What a caller of [`Enrolments::change`] wants done.
pub(super) enum Wanted {
    Nothing,
    Save,
    Removal,
}

/// Nobody has more; whoever adds without end must not fill the disk.
pub(super) const MOST_PER_ACCOUNT: usize = 32;

pub(super) struct Enrolments {
    store: Arc<Store>,
    key: LessSafeKey,
}

impl Enrolments {
    /// Reads the key of `directory`, or makes it. It is never rotated: what it sealed is kept for years.
    pub(super) fn open(directory: &Path, store: Arc<Store>) -> Result<Enrolments> {
        let path = directory.join("enrolment-key");
        let secret = match private_file::read(&path)? {
            Some(secret) => Zeroizing::new(secret),
            None => {
                let secret = Zeroizing::new(random_bytes::<32>().to_vec());
                private_file::replace(&path, &secret)?;
                secret
            }
        };
        let unbound = UnboundKey::new(&AES_256_GCM, &secret).ok();
        let unbound = unbound.with_context(|| {
            format!(
                "{} is damaged; restore it from a copy, or delete it to have all factors enrolled anew",
                path.display()
            )
        })?;
        Ok(Enrolments { store, key: LessSafeKey::new(unbound) })
    }

    /// All of `account`. One that does not open was sealed by another key, and is left out, loudly.
    pub(super) fn of(&self, account: &AccountId) -> Result<Vec<Enrolment>, StoreError> {
        let rows = self.store.enrolments(&account.key())?;
        let mut all: Vec<_> = rows.iter().filter_map(|(id, sealed)| self.open_sealed(account, *id, sealed)).collect();
        if all.len() < rows.len() {
            tracing::error!("an enrolled factor cannot be opened: was the enrolment key replaced?");
        }
        all.sort_by_key(|enrolment| enrolment.created_at);
        Ok(all)
    }

    /// `false`: the account has [`MOST_PER_ACCOUNT`]. Blocks on the disk.
    pub(super) fn add(&self, account: &AccountId, enrolment: &Enrolment) -> Result<bool, StoreError> {
        let sealed = self.seal(account, enrolment);
        self.store.add_enrolment(&account.key(), *enrolment.id.bytes(), &sealed, MOST_PER_ACCOUNT)
    }

    /// Lets `decide` look at one enrolment and change it while nobody else can. `None`: there is none. Blocks on the disk.
    pub(super) fn change<T>(
        &self,
        account: &AccountId,
        id: &RandomId,
        decide: impl FnOnce(&mut Enrolment) -> (Wanted, T),
    ) -> Result<Option<T>, StoreError> {
        let outcome = self.store.change_enrolment(&account.key(), *id.bytes(), |sealed| {
            let Some(mut enrolment) = self.open_sealed(account, *id.bytes(), sealed) else {
                return (Change::Keep, None);
            };
            let (wanted, outcome) = decide(&mut enrolment);
            let change = match wanted {
                Wanted::Nothing => Change::Keep,
                Wanted::Save => Change::Replace(self.seal(account, &enrolment)),
                Wanted::Removal => Change::Remove,
            };
            (change, Some(outcome))
        })?;
        Ok(outcome.flatten())
    }

    fn seal(&self, account: &AccountId, enrolment: &Enrolment) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = random_bytes();
        let mut sealed = serde_json::to_vec(enrolment).expect("text, numbers and bytes");
        let aad = associated_data(account, enrolment.id.bytes());
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
            .expect("AES-GCM seals anything shorter than 64 GiB");
        [&nonce[..], &sealed].concat()
    }

    fn open_sealed(&self, account: &AccountId, id: [u8; 16], sealed: &[u8]) -> Option<Enrolment> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut bytes = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.key.open_in_place(nonce, associated_data(account, &id), &mut bytes).ok()?;
        let enrolment: Enrolment = serde_json::from_slice(plain).ok()?;
        Some(Enrolment { id: RandomId::from_bytes(id), ..enrolment })
    }
}

/// A record moved to another account or id does not open there.
fn associated_data(account: &AccountId, id: &[u8; 16]) -> Aad<Vec<u8>> {
    Aad::from([b"enrolment\0", account.key().as_bytes(), b"\0", id].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(directory: &tempfile::TempDir) -> Enrolments {
        let store = Store::open(&directory.path().join("store.redb")).unwrap();
        Enrolments::open(directory.path(), Arc::new(store)).unwrap()
    }

    fn account(name: &str) -> AccountId {
        AccountId { issuer: None, name: name.into() }
    }

    #[test]
    fn what_is_enrolled_is_its_owners_alone_outlives_a_restart_and_is_sealed_on_disk() {
        let directory = tempfile::tempdir().unwrap();
        let enrolments = open(&directory);
        let key = Enrolment::new(Method::Totp, "phone", b"not for every eye".to_vec(), 7);
        assert!(enrolments.add(&account("alice"), &key).unwrap());
        drop(enrolments);
        let enrolments = open(&directory);
        assert!(enrolments.of(&account("alice")).unwrap() == [key.clone()]);
        assert!(enrolments.of(&account("alice2")).unwrap().is_empty());
        assert!(enrolments.of(&account("alic")).unwrap().is_empty());
        let file = std::fs::read(directory.path().join("store.redb")).unwrap();
        assert!(!file.windows(17).any(|bytes| bytes == b"not for every eye"));
        let sealed = enrolments.store.enrolments("alice").unwrap().remove(0).1;
        assert!(
            enrolments.open_sealed(&account("bob"), *key.id.bytes(), &sealed).is_none(),
            "moved to another account"
        );
    }

    #[test]
    fn changes_are_made_one_after_the_other_and_a_removed_one_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let (enrolments, alice) = (open(&directory), account("alice"));
        let key = Enrolment::new(Method::Webauthn, "key", vec![0], 7);
        enrolments.add(&alice, &key).unwrap();
        let count_up = || {
            let counted = enrolments.change(&alice, &key.id, |enrolment| {
                enrolment.record[0] += 1;
                (Wanted::Save, enrolment.record[0])
            });
            counted.unwrap().unwrap()
        };
        let mut seen = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..8).map(|_| scope.spawn(count_up)).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect::<Vec<_>>()
        });
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(enrolments.change(&alice, &key.id, |_| (Wanted::Removal, ())).unwrap(), Some(()));
        assert_eq!(enrolments.change(&alice, &key.id, |_| (Wanted::Save, ())).unwrap(), None);
        assert!(enrolments.of(&alice).unwrap().is_empty());
    }

    #[test]
    fn an_account_has_a_bounded_number_of_them() {
        let directory = tempfile::tempdir().unwrap();
        let (enrolments, alice) = (open(&directory), account("alice"));
        let add = |who: &AccountId| enrolments.add(who, &Enrolment::new(Method::Totp, "x", vec![1], 7)).unwrap();
        assert!((0..MOST_PER_ACCOUNT).all(|_| add(&alice)));
        assert!(!add(&alice) && add(&account("bob")));
    }
}
