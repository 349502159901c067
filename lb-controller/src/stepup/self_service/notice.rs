//! News of changes to factors, to the address on record: who did not make the change hears of it.

use lb_policy::Method;

use super::super::StepUp;
use super::super::account::Account;
use super::super::factor;
use super::super::session::Session;
use crate::audit::Event;
use crate::config::Config;
use crate::serve::request::Inbound;
use crate::texts::Texts;

/// What happened to a factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::stepup) enum Change {
    Added,
    Removed,
    RecoveryCodeUsed,
}

impl StepUp {
    /// Mails the news without waiting for it: the change is made, whether or not the mail server answers. `what` is what
    /// the factor is called.
    pub(in crate::stepup) fn notify(
        &self,
        config: &Config,
        account: &Account,
        change: Change,
        what: &str,
        (host, texts): (&str, &Texts),
    ) {
        let services = self.services.of(&config.factors);
        let Some(address) = account.email().map(str::to_owned) else { return };
        if services.mailer.is_none() {
            return;
        }
        let user = &account.id.name;
        let (subject, news) = match change {
            Change::Added => (texts.mail_added_subject(host), texts.mail_added(user, host, what)),
            Change::Removed => (texts.mail_removed_subject(host), texts.mail_removed(user, host, what)),
            Change::RecoveryCodeUsed => (texts.mail_recovery_subject(host), texts.mail_recovery(user, host)),
        };
        let (subject, text) = (subject.to_string(), format!("{news}\n{}\n", texts.mail_not_you(host)));
        tokio::spawn(async move {
            let Some(mailer) = &services.mailer else { return };
            if let Err(error) = mailer.send(&address, &subject, text).await {
                tracing::error!("nobody could be told of a change to factors: {error:#}");
            }
        });
    }

    pub(in crate::stepup) fn audit_factor(
        &self,
        request: &Inbound,
        session: &Session,
        event: &'static str,
        result: &str,
        method: Option<Method>,
    ) {
        Event { factor: method.map(Method::name), ..self.event_of(event, result, request, Some(session)) }.record();
    }
}

/// What people call an enrolment: its name, or what kind it is.
pub(super) fn called(texts: &Texts, name: &str, method: Option<Method>) -> String {
    match (name, method) {
        ("", Some(method)) => texts.put(&factor::label(method)),
        ("", None) => texts.unknown_label().to_string(),
        (name, _) => name.to_owned(),
    }
}
