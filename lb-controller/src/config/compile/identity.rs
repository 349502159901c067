//! Identity providers.

use std::path::Path;
use std::time::Duration;

use lb_policy::{Level, Method};

use super::super::section::{Complaint, Names, Problems, Section};
use super::super::tree::Node;
use super::super::{
    Assurance, ClaimNames, ClientAuthentication, ClientKeyConfig, Freshness, IdentityProvider, PeerConfig, Profile,
    Secret, is_https_url, values,
};
use super::path_in;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_CLOCK_SKEW: Duration = Duration::from_secs(5);
const DEFAULT_KEYS_COOLDOWN: Duration = Duration::from_secs(30);
/// The login page shows each, and each is asked for its metadata.
const MOST_PROVIDERS: usize = 16;

pub(super) fn providers(config: &Section<'_>, folder: &Path) -> Vec<IdentityProvider> {
    let nodes = config.list("identity_providers");
    if let Some(surplus) = nodes.get(MOST_PROVIDERS) {
        config.problems.report(&surplus.place, format!("at most {MOST_PROVIDERS} identity providers are served"));
    }
    let mut names = Names::of("identity provider");
    let mut providers: Vec<IdentityProvider> = Vec::new();
    for node in nodes {
        let Some(provider) = provider(node, &mut names, folder, config.problems) else { continue };
        let is_same =
            |other: &IdentityProvider| other.issuer == provider.issuer && other.client_id == provider.client_id;
        if providers.iter().any(is_same) {
            config.problems.report(&node.place, "another identity provider has this issuer and client_id");
        }
        providers.push(provider);
    }
    providers
}

fn provider(node: &Node, names: &mut Names, folder: &Path, problems: &Problems) -> Option<IdentityProvider> {
    let section = Section::open("an identity provider", node, problems)?;
    let name = section.required_value("name", |text| names.unique(values::name(text)?));
    let profile = section.value("profile", profile).unwrap_or_default();
    let issuer = section.required_value("issuer", https_url);
    let client_id = section.required_value("client_id", text);
    let client_secret = client_secret(&section, folder);
    let client_authentication = section.value("client_authentication", client_authentication);
    let client_key = client_key(&section, folder);
    let provider = IdentityProvider {
        label: section.value("label", text).or_else(|| name.clone()).unwrap_or_default(),
        client_secret: None,
        client_authentication,
        client_key,
        scopes: scopes(&section),
        claims: claim_names(&section, profile),
        assurance: assurance(&section, profile),
        freshness: section.value("freshness", freshness).unwrap_or(profile.default_freshness()),
        peer: peer(&section, folder),
        profile,
        name: name.unwrap_or_default(),
        issuer: issuer.unwrap_or_default(),
        client_id: client_id.unwrap_or_default(),
    };
    section.finish();
    // What could not be read was told, and refuses the whole file.
    let client_secret = client_secret?;
    (!provider.name.is_empty()).then(|| IdentityProvider { client_secret, ..provider })
}

/// `Some(None)`: there is none, which makes this a public client. The text is never repeated in messages.
pub(super) fn client_secret(section: &Section<'_>, folder: &Path) -> Option<Option<Secret>> {
    let file = section.value("client_secret_file", |text| {
        let path = path_in(folder, text)?;
        let secret = std::fs::read_to_string(&path).map_err(|error| {
            Complaint::new(format!("{} cannot be read: {error}", path.display()), "put the client's secret into it")
        })?;
        secret_text(secret.trim_end())
    });
    let written = section.get("client_secret").map(|node| (node, node.read(section.problems, secret_text)));
    match (section.has("client_secret_file"), written) {
        (true, Some((node, _))) => {
            section.problems.report(&node.place, "the secret is given twice: here and by `client_secret_file`");
            None
        }
        (true, None) => file.map(Some),
        (false, Some((_, secret))) => secret.map(Some),
        (false, None) => Some(None),
    }
}

/// Whether it is a key that can be used is found out where it is used.
fn client_key(section: &Section<'_>, folder: &Path) -> Option<ClientKeyConfig> {
    const LONGEST_BYTES: u64 = 16 * 1024;
    let id = section.value("client_key_id", text);
    let node = section.get("client_key_file")?;
    if section.has("client_secret") || section.has("client_secret_file") {
        section.problems.report(&node.place, "the client has a secret as well: it proves itself by one of the two");
    }
    let (file, pem) = node.read(section.problems, |text| {
        let path = path_in(folder, text)?;
        let unreadable = |error: std::io::Error| {
            Complaint::new(
                format!("{} cannot be read: {error}", path.display()),
                "put the client's private key into it",
            )
        };
        if std::fs::metadata(&path).map_err(unreadable)?.len() > LONGEST_BYTES {
            return Err("a private key in PEM is shorter than 16 KiB".into());
        }
        let pem = std::fs::read_to_string(&path).map_err(unreadable)?;
        Ok((path, Secret::new(pem)))
    })?;
    Some(ClientKeyConfig { file, pem, id })
}

