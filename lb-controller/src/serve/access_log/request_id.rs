//! What a request is called in logs and in its answer.

use std::cell::Cell;
use std::fmt;

use crate::serve::digits::push_hexadecimal;

/// Unique on this host: 64 random bits of the thread, and a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId {
    thread: u64,
    count: u64,
}

impl RequestId {
    pub(super) fn next() -> RequestId {
        thread_local!(static NEXT: Cell<RequestId> = Cell::new(RequestId { thread: random_bits(), count: 0 }));
        let id = NEXT.get();
        NEXT.set(RequestId { count: id.count + 1, ..id });
        id
    }
}

fn random_bits() -> u64 {
    let mut bits = [0; 8];
    // An id is a name, no secret: without randomness, ids of two threads could be equal, and nothing worse.
    let _ = aws_lc_rs::rand::fill(&mut bits);
    u64::from_ne_bytes(bits)
}

impl RequestId {
    pub(crate) fn write_to(self, out: &mut Vec<u8>) {
        push_hexadecimal(out, self.thread, 16);
        out.push(b'-');
        push_hexadecimal(out, self.count, 1);
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}", self.thread, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_differ_within_and_between_threads() {
        let here = [RequestId::next(), RequestId::next()];
        let there = std::thread::spawn(RequestId::next).join().unwrap();
        assert_ne!(here[0], here[1]);
        assert_ne!(here[0].thread, there.thread);
    }
}
