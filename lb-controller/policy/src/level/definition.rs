//! What each level takes. Operators may define their own; the default is shaped after NIST SP 800-63B.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use super::{FactorClass, Level, Method, ProvedFactor, Strength, UnixSeconds};

/// All levels of one configuration, the lowest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels(Vec<LevelDefinition>);

/// One level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelDefinition {
    /// The authentication context class it is published under (OIDC `acr`, RFC 9470 `acr_values`).
    pub acr: String,
    /// Any one of these reaches it.
    pub any_of: Vec<Way>,
}

/// A way to reach a level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// One factor of any class.
    OneFactor,
    /// Factors of two classes, or one that stands for both.
    TwoClasses,
    /// A key that verified its user.
    UserVerifiedKey,
    /// A key that verified its user, resists phishing and cannot leave its device.
    DeviceBoundKey,
    /// Each of these methods.
    Methods(Vec<Method>),
}

impl Way {
    /// Ways that have a name; the others are methods joined by `+`.
    pub const NAMES: &[(&str, Way)] = &[
        ("one_factor", Way::OneFactor),
        ("two_classes", Way::TwoClasses),
        ("user_verified_key", Way::UserVerifiedKey),
        ("device_bound_key", Way::DeviceBoundKey),
    ];
}

impl Default for Levels {
    fn default() -> Levels {
        let level = |number: u8, any_of| LevelDefinition { acr: default_acr(number), any_of };
        Levels(vec![
            level(1, vec![Way::OneFactor]),
            level(2, vec![Way::TwoClasses]),
            level(3, vec![Way::DeviceBoundKey]),
        ])
    }
}

fn default_acr(number: u8) -> String {
    "urn:lb:acr:".to_string() + &number.to_string()
}

impl Levels {
    /// Levels 1, 2, … in this order.
    ///
    /// # Panics
    /// With more than 255 definitions.
    pub fn new(definitions: Vec<LevelDefinition>) -> Levels {
        assert!(definitions.len() <= usize::from(u8::MAX), "levels are counted in a byte");
        Levels(definitions)
    }

    pub fn highest(&self) -> Level {
        Level(u8::try_from(self.0.len()).expect("checked when they were made"))
    }

    /// The name that `level` is published under; one above the highest has the highest's.
    pub fn acr(&self, level: Level) -> &str {
        match usize::from(level.0.min(self.highest().0)).checked_sub(1) {
            Some(index) => &self.0[index].acr,
            None => "urn:lb:acr:0",
        }
    }

    /// The level that is published under this name.
    pub fn with_acr(&self, acr: &str) -> Option<Level> {
        let index = self.0.iter().position(|level| level.acr == acr)?;
        u8::try_from(index + 1).ok().map(Level)
    }

    /// The level that `factors` reach, however old; those from the future do not count.
    pub fn level_of(&self, factors: &[ProvedFactor], now: UnixSeconds) -> Level {
        let counted = factors.iter().filter(|factor| factor.age_seconds(now).is_some());
        self.reached(counted.map(|factor| (factor.method, factor.strength)))
    }

    /// The level that these proofs reach together.
    pub(crate) fn reached(&self, proofs: impl Iterator<Item = (Method, Strength)>) -> Level {
        let mut sum = Sum::default();
        proofs.for_each(|(method, strength)| sum.add(method, strength));
        let own = self.0.iter().rposition(|level| level.any_of.iter().any(|way| sum.takes(way)));
        let own = own.map_or(0, |index| u8::try_from(index + 1).unwrap_or(u8::MAX));
        Level(own).max(sum.vouched.min(self.highest()))
    }
}

/// What a set of proofs comes to.
#[derive(Default)]
struct Sum {
    /// A bit for each, in the order of the table.
    methods: u32,
    knowledge: bool,
    possession: bool,
    user_verified: bool,
    device_bound: bool,
    vouched: Level,
}

