//! Pools of backends, and how their health is checked.

mod server_ids;

use std::net::SocketAddr;
use std::time::Duration;

use lb_common::maps::{MAX_BACKENDS, MAX_POOLS};
use lb_datapath::Forward;
use lb_policy::CanonicalPath;

use super::super::section::{Complaint, Names, Problems, Section};
use super::super::tree::{Key, Node, Value};
use super::super::{BackendConfig, HealthConfig, HealthKind, PoolConfig, Service, values};

pub(super) fn compile(config: &Section<'_>, services: &[Service]) -> Vec<PoolConfig> {
    let nodes = config.require_list("pools");
    if let Some(extra) = nodes.get(MAX_POOLS) {
        config.problems.report(&extra.place, format!("at most {MAX_POOLS} pools"));
    }
    let (mut names, mut pools) = (Names::of("pool"), Vec::<PoolConfig>::new());
    for node in nodes {
        pools.extend(pool(node, &mut names, services, config.problems));
        let backends: usize = pools.iter().map(|pool| pool.backends.len()).sum();
        if backends > MAX_BACKENDS {
            config.problems.report(&node.place, format!("at most {MAX_BACKENDS} backends in all pools together"));
            break;
        }
    }
    pools
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

fn pool(node: &Node, names: &mut Names, services: &[Service], problems: &Problems) -> Option<PoolConfig> {
    let section = Section::open("a pool", node, problems)?;
    let name = section.required_value("name", |text| names.unique(values::name(text)?));
    let mut backends = Vec::new();
    for node in section.require_list("backends") {
        let backend = backend(node, &backends, name.as_deref(), services, problems);
        backends.extend(backend);
    }
    let health = section.get("health").and_then(|node| health(node, problems)).unwrap_or_default();
    section.finish();
    let pool = PoolConfig { name: name?, backends, health };
    server_ids::check(node, &pool, services, problems);
    Some(pool)
}

/// An address, or `{address, weight, drain}`.
fn backend(
    node: &Node,
    siblings: &[BackendConfig],
    pool: Option<&str>,
    services: &[Service],
    problems: &Problems,
) -> Option<BackendConfig> {
    let address = |text: &str| {
        let address = address(text, siblings, services)?;
        other_family(address, pool, services).map_or(Ok(address), Err)
    };
    if !matches!(node.value, Value::Map(_)) {
        return node.read(problems, address).map(BackendConfig::from);
    }
    let section = Section::open("a backend", node, problems)?;
    let address = section.required_value("address", address);
    let weight = section.value("weight", values::number(0..=u8::MAX.into()));
    let drain = section.value("drain", values::boolean);
    let server_id = section.value("server_id", server_ids::read);
    section.finish();
    Some(BackendConfig {
        address: address?,
        weight: weight.map_or(BackendConfig::DEFAULT_WEIGHT, |weight| weight as u8),
        drain: drain.unwrap_or(false),
        server_id,
    })
}

fn address(text: &str, siblings: &[BackendConfig], services: &[Service]) -> Result<SocketAddr, Complaint> {
    let address = values::socket_address(text)?;
    if siblings.iter().any(|backend| backend.address == address) {
        return Err("this pool has this backend already".into());
    }
    match services.iter().find(|service| service.takes_tcp(address)) {
        Some(service) => {
            Err(format!("this is service `{}` itself: requests would go round in circles", service.name).into())
        }
        None => Ok(address),
    }
}

/// What is wrong with a backend that a service would have to reach by another IP version.
fn other_family(address: SocketAddr, pool: Option<&str>, services: &[Service]) -> Option<Complaint> {
    let is_ipv6 = address.ip().to_canonical().is_ipv6();
    let is_apart = |service: &&Service| {
        service.forwarding.forward == Forward::Nat
            && service.forwarding.pool.as_deref() == pool
            && service.vips.iter().any(|vip| vip.network().is_ipv6() != is_ipv6)
    };
    let service = services.iter().find(is_apart)?;
    let help = "NAT makes no IPv6 of IPv4: give each family a service and a pool, or choose another `forward`";
    Some(Complaint::new(format!("service `{}` has a VIP of the other IP version", service.name), help))
}

fn health(node: &Node, problems: &Problems) -> Option<HealthConfig> {
    let section = Section::open("a health check", node, problems)?;
    let default = HealthConfig::default();
    let (shortest, longest) = (Duration::from_millis(50), Duration::from_secs(3600));
    let interval = section.value("interval", values::duration(shortest..=longest)).unwrap_or(default.interval);
    let health = HealthConfig {
        kind: kind(&section).unwrap_or(default.kind),
        // A probe that outlasts its interval would overlap the next one.
        timeout: section
            .value("timeout", values::duration(shortest..=interval))
            .unwrap_or(default.timeout.min(interval)),
        interval,
        rise: section.value("rise", values::number(1..=100)).unwrap_or(default.rise),
        fall: section.value("fall", values::number(1..=100)).unwrap_or(default.fall),
    };
    section.finish();
    Some(health)
}

/// `None`: as usual.
fn kind(section: &Section<'_>) -> Option<HealthKind> {
    let is_tcp = section.value("kind", |text| match text {
        "http" => Ok(false),
        "tcp" => Ok(true),
        _ => Err(Complaint::new(format!("there is no health check `{text}`"), "known: http, tcp")),
    });
    let path = section.value("path", |text| match is_tcp {
        Some(true) => Err("a TCP check asks for no path".into()),
        _ => probe_path(text),
    });
    match is_tcp {
        Some(true) => Some(HealthKind::Tcp),
        _ => path.map(|path| HealthKind::Http { path }),
    }
}

/// A path with or without a query, as it will stand in the request line.
fn probe_path(text: &str) -> Result<String, Complaint> {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    CanonicalPath::parse(path).map_err(|error| Complaint::from(error.to_string()))?;
    if !path.bytes().chain(query.bytes()).all(|byte| byte.is_ascii_graphic()) {
        return Err("a character that must be percent-encoded".into());
    }
    Ok(text.to_owned())
}
