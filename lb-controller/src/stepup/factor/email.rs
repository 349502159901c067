//! Codes by e-mail. Whoever reads the mailbox reads them, so they reach no level.

use lb_policy::{Method, Strength};

use super::{Factor, Input, Shape, Verify, sent_code};

pub(in crate::stepup) const FACTOR: Factor = Factor {
    method: Method::Email,
    input: Input {
        name: "email",
        label: "Code from the e-mail",
        hint: "Eight letters and digits. It works once, for ten minutes, in this browser.",
        shape: Shape::Sent(sent_code::FIELD),
        refused: sent_code::REFUSED,
    },
    provable: |owner| owner.config.mail.as_ref().and(owner.account.email()).map(|_| Strength::Ordinary),
    verify: Verify::Disk(|attempt| sent_code::verify(attempt, Method::Email, attempt.account.email())),
};
