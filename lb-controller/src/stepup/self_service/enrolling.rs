//! Factors that somebody is adding: what the page has shown must be what the answer is checked against.

use std::collections::HashMap;
use std::sync::Mutex;

use lb_policy::UnixSeconds;
use zeroize::Zeroizing;

use super::super::factor::passkey::Challenge;
use super::super::random_id::{RandomId, hex, random_bytes};

/// What was shown, by login. One at a time: the page that was opened last counts.
#[derive(Default)]
pub(in crate::stepup) struct Enrolling(Mutex<HashMap<RandomId, Shown>>);

struct Shown {
    what: Secret,
    until: UnixSeconds,
}

#[derive(Clone)]
pub(super) enum Secret {
    Totp(Zeroizing<Vec<u8>>),
    Passkey(Challenge),
}

const LIFETIME_SECONDS: u64 = 600;
/// Each takes a login that may change factors.
const MOST: usize = 16 * 1024;

impl Enrolling {
    /// `false`: there is no room.
    pub(super) fn show(&self, login: RandomId, what: Secret, now: UnixSeconds) -> bool {
        let mut shown = self.0.lock().expect("no holder of this lock panics");
        if shown.len() >= MOST {
            shown.retain(|_, shown| shown.until > now);
        }
        let has_room = shown.len() < MOST || shown.contains_key(&login);
        if has_room {
            shown.insert(login, Shown { what, until: now + LIFETIME_SECONDS });
        }
        has_room
    }

    /// Hands out what was shown, once: a challenge is good for one answer.
    pub(super) fn take(&self, login: &RandomId, now: UnixSeconds) -> Option<Secret> {
        let shown = self.0.lock().expect("no holder of this lock panics").remove(login)?;
        (shown.until > now).then_some(shown.what)
    }
}

/// A challenge that commits to who enrols; its randomness makes it good for this one time.
pub(super) fn passkey_challenge(user: &str) -> Challenge {
    let nonce = hex(&random_bytes::<32>());
    Challenge::committing_to(&format!("lb enrolment 1\nuser: {}\nnonce: {nonce}\n", serde_json::Value::from(user)))
}
