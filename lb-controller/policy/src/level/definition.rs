//! What each level takes. Operators may define their own; the default is shaped after NIST SP 800-63B.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use super::{FactorClass, Level, METHODS, Method, ProvedFactor, Strength, UnixSeconds};

/// All levels of one configuration, the lowest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    definitions: Vec<LevelDefinition>,
    /// The highest level that a factor of some class reaches, factors of two, and so on: a place for each set of [`Kinds`].
    /// Rules ask for the level of a session again and again.
    by_kinds: [Level; Kinds::SETS],
    /// The ways that name methods, each as their bits, with the level it reaches.
    by_methods: Vec<(u32, Level)>,
}

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
        Levels::new(vec![
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
        let mut levels = Levels { definitions, by_kinds: [Level(0); Kinds::SETS], by_methods: Vec::new() };
        for (number, definition) in (1..).zip(&levels.definitions) {
            for way in &definition.any_of {
                match way {
                    Way::Methods(methods) => {
                        levels
                            .by_methods
                            .push((methods.iter().fold(0, |bits, method| bits | method.bit()), Level(number)));
                    }
                    _ => {
                        let reached = levels.by_kinds.iter_mut().zip(0..).filter(|(_, kinds)| Kinds(*kinds).take(way));
                        reached.for_each(|(level, _)| *level = Level(number));
                    }
                }
            }
        }
        levels
    }

    pub fn highest(&self) -> Level {
        Level(u8::try_from(self.definitions.len()).expect("checked when they were made"))
    }

    /// The name that `level` is published under; one above the highest has the highest's.
    pub fn acr(&self, level: Level) -> &str {
        match usize::from(level.0.min(self.highest().0)).checked_sub(1) {
            Some(index) => &self.definitions[index].acr,
            None => "urn:lb:acr:0",
        }
    }

    /// The level that is published under this name.
    pub fn with_acr(&self, acr: &str) -> Option<Level> {
        let index = self.definitions.iter().position(|level| level.acr == acr)?;
        u8::try_from(index + 1).ok().map(Level)
    }

    /// The level that `factors` reach, however old; those from the future do not count.
    pub fn level_of(&self, factors: &[ProvedFactor], now: UnixSeconds) -> Level {
        let counted = factors.iter().filter(|factor| factor.age_seconds(now).is_some());
        self.reached(counted.map(|factor| (factor.method, factor.strength)))
    }

    /// The level that these proofs reach together.
    pub(crate) fn reached(&self, proofs: impl Iterator<Item = (Method, Strength)>) -> Level {
        let (mut methods, mut kinds, mut vouched) = (0, 0, Level(0));
        proofs.for_each(|(method, strength)| {
            methods |= method.bit();
            match strength {
                Strength::Ordinary => {}
                Strength::UserVerified => kinds |= Kinds::USER_VERIFIED,
                Strength::DeviceBound => kinds |= Kinds::USER_VERIFIED | Kinds::DEVICE_BOUND,
                Strength::Vouched(level) => vouched = vouched.max(level),
            }
        });
        kinds |= Kinds::of_methods(methods);
        let named = self.by_methods.iter().filter(|(all, _)| methods & all == *all).map(|(_, level)| *level);
        named.fold(self.by_kinds[usize::from(kinds)].max(vouched.min(self.highest())), Level::max)
    }
}

/// What a set of proofs comes to but for the methods themselves, a bit for each.
#[derive(Clone, Copy)]
struct Kinds(u8);

impl Kinds {
    const KNOWLEDGE: u8 = 1;
    const POSSESSION: u8 = 2;
    const USER_VERIFIED: u8 = 4;
    const DEVICE_BOUND: u8 = 8;
    /// How many sets of them there are.
    const SETS: usize = 16;

    /// The classes of these methods.
    fn of_methods(methods: u32) -> u8 {
        const KNOWLEDGE: u32 = methods_of(FactorClass::Knowledge);
        const POSSESSION: u32 = methods_of(FactorClass::Possession);
        u8::from(methods & KNOWLEDGE != 0) * Kinds::KNOWLEDGE + u8::from(methods & POSSESSION != 0) * Kinds::POSSESSION
    }

    /// Whether they go this way; never one that names methods.
    fn take(self, way: &Way) -> bool {
        let Kinds(kinds) = self;
        let has = |kind: u8| kinds & kind != 0;
        match way {
            Way::OneFactor => has(Kinds::KNOWLEDGE) || has(Kinds::POSSESSION),
            Way::TwoClasses => has(Kinds::KNOWLEDGE) && has(Kinds::POSSESSION) || has(Kinds::USER_VERIFIED),
            Way::UserVerifiedKey => has(Kinds::USER_VERIFIED),
            Way::DeviceBoundKey => has(Kinds::DEVICE_BOUND),
            Way::Methods(_) => false,
        }
    }
}

/// The methods of a class, a bit for each.
const fn methods_of(class: FactorClass) -> u32 {
    let (mut bits, mut row) = (0, 0);
    while row < METHODS.len() {
        let (method, .., its_class) = METHODS[row];
        if matches!(its_class, Some(its_class) if its_class as u8 == class as u8) {
            bits |= method.bit();
        }
        row += 1;
    }
    bits
}

impl Method {
    pub(crate) const fn bit(self) -> u32 {
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
