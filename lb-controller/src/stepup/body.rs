//! Request bodies read into memory: never more than the caller says, never longer than a slow attacker likes.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::serve::request::InboundBody;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    TooLarge,
    /// The client stopped sending, or sent a byte now and then.
    TooSlow,
    BrokenOff,
}

/// For the whole body, whatever arrives in between: 256 KiB within it is a modem's speed.
const DEADLINE: Duration = Duration::from_secs(15);

/// All of `body`, or nothing of it.
pub(super) async fn read(body: InboundBody, limit_bytes: usize) -> Result<Bytes, BodyError> {
    let incoming = match body {
        InboundBody::Whole(bytes) if bytes.len() <= limit_bytes => return Ok(bytes),
        InboundBody::Whole(_) => return Err(BodyError::TooLarge),
        InboundBody::Streaming(incoming) => incoming,
    };
    match tokio::time::timeout(DEADLINE, Limited::new(incoming, limit_bytes).collect()).await {
        Err(_) => Err(BodyError::TooSlow),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge),
        Ok(Err(_)) => Err(BodyError::BrokenOff),
    }
}
