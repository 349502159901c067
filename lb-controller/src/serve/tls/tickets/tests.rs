use proptest::prelude::*;

use super::*;

fn keys(times: std::ops::Range<UnixSeconds>) -> Keys {
    let key = TicketKey::of(&[7; 32], times.clone()).unwrap();
    Keys { all: vec![key], lifetime: 60, ends_at: times.end }
}

#[test]
fn a_ticket_is_opened_within_its_time_in_its_context_and_unchanged() {
    let keys = keys(100..220);
    let ticket = keys.seal(b"a session", 100, b"context").unwrap();
    assert_eq!(keys.open(&ticket, 219, b"context").unwrap(), b"a session");
    assert_eq!(keys.open(&ticket, 220, b"context"), None, "over");
    assert_eq!(keys.open(&ticket, 150, b"another"), None);
    assert_eq!(keys.seal(b"a session", 220, b"context"), None, "nothing is sealed with what is over");
    for index in 0..ticket.len() {
        let mut changed = ticket.clone();
        changed[index] ^= 1;
        assert_eq!(keys.open(&changed, 150, b"context"), None, "byte {index}");
        assert_eq!(keys.open(&ticket[..index], 150, b"context"), None, "cut at {index}");
    }
    assert_ne!(keys.seal(b"a session", 100, b"context").unwrap(), ticket, "no two are alike");
}

proptest! {
    #[test]
    fn nothing_that_clients_make_up_is_opened(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        no_bytes_are_a_ticket_or_a_session(&bytes);
    }

    #[test]
    fn what_is_sealed_is_opened(plain in prop::collection::vec(any::<u8>(), 0..2000), now in 0_u64..100) {
        let keys = keys(0..100);
        let ticket = keys.seal(&plain, now, b"x").unwrap();
        prop_assert_eq!(keys.open(&ticket, now, b"x"), Some(plain));
    }
}
