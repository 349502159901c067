//! TLS towards backends: whom to believe, and what to show of oneself.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::super::super::section::{Complaint, Section};
use super::super::super::tree::Node;
use super::super::super::{BackendProtocol, BackendTls, ClientIdentity, TakenIn, values};
use super::super::path_in;
use super::super::tls::version;
use super::Surroundings;

const INSECURE: &str = "insecure_accept_any_certificate";

pub(super) fn tls(node: &Node, around: Surroundings<'_>) -> Option<BackendTls> {
    let section = Section::open("`tls` of a pool", node, around.problems)?;
    let usual = BackendTls::default();
    let tls = BackendTls {
        server_name: section.value("server_name", server_name),
        authorities: section.value("ca", |text| authorities(text, around)).unwrap_or_default(),
        identity: identity(&section, around),
        minimum_version: section.value("minimum_version", version).unwrap_or(usual.minimum_version),
        accepts_any_certificate: section.value(INSECURE, values::boolean).unwrap_or(usual.accepts_any_certificate),
    };
    if tls.accepts_any_certificate && section.has("ca") {
        let help = format!("leave out `{INSECURE}`, and the authorities count; or leave out `ca`");
        section
            .report_key("ca", Complaint::new("nobody looks at certificates, so these authorities mean nothing", help));
    }
    section.finish();
    Some(tls)
}

/// What is spoken with a pool's backends. Of the pool's own section.
pub(super) fn protocol(pool: &Section<'_>, is_tls: bool) -> Option<BackendProtocol> {
    let protocol = pool.value("protocol", |text| match text {
        "http1" => Ok(BackendProtocol::Http1),
        "h2" => Ok(BackendProtocol::H2),
        "h2c" => Ok(BackendProtocol::H2c),
        "auto" => Ok(BackendProtocol::Auto),
        _ => Err(Complaint::unknown("protocol towards backends", text, ["http1", "h2", "h2c", "auto"])),
    })?;
    match protocol {
        BackendProtocol::H2 if !pool.has("tls") => {
            let help = "give the pool `tls`, or write `protocol: h2c`, which is HTTP/2 in plain";
            pool.report_key("protocol", Complaint::new("`h2` is spoken over TLS", help));
        }
        BackendProtocol::H2c if is_tls => {
            let help = "write `protocol: h2`, or leave out `tls`";
            pool.report_key("protocol", Complaint::new("`h2c` is HTTP/2 in plain, and this pool has `tls`", help));
        }
        _ => {}
    }
    Some(protocol)
}

/// A name in DNS, or an address.
pub(super) fn server_name(text: &str) -> Result<ServerName<'static>, Complaint> {
    let address = text.parse::<IpAddr>().map(ServerName::from);
    address
        .or_else(|_| ServerName::try_from(text.to_owned()))
        .map_err(|_| format!("`{text}` is no name that a certificate has").into())
}

/// The certificates in a file, each of which can vouch for others.
pub(super) fn authorities(text: &str, around: Surroundings<'_>) -> Result<Vec<CertificateDer<'static>>, Complaint> {
    let help = "put the certificates of the backends' authorities into it, in PEM";
    let found = certificates(text, help, around)?;
    let mut roots = RootCertStore::empty();
    for certificate in &found {
        let unusable = |error| Complaint::new(format!("a certificate in `{text}` cannot be used: {error}"), help);
        roots.add(certificate.clone()).map_err(unusable)?;
    }
    Ok(found)
}

fn certificates(text: &str, help: &str, around: Surroundings<'_>) -> Result<Vec<CertificateDer<'static>>, Complaint> {
    let path = read_from(text, around)?;
    let unreadable = |error: &dyn std::fmt::Display| unreadable(&path, error, help);
    let found = CertificateDer::pem_file_iter(&path).map_err(|error| unreadable(&error))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|error| unreadable(&error))?;
    if found.is_empty() { Err(unreadable(&"there is no certificate in it")) } else { Ok(found) }
}

/// Both files of a pair, or neither.
fn identity(section: &Section<'_>, around: Surroundings<'_>) -> Option<ClientIdentity> {
    const KEY_HELP: &str = "put the private key in PEM into it, without a passphrase";
    let certificate_help = "put this host's certificate and its chain into it, in PEM";
    let chain = section.value("client_certificate", |text| certificates(text, certificate_help, around));
    let key = section.value("client_key", |text| {
        let path = read_from(text, around)?;
        PrivateKeyDer::from_pem_file(&path).map_err(|error| unreadable(&path, &error, KEY_HELP))
    });
    for (key, other) in [("client_certificate", "client_key"), ("client_key", "client_certificate")] {
        if section.has(key) && !section.has(other) {
            section.report_key(key, format!("`{key}` needs `{other}`"));
        }
    }
    match CertifiedKey::from_der(chain?, key?, &aws_lc_rs::default_provider()) {
        Ok(pair) => Some(ClientIdentity(Arc::new(pair))),
        Err(error) => {
            let message = format!("this key and the certificate make no pair: {error}");
            section
                .report_key("client_key", Complaint::new(message, "give the key that the certificate was issued for"));
            None
        }
    }
}

/// The path of a file that is followed from now on.
fn read_from(text: &str, around: Surroundings<'_>) -> Result<std::path::PathBuf, Complaint> {
    let path = path_in(around.folder, text)?;
    // Before it is read: what changes meanwhile is read again.
    around.files.borrow_mut().push(TakenIn::now(&path));
    Ok(path)
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display, help: &str) -> Complaint {
    Complaint::new(format!("{} cannot be read: {error}", path.display()), help)
}
