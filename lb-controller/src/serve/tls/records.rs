//! A client's TLS records without its socket. rustls has no buffers here: what came is read where the socket put it, and what
//! is said is written where the socket takes it from. So an idle connection has no memory for either.

use std::sync::Arc;

use bytes::{Buf as _, BytesMut};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus};
use rustls::{Error, ServerConfig};

use super::outbox::{Lack, Outbox};

/// What may wait for the rest of a message. A record is shorter; a handshake's message, of many records, may be as long.
pub(super) const MOST_KEPT_BYTES: usize = 64 * 1024;

/// What one record can hold (RFC 8446 §5.1).
const RECORD_BYTES: usize = 16 * 1024;

/// Around a record: its head, and what AEADs add with TLS 1.2, which is more than with 1.3.
const WRAPPING_BYTES: usize = 5 + 8 + 16;

pub(super) struct Records {
    pub(super) session: UnbufferedServerConnection,
    /// The beginning of a message that has not come whole.
    kept: Vec<u8>,
    /// Understood, and not taken yet.
    plain: BytesMut,
    pub(super) outbox: Outbox,
    /// The client said that it will write no more.
    pub(super) has_ended: bool,
    /// It was not understood: rustls has read into what is not kept, so that it may be asked no more.
    has_failed: bool,
}

impl Records {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Records, Error> {
        Ok(Records {
            session: UnbufferedServerConnection::new(config)?,
            kept: Vec::new(),
            plain: BytesMut::new(),
            outbox: Outbox::default(),
            has_ended: false,
            has_failed: false,
        })
    }

    /// What stands before what comes next; see [`Records::receive`].
    pub(super) fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// Understands what came, which stands in `incoming` behind [`Records::kept`]. The beginning of it goes to `heard`, as
    /// far as that says that it has taken it; [`Records::take`] has the rest.
    ///
    /// Errors: it is not to be understood. What the client should be told of it waits in the outbox.
    pub(super) fn receive(&mut self, incoming: &mut [u8], mut heard: impl FnMut(&[u8]) -> usize) -> Result<(), Error> {
        let (mut conversation, plain) = self.conversation();
        let done = conversation.go_on(incoming, Say::Nothing, |bytes| {
            let taken = heard(bytes);
            plain.extend_from_slice(&bytes[taken..]);
        });
        let done = done.inspect_err(|_| self.fail())?;
        let rest = if self.has_ended { &[] } else { &incoming[done..] };
        if rest.len() >= MOST_KEPT_BYTES {
            self.has_failed = true;
            return Err(Error::General("a message is too large".into()));
        }
        match rest.is_empty() {
            true => self.kept = Vec::new(),
            false => {
                self.kept.clear();
                self.kept.extend_from_slice(rest);
            }
        }
        Ok(())
    }

    fn conversation(&mut self) -> (Conversation<'_>, &mut BytesMut) {
        let Records { session, outbox, has_ended, plain, .. } = self;
        (Conversation { session, outbox, has_ended }, plain)
    }

    /// Puts into the outbox what the client is told after an error.
    fn fail(&mut self) {
        self.has_failed = true;
        while self.session.wants_write() {
            // What waits comes before anything is read again.
            let UnbufferedStatus { state, .. } = self.session.process_tls_records(&mut []);
            let Ok(ConnectionState::EncodeTlsData(mut message)) = state else { return };
            self.outbox.append(0, |room| message.encode(room).map_err(lack_of_encoding));
        }
    }

    /// What was understood and is still to be taken, as far as `heard` says that it takes it.
    pub(super) fn take(&mut self, mut heard: impl FnMut(&[u8]) -> usize) {
        let taken = heard(&self.plain);
        match taken == self.plain.len() {
            true => self.plain = BytesMut::new(),
            false => self.plain.advance(taken),
        }
    }

    /// Puts it into the outbox, as records, behind what rustls itself has to say.
    ///
    /// Errors: nothing may be said any more.
    fn say(&mut self, what: Say<'_>) -> Result<(), Error> {
        if self.has_failed {
            return Err(Error::EncryptError);
        }
        if matches!(what, Say::Bytes([])) {
            return Ok(());
        }
        let mut kept = std::mem::take(&mut self.kept);
        let (mut conversation, plain) = self.conversation();
        let done = conversation.go_on(&mut kept, what, |heard| plain.extend_from_slice(heard));
        match done {
            Ok(done) => drop(kept.drain(..done)),
            Err(_) => self.has_failed = true,
        }
        self.kept = kept;
        done.map(drop)
    }

