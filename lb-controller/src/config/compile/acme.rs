//! Certificates that are ordered.

use std::path::Path;
use std::time::Duration;

use super::super::section::{Complaint, Problems, Section};
use super::super::tree::Node;
use super::super::{AcmeConfig, ChallengeKind, ExternalAccount, OrderedCertificate, Secret, Service, values};
use super::identity::{https_url, text};
use super::path_in;

/// Let's Encrypt takes as many in one certificate.
const MOST_NAMES: usize = 100;
const MOST_CERTIFICATES: usize = 1_000;
const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn compile(config: &Section<'_>, folder: &Path, services: &[Service]) -> Option<AcmeConfig> {
    let section = Section::open("`acme`", config.get("acme")?, config.problems)?;
    let directory = section.required_value("directory", |text| {
        let help = "write it as the authority gives it, such as https://acme-v02.api.letsencrypt.org/directory";
        https_url(text).map_err(|complaint| Complaint::new(complaint.message, help))
    });
    agreed(&section);
    let certificates = certificates(&section);
    let challenges = challenges(&section, services);
    let compiled = AcmeConfig {
        directory: directory.unwrap_or_default(),
        ca: section.value("ca", |text| path_in(folder, text)),
        contact: section.values("contact", email),
        challenges,
        certificates,
        renew_before: section.value("renew_before", values::duration(Duration::from_secs(1)..=365 * DAY)),
        storage: section.value("storage", |text| path_in(folder, text)),
        external_account: section.get("external_account").and_then(|node| external(node, config.problems)),
    };
    section.finish();
    Some(compiled)
}

/// Nobody agrees to terms by leaving something out.
fn agreed(section: &Section<'_>) {
    section.required_value("terms_agreed", |text| match values::boolean(text)? {
        true => Ok(()),
        false => {
            Err(Complaint::new("without an agreement nothing can be ordered", "read the authority's terms of service"))
        }
    });
}

fn certificates(section: &Section<'_>) -> Vec<OrderedCertificate> {
    let nodes = section.require_list("certificates");
    if let Some(surplus) = nodes.get(MOST_CERTIFICATES) {
        section.problems.report(&surplus.place, format!("at most {MOST_CERTIFICATES} certificates are ordered"));
    }
    let mut certificates: Vec<OrderedCertificate> = Vec::new();
    for node in nodes {
        let Some(certificate) = certificate(node, section.problems) else { continue };
        let first = certificate.names.first();
        if certificates.iter().any(|other| other.names.first() == first) {
            let help = "a certificate is kept under its first name: put another name first, or order one certificate";
            section.problems.report(&node.place, Complaint::new("another certificate has this first name", help));
        }
        certificates.push(certificate);
    }
    certificates
}

fn certificate(node: &Node, problems: &Problems) -> Option<OrderedCertificate> {
    let section = Section::open("an ordered certificate", node, problems)?;
    let mut names: Vec<String> = Vec::new();
    for node in section.require_list("names") {
        let Some(name) = node.read(problems, host_name) else { continue };
        if names.contains(&name) {
            problems.report(&node.place, "this name is listed already");
        } else {
            names.push(name);
        }
    }
    if names.len() > MOST_NAMES {
        problems.report(&node.place, format!("a certificate has at most {MOST_NAMES} names"));
    }
    section.finish();
    (!names.is_empty()).then(|| OrderedCertificate { names, place: node.place.clone() })
}

fn host_name(text: &str) -> Result<String, Complaint> {
    if text.starts_with("*.") {
        let help = "an authority wants a DNS record for wildcards, which this edge cannot write: list the names, or order it \
                    elsewhere and put its files into `certificates`";
        return Err(Complaint::new("a wildcard cannot be ordered", help));
    }
    let name = lb_policy::canonical_host(text).map_err(|error| Complaint::from(format!("this is no host: {error}")))?;
    let is_address = name.starts_with('[') || name.parse::<std::net::IpAddr>().is_ok();
    if is_address || name != text.to_ascii_lowercase() {
        return Err("a host name is meant here, without a port".into());
    }
    Ok(name)
}

/// Both unless the file says otherwise, and HTTP where it can be answered.
fn challenges(section: &Section<'_>, services: &[Service]) -> Vec<ChallengeKind> {
    let answers_http = services.iter().any(|service| service.plain_http);
    if !section.has("challenges") {
        let http = answers_http.then_some(ChallengeKind::Http01);
        return [ChallengeKind::TlsAlpn01].into_iter().chain(http).collect();
    }
    let mut kinds = Vec::new();
    for node in section.require_list("challenges") {
        let kind = node.read(section.problems, |text| match text {
            "tls-alpn-01" => Ok(ChallengeKind::TlsAlpn01),
            "http-01" => Ok(ChallengeKind::Http01),
            _ => Err(Complaint::unknown("challenge", text, ["tls-alpn-01", "http-01"])),
        });
        kinds.extend(kind.filter(|kind| !kinds.contains(kind)));
    }
    kinds
}

fn email(text: &str) -> Result<String, Complaint> {
    let address = text.strip_prefix("mailto:").unwrap_or(text);
    let is_one = address.split_once('@').is_some_and(|(local, host)| !local.is_empty() && host.contains('.'));
    if !is_one || address.contains(|char: char| char.is_whitespace() || char == ',' || char == '?') {
        return Err(Complaint::new(format!("`{text}` is no e-mail address"), "write one such as ops@shop.example"));
    }
    Ok(address.to_owned())
}

fn external(node: &Node, problems: &Problems) -> Option<ExternalAccount> {
    let section = Section::open("an external account", node, problems)?;
    let key_id = section.required_value("key_id", text);
    let hmac_key = section.required_value("hmac_key", |text| {
        use base64::Engine as _;
        let key = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
        match key {
            Ok(key) if key.len() >= 16 => Ok(Secret::new(text.trim_end_matches('=').to_owned())),
            _ => Err(Complaint::from("this is no key: it is given in Base64url, and has 16 bytes or more")),
        }
    });
    section.finish();
    Some(ExternalAccount { key_id: key_id?, hmac_key: hmac_key? })
}
