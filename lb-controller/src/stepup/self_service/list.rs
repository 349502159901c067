//! The list of somebody's factors: naming and removing them.

use http::StatusCode;
use lb_policy::Method;
use serde_json::{Value, json};

use super::super::StepUp;
use super::super::account::Account;
use super::super::client_kind::ClientKind;
use super::super::enrolments::{Enrolment, Wanted};
use super::super::factor::{self, recovery::RecoveryCodes};
use super::super::form::Form;
use super::super::login::store_unavailable;
use super::super::pages::{
    FactorsPage, Forms, Frame, ListedFactor, Rejection, html, json as json_answer, own, see_other,
};
use super::super::random_id::RandomId;
use super::super::session::Session;
use super::notice::{Change, called};
use super::{ADDABLE, LIST_PATH};
use crate::config::Config;
use crate::serve::request::Inbound;
use crate::serve::respond::OwnResponse;
use crate::store::StoreError;
use crate::texts::{Message, Texts, say};

const LONGEST_NAME: usize = 64;

/// What a form on the list asks for.
enum Order<'a> {
    Remove(RandomId),
    Rename(RandomId, &'a str),
}

impl Order<'_> {
    fn of(form: &Form) -> Option<Order<'_>> {
        match (form.get("remove"), form.get("rename"), form.get("name")) {
            (Some(id), None, _) => Some(Order::Remove(RandomId::parse(id)?)),
            (None, Some(id), Some(name)) => Some(Order::Rename(RandomId::parse(id)?, good_name(name)?)),
            _ => None,
        }
    }
}

/// A name that a page can show on one line.
pub(super) fn good_name(name: &str) -> Option<&str> {
    let name = name.trim();
    (!name.is_empty() && name.len() <= LONGEST_NAME && !name.chars().any(char::is_control)).then_some(name)
}

impl StepUp {
    pub(super) fn list_page(
        &self,
        config: &Config,
        request: &Inbound,
        session: &Session,
        error: Option<Message>,
    ) -> OwnResponse {
        let enrolled = match self.enrolments.of(session.account()) {
            Ok(enrolled) => enrolled,
            Err(error) => {
                tracing::error!(%error, "enrolled factors cannot be listed");
                return store_unavailable(request);
            }
        };
        let addable: Vec<Method> = ADDABLE.into_iter().filter(|method| can_add(config, *method)).collect();
        if ClientKind::of(request) != ClientKind::Browser {
            return json_answer(StatusCode::OK, &described(&enrolled, &addable));
        }
        let (frame, now) = (Frame::of(request), self.clock.now());
        let texts = frame.texts;
        let listed: Vec<_> = enrolled.iter().map(|enrolment| listed(texts, enrolment, now)).collect();
        let status = if error.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
        let called = |method: &Method| (method.name(), texts.put(&factor::label(*method)));
        let page = FactorsPage {
            frame: &frame,
            user: session.user(),
            action: LIST_PATH,
            factors: &listed,
            addable: &addable.iter().map(called).collect::<Vec<_>>(),
            must_add: enrolled.iter().any(|one| RecoveryCodes::record_after_enrolment(&one.record).is_some()),
            error: error.map(|error| texts.put(&error)),
        };
        html(status, &frame, Forms::Own, &page)
    }

    pub(super) async fn change_factor(
        &self,
        config: &Config,
        request: &Inbound,
        form: &Form,
        session: &Session,
    ) -> OwnResponse {
        let changed = match Order::of(form) {
            None => return self.list_page(config, request, session, Some(say::bad_name())),
            Some(Order::Remove(id)) => self.change_enrolment(session, id, None).await,
            Some(Order::Rename(id, name)) => self.change_enrolment(session, id, Some(name.to_owned())).await,
        };
        let (was, is_removed) = match changed {
            Ok(Some(changed)) => changed,
            Ok(None) => return gone(request),
            Err(unavailable) => return unavailable(request),
        };
        let method = was.method();
        self.audit_factor(request, session, "factor", if is_removed { "removed" } else { "renamed" }, method);
        if let (true, Some(account)) = (is_removed, Account::of(config, session.account())) {
            let texts = request.texts();
            self.notify(config, &account, Change::Removed, &called(texts, &was.name, method), (&request.host, texts));
        }
        match ClientKind::of(request) {
            ClientKind::Browser => see_other(LIST_PATH),
            _ => own(StatusCode::NO_CONTENT, "text/plain", String::new()),
        }
    }

    /// Removes an enrolment, or gives it a name. What it was, and whether it is gone.
    async fn change_enrolment(
        &self,
        session: &Session,
        id: RandomId,
        name: Option<String>,
    ) -> Result<Option<(Enrolment, bool)>, fn(&Inbound) -> OwnResponse> {
        let (enrolments, account) = (self.enrolments.clone(), session.account().clone());
        let job = move || -> Result<_, StoreError> {
            enrolments.change(&account, &id, |enrolment| {
                let was = enrolment.clone();
                match name {
                    None => (Wanted::Removal, (was, true)),
                    Some(name) => {
                        enrolment.name = name;
                        (Wanted::Save, (was, false))
                    }
                }
            })
        };
        match self.disk.run(job).await {
            Ok(Ok(changed)) => Ok(changed),
            Ok(Err(error)) => {
                tracing::error!(%error, "a factor cannot be changed");
                Err(store_unavailable)
            }
            Err(_) => Err(store_unavailable),
        }
    }
}

/// Whether this host is configured for it.
pub(super) fn can_add(config: &Config, method: Method) -> bool {
    method != Method::Webauthn || config.factors.passkey.is_some()
}

fn listed(texts: &Texts, enrolment: &Enrolment, now: u64) -> ListedFactor {
    let ago = |at: u64| texts.ago(texts.span(now.saturating_sub(at))).to_string();
    ListedFactor {
        id: enrolment.id.to_string(),
        kind: called(texts, "", enrolment.method()),
        name: enrolment.name.clone(),
        added: ago(enrolment.created_at),
        used: enrolment.last_used_at.map_or_else(|| texts.never().to_string(), ago),
    }
}

fn described(enrolled: &[Enrolment], addable: &[Method]) -> Value {
    let describe = |enrolment: &Enrolment| {
        json!({
            "id": enrolment.id.to_string(),
            "method": enrolment.method().map_or("unknown", Method::name),
            "name": enrolment.name,
            "created_at": enrolment.created_at,
            "last_used_at": enrolment.last_used_at,
        })
    };
    let add = |method: &Method| json!({"method": method.name(), "url": format!("{LIST_PATH}/add/{}", method.name())});
    json!({
        "factors": enrolled.iter().map(describe).collect::<Vec<_>>(),
        "addable": addable.iter().map(add).collect::<Vec<_>>(),
    })
}

fn gone(request: &Inbound) -> OwnResponse {
    let (title, detail) = (say::no_such_factor(), say::no_such_factor_about());
    Rejection { status: StatusCode::NOT_FOUND, problem: "no-such-factor", title, detail }.answer(request)
}
