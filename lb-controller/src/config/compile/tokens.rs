//! Issuers of access tokens.

use std::path::Path;

use super::super::section::{Complaint, Names, Problems, Section};
use super::super::tree::Node;
use super::super::{IntrospectionClient, TokenIssuer, values};
use super::identity::{assurance, claim_names, client_secret, https_url, peer, profile, text};

/// A token names its issuer, and all are looked through.
const MOST_ISSUERS: usize = 32;
/// What is verified unless the configuration says otherwise.
const DEFAULT_ALGORITHMS: [&str; 4] = ["ES256", "EdDSA", "PS256", "RS256"];
const ALGORITHMS: [&str; 9] = ["ES256", "ES384", "EdDSA", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"];
/// Kinds that the `typ` of an access token may name, in lower case.
const TYPES: [&str; 2] = ["at+jwt", "jwt"];

pub(super) fn compile(config: &Section<'_>, folder: &Path) -> Vec<TokenIssuer> {
    let nodes = config.list("tokens");
    if let Some(surplus) = nodes.get(MOST_ISSUERS) {
        config.problems.report(&surplus.place, format!("tokens of at most {MOST_ISSUERS} issuers are taken"));
    }
    let mut names = Names::of("token issuer");
    let mut issuers: Vec<TokenIssuer> = Vec::new();
    for node in nodes {
        let Some(issuer) = issuer(node, &mut names, folder, config.problems) else { continue };
        if issuers.iter().any(|other| other.issuer == issuer.issuer) {
            config.problems.report(&node.place, "another entry has this issuer: a token names no more than that");
        }
        if issuer.introspection.is_some() && issuers.iter().any(|other| other.introspection.is_some()) {
            let help = "keep `introspection` at one issuer";
            let message = "tokens that only their issuer can read do not name it: one issuer can be asked";
            config.problems.report(&node.place, Complaint::new(message, help));
        }
        issuers.push(issuer);
    }
    issuers
}

fn issuer(node: &Node, names: &mut Names, folder: &Path, problems: &Problems) -> Option<TokenIssuer> {
    let section = Section::open("a token issuer", node, problems)?;
    let name = section.required_value("name", |text| names.unique(values::name(text)?));
    let profile = section.value("profile", profile).unwrap_or_default();
    let issuer = section.required_value("issuer", https_url);
    section.require_list("audiences");
    let mut algorithms = section.values("algorithms", |text| known("algorithm", text, &ALGORITHMS));
    if !section.has("algorithms") {
        algorithms = DEFAULT_ALGORITHMS.map(str::to_owned).to_vec();
    }
    let mut types = section.values("types", |text| known("type", &text.to_ascii_lowercase(), &TYPES));
    if !section.has("types") {
        types = profile.access_token_types().map(str::to_owned).collect();
    }
    let issuer = TokenIssuer {
        audiences: section.values("audiences", text),
        algorithms,
        types,
        claims: claim_names(&section, profile),
        assurance: assurance(&section, profile),
        dpop_nonce: section.value("dpop_nonce", values::boolean).unwrap_or(false),
        introspection: introspection(&section, folder),
        peer: peer(&section, folder),
        profile,
        name: name.unwrap_or_default(),
        issuer: issuer.unwrap_or_default(),
    };
    section.finish();
    // What could not be read was told, and refuses the whole file.
    (!issuer.name.is_empty()).then_some(issuer)
}

fn introspection(section: &Section<'_>, folder: &Path) -> Option<IntrospectionClient> {
    let node = section.get("introspection")?;
    let inner = Section::open("`introspection`", node, section.problems)?;
    let client_id = inner.required_value("client_id", text);
    let secret = client_secret(&inner, folder);
    if matches!(secret, Some(None)) {
        let help = "issuers answer only clients that prove who they are (RFC 7662 §2.1)";
        section.problems.report(&node.place, Complaint::new("`introspection` needs a client secret", help));
    }
    inner.finish();
    Some(IntrospectionClient { client_id: client_id?, client_secret: secret?? })
}

fn known(what: &str, text: &str, known: &[&str]) -> Result<String, Complaint> {
    match known.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(Complaint::unknown(what, text, known.iter().copied())),
    }
}
