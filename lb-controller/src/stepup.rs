//! Sessions, factors, challenges, and the original request going on after the proof.
//!
//! Sessions live in sealed cookies; what must have one owner (used codes, ended sessions) in the store; what lives ten
//! minutes (transactions, parked bodies, attempt counters) in bounded memory.

mod account;
mod ask;
mod assertion;
mod bearer;
mod blocking;
mod body;
mod bound;
mod challenge;
mod check;
mod client_kind;
mod cookies;
mod counters;
mod csrf;
mod device;
mod enrolments;
pub(crate) mod factor;
mod federation;
mod form;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod grpc;
mod login;
mod outcome;
mod own_pages;
mod pages;
mod parking;
mod preview;
mod private_file;
mod prove;
mod random_id;
mod resume;
mod revocation;
mod seal;
mod sealing_keys;
mod self_service;
mod send_code;
mod session;
mod shown;
mod terms;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod throttle;
mod transaction;
mod user_tag;
mod work;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use http::{HeaderValue, StatusCode};
use lb_policy::{Method, ProvableFactor, ProvableFactors, Strength, ThreatLevel, UnixSeconds};
use prometheus_client::registry::Registry;

use self::account::{Account, AccountId};
use self::assertion::{Said, Signer};
pub use self::bearer::Credential;
use self::blocking::Blocking;
use self::cookies::{Found, Keep};
use self::counters::Counters;
use self::device::Device;
use self::enrolments::Enrolments;
use self::factor::passkey;
use self::factor::services::CurrentServices;
use self::factor::{Owner, Tools};
use self::pages::Rejection;
use self::parking::ParkingLot;
pub(crate) use self::preview::{Preview, all as previews};
pub use self::resume::{ApprovedAction, Resumed};
use self::revocation::Revocations;
use self::seal::{Purpose, Sealer};
use self::self_service::{Enrolling, Permissions};
pub use self::self_service::{NoSuchUser, NotDone};
pub use self::session::Session;
use self::throttle::Throttle;
use self::transaction::Transactions;
use self::user_tag::UserTags;
use crate::clock::Clock;
use crate::config::Config;
use crate::identity::{ApiKeys, Identities, SeenTokens};
use crate::joint::Joint;
use crate::serve::request::Inbound;
use crate::serve::respond::OwnResponse;
use crate::signals::FailedProofs;
use crate::store::{Revoked, Store};
use crate::texts::say;

/// What the cookies are made with by which clients stay with their backends; made in `directory` at the first start, and
/// never changed, or all clients would change their backends.
pub fn sticky_secret(directory: &Path) -> Result<Vec<u8>> {
    private_file::secret(&directory.join("sticky-key"))
}

/// The step-up engine of one host.
pub struct StepUp {
    clock: Clock,
    sealer: Sealer,
    signer: Signer,
    tags: UserTags,
    store: Arc<Store>,
    enrolments: Arc<Enrolments>,
    tools: Arc<Tools>,
    services: CurrentServices,
    permissions: Permissions,
    enrolling: Enrolling,
    revocations: Arc<Revocations>,
    /// Logout tokens of identity providers.
    seen_tokens: SeenTokens,
    transactions: Transactions,
    parking: Arc<ParkingLot>,
    throttle: Throttle,
    hashing: Blocking,
    disk: Blocking,
    refused_cookies: AtomicU64,
    failed_proofs: Arc<FailedProofs>,
    counters: Counters,
}

/// What a request is handled with.
#[derive(Clone, Copy)]
pub struct Visit<'a> {
    pub config: &'a Config,
    pub joint: &'a Joint,
    pub identities: &'a Identities,
    pub threat: ThreatLevel,
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepUpLoad {
    /// Session cookies that did not open, had ended, or came twice; counts up.
    pub refused_cookies: u64,
    pub parked_requests: usize,
    pub parked_bytes: usize,
}

/// See [`StepUp::provable`].
pub struct Provable<'a> {
    step_up: &'a StepUp,
    config: &'a Config,
    session: Option<&'a Session>,
}

impl ProvableFactors for Provable<'_> {
    fn provable(&self) -> Vec<ProvableFactor> {
        match self.session {
            Some(session) => self.step_up.provable_by(self.config, session).unwrap_or_default(),
            // Work takes nobody in particular.
            None => vec![ProvableFactor { method: Method::ProofOfWork, strength: Strength::Ordinary }],
        }
    }
}

impl std::fmt::Debug for Provable<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provable").finish_non_exhaustive()
    }
}

