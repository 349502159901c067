//! Who is logged in, how well that was proved, and whether it is like them.

use super::read::Read;
use super::{Signal, plain};

pub(super) const SIGNALS: &[Signal] = &[
    of_session("session.user", Read::Text(|facts| Some(facts.session?.user))),
    of_session("session.issuer", Read::Text(|facts| facts.session?.issuer)),
    of_session("session.groups", Read::TextList(|facts| Some(facts.session?.groups))),
    of_session(
        "session.level",
        Read::Count(|facts| Some(facts.levels.level_of(facts.session?.factors, facts.now).0.into())),
    ),
    of_session("session.age", Read::Seconds(|facts| Some(facts.now.saturating_sub(facts.session?.begun_at)))),
    of_session("session.usual_countries", Read::TextList(|facts| facts.observed.usual_countries)),
    plain("api_key.id", Read::Text(|facts| Some(facts.api_key?.id))),
    plain("api_key.age", Read::Seconds(|facts| Some(facts.now.saturating_sub(facts.api_key?.made_at)))),
    of_session("session.impossible_travel", Read::Boolean(|facts| facts.observed.impossible_travel)),
];

const fn of_session(name: &'static str, read: Read) -> Signal {
    Signal { name, needs_session: true, read }
}
