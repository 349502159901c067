//! How long a TLS session may be resumed. Each resumption brings a new ticket, so without a bound a client that once showed
//! a certificate, or whoever has stolen its ticket, could go on for ever (RFC 8446 §4.6.1 asks for a bound).

use std::time::Duration;

use lb_policy::UnixSeconds;
use rustls::{HandshakeKind, ServerConnection};

/// Before the time of the full handshake in what we put into a ticket: `lb`, then 8 bytes.
const MARK: &[u8; 8] = b"lb-since";
const DATA_BYTES: usize = MARK.len() + 8;
/// What rustls writes behind our data: 8 bytes of time, 4 that disguise the ticket's age.
const BEHIND_BYTES: usize = 12;

/// Notes in the tickets of this connection when its session began. To be called once the first message of the client is
/// judged: whether it resumes a session is known then, and the tickets are still to come.
///
/// With TLS 1.2 the ticket that a resumption brings is written before, and notes nothing: it resumes nothing.
pub(in crate::serve) fn note_beginning(connection: &mut ServerConnection, now: UnixSeconds) {
    // The client is asked for a second first message, which may still resume a session, of any age.
    if connection.handshake_kind() == Some(HandshakeKind::FullWithHelloRetryRequest) {
        return;
    }
    let since = connection.received_resumption_data().and_then(read).unwrap_or(now);
    let mut data = [0; DATA_BYTES];
    data[..MARK.len()].copy_from_slice(MARK);
    data[MARK.len()..].copy_from_slice(&since.to_be_bytes());
    connection.set_resumption_data(&data);
}

fn read(data: &[u8]) -> Option<UnixSeconds> {
    let time = data.strip_prefix(MARK)?;
    Some(UnixSeconds::from_be_bytes(time.try_into().ok()?))
}

/// Whether a session may be resumed that began at most `longest` ago; one of which nobody knows when it began may not.
///
/// `session`: as rustls wrote it, and no one else, for it was sealed. Our data stands at its end, so whatever the rest may
/// look like in a later rustls, it is there or there is none; a test with rustls itself holds that.
pub(super) fn may_go_on(session: &[u8], now: UnixSeconds, longest: Duration) -> bool {
    let data = || {
        let end = session.len().checked_sub(BEHIND_BYTES)?;
        read(session.get(end.checked_sub(DATA_BYTES)?..end)?)
    };
    // A little from the future, by another host's clock, is fine.
    data().is_some_and(|since| now.saturating_sub(since) <= longest.as_secs())
}
