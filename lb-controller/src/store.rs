//! State that must survive `kill -9` and be decided by one owner: used one-time codes, ended sessions
//! and enrolled factors.

mod embedded;

pub use embedded::{Change, Revoked, Store, StoreError};
