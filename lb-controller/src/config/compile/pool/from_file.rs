//! Backends in a file of their own.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;

use super::super::super::diagnostic::Diagnostics;
use super::super::super::section::{Complaint, Problems};
use super::super::super::tree::{Node, Value};
use super::super::super::{BackendConfig, Service};
use super::super::parse;
use super::{Surroundings, backend};

/// The backends of `pool` that a file lists, each as the configuration would have it.
pub(in super::super::super) fn compile_backends(
    file: &str,
    source: &str,
    pool: &str,
    zone: Option<&str>,
    services: &[Service],
) -> Result<Vec<BackendConfig>, Diagnostics> {
    let root = parse(file, source)?;
    let problems = Problems::default();
    // A backend's entry names none.
    let files = RefCell::default();
    let around = Surroundings { services, zone, folder: Path::new(""), files: &files, problems: &problems };
    let (mut backends, mut addresses) = (Vec::new(), HashSet::new());
    for node in nodes(&root, &problems) {
        let Some(backend) = backend::backend(node, &mut addresses, Some(pool), around) else { continue };
        let forwards = services.iter().find(|service| service.forwarding.pool.as_deref() == Some(pool));
        if let Some(service) = forwards.filter(|_| backend.backup > 0 || backend.zone.is_some()) {
            let message = format!("service `{}` forwards packets to this pool", service.name);
            problems.report(&node.place, Complaint::new(message, "XDP knows no backups and no zones"));
        }
        backends.push(backend);
    }
    if problems.count() == 0 { Ok(backends) } else { Err(Diagnostics::new(file, source, problems.into_list())) }
}

/// What is about to be written is often empty for a moment, and no outage should begin with an empty list.
fn nodes<'a>(root: &'a Node, problems: &Problems) -> &'a [Node] {
    match &root.value {
        Value::List(nodes) => {
            if nodes.is_empty() {
                let help = "to take all out of service, list them with `drain: true`";
                problems.report(&root.place, Complaint::new("no backend is listed", help));
            }
            nodes
        }
        _ => {
            problems
                .report(&root.place, Complaint::new("a list of backends is meant here", "such as `- 10.0.0.1:8080`"));
            &[]
        }
    }
}

/// Why an address can be no backend of `pool`, whoever says so.
pub(in super::super::super) fn backend_fits(
    address: SocketAddr,
    pool: &str,
    services: &[Service],
) -> Result<(), String> {
    backend::fits(address, Some(pool), services).map_err(|complaint| complaint.message)
}
