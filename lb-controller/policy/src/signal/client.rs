//! Who is at the other end of the connection.

use super::read::Read;
use super::{Signal, plain};

pub(super) const SIGNALS: &[Signal] = &[
    plain("client.address", Read::Address(|facts| Some(facts.client.address))),
    plain("client.country", Read::Text(|facts| facts.client.country)),
    plain("client.asn", Read::Count(|facts| facts.client.asn.map(u64::from))),
    plain("client.reputation", Read::Count(|facts| facts.client.reputation.map(u64::from))),
    plain("client.device_known", Read::Boolean(|facts| Some(facts.client.device_known))),
    plain("client.device_class", Read::Text(|facts| facts.client.device_class)),
    plain("client.tls_class", Read::Text(|facts| facts.client.tls_class)),
    plain("client.certificate.subject", Read::Text(|facts| Some(facts.client.certificate?.subject))),
    plain("client.certificate.issuer", Read::Text(|facts| Some(facts.client.certificate?.issuer))),
    plain("client.certificate.fingerprint", Read::Text(|facts| Some(facts.client.certificate?.fingerprint))),
    plain("client.certificate.names", Read::TextList(|facts| Some(facts.client.certificate?.names))),
];