fn secret_text(text: &str) -> Result<Secret, Complaint> {
    if text.is_empty() || text.len() > 1024 || text.chars().any(char::is_control) {
        return Err("a client's secret has 1 to 1024 bytes on one line".into());
    }
    Ok(Secret::new(text.to_owned()))
}

fn scopes(section: &Section<'_>) -> Vec<String> {
    let mut scopes = section.values("scopes", scope);
    if !section.has("scopes") {
        scopes = vec!["openid".to_owned(), "profile".to_owned()];
    }
    // Without it there is no ID token (OpenID Connect Core §3.1.2.1).
    if !scopes.iter().any(|scope| scope == "openid") {
        scopes.insert(0, "openid".to_owned());
    }
    scopes
}

/// RFC 6749 §3.3.
pub(super) fn scope(text: &str) -> Result<String, Complaint> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    if text.is_empty() || text.len() > 256 || !text.bytes().all(plain) {
        return Err(Complaint::new(format!("`{text}` is no scope"), "write each scope as an entry of its own"));
    }
    Ok(text.to_owned())
}

pub(super) fn claim_names(section: &Section<'_>, profile: Profile) -> ClaimNames {
    let default = profile.default_claims();
    ClaimNames {
        user: section.value("user_claim", text).unwrap_or(default.user),
        groups: section.value("groups_claim", text).unwrap_or(default.groups),
        group_prefixes: section.values("group_prefixes", text),
    }
}

pub(super) fn assurance(section: &Section<'_>, profile: Profile) -> Assurance {
    let default = profile.default_assurance();
    let acr = map(section, "acr", "`acr`", |text| values::number(1..=9)(text).map(|level| Level(level as u8)));
    let amr = map(section, "amr", "`amr`", |text| {
        let known = Method::all().map(Method::name);
        Method::from_name(text).ok_or_else(|| Complaint::unknown("method", text, known))
    });
    Assurance { acr: acr.unwrap_or(default.acr), amr: amr.unwrap_or(default.amr) }
}

/// `word: what it means here`, for words of the issuer's choosing.
fn map<T>(
    section: &Section<'_>,
    key: &'static str,
    what: &'static str,
    read: impl Fn(&str) -> Result<T, Complaint>,
) -> Option<Vec<(String, T)>> {
    let inner = Section::open(what, section.get(key)?, section.problems)?;
    let entries = inner.entries().iter();
    Some(entries.filter_map(|(word, node)| Some((word.name.clone(), node.read(section.problems, &read)?))).collect())
}

pub(super) fn peer(section: &Section<'_>, folder: &Path) -> PeerConfig {
    let seconds = Duration::from_secs;
    PeerConfig {
        ca: section.value("ca", |text| path_in(folder, text)),
        timeout: section
            .value("timeout", values::duration(Duration::from_millis(100)..=seconds(30)))
            .unwrap_or(DEFAULT_TIMEOUT),
        clock_skew: section
            .value("clock_skew", values::duration(seconds(0)..=seconds(300)))
            .unwrap_or(DEFAULT_CLOCK_SKEW),
        keys_cooldown: section
            .value("keys_cooldown", values::duration(seconds(1)..=seconds(3600)))
            .unwrap_or(DEFAULT_KEYS_COOLDOWN),
    }
}

pub(super) fn https_url(text: &str) -> Result<String, Complaint> {
    if !is_https_url(text) || text.contains('?') {
        return Err(Complaint::new(
            format!("`{text}` is no https URL"),
            "write it exactly as the issuer's tokens have it, such as `https://idp.example/realms/staff`",
        ));
    }
    Ok(text.to_owned())
}

pub(super) fn text(text: &str) -> Result<String, Complaint> {
    if text.is_empty() || text.len() > 256 || text.chars().any(char::is_control) {
        return Err("1 to 256 bytes without control characters are meant here".into());
    }
    Ok(text.to_owned())
}

pub(super) fn profile(text: &str) -> Result<Profile, Complaint> {
    Profile::named(text).ok_or_else(|| Complaint::unknown("profile", text, Profile::names()))
}

fn freshness(text: &str) -> Result<Freshness, Complaint> {
    match text {
        "auth_time" => Ok(Freshness::AuthTime),
        "amr_in_tx" => Ok(Freshness::AmrInTransaction),
        "gateway_clock" => Ok(Freshness::GatewayClock),
        _ => Err(Complaint::unknown("freshness", text, ["auth_time", "amr_in_tx", "gateway_clock"])),
    }
}

fn client_authentication(text: &str) -> Result<ClientAuthentication, Complaint> {
    match text {
        "client_secret_basic" => Ok(ClientAuthentication::Basic),
        "client_secret_post" => Ok(ClientAuthentication::Post),
        _ => Err(Complaint::unknown("client authentication", text, ["client_secret_basic", "client_secret_post"])),
    }
}
