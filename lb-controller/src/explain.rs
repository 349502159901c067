//! Why requests were decided as they were: of those that were refused lately, and of those that are only described.

mod hypothetical;
mod recent;
mod report;

pub use hypothetical::Hypothetical;
pub use recent::Recent;
pub use report::{Explained, Factor, NamedFact, Request, Required, Rule};
