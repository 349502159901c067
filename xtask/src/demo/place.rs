//! Where the parts of the scene run, and under which addresses.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::paths::Workspace;

pub(crate) const BACKENDS: usize = 2;

/// The whole scene in network namespaces, or its L7 part on loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Needs root: real veth links, XDP, unbound VIPs.
    Namespaces,
    /// Needs nothing: the controller listens by itself, nothing is loaded into the kernel.
    Loopback,
}

/// Whose eyes a program runs under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// This machine as everybody uses it: one more client, over a veth.
    Machine,
    /// A client that floods and misbehaves.
    Client,
    Edge,
    Backend(usize),
}

impl Host {
    /// The namespace's name; `None` is the one that everybody is in.
    pub(crate) fn namespace(self) -> Option<String> {
        match self {
            Host::Machine => None,
            Host::Client => Some("lb-demo-client".into()),
            Host::Edge => Some("lb-demo-edge".into()),
            Host::Backend(index) => Some(format!("lb-demo-backend-{}", index + 1)),
        }
    }

    /// Every host that has a namespace.
    pub(crate) fn with_namespace() -> impl Iterator<Item = Host> {
        [Host::Client, Host::Edge].into_iter().chain((0..BACKENDS).map(Host::Backend))
    }
}

impl Place {
    pub(crate) fn for_this_user() -> Place {
        if crate::run::is_root() { Place::Namespaces } else { Place::Loopback }
    }

    /// Names the edge's pins (`/sys/fs/bpf/lb-demo`) and its runtime folder; never an operator's own `lb`.
    pub(crate) fn instance(self) -> &'static str {
        match self {
            Place::Namespaces => "lb-demo",
            Place::Loopback => "lb-demo-loopback",
        }
    }

    /// The scene's own files: configuration, state, logs.
    pub(crate) fn home(self, workspace: &Workspace) -> PathBuf {
        match self {
            // In memory, and gone with the next boot at the latest.
            Place::Namespaces => Path::new("/run").join(self.instance()),
            Place::Loopback => workspace.target.join("demo"),
        }
    }

    /// Where the edge answers.
    pub(crate) fn edge(self) -> SocketAddr {
        match self {
            Place::Namespaces => SocketAddr::from(([198, 51, 100, 10], 443)),
            Place::Loopback => SocketAddr::from(([127, 0, 0, 1], 8443)),
        }
    }

    /// The edge's address over IPv6; loopback listens on one address only.
    pub(crate) fn edge_v6(self) -> Option<SocketAddr> {
        (self == Place::Namespaces).then(|| SocketAddr::from(([0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x10], 443)))
    }

    pub(crate) fn backend(self, index: usize) -> SocketAddr {
        match self {
            Place::Namespaces => SocketAddr::from(([10, 77, 11 + index as u8, 2], 8080)),
            Place::Loopback => SocketAddr::from(([127, 0, 0, 1], 8081 + index as u16)),
        }
    }

    /// `https://…` of `path` at `edge`, the port left out where browsers leave it out.
    pub(crate) fn url(edge: SocketAddr, path: &str) -> String {
        let authority = edge.to_string();
        format!("https://{}{path}", authority.strip_suffix(":443").unwrap_or(&authority))
    }

    /// A command that will run under the eyes of `host`.
    pub(crate) fn command(self, host: Host, program: impl AsRef<std::ffi::OsStr>) -> Command {
        match (self, host.namespace()) {
            (Place::Namespaces, Some(namespace)) => {
                // Not `ip netns exec`: that gives the program a /sys of its own, without the pinned maps.
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{namespace}")).arg("--").arg(program);
                command
            }
            _ => Command::new(program),
        }
    }
}
