//! State that must survive `kill -9` and be decided by one owner: used one-time codes and ended sessions.

mod embedded;

pub use embedded::{Revoked, Store, StoreError};
