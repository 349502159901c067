//! A factor that somebody else verifies: the answer is posted to a service of the operator's, which says yes or no.

use lb_policy::{Method, Strength, UnixSeconds};
use serde::Deserialize;
use serde_json::json;

use super::super::random_id::RandomId;
use super::{Attempt, Factor, FactorVerified, Failure, Field, Input, Shape, Verify};
use crate::texts::say;
use crate::webhook::{Endpoint, WebhookError};

pub(in crate::stepup) const FACTOR: Factor = Factor {
    method: Method::External,
    input: Input {
        name: "external",
        // What the configuration says is shown instead.
        label: say::external_label,
        hint: say::external_hint,
        shape: Shape::Typed(Field { kind: "text", autocomplete: "one-time-code", inputmode: "text", is_code: false }),
        refused: say::external_refused,
    },
    provable: |owner| owner.config.external.as_ref().map(|_| Strength::Ordinary),
    verify: Verify::Service(|attempt| Box::pin(verify_attempt(attempt))),
};

async fn verify_attempt(attempt: &Attempt) -> Result<FactorVerified, Failure> {
    let verifier = attempt.services.external.as_ref().ok_or(Failure::NotEnrolled)?;
    let question =
        Question { user: &attempt.account.id.name, answer: &attempt.answer, approval: &attempt.aim()?.approval.text };
    match verify(verifier, question, attempt.now).await {
        Ok(()) => Ok(FactorVerified::new(attempt, Method::External, Strength::Ordinary)),
        Err(Refusal::Wrong) => Err(Failure::Wrong),
        Err(Refusal::Unavailable(reason)) => Err(Failure::Unavailable(reason)),
    }
}

/// One answer to be verified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) user: &'a str,
    pub(crate) answer: &'a str,
    /// What is approved by it (see `approval`).
    pub(crate) approval: &'a str,
}

/// Why the answer proves nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("wrong")]
    Wrong,
    /// No answer is no yes.
    #[error("verifier-unavailable")]
    Unavailable(String),
}

impl From<WebhookError> for Refusal {
    fn from(error: WebhookError) -> Refusal {
        Refusal::Unavailable(error.to_string())
    }
}

/// Anything but these members is another protocol's, and no yes.
#[derive(Deserialize)]
struct Verdict {
    verified: bool,
    user: String,
}

/// Asks the verifier. It must repeat the user's name, so that no cached or misdirected answer passes for another's.
pub(crate) async fn verify(verifier: &Endpoint, question: Question<'_>, now: UnixSeconds) -> Result<(), Refusal> {
    let id = RandomId::new().to_string();
    let body = json!({
        "type": "lb.verify",
        "user": question.user,
        "answer": question.answer,
        "approval": question.approval,
    });
    let reply = verifier.post_json(&id, now, &body).await?;
    if reply.status.is_server_error() {
        return Err(Refusal::Unavailable(format!("it answered {}", reply.status)));
    }
    let verdict: Verdict = serde_json::from_slice(&reply.body).map_err(|_| Refusal::Wrong)?;
    let is_yes = reply.status == http::StatusCode::OK && verdict.verified && verdict.user == question.user;
    if is_yes { Ok(()) } else { Err(Refusal::Wrong) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::webhook::testing::Service;

    const QUESTION: Question<'_> = Question { user: "alice", answer: "blue", approval: "lb step-up 1\n" };

    #[tokio::test]
    async fn only_a_plain_yes_about_this_user_is_one() {
        let rows = [
            ("yes", 200, r#"{"verified": true, "user": "alice"}"#, "ok"),
            ("no", 200, r#"{"verified": false, "user": "alice"}"#, "wrong"),
            ("yes about another", 200, r#"{"verified": true, "user": "bob"}"#, "wrong"),
            ("yes about nobody", 200, r#"{"verified": true}"#, "wrong"),
            ("a number for yes", 200, r#"{"verified": 1, "user": "alice"}"#, "wrong"),
            ("yes twice", 200, r#"{"verified": false, "verified": true, "user": "alice"}"#, "wrong"),
            ("yes as an error", 403, r#"{"verified": true, "user": "alice"}"#, "wrong"),
            ("another success", 202, r#"{"verified": true, "user": "alice"}"#, "wrong"),
            ("a page", 200, "<html>", "wrong"),
            ("nothing", 200, "", "wrong"),
            ("a broken service", 503, r#"{"verified": true, "user": "alice"}"#, "verifier-unavailable"),
        ];
        for (name, status, body, outcome) in rows {
            let service = Service::answering(status, body, Duration::ZERO).await;
            let verified = verify(&service.endpoint, QUESTION, 7).await;
            assert_eq!(verified.map_or_else(|refusal| refusal.to_string(), |()| "ok".to_owned()), outcome, "{name}");
            let (headers, sent) = service.calls().remove(0);
            assert_eq!(headers["webhook-timestamp"], "7");
            let sent: serde_json::Value = serde_json::from_slice(&sent).unwrap();
            assert_eq!((&sent["user"], &sent["answer"]), (&json!("alice"), &json!("blue")));
        }
        let slow = Service::answering(200, r#"{"verified": true, "user": "alice"}"#, Duration::from_secs(5)).await;
        assert!(matches!(verify(&slow.endpoint, QUESTION, 7).await, Err(Refusal::Unavailable(_))));
    }
}