    /// Puts all of `slices` into the outbox. What is shorter than a record shares one with what follows.
    pub(super) fn say_all<'s>(&mut self, slices: impl Iterator<Item = &'s [u8]>) -> Result<(), Error> {
        let mut slices = slices.filter(|slice| !slice.is_empty()).peekable();
        let mut together: Vec<u8> = Vec::new();
        while let Some(mut slice) = slices.next() {
            if !together.is_empty() {
                let (first, rest) = slice.split_at(slice.len().min(RECORD_BYTES - together.len()));
                together.extend_from_slice(first);
                slice = rest;
            }
            if together.len() == RECORD_BYTES {
                self.say(Say::Bytes(&together))?;
                together.clear();
            }
            let follows = slices.peek().is_some();
            let alone =
                if follows || !together.is_empty() { slice.len() / RECORD_BYTES * RECORD_BYTES } else { slice.len() };
            let (alone, rest) = slice.split_at(alone);
            self.say(Say::Bytes(alone))?;
            together.extend_from_slice(rest);
        }
        self.say(Say::Bytes(&together))
    }

    /// Says that nothing more will be said; once, however often it is called.
    pub(super) fn say_goodbye(&mut self) -> Result<(), Error> {
        self.say(Say::Goodbye)
    }
}

#[derive(Clone, Copy)]
enum Say<'b> {
    Nothing,
    Bytes(&'b [u8]),
    Goodbye,
}

/// What rustls is asked with.
struct Conversation<'r> {
    session: &'r mut UnbufferedServerConnection,
    outbox: &'r mut Outbox,
    has_ended: &'r mut bool,
}

impl Conversation<'_> {
    /// Understands `incoming`, and then says something; how much of `incoming` is done with.
    fn go_on(&mut self, incoming: &mut [u8], say: Say<'_>, mut hear: impl FnMut(&[u8])) -> Result<usize, Error> {
        let mut done = 0;
        loop {
            let UnbufferedStatus { discard, state } = self.session.process_tls_records(&mut incoming[done..]);
            done += discard;
            match state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        hear(record.payload);
                        done += record.discard;
                    }
                }
                ConnectionState::EncodeTlsData(mut message) => {
                    self.outbox.append(0, |room| message.encode(room).map_err(lack_of_encoding));
                }
                ConnectionState::TransmitTlsData(transmitted) => transmitted.done(),
                ConnectionState::PeerClosed => *self.has_ended = true,
                ConnectionState::WriteTraffic(mut traffic) => {
                    let said = match say {
                        Say::Nothing => true,
                        Say::Bytes(bytes) => {
                            let encrypt = |room: &mut [u8]| traffic.encrypt(bytes, room).map_err(lack_of_encryption);
                            self.outbox.append(wrapped_bytes(bytes.len()), encrypt)
                        }
                        Say::Goodbye => {
                            let goodbye =
                                |room: &mut [u8]| traffic.queue_close_notify(room).map_err(lack_of_encryption);
                            self.outbox.append(0, goodbye)
                        }
                    };
                    return if said { Ok(done) } else { Err(Error::EncryptError) };
                }
                // The handshake has not ended, or all has been said.
                _ if matches!(say, Say::Bytes(_)) => return Err(Error::EncryptError),
                _ => return Ok(done),
            }
        }
    }
}

/// What `bytes` take as records; more is asked for where it is more.
fn wrapped_bytes(bytes: usize) -> usize {
    bytes + bytes.div_ceil(RECORD_BYTES) * WRAPPING_BYTES
}

fn lack_of_encoding(error: EncodeError) -> Lack {
    match error {
        EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => Lack::Bytes(required_size),
        EncodeError::AlreadyEncoded => Lack::Forbidden,
    }
}

fn lack_of_encryption(error: EncryptError) -> Lack {
    match error {
        EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => Lack::Bytes(required_size),
        EncryptError::EncryptExhausted => Lack::Forbidden,
    }
}
