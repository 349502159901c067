//! What was learned of users, as opaque records under their names.

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::{Store, StoreError};

/// Account → record.
pub(super) const HABITS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("habits-v1");

impl Store {
    /// All records.
    pub fn habits(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let read = |database: &Database| -> Result<Vec<_>, redb::Error> {
            let table = database.begin_read()?.open_table(HABITS)?;
            let row = |row: Result<(redb::AccessGuard<'_, &str>, redb::AccessGuard<'_, &[u8]>), _>| {
                row.map(|(account, record)| (account.value().to_owned(), record.value().to_vec()))
            };
            Ok(table.iter()?.map(row).collect::<Result<_, redb::StorageError>>()?)
        };
        self.read(read)
    }

    /// Replaces these records, and drops those of the accounts in `forgotten`. Blocks on the disk.
    pub fn keep_habits(&self, changed: &[(String, Vec<u8>)], forgotten: &[String]) -> Result<(), StoreError> {
        let write = |database: &Database| -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(HABITS)?;
                for account in forgotten {
                    table.remove(account.as_str())?;
                }
                for (account, record) in changed {
                    table.insert(account.as_str(), record.as_slice())?;
                }
            }
            transaction.commit()?;
            Ok(())
        };
        self.write(write)
    }
}