impl Sum {
    fn add(&mut self, method: Method, strength: Strength) {
        self.methods |= method.bit();
        match method.class() {
            Some(FactorClass::Knowledge) => self.knowledge = true,
            Some(FactorClass::Possession) => self.possession = true,
            None => {}
        }
        match strength {
            Strength::Ordinary => {}
            Strength::UserVerified => self.user_verified = true,
            Strength::DeviceBound => (self.user_verified, self.device_bound) = (true, true),
            Strength::Vouched(level) => self.vouched = self.vouched.max(level),
        }
    }

    fn takes(&self, way: &Way) -> bool {
        match way {
            Way::OneFactor => self.knowledge || self.possession,
            Way::TwoClasses => self.knowledge && self.possession || self.user_verified,
            Way::UserVerifiedKey => self.user_verified,
            Way::DeviceBoundKey => self.device_bound,
            Way::Methods(methods) => methods.iter().all(|method| self.methods & method.bit() != 0),
        }
    }
}

impl Method {
    pub(crate) fn bit(self) -> u32 {
        1 << (self as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_reached_by_classes_keys_and_an_identity_providers_word() {
        use Method::*;
        use Strength::*;
        type Row<'a> = (&'a str, &'a [(Method, Strength)], u8);
        let rows: &[Row<'_>] = &[
            ("nothing", &[], 0),
            ("one factor", &[(Password, Ordinary)], 1),
            ("two factors of one class", &[(Password, Ordinary), (Pin, Ordinary)], 1),
            ("two classes", &[(Password, Ordinary), (Totp, Ordinary)], 2),
            ("a key that did not verify its user is one factor", &[(Webauthn, Ordinary)], 1),
            ("a key that did stands for both classes", &[(Webauthn, UserVerified)], 2),
            ("a key that cannot leave its device", &[(Webauthn, DeviceBound)], 3),
            (
                "codes by mail and SMS, and work, raise nothing",
                &[(Email, Ordinary), (Sms, Ordinary), (ProofOfWork, Ordinary)],
                0,
            ),
            ("a code by mail beside a password", &[(Password, Ordinary), (Email, Ordinary)], 1),
            ("a provider's word", &[(IdentityProvider, Vouched(Level(2)))], 2),
            ("a provider that vouches for nothing is one factor", &[(IdentityProvider, Vouched(Level(0)))], 1),
            (
                "a provider's login and our password are one class",
                &[(IdentityProvider, Ordinary), (Password, Ordinary)],
                1,
            ),
            ("a provider's login and a code are two", &[(IdentityProvider, Ordinary), (Totp, Ordinary)], 2),
            ("a word for more than there is", &[(IdentityProvider, Vouched(Level(9)))], 3),
        ];
        let levels = Levels::default();
        for (name, proofs, level) in rows {
            assert_eq!(levels.reached(proofs.iter().copied()), Level(*level), "{name}");
        }
    }

    #[test]
    fn operators_define_levels_of_their_own() {
        let definition = |acr: &str, any_of| LevelDefinition { acr: acr.into(), any_of };
        let levels = Levels::new(vec![
            definition("bronze", vec![Way::Methods(vec![Method::Email])]),
            definition("silver", vec![Way::Methods(vec![Method::Password, Method::Pin]), Way::UserVerifiedKey]),
        ]);
        let reached = |methods: &[Method]| levels.reached(methods.iter().map(|method| (*method, Strength::Ordinary)));
        assert_eq!(reached(&[Method::Email]), Level(1));
        assert_eq!(reached(&[Method::Password]), Level(0), "one of two");
        assert_eq!(reached(&[Method::Password, Method::Pin]), Level(2), "without the level below");
        assert_eq!((levels.acr(Level(0)), levels.acr(Level(2))), ("urn:lb:acr:0", "silver"));
        assert_eq!((levels.with_acr("bronze"), levels.with_acr("gold")), (Some(Level(1)), None));
    }
}
