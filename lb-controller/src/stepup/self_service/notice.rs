//! News of changes to factors, to the address on record: who did not make the change hears of it.

use lb_policy::Method;

use super::super::StepUp;
use super::super::account::Account;
use super::super::factor;
use super::super::session::Session;
use crate::audit::Event;
use crate::config::Config;
use crate::serve::request::Inbound;

/// What happened to a factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::stepup) enum Change {
    Added,
    Removed,
    RecoveryCodeUsed,
}

impl StepUp {
    /// Mails the news without waiting for it: the change is made, whether or not the mail server answers.
    pub(in crate::stepup) fn notify(&self, config: &Config, account: &Account, change: Change, what: &str, host: &str) {
        let services = self.services.of(&config.factors);
        let Some(address) = account.email().map(str::to_owned) else { return };
        if services.mailer.is_none() {
            return;
        }
        let (subject, sentence) = match change {
            Change::Added => {
                ("A factor was added", format!("\"{what}\" can be used to log in or to confirm from now on."))
            }
            Change::Removed => ("A factor was removed", format!("\"{what}\" can no longer be used.")),
            Change::RecoveryCodeUsed => {
                ("A recovery code was used", "It works once. Add a new factor, and make new recovery codes.".to_owned())
            }
        };
        let text = format!(
            "{subject}: account {} at {host}.\n\n{sentence}\n\n\
             If it was not you, somebody else can use your account: tell whoever runs {host} at once.\n",
            account.id.name
        );
        let subject = format!("{subject} at {host}");
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
pub(super) fn called(name: &str, method: Option<Method>) -> String {
    match (name, method) {
        ("", Some(method)) => factor::label(method).to_owned(),
        ("", None) => "unknown".to_owned(),
        (name, _) => name.to_owned(),
    }
}
