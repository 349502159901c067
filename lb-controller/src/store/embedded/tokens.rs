//! Enrolment tokens, as keyed hashes: each is good once, for one account, for a while.

use lb_policy::UnixSeconds;
use redb::{Database, ReadableTable as _, TableDefinition};

use super::{Store, StoreError};

/// Hash of the token → account, expiry.
pub(super) const ENROLMENT_TOKENS: TableDefinition<'_, [u8; 32], (&str, u64)> =
    TableDefinition::new("enrolment-tokens-v1");

impl Store {
    /// Keeps a token for `account`; one that was given out before is void from now on. Blocks on the disk.
    pub fn add_enrolment_token(
        &self,
        hash: [u8; 32],
        account: &str,
        expires_at: UnixSeconds,
    ) -> Result<(), StoreError> {
        let write = |database: &Database| -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(ENROLMENT_TOKENS)?;
                table.retain(|_, (owner, _)| owner != account)?;
                table.insert(hash, (account, expires_at))?;
            }
            transaction.commit()?;
            Ok(())
        };
        self.write(write)
    }

    /// Uses a token up. Of any number of callers with one token, one is told `true`. Blocks on the disk.
    pub fn take_enrolment_token(&self, hash: [u8; 32], account: &str, now: UnixSeconds) -> Result<bool, StoreError> {
        let write = |database: &Database| -> Result<bool, redb::Error> {
            let transaction = database.begin_write()?;
            let taken = {
                let mut table = transaction.open_table(ENROLMENT_TOKENS)?;
                let is_good = table.get(hash)?.is_some_and(|row| {
                    let (owner, expires_at) = row.value();
                    owner == account && expires_at > now
                });
                if is_good {
                    table.remove(hash)?;
                }
                table.retain(|_, (_, expires_at)| expires_at > now)?;
                is_good
            };
            transaction.commit()?;
            Ok(taken)
        };
        self.write(write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_once_for_its_account_until_it_expires_or_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.redb")).unwrap();
        store.add_enrolment_token([1; 32], "alice", 100).unwrap();
        store.add_enrolment_token([2; 32], "bob", 100).unwrap();
        let rows = [
            ("another account", [1; 32], "bob", 50, false),
            ("no token", [9; 32], "alice", 50, false),
            ("in order", [1; 32], "alice", 99, true),
            ("again", [1; 32], "alice", 99, false),
            ("too late", [2; 32], "bob", 100, false),
        ];
        for (name, hash, account, now, taken) in rows {
            assert_eq!(store.take_enrolment_token(hash, account, now).unwrap(), taken, "{name}");
        }
        store.add_enrolment_token([3; 32], "alice", 100).unwrap();
        store.add_enrolment_token([4; 32], "alice", 100).unwrap();
        assert!(!store.take_enrolment_token([3; 32], "alice", 50).unwrap(), "replaced");
        let taken = std::thread::scope(|scope| {
            let take = || store.take_enrolment_token([4; 32], "alice", 50).unwrap();
            let racers: Vec<_> = (0..16).map(|_| scope.spawn(take)).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).filter(|taken| *taken).count()
        });
        assert_eq!(taken, 1);
    }
}
