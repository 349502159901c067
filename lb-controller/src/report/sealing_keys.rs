//! The keys that cookies are sealed with.

use serde::{Deserialize, Serialize};

/// One key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealingKey {
    /// The part of a cookie between its first and second dot.
    pub id: String,
    /// Unix seconds.
    pub made_at: u64,
    /// The one that seals; others open only.
    pub seals: bool,
}
