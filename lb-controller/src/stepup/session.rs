//! Who is logged in, by which factors, proved when. The whole session travels in a sealed cookie; the host keeps only
//! which sessions ended early.

use aws_lc_rs::digest::{SHA256, digest};
use lb_policy::{Level, Method, ProvedFactor, SessionFacts, UnixSeconds, level_of};

use super::factor::FactorVerified;
use super::random_id::RandomId;
use crate::config::{Config, StepUpConfig, User};

/// A valid session. It begins and rises only by a factor that has verified something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Changes with every rise, so that a cookie stolen before a step-up gains nothing by it.
    pub(super) id: RandomId,
    /// Stays the same from login to logout: what transactions belong to, and what logout ends.
    pub(super) login: RandomId,
    user: String,
    /// What the configuration says of the user now; not part of the cookie.
    groups: Vec<String>,
    /// The latest proof by each method.
    factors: Vec<ProvedFactor>,
    /// Of the user's password hash and secrets when the session began; a change of either ends it.
    credentials: [u8; 8],
    /// When `id` was made.
    pub(super) issued_at: UnixSeconds,
    /// The last request, to the minute.
    pub(super) seen_at: UnixSeconds,
    /// When it ends, whatever happens.
    pub(super) ends_at: UnixSeconds,
}

/// The idle clock is moved at most this often, or every response would carry a cookie.
const REFRESH_SECONDS: u64 = 60;
/// The first byte of the encoding; another layout takes another number.
const LAYOUT: u8 = 1;

impl Session {
    pub(super) fn begin(proof: FactorVerified, user: &User, config: &StepUpConfig, now: UnixSeconds) -> Session {
        debug_assert_eq!(proof.user(), user.name);
        Session {
            id: RandomId::new(),
            login: RandomId::new(),
            user: user.name.clone(),
            groups: user.groups.clone(),
            factors: vec![proof.proved()],
            credentials: credentials_of(user),
            issued_at: now,
            seen_at: now,
            ends_at: now + config.session_lifetime.as_secs(),
        }
    }

    /// The session with one more, or fresher, factor, under a new id; the caller ends the old one. `None` when the proof
    /// is another user's.
    pub(super) fn raised(&self, proof: &FactorVerified, now: UnixSeconds) -> Option<Session> {
        if proof.user() != self.user {
            return None;
        }
        let mut raised = Session { id: RandomId::new(), issued_at: now, seen_at: now, ..self.clone() };
        raised.factors.retain(|factor| factor.method != proof.proved().method);
        raised.factors.push(proof.proved());
        Some(raised)
    }

    /// The session with its idle clock moved to `now`, when that is due.
    pub(super) fn refreshed(&self, now: UnixSeconds) -> Option<Session> {
        (now >= self.seen_at + REFRESH_SECONDS).then(|| Session { seen_at: now, ..self.clone() })
    }

    /// The session with its user's present groups, if it still counts: not over, not idle too long, and its user is still
    /// there with the same credentials.
    pub(super) fn admitted(mut self, config: &Config, now: UnixSeconds) -> Option<Session> {
        let user = config.users.iter().find(|user| user.name == self.user)?;
        let idle_limit = self.seen_at + config.step_up.session_idle.as_secs();
        if now >= self.ends_at || now >= idle_limit || credentials_of(user) != self.credentials {
            return None;
        }
        self.groups.clone_from(&user.groups);
        Some(self)
    }

    pub fn user(&self) -> &str {
        &self.user
    }

    pub fn factors(&self) -> &[ProvedFactor] {
        &self.factors
    }

    /// The level of all its factors, however old.
    pub fn level(&self, now: UnixSeconds) -> Level {
        level_of(&self.factors, now, None)
    }

    pub fn groups(&self) -> &[String] {
        &self.groups
    }

