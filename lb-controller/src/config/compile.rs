//! From a file to a [`Config`] in which nothing can be wrong, or to all that is wrong with the file.

use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Diagnostics};
use super::section::{Complaint, Problems, Section};
use super::{Config, MethodOverride, Route, tree, values};

mod access_log;
mod acme;
mod audit;
mod client_certificates;
mod decapsulate;
mod drain;
mod factors;
mod front;
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
mod tls;
mod tokens;
mod tracing;
mod user;
mod vocabulary;

pub(super) use pool::{backend_fits, compile_backends};

/// Where state is kept unless the file says otherwise.
const DEFAULT_STATE_DIR: &str = "/var/lib/lb";

/// Compiles `source`. Relative paths in it start at `folder`; `file` is how messages name it.
pub(super) fn compile(file: &str, source: &str, folder: &Path) -> Result<Config, Diagnostics> {
    let root = parse(file, source)?;
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

fn parse(file: &str, source: &str) -> Result<tree::Node, Diagnostics> {
    tree::parse(source).map_err(|error| {
        let help = "reading stops at the first place that is no YAML; what follows is not checked yet".to_owned();
        let diagnostic = Diagnostic { place: Some(error.place), message: error.message, help: Some(help) };
        Diagnostics::new(file, source, vec![diagnostic])
    })
}

fn whole(section: Section<'_>, source: &str, folder: &Path) -> Option<Config> {
    let path = |text: &str| path_in(folder, text);
    let (limits, new_flows) = limits::defaults(&section);
    let proxy_protocol = front::proxy_protocol(&section).unwrap_or_default();
    let services = service::compile(&section, &limits, &proxy_protocol);
    let (pools, pool_files) = pool::compile(&section, &services, folder);
    let client_certificates = client_certificates::compile(&section, folder);
    let (routes, route_files) = route::compile(&section, &services, &pools, client_certificates.is_some(), folder);
    let step_up = step_up::compile(&section);
    let definitions = vocabulary::compile(&section, &routes, folder);
    let (pages, page_files) = pages::compile(&section, folder);
    let rules = rule::compile(&section, source, &step_up.levels, &definitions.vocabulary);
    let acme = acme::compile(&section, folder, &services);
    let served = front::Served { pools: &pools, routes: &routes, acme: acme.as_ref() };
    let pass_through = front::pass_through(&section, &served);
    let routed = routes.iter().flat_map(Route::pools);
    let requested: Vec<&str> = routed.chain(pass_through.iter().map(|through| through.pool.as_str())).collect();
    pool::check_unused(&section, &services, &requested);
    let config = Config {
        interfaces: service::interfaces(&section),
        state_dir: section.value("state_dir", path).unwrap_or_else(|| DEFAULT_STATE_DIR.into()),
        metrics: service::metrics(&section, &services),
        certificates: tls::certificates(&section, folder),
        tls: tls::compile(&section, folder),
        acme,
        proxy_protocol,
        connections: front::connections(&section),
        pass_through,
        overload: front::overload(&section),
        users: user::compile(&section),
        identity_providers: identity::providers(&section, folder),
        tokens: tokens::compile(&section, folder),
        client_certificates,
        trusted_proxies: section.values("trusted_proxies", values::network),
        method_override: section.value("method_override", method_override).unwrap_or_default(),
        trusted_origins: section.values("trusted_origins", values::origin),
        protected_networks: section.values("protected_networks", values::network),
        decapsulate: decapsulate::compile(&section),
        drain: drain::compile(&section),
        lists: lists::compile(&section, folder),
        nat: nat::compile(&section, &services),
        factors: factors::compile(&section, folder),
        step_up,
        audit: audit::compile(&section, folder),
        access_log: access_log::compile(&section, folder),
        tracing: tracing::compile(&section, folder),
        rules: rules.unwrap_or_default().into(),
        rates: definitions.rates,
        taken_in: [definitions.taken_in, page_files, route_files, pool_files].concat(),
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

fn method_override(text: &str) -> Result<MethodOverride, Complaint> {
    match text {
        "refuse" => Ok(MethodOverride::Refuse),
        "apply" => Ok(MethodOverride::Apply),
        _ => Err(Complaint::unknown("setting", text, ["refuse", "apply"])),
    }
}

fn path_in(folder: &Path, text: &str) -> Result<PathBuf, Complaint> {
    if text.is_empty() || text.contains('\0') {
        return Err("a file name is meant here".into());
    }
    Ok(folder.join(text))
}

#[cfg(test)]
mod tests;
