//! Who is logged in, and how well that was proved.

use super::{Kind, Signal, Value};
use crate::decimal::Decimal;

pub(super) const SIGNALS: &[Signal] = &[
    Signal {
        name: "session.user",
        kind: Kind::Text,
        needs_session: true,
        read: |facts| Some(Value::Text(facts.session?.user)),
    },
    Signal {
        name: "session.issuer",
        kind: Kind::Text,
        needs_session: true,
        read: |facts| facts.session?.issuer.map(Value::Text),
    },
    Signal {
        name: "session.groups",
        kind: Kind::TextList,
        needs_session: true,
        read: |facts| Some(Value::TextList(facts.session?.groups)),
    },
    Signal {
        name: "session.level",
        kind: Kind::Number,
        needs_session: true,
        read: |facts| {
            let level = facts.levels.level_of(facts.session?.factors, facts.now);
            Some(Value::Number(Decimal::from(i64::from(level.0))))
        },
    },
];
