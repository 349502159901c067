//! Factors that users enrolled, and tokens to enrol the first one.

use serde::{Deserialize, Serialize};

/// One enrolled factor. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolledFactor {
    pub id: String,
    pub method: String,
    /// What its owner calls it; may be empty.
    pub name: String,
    pub created_at: u64,
    pub last_used_at: Option<u64>,
}

/// What `enrol-token` asks for.
#[derive(Debug, Serialize, Deserialize)]
pub struct TokenOrder {
    pub valid_for_seconds: u64,
    /// To the address on record, and shown to nobody else.
    pub mail: bool,
}

/// A longer-lived token is a password that nobody chose.
pub const ENROLMENT_TOKEN_LONGEST_SECONDS: u64 = 30 * 24 * 3600;

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct EnrolmentToken {
    /// `None`: it was mailed.
    pub token: Option<String>,
}
