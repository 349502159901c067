//! What the browser says it signed: `CollectedClientData` (WebAuthn L3 §5.8.1).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::{Challenge, Refusal};
use crate::config::RelyingParty;

/// No browser's comes near it.
const LONGEST_BYTES: usize = 4096;

/// Which of the two ceremonies the browser took part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ceremony {
    Create,
    Get,
}

/// Members that the browser may add are ignored, as §5.8.1 asks; members of ours that come twice are refused by serde.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientData {
    r#type: String,
    challenge: String,
    origin: String,
    #[serde(default)]
    cross_origin: bool,
    top_origin: Option<String>,
}

/// Refuses everything but this ceremony, for this challenge, on one of our origins, in a page that nobody framed.
pub(super) fn check(
    bytes: &[u8],
    ceremony: Ceremony,
    party: &RelyingParty,
    challenge: &Challenge,
) -> Result<(), Refusal> {
    if bytes.len() > LONGEST_BYTES {
        return Err(Refusal::Malformed);
    }
    let data: ClientData = serde_json::from_slice(bytes).map_err(|_| Refusal::Malformed)?;
    let expected = match ceremony {
        Ceremony::Create => "webauthn.create",
        Ceremony::Get => "webauthn.get",
    };
    if data.r#type != expected {
        return Err(Refusal::Type);
    }
    let given = URL_SAFE_NO_PAD.decode(&data.challenge).map_err(|_| Refusal::Malformed)?;
    if !challenge.is(&given) {
        return Err(Refusal::Challenge);
    }
    // Whole origins, byte for byte: a prefix or a suffix of ours is somebody else's.
    if !party.origins.contains(&data.origin) {
        return Err(Refusal::Origin);
    }
    if data.cross_origin || data.top_origin.is_some() {
        return Err(Refusal::CrossOrigin);
    }
    Ok(())
}
