//! What a connection to a backend begins with, where its pool wants to be told whose requests come.

use crate::pool::Pool;
use crate::proxy_protocol;
use crate::serve::request::Inbound;

/// A PROXY header, or nothing. A connection that began with one belongs to its client: no other's request may follow on it.
#[derive(Debug, Default)]
pub(crate) struct Preface(Option<Box<[u8]>>);

impl Preface {
    /// For the connections of one request.
    pub(crate) fn of(pool: &Pool, request: &Inbound) -> Preface {
        let header = pool.send_proxy_protocol.map(|version| match request.ends {
            Some(ends) => proxy_protocol::of_client(version, ends).into(),
            None => proxy_protocol::of_nobody(version).into(),
        });
        Preface(header)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}
