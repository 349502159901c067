//! The habits of well-known identity providers: one row each.

use lb_policy::{Level, Method};

use super::{Assurance, ClaimNames, Freshness, Profile};

/// What a provider is taken to do unless the configuration says otherwise.
struct Habits {
    profile: Profile,
    name: &'static str,
    /// The claim that says how strong a login was.
    acr_claim: &'static str,
    /// It takes the wish for it as an essential claim alone, and has no `acr_values`.
    asks_by_claim_only: bool,
    groups_claim: &'static str,
    freshness: Freshness,
    acr: &'static [(&'static str, Level)],
    amr: &'static [(&'static str, Method)],
    /// What `typ` of its access tokens says, in lower case; `jwt` is also what those have that say nothing.
    access_token_types: &'static [&'static str],
}

/// RFC 9068 §2.1.
const MARKED: &[&str] = &["at+jwt"];
/// For issuers whose access tokens are marked only if somebody switches that on.
const MARKED_OR_NOT: &[&str] = &["at+jwt", "jwt"];

/// Values of RFC 8176 that mean one of our methods and nothing weaker.
const RFC_8176: &[(&str, Method)] = &[
    ("pwd", Method::Password),
    ("pin", Method::Pin),
    ("otp", Method::Totp),
    ("hwk", Method::Webauthn),
    ("sms", Method::Sms),
];

const HABITS: &[Habits] = &[
    Habits {
        profile: Profile::Generic,
        name: "generic",
        acr_claim: "acr",
        asks_by_claim_only: false,
        groups_claim: "groups",
        freshness: Freshness::AuthTime,
        acr: &[],
        amr: &[],
        access_token_types: MARKED,
    },
    // Levels of authentication are numbers unless the realm maps them ("ACR to LoA Mapping").
    Habits {
        profile: Profile::Keycloak,
        name: "keycloak",
        acr_claim: "acr",
        asks_by_claim_only: false,
        groups_claim: "groups",
        freshness: Freshness::AuthTime,
        acr: &[("1", Level(1)), ("2", Level(2)), ("3", Level(3))],
        amr: &[],
        access_token_types: MARKED_OR_NOT,
    },
    // A second factor moves neither `auth_time` nor the session: it is in `amr` of the login that asked for it.
    Habits {
        profile: Profile::Auth0,
        name: "auth0",
        acr_claim: "acr",
        asks_by_claim_only: false,
        groups_claim: "groups",
        freshness: Freshness::AmrInTransaction,
        acr: &[("http://schemas.openid.net/pape/policies/2007/06/multi-factor", Level(2))],
        amr: &[],
        access_token_types: MARKED_OR_NOT,
    },
    // "Authentication contexts" c1 to c99, whose meaning each tenant defines.
    Habits {
        profile: Profile::Entra,
        name: "entra",
        acr_claim: "acrs",
        asks_by_claim_only: true,
        groups_claim: "groups",
        freshness: Freshness::AuthTime,
        acr: &[],
        amr: &[],
        access_token_types: MARKED_OR_NOT,
    },
    Habits {
        profile: Profile::Okta,
        name: "okta",
        acr_claim: "acr",
        asks_by_claim_only: false,
        groups_claim: "groups",
        freshness: Freshness::AuthTime,
        acr: &[
            ("urn:okta:loa:1fa:any", Level(1)),
            ("urn:okta:loa:2fa:any", Level(2)),
            ("phr", Level(2)),
            ("phrh", Level(3)),
        ],
        amr: RFC_8176,
        access_token_types: MARKED_OR_NOT,
    },
];

impl Profile {
    pub fn names() -> impl Iterator<Item = &'static str> {
        HABITS.iter().map(|habits| habits.name)
    }

    pub fn named(name: &str) -> Option<Profile> {
        HABITS.iter().find(|habits| habits.name == name).map(|habits| habits.profile)
    }

    pub fn name(self) -> &'static str {
        self.habits().name
    }

    pub fn default_claims(self) -> ClaimNames {
        ClaimNames { user: "sub".to_owned(), groups: self.habits().groups_claim.to_owned(), group_prefixes: Vec::new() }
    }

    pub fn default_assurance(self) -> Assurance {
        let Habits { acr, amr, .. } = self.habits();
        Assurance {
            acr: acr.iter().map(|(value, level)| ((*value).to_owned(), *level)).collect(),
            amr: amr.iter().map(|(value, method)| ((*value).to_owned(), *method)).collect(),
        }
    }

    pub fn default_freshness(self) -> Freshness {
        self.habits().freshness
    }

    /// The claim that says how strong a login was.
    pub fn acr_claim(self) -> &'static str {
        self.habits().acr_claim
    }

    pub fn access_token_types(self) -> impl Iterator<Item = &'static str> {
        self.habits().access_token_types.iter().copied()
    }

    /// Whether what proves who the client is must be for the very URL that it is sent to, and not for the issuer.
    pub fn asserts_to_endpoint(self) -> bool {
        self == Profile::Okta
    }

    /// It knows no `acr_values`: the wish goes into the `claims` parameter alone.
    pub fn asks_by_claim_only(self) -> bool {
        self.habits().asks_by_claim_only
    }

    fn habits(self) -> &'static Habits {
        HABITS.iter().find(|habits| habits.profile == self).unwrap_or(&HABITS[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_has_a_row_and_a_name_of_its_own() {
        for profile in [Profile::Generic, Profile::Keycloak, Profile::Auth0, Profile::Entra, Profile::Okta] {
            assert_eq!(Profile::named(profile.name()), Some(profile));
        }
    }
}
