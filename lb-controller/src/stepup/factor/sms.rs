//! Text messages, handed to a service of the operator's. Whoever takes over the number reads them, so they reach no level.

use lb_policy::{Method, Strength, UnixSeconds};
use serde_json::json;

use super::super::random_id::RandomId;
use super::{Factor, Input, Shape, Verify, sent_code};
use crate::texts::say;
use crate::webhook::{Endpoint, WebhookError};

pub(in crate::stepup) const FACTOR: Factor = Factor {
    method: Method::Sms,
    input: Input {
        name: "sms",
        label: say::sms_label,
        hint: say::sent_code_hint,
        shape: Shape::Sent(sent_code::FIELD),
        refused: say::sent_code_refused,
    },
    provable: |owner| owner.config.sms.as_ref().and(owner.account.phone()).map(|_| Strength::Ordinary),
    verify: Verify::Disk(|attempt| sent_code::verify(attempt, Method::Sms, attempt.account.phone())),
};

/// Why the message is not on its way.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotSent {
    #[error(transparent)]
    Unavailable(#[from] WebhookError),
    #[error("the service answered {0}")]
    Refused(http::StatusCode),
}

/// Hands over one message. Any success (2xx) means that the service has taken it.
pub(crate) async fn send(service: &Endpoint, to: &str, text: &str, now: UnixSeconds) -> Result<(), NotSent> {
    let id = RandomId::new().to_string();
    let body = json!({"type": "lb.sms", "to": to, "text": text});
    let reply = service.post_json(&id, now, &body).await?;
    if reply.status.is_success() { Ok(()) } else { Err(NotSent::Refused(reply.status)) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::webhook::testing::Service;

    #[tokio::test]
    async fn a_message_is_on_its_way_once_the_service_says_so() {
        for (status, sent) in [(200, true), (202, true), (204, true), (302, false), (400, false), (500, false)] {
            let service = Service::answering(status, "", Duration::ZERO).await;
            let outcome = send(&service.endpoint, "+4915112345678", "Your code: ABCD-EFGH", 7).await;
            assert_eq!(outcome.is_ok(), sent, "{status}");
            let body: serde_json::Value = serde_json::from_slice(&service.calls()[0].1).unwrap();
            assert_eq!((&body["to"], &body["text"]), (&json!("+4915112345678"), &json!("Your code: ABCD-EFGH")));
        }
    }
}
