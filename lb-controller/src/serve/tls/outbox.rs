//! Bytes that wait to be written to one client. Whoever writes much gets memory that the connections of a thread share, and
//! gives it back once it has to wait: what waits takes what it is long.

use std::cell::RefCell;

/// Of shared memory: what a connection may let wait, as records, and what a handshake says at once.
const SHARED_BYTES: usize = 80 * 1024;

/// As many pieces are kept for the next who write. More than one: a thread's connections write one after the other, but for
/// those that had no room for all of it.
const MOST_SHARED: usize = 4;

thread_local!(static SHARED: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) });

fn shared() -> Vec<u8> {
    SHARED.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; SHARED_BYTES])
}

fn give_back(bytes: Vec<u8>) {
    if bytes.len() == SHARED_BYTES {
        SHARED.with_borrow_mut(|shared| {
            if shared.len() < MOST_SHARED {
                shared.push(bytes)
            }
        });
    }
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Zeroes or old bytes from `end` on.
    bytes: Vec<u8>,
    written: usize,
    end: usize,
}

/// Why nothing was put.
pub(super) enum Lack {
    /// So much room is needed.
    Bytes(usize),
    /// Nothing may be put any more.
    Forbidden,
}

impl Outbox {
    pub(super) fn waiting(&self) -> &[u8] {
        &self.bytes[self.written..self.end]
    }

    /// Appends what `put` writes to the beginning of the room that it is given, which is tried with more room if that is
    /// what it lacks; `false`: it may not. `probably`: that it needs.
    pub(super) fn append(&mut self, probably: usize, mut put: impl FnMut(&mut [u8]) -> Result<usize, Lack>) -> bool {
        if self.bytes.len() - self.end < probably {
            self.make_room(probably);
        }
        loop {
            match put(&mut self.bytes[self.end..]) {
                Ok(length) => {
                    self.end += length;
                    return true;
                }
                Err(Lack::Bytes(needed)) => self.make_room(needed),
                Err(Lack::Forbidden) => return false,
            }
        }
    }

    fn make_room(&mut self, needed: usize) {
        let waiting = self.waiting();
        let length = waiting.len();
        let mut next = match length + needed <= SHARED_BYTES {
            true => shared(),
            // A chain of many certificates.
            false => vec![0; length + needed],
        };
        next[..length].copy_from_slice(waiting);
        give_back(std::mem::replace(&mut self.bytes, next));
        (self.written, self.end) = (0, length);
    }

    /// The first of what waits has left.
    pub(super) fn advance(&mut self, length: usize) {
        self.written += length;
        if self.written == self.end {
            give_back(std::mem::take(self).bytes);
        }
    }

    /// Nothing is appended or written in the near future.
    pub(super) fn settle(&mut self) {
        let waiting = self.waiting();
        if self.bytes.len() >= 2 * waiting.len() {
            let bytes = waiting.to_vec();
            let end = bytes.len();
            give_back(std::mem::replace(self, Outbox { bytes, written: 0, end }).bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared_pieces() -> usize {
        SHARED.with_borrow(Vec::len)
    }

    fn append(outbox: &mut Outbox, bytes: &[u8]) -> bool {
        outbox.append(0, |room| match room.get_mut(..bytes.len()) {
            None => Err(Lack::Bytes(bytes.len())),
            Some(room) => {
                room.copy_from_slice(bytes);
                Ok(bytes.len())
            }
        })
    }

    #[test]
    fn what_waits_stays_in_order_and_takes_what_it_is_long() {
        let mut outbox = Outbox::default();
        assert!(append(&mut outbox, b"one, ") && append(&mut outbox, b"two, "));
        assert_eq!((outbox.waiting(), shared_pieces()), (&b"one, two, "[..], 0));
        outbox.advance(5);
        outbox.settle();
        assert_eq!((outbox.bytes.len(), shared_pieces()), (5, 1), "given back");
        assert!(append(&mut outbox, b"three"));
        assert_eq!((outbox.waiting(), shared_pieces()), (&b"two, three"[..], 0), "and taken again");
        assert!(!outbox.append(0, |_| Err(Lack::Forbidden)));
        outbox.advance(10);
        assert_eq!((outbox.waiting(), outbox.bytes.capacity(), shared_pieces()), (&b""[..], 0, 1));
    }

    #[test]
    fn what_is_larger_than_shared_memory_has_room_too_and_is_not_shared() {
        let mut outbox = Outbox::default();
        let chain = vec![7; SHARED_BYTES];
        assert!(append(&mut outbox, b"before") && append(&mut outbox, &chain) && append(&mut outbox, b"behind"));
        let all = [b"before", &chain[..], b"behind"].concat();
        assert!(outbox.waiting() == all);
        outbox.settle();
        assert!(outbox.waiting() == all);
        outbox.advance(all.len());
        assert!(SHARED.with_borrow(|shared| shared.iter().all(|piece| piece.len() == SHARED_BYTES)));
    }
}
