//! Sending codes: only when the user asks, and not too often.

use http::StatusCode;
use lb_policy::Method;
use serde_json::json;

use super::StepUp;
use super::account::Account;
use super::ask::{Asked, masked};
use super::client_kind::ClientKind;
use super::factor::sent_code::{Bound, NotSent};
use super::factor::services::Services;
use super::factor::{self, Shape, recovery, sms};
use super::pages::{self, Rejection, see_other, with_retry_after};
use super::prove::refused_answer;
use super::shown;
use super::transaction::Refused;
use crate::audit::Event;
use crate::serve::respond::OwnResponse;
use crate::texts::{Texts, say};

/// A code as it is sent.
struct Message<'a> {
    method: Method,
    address: &'a str,
    host: &'a str,
    code: &'a str,
    /// In the language of the page that asked for it.
    texts: &'a Texts,
    /// What it approves; `None`: it is for more than one request.
    approves: Option<&'a str>,
}

impl StepUp {
    /// POST with `send=METHOD`: sends a code for this transaction.
    pub(super) async fn send_code(&self, asked: Asked<'_>, name: &str) -> OwnResponse {
        let Asked { visit, request, session, id, view } = asked;
        let config = visit.config;
        let wanted = Method::from_name(name).filter(|method| view.askable().any(|askable| askable == *method));
        let sendable =
            wanted.filter(|method| matches!(factor::of(*method).map(|f| f.input.shape), Some(Shape::Sent(_))));
        let account = Account::of(config, session.account());
        let address = |account: &Account, method| account.address(method).map(str::to_owned);
        let found =
            sendable.zip(account).and_then(|(method, account)| Some((method, address(&account, method)?, account)));
        let Some((method, address, account)) = found else { return refused_answer(request, Refused::Gone) };
        let aim = self.aim(visit, request, session, id, view);
        let bound = Bound::of(&aim, &account, method, &address);
        let code = match self.tools.codes.issue(bound, self.clock.now()) {
            Ok(code) => code,
            Err(not_sent) => {
                self.audit_sending(asked, method, "throttled");
                return too_many(request, not_sent);
            }
        };
        let (code, texts) = (recovery::grouped(&code), request.texts());
        let approves = shown::in_words(texts, &view.shown);
        let message = Message {
            method,
            address: &address,
            host: &request.host,
            code: &code,
            texts,
            approves: approves.as_deref(),
        };
        let sent = self.deliver(&self.services.of(&config.factors), message).await;
        self.audit_sending(asked, method, if sent.is_ok() { "sent" } else { "not-sent" });
        match (sent, ClientKind::of(request)) {
            (Err(error), _) => {
                tracing::error!(method = method.name(), "a code cannot be sent: {error:#}");
                not_delivered(request)
            }
            (Ok(()), ClientKind::Browser) => see_other(&format!("/.lb/challenge/{id}?method={}", method.name())),
            (Ok(()), _) => {
                pages::json(StatusCode::ACCEPTED, &json!({"sent_to": masked(&address), "method": method.name()}))
            }
        }
    }

    async fn deliver(&self, services: &Services, message: Message<'_>) -> anyhow::Result<()> {
        let Message { method, address, host, code, texts, approves } = message;
        match (method, &services.mailer, &services.sms) {
            (Method::Email, Some(mailer), _) => {
                let text = match approves {
                    Some(facts) => texts.mail_code_approving(host, code, facts),
                    None => texts.mail_code(host, code),
                };
                mailer.send(address, &texts.mail_code_subject(host).to_string(), text.to_string()).await
            }
            (Method::Sms, _, Some(service)) => {
                let text = match approves {
                    Some(facts) => texts.sms_code_approving(code, host, facts),
                    None => texts.sms_code(code, host),
                };
                let text = text.to_string();
                Ok(sms::send(service, address, &text, self.clock.now()).await?)
            }
            _ => anyhow::bail!("nobody is configured to carry it"),
        }
    }

    fn audit_sending(&self, asked: Asked<'_>, method: Method, result: &str) {
        let transaction = asked.id.to_string();
        Event {
            factor: Some(method.name()),
            transaction: Some(&transaction),
            ..self.event_of("send", result, asked.request, Some(asked.session))
        }
        .record();
    }
}

fn too_many(request: &crate::serve::request::Inbound, not_sent: NotSent) -> OwnResponse {
    let wait_seconds = match not_sent {
        NotSent::TooMany { wait_seconds } => wait_seconds,
        NotSent::Full => 60,
    };
    let rejection = Rejection {
        status: StatusCode::TOO_MANY_REQUESTS,
        problem: "too-many-codes",
        title: say::enough_codes(),
        detail: say::enough_codes_about(),
    };
    with_retry_after(rejection.answer(request), wait_seconds)
}

fn not_delivered(request: &crate::serve::request::Inbound) -> OwnResponse {
    let (title, detail) = (say::not_sent(), say::not_sent_about());
    let rejection = Rejection { status: StatusCode::SERVICE_UNAVAILABLE, problem: "not-sent", title, detail };
    with_retry_after(rejection.answer(request), 60)
}
