//! What the copy of the programs begins with: all that is remembered of limits, cookies, flows and fragments.

use std::path::Path;

use aya::Pod;
use lb_common::Source;
use lb_common::maps as names;
use lb_common::types::{
    CookieState, FlowBucket, FragmentSet, LimiterSet, Shared, SharedClocks, SharedReserves, ValidatedSource,
    VerifiedSource,
};

use crate::error::MapError;
use crate::maps::{SourceTable, cpu_table, source_table, table};

/// Each element of these maps, from the maps in `live` to those of the same name in `copy`.
pub(super) fn remembered(live: &Path, copy: &Path) -> Result<(), MapError> {
    all::<SharedClocks>(live, copy, names::SHARED_CLOCKS)?;
    all::<LimiterSet>(live, copy, names::SOURCE_LIMITER)?;
    all::<LimiterSet>(live, copy, names::NETWORK_LIMITER)?;
    all::<CookieState>(live, copy, names::COOKIE_STATES)?;
    all::<FragmentSet>(live, copy, names::FRAGMENTS)?;
    all::<FlowBucket>(live, copy, names::FLOWS)?;
    all_by_cpu::<SharedReserves>(live, copy, names::SHARED_RESERVES)
}

fn all<T: Shared<Bytes: Pod + PartialEq>>(live: &Path, copy: &Path, name: &'static str) -> Result<(), MapError> {
    let (live, mut copy) = (table::<T>(live, name)?, table::<T>(copy, name)?);
    for index in 0..live.len() {
        let element = live.get(index)?;
        // Most of a memory is empty, and the copy begins empty.
        if copy.get(index)?.to_bytes() != element.to_bytes() {
            copy.set(index, &element)?;
        }
    }
    Ok(())
}

fn all_by_cpu<T: Shared<Bytes: Pod + PartialEq>>(live: &Path, copy: &Path, name: &'static str) -> Result<(), MapError> {
    let (live, mut copy) = (cpu_table::<T>(live, name)?, cpu_table::<T>(copy, name)?);
    let Some(empty) = copy.get(0)?.first().copied() else { return Ok(()) };
    for index in 0..live.len() {
        let elements = live.get(index)?;
        if elements.iter().any(|element| element.to_bytes() != empty.to_bytes()) {
            copy.set_each(index, &elements)?;
        }
    }
    Ok(())
}

/// The maps of sources, which are copied source by source: they are large, and few of it matter.
pub(super) struct SourceCopies {
    verified: SourceCopy<VerifiedSource>,
    validated: SourceCopy<ValidatedSource>,
}

struct SourceCopy<T: Shared<Bytes: Pod>> {
    live: SourceTable<T>,
    copy: SourceTable<T>,
}

impl SourceCopies {
    pub(super) fn open(live: &Path, copy: &Path) -> Result<Self, MapError> {
        Ok(Self {
            verified: SourceCopy::open(live, copy, names::VERIFIED)?,
            validated: SourceCopy::open(live, copy, names::VALIDATED)?,
        })
    }

    /// What is remembered of one source.
    pub(super) fn remember(&mut self, source: Source) -> Result<(), MapError> {
        self.verified.remember(source)?;
        self.validated.remember(source)
    }
}

impl<T: Shared<Bytes: Pod>> SourceCopy<T> {
    fn open(live: &Path, copy: &Path, name: &'static str) -> Result<Self, MapError> {
        Ok(Self { live: source_table(live, name)?, copy: source_table(copy, name)? })
    }

    fn remember(&mut self, source: Source) -> Result<(), MapError> {
        // Already there: a packet traced before this one may have changed it.
        if self.copy.get(source.key())?.is_none()
            && let Some(value) = self.live.get(source.key())?
        {
            self.copy.set(source.key(), &value)?;
        }
        Ok(())
    }
}
