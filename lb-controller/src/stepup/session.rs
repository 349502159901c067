//! Who is logged in, by which factors, proved when. The whole session travels in a sealed cookie; the host keeps only
//! which sessions ended early.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use lb_policy::{ApiKeyFacts, Level, Levels, Method, ProvedFactor, SessionFacts, Strength, UnixSeconds};

use super::account::{Account, AccountId};
use super::factor::{self, FactorVerified};
use super::random_id::RandomId;
use super::revocation;
use crate::config::{Config, StepUpConfig, User};
use crate::identity::{ApiKey, Scheme, VerifiedClaims, VerifiedToken};

/// A valid session. It begins and rises only by a factor that has verified something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Changes with every rise, so that a cookie stolen before a step-up gains nothing by it.
    pub(super) id: RandomId,
    /// Stays the same from login to logout: what transactions belong to, and what logout ends.
    pub(super) login: RandomId,
    account: AccountId,
    /// Of a built-in user what the configuration says now, which is not part of the cookie; of others what their provider
    /// said at the login.
    groups: Arc<[String]>,
    /// The latest proof by each method.
    factors: Vec<ProvedFactor>,
    /// Of the user's password hash and secrets when the session began; a change of either ends it.
    credentials: [u8; 8],
    /// Of users of a provider: what ends the session when the provider says so.
    at_provider: Option<AtProvider>,
    /// When the login was.
    begun_at: UnixSeconds,
    /// How it comes along with requests.
    carrier: Carrier,
    /// When `id` was made.
    pub(super) issued_at: UnixSeconds,
    /// The last request, to the minute.
    pub(super) seen_at: UnixSeconds,
    /// When it ends, whatever happens.
    pub(super) ends_at: UnixSeconds,
}

/// How a session comes along with requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    /// Sealed in a cookie, from login to logout.
    Cookie,
    /// With the connection: a client certificate, and no cookie.
    Certificate,
    /// Made for this request from an access token or an API key.
    Token {
        scheme: Scheme,
        /// Of an access token: the issuer's name.
        issuer: Option<Arc<str>>,
        /// A person stands behind it.
        has_user: bool,
        scopes: Arc<[String]>,
        /// Of an API key: its id, and when it got its secret.
        api_key: Option<(String, UnixSeconds)>,
    },
}

/// How a provider names what may end a session of ours, hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AtProvider {
    session: Option<[u8; 16]>,
    subject: [u8; 16],
}

/// The idle clock is moved at most this often, or every response would carry a cookie.
const REFRESH_SECONDS: u64 = 60;
/// The first byte of the encoding; another layout takes another number.
const LAYOUT: u8 = 4;

impl Session {
    pub(super) fn begin(proof: FactorVerified, account: &Account, config: &StepUpConfig, now: UnixSeconds) -> Session {
        debug_assert_eq!(proof.account(), &account.id);
        let built_in = account.built_in.as_ref();
        Session {
            id: RandomId::new(),
            login: RandomId::new(),
            account: account.id.clone(),
            groups: built_in.map(|user| user.groups.as_slice().into()).unwrap_or_default(),
            factors: proof.all().collect(),
            at_provider: None,
            carrier: Carrier::Cookie,
            credentials: built_in.map(credentials_of).unwrap_or_default(),
            begun_at: now,
            issued_at: now,
            seen_at: now,
            ends_at: now + config.session_lifetime.as_secs(),
        }
    }

    /// The session with one more, or fresher, factor, under a new id; the caller ends the old one. `None` when the proof
    /// is another user's.
    pub(super) fn raised(&self, proof: &FactorVerified, now: UnixSeconds) -> Option<Session> {
        if *proof.account() != self.account {
            return None;
        }
        let mut raised = Session { id: RandomId::new(), issued_at: now, seen_at: now, ..self.clone() };
        // Work is bound to a place and to a kind of request, and so it stands in a cookie of its own.
        for proved in proof.all().filter(|proved| proved.method != Method::ProofOfWork) {
            raised.factors.retain(|factor| factor.method != proved.method);
            raised.factors.push(proved);
        }
        Some(raised)
    }

