//! How the health of backends is checked.

use std::ops::RangeInclusive;
use std::time::Duration;

use lb_policy::CanonicalPath;

use super::super::super::section::{Complaint, Section};
use super::super::super::tree::Node;
use super::super::super::{BackendTls, HealthConfig, HealthKind, values};
use super::{Surroundings, tls};

const KINDS: [&str; 4] = ["http", "tcp", "grpc", "tls"];

/// `of_pool`: how requests go to its backends.
pub(super) fn health(node: &Node, of_pool: Option<&BackendTls>, around: Surroundings<'_>) -> Option<HealthConfig> {
    let section = Section::open("a health check", node, around.problems)?;
    let default = HealthConfig::default();
    let (shortest, longest) = (Duration::from_millis(50), Duration::from_secs(3600));
    let interval = section.value("interval", values::duration(shortest..=longest)).unwrap_or(default.interval);
    let jitter = section.value("jitter", |text| match values::percent(text)? {
        percent @ 0..=50 => Ok(percent),
        _ => Err("from 0% to 50% is allowed here".into()),
    });
    let health = HealthConfig {
        kind: kind(&section, of_pool, around).unwrap_or(default.kind),
        tls: over_tls(&section, of_pool),
        port: section.value("port", values::number(1..=65_535)).map(|port| port as u16),
        // A probe that outlasts its interval would overlap the next one.
        timeout: section
            .value("timeout", values::duration(shortest..=interval))
            .unwrap_or(default.timeout.min(interval)),
        interval_down: section.value("interval_down", values::duration(shortest..=longest)).unwrap_or(interval),
        interval,
        jitter_percent: jitter.unwrap_or(default.jitter_percent),
        rise: section.value("rise", values::number(1..=100)).unwrap_or(default.rise),
        fall: section.value("fall", values::number(1..=100)).unwrap_or(default.fall),
        send_proxy_protocol: None,
    };
    section.finish();
    Some(health)
}

/// `None`: as usual.
fn kind(section: &Section<'_>, of_pool: Option<&BackendTls>, around: Surroundings<'_>) -> Option<HealthKind> {
    let kind = section.value("kind", |text| match KINDS.iter().find(|known| **known == text) {
        Some(known) => Ok(*known),
        None => Err(Complaint::unknown("health check", text, KINDS)),
    });
    let is_misread = section.has("kind") && kind.is_none();
    let kind = kind.unwrap_or("http");
    // A key of another kind is a mistake; it is not told where the kind itself is one.
    let only = |wanted: &'static str, key: &'static str| match is_misread || kind == wanted {
        true => Ok(()),
        false => {
            Err(Complaint::from(format!("`{key}` is for checks of kind {wanted}, and this is one of kind {kind}")))
        }
    };
    let path = section.value("path", |text| only("http", "path").and_then(|()| probe_path(text)));
    let host = section.value("host", |text| only("http", "host").and_then(|()| host(text)));
    let expect = section.values("expect", |text| only("http", "expect").and_then(|()| statuses(text)));
    let service = section.value("service", |text| only("grpc", "service").and_then(|()| service(text)));
    let name = section.value("server_name", |text| only("tls", "server_name").and_then(|()| tls::server_name(text)));
    let authorities = section.value("ca", |text| only("tls", "ca").and_then(|()| tls::authorities(text, around)));
    match kind {
        "tcp" => Some(HealthKind::Tcp),
        "grpc" => Some(HealthKind::Grpc { service: service.unwrap_or_default() }),
        "tls" if of_pool.is_some() && !section.has("server_name") && !section.has("ca") => Some(HealthKind::Tls(None)),
        "tls" => {
            let usual = of_pool.cloned().unwrap_or_else(|| {
                section.require("server_name");
                BackendTls::default()
            });
            let server_name = name.or(usual.server_name);
            let accepts_any_certificate = usual.accepts_any_certificate && authorities.is_none();
            let authorities = authorities.unwrap_or(usual.authorities);
            let own = BackendTls { server_name, authorities, accepts_any_certificate, ..usual };
            Some(HealthKind::Tls(Some(Box::new(own))))
        }
        _ if section.has("path") && path.is_none() => None,
        _ => {
            let expect = if expect.is_empty() { vec![200..=299] } else { expect };
            Some(HealthKind::Http { path: path.unwrap_or_else(|| "/healthz".to_owned()), host, expect })
        }
    }
}

/// Whether checks go over TLS where requests do.
fn over_tls(section: &Section<'_>, of_pool: Option<&BackendTls>) -> bool {
    let wanted = section.value("tls", values::boolean);
    if wanted == Some(true) && of_pool.is_none() {
        let help = "give the pool `tls`, for its requests too; or choose `kind: tls`, which asks for a handshake alone";
        section.report_key("tls", Complaint::new("requests go to this pool in plain, and checks as they do", help));
    }
    wanted.unwrap_or(true)
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

/// As it will stand in `Host`, with a port or without.
fn host(text: &str) -> Result<String, Complaint> {
    lb_policy::canonical_host(text).map_err(|error| Complaint::from(format!("`{text}` is no host: {error}")))?;
    Ok(text.to_owned())
}

/// `204` or `200-399`.
fn statuses(text: &str) -> Result<RangeInclusive<u16>, Complaint> {
    let help = "write statuses as `200`, `200-399` or `[200, 204]`, from 100 to 599";
    let status = |text: &str| {
        let number = values::number(100..=599)(text.trim()).map(|status| status as u16);
        number.map_err(|_| Complaint::new(format!("`{text}` is no status"), help))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (status(first)?, status(last)?) {
        (first, last) if first <= last => Ok(first..=last),
        _ => Err(Complaint::new(format!("`{text}` is no range of statuses"), "write the smaller one first")),
    }
}

/// As gRPC names them: `package.Service`.
fn service(text: &str) -> Result<String, Complaint> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte));
    match is_plain && text.len() <= 200 {
        true => Ok(text.to_owned()),
        false => Err(Complaint::new("this is no gRPC service", "write its full name: shop.v1.Orders")),
    }
}