    /// The session as rules see it.
    pub fn facts(&self) -> SessionFacts<'_> {
        SessionFacts { user: &self.user, groups: &self.groups, factors: &self.factors }
    }

    /// The compact form that is sealed into the cookie: fixed fields first, then factors, then the name to the end.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![LAYOUT];
        bytes.extend_from_slice(self.id.bytes());
        bytes.extend_from_slice(self.login.bytes());
        bytes.extend_from_slice(&self.credentials);
        for time in [self.issued_at, self.seen_at, self.ends_at] {
            bytes.extend_from_slice(&time.to_be_bytes());
        }
        bytes.push(u8::try_from(self.factors.len()).expect("there are fewer methods than 256"));
        for factor in &self.factors {
            bytes.push(method_code(factor.method));
            bytes.extend_from_slice(&factor.at.to_be_bytes());
        }
        bytes.extend_from_slice(self.user.as_bytes());
        bytes
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Option<Session> {
        let input = &mut bytes;
        if take::<1>(input)? != [LAYOUT] {
            return None;
        }
        let id = RandomId::from_bytes(take(input)?);
        let login = RandomId::from_bytes(take(input)?);
        let credentials = take(input)?;
        let mut time = || Some(u64::from_be_bytes(take(input)?));
        let (issued_at, seen_at, ends_at) = (time()?, time()?, time()?);
        let [count] = take(input)?;
        let mut factors = Vec::new();
        for _ in 0..count {
            let [code] = take(input)?;
            factors.push(ProvedFactor { method: method_of(code)?, at: u64::from_be_bytes(take(input)?) });
        }
        let user = str::from_utf8(input).ok()?.to_owned();
        Some(Session { id, login, user, groups: Vec::new(), factors, credentials, issued_at, seen_at, ends_at })
    }
}

fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = input.split_first_chunk::<N>()?;
    *input = rest;
    Some(*head)
}

/// Codes in sealed cookies: never renumber one, or a password proof would turn into another factor.
const METHOD_CODES: &[(Method, u8)] = &[(Method::Password, 1), (Method::Totp, 2)];

fn method_code(method: Method) -> u8 {
    METHOD_CODES.iter().find(|row| row.0 == method).expect("a test holds the table complete").1
}

fn method_of(code: u8) -> Option<Method> {
    METHOD_CODES.iter().find(|row| row.1 == code).map(|row| row.0)
}

fn credentials_of(user: &User) -> [u8; 8] {
    // The PHC string never holds a NUL, so the two parts cannot run into each other.
    let secret = user.totp_secret.as_deref().unwrap_or_default();
    let hash = digest(&SHA256, &[b"lb credentials\0", user.password_hash.as_bytes(), b"\0", secret].concat());
    hash.as_ref().first_chunk().copied().expect("SHA-256 gives 32 bytes")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing;
    use super::*;

    #[test]
    fn every_method_has_a_code_of_its_own() {
        for method in Method::all() {
            assert_eq!(method_of(method_code(method)), Some(method));
        }
    }

    #[test]
    fn the_longest_user_name_still_fits_a_cookie_of_one_kilobyte() {
        let mut session = testing::session("alice", 1_000);
        session.user = "x".repeat(256);
        session.groups.clear();
        session.factors = Method::all().map(|method| ProvedFactor { method, at: 1_000 }).collect();
        assert_eq!(Session::decode(&session.encode()), Some(session.clone()));
        let sealed_bytes = session.encode().len() + 12 + 16;
        assert!("__Host-lb=v1.01234567.".len() + sealed_bytes * 4 / 3 + 4 < 1024);
    }

    #[test]
    fn a_session_ends_with_its_time_its_user_or_a_changed_credential() {
        type Change = fn(&mut Config);
        let (idle, lifetime) = (3600, 12 * 3600);
        let rows: &[(&str, u64, Change, bool)] = &[
            ("the next second", 1, |_| (), true),
            ("the last second before idling out", idle - 1, |_| (), true),
            ("idle for too long", idle, |_| (), false),
            ("past its lifetime", lifetime, |config| config.step_up.session_idle *= 100, false),
            ("its user was removed", 1, |config| config.users.clear(), false),
            ("its password changed", 1, |config| config.users[0].password_hash.push('x'), false),
            ("its one-time code secret was taken away", 1, |config| config.users[0].totp_secret = None, false),
            ("its groups changed", 1, |config| config.users[0].groups.clear(), true),
            ("another user was removed", 1, |config| config.users.truncate(1), true),
        ];
        for (name, after, change, holds) in rows {
            let mut config = testing::config();
            let session = testing::session("alice", 1_000);
            change(&mut config);
            assert_eq!(session.admitted(&config, 1_000 + after).is_some(), *holds, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(session) = Session::decode(&bytes) {
                prop_assert_eq!(session.encode(), bytes);
            }
        }
    }
}
