//! Who is at the other end of the connection.

use super::{Kind, Signal, Value, plain};

pub(super) const SIGNALS: &[Signal] = &[
    plain("client.address", Kind::Address, |facts| Some(Value::Address(facts.client.address))),
    plain("client.country", Kind::Text, |facts| facts.client.country.map(Value::Text)),
    plain("client.asn", Kind::Number, |facts| Some(Value::count(facts.client.asn?.into()))),
    plain("client.reputation", Kind::Number, |facts| Some(Value::count(facts.client.reputation?.into()))),
    plain("client.device_known", Kind::Boolean, |facts| Some(Value::Boolean(facts.client.device_known))),
    plain("client.device_class", Kind::Text, |facts| facts.client.device_class.map(Value::Text)),
    plain("client.tls_class", Kind::Text, |facts| facts.client.tls_class.map(Value::Text)),
    plain("client.certificate.subject", Kind::Text, |facts| Some(Value::Text(facts.client.certificate?.subject))),
    plain("client.certificate.issuer", Kind::Text, |facts| Some(Value::Text(facts.client.certificate?.issuer))),
    plain("client.certificate.fingerprint", Kind::Text, |facts| {
        Some(Value::Text(facts.client.certificate?.fingerprint))
    }),
    plain("client.certificate.names", Kind::TextList, |facts| Some(Value::TextList(facts.client.certificate?.names))),
];
