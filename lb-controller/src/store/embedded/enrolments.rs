//! Factors that users enrolled, as the store keeps them: sealed records, under the account and an id each.

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::{Store, StoreError};

/// Account and id of the enrolment → sealed record.
pub(super) const ENROLMENTS: TableDefinition<'_, (&str, [u8; 16]), &[u8]> = TableDefinition::new("enrolments-v1");

/// Its id, and the sealed record.
type SealedEnrolment = ([u8; 16], Vec<u8>);

/// What becomes of a record.
pub enum Change {
    Keep,
    Replace(Vec<u8>),
    Remove,
}

impl Store {
    /// All enrolments of `account`, by id. Reads memory that is mapped from the file.
    pub fn enrolments(&self, account: &str) -> Result<Vec<SealedEnrolment>, StoreError> {
        let read = |database: &Database| -> Result<Vec<_>, redb::Error> {
            let table = database.begin_read()?.open_table(ENROLMENTS)?;
            let mut all = Vec::new();
            for row in table.range((account, [0; 16])..=(account, [u8::MAX; 16]))? {
                let (key, record) = row?;
                all.push((key.value().1, record.value().to_vec()));
            }
            Ok(all)
        };
        self.read(read)
    }

    /// Adds one, unless the account has `most` already. Blocks on the disk.
    pub fn add_enrolment(&self, account: &str, id: [u8; 16], record: &[u8], most: usize) -> Result<bool, StoreError> {
        let write = |database: &Database| -> Result<bool, redb::Error> {
            let transaction = database.begin_write()?;
            let added = {
                let mut table = transaction.open_table(ENROLMENTS)?;
                let has_room = table.range((account, [0; 16])..=(account, [u8::MAX; 16]))?.count() < most;
                if has_room {
                    table.insert((account, id), record)?;
                }
                has_room
            };
            transaction.commit()?;
            Ok(added)
        };
        self.write(write)
    }

    /// Lets `decide` change one record while nobody else can: of any number of callers each sees what the one before it
    /// left. `None`: there is no such enrolment. Blocks on the disk.
    pub fn change_enrolment<T>(
        &self,
        account: &str,
        id: [u8; 16],
        decide: impl FnOnce(&[u8]) -> (Change, T),
    ) -> Result<Option<T>, StoreError> {
        let write = |database: &Database| -> Result<Option<T>, redb::Error> {
            let transaction = database.begin_write()?;
            let outcome = {
                let mut table = transaction.open_table(ENROLMENTS)?;
                let decided = table.get((account, id))?.map(|record| decide(record.value()));
                decided.map(|(change, outcome)| {
                    match change {
                        Change::Keep => {}
                        Change::Replace(record) => drop(table.insert((account, id), &*record)?),
                        Change::Remove => drop(table.remove((account, id))?),
                    }
                    Ok::<T, redb::Error>(outcome)
                })
            };
            let outcome = outcome.transpose()?;
            transaction.commit()?;
            Ok(outcome)
        };
        self.write(write)
    }
}
