//! Client certificates.

use std::path::Path;

use super::super::section::{Complaint, Section};
use super::super::{CertificateUser, ClientCertificates, values};
use super::path_in;

pub(super) fn compile(config: &Section<'_>, folder: &Path) -> Option<ClientCertificates> {
    let section = Section::open("`client_certificates`", config.get("client_certificates")?, config.problems)?;
    let ca = section.required_value("ca", |text| path_in(folder, text));
    let user = section.value("user", user);
    let provider = section.value("provider", values::name);
    section.finish();
    Some(ClientCertificates { ca: ca?, user, provider })
}

fn user(text: &str) -> Result<CertificateUser, Complaint> {
    match text {
        "common_name" => Ok(CertificateUser::CommonName),
        "email" => Ok(CertificateUser::Email),
        _ => Err(Complaint::unknown("name", text, ["common_name", "email"])),
    }
}