impl StepUp {
    /// Opens the engine's keys and store in `state_dir`, making what is missing, readable by this user alone.
    pub fn open(state_dir: &Path, clock: Clock) -> Result<StepUp> {
        private_file::make_directory(state_dir)?;
        let now = clock.now();
        let store = Arc::new(Store::open(&state_dir.join("store.redb"))?);
        let revocations = Revocations::open(store.clone(), now).context("cannot read the store")?;
        let transactions = Transactions::default();
        let counters = Counters::new(transactions.abandoned(), clock.clone());
        Ok(StepUp {
            sealer: Sealer::open(state_dir, now)?,
            signer: Signer::open(state_dir)?,
            tags: UserTags::open(state_dir)?,
            enrolments: Arc::new(Enrolments::open(state_dir, store.clone())?),
            tools: Arc::new(Tools::open(state_dir)?),
            services: CurrentServices::default(),
            permissions: Permissions::default(),
            enrolling: Enrolling::default(),
            store,
            revocations: Arc::new(revocations),
            seen_tokens: SeenTokens::default(),
            transactions,
            parking: Arc::default(),
            throttle: Throttle::default(),
            hashing: Blocking::new(),
            disk: Blocking::new(),
            refused_cookies: AtomicU64::new(0),
            failed_proofs: Arc::default(),
            counters,
            clock,
        })
    }

    /// Where this host keeps what must survive it.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The session that came with `request`. Whatever is wrong with a cookie, it counts as none.
    pub fn session(&self, config: &Config, request: &Inbound) -> Option<Session> {
        let text = match cookies::find(&request.headers, cookies::SESSION) {
            Found::Absent => return None,
            Found::Once(text) => Some(text),
            Found::Repeated => None,
        };
        let session = text.and_then(|text| self.open_session(config, request, text));
        if session.is_none() {
            self.refused_cookies.fetch_add(1, Ordering::Relaxed);
        }
        session
    }

    fn open_session(&self, config: &Config, request: &Inbound, text: &str) -> Option<Session> {
        let plain = self.sealer.open_sealed(Purpose::Session, &request.host, text)?;
        let session = Session::decode(&plain)?.admitted(config, self.clock.now())?;
        (!self.revocations.is_ended(&session)).then_some(session)
    }

    /// Names the browser, if it is one that the session's user, or without a session anybody, has proved themselves with.
    pub fn device_id(&self, request: &Inbound, session: Option<&Session>) -> Option<[u8; 16]> {
        let device = Device::of_anybody(&self.sealer, &request.headers, &request.host)?;
        (session.is_none_or(|session| device.is_of(session.user()))).then(|| *device.id.bytes())
    }

    /// Logins and proofs that failed lately.
    pub fn failed_proofs(&self) -> Arc<FailedProofs> {
        self.failed_proofs.clone()
    }

    /// A cookie that moves the session's idle clock, at most once a minute. Ask when the response is made, not before: a
    /// session that was raised or ended meanwhile must not come back.
    pub fn session_cookie_refresh(&self, host: &str, session: &Session) -> Option<HeaderValue> {
        let refreshed = session.refreshed(self.clock.now()).filter(|_| session.is_by_cookie())?;
        (!self.revocations.is_ended(session)).then(|| self.session_cookie(host, &refreshed))
    }

    /// Whether what `session` came of still counts, for a stream that goes on. Its idle clock does not run meanwhile, and a
    /// rise in level ends the session but not the login.
    pub(crate) fn goes_on(&self, config: &Config, keys: &ApiKeys, session: &Session) -> bool {
        let now = self.clock.now();
        now < session.ends_at
            && !self.revocations.is_login_ended(session)
            && (!session.is_by_cookie() || session.is_admitted_at(config, now))
            && session.api_key().is_none_or(|key| keys.still_opens(key.id, key.made_at, now))
    }

    fn session_cookie(&self, host: &str, session: &Session) -> HeaderValue {
        let sealed = self.sealer.seal(Purpose::Session, host, &session.encode());
        self.counters.cookie_set(sealed.len());
        cookies::set(cookies::SESSION, &sealed, Keep::UntilBrowserCloses)
    }

    /// Refuses an unsafe request that a session's cookie authenticates but that some other site's page may have sent.
    pub fn csrf_check(&self, config: &Config, request: &Inbound, session: Option<&Session>) -> Result<(), OwnResponse> {
        // A token is put there by whoever holds it; only what a browser adds by itself can be abused.
        if session.is_none_or(Session::is_by_token) || !csrf::is_forged(request, &config.trusted_origins) {
            return Ok(());
        }
        Err(self.forged(request, session))
    }

    fn forged(&self, request: &Inbound, session: Option<&Session>) -> OwnResponse {
        self.event_of("csrf", "refused", request, session).record();
        Rejection {
            status: StatusCode::FORBIDDEN,
            problem: "cross-site",
            title: say::cross_site(),
            detail: say::cross_site_about(),
        }
        .answer(request)
    }

