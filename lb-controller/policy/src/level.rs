//! Factors, the classes they belong to, and the assurance level a set of them reaches (after NIST SP 800-63B).

use core::fmt;

/// Seconds since 1970-01-01 UTC, on the gateway's clock.
pub type UnixSeconds = u64;

/// What a factor proves. Two factors of one class are still one class: a PIN beside a password adds no level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactorClass {
    /// Something the user knows.
    Knowledge,
    /// Something the user holds.
    Possession,
}

/// A way to prove who is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    Password,
    Totp,
}

/// The one table of methods: name in rules, `amr` value in assertions (RFC 8176), class.
const METHODS: &[(Method, &str, &str, FactorClass)] = &[
    (Method::Password, "password", "pwd", FactorClass::Knowledge),
    (Method::Totp, "totp", "otp", FactorClass::Possession),
];

impl Method {
    /// Every method, in the order of the table.
    pub fn all() -> impl Iterator<Item = Method> + Clone {
        METHODS.iter().map(|row| row.0)
    }

    /// The method that rules and pages call `name`.
    pub fn from_name(name: &str) -> Option<Method> {
        METHODS.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// The name used in rules and pages, such as `totp`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The authentication method reference of RFC 8176, such as `otp`.
    pub fn amr(self) -> &'static str {
        self.row().2
    }

    pub fn class(self) -> FactorClass {
        self.row().3
    }

    fn row(self) -> &'static (Method, &'static str, &'static str, FactorClass) {
        // The enum and the table are both closed and written side by side; the test below holds them together.
        &METHODS[self as usize]
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A factor that was verified, and when. Ages are per factor: a new code does not make an old password fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProvedFactor {
    pub method: Method,
    pub at: UnixSeconds,
}

impl ProvedFactor {
    /// Seconds since the proof, or `None` for a proof from the future (beyond 60 s of clock skew), which counts as absent.
    pub fn age_seconds(self, now: UnixSeconds) -> Option<u64> {
        const SKEW_SECONDS: u64 = 60;
        (self.at <= now.saturating_add(SKEW_SECONDS)).then(|| now.saturating_sub(self.at))
    }
}

/// Authentication assurance level: 0 nobody, 1 one factor, 2 two classes of factor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(pub u8);

impl Level {
    /// The authentication context class this level is published under (OIDC `acr`, RFC 9470 `acr_values`).
    pub fn acr(self) -> &'static str {
        match self.0 {
            0 => "urn:lb:acr:0",
            1 => "urn:lb:acr:1",
            _ => "urn:lb:acr:2",
        }
    }
}

/// The level that `factors` reach, counting only those proved within `max_age_seconds` of `now`.
pub fn level_of(factors: &[ProvedFactor], now: UnixSeconds, max_age_seconds: Option<u64>) -> Level {
    let counts = |factor: &&ProvedFactor| match (factor.age_seconds(now), max_age_seconds) {
        (Some(age), Some(max)) => age <= max,
        (age, None) => age.is_some(),
        (None, _) => false,
    };
    level_of_methods(factors.iter().filter(counts).map(|factor| factor.method))
}

/// The level that proofs of `methods` reach: how many classes they come from.
pub(crate) fn level_of_methods(methods: impl Iterator<Item = Method>) -> Level {
    let mut seen: [bool; 2] = [false; 2];
    for method in methods {
        seen[method.class() as usize] = true;
    }
    Level(seen.iter().map(|class_seen| u8::from(*class_seen)).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_stands_at_its_own_row_of_the_table() {
        for method in Method::all() {
            assert_eq!(method.row().0, method);
            assert_eq!(Method::from_name(method.name()), Some(method));
        }
    }
}
