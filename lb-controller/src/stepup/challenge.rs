//! Asking for more proof: what each kind of client is told, and what becomes of its request meanwhile.

use http::{StatusCode, header};
use lb_policy::{Challenge, ShownFact};
use serde_json::json;

use super::account::Account;
use super::body::{self, BodyError};
use super::client_kind::ClientKind;
use super::counters::TOKEN;
use super::device::Device;
use super::grpc;
use super::login::store_unavailable;
use super::pages::{self, Rejection, see_other, with_cookie};
use super::parking::{NoRoom, Parked, Room};
use super::random_id::{RandomId, hex, random_bytes};
use super::session::Session;
use super::shown;
use super::terms::{Terms, had, is_per_action, required, with_terms};
use super::transaction::{BoundRequest, Onward, TRIES, TRIPS, Transaction, hash_secret, sha256};
use super::{StepUp, Visit, cookies, csrf};
use crate::audit::Event;
use crate::serve::request::{Inbound, InboundBody};
use crate::serve::respond::OwnResponse;
use crate::texts::{english, say};

impl StepUp {
    /// The session is not strong or fresh enough: opens a transaction for this request and tells the client where to
    /// prove more. A browser's unsafe request is parked meanwhile.
    pub async fn challenge(
        &self,
        visit: &Visit<'_>,
        request: Inbound,
        session: &Session,
        challenge: Challenge,
    ) -> OwnResponse {
        let kind = ClientKind::of(&request);
        // Only what may go on by itself later is worth a challenge: a parked forgery would be sent with fresh proof.
        if let Err(refused) = self.csrf_check(visit.config, &request, Some(session)) {
            return refused;
        }
        if session.is_by_token() {
            // Whoever holds a token or a key can do what is asked of strangers. To let it off would let a stolen one
            // through where a flood is to be slowed.
            if challenge.unmet.iter().all(|(_, requirement)| requirement.is_for_anybody()) {
                return self.ask_for_work(&request, &challenge);
            }
            return self.challenge_token(visit, &request, session, &challenge);
        }
        if challenge.ways.is_empty() {
            return self.impossible(visit, &request, session, &challenge);
        }
        if let Some(fact) = shown::too_long(&challenge.shown) {
            return cannot_be_shown(&request, fact);
        }
        let (id, now) = (RandomId::new(), self.clock.now());
        let secret = cookies::new_transaction_secret(&id);
        let (request, bound, onward) = match self.set_aside(visit, request, session, &challenge, &secret).await {
            Ok(set_aside) => set_aside,
            Err(refused) => return refused,
        };
        let lifetime_seconds = visit.config.step_up.transaction_lifetime.as_secs();
        let terms = Terms::new(&challenge.unmet, challenge.methods(), session, (&visit.config.step_up.levels, now));
        let answer = match kind {
            ClientKind::Browser => see_other(&format!("/.lb/challenge/{id}")),
            ClientKind::Grpc => with_terms(grpc::step_up(&terms, Some(&format!("/.lb/challenge/{id}"))), &terms),
            ClientKind::Api | ClientKind::Preflight => api_challenge(&id, &challenge, &terms, lifetime_seconds),
        };
        let body_sha256 = bound.body_sha256;
        let transaction = Transaction {
            login: session.login,
            user: session.user().to_owned(),
            device_known: self.knows_device(&request, session),
            secret_hash: hash_secret(&secret),
            opened_at: now,
            expires_at: now + lifetime_seconds,
            request: bound,
            shown: challenge.shown.clone(),
            unmet: challenge.unmet.clone(),
            terms,
            ways: challenge.ways.clone(),
            proved: Vec::new(),
            tries_left: TRIES,
            trips_left: TRIPS,
            nonce: random_bytes(),
            onward,
        };
        let Some(evicted) = self.transactions.open(id, transaction, now) else {
            return too_many_transactions(&request);
        };
        self.counters.prompted(session.user_key());
        self.audit_asked(visit, &request, (session, &challenge), ("issued", Some(&id), body_sha256));
        let answer = with_cookie(answer, cookies::set_transaction(&id, &secret, lifetime_seconds));
        clear_stale_cookies(answer, &request.headers, &evicted)
    }

    /// A challenge that a backend asked for. `None`: it asks for what is there already, and asking the user again would go
    /// round in circles.
    pub async fn challenge_for_backend(
        &self,
        visit: &Visit<'_>,
        request: Inbound,
        session: &Session,
        challenge: Option<Challenge>,
    ) -> OwnResponse {
        if let Some(challenge) = challenge {
            return self.challenge(visit, request, session, challenge).await;
        }
        self.event_of("challenge", "unmet", &request, Some(session)).record();
        let (title, detail) = (say::step_up_unmet(), say::step_up_unmet_about());
        Rejection { status: StatusCode::FORBIDDEN, problem: "step-up-unmet", title, detail }.answer(&request)
    }

