//! Packets that were never on a wire: how they are made, and how their way is told.

mod build;
mod steps;

pub use build::{Described, Flags, frame};
pub use steps::tell;
