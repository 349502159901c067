//! Enrolment tokens: how the first factor comes to an account, and the first one again when all were lost.

use http::StatusCode;
use lb_common::Source;
use lb_policy::UnixSeconds;
use zeroize::Zeroizing;

use super::super::account::AccountId;
use super::super::client_kind::ClientKind;
use super::super::factor::base32;
use super::super::form::Form;
use super::super::login::store_unavailable;
use super::super::pages::{EnrolPage, Forms, Frame, Rejection, html, own, see_other, with_retry_after};
use super::super::random_id::random_bytes;
use super::super::session::Session;
use super::super::throttle::Bucket;
use super::super::{StepUp, Visit};
use super::{LIST_PATH, TOKEN_PATH};
use crate::serve::request::Inbound;
use crate::serve::respond::OwnResponse;
use crate::store::StoreError;
use crate::texts::{Message, say};

/// 80 bits.
const TOKEN_BYTES: usize = 10;
const PURPOSE: &str = "enrolment-token";

impl StepUp {
    /// A new token for `account`; the one before is void. Blocks on the disk.
    pub(super) fn new_token(
        &self,
        account: &AccountId,
        expires_at: UnixSeconds,
    ) -> Result<Zeroizing<String>, StoreError> {
        let token = Zeroizing::new(base32::encode(&random_bytes::<TOKEN_BYTES>()));
        self.store.add_enrolment_token(self.token_hash(account, &token), &account.key(), expires_at)?;
        Ok(token)
    }

    fn token_hash(&self, account: &AccountId, token: &str) -> [u8; 32] {
        self.tools.keyed.of(PURPOSE, &account.key(), token)
    }

    pub(super) fn token_page(&self, request: &Inbound, session: &Session, error: Option<Message>) -> OwnResponse {
        let frame = Frame::of(request);
        let status = if error.is_some() { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
        let error = error.map(|error| frame.texts.put(&error));
        let page = EnrolPage { frame: &frame, user: session.user(), action: TOKEN_PATH, error };
        html(status, &frame, Forms::Own, &page)
    }

    pub(super) async fn submit_token(
        &self,
        visit: &Visit<'_>,
        request: &Inbound,
        form: &Form,
        session: &Session,
    ) -> OwnResponse {
        let source = Source::of(request.client.address);
        let buckets = [Bucket::AccountFromSource(session.user(), source), Bucket::Source(source)];
        if let Err(wait) = self.throttle.charge(PURPOSE, &buckets, self.clock.now()) {
            return throttled(request, wait.seconds);
        }
        let token = base32::normalized(form.get("token").unwrap_or_default(), TOKEN_BYTES).map(Zeroizing::new);
        let taken = match token {
            None => Ok(Ok(false)),
            Some(token) => {
                let (store, account, now) = (self.store.clone(), session.account().clone(), self.clock.now());
                let hash = self.token_hash(&account, &token);
                self.disk.run(move || store.take_enrolment_token(hash, &account.key(), now)).await
            }
        };
        let Ok(Ok(taken)) = taken else {
            self.throttle.not_checked(PURPOSE, &buckets);
            return store_unavailable(request);
        };
        self.audit_factor(request, session, "enrolment-token", if taken { "ok" } else { "wrong" }, None);
        if !taken {
            visit.joint.failed(visit.config, &request.client);
            return refused(self, request, session);
        }
        self.throttle.succeeded(PURPOSE, &buckets);
        self.permissions.give(session.login, self.clock.now());
        match ClientKind::of(request) {
            ClientKind::Browser => see_other(LIST_PATH),
            _ => own(StatusCode::NO_CONTENT, "text/plain", String::new()),
        }
    }
}

fn refused(step_up: &StepUp, request: &Inbound, session: &Session) -> OwnResponse {
    match ClientKind::of(request) {
        ClientKind::Browser => step_up.token_page(request, session, Some(say::enrolment_token_wrong())),
        _ => Rejection {
            status: StatusCode::FORBIDDEN,
            problem: "enrolment-token-refused",
            title: say::token_not_accepted(),
            detail: say::enrolment_token_wrong(),
        }
        .answer(request),
    }
}

fn throttled(request: &Inbound, seconds: u64) -> OwnResponse {
    let rejection = Rejection {
        status: StatusCode::TOO_MANY_REQUESTS,
        problem: "too-many-attempts",
        title: say::too_many_attempts(),
        detail: say::too_many_attempts_about(seconds),
    };
    with_retry_after(rejection.answer(request), seconds)
}
