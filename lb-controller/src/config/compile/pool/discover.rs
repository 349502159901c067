//! Where backends are found.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lb_common::maps::MAX_BACKENDS;

use super::super::super::section::{Complaint, Section};
use super::super::super::tree::Node;
use super::super::super::{DiscoverConfig, DiscoverFrom, DnsKind, DnsQuestion, Service, values};
use super::super::path_in;
use super::Surroundings;

const LONGEST_TTL: Duration = Duration::from_secs(86_400);
const LONGEST_NAME_BYTES: usize = 253;

pub(super) fn discover(node: &Node, pool: Option<&str>, around: Surroundings<'_>) -> Option<DiscoverConfig> {
    let section = Section::open("`discover`", node, around.problems)?;
    let dns = section.value("dns", name);
    let srv = section.value("srv", name);
    let file: Option<PathBuf> = section.value("file", |text| path_in(around.folder, text));
    let given = ["dns", "srv", "file"].into_iter().filter(|key| section.has(key)).count();
    if given != 1 {
        let help = "write one of `dns: NAME` with a `port`, `srv: NAME` and `file: NAME`";
        around.problems.report(&node.place, Complaint::new("it must be said where backends are found, once", help));
    }
    check_quic(node, pool, around);
    // Whatever is wrong with a name, the keys beside it are read as what goes with it.
    let from = if section.has("dns") {
        let port = section.required_value("port", values::number(1..=u16::MAX.into()));
        let kind = DnsKind::Addresses { port: port.unwrap_or_default() as u16 };
        let question = question(&section, dns.clone().unwrap_or_default(), kind);
        dns.and(port).map(|_| DiscoverFrom::Dns(question))
    } else if section.has("srv") {
        check_srv(&section, pool, around);
        let question = question(&section, srv.clone().unwrap_or_default(), DnsKind::Services);
        srv.map(|_| DiscoverFrom::Dns(question))
    } else {
        file.map(DiscoverFrom::File)
    };
    let most = section.value("most", values::number(1..=MAX_BACKENDS as u32));
    let drain_for = section.value("drain_for", values::duration(Duration::ZERO..=Duration::from_secs(3600)));
    section.finish();
    Some(DiscoverConfig {
        from: from?,
        most: most.map_or(DiscoverConfig::DEFAULT_MOST, |most| most as usize),
        drain_for: drain_for.unwrap_or(DiscoverConfig::DEFAULT_DRAIN_FOR),
        zone: around.zone.map(Into::into),
    })
}

fn question(section: &Section<'_>, name: String, kind: DnsKind) -> DnsQuestion {
    let ttl = |key| section.value(key, values::duration(Duration::from_secs(1)..=LONGEST_TTL));
    let minimum_ttl = ttl("minimum_ttl").unwrap_or(Duration::from_secs(5));
    let maximum_ttl = ttl("maximum_ttl").unwrap_or(Duration::from_secs(300)).max(minimum_ttl);
    DnsQuestion {
        name,
        kind,
        servers: section.values("servers", server),
        minimum_ttl,
        maximum_ttl,
        allow_local: section.value("allow_local", values::boolean).unwrap_or(false),
    }
}

/// XDP spreads flows over all of a pool by weight: what is to wait for a better one to fail would get its share.
fn check_srv(section: &Section<'_>, pool: Option<&str>, around: Surroundings<'_>) {
    let forwards = around.services.iter().find(|service| service.forwarding.pool.as_deref() == pool && pool.is_some());
    if let Some(service) = forwards {
        let message =
            format!("service `{}` forwards packets to this pool, and SRV records have priorities", service.name);
        let help = "XDP knows no backups: find its backends by `dns` or by `file`";
        section.report_key("srv", Complaint::new(message, help));
    }
}

/// Two backends whose addresses make the same server id would get each other's packets: told where both are known.
fn check_quic(node: &Node, pool: Option<&str>, around: Surroundings<'_>) {
    let routes = |service: &&Service| {
        service.forwarding.pool.as_deref() == pool && pool.is_some() && service.forwarding.quic.iter().next().is_some()
    };
    if let Some(service) = around.services.iter().find(routes) {
        let message = format!(
            "service `{}` routes QUIC by server ids, and those of backends that are found are not known",
            service.name
        );
        around.problems.report(&node.place, Complaint::new(message, "list the backends, or leave `quic` out"));
    }
}

/// A name that can be asked for.
fn name(text: &str) -> Result<String, Complaint> {
    let bare = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(is_plain)
    };
    if bare.len() > LONGEST_NAME_BYTES || !bare.split('.').all(is_label) {
        return Err(Complaint::new(format!("`{text}` is no name of the DNS"), "such as backends.shop.example"));
    }
    if bare.parse::<std::net::Ipv4Addr>().is_ok() {
        return Err(Complaint::new(format!("`{text}` is an address"), "list addresses under `backends`"));
    }
    Ok(text.to_ascii_lowercase())
}

/// A name server; on port 53 unless it says otherwise.
fn server(text: &str) -> Result<SocketAddr, Complaint> {
    match text.parse::<std::net::IpAddr>() {
        Ok(address) => Ok(SocketAddr::new(address, 53)),
        Err(_) => values::socket_address(text),
    }
}
