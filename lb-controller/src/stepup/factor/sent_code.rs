//! Codes that are sent to the user, by e-mail or by text message. One at a time for each transaction, kept as a keyed hash,
//! and forgotten with the process: the transactions they belong to are too.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use aws_lc_rs::hmac;
use lb_policy::{Method, Strength, UnixSeconds};
use zeroize::Zeroizing;

use super::super::account::Account;
use super::super::random_id::{RandomId, random_bytes};
use super::{Aim, Attempt, FactorVerified, Failure, Field, base32};

/// 40 bits: with five tries each, guessing is hopeless.
const CODE_BYTES: usize = 5;
const LIFETIME_SECONDS: u64 = 600;
const TRIES: u8 = 5;
/// Nobody's mailbox can be flooded through us.
const SENDS: usize = 3;
const SENDS_WITHIN_SECONDS: u64 = 900;
/// As many as there can be transactions.
const MOST: usize = 16 * 1024;

pub(super) const FIELD: Field = Field { kind: "text", autocomplete: "one-time-code", inputmode: "text", is_code: true };

pub(super) fn verify(attempt: &Attempt, method: Method, address: Option<&str>) -> Result<FactorVerified, Failure> {
    let bound = Bound::of(attempt.aim()?, &attempt.account, method, address.ok_or(Failure::NotEnrolled)?);
    if !attempt.tools.codes.take(bound, &attempt.answer, attempt.now) {
        return Err(Failure::Wrong);
    }
    Ok(FactorVerified::new(attempt, method, Strength::Ordinary))
}

/// Codes on their way, and how many each address was sent lately.
pub(crate) struct SentCodes {
    key: hmac::Key,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    codes: HashMap<RandomId, Sent>,
    sends: HashMap<[u8; 32], Vec<UnixSeconds>>,
}

struct Sent {
    mac: [u8; 32],
    expires_at: UnixSeconds,
    tries_left: u8,
}

/// What a code is good for, and nothing else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound<'a> {
    /// How it is sent.
    pub(crate) method: &'a str,
    pub(crate) transaction: &'a RandomId,
    /// Of the transaction's cookie: the code works in the browser that asked for it.
    pub(crate) browser: &'a [u8; 32],
    pub(crate) user: &'a str,
    pub(crate) address: &'a str,
}

/// Why no code was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotSent {
    #[error("too many codes were sent; wait {wait_seconds} s")]
    TooMany { wait_seconds: u64 },
    #[error("there is no room for another code")]
    Full,
}

impl SentCodes {
    pub(crate) fn new() -> SentCodes {
        let secret: Zeroizing<[u8; 32]> = Zeroizing::new(random_bytes());
        SentCodes { key: hmac::Key::new(hmac::HMAC_SHA256, &*secret), state: Mutex::default() }
    }

    /// Makes a code to be sent to `bound.address`. A code that was sent before for the same transaction is dead.
    pub(crate) fn issue(&self, bound: Bound<'_>, now: UnixSeconds) -> Result<Zeroizing<String>, NotSent> {
        let code = Zeroizing::new(base32::encode(&random_bytes::<CODE_BYTES>()));
        let mac = self.mac(bound, &code);
        let sends_key = self.sign(&["sends", bound.method, bound.user, bound.address]);
        let mut state = self.lock();
        state.forget(now);
        if state.codes.len() >= MOST || state.sends.len() >= MOST {
            return Err(NotSent::Full);
        }
        let sends = state.sends.entry(sends_key).or_default();
        if let [oldest, ..] = sends.as_slice()
            && sends.len() >= SENDS
        {
            return Err(NotSent::TooMany { wait_seconds: oldest + SENDS_WITHIN_SECONDS - now });
        }
        sends.push(now);
        let sent = Sent { mac, expires_at: now + LIFETIME_SECONDS, tries_left: TRIES };
        state.codes.insert(*bound.transaction, sent);
        Ok(code)
    }

    /// Whether a code is out that may still be answered.
    pub(crate) fn is_out(&self, transaction: &RandomId, now: UnixSeconds) -> bool {
        let state = self.lock();
        state.codes.get(transaction).is_some_and(|sent| sent.expires_at > now && sent.tries_left > 0)
    }

    /// Takes the code if it is the right one, and a try if it is not. Of any number of callers with one code, one is told
    /// `true`.
    pub(crate) fn take(&self, bound: Bound<'_>, answer: &str, now: UnixSeconds) -> bool {
        let Some(code) = base32::normalized(answer, CODE_BYTES) else { return self.wrong(bound.transaction) };
        let text = Bound::text(bound, &code);
        let mut state = self.lock();
        let Some(sent) = state.codes.get(bound.transaction) else { return false };
        let is_live = sent.expires_at > now && sent.tries_left > 0;
        let is_right = hmac::verify(&self.key, &text, &sent.mac).is_ok();
        if is_live && is_right {
            state.codes.remove(bound.transaction);
            return true;
        }
        drop(state);
        self.wrong(bound.transaction)
    }

    fn wrong(&self, transaction: &RandomId) -> bool {
        if let Some(sent) = self.lock().codes.get_mut(transaction) {
            sent.tries_left = sent.tries_left.saturating_sub(1);
        }
        false
    }

