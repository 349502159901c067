//! Records of API keys, by the id that every key begins with.

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::{Store, StoreError};

/// The id of a key, and its record.
type ApiKeyRow = ([u8; 8], Vec<u8>);

pub(super) const API_KEYS: TableDefinition<'_, [u8; 8], &[u8]> = TableDefinition::new("api-keys-v1");

impl Store {
    /// All records.
    pub fn api_keys(&self) -> Result<Vec<ApiKeyRow>, StoreError> {
        let read = |database: &Database| -> Result<Vec<_>, redb::Error> {
            let table = database.begin_read()?.open_table(API_KEYS)?;
            let mut all = Vec::new();
            for row in table.iter()? {
                let (id, record) = row?;
                all.push((id.value(), record.value().to_vec()));
            }
            Ok(all)
        };
        self.read(read)
    }

    /// Writes one record over what was there. Blocks on the disk.
    pub fn put_api_key(&self, id: [u8; 8], record: &[u8]) -> Result<(), StoreError> {
        let write = |database: &Database| -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            transaction.open_table(API_KEYS)?.insert(id, record)?;
            transaction.commit()?;
            Ok(())
        };
        self.write(write)
    }

    /// Blocks on the disk.
    pub fn remove_api_key(&self, id: [u8; 8]) -> Result<(), StoreError> {
        let write = |database: &Database| -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            transaction.open_table(API_KEYS)?.remove(id)?;
            transaction.commit()?;
            Ok(())
        };
        self.write(write)
    }
}