    /// Terminal: asking again would loop. A factor is never enrolled on the strength of a password alone.
    fn impossible(
        &self,
        visit: &Visit<'_>,
        request: &Inbound,
        session: &Session,
        challenge: &Challenge,
    ) -> OwnResponse {
        // Nobody has factors while they cannot be read, but to say so would send their owner away for good.
        if Account::of(visit.config, session.account()).is_some_and(|account| self.enrolments.of(&account.id).is_err())
        {
            self.audit_asked(visit, request, (session, challenge), ("unavailable", None, None));
            return store_unavailable(request);
        }
        self.audit_asked(visit, request, (session, challenge), ("impossible", None, None));
        let (title, detail) = (say::step_up_impossible(), say::step_up_impossible_about());
        Rejection { status: StatusCode::FORBIDDEN, problem: "step-up-impossible", title, detail }.answer(request)
    }

    /// Decides how the request goes on after the proof, reading its body where that needs it. The request comes back
    /// without the body.
    async fn set_aside(
        &self,
        visit: &Visit<'_>,
        mut request: Inbound,
        session: &Session,
        challenge: &Challenge,
        secret: &str,
    ) -> Result<(Inbound, BoundRequest, Onward), OwnResponse> {
        let bound = BoundRequest::of(&request);
        let from_browser = ClientKind::of(&request) == ClientKind::Browser;
        if from_browser && !csrf::is_unsafe(&request.method) {
            let no_body = Some(sha256(b""));
            return Ok((request, BoundRequest { body_sha256: no_body, ..bound }, Onward::Redirect));
        }
        // Without its body, a proof for this one action could not be told from a proof for another.
        let binds_body = challenge.unmet.iter().any(|(_, requirement)| is_per_action(requirement));
        if !from_browser && !binds_body {
            return Ok((request, bound, Onward::Elsewhere));
        }
        let unread = |request: Inbound, bound| match binds_body {
            true => Err(cannot_be_bound(&request)),
            false => Ok((request, bound, Onward::Retry)),
        };
        let room = match self.room_for(visit, &request, session) {
            Ok(room) => room,
            Err(NoRoom::Full) if binds_body => return Err(too_many_wait(&request)),
            Err(NoRoom::Full | NoRoom::TooLarge) => return unread(request, bound),
        };
        let whole = request.take_body();
        let body = match body::read(whole, room.bytes()).await {
            Ok(body) => body,
            Err(BodyError::TooLarge) => return unread(request, bound),
            Err(BodyError::TooSlow | BodyError::BrokenOff) => return Err(body_cut_short(&request)),
        };
        let bound = BoundRequest { body_sha256: Some(sha256(&body)), ..bound };
        let parks = || Onward::Parked(Box::new(Parked::new(room, &request, &body, secret)));
        let onward = if from_browser { parks() } else { Onward::Elsewhere };
        Ok((request, bound, onward))
    }

    /// The browser has proved more than this user's password before.
    fn knows_device(&self, request: &Inbound, session: &Session) -> bool {
        let device = Device::of_user(&self.sealer, &request.headers, &request.host, session.user());
        device.is_some_and(|device| device.stepped_up)
    }

    /// Room for the body, before any of it is read.
    pub(super) fn room_for(&self, visit: &Visit<'_>, request: &Inbound, session: &Session) -> Result<Room, NoRoom> {
        let limit_bytes = visit.config.step_up.park_limit_bytes;
        // A body of unknown length may turn out to be as large as is allowed.
        let bytes = announced_length(request).unwrap_or(limit_bytes);
        if bytes > limit_bytes {
            return Err(NoRoom::TooLarge);
        }
        self.parking.reserve(session.login, (session.user(), self.knows_device(request, session)), bytes)
    }

    /// `outcome`: `issued` or `impossible`, the transaction, and the hash of the body that a proof will be for.
    pub(super) fn audit_asked(
        &self,
        visit: &Visit<'_>,
        request: &Inbound,
        (session, challenge): (&Session, &Challenge),
        (result, transaction, body_sha256): (&str, Option<&RandomId>, Option<[u8; 32]>),
    ) {
        if result == "issued" {
            let asked_first = challenge.methods().first().filter(|_| transaction.is_some());
            self.counters.issued(asked_first.map_or(TOKEN, |method| method.name()), ClientKind::of(request).name());
        }
        let rules: Vec<&str> = challenge.unmet.iter().map(|(rule, _)| &**rule).collect();
        let transaction = transaction.map(RandomId::to_string);
        Event {
            rule: Some(&rules.join(",")),
            required: required(challenge),
            had: Some(had(session, &visit.config.step_up.levels, self.clock.now())),
            shown: shown::in_words(english(), &challenge.shown).as_deref(),
            transaction: transaction.as_deref(),
            body_sha256: body_sha256.map(|hash| hex(&hash)),
            ..self.event_of("challenge", result, request, Some(session))
        }
        .record();
    }
}

