//! Factors, the classes they belong to, and the assurance levels that sets of them reach (after NIST SP 800-63B).

use core::fmt;

mod definition;

pub use definition::{LevelDefinition, Levels, Way};

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
    Pin,
    /// A passkey or security key.
    Webauthn,
    Totp,
    ClientCertificate,
    /// A signature by the user's SSH key.
    DeveloperKey,
    /// A login at an identity provider.
    IdentityProvider,
    RecoveryCode,
    Email,
    Sms,
    /// A verifier of the operator's own, asked over HTTP.
    External,
    ProofOfWork,
}

type MethodRow = (Method, &'static str, &'static str, Option<FactorClass>);

/// The one table of methods, those to be asked for first in front: name in rules, `amr` value in assertions (RFC 8176
/// where it has one), class. What has no class may be asked for by name, and never raises a level: codes that travel by
/// mail or SMS reach whoever reads these (SP 800-63B §5.1.3), and work proves a machine.
#[rustfmt::skip]
const METHODS: &[MethodRow] = &[
    (Method::Password,          "password",          "pwd",      Some(FactorClass::Knowledge)),
    (Method::Pin,               "pin",               "pin",      Some(FactorClass::Knowledge)),
    (Method::Webauthn,          "webauthn",          "hwk",      Some(FactorClass::Possession)),
    (Method::Totp,              "totp",              "otp",      Some(FactorClass::Possession)),
    (Method::ClientCertificate, "certificate",       "sc",       Some(FactorClass::Possession)),
    (Method::DeveloperKey,      "devkey",            "swk",      Some(FactorClass::Possession)),
    // Nearly all begin with a password: beside one of ours it must not count as a second class.
    (Method::IdentityProvider,  "idp",               "idp",      Some(FactorClass::Knowledge)),
    (Method::RecoveryCode,      "recovery",          "recovery", Some(FactorClass::Possession)),
    (Method::Email,             "email",             "email",    None),
    (Method::Sms,               "sms",               "sms",      None),
    (Method::External,          "external",          "external", None),
    (Method::ProofOfWork,       "pow",               "pow",      None),
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

    /// `None`: it never raises a level.
    pub fn class(self) -> Option<FactorClass> {
        self.row().3
    }

    fn row(self) -> &'static MethodRow {
        // The enum and the table are both closed and written side by side; the test below holds them together.
        &METHODS[self as usize]
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How much one proof was worth, as its verifier found it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strength {
    /// One factor of its method's class.
    #[default]
    Ordinary,
    /// A key that verified its user before it signed: both classes in one.
    UserVerified,
    /// The same, by a key that resists phishing and cannot leave its device.
    DeviceBound,
    /// An identity provider's word, mapped to this level by configuration.
    Vouched(Level),
}

/// A factor that was verified, and when. Ages are per factor: a new code does not make an old password fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProvedFactor {
    pub method: Method,
    pub at: UnixSeconds,
    pub strength: Strength,
}

impl ProvedFactor {
    /// A proof that is worth what its method is usually worth.
    pub const fn ordinary(method: Method, at: UnixSeconds) -> ProvedFactor {
        ProvedFactor { method, at, strength: Strength::Ordinary }
    }

    /// Seconds since the proof, or `None` for a proof from the future (beyond 60 s of clock skew), which counts as absent.
    pub fn age_seconds(self, now: UnixSeconds) -> Option<u64> {
        const SKEW_SECONDS: u64 = 60;
        (self.at <= now.saturating_add(SKEW_SECONDS)).then(|| now.saturating_sub(self.at))
    }
}

/// Something that the user could prove now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProvableFactor {
    pub method: Method,
    pub strength: Strength,
}

/// Authentication assurance level: 0 nobody, 1 and up as [`Levels`] defines them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(pub u8);

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_method_stands_at_its_own_row_of_the_table() {
        for method in Method::all() {
            assert_eq!(method.row().0, method);
            assert_eq!(Method::from_name(method.name()), Some(method));
        }
        let amr: BTreeSet<_> = Method::all().map(Method::amr).collect();
        assert_eq!(amr.len(), Method::all().count(), "backends tell methods apart by these");
    }
}
