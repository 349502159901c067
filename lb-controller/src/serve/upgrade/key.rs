//! The challenge by which HTTP/1.1 makes sure that both ends speak of a WebSocket (RFC 6455 §4.2.2). HTTP/2 has none, so whoever
//! stands between the two asks and answers it.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderValue};

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The challenge of one WebSocket.
#[derive(Debug)]
pub(super) struct Keys {
    /// Of ours to the backend, what it must answer.
    expected: Option<HeaderValue>,
    /// What the client must be told in the backend's place.
    owed: Option<HeaderValue>,
}

impl Keys {
    /// Of a request with these headers, in which the backend finds what it needs.
    pub(super) fn of(headers: &mut HeaderMap, to_h2: bool) -> Keys {
        let of_client = headers.get(header::SEC_WEBSOCKET_KEY).cloned();
        match (of_client, to_h2) {
            // It is for the two ends.
            (Some(_), false) => Keys { expected: None, owed: None },
            (Some(key), true) => {
                headers.remove(header::SEC_WEBSOCKET_KEY);
                Keys { expected: None, owed: Some(answer_to(&key)) }
            }
            (None, true) => Keys { expected: None, owed: None },
            (None, false) => {
                let key = fresh();
                let expected = Some(answer_to(&key));
                headers.insert(header::SEC_WEBSOCKET_KEY, key);
                Keys { expected, owed: None }
            }
        }
    }

    /// Whether the backend has answered what we asked it.
    pub(super) fn are_answered(&self, headers: &HeaderMap) -> bool {
        self.expected.is_none() || self.expected.as_ref() == headers.get(header::SEC_WEBSOCKET_ACCEPT)
    }

    /// Puts into the response what the client needs, and nothing that it does not.
    pub(super) fn answer(&self, headers: &mut HeaderMap) {
        if self.expected.is_some() {
            headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        }
        if let Some(owed) = &self.owed {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, owed.clone());
        }
    }
}

/// SHA-1 is as the standard has it: it proves understanding, and keeps no secret.
fn answer_to(key: &HeaderValue) -> HeaderValue {
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), GUID].concat());
    HeaderValue::try_from(STANDARD.encode(hash)).expect("Base64 is ASCII")
}

fn fresh() -> HeaderValue {
    let bytes: [u8; 16] = std::array::from_fn(|_| fastrand::u8(..));
    HeaderValue::try_from(STANDARD.encode(bytes)).expect("Base64 is ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn the_challenge_is_answered_as_the_standard_shows() {
        let mut to_backend = headers(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==");
        let keys = Keys::of(&mut to_backend, true);
        assert!(to_backend.is_empty(), "HTTP/2 has no challenge");
        let mut to_client = HeaderMap::new();
        keys.answer(&mut to_client);
        assert_eq!(to_client[header::SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_backend_is_asked_in_place_of_a_client_that_does_not() {
        let mut to_backend = HeaderMap::new();
        let keys = Keys::of(&mut to_backend, false);
        let good = answer_to(&to_backend[header::SEC_WEBSOCKET_KEY]);
        let mut answered = headers(header::SEC_WEBSOCKET_ACCEPT, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(!keys.are_answered(&answered) && !keys.are_answered(&HeaderMap::new()));
        answered.insert(header::SEC_WEBSOCKET_ACCEPT, good);
        assert!(keys.are_answered(&answered));
        keys.answer(&mut answered);
        assert!(answered.is_empty(), "the client has not asked");
    }

    #[test]
    fn two_ends_of_http1_speak_for_themselves() {
        let mut to_backend = headers(header::SEC_WEBSOCKET_KEY, "x");
        let keys = Keys::of(&mut to_backend, false);
        let mut answered = headers(header::SEC_WEBSOCKET_ACCEPT, "whatever");
        assert!(keys.are_answered(&answered));
        keys.answer(&mut answered);
        assert_eq!((to_backend.len(), answered.len()), (1, 1));
    }
}
