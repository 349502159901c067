//! Time-based one-time codes (RFC 6238): six digits, 30-second steps, SHA-1, as every authenticator app has them.

use lb_policy::{Method, Strength};
use totp_rs::{Builder, Totp};

use super::{Attempt, Factor, FactorVerified, Failure, Input};

pub(in crate::stepup) const FACTOR: Factor = Factor {
    method: Method::Totp,
    input: Input {
        name: "code",
        label: "6-digit code",
        hint: "Open your authenticator app and type the code it shows for this account.",
        kind: "text",
        autocomplete: "one-time-code",
        inputmode: "numeric",
        is_code: true,
        refused: "That code was not accepted. A code works once; wait for the next one and try again.",
    },
    provable: |account, _| account.built_in.as_ref()?.totp_secret.as_ref().map(|_| Strength::Ordinary),
    verify,
};

const DIGITS: usize = 6;
/// One step either way, for clocks that are off and people who type slowly (RFC 6238 §5.2).
const STEPS_OF_SKEW: u16 = 1;

fn verify(attempt: &Attempt) -> Result<FactorVerified, Failure> {
    let user = attempt.account.built_in.as_ref().ok_or(Failure::NotEnrolled)?;
    let secret = user.totp_secret.as_deref().ok_or(Failure::NotEnrolled)?;
    let step = matching_step(secret, &attempt.answer, attempt.now).ok_or(Failure::Wrong)?;
    // A right code that was used before proves that somebody saw it, not who is here.
    if !attempt.store.accept_totp_step(&attempt.account.id.key(), step)? {
        return Err(Failure::Replayed);
    }
    Ok(FactorVerified::new(attempt, Method::Totp, Strength::Ordinary))
}

/// The time step whose code `answer` is. Apps show codes in groups, so spaces are ignored.
fn matching_step(secret: &[u8], answer: &str, now: u64) -> Option<u64> {
    let code: String = answer.chars().filter(|character| *character != ' ').collect();
    let is_code = code.len() == DIGITS && code.bytes().all(|byte| byte.is_ascii_digit());
    if !is_code {
        return None;
    }
    totp(secret).check(&code, now)
}

/// Compiling the configuration refuses secrets shorter than the RFC asks for; what is left cannot be refused here.
pub(crate) fn totp(secret: &[u8]) -> Totp {
    Builder::new().with_secret(secret.to_vec()).with_skew(STEPS_OF_SKEW).build_noncompliant()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"12345678901234567890";

    #[test]
    fn the_vectors_of_rfc_6238_match_at_their_time() {
        // Appendix B, SHA-1, the last six of eight digits.
        let rows = [
            (59, "287082", 1),
            (1_111_111_109, "081804", 37_037_036),
            (1_111_111_111, "050471", 37_037_037),
            (1_234_567_890, "005924", 41_152_263),
            (2_000_000_000, "279037", 66_666_666),
            (20_000_000_000, "353130", 666_666_666),
        ];
        for (time, code, step) in rows {
            assert_eq!(matching_step(SECRET, code, time), Some(step), "{time}");
        }
    }

    #[test]
    fn a_code_is_good_for_one_step_before_and_after_its_own() {
        let time = 1_111_111_111; // step 37037037, from …110 to …139
        let rows = [
            ("two steps early", time - 32, None),
            ("one step early", time - 31, Some(37_037_037)),
            ("in its step", time, Some(37_037_037)),
            ("at the end of the next step", time + 58, Some(37_037_037)),
            ("two steps late", time + 59, None),
        ];
        for (name, now, step) in rows {
            assert_eq!(matching_step(SECRET, "050471", now), step, "{name}");
        }
    }

    #[test]
    fn only_six_ascii_digits_are_a_code() {
        let rows = [
            ("050 471", true),
            (" 050471 ", true),
            ("50471", false),
            ("0050471", false),
            ("", false),
            ("05047l", false),
            ("٠٥٠٤٧١", false),
            ("+50471", false),
            ("050471\n", false),
        ];
        for (answer, accepted) in rows {
            assert_eq!(matching_step(SECRET, answer, 1_111_111_111).is_some(), accepted, "{answer:?}");
        }
    }
}
