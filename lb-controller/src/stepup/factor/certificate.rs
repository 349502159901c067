//! A client certificate: the handshake proved that the client holds its key, and the configuration says whose it is.

use lb_policy::{Method, ProvedFactor, UnixSeconds};

use super::FactorVerified;
use crate::config::Config;
use crate::serve::request::Inbound;
use crate::stepup::account::AccountId;

/// Proved at each request of the connection, so it is always fresh. `None`: there is no certificate, or it is nobody's.
pub(in crate::stepup) fn proved(config: &Config, request: &Inbound, now: UnixSeconds) -> Option<FactorVerified> {
    let certificates = config.client_certificates.as_ref()?;
    let name = request.certificate.as_ref()?.user(certificates.user?)?;
    let account = AccountId { issuer: certificates.provider.as_deref().map(Into::into), name: name.into() };
    let proved = ProvedFactor::ordinary(Method::ClientCertificate, now);
    Some(FactorVerified { account, proved, also: Vec::new() })
}