    /// No proof would help. The client is not told which rule it was.
    pub fn deny(&self, request: &Inbound) -> OwnResponse {
        Rejection {
            status: StatusCode::FORBIDDEN,
            problem: "denied",
            title: say::denied(),
            detail: say::denied_about(),
        }
        .answer(request)
    }

    /// What the session's user could prove, for decisions to ask.
    pub fn provable<'a>(&'a self, config: &'a Config, session: Option<&'a Session>) -> Provable<'a> {
        Provable { step_up: self, config, session }
    }

    /// Answers browsers that ask whether a related origin may use passkeys of this host (WebAuthn L3 §5.11.1). `None`: it
    /// is somebody else's to answer.
    pub fn related_origins(&self, config: &Config, request: &Inbound) -> Option<OwnResponse> {
        let party = config.factors.passkey.as_ref()?;
        let asks = request.path == "/.well-known/webauthn" && request.method == http::Method::GET;
        (asks && request.host == party.id).then(|| pages::json(StatusCode::OK, &passkey::related_origins(party)))
    }

    /// The account's passkeys.
    fn credentials(&self, account: &AccountId) -> Vec<passkey::Credential> {
        let enrolled = self.enrolments.of(account).unwrap_or_default();
        let of_method = enrolled.iter().filter(|enrolment| enrolment.method() == Some(Method::Webauthn));
        of_method.filter_map(|enrolment| passkey::Credential::read(&enrolment.record)).collect()
    }

    fn provable_by(&self, config: &Config, session: &Session) -> Option<Vec<ProvableFactor>> {
        let account = Account::of(config, session.account())?;
        let enrolled = self.enrolments.of(&account.id).unwrap_or_else(|error| {
            tracing::error!(%error, "enrolled factors cannot be read, so none of them is offered");
            Vec::new()
        });
        let owner = Owner { account: &account, enrolled: &enrolled, config: &config.factors };
        let provable = |factor: &factor::Factor| {
            let strength = (factor.provable)(&owner)?;
            Some(ProvableFactor { method: factor.method, strength })
        };
        let mut all: Vec<_> = factor::all().filter_map(provable).collect();
        all.extend(factor::idp::provable(config, &account.id));
        // Those to be asked for first in front, wherever they are proved.
        all.sort_by_key(|factor| factor.method);
        Some(all)
    }

    /// The value of `Lb-Assertion` for a request that goes to `audience`, the pool. `approved`: its user approved exactly
    /// this request.
    pub fn assertion(
        &self,
        config: &Config,
        session: &Session,
        approved: Option<&ApprovedAction>,
        request: &Inbound,
        audience: &str,
    ) -> HeaderValue {
        let said = Said { session, levels: &config.step_up.levels, approved, request, audience };
        self.signer.sign(&said, self.clock.now())
    }

    /// Forgets what is over and rotates keys that are due. Call it every minute, off the worker threads: it writes to disk.
    pub fn tend(&self) {
        let now = self.clock.now();
        self.transactions.sweep(now);
        if let Err(error) = self.revocations.sweep(now) {
            tracing::warn!(%error, "ended sessions cannot be swept from the store");
        }
        if let Err(error) = self.sealer.rotate_if_due(now) {
            tracing::error!(error = format!("{error:#}"), "the sealing key is due for rotation but cannot be replaced");
        }
    }

    /// Sessions that ended at `since` or later.
    pub fn ended_since(&self, since: UnixSeconds) -> Vec<Revoked> {
        self.revocations.since(since)
    }

    /// Ends what ended in the process that took over from this one.
    pub fn end_as_successor_did(&self, ended: &[Revoked]) {
        self.revocations.take_in(ended);
    }

    /// Ends what ended in the process that this one took over from. Blocks on the disk.
    pub fn end_as_predecessor_did(&self, ended: &[Revoked]) {
        if let Err(error) = self.revocations.take_over(ended) {
            tracing::warn!(%error, "sessions that ended in the old process cannot be recorded; tried again shortly");
        }
    }

    /// Something could not be written, and it is time to see whether it can be now.
    pub fn needs_mending(&self) -> bool {
        !self.store.is_up() || self.revocations.has_unrecorded()
    }

    /// Tries the store again, and writes what it has not taken. Blocks on the disk.
    pub fn mend(&self) {
        if self.store.try_again().and_then(|()| self.revocations.make_up()).is_ok() {
            tracing::info!("the store takes writes again");
        }
    }

    /// Adds what this engine counts.
    pub fn register(&self, registry: &mut Registry) {
        self.counters.register(registry);
    }

    pub fn load(&self) -> StepUpLoad {
        let (parked_requests, parked_bytes) = self.parking.load();
        StepUpLoad { refused_cookies: self.refused_cookies.load(Ordering::Relaxed), parked_requests, parked_bytes }
    }
}
