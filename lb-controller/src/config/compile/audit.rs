//! Where the audit trail is kept.

use std::path::Path;

use super::super::section::Section;
use super::super::values;
use super::path_in;
use crate::audit::TrailConfig;

const DEFAULT_ROTATE_AT_BYTES: u64 = 256 * 1024 * 1024;

pub(super) fn compile(config: &Section<'_>, folder: &Path) -> Option<TrailConfig> {
    let section = Section::open("`audit`", config.get("audit")?, config.problems)?;
    let file = section.required_value("file", |text| path_in(folder, text));
    let rotate_at_bytes = section.value("rotate_at", values::size_bytes).unwrap_or(DEFAULT_ROTATE_AT_BYTES);
    section.finish();
    Some(TrailConfig { file: file?, rotate_at_bytes })
}
