//! What XDP cannot do for a pool to which packets are forwarded.

use super::super::super::section::{Complaint, Section};
use super::super::super::tree::{Key, Node, Value};
use super::super::super::{PoolConfig, Service};

/// XDP spreads new flows over all of a pool by weight and health, and sees no request: a backend that is to wait, or one
/// to be preferred, would get its share of them all the same.
pub(super) fn check(section: &Section<'_>, pool: &PoolConfig, services: &[Service]) {
    let forwards = |service: &&Service| service.forwarding.pool.as_deref() == Some(&pool.name);
    let Some(service) = services.iter().find(forwards) else { return };
    let complain = |backend: &super::super::super::BackendConfig, what: &str| {
        let place = &section.place_of("backends");
        let message = format!("service `{}` forwards packets to {}, {what}", service.name, backend.address);
        let help = "XDP spreads flows over all backends of a pool by weight: give its services a pool without these";
        section.problems.report(place, Complaint::new(message, help));
    };
    if pool.send_proxy_protocol.is_some() {
        let message = format!("service `{}` forwards packets to this pool, and they go on as they come", service.name);
        let help = "leave it out, or give the service a pool without it";
        section.report_key("send_proxy_protocol", Complaint::new(message, help));
    }
    for backend in &pool.backends {
        if backend.backup > 0 {
            complain(backend, "which is a backup");
        }
        if backend.zone.is_some() {
            complain(backend, "which has a zone");
        }
    }
}

/// What a pool has of this says something of requests and their connections.
const OF_REQUESTS: [&str; 8] =
    ["balance", "sticky", "timeouts", "retries", "max_requests", "max_connections", "queue", "ejection"];

/// Complains of what nobody would go by: where packets are sent on as they come there are no requests. `requested` are the
/// pools that get some.
pub(in super::super) fn check_unused(config: &Section<'_>, services: &[Service], requested: &[&str]) {
    // A route that could not be read may be the one that names the pool.
    if config.problems.count() > 0 {
        return;
    }
    let of_pool = |node: &Node| {
        let Value::Map(entries) = &node.value else { return };
        let is_name = |(key, _): &&(Key, Node)| key.name == "name";
        let Some((_, Node { value: Value::Text(name), .. })) = entries.iter().find(is_name) else { return };
        let forwards = |service: &&Service| service.forwarding.pool.as_deref() == Some(name);
        let Some(service) = services.iter().find(forwards).filter(|_| !requested.contains(&name.as_str())) else {
            return;
        };
        for (key, _) in entries.iter().filter(|(key, _)| OF_REQUESTS.contains(&key.name.as_str())) {
            let message = format!("`{}` is for requests, and this pool gets none", key.name);
            let help = format!(
                "leave it out: service `{}` forwards packets by a hash of their flow, by weight, and no route names the pool",
                service.name
            );
            config.problems.report(&key.place, Complaint::new(message, help));
        }
    };
    config.list("pools").iter().for_each(of_pool);
}
