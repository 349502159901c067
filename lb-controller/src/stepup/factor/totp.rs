//! Time-based one-time codes (RFC 6238): six digits, 30-second steps, SHA-1, as every authenticator app has them.

use lb_policy::{Method, Strength};
use qrcode::QrCode;
use qrcode::render::svg;
use totp_rs::{Builder, Secret, Totp};

use super::super::random_id::random_bytes;
use super::recovery::grouped;
use super::{Attempt, Factor, FactorVerified, Failure, Field, Input, Shape, Verify};
use crate::texts::say;

pub(in crate::stepup) const FACTOR: Factor = Factor {
    method: Method::Totp,
    input: Input {
        name: "code",
        label: say::totp_label,
        hint: say::totp_hint,
        shape: Shape::Typed(Field { kind: "text", autocomplete: "one-time-code", inputmode: "numeric", is_code: true }),
        refused: say::totp_refused,
    },
    provable: |owner| {
        let configured = owner.account.built_in.as_ref().is_some_and(|user| user.totp_secret.is_some());
        (configured || owner.has(Method::Totp)).then_some(Strength::Ordinary)
    },
    verify: Verify::Disk(verify),
};

const DIGITS: usize = 6;
/// One step either way, for clocks that are off and people who type slowly (RFC 6238 §5.2).
const STEPS_OF_SKEW: u16 = 1;

fn verify(attempt: &Attempt) -> Result<FactorVerified, Failure> {
    let key = attempt.account.id.key();
    let step = |secret: &[u8]| matching_step(secret, &attempt.answer, attempt.now);
    let configured = attempt.account.built_in.as_ref().and_then(|user| user.totp_secret.as_deref());
    if let Some(step) = configured.and_then(step) {
        return accepted(attempt, &key, step);
    }
    let enrolled = attempt.enrolled(Method::Totp, |secret| Some(step(secret)))?;
    if configured.is_none() && enrolled.is_empty() {
        return Err(Failure::NotEnrolled);
    }
    let matching = enrolled.iter().find_map(|(enrolment, step)| Some((enrolment, (*step)?)));
    let (enrolment, step) = matching.ok_or(Failure::Wrong)?;
    let proof = accepted(attempt, &format!("{key}\0{}", enrolment.id), step)?;
    if attempt.used(enrolment)? { Ok(proof) } else { Err(Failure::NotEnrolled) }
}

/// A right code that was used before proves that somebody saw it, not who is here.
fn accepted(attempt: &Attempt, secret_key: &str, step: u64) -> Result<FactorVerified, Failure> {
    if attempt.store.accept_totp_step(secret_key, step)? {
        Ok(FactorVerified::new(attempt, Method::Totp, Strength::Ordinary))
    } else {
        Err(Failure::Replayed)
    }
}

/// Whether `answer` is the code of the moment: at enrolment, where nothing was accepted before.
pub(in crate::stepup) fn is_current(secret: &[u8], answer: &str, now: u64) -> bool {
    matching_step(secret, answer, now).is_some()
}

/// A new secret of 160 bits (RFC 4226 §4 R6).
pub(in crate::stepup) fn new_secret() -> Vec<u8> {
    random_bytes::<20>().to_vec()
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

/// In Base32, in groups of four, for those who type it.
pub(in crate::stepup) fn shown(secret: &[u8]) -> String {
    grouped(&Secret::from(secret.to_vec()).to_base32())
}

/// A picture (SVG) for authenticator apps to scan. `None`: a name that the format cannot carry.
pub(in crate::stepup) fn qr_code(secret: &[u8], user: &str, issuer: &str) -> Option<String> {
    // A colon parts issuer and account in the format.
    let plain = |text: &str| text.replace(':', " ");
    let totp = Builder::new().with_secret(secret.to_vec()).with_account_name(plain(user));
    let url = totp.with_issuer(Some(plain(issuer))).build().ok()?.to_url().ok()?;
    let picture = QrCode::new(url).ok()?.render::<svg::Color<'_>>().min_dimensions(200, 200).build();
    // The XML declaration has no place in a page.
    picture.find("<svg").map(|start| picture[start..].to_owned())
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
