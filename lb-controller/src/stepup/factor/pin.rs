//! PINs: digits the user knows, hashed with Argon2id. A PIN beside a password is still one class of factor.

use lb_policy::{Method, Strength};

use super::{Attempt, Factor, FactorVerified, Failure, Field, Input, Shape, Verify, password};
use crate::texts::{Message, say};

pub(in crate::stepup) const FACTOR: Factor = Factor {
    method: Method::Pin,
    input: Input {
        name: "pin",
        label: say::pin_label,
        hint: say::pin_hint,
        // Browsers must not offer the password here.
        shape: Shape::Typed(Field { kind: "password", autocomplete: "off", inputmode: "numeric", is_code: true }),
        refused: say::pin_refused,
    },
    provable: |owner| owner.has(Method::Pin).then_some(Strength::Ordinary),
    verify: Verify::Hashing(verify),
};

const SHORTEST: usize = 6;
const LONGEST: usize = 12;

/// Why a PIN is not taken at enrolment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Weak {
    #[error("it does not have {SHORTEST} to {LONGEST} digits")]
    Shape,
    #[error("it is one of the first that anybody would try")]
    Guessable,
}

impl Weak {
    pub(crate) fn message(self) -> Message {
        match self {
            Weak::Shape => say::pin_shape(),
            Weak::Guessable => say::pin_guessable(),
        }
    }
}

/// The hash of a PIN that is good enough, as a PHC string.
pub(crate) fn enrol(pin: &str) -> Result<anyhow::Result<String>, Weak> {
    let digits = pin.as_bytes();
    if !(SHORTEST..=LONGEST).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Weak::Shape);
    }
    if is_guessable(digits) {
        return Err(Weak::Guessable);
    }
    Ok(password::hash(pin))
}

fn verify(attempt: &Attempt) -> Result<FactorVerified, Failure> {
    let enrolled = attempt.enrolled(Method::Pin, |hash| String::from_utf8(hash.to_vec()).ok())?;
    if enrolled.is_empty() {
        return Err(Failure::NotEnrolled);
    }
    let right = enrolled.iter().find(|(_, hash)| password::matches(hash, &attempt.answer));
    let (enrolment, _) = right.ok_or(Failure::Wrong)?;
    if !attempt.used(enrolment)? {
        return Err(Failure::NotEnrolled);
    }
    Ok(FactorVerified::new(attempt, Method::Pin, Strength::Ordinary))
}

/// One step over and over (111111, 123456, 135791), or a short piece repeated (123123, 121212).
fn is_guessable(digits: &[u8]) -> bool {
    let step = |pair: &[u8]| (10 + pair[1] - pair[0]) % 10;
    let mut steps = digits.windows(2).map(step);
    let first = steps.next();
    let is_row = steps.all(|step| Some(step) == first);
    let repeats = (1..=digits.len() / 2).any(|piece| {
        let (head, tail) = digits.split_at(piece);
        digits.len().is_multiple_of(piece) && tail.chunks(piece).all(|chunk| chunk == head)
    });
    is_row || repeats
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_matches_its_hash_and_no_other_does() {
        let hash = enrol("271828").unwrap().unwrap();
        assert!(hash.starts_with("$argon2id$"));
        assert!(password::matches(&hash, "271828"));
        for wrong in ["271829", "27182", "2718281", "", " 271828"] {
            assert!(!password::matches(&hash, wrong), "{wrong}");
        }
    }

    #[test]
    fn pins_that_anybody_would_try_first_are_refused() {
        for pin in ["000000", "123456", "987654", "246802", "121212", "123123", "890123"] {
            assert_eq!(enrol(pin).err(), Some(Weak::Guessable), "{pin}");
        }
        for pin in ["", "12345", "1234567890123", "12a456", "１２３４５６", "271 828"] {
            assert_eq!(enrol(pin).err(), Some(Weak::Shape), "{pin}");
        }
    }
}
