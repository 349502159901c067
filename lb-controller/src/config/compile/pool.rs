//! Pools of backends, and how their health is checked.

mod backend;
mod balance;
mod discover;
mod from_file;
mod health;
mod l4;
mod limits;
pub(super) mod retries;
mod server_ids;
mod tls;

pub(in super::super) use from_file::{backend_fits, compile_backends};
pub(super) use l4::check_unused;
pub(super) use limits::MOST_REQUESTS;

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use lb_common::maps::{MAX_BACKENDS, MAX_POOLS};

use super::super::section::{Complaint, Names, Problems, Section};
use super::super::tree::{Key, Node, Value};
use super::super::{BackendProtocol, HealthConfig, PoolConfig, ProxyVersion, Service, TakenIn, values};

/// What is known when pools are read.
#[derive(Clone, Copy)]
struct Surroundings<'a> {
    services: &'a [Service],
    /// Of this host.
    zone: Option<&'a str>,
    /// Where relative paths start.
    folder: &'a Path,
    /// Those that were read.
    files: &'a RefCell<Vec<TakenIn>>,
    problems: &'a Problems,
}

/// Also what files were read.
pub(super) fn compile(config: &Section<'_>, services: &[Service], folder: &Path) -> (Vec<PoolConfig>, Vec<TakenIn>) {
    let zone = config.value("zone", values::name);
    let files = RefCell::default();
    let around = Surroundings { services, zone: zone.as_deref(), folder, files: &files, problems: config.problems };
    let nodes = config.require_list("pools");
    if let Some(extra) = nodes.get(MAX_POOLS) {
        config.problems.report(&extra.place, format!("at most {MAX_POOLS} pools"));
    }
    let (mut names, mut pools) = (Names::of("pool"), Vec::<PoolConfig>::new());
    for node in nodes {
        pools.extend(pool(node, &mut names, around));
        let backends: usize = pools.iter().map(|pool| pool.backends.len()).sum();
        if backends > MAX_BACKENDS {
            config.problems.report(&node.place, format!("at most {MAX_BACKENDS} backends in all pools together"));
            break;
        }
    }
    (pools, files.into_inner())
}

/// The names that the pools have, whatever else is wrong with them: complaints about those are made by [`compile`].
pub(super) fn names<'a>(config: &Section<'a>) -> Vec<&'a str> {
    let value_of = |entries: &'a [(Key, Node)], name: &str| {
        entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| &node.value)
    };
    let name_of = |value: &'a Value| match value {
        Value::Map(entries) => match value_of(entries, "name") {
            Some(Value::Text(name)) => Some(name.as_str()),
            _ => None,
        },
        _ => None,
    };
    match value_of(config.entries(), "pools") {
        Some(Value::List(pools)) => pools.iter().filter_map(|node| name_of(&node.value)).collect(),
        Some(pool) => name_of(pool).into_iter().collect(),
        None => Vec::new(),
    }
}

fn pool(node: &Node, names: &mut Names, around: Surroundings<'_>) -> Option<PoolConfig> {
    let Surroundings { services, folder, problems, .. } = around;
    let section = Section::open("a pool", node, problems)?;
    let name = section.required_value("name", |text| names.unique(values::name(text)?));
    let (mut backends, mut addresses) = (Vec::new(), HashSet::new());
    let is_found = section.has("discover");
    let nodes = if is_found { section.list("backends") } else { section.require_list("backends") };
    for node in nodes {
        let backend = backend::backend(node, &mut addresses, name.as_deref(), around);
        backends.extend(backend);
    }
    let default = PoolConfig::default();
    let slow_starts = Duration::ZERO..=Duration::from_secs(3600);
    let percent = |key: &'static str, default: u8| section.value(key, values::percent).unwrap_or(default);
    let usual = (default.retries, default.retry_budget);
    let (retries, retry_budget) =
        section.get("retries").and_then(|node| retries::of_pool(node, problems)).unwrap_or(usual);
    let timeouts = section.get("timeouts").and_then(|node| retries::timeouts(node, default.timeouts, problems));
    let tls = section.get("tls").and_then(|node| tls::tls(node, around));
    let protocol = tls::protocol(&section, tls.is_some()).unwrap_or_default();
    let send_proxy_protocol = section.value("send_proxy_protocol", proxy_version);
    if send_proxy_protocol.is_some() && protocol != BackendProtocol::Http1 {
        let help = "leave out `protocol`: a connection that begins with its client's address is for that client alone";
        let complaint = Complaint::new("clients cannot share connections that name one of them", help);
        section.report_key("send_proxy_protocol", complaint);
    }
    let health = section.get("health").and_then(|node| health::health(node, tls.as_ref(), around)).unwrap_or_default();
    let pool = PoolConfig {
        name: name.clone().unwrap_or_default(),
        backends,
        tls,
        protocol,
        discover: section.get("discover").and_then(|node| discover::discover(node, name.as_deref(), around)),
        // At a port of its own no proxy's clients are expected.
        health: HealthConfig { send_proxy_protocol: send_proxy_protocol.filter(|_| health.port.is_none()), ..health },
        balance: section.get("balance").and_then(|node| balance::balance(node, problems)).unwrap_or_default(),
        sticky: section.get("sticky").and_then(|node| balance::sticky(node, folder, problems)),
        slow_start: section.value("slow_start", values::duration(slow_starts)).unwrap_or(default.slow_start),
        panic_threshold_percent: percent("panic_threshold", default.panic_threshold_percent),
        near_threshold_percent: percent("near_threshold", default.near_threshold_percent),
        ejection: section.get("ejection").and_then(|node| limits::ejection(node, problems)),
        limits: limits::limits(&section),
        timeouts: timeouts.unwrap_or(default.timeouts),
        retries,
        retry_budget,
        send_proxy_protocol,
    };
    l4::check(&section, &pool, services);
    section.finish();
    name?;
    server_ids::check(node, &pool, services, problems);
    Some(pool)
}

fn proxy_version(text: &str) -> Result<ProxyVersion, Complaint> {
    match text {
        "v1" => Ok(ProxyVersion::V1),
        "v2" => Ok(ProxyVersion::V2),
        _ => Err(Complaint::unknown("version of the PROXY protocol", text, ["v1", "v2"])),
    }
}
