//! Checking one answer: throttled, off the worker threads, and in the same time whether or not the user exists.

use http::StatusCode;
use lb_common::Source;
use lb_policy::Method;
use zeroize::Zeroizing;

use super::StepUp;
use super::account::Account;
use super::device::Device;
use super::factor::{self, Aim, Attempt, FactorVerified, Failure, Verify, password};
use super::login::store_unavailable;
use super::pages::{Rejection, with_retry_after};
use super::throttle::Bucket;
use crate::config::{Config, User};
use crate::serve::request::Inbound;
use crate::serve::respond::OwnResponse;
use crate::signals::Who;
use crate::texts::say;

/// Why an answer was not accepted.
#[derive(Debug)]
pub(super) enum NotProved {
    /// Checked, and refused; why is for the audit trail only.
    Refused(Failure),
    /// Not checked: too many failures lately.
    Throttled { wait_seconds: u64 },
    /// Not checked: too many others are logging in.
    Busy,
}

/// One answer, and whose it claims to be.
pub(super) struct Answer<'a> {
    pub(super) method: Method,
    /// As the client named it; it need not exist.
    pub(super) user_name: &'a str,
    pub(super) account: Option<Account>,
    pub(super) text: &'a str,
    /// `None`: it opens a login.
    pub(super) aim: Option<Aim>,
    /// A known device that may use its own attempt counter.
    pub(super) device: Option<&'a Device>,
}

impl StepUp {
    pub(super) async fn check(
        &self,
        config: &Config,
        request: &Inbound,
        answer: Answer<'_>,
    ) -> Result<FactorVerified, NotProved> {
        let source = Source::of(request.client.address);
        let user_name = answer.user_name;
        let buckets = match answer.device {
            Some(device) => vec![Bucket::AccountFromDevice(user_name, device.id)],
            None => {
                vec![Bucket::AccountFromSource(user_name, source), Bucket::Source(source), Bucket::Account(user_name)]
            }
        };
        let purpose = answer.method.name();
        let account_key = answer.account.as_ref().map_or_else(|| user_name.to_owned(), |account| account.id.key());
        let device = answer.device.map(|device| *device.id.bytes());
        self.throttle.charge(purpose, &buckets, self.clock.now()).map_err(|wait| {
            self.counters.rate_limited(wait.bucket, "");
            NotProved::Throttled { wait_seconds: wait.seconds }
        })?;
        let method = answer.method;
        let outcome = self.verify(config, answer).await;
        let (result, reason) = outcome.as_ref().err().map_or(("ok", String::new()), NotProved::labels);
        self.counters.verified(method, result, reason);
        match &outcome {
            Ok(_) => self.throttle.succeeded(purpose, &buckets),
            Err(not_proved) if not_proved.is_unchecked() => {
                self.throttle.not_checked(purpose, &buckets);
            }
            Err(_) => {
                let who = Who { user: Some(&account_key), session: None, device, source };
                self.failed_proofs.add(&who, self.clock.now());
            }
        }
        outcome
    }

    async fn verify(&self, config: &Config, answer: Answer<'_>) -> Result<FactorVerified, NotProved> {
        let text = Zeroizing::new(answer.text.to_owned());
        let Some(account) = answer.account else {
            let somebody = somebody_like(config, answer.user_name).cloned();
            let job = move || somebody.map(|somebody| password::spend_the_same_time(&somebody, &text));
            self.hashing.run(job).await.map_err(|_| NotProved::Busy)?;
            return Err(NotProved::Refused(Failure::Wrong));
        };
        let Some(factor) = factor::of(answer.method) else { return Err(NotProved::Refused(Failure::NotEnrolled)) };
        let attempt = Attempt {
            account,
            answer: text,
            now: self.clock.now(),
            store: self.store.clone(),
            enrolments: self.enrolments.clone(),
            tools: self.tools.clone(),
            services: self.services.of(&config.factors),
            aim: answer.aim,
        };
        let outcome = match factor.verify {
            Verify::Hashing(verify) => self.hashing.run(move || verify(&attempt)).await,
            // One-time codes must not wait behind a flood of passwords.
            Verify::Disk(verify) => self.disk.run(move || verify(&attempt)).await,
            Verify::Service(ask) => Ok(ask(&attempt).await),
        };
        let outcome = outcome.map_err(|_| NotProved::Busy)?;
        match &outcome {
            Err(Failure::Store(error)) => tracing::error!(%error, "no proof can be recorded, so none is accepted"),
            Err(Failure::Unavailable(reason)) => {
                tracing::error!(reason, "an answer cannot be verified, so it is not accepted")
            }
            _ => {}
        }
        outcome.map_err(NotProved::Refused)
    }
}

/// A user whose hash stands in for that of a name that does not exist: always the same one for one name, as if it did
/// exist, so that hashes of unequal cost tell nothing either.
fn somebody_like<'a>(config: &'a Config, user_name: &str) -> Option<&'a User> {
    let spread = user_name.bytes().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    config.users.get(spread.checked_rem(config.users.len())?)
}

impl NotProved {
    fn is_unchecked(&self) -> bool {
        match self {
            NotProved::Busy => true,
            NotProved::Throttled { .. } => false,
            NotProved::Refused(failure) => failure.is_unchecked(),
        }
    }

    /// For metrics: whether it was checked, and why it proves nothing.
    fn labels(&self) -> (&'static str, String) {
        match self {
            NotProved::Refused(failure) => failure.labels(),
            NotProved::Throttled { .. } | NotProved::Busy => ("unchecked", self.result()),
        }
    }

    /// For the audit trail.
    pub(super) fn result(&self) -> String {
        match self {
            NotProved::Refused(failure) => failure.to_string(),
            NotProved::Throttled { .. } => "throttled".to_owned(),
            NotProved::Busy => "busy".to_owned(),
        }
    }

    /// The answer when nothing was checked; `None` when something was, and the form is shown again.
    pub(super) fn unchecked_answer(&self, request: &Inbound) -> Option<OwnResponse> {
        let (status, problem, title, detail, wait_seconds) = match self {
            NotProved::Throttled { wait_seconds } => (
                StatusCode::TOO_MANY_REQUESTS,
                "too-many-attempts",
                say::too_many_attempts(),
                say::too_many_attempts_about(wait_seconds),
                *wait_seconds,
            ),
            NotProved::Refused(Failure::Store(_)) => return Some(store_unavailable(request)),
            NotProved::Refused(failure) if !failure.is_unchecked() => return None,
            NotProved::Busy | NotProved::Refused(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "busy", say::busy(), say::busy_about(), 2)
            }
        };
        let rejection = Rejection { status, problem, title, detail };
        Some(with_retry_after(rejection.answer(request), wait_seconds))
    }
}
