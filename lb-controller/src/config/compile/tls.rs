//! Certificates, and how TLS is spoken with clients.

use std::path::Path;
use std::time::Duration;

use super::super::section::{Complaint, Problems, Section};
use super::super::tree::Node;
use super::super::{Alpn, CertificateFiles, TlsConfig, TlsVersion, values};
use super::path_in;

/// RFC 8446 §4.6.1: no ticket lives longer than a week, and one may be taken for twice its time.
const LONGEST_TICKET_LIFETIME: Duration = Duration::from_secs(7 * 86_400 / 2);
/// Keys that change faster resume nothing.
const SHORTEST_TICKET_LIFETIME: Duration = Duration::from_secs(60);

pub(super) fn certificates(config: &Section<'_>, folder: &Path) -> Vec<CertificateFiles> {
    let nodes = config.list("certificates").iter();
    nodes.filter_map(|node| certificate(node, folder, config.problems)).collect()
}

fn certificate(node: &Node, folder: &Path, problems: &Problems) -> Option<CertificateFiles> {
    let section = Section::open("a certificate", node, problems)?;
    let certificate = section.required_value("certificate", |text| path_in(folder, text));
    let key = section.required_value("key", |text| path_in(folder, text));
    section.finish();
    Some(CertificateFiles { certificate: certificate?, key: key?, place: Some(node.place.clone()) })
}

pub(super) fn compile(config: &Section<'_>, folder: &Path) -> TlsConfig {
    let usual = TlsConfig::default();
    let Some(section) = config.get("tls").and_then(|node| Section::open("`tls`", node, config.problems)) else {
        return usual;
    };
    let alpn = if section.has("alpn") { protocols(&section) } else { usual.alpn };
    let compiled = TlsConfig {
        minimum_version: section.value("minimum_version", version).unwrap_or(usual.minimum_version),
        alpn,
        ticket_keys: section.value("ticket_keys", |text| path_in(folder, text)),
        ticket_lifetime: section
            .value("ticket_lifetime", values::duration(SHORTEST_TICKET_LIFETIME..=LONGEST_TICKET_LIFETIME))
            .unwrap_or(usual.ticket_lifetime),
    };
    section.finish();
    compiled
}

pub(super) fn version(text: &str) -> Result<TlsVersion, Complaint> {
    match text {
        "1.2" => Ok(TlsVersion::V1_2),
        "1.3" => Ok(TlsVersion::V1_3),
        "1.0" | "1.1" => {
            Err(Complaint::new(format!("TLS {text} is not spoken: it is broken (RFC 8996)"), "write 1.2 or 1.3"))
        }
        _ => Err(Complaint::new(format!("`{text}` is no version of TLS"), "write 1.2 or 1.3")),
    }
}

fn protocols(section: &Section<'_>) -> Vec<Alpn> {
    let mut protocols = Vec::new();
    for node in section.require_list("alpn") {
        let protocol = node.read(section.problems, |text| match text {
            "h2" => Ok(Alpn::H2),
            "http/1.1" => Ok(Alpn::Http1),
            _ => Err(Complaint::unknown("protocol", text, ["h2", "http/1.1"])),
        });
        let Some(protocol) = protocol else { continue };
        if protocols.contains(&protocol) {
            section.problems.report(&node.place, "this protocol is listed already");
        } else {
            protocols.push(protocol);
        }
    }
    protocols
}
