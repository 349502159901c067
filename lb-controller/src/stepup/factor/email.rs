//! Codes by e-mail. Whoever reads the mailbox reads them, so they reach no level.

use lb_policy::{Method, Strength};

use super::{Factor, Input, Shape, Verify, sent_code};
use crate::texts::say;

pub(in crate::stepup) const FACTOR: Factor = Factor {
    method: Method::Email,
    input: Input {
        name: "email",
        label: say::email_label,
        hint: say::sent_code_hint,
        shape: Shape::Sent(sent_code::FIELD),
        refused: say::sent_code_refused,
    },
    provable: |owner| owner.config.mail.as_ref().and(owner.account.email()).map(|_| Strength::Ordinary),
    verify: Verify::Disk(|attempt| sent_code::verify(attempt, Method::Email, attempt.account.email())),
};
