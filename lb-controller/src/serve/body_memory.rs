//! Memory for bodies that rules look into, shared by all connections. Each such body is small, but an h2 connection may
//! send a hundred at once, and nobody has to log in for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// All the memory there is for them.
#[derive(Debug, Default)]
pub struct BodyMemory {
    taken_bytes: AtomicUsize,
}

/// Memory for one body; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    memory: Arc<BodyMemory>,
    bytes: usize,
}

const MOST_BYTES: usize = 64 * 1024 * 1024;
/// What strangers leave to those who are logged in, however many they are.
const MOST_BYTES_OF_STRANGERS: usize = MOST_BYTES / 2;

impl BodyMemory {
    /// Ask before the first byte is read. `None`: there is no room at present.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize, is_stranger: bool) -> Option<Place> {
        let most = if is_stranger { MOST_BYTES_OF_STRANGERS } else { MOST_BYTES };
        let with_ours = |taken: usize| taken.checked_add(bytes).filter(|total| *total <= most);
        self.taken_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with_ours).ok()?;
        Some(Place { memory: Arc::clone(self), bytes })
    }
}

impl Place {
    /// The same bytes; the place is taken until their last copy is dropped.
    pub(crate) fn hold(self, body: Bytes) -> Bytes {
        Bytes::from_owner(Held { body, _place: self })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.memory.taken_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

struct Held {
    body: Bytes,
    _place: Place,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_fill_their_half_and_leave_the_rest_to_users() {
        let memory = Arc::new(BodyMemory::default());
        let strangers = memory.reserve(MOST_BYTES_OF_STRANGERS, true).unwrap();
        assert!(memory.reserve(1, true).is_none(), "a byte too many of strangers");
        let users = memory.reserve(MOST_BYTES - MOST_BYTES_OF_STRANGERS, false).unwrap();
        assert!(memory.reserve(1, false).is_none(), "a byte too many of all");
        assert!(memory.reserve(usize::MAX, false).is_none(), "more than can be counted");
        drop((strangers, users));
        assert!(memory.reserve(MOST_BYTES, false).is_some(), "given back");
    }

    #[test]
    fn a_body_keeps_its_place_until_its_last_copy_is_gone() {
        let memory = Arc::new(BodyMemory::default());
        let body = memory.reserve(MOST_BYTES, false).unwrap().hold(Bytes::from_static(b"body"));
        let copy = body.clone();
        assert_eq!(body, "body");
        drop(body);
        assert!(memory.reserve(1, false).is_none());
        drop(copy);
        assert!(memory.reserve(1, false).is_some());
    }
}
