//! From a file to a [`Config`] in which nothing can be wrong, or to all that is wrong with the file.

use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Diagnostics};
use super::section::{Complaint, Problems, Section};
use super::{CertificateFiles, Config, tree, values};

mod audit;
mod client_certificates;
mod decapsulate;
mod factors;
mod identity;
mod limits;
mod lists;
mod nat;
mod pages;
mod policy_test;
mod pool;
mod route;
mod rule;
mod samples;
mod service;
mod signals;
mod step_up;
mod tokens;
mod user;
mod vocabulary;

/// Where state is kept unless the file says otherwise.
const DEFAULT_STATE_DIR: &str = "/var/lib/lb";

/// Compiles `source`. Relative paths in it start at `folder`; `file` is how messages name it.
pub(super) fn compile(file: &str, source: &str, folder: &Path) -> Result<Config, Diagnostics> {
    let root = tree::parse(source).map_err(|error| {
        let help = "reading stops at the first place that is no YAML; what follows is not checked yet".to_owned();
        let diagnostic = Diagnostic { place: Some(error.place), message: error.message, help: Some(help) };
        Diagnostics::new(file, source, vec![diagnostic])
    })?;
    if matches!(root.value, tree::Value::Nothing) {
        let help = "the least it needs is `pools` and `routes`";
        return Err(Diagnostics::of_whole_file(file, "the file is empty".to_owned(), help));
    }
    let problems = Problems::default();
    let config =
        Section::open("the configuration", &root, &problems).and_then(|section| whole(section, source, folder));
    match config {
        Some(config) if problems.count() == 0 => Ok(config),
        _ => Err(Diagnostics::new(file, source, problems.into_list())),
    }
}

fn whole(section: Section<'_>, source: &str, folder: &Path) -> Option<Config> {
    let problems = section.problems;
    let path = |text: &str| path_in(folder, text);
    let (limits, new_flows) = limits::defaults(&section);
    let services = service::compile(&section, &limits);
    let pools = pool::compile(&section, &services);
    let client_certificates = client_certificates::compile(&section, folder);
    let routes = route::compile(&section, &services, &pools, client_certificates.is_some());
    let step_up = step_up::compile(&section);
    let definitions = vocabulary::compile(&section, &routes, folder);
    let (pages, page_files) = pages::compile(&section, folder);
    let rules = rule::compile(&section, source, &step_up.levels, &definitions.vocabulary);
    let config = Config {
        interfaces: service::interfaces(&section),
        state_dir: section.value("state_dir", path).unwrap_or_else(|| DEFAULT_STATE_DIR.into()),
        metrics: service::metrics(&section, &services),
        certificates: section
            .list("certificates")
            .iter()
            .filter_map(|node| certificate(node, folder, problems))
            .collect(),
        users: user::compile(&section),
        identity_providers: identity::providers(&section, folder),
        tokens: tokens::compile(&section, folder),
        client_certificates,
        trusted_proxies: section.values("trusted_proxies", values::network),
        trusted_origins: section.values("trusted_origins", values::origin),
        protected_networks: section.values("protected_networks", values::network),
        decapsulate: decapsulate::compile(&section),
        lists: lists::compile(&section, folder),
        nat: nat::compile(&section, &services),
        factors: factors::compile(&section, folder),
        step_up,
        audit: audit::compile(&section, folder),
        rules: rules.unwrap_or_default().into(),
        rates: definitions.rates,
        taken_in: definitions.taken_in.into_iter().chain(page_files).collect(),
        pages: pages.into(),
        tests: policy_test::compile(&section, source),
        geo: signals::geo(&section, folder),
        reputation: signals::reputation(&section, folder),
        services,
        new_flows,
        sampling: samples::compile(&section),
        pools,
        routes,
    };
    section.finish();
    Some(config)
}

fn certificate(node: &tree::Node, folder: &Path, problems: &Problems) -> Option<CertificateFiles> {
    let section = Section::open("a certificate", node, problems)?;
    let certificate = section.required_value("certificate", |text| path_in(folder, text));
    let key = section.required_value("key", |text| path_in(folder, text));
    section.finish();
    Some(CertificateFiles { certificate: certificate?, key: key? })
}

fn path_in(folder: &Path, text: &str) -> Result<PathBuf, Complaint> {
    if text.is_empty() || text.contains('\0') {
        return Err("a file name is meant here".into());
    }
    Ok(folder.join(text))
}

#[cfg(test)]
mod tests;