    /// Whoever an access token speaks for, for one request.
    pub(super) fn of_token(token: &VerifiedToken, scheme: Scheme, now: UnixSeconds) -> Session {
        let carrier = Carrier::Token {
            scheme,
            issuer: Some(token.issuer.clone()),
            has_user: token.has_user,
            scopes: token.scopes.clone(),
            api_key: None,
        };
        let proof = factor::token::proved(token);
        let factors = proof.iter().flat_map(FactorVerified::all).collect();
        let account = proof.map_or_else(|| factor::token::account(token), FactorVerified::into_account);
        Session::for_one_request(account, token.groups.clone(), factors, (now, token.expires_at), carrier)
    }

    /// Whoever an API key acts for, for one request. A key proves no factor.
    pub(super) fn of_api_key(key: &ApiKey, now: UnixSeconds) -> Session {
        let carrier = Carrier::Token {
            scheme: Scheme::Bearer,
            issuer: None,
            has_user: false,
            scopes: key.scopes.as_slice().into(),
            api_key: Some((key.id.clone(), key.rotated_at.unwrap_or(key.created_at))),
        };
        let account = AccountId { issuer: None, name: key.user.as_str().into() };
        let ends_at = key.expires_at.unwrap_or(u64::MAX);
        Session::for_one_request(account, key.groups.as_slice().into(), Vec::new(), (now, ends_at), carrier)
    }

    /// Whoever holds the connection's client certificate.
    pub(super) fn of_certificate(proof: &FactorVerified, groups: Vec<String>, now: UnixSeconds) -> Session {
        let factors = proof.all().collect();
        Session::for_one_request(proof.account().clone(), groups.into(), factors, (now, u64::MAX), Carrier::Certificate)
    }

    fn for_one_request(
        account: AccountId,
        groups: Arc<[String]>,
        factors: Vec<ProvedFactor>,
        (now, ends_at): (UnixSeconds, UnixSeconds),
        carrier: Carrier,
    ) -> Session {
        // Nothing is kept under its ids: there is no transaction, and the token itself is what can be revoked.
        let nobody = RandomId::from_bytes([0; 16]);
        Session {
            id: nobody,
            login: nobody,
            account,
            groups,
            factors,
            credentials: [0; 8],
            at_provider: None,
            carrier,
            begun_at: now,
            issued_at: now,
            seen_at: now,
            ends_at,
        }
    }

    pub(super) fn carrier(&self) -> &Carrier {
        &self.carrier
    }

