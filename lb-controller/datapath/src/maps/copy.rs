//! Copying elements from another version's maps, while its programs may still change them.

use std::path::Path;

use aya::Pod;
use lb_common::types::Shared;

use super::{CpuTable, SourceTable, Table, VipPrefixes, failed, names, open, source_table, table};
use crate::error::MapError;

/// Bytes of an element.
pub(crate) trait Bytes: Pod + AsRef<[u8]> {}
impl<B: Pod + AsRef<[u8]>> Bytes for B {}

impl<T: Shared<Bytes: Bytes>> Table<T> {
    fn copy_from(&mut self, other: &Self) -> Result<(), MapError> {
        for index in 0..other.map.len().min(self.map.len()) {
            let value = other.get(index)?;
            // Fresh maps are full of zeros.
            if is_any(&value) {
                self.set(index, &value)?;
            }
        }
        Ok(())
    }
}

impl<T: Shared<Bytes: Bytes>> CpuTable<T> {
    /// `from` in `other` becomes `to` here.
    pub(crate) fn copy_element(&mut self, other: &Self, from: u32, to: u32) -> Result<(), MapError> {
        let values = other.get(from)?;
        if values.iter().any(is_any) { self.set_each(to, &values) } else { Ok(()) }
    }
}

impl<T: Shared<Bytes: Bytes>> SourceTable<T> {
    /// As many as there is room for.
    fn copy_from(&mut self, other: &Self) -> Result<(), MapError> {
        for (key, value) in other.entries()? {
            if !self.set(key, &value)? {
                break;
            }
        }
        Ok(())
    }
}

impl VipPrefixes {
    fn copy_from(&mut self, other: &Self) -> Result<(), MapError> {
        let keys: Vec<_> = other.map.keys().collect::<Result<_, _>>().map_err(failed("list", names::VIP_PREFIXES))?;
        for key in keys {
            let value = other.map.get(&key, 0).map_err(failed("read", names::VIP_PREFIXES))?;
            self.map.insert(&key, value, 0).map_err(failed("write", names::VIP_PREFIXES))?;
        }
        Ok(())
    }
}

fn is_any<T: Shared<Bytes: Bytes>>(value: &T) -> bool {
    value.to_bytes().as_ref().iter().any(|byte| *byte != 0)
}

pub(crate) fn copy_table<T: Shared<Bytes: Bytes>>(from: &Path, to: &Path, name: &'static str) -> Result<(), MapError> {
    table::<T>(to, name)?.copy_from(&table(from, name)?)
}

pub(crate) fn copy_sources<T>(from: &Path, to: &Path, name: &'static str) -> Result<(), MapError>
where
    T: Shared<Bytes: Bytes>,
{
    source_table::<T>(to, name)?.copy_from(&source_table(from, name)?)
}

pub(crate) fn copy_vip_prefixes(from: &Path, to: &Path) -> Result<(), MapError> {
    let mut prefixes = VipPrefixes { map: open(to, names::VIP_PREFIXES)? };
    prefixes.copy_from(&VipPrefixes { map: open(from, names::VIP_PREFIXES)? })
}
