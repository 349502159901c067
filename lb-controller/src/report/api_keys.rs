//! API keys, as they are listed.

use serde::{Deserialize, Serialize};

/// One key. Its secret is known to its owner alone. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKeyReport {
    /// How the key begins, `lbk_…`.
    pub id: String,
    pub user: String,
    pub name: String,
    pub groups: Vec<String>,
    pub scopes: Vec<String>,
    pub created_at: u64,
    pub rotated_at: Option<u64>,
    pub expires_at: Option<u64>,
    /// It opens nothing until it was rotated.
    pub regenerate_required: bool,
}

/// A key that was just made: shown once, and never again.
#[derive(Debug, Serialize, Deserialize)]
pub struct NewSecret {
    pub key: String,
}
