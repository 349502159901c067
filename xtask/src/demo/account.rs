//! The demo's user, made afresh for every run.

use std::fs::File;
use std::io::Read;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use totp_rs::{Builder, Secret, Totp};

pub(crate) const USER: &str = "alice";
/// RFC 6238's default, and the only one that every authenticator app knows.
const STEP_SECONDS: u64 = 30;
const SECRET_BYTES: usize = 20;
const PASSWORD_CHARACTERS: usize = 12;

/// A password and a TOTP secret. Codes are dealt out so that none is ever used twice.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) password: String,
    totp: Totp,
    secret_base32: String,
    last_step: u64,
}

impl Account {
    pub(crate) fn new() -> Result<Account> {
        let secret = Secret::from(random(SECRET_BYTES)?);
        let totp = Builder::new().with_secret(secret.clone()).with_account_name(USER).with_issuer(Some("lb demo"));
        Ok(Account {
            password: random_password()?,
            totp: totp.build().context("making alice's TOTP secret")?,
            secret_base32: secret.to_base32(),
            last_step: 0,
        })
    }

    /// As authenticator apps take it when there is no camera.
    pub(crate) fn secret_base32(&self) -> &str {
        &self.secret_base32
    }

    /// `otpauth://…`, as authenticator apps read it from a QR code.
    pub(crate) fn otpauth_url(&self) -> Result<String> {
        self.totp.to_url().context("writing the otpauth URL")
    }

    /// A code that is good now and was never given out. The edge takes the step before and after the present one, so
    /// three can be had at once; the fourth waits.
    pub(crate) fn fresh_code(&mut self) -> String {
        let mut step = self.last_step + 1;
        // The step before the present one may end while the request is on its way: leave that one out.
        step = step.max(present_step());
        while step > present_step() + 1 {
            thread::sleep(Duration::from_millis(200));
        }
        self.last_step = step;
        self.code_of(step)
    }

    /// The code that was given out last.
    pub(crate) fn last_code(&self) -> String {
        self.code_of(self.last_step)
    }

    /// A code that was good two minutes ago.
    pub(crate) fn stale_code(&self) -> String {
        self.code_of(present_step() - 4)
    }

    /// Six digits that are no code of these minutes.
    pub(crate) fn wrong_code(&self) -> String {
        let near: Vec<_> = (present_step() - 2..=present_step() + 3).map(|step| self.code_of(step)).collect();
        (0..).map(|number| format!("{number:06}")).find(|code| !near.contains(code)).unwrap_or_default()
    }

    fn code_of(&self, step: u64) -> String {
        self.totp.generate(step * STEP_SECONDS).to_string()
    }
}

fn present_step() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()) / STEP_SECONDS
}

/// Letters and digits that cannot be mistaken for one another when typed from a screen.
fn random_password() -> Result<String> {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    Ok(random(PASSWORD_CHARACTERS)?.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect())
}

fn random(bytes: usize) -> Result<Vec<u8>> {
    let mut random = vec![0; bytes];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random)).context("reading /dev/urandom")?;
    Ok(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_in_a_row_are_of_different_steps_and_the_wrong_one_is_none_of_them() {
        let mut account = Account::new().unwrap();
        let first = account.last_step;
        account.fresh_code();
        let second = account.last_step;
        account.fresh_code();
        assert!(first < second && second < account.last_step);
        let wrong = account.wrong_code();
        assert_eq!(wrong.len(), 6);
        assert!((present_step() - 1..=present_step() + 1).all(|step| account.code_of(step) != wrong));
    }
}
