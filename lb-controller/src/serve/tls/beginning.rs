//! How long a TLS session may be resumed. Each resumption brings a new ticket, so without a bound a client that once showed
//! a certificate, or whoever has stolen its ticket, could go on for ever (RFC 8446 §4.6.1 asks for a bound). So a ticket says
//! when its session began, and so does the one that comes of it.

use std::cell::Cell;
use std::time::Duration;

use lb_policy::UnixSeconds;

thread_local!(
    /// When the session began that the handshake under way on this thread goes on with; `None`: it begins now.
    ///
    /// rustls opens and seals tickets by way of an interface that does not say whose they are, always from within a call of
    /// ours. That call says it.
    static BEGINNING: Cell<Option<UnixSeconds>> = const { Cell::new(None) };
);

/// Goes a step of a handshake whose session began at `beginning`, which a ticket that is opened meanwhile changes.
pub(super) fn within<T>(beginning: &mut Option<UnixSeconds>, step: impl FnOnce() -> T) -> T {
    BEGINNING.set(*beginning);
    let done = step();
    *beginning = BEGINNING.take();
    done
}

const BYTES: usize = size_of::<UnixSeconds>();

/// What goes into a ticket of `session`.
pub(super) fn note(session: &[u8], now: UnixSeconds) -> Vec<u8> {
    [&BEGINNING.get().unwrap_or(now).to_be_bytes(), session].concat()
}

/// The session of a ticket's content, to be gone on with; `None` if it began longer than `longest` ago.
pub(super) fn go_on(mut content: Vec<u8>, now: UnixSeconds, longest: Duration) -> Option<Vec<u8>> {
    let beginning = UnixSeconds::from_be_bytes(*content.first_chunk::<BYTES>()?);
    // A little from the future, by another host's clock, is fine.
    if now.saturating_sub(beginning) > longest.as_secs() {
        return None;
    }
    BEGINNING.set(Some(beginning));
    content.drain(..BYTES);
    Some(content)
}
