//! Who is at the other end of the connection.

use super::{Kind, Signal, Value};

pub(super) const SIGNALS: &[Signal] = &[Signal {
    name: "client.address",
    kind: Kind::Address,
    needs_session: false,
    read: |facts| Some(Value::Address(facts.client.address)),
}];
