//! What is known of somebody once an issuer's word was verified. All of this module's ways end here.

use lb_policy::{Level, Method, UnixSeconds};

use super::jwt::{BadToken, Claims};
use crate::config::{Assurance, ClaimNames};

/// More would not fit a session's cookie.
const MOST_GROUPS: usize = 64;
const MOST_GROUP_BYTES: usize = 1024;
const LONGEST_NAME_BYTES: usize = 256;

/// A person as an identity provider knows them, and how that was proved. Only this module's verification makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VerifiedClaims {
    /// The provider's name in the configuration.
    pub(crate) provider: String,
    pub(crate) subject: String,
    /// What rules and sessions call the user.
    pub(crate) user: String,
    pub(crate) groups: Vec<String>,
    /// What the provider vouches for; level 1 when it says nothing that means anything here.
    pub(crate) level: Level,
    /// What the provider said of that, as it said it.
    pub(crate) acr: Option<String>,
    /// What the user did there, as far as the configuration trusts its words for that.
    pub(crate) methods: Vec<Method>,
    /// When the user proved it.
    pub(crate) proved_at: UnixSeconds,
    /// The session at the provider, which ends ours when it ends.
    pub(crate) provider_session: Option<String>,
    /// To be shown to the provider at the logout, and to nobody else.
    pub(crate) id_token: String,
    /// Keeps others from making one.
    _verified: Verified,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verified;

/// The parts that only the ID token's verification knows.
pub(super) struct Proof {
    pub(super) provider: String,
    pub(super) level: Level,
    pub(super) acr: Option<String>,
    pub(super) methods: Vec<Method>,
    pub(super) proved_at: UnixSeconds,
    pub(super) id_token: String,
}

impl VerifiedClaims {
    pub(super) fn new(claims: &Claims, names: &ClaimNames, proof: Proof) -> Result<VerifiedClaims, BadToken> {
        let Proof { provider, level, acr, methods, proved_at, id_token } = proof;
        Ok(VerifiedClaims {
            subject: claims.required_text("sub")?.to_owned(),
            user: user_name(claims, names)?,
            groups: groups(claims, names, &provider),
            provider,
            level,
            acr,
            methods,
            proved_at,
            provider_session: claims.text("sid").map(str::to_owned),
            id_token,
            _verified: Verified,
        })
    }
}

/// Names end up in logs, headers of backends and cookies.
pub(super) fn user_name(claims: &Claims, names: &ClaimNames) -> Result<String, BadToken> {
    let name = claims.text(&names.user).ok_or(BadToken::Claim("that names the user"))?;
    if name.is_empty() || name.len() > LONGEST_NAME_BYTES || name.chars().any(char::is_control) {
        return Err(BadToken::Claim("that names the user"));
    }
    Ok(name.to_owned())
}

/// The groups that the configuration wants. What does not fit is left out, loudly: a rule that needs one of these then
/// refuses.
pub(super) fn groups(claims: &Claims, names: &ClaimNames, issuer: &str) -> Vec<String> {
    let is_wanted = |group: &&str| {
        let prefixes = &names.group_prefixes;
        // One byte says how long it is in a cookie.
        group.len() <= usize::from(u8::MAX)
            && (prefixes.is_empty() || prefixes.iter().any(|prefix| group.starts_with(prefix.as_str())))
    };
    let mut bytes = 0;
    let all: Vec<_> = at_path(claims, &names.groups).into_iter().filter(is_wanted).collect();
    let fits = |group: &&&str| {
        bytes += group.len() + 1;
        bytes <= MOST_GROUP_BYTES
    };
    let kept: Vec<String> = all.iter().take(MOST_GROUPS).take_while(fits).map(|group| (*group).to_owned()).collect();
    if kept.len() < all.len() {
        let (all, kept) = (all.len(), kept.len());
        tracing::warn!(
            issuer,
            all,
            kept,
            "a user has more groups than fit; choose those that rules need with `group_prefixes`"
        );
    }
    // Microsoft Entra leaves the list out when it is long, and says where it could be asked for.
    if claims.get("_claim_names").and_then(|names_elsewhere| names_elsewhere.get(&names.groups)).is_some() {
        tracing::warn!(issuer, "a user has so many groups that the issuer leaves them out; limit which ones it sends");
    }
    kept
}

/// `groups`, or inside another claim: `realm_access.roles`.
fn at_path<'c>(claims: &'c Claims, path: &str) -> Vec<&'c str> {
    match (claims.get(path), path.split_once('.')) {
        (None, Some((outer, inner))) => {
            let values = claims.get(outer).and_then(|claim| claim.get(inner)).and_then(serde_json::Value::as_array);
            values.into_iter().flatten().filter_map(serde_json::Value::as_str).collect()
        }
        _ => claims.texts(path),
    }
}