    fn mac(&self, bound: Bound<'_>, code: &str) -> [u8; 32] {
        let tag = hmac::sign(&self.key, &Bound::text(bound, code));
        tag.as_ref().try_into().expect("HMAC-SHA-256 gives 32 bytes")
    }

    fn sign(&self, parts: &[&str]) -> [u8; 32] {
        let tag = hmac::sign(&self.key, parts.join("\0").as_bytes());
        tag.as_ref().try_into().expect("HMAC-SHA-256 gives 32 bytes")
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl<'a> Bound<'a> {
    pub(in crate::stepup) fn of(aim: &'a Aim, account: &'a Account, method: Method, address: &'a str) -> Bound<'a> {
        let (transaction, browser) = (&aim.transaction, &aim.browser);
        Bound { method: method.name(), transaction, browser, user: &account.id.name, address }
    }
}

impl Bound<'_> {
    /// The parts before the code have no NUL in them, or a fixed length.
    fn text(self, code: &str) -> Zeroizing<Vec<u8>> {
        let texts = ["code", self.method, self.user, self.address, code].join("\0");
        Zeroizing::new([self.transaction.bytes(), &self.browser[..], texts.as_bytes()].concat())
    }
}

impl State {
    fn forget(&mut self, now: UnixSeconds) {
        self.codes.retain(|_, sent| sent.expires_at > now);
        self.sends.retain(|_, sends| {
            sends.retain(|at| at + SENDS_WITHIN_SECONDS > now);
            !sends.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROWSER: [u8; 32] = [1; 32];

    fn bound(transaction: &RandomId) -> Bound<'_> {
        Bound { method: "email", transaction, browser: &BROWSER, user: "alice", address: "alice@shop.example" }
    }

    #[test]
    fn a_code_is_good_once_however_it_is_typed() {
        let (codes, id) = (SentCodes::new(), RandomId::new());
        let spellings: [fn(&str) -> String; 4] = [
            str::to_owned,
            str::to_lowercase,
            |code| format!(" {}-{} ", &code[..4], &code[4..]),
            |code| code.chars().map(|char| format!("{char} ")).collect(),
        ];
        for (at, spell) in spellings.into_iter().enumerate() {
            let now = 1000 * (at as u64 + 1);
            let code = codes.issue(bound(&id), now).unwrap();
            assert_eq!(code.len(), 8);
            assert!(codes.take(bound(&id), &spell(&code), now + 599), "{}", spell(&code));
            for again in spellings {
                assert!(!codes.take(bound(&id), &again(&code), now + 599), "used before: {}", again(&code));
            }
        }
    }

    #[test]
    fn a_code_is_good_for_what_it_was_sent_for_alone() {
        let (codes, id, other) = (SentCodes::new(), RandomId::new(), RandomId::new());
        let code = codes.issue(bound(&id), 0).unwrap();
        let rows = [
            ("another transaction", Bound { transaction: &other, ..bound(&id) }, 0),
            ("another browser", Bound { browser: &[2; 32], ..bound(&id) }, 0),
            ("another user", Bound { user: "bob", ..bound(&id) }, 0),
            ("another address", Bound { address: "mallory@evil.example", ..bound(&id) }, 0),
            ("another way", Bound { method: "sms", ..bound(&id) }, 0),
            ("too late", bound(&id), 600),
        ];
        for (name, bound, now) in rows {
            assert!(!codes.take(bound, &code, now), "{name}");
        }
    }

    #[test]
    fn sending_again_kills_the_code_before_and_three_are_all_there_are() {
        let (codes, id) = (SentCodes::new(), RandomId::new());
        let first = codes.issue(bound(&id), 0).unwrap();
        let second = codes.issue(bound(&id), 10).unwrap();
        assert!(!codes.take(bound(&id), &first, 11));
        assert!(codes.take(bound(&id), &second, 11));
        let other = RandomId::new();
        codes.issue(bound(&other), 20).unwrap();
        assert_eq!(codes.issue(bound(&other), 30).unwrap_err(), NotSent::TooMany { wait_seconds: 870 });
        assert_eq!(codes.issue(bound(&RandomId::new()), 899).unwrap_err(), NotSent::TooMany { wait_seconds: 1 });
        assert!(codes.issue(bound(&other), 900).is_ok(), "the first has been forgotten");
        let bob = Bound { user: "bob", address: "bob@shop.example", ..bound(&id) };
        assert!(codes.issue(bob, 30).is_ok(), "others are sent theirs");
    }

    #[test]
    fn after_five_wrong_answers_the_right_one_is_refused_too() {
        let (codes, id) = (SentCodes::new(), RandomId::new());
        let code = codes.issue(bound(&id), 0).unwrap();
        for wrong in ["AAAAAAAA", "", "????????", "AAAAAAA", "the code, please"] {
            assert!(codes.is_out(&id, 1));
            assert!(!codes.take(bound(&id), wrong, 1), "{wrong}");
        }
        assert!(!codes.is_out(&id, 1));
        assert!(!codes.take(bound(&id), &code, 1));
    }

    #[test]
    fn of_many_racing_answers_with_one_code_exactly_one_wins() {
        let (codes, id) = (SentCodes::new(), RandomId::new());
        let code = codes.issue(bound(&id), 0).unwrap();
        let wins = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..16).map(|_| scope.spawn(|| codes.take(bound(&id), &code, 1))).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).filter(|won| *won).count()
        });
        assert_eq!(wins, 1);
    }
}
