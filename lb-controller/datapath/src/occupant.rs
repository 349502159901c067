//! Who runs XDP on an interface that is not free, and how to free it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{loaded_links, loaded_programs};

use crate::attach::AttachMode;
use crate::link;
use crate::pins::{Pins, link_name};

/// The XDP program of somebody else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Occupant {
    pub interface: String,
    /// The kernel's number; `None` if it is gone meanwhile.
    pub program_id: Option<u32>,
    pub program_name: Option<String>,
    /// Another instance of lb, by its pins.
    pub pin_root: Option<PathBuf>,
    /// The bpf_link that holds it; `None` if it was attached without one.
    pub link_id: Option<u32>,
}

impl Occupant {
    /// Of the interface of this index and name; other instances' pins are looked for beside `pin_root`.
    pub(crate) fn of(index: u32, name: &str, pin_root: &Path) -> Self {
        let interface = name.to_owned();
        let Some(id) = link::facts(index).ok().flatten().and_then(|facts| facts.xdp_program) else {
            return Self { interface, ..Self::default() };
        };
        let program = loaded_programs().filter_map(Result::ok).find(|program| program.id() == id);
        let program_name = program.and_then(|program| program.name_as_str().map(str::to_owned));
        let link = loaded_links().filter_map(Result::ok).find(|link| link.program_id() == id);
        let pin_root = instance_with(id, name, pin_root);
        Self { interface, program_id: Some(id), program_name, pin_root, link_id: link.map(|link| link.id()) }
    }
}

/// The instance beside this one that has a link with this program pinned for the interface.
fn instance_with(program_id: u32, interface: &str, pin_root: &Path) -> Option<PathBuf> {
    let neighbours = fs::read_dir(pin_root.parent()?).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let has_it = |root: &PathBuf| {
        let pins = Pins::new(root);
        [AttachMode::Native, AttachMode::Generic].into_iter().any(|mode| {
            let link = PinnedLink::from_pin(pins.link(&link_name(interface, mode))).map(FdLink::from);
            link.ok().and_then(|link| link.info().ok()).is_some_and(|info| info.program_id() == program_id)
        })
    };
    neighbours.into_iter().find(has_it)
}

/// What runs there and the remedy, to follow the interface's name: ` (program …); …`.
impl fmt::Display for Occupant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.program_id, &self.program_name) {
            (Some(id), Some(name)) => write!(formatter, " (program {name}, id {id})")?,
            (Some(id), None) => write!(formatter, " (program id {id})")?,
            _ => {}
        }
        match (&self.pin_root, self.link_id) {
            (Some(root), _) => {
                let instance = root.file_name().map_or_else(Default::default, |name| name.to_string_lossy());
                let root = root.display();
                write!(
                    formatter,
                    ": that of the instance with the pins {root}; stop it and free the interface with \
                     `lb-controller --instance {instance} unload`, or give this instance other interfaces"
                )
            }
            (None, Some(link)) => {
                write!(formatter, "; end whoever attached it, or detach it with `bpftool link detach id {link}`")
            }
            (None, None) => write!(formatter, "; remove it with `ip link set dev {} xdp off`", self.interface),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_fits_how_the_program_is_attached() {
        let interface = String::from("front");
        let program_name = Some(String::from("drop"));
        let program = Occupant { interface, program_id: Some(7), program_name, ..Occupant::default() };
        let rows = [
            (program.clone(), " (program drop, id 7); remove it with `ip link set dev front xdp off`"),
            (
                Occupant { link_id: Some(3), ..program.clone() },
                " (program drop, id 7); end whoever attached it, or detach it with `bpftool link detach id 3`",
            ),
            (
                Occupant { link_id: Some(3), pin_root: Some("/sys/fs/bpf/lb-a".into()), ..program },
                " (program drop, id 7): that of the instance with the pins /sys/fs/bpf/lb-a; stop it and free the \
                 interface with `lb-controller --instance lb-a unload`, or give this instance other interfaces",
            ),
        ];
        for (occupant, expected) in rows {
            assert_eq!(occupant.to_string(), expected);
        }
    }
}
