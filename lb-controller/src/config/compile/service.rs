//! What the XDP program needs to know: interfaces, services, limits; and the metrics address, which must not be one.

mod forwarding;
mod syn_cookies;

use std::net::SocketAddr;

use ipnet::IpNet;
use lb_common::maps::MAX_SERVICES;
use lb_datapath::{Forward, Ports, Protocols, VipPrefix};

use super::super::section::{Complaint, Names, Problems, Section};
use super::super::tree::Node;
use super::super::{Forwarding, Service, values};
use super::{front, limits};

/// `defaults` and `proxy_protocol` are what services have that say nothing of it.
pub(super) fn compile(config: &Section<'_>, defaults: &limits::Given, proxy_protocol: &[IpNet]) -> Vec<Service> {
    let pools = super::pool::names(config);
    let nodes = config.list("services");
    if let Some(extra) = nodes.get(MAX_SERVICES) {
        config.problems.report(&extra.place, format!("at most {MAX_SERVICES} services"));
    }
    let (mut names, mut services) = (Names::of("service"), Vec::new());
    let usual = Usual { limits: defaults, proxy_protocol };
    for node in nodes {
        let service = service(node, &mut names, &services, &pools, &usual, config.problems);
        services.extend(service);
    }
    services
}

/// What services have that say nothing of it.
struct Usual<'a> {
    limits: &'a limits::Given,
    proxy_protocol: &'a [IpNet],
}

fn service(
    node: &Node,
    names: &mut Names,
    earlier: &[Service],
    pools: &[&str],
    usual: &Usual<'_>,
    problems: &Problems,
) -> Option<Service> {
    let section = Section::open("a service", node, problems)?;
    let name = section.required_value("name", |text| names.unique(values::name(text)?));
    let ports = section.required_value("port", values::ports);
    let protocols = protocols(&section);
    let mut vips = Vec::new();
    for node in section.require_list("vips") {
        let free = |text: &str| free_vip(text, ports.zip(protocols), &vips, earlier);
        let vip = node.read(problems, free);
        vips.extend(vip);
    }
    let limits = limits::of_service(section.get("limits"), usual.limits, problems);
    let forwarding = forwarding::compile(&section, protocols, pools);
    let syn_cookies = syn_cookies::compile(&section, protocols, forwarding.as_ref());
    if forwarding.as_ref().is_some_and(|forwarding| forwarding.forward == Forward::Nat)
        && vips.iter().any(|vip| vip.network().is_ipv4() != vips[0].network().is_ipv4())
        && let Some(node) = section.get("vips")
    {
        let help = "make a service and a pool for each";
        problems.report(&node.place, Complaint::new("NAT makes no IPv6 of IPv4: these VIPs are of both", help));
    }
    let plain_http = plain_http(&section, protocols, forwarding.as_ref());
    let proxy_protocol = proxy_protocol(&section, protocols, forwarding.as_ref(), usual);
    section.finish();
    Some(Service {
        name: name?,
        vips,
        ports: ports?,
        protocols: protocols?,
        limits: limits?,
        syn_cookies: syn_cookies?,
        forwarding: forwarding?,
        plain_http,
        proxy_protocol,
    })
}

/// Whose connections begin with a PROXY header.
fn proxy_protocol(
    section: &Section<'_>,
    protocols: Option<Protocols>,
    forwarding: Option<&Forwarding>,
    usual: &Usual<'_>,
) -> Vec<IpNet> {
    let Some(from) = front::proxy_protocol(section) else { return usual.proxy_protocol.to_vec() };
    let is_local = forwarding.is_none_or(|forwarding| forwarding.forward == Forward::Local);
    if protocols.is_some_and(|protocols| !protocols.tcp) || !is_local {
        let help = "leave it out: what is sent on, is sent on as it comes";
        let complaint = Complaint::new("a PROXY header is read on this host, over TCP", help);
        section.report_key("proxy_protocol", complaint);
    }
    from
}

/// Whether it only sends clients to HTTPS.
fn plain_http(section: &Section<'_>, protocols: Option<Protocols>, forwarding: Option<&Forwarding>) -> bool {
    let Some(node) = section.get("http") else { return false };
    let is_plain = node.read(section.problems, |text| match text {
        "redirect" => Ok(()),
        _ => Err(Complaint::unknown("way with plain HTTP", text, ["redirect"])),
    });
    let is_local = forwarding.is_none_or(|forwarding| forwarding.forward == Forward::Local);
    if protocols.is_some_and(|protocols| !protocols.tcp) || !is_local {
        let help = "leave it out: what is sent on, is sent on as it comes";
        section.problems.report(&node.place, Complaint::new("HTTP is answered on this host, over TCP", help));
    }
    is_plain.is_some()
}

/// TCP unless the file says otherwise; `None` if one of them cannot be read.
fn protocols(section: &Section<'_>) -> Option<Protocols> {
    let nodes = section.list("protocol");
    let mut protocols = Protocols { tcp: nodes.is_empty(), udp: false };
    for node in nodes {
        node.read(section.problems, |text| match text {
            "tcp" if !protocols.tcp => {
                protocols.tcp = true;
                Ok(())
            }
            "udp" if !protocols.udp => {
                protocols.udp = true;
                Ok(())
            }
            "tcp" | "udp" => Err("this protocol is listed already".into()),
            _ => Err(Complaint::new(format!("`{text}` is no protocol of a service"), "known: tcp, udp")),
        })?;
    }
    Some(protocols)
}

fn free_vip(
    text: &str,
    ends: Option<(Ports, Protocols)>,
    siblings: &[VipPrefix],
    earlier: &[Service],
) -> Result<VipPrefix, Complaint> {
    let vip = values::vip(text)?;
    if siblings.contains(&vip) {
        return Err("this service has this VIP already".into());
    }
    let conflicts = |other: &&Service| {
        let (ports, protocols) = ends?;
        let shared = protocols.tcp && other.protocols.tcp || protocols.udp && other.protocols.udp;
        Some(shared && other.ports.conflicts_with(ports) && other.vips.contains(&vip))
    };
    match earlier.iter().find(|other| conflicts(other) == Some(true)) {
        Some(other) => Err(format!("service `{}` has this VIP and port", other.name).into()),
        None => Ok(vip),
    }
}

pub(super) fn interfaces(config: &Section<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for node in config.list("interfaces") {
        // IFNAMSIZ is 16 with its NUL; the kernel takes anything else but slashes and white space.
        let name = node.read(config.problems, |text| match text {
            _ if text.is_empty()
                || text.len() > 15
                || text.contains(|char: char| char == '/' || char.is_whitespace()) =>
            {
                Err(Complaint::from(format!("`{text}` cannot be the name of an interface")))
            }
            _ if names.iter().any(|name| name == text) => Err("this interface is listed already".into()),
            _ => Ok(text.to_owned()),
        });
        names.extend(name);
    }
    names
}

/// Metrics on a VIP would be on the data port.
pub(super) fn metrics(config: &Section<'_>, services: &[Service]) -> Option<SocketAddr> {
    config.value("metrics", |text| {
        let address = values::socket_address(text)?;
        match services.iter().find(|service| service.has_vip(address.ip())) {
            Some(service) => {
                let help = "choose an address that only the scraper reaches, such as 127.0.0.1:9090";
                Err(Complaint::new(format!("this is a VIP of service `{}`", service.name), help))
            }
            None => Ok(address),
        }
    })
}
