//! Memory for request bodies that wait for a proof. Room is reserved before the first byte is read, and the bytes are
//! sealed under a key that only the waiting browser holds: a dump of our memory shows nobody's request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::HeaderValue;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use super::bound::hash_beside_body;
use super::random_id::RandomId;
use crate::serve::request::Inbound;

/// One parked request's body, with the headers that say how to read it.
pub(super) struct Parked {
    sealed: Vec<u8>,
    content_type: Option<HeaderValue>,
    content_encoding: Option<HeaderValue>,
    /// Of its other headers: those of the form that fetches it must be the same.
    others_sha256: [u8; 32],
    _room: Room,
}

/// All the room there is.
#[derive(Default)]
pub(super) struct ParkingLot {
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    requests: usize,
    bytes: usize,
    by_owner: HashMap<Owner, u8>,
}

/// Whose places count together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Owner {
    Login(RandomId),
    /// Of all logins. Whoever has stolen a password has no device that is known, and must not take the places of those that
    /// are.
    User {
        name: String,
        device_known: bool,
    },
}

/// Room for one body; given back when dropped.
pub(super) struct Room {
    lot: Arc<ParkingLot>,
    owners: [Owner; 2],
    bytes: usize,
}

/// Why a request cannot wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// It never can.
    TooLarge,
    /// Not now: others of its owner, or of everybody, wait already.
    Full,
}

const MOST_BYTES: usize = 64 * 1024 * 1024;

impl Owner {
    fn most_places(&self) -> u8 {
        match self {
            Owner::Login(_) => 3,
            // Whoever logs in again and again must not fill the lot.
            Owner::User { .. } => 12,
        }
    }
}

impl ParkingLot {
    /// Errors: [`NoRoom::Full`] when this login or this user has its share already, or the lot is full.
    pub(super) fn reserve(
        self: &Arc<Self>,
        login: RandomId,
        (user, device_known): (&str, bool),
        bytes: usize,
    ) -> Result<Room, NoRoom> {
        let owners = [Owner::Login(login), Owner::User { name: user.to_owned(), device_known }];
        let mut taken = self.taken.lock().expect("no holder of this lock panics");
        let has_share = |owner: &Owner| taken.by_owner.get(owner).is_some_and(|places| *places >= owner.most_places());
        if owners.iter().any(has_share) || taken.bytes + bytes > MOST_BYTES {
            return Err(NoRoom::Full);
        }
        taken.requests += 1;
        taken.bytes += bytes;
        for owner in &owners {
            *taken.by_owner.entry(owner.clone()).or_default() += 1;
        }
        Ok(Room { lot: Arc::clone(self), owners, bytes })
    }

    /// Requests and bytes parked now.
    pub(super) fn load(&self) -> (usize, usize) {
        let taken = self.taken.lock().expect("no holder of this lock panics");
        (taken.requests, taken.bytes)
    }
}

impl Room {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut taken = self.lot.taken.lock().expect("no holder of this lock panics");
        taken.requests -= 1;
        taken.bytes -= self.bytes;
        for owner in &self.owners {
            if let Some(places) = taken.by_owner.get_mut(owner) {
                *places -= 1;
                if *places == 0 {
                    taken.by_owner.remove(owner);
                }
            }
        }
    }
}

impl Parked {
    /// Seals `body` of `request` under the transaction's `secret`.
    pub(super) fn new(room: Room, request: &Inbound, body: &[u8], secret: &str) -> Parked {
        let mut sealed = body.to_vec();
        parking_key(secret)
            .seal_in_place_append_tag(only_nonce(), Aad::empty(), &mut sealed)
            .expect("AES-GCM seals anything shorter than 64 GiB");
        Parked {
            sealed,
            content_type: request.headers.get(CONTENT_TYPE).cloned(),
            content_encoding: request.headers.get(CONTENT_ENCODING).cloned(),
            others_sha256: hash_beside_body(request),
            _room: room,
        }
    }

    /// Whether `request` has the headers of the parked one, but for those that come back with the body.
    pub(super) fn came_as(&self, request: &Inbound) -> bool {
        hash_beside_body(request) == self.others_sha256
    }