/// The value of the claim that says how strong a login was; of several those that fit a log.
pub(super) fn acr_text(claims: &Claims, acr_claim: &str) -> Option<String> {
    let text = claims.texts(acr_claim).join(" ");
    let end = text.floor_char_boundary(LONGEST_NAME_BYTES);
    (!text.is_empty()).then(|| text[..end].to_owned())
}

/// The level that the claim for it vouches for, and the methods that `amr` lists.
pub(super) fn assurance(claims: &Claims, acr_claim: &str, assurance: &Assurance) -> (Option<Level>, Vec<Method>) {
    let level = claims.texts(acr_claim).into_iter().filter_map(|acr| assurance.level_of(acr)).max();
    let mut methods = Vec::new();
    for value in claims.texts("amr") {
        let known = assurance.amr.iter().find(|(known, _)| known == value).map(|(_, method)| *method);
        methods.extend(known.filter(|method| !methods.contains(method)));
    }
    (level, methods)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Profile;

    fn claims(value: serde_json::Value) -> Claims {
        Claims::of(value.as_object().unwrap().clone())
    }

    #[test]
    fn groups_are_read_from_where_the_configuration_says_and_bounded() {
        let many: Vec<String> = (0..500).map(|number| format!("group-{number}")).collect();
        let rows = [
            ("a list", "groups", json!({"groups": ["a", "b"]}), &[][..], vec!["a", "b"]),
            ("one", "groups", json!({"groups": "a"}), &[], vec!["a"]),
            ("none", "groups", json!({}), &[], vec![]),
            ("of another type", "groups", json!({"groups": {"a": 1}}), &[], vec![]),
            ("numbers among them", "groups", json!({"groups": ["a", 1, null]}), &[], vec!["a"]),
            ("inside", "realm_access.roles", json!({"realm_access": {"roles": ["a"]}}), &[], vec!["a"]),
            (
                "a name with dots",
                "https://x.example/groups",
                json!({"https://x.example/groups": ["a"]}),
                &[],
                vec!["a"],
            ),
            ("chosen by prefix", "groups", json!({"groups": ["lb-a", "other"]}), &["lb-"], vec!["lb-a"]),
        ];
        for (name, path, value, prefixes, expected) in rows {
            let names = ClaimNames {
                groups: path.to_owned(),
                group_prefixes: prefixes.iter().map(|prefix| (*prefix).to_owned()).collect(),
                ..Profile::Generic.default_claims()
            };
            assert_eq!(groups(&claims(value), &names, "idp"), expected, "{name}");
        }
        let kept = groups(&claims(json!({ "groups": many })), &Profile::Generic.default_claims(), "idp");
        assert_eq!((kept.len(), kept.last().map(String::as_str)), (64, Some("group-63")));
    }

    #[test]
    fn only_names_that_can_be_shown_name_a_user() {
        let names = Profile::Generic.default_claims();
        let rows = [
            (json!({"sub": "carol"}), true),
            (json!({"sub": ""}), false),
            (json!({"sub": "a\nb"}), false),
            (json!({"sub": "x".repeat(257)}), false),
            (json!({"sub": 7}), false),
            (json!({}), false),
        ];
        for (value, expected) in rows {
            assert_eq!(user_name(&claims(value.clone()), &names).is_ok(), expected, "{value}");
        }
    }

    #[test]
    fn acr_is_compared_exactly_and_the_highest_of_several_counts() {
        let map = Assurance {
            acr: vec![("silver".into(), Level(1)), ("gold".into(), Level(2))],
            amr: vec![("otp".into(), Method::Totp)],
        };
        let rows = [
            (json!({"acr": "gold"}), Some(Level(2)), vec![]),
            (json!({"acr": "Gold"}), None, vec![]),
            (json!({"acr": "gold "}), None, vec![]),
            (json!({"acr": ["silver", "gold"]}), Some(Level(2)), vec![]),
            (json!({"acr": 2}), None, vec![]),
            (json!({"amr": ["pwd", "otp", "otp"]}), None, vec![Method::Totp]),
            (json!({}), None, vec![]),
        ];
        for (value, level, methods) in rows {
            assert_eq!(assurance(&claims(value.clone()), "acr", &map), (level, methods), "{value}");
        }
        assert_eq!(map.values_reaching(Level(1)), ["silver", "gold"]);
        assert_eq!(map.values_reaching(Level(2)), ["gold"]);
        assert!(map.values_reaching(Level(3)).is_empty());
    }
}