    /// The API key that came, as rules see it.
    pub fn api_key(&self) -> Option<ApiKeyFacts<'_>> {
        match &self.carrier {
            Carrier::Token { api_key: Some((id, made_at)), .. } => Some(ApiKeyFacts { id, made_at: *made_at }),
            Carrier::Token { .. } | Carrier::Cookie | Carrier::Certificate => None,
        }
    }

    pub(super) fn is_by_token(&self) -> bool {
        matches!(self.carrier, Carrier::Token { .. })
    }

    pub(super) fn is_by_cookie(&self) -> bool {
        self.carrier == Carrier::Cookie
    }

    /// The same, with what the connection's certificate proves at this moment.
    pub(super) fn with_certificate(mut self, proof: &FactorVerified) -> Session {
        if *proof.account() == self.account {
            self.factors.retain(|factor| factor.method != proof.proved().method);
            self.factors.push(proof.proved());
        }
        self
    }

    /// The session of somebody whom a provider knows, with what it says of them.
    pub(super) fn federated(self, claims: &VerifiedClaims) -> Session {
        let at_provider = AtProvider {
            session: claims.provider_session.as_deref().map(|id| revocation::provider_session_id(&claims.provider, id)),
            subject: revocation::provider_subject_id(&claims.provider, &claims.subject),
        };
        Session { groups: claims.groups.as_slice().into(), at_provider: Some(at_provider), ..self }
    }

    /// The session with its idle clock moved to `now`, when that is due.
    pub(super) fn refreshed(&self, now: UnixSeconds) -> Option<Session> {
        (now >= self.seen_at + REFRESH_SECONDS).then(|| Session { seen_at: now, ..self.clone() })
    }

    /// The session with its user's present groups, if it still counts: not over, not idle too long, and its user is still
    /// there with the same credentials.
    pub(super) fn admitted(mut self, config: &Config, now: UnixSeconds) -> Option<Session> {
        let account = Account::of(config, &self.account)?;
        let idle_limit = self.seen_at + config.step_up.session_idle.as_secs();
        if now >= self.ends_at || now >= idle_limit {
            return None;
        }
        if let Some(user) = account.built_in {
            if credentials_of(&user) != self.credentials {
                return None;
            }
            self.groups = user.groups.into();
        }
        Some(self)
    }

    /// Whether it would be [admitted](Session::admitted), were it sent at this moment.
    pub(super) fn is_admitted_at(&self, config: &Config, now: UnixSeconds) -> bool {
        Session { seen_at: now, ..self.clone() }.admitted(config, now).is_some()
    }

    /// The ids under which its provider may have ended it.
    pub(super) fn ids_at_provider(&self) -> impl Iterator<Item = [u8; 16]> {
        self.at_provider.iter().flat_map(|at| at.session.into_iter().chain([at.subject]))
    }

    pub(super) fn account(&self) -> &AccountId {
        &self.account
    }

    /// As people and rules name the user; unique together with the issuer.
    pub fn user(&self) -> &str {
        &self.account.name
    }

    /// Names the user among those of all providers.
    pub fn user_key(&self) -> String {
        self.account.key()
    }

    /// Names the login, from its beginning to its end.
    pub fn login_id(&self) -> [u8; 16] {
        *self.login.bytes()
    }

    pub fn factors(&self) -> &[ProvedFactor] {
        &self.factors
    }

    /// The level of all its factors, however old.
    pub fn level(&self, levels: &Levels, now: UnixSeconds) -> Level {
        levels.level_of(&self.factors, now)
    }

    pub fn groups(&self) -> &[String] {
        &self.groups
    }

    /// The session as rules see it.
    pub fn facts(&self) -> SessionFacts<'_> {
        SessionFacts {
            issuer: self.account.issuer.as_deref(),
            user: &self.account.name,
            groups: &self.groups,
            factors: &self.factors,
            begun_at: self.begun_at,
        }
    }

    /// The compact form that is sealed into the cookie: fixed fields first, then factors, then the issuer (empty for
    /// built-in users) with what it said, then the name to the end.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![LAYOUT];
        bytes.extend_from_slice(self.id.bytes());
        bytes.extend_from_slice(self.login.bytes());
        bytes.extend_from_slice(&self.credentials);
        for time in [self.begun_at, self.issued_at, self.seen_at, self.ends_at] {
            bytes.extend_from_slice(&time.to_be_bytes());
        }
        bytes.push(u8::try_from(self.factors.len()).expect("there are fewer methods than 256"));
        for factor in &self.factors {
            bytes.extend_from_slice(&[method_code(factor.method), strength_code(factor.strength)]);
            bytes.extend_from_slice(&factor.at.to_be_bytes());
        }
        let issuer = self.account.issuer.as_deref().unwrap_or_default();
        bytes.push(u8::try_from(issuer.len()).expect("names of providers are short"));
        bytes.extend_from_slice(issuer.as_bytes());
        if let Some(at_provider) = &self.at_provider {
            bytes.extend_from_slice(&at_provider.session.unwrap_or_default());
            bytes.extend_from_slice(&at_provider.subject);
            bytes.push(u8::try_from(self.groups.len()).expect("groups are bounded at the login"));
            for group in &*self.groups {
                bytes.push(u8::try_from(group.len()).expect("long groups are left out at the login"));
                bytes.extend_from_slice(group.as_bytes());
            }
        }
        bytes.extend_from_slice(self.account.name.as_bytes());
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
        let (begun_at, issued_at, seen_at, ends_at) = (time()?, time()?, time()?, time()?);
        let [count] = take(input)?;
        let mut factors = Vec::new();
        for _ in 0..count {
            let [method, strength] = take(input)?;
            let (method, strength) = (method_of(method)?, strength_of(strength)?);
            factors.push(ProvedFactor { method, at: u64::from_be_bytes(take(input)?), strength });
        }
        let issuer = take_text(input)?;
        let issuer = (!issuer.is_empty()).then_some(issuer);
        let mut groups = Vec::new();
        let at_provider = match issuer {
            None => None,
            Some(_) => {
                let (session, subject) = (take::<16>(input)?, take(input)?);
                let [count] = take(input)?;
                for _ in 0..count {
                    groups.push(take_text(input)?);
                }
                Some(AtProvider { session: (session != [0; 16]).then_some(session), subject })
            }
        };
        let account = AccountId { issuer: issuer.map(Into::into), name: str::from_utf8(input).ok()?.into() };
        Some(Session {
            id,
            login,
            account,
            groups: groups.into(),
            factors,
            credentials,
            at_provider,
            begun_at,
            carrier: Carrier::Cookie,
            issued_at,
            seen_at,
            ends_at,
        })
    }
}

