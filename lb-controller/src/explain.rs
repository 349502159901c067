//! Why requests were decided as they were: of those that were refused lately, and of those that are only described.

pub mod curl;
mod given;
mod hypothetical;
mod leads;
mod recent;
mod rehearsal;
mod report;

pub use hypothetical::Hypothetical;
pub use leads::Taken;
pub use recent::Recent;
pub use rehearsal::{Failed, rehearse};
pub use report::{Explained, Factor, NamedFact, Request, Required, Rule};