    /// Puts the parked body and its headers into `request`. `false`, and nothing is done: `secret` is not the one it was
    /// sealed under.
    #[must_use]
    pub(super) fn restore_into(&self, request: &mut Inbound, secret: &str) -> bool {
        let mut bytes = self.sealed.clone();
        let Ok(plain) = parking_key(secret).open_in_place(only_nonce(), Aad::empty(), &mut bytes) else { return false };
        let length = plain.len();
        bytes.truncate(length);
        let body = Bytes::from(bytes);
        for (name, value) in [(CONTENT_TYPE, &self.content_type), (CONTENT_ENCODING, &self.content_encoding)] {
            match value {
                Some(value) => drop(request.headers.insert(name, value.clone())),
                None => drop(request.headers.remove(name)),
            }
        }
        request.headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        request.body = crate::serve::request::InboundBody::Whole(body);
        true
    }
}

fn parking_key(secret: &str) -> LessSafeKey {
    let key = digest(&SHA256, &[b"lb parked request\0", secret.as_bytes()].concat());
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).expect("SHA-256 gives the 32 bytes of an AES-256 key"))
}

/// Each transaction has a secret of its own and parks one body, so its key never meets a second nonce.
fn only_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn each_login_has_three_places_and_all_logins_share_the_lot() {
        let lot = Arc::new(ParkingLot::default());
        let alice = RandomId::new();
        let mut rooms: Vec<_> = (0..3).map(|_| lot.reserve(alice, ("alice", false), 10).unwrap()).collect();
        assert!(lot.reserve(alice, ("alice", false), 10).is_err(), "a fourth place");
        assert_eq!(lot.load(), (3, 30));
        rooms.pop();
        assert!(lot.reserve(alice, ("alice", false), 10).is_ok(), "after one was given back");
        assert!(lot.reserve(RandomId::new(), ("bob", false), MOST_BYTES - 10).is_err(), "more than is left");
        drop(rooms);
        assert_eq!(lot.load(), (0, 0));
        assert!(lot.taken.lock().unwrap().by_owner.is_empty());
    }

    #[test]
    fn a_user_of_many_logins_leaves_places_to_others() {
        let lot = Arc::new(ParkingLot::default());
        let rooms: Vec<_> = (0..30).filter_map(|_| lot.reserve(RandomId::new(), ("mallory", false), 10).ok()).collect();
        assert_eq!(rooms.len(), 12);
        assert!(lot.reserve(RandomId::new(), ("alice", false), 10).is_ok());
        assert!(lot.reserve(RandomId::new(), ("mallory", true), 10).is_ok(), "from a device that is known");
    }

    #[test]
    fn a_parked_body_comes_back_with_its_headers_only_for_its_own_secret() {
        let lot = Arc::new(ParkingLot::default());
        let original =
            testing::request("POST", "/refunds", &[("content-type", "application/json")], "{\"amount\": 900}");
        let park = || {
            Parked::new(
                lot.reserve(RandomId::new(), ("alice", false), 100).unwrap(),
                &original,
                b"{\"amount\": 900}",
                "secret",
            )
        };
        let resuming = || {
            let form = [("content-type", "application/x-www-form-urlencoded"), ("content-encoding", "gzip")];
            testing::request("POST", "/refunds", &form, "lb-tx=…")
        };
        let with_more = testing::request("POST", "/refunds", &[("x-account", "another")], "lb-tx=…");
        assert!(park().came_as(&resuming()) && !park().came_as(&with_more));
        assert!(!park().sealed.windows(6).any(|window| window == b"amount"), "it does not lie open in memory");
        assert!(!park().restore_into(&mut resuming(), "other"));
        let mut restored = resuming();
        assert!(park().restore_into(&mut restored, "secret"));
        assert_eq!(testing::body_of(&restored), b"{\"amount\": 900}");
        assert_eq!(restored.headers["content-type"], "application/json");
        assert_eq!(restored.headers["content-length"], "15");
        assert!(!restored.headers.contains_key("content-encoding"));
    }
}