/// A length in one byte, and as many of UTF-8.
fn take_text(input: &mut &[u8]) -> Option<String> {
    let [length] = take(input)?;
    let (text, rest) = input.split_at_checked(length.into())?;
    *input = rest;
    str::from_utf8(text).ok().map(str::to_owned)
}

fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = input.split_first_chunk::<N>()?;
    *input = rest;
    Some(*head)
}

/// Codes in sealed cookies: never renumber one, or a password proof would turn into another factor.
const METHOD_CODES: &[(Method, u8)] = &[
    (Method::Password, 1),
    (Method::Totp, 2),
    (Method::Pin, 3),
    (Method::Webauthn, 4),
    (Method::ClientCertificate, 5),
    (Method::DeveloperKey, 6),
    (Method::IdentityProvider, 7),
    (Method::RecoveryCode, 8),
    (Method::Email, 9),
    (Method::Sms, 10),
    (Method::External, 11),
    (Method::ProofOfWork, 12),
];
/// A level that is vouched for is this and its number. Likewise never to be renumbered.
const VOUCHED: u8 = 16;

fn strength_code(strength: Strength) -> u8 {
    match strength {
        Strength::Ordinary => 0,
        Strength::UserVerified => 1,
        Strength::DeviceBound => 2,
        Strength::Vouched(Level(level)) => VOUCHED.saturating_add(level),
    }
}

fn strength_of(code: u8) -> Option<Strength> {
    match code {
        0 => Some(Strength::Ordinary),
        1 => Some(Strength::UserVerified),
        2 => Some(Strength::DeviceBound),
        VOUCHED.. => Some(Strength::Vouched(Level(code - VOUCHED))),
        _ => None,
    }
}

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
    fn every_method_and_strength_has_a_code_of_its_own() {
        for method in Method::all() {
            assert_eq!(method_of(method_code(method)), Some(method));
        }
        for strength in [Strength::Ordinary, Strength::UserVerified, Strength::DeviceBound, Strength::Vouched(Level(3))]
        {
            assert_eq!(strength_of(strength_code(strength)), Some(strength));
        }
    }

    #[test]
    fn the_longest_user_name_still_fits_a_cookie_of_one_kilobyte() {
        let mut session = testing::session("alice", 1_000);
        session.account = AccountId { issuer: Some("corporate".into()), name: "x".repeat(256).into() };
        session.at_provider = Some(AtProvider { session: Some([1; 16]), subject: [2; 16] });
        session.groups = ["staff".to_owned(), "support".to_owned()].into();
        session.factors = Method::all().map(|method| ProvedFactor::ordinary(method, 1_000)).collect();
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
