//! Interfaces that go away and come back: unplugged, made anew by whoever manages them, or renamed. The name decides.

use crate::attach::{AttachMode, AttachedInterface, attach_pinned, remove_pin};
use crate::error::LoadError;
use crate::interface;
use crate::load::Datapath;
use crate::pins::link_name;
use crate::programs::xdp_program;

/// What each interface was when it was last looked at.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    interfaces: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    name: String,
    mode: AttachMode,
    /// The kernel's number of the interface that the program is attached to.
    index: u32,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Attached,
    /// No interface has the name.
    Gone,
    /// Another has, and cannot be attached to; said once.
    Refused,
}

impl Watch {
    pub(crate) fn new(attached: &[AttachedInterface]) -> Self {
        let watched = |one: &AttachedInterface| {
            // Gone since it was attached: 0, which no interface has.
            let index = interface::index_of(&one.name).unwrap_or(0);
            Watched { name: one.name.clone(), mode: one.mode, index, state: State::Attached }
        };
        Self { interfaces: attached.iter().map(watched).collect() }
    }
}

impl Datapath {
    /// Attaches to interfaces that have come back, and tells of those that are gone. One question to the kernel for each
    /// interface.
    pub(crate) fn look_at_interfaces(&mut self) {
        let mut interfaces = std::mem::take(&mut self.watch.interfaces);
        for watched in &mut interfaces {
            self.look_at(watched);
        }
        self.watch.interfaces = interfaces;
    }

    fn look_at(&mut self, watched: &mut Watched) {
        let name = watched.name.as_str();
        match interface::present_index(name) {
            Some(index) if index == watched.index => {
                // Renamed there and back: the program never left it.
                watched.state = State::Attached;
            }
            Some(index) => match self.attach_again(watched, index) {
                Ok(attached) => {
                    let mode = attached.mode.name();
                    tracing::warn!(interface = name, mode, "the interface is back, and XDP attached to it");
                    (watched.mode, watched.index, watched.state) = (attached.mode, index, State::Attached);
                }
                Err(error) if watched.state != State::Refused => {
                    let error = crate::error::chain(&error);
                    tracing::error!(interface = name, error, "the interface is back, but its packets are not judged");
                    watched.state = State::Refused;
                }
                Err(_) => {}
            },
            None if watched.state != State::Gone => {
                let now = interface::name_of(watched.index);
                tracing::warn!(
                    interface = name,
                    now,
                    "the interface is gone, or has another name; XDP is attached again when there is one of its name"
                );
                watched.state = State::Gone;
            }
            None => {}
        }
    }

    fn attach_again(&mut self, watched: &Watched, index: u32) -> Result<AttachedInterface, LoadError> {
        // Of the interface that had the name: detached from it, if it is still there under another one.
        remove_pin(&self.pins.link(&link_name(&watched.name, watched.mode)))?;
        let (attached, _) = attach_pinned(xdp_program(&mut self.ebpf)?, &self.pins, &watched.name, index)?;
        Ok(attached)
    }
}
