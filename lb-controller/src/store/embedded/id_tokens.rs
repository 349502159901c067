//! ID tokens of logins at providers, sealed, until their logout.

use lb_policy::UnixSeconds;
use redb::{Database, TableDefinition};

use super::{Store, StoreError};

/// Login → when it may be forgotten, sealed token.
pub(super) const ID_TOKENS: TableDefinition<'_, [u8; 16], (u64, &str)> = TableDefinition::new("id-tokens-v1");

impl Store {
    /// Blocks on the disk.
    pub fn keep_id_token(&self, login: [u8; 16], sealed: &str, until: UnixSeconds) -> Result<(), StoreError> {
        let write = |database: &Database| -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            transaction.open_table(ID_TOKENS)?.insert(login, (until, sealed))?;
            transaction.commit()?;
            Ok(())
        };
        self.write(write)
    }

    /// Blocks on the disk.
    pub fn take_id_token(&self, login: [u8; 16]) -> Result<Option<String>, StoreError> {
        let write = |database: &Database| -> Result<Option<String>, redb::Error> {
            let transaction = database.begin_write()?;
            let taken = {
                let mut table = transaction.open_table(ID_TOKENS)?;
                table.remove(login)?.map(|row| row.value().1.to_owned())
            };
            transaction.commit()?;
            Ok(taken)
        };
        self.write(write)
    }
}
