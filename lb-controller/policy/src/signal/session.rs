//! Who is logged in, how well that was proved, and whether it is like them.

use super::{Kind, Read, Signal, Value, plain};

pub(super) const SIGNALS: &[Signal] = &[
    of_session("session.user", Kind::Text, |facts| Some(Value::Text(facts.session?.user))),
    of_session("session.issuer", Kind::Text, |facts| facts.session?.issuer.map(Value::Text)),
    of_session("session.groups", Kind::TextList, |facts| Some(Value::TextList(facts.session?.groups))),
    of_session("session.level", Kind::Number, |facts| {
        let level = facts.levels.level_of(facts.session?.factors, facts.now);
        Some(Value::count(level.0.into()))
    }),
    of_session("session.age", Kind::Duration, |facts| {
        Some(Value::seconds(facts.now.saturating_sub(facts.session?.begun_at)))
    }),
    of_session("session.usual_countries", Kind::TextList, |facts| facts.observed.usual_countries.map(Value::TextList)),
    plain("api_key.id", Kind::Text, |facts| Some(Value::Text(facts.api_key?.id))),
    plain("api_key.age", Kind::Duration, |facts| {
        Some(Value::seconds(facts.now.saturating_sub(facts.api_key?.made_at)))
    }),
    of_session("session.impossible_travel", Kind::Boolean, |facts| {
        facts.observed.impossible_travel.map(Value::Boolean)
    }),
];

const fn of_session(name: &'static str, kind: Kind, read: Read) -> Signal {
    Signal { name, kind, needs_session: true, read }
}
