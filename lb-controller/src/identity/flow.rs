//! One way to a provider and back: what was sent along, and what must come back with the answer.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lb_policy::UnixSeconds;
use serde::{Deserialize, Serialize};

/// Kept in a sealed cookie of the browser that began it, so that nobody else can finish it, and any host can.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Flow {
    /// The provider's name in the configuration.
    pub(crate) provider: String,
    pub(crate) state: String,
    pub(super) nonce: String,
    /// PKCE (RFC 7636): who has only the code has nothing.
    pub(super) verifier: String,
    pub(super) redirect_uri: String,
    pub(crate) started_at: UnixSeconds,
    /// The level that was asked for.
    pub(super) level: Option<u8>,
    /// Seconds that the login may be old.
    pub(super) max_age: Option<u64>,
    /// The login must have been made for this flow.
    pub(super) per_action: bool,
    /// Who must come back.
    pub(super) subject: Option<String>,
}

/// What is wanted of the provider.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ask {
    /// Where the provider sends the browser back to; registered there, one for each provider.
    pub(crate) redirect_uri: String,
    pub(crate) level: Option<u8>,
    pub(crate) max_age: Option<u64>,
    pub(crate) per_action: bool,
    /// The user of the session that is to be raised.
    pub(crate) subject: Option<String>,
}

impl Flow {
    pub(super) fn begin(provider: &str, ask: Ask, now: UnixSeconds) -> Flow {
        let Ask { redirect_uri, level, max_age, per_action, subject } = ask;
        Flow {
            provider: provider.to_owned(),
            state: secret(),
            nonce: secret(),
            verifier: secret(),
            redirect_uri,
            started_at: now,
            level,
            max_age,
            per_action,
            subject,
        }
    }

    /// RFC 7636 §4.2, S256.
    pub(super) fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, self.verifier.as_bytes()))
    }

    #[cfg(test)]
    pub(super) fn for_tests(nonce: &str, started_at: UnixSeconds) -> Flow {
        Flow { nonce: nonce.to_owned(), ..Flow::begin("idp", Ask::default(), started_at) }
    }
}

/// 256 bits, 43 characters: the shortest verifier that RFC 7636 §4.1 allows.
fn secret() -> String {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's random generator answers");
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_that_of_the_rfc() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned();
        let flow = Flow { verifier, ..Flow::for_tests("n", 0) };
        assert_eq!(flow.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }
}