fn api_challenge(id: &RandomId, challenge: &Challenge, terms: &Terms, lifetime_seconds: u64) -> OwnResponse {
    let methods: Vec<_> = challenge.methods().iter().map(|method| method.name()).collect();
    let mut body = json!({
        "type": "urn:lb:problem:step-up",
        "title": "Step-up required",
        "status": 401,
        "detail": "Prove more at challenge_url, then send the request again.",
        "challenge_url": format!("/.lb/challenge/{id}"),
        "status_url": format!("/.lb/challenge/{id}/status"),
        "acr_values": [terms.acr],
        "methods": methods,
        "expires_in": lifetime_seconds,
        "resume": "retry",
    });
    if let Some(seconds) = terms.max_age_seconds {
        body["max_age"] = json!(seconds);
    }
    if !challenge.shown.is_empty() {
        body["facts"] = shown::as_json(&challenge.shown);
    }
    with_terms(pages::own(StatusCode::UNAUTHORIZED, "application/problem+json", body.to_string()), terms)
}

/// The length the client gave; the guard lets only well-formed ones through.
fn announced_length(request: &Inbound) -> Option<usize> {
    match &request.body {
        InboundBody::Whole(bytes) => Some(bytes.len()),
        InboundBody::Streaming(_) => request.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok(),
    }
}

/// Transactions that made room, and cookies of ones long finished, would fill the browser's request headers.
fn clear_stale_cookies(mut answer: OwnResponse, headers: &http::HeaderMap, evicted: &[RandomId]) -> OwnResponse {
    let surplus = (cookies::transactions(headers).count() + 1).saturating_sub(cookies::MOST_TRANSACTIONS);
    let is_evicted = |value: &str| cookies::transaction_of(value).is_some_and(|id| evicted.contains(&id));
    let stale = cookies::transactions(headers)
        .enumerate()
        // Browsers send cookies of one path oldest first (RFC 6265bis §5.8.3).
        .filter(|(at, (_, value))| *at < surplus || is_evicted(value))
        .filter_map(|(_, (digits, _))| cookies::clear_transaction(digits));
    for cookie in stale {
        answer = with_cookie(answer, cookie);
    }
    answer
}

/// A challenge would be in vain: no proof could be told to be for this body, so each retry would be challenged again.
fn cannot_be_bound(request: &Inbound) -> OwnResponse {
    let (title, detail) = (say::too_large_to_confirm(), say::too_large_to_confirm_about());
    Rejection { status: StatusCode::PAYLOAD_TOO_LARGE, problem: "too-large", title, detail }.answer(request)
}

/// As many of this user's requests wait as may, and they go when they are confirmed or given up.
pub(super) fn too_many_wait(request: &Inbound) -> OwnResponse {
    let (title, detail) = (say::too_many_wait(), say::too_many_wait_about());
    let rejection = Rejection { status: StatusCode::SERVICE_UNAVAILABLE, problem: "too-many-waiting", title, detail };
    pages::with_retry_after(rejection.answer(request), 60)
}

/// What is cut off nobody has seen, and a page of it nobody reads.
fn cannot_be_shown(request: &Inbound, fact: &ShownFact) -> OwnResponse {
    let (title, detail) = (say::fact_too_long(), say::fact_too_long_about(&fact.name, shown::LONGEST_CHARS));
    Rejection { status: StatusCode::UNPROCESSABLE_ENTITY, problem: "fact-too-long", title, detail }.answer(request)
}

fn too_many_transactions(request: &Inbound) -> OwnResponse {
    let rejection = Rejection {
        status: StatusCode::SERVICE_UNAVAILABLE,
        problem: "busy",
        title: say::too_many_challenges(),
        detail: say::try_in_a_minute(),
    };
    pages::with_retry_after(rejection.answer(request), 60)
}

pub(super) fn body_cut_short(request: &Inbound) -> OwnResponse {
    let (title, detail) = (say::body_cut_short(), say::body_cut_short_about());
    Rejection { status: StatusCode::REQUEST_TIMEOUT, problem: "request-timeout", title, detail }.answer(request)
}
