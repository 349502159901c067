//! Who may change factors now.

use std::collections::HashMap;
use std::sync::Mutex;

use http::{Method as HttpMethod, StatusCode, header};
use lb_policy::{Level, Requirement, UnixSeconds, challenge_unless_met};

use super::super::client_kind::ClientKind;
use super::super::pages::{Rejection, see_other};
use super::super::random_id::RandomId;
use super::super::session::Session;
use super::super::{StepUp, Visit};
use super::{LIST_PATH, TOKEN_PATH};
use crate::serve::request::Inbound;
use crate::serve::respond::OwnResponse;
use crate::texts::say;

/// How fresh a proof of level 2 must be.
const MAX_AGE_SECONDS: u64 = 300;
/// How long a token lets its login change factors: long enough to add two, and to write recovery codes down.
const TOKEN_OPENS_FOR_SECONDS: u64 = 600;
/// Each took a token of the operator's.
const MOST: usize = 16 * 1024;

/// Logins that gave an enrolment token, and until when that lets them change factors.
#[derive(Default)]
pub(in crate::stepup) struct Permissions(Mutex<HashMap<RandomId, UnixSeconds>>);

impl Permissions {
    pub(super) fn give(&self, login: RandomId, now: UnixSeconds) {
        let mut open = self.0.lock().expect("no holder of this lock panics");
        open.retain(|_, until| *until > now);
        if open.len() < MOST {
            open.insert(login, now + TOKEN_OPENS_FOR_SECONDS);
        }
    }

    fn has(&self, login: &RandomId, now: UnixSeconds) -> bool {
        self.0.lock().expect("no holder of this lock panics").get(login).is_some_and(|until| *until > now)
    }
}

impl StepUp {
    /// Lets a fresh proof of level 2 pass, or a token; else answers with the way to one of them.
    pub(super) async fn permit(
        &self,
        visit: &Visit<'_>,
        request: &Inbound,
        session: &Session,
    ) -> Result<(), OwnResponse> {
        let now = self.clock.now();
        if self.permissions.has(&session.login, now) {
            return Ok(());
        }
        let requirement =
            Requirement { level: Some(Level(2)), max_age_seconds: Some(MAX_AGE_SECONDS), ..Requirement::default() };
        let provable = self.provable_by(visit.config, session).unwrap_or_default();
        let levels = &visit.config.step_up.levels;
        match challenge_unless_met("own-factors", requirement, levels, now, session.factors(), &provable) {
            None => Ok(()),
            Some(challenge) if challenge.ways.is_empty() => Err(token_needed(request)),
            // What was posted is not kept: after the proof the list is shown, and the user begins again there.
            Some(challenge) => Err(self.challenge(visit, list_request(request), session, challenge).await),
        }
    }
}

fn token_needed(request: &Inbound) -> OwnResponse {
    if ClientKind::of(request) == ClientKind::Browser {
        return see_other(TOKEN_PATH);
    }
    let rejection = Rejection {
        status: StatusCode::FORBIDDEN,
        problem: "enrolment-token-needed",
        title: say::token_needed(),
        detail: say::token_needed_about(),
    };
    rejection.answer(request)
}

/// The same client asking for the list.
fn list_request(request: &Inbound) -> Inbound {
    let mut headers = request.headers.clone();
    for name in [header::CONTENT_LENGTH, header::CONTENT_TYPE, header::CONTENT_ENCODING, header::TRANSFER_ENCODING] {
        headers.remove(name);
    }
    let (path, target) = (LIST_PATH.to_owned(), LIST_PATH.to_owned());
    Inbound { method: HttpMethod::GET, path, target, headers, ..request.head() }
}
