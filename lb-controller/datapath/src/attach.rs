//! Attaching to interfaces and to the network namespace, through pinned links that outlive the controller.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::Ebpf;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{ProgramError, Xdp};
use aya_obj::programs::XdpAttachType;

use crate::error::LoadError;
use crate::interface;
use crate::link;
use crate::occupant::Occupant;
use crate::pins::{Pins, STEER_LINK, link_name, parse_link_name};
use crate::programs::{steer_program, xdp_program};

/// Where in the receive path the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttachMode {
    /// In the driver, before the kernel has built a packet of its own.
    Native,
    /// After that: correct, but several times slower.
    Generic,
}

impl AttachMode {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// One interface whose packets are judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedInterface {
    pub name: String,
    pub mode: AttachMode,
    /// An earlier run's program was exchanged for this one without a gap.
    pub replaced: bool,
    /// What the operator should know, such as why not natively.
    pub warning: Option<String>,
}

/// Interfaces on their way from an earlier run's program, or from none, to this one. Undone where it is dropped before
/// [`Switch::keep`]: whatever failed, packets go on as before.
pub(crate) struct Switch {
    pins: Pins,
    report: Vec<AttachedInterface>,
    /// Pins of links that were not there before.
    fresh: Vec<PathBuf>,
    /// Pins of links whose program has been exchanged.
    exchanged: Vec<PathBuf>,
    /// What the links of an earlier run had.
    earlier_program: Option<Xdp>,
    is_kept: bool,
}

impl Switch {
    /// Attaches to the interfaces that are free, and to the network namespace: all that may well fail.
    pub(crate) fn prepare(
        ebpf: &mut Ebpf,
        pins: &Pins,
        names: &[String],
        earlier_program: &Path,
    ) -> Result<Self, LoadError> {
        let indices = names.iter().map(|name| interface::index_of(name)).collect::<Result<Vec<_>, _>>()?;
        let (report, fresh, exchanged) = Default::default();
        let earlier_program = Xdp::from_pin(earlier_program, XdpAttachType::Interface).ok();
        let mut switch = Self { pins: pins.clone(), report, fresh, exchanged, earlier_program, is_kept: false };
        let program = xdp_program(ebpf)?;
        for (name, index) in names.iter().zip(indices) {
            let attached = match pinned_mode(pins, name, index)? {
                Some(mode) => AttachedInterface { name: name.clone(), mode, replaced: true, warning: None },
                None => switch.attach(program, name, index)?,
            };
            switch.report.push(attached);
        }
        attach_steering(ebpf, pins)?;
        Ok(switch)
    }

    fn attach(&mut self, program: &mut Xdp, name: &str, index: u32) -> Result<AttachedInterface, LoadError> {
        let (attached, pin) = attach_pinned(program, &self.pins, name, index)?;
        self.fresh.push(pin);
        Ok(attached)
    }

    /// Exchanges the program under every link of an earlier run, each in one step (`BPF_LINK_UPDATE`).
    pub(crate) fn exchange(&mut self, ebpf: &mut Ebpf) -> Result<(), LoadError> {
        let program = xdp_program(ebpf)?;
        for attached in self.report.iter().filter(|attached| attached.replaced) {
            let path = self.pins.link(&link_name(&attached.name, attached.mode));
            exchange(program, &path).map_err(|error| {
                LoadError::system(format!("replace the program on interface {:?}", attached.name), error)
            })?;
            self.exchanged.push(path);
        }
        Ok(())
    }

    /// Lets go of what the earlier run had and this one has not: its sk_lookup program, and interfaces that are no
    /// longer wanted.
    pub(crate) fn keep(mut self) -> Result<Vec<AttachedInterface>, LoadError> {
        fs::rename(self.pins.link(STEER_DRAFT), self.pins.link(STEER_LINK))
            .map_err(|error| LoadError::system("pin the link of sk_lookup", error))?;
        self.is_kept = true;
        detach_others(&self.pins, &self.report)?;
        Ok(std::mem::take(&mut self.report))
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        // The error that led here is the one to report.
        for pin in self.fresh.iter().chain([&self.pins.link(STEER_DRAFT)]) {
            let _ = fs::remove_file(pin);
        }
        for path in &self.exchanged {
            let put_back = match &mut self.earlier_program {
                Some(earlier) => exchange(earlier, path),
                None => Err("it is not pinned".into()),
            };
            if let Err(error) = put_back {
                tracing::warn!(link = %path.display(), %error, "the earlier program could not be put back");
            }
        }
    }
}

fn exchange(program: &mut Xdp, path: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let link = XdpLink::try_from(FdLink::from(PinnedLink::from_pin(path)?))?;
    let id = program.attach_to_link(link)?;
    // The pin keeps the link; the handle would detach nothing, but must not outlive its use.
    let _ = program.take_link(id);
    Ok(())
}

/// How an earlier run's link is attached to this very interface. `None` if there is no such link, or its interface is
/// gone and another one has the name now.
fn pinned_mode(pins: &Pins, name: &str, index: u32) -> Result<Option<AttachMode>, LoadError> {
    for mode in [AttachMode::Native, AttachMode::Generic] {
        let path = pins.link(&link_name(name, mode));
        let Ok(pinned) = PinnedLink::from_pin(&path) else {
            continue;
        };
        if interface_of(&FdLink::from(pinned)) == Some(index) {
            return Ok(Some(mode));
        }
        remove_pin(&path)?;
    }
    Ok(None)
}

/// Attaches to an interface that nothing of ours is attached to, and pins the link.
pub(crate) fn attach_pinned(
    program: &mut Xdp,
    pins: &Pins,
    name: &str,
    index: u32,
) -> Result<(AttachedInterface, PathBuf), LoadError> {
    let (mode, link, warning) = attach(program, pins.root(), name, index)?;
    let path = pins.link(&link_name(name, mode));
    link.pin(&path).map_err(|error| LoadError::system(format!("pin the link {}", path.display()), error))?;
    Ok((AttachedInterface { name: name.to_owned(), mode, replaced: false, warning }, path))
}

type Attached = (AttachMode, FdLink, Option<String>);

fn attach(program: &mut Xdp, pin_root: &Path, name: &str, index: u32) -> Result<Attached, LoadError> {
    let busy = || LoadError::InterfaceBusy { name: name.to_owned(), occupant: Occupant::of(index, name, pin_root) };
    let native = match program.attach_to_if_index(index, XdpMode::Driver) {
        Ok(id) => return Ok((AttachMode::Native, held(program, id, name)?, None)),
        Err(error) => error,
    };
    if is_busy(&native) {
        return Err(busy());
    }
    let native = innermost(&native);
    match program.attach_to_if_index(index, XdpMode::Skb) {
        Ok(id) => {
            let warning = format!("interface {name:?} cannot run XDP natively ({native}); it runs generically, slower");
            Ok((AttachMode::Generic, held(program, id, name)?, Some(warning)))
        }
        Err(error) if is_busy(&error) => Err(busy()),
        Err(error) => Err(LoadError::Attach { name: name.to_owned(), native, source: Box::new(error) }),
    }
}

fn held(program: &mut Xdp, id: aya::programs::xdp::XdpLinkId, name: &str) -> Result<FdLink, LoadError> {
    program
        .take_link(id)
        .map_err(Box::<dyn std::error::Error + Send + Sync>::from)
        .and_then(|link| FdLink::try_from(link).map_err(Into::into))
        .map_err(|error| LoadError::system(format!("hold the link of interface {name:?}"), error))
}

const STEER_DRAFT: &str = "steer-new";

/// sk_lookup belongs to a network namespace and allows several programs at once. The new one is attached beside the
/// old one, choosing the same socket, before its pin takes the old one's place: no connection finds none.
fn attach_steering(ebpf: &mut Ebpf, pins: &Pins) -> Result<(), LoadError> {
    let failed = |error: ProgramError| LoadError::system("attach sk_lookup to the network namespace", error);
    let namespace = File::open("/proc/thread-self/ns/net")
        .map_err(|error| LoadError::system("open the network namespace", error))?;
    let program = steer_program(ebpf)?;
    let id = program.attach(namespace).map_err(failed)?;
    let link = FdLink::from(program.take_link(id).map_err(failed)?);
    let path = pins.link(STEER_DRAFT);
    remove_pin(&path)?;
    link.pin(path).map_err(|error| LoadError::system("pin the link of sk_lookup", error))?;
    Ok(())
}

fn detach_others(pins: &Pins, wanted: &[AttachedInterface]) -> Result<(), LoadError> {
    let names = pins.link_names().map_err(|error| LoadError::system("list the pinned links", error))?;
    for name in names.iter().filter(|name| *name != STEER_LINK) {
        let is_wanted = |one: &AttachedInterface| parse_link_name(name) == Some((one.name.clone(), one.mode));
        if !wanted.iter().any(is_wanted) {
            remove_pin(&pins.link(name))?;
            await_detached(name);
        }
    }
    Ok(())
}

/// The kernel lets go of a link a moment after its pin. Whoever asks next should find the interface free.
pub(crate) fn await_detached(link_name: &str) {
    const STEP: Duration = Duration::from_millis(5);
    const STEPS: u32 = 400;
    let index = parse_link_name(link_name).and_then(|(interface, _)| interface::present_index(&interface));
    let is_attached = |index| matches!(link::facts(index), Ok(Some(facts)) if facts.xdp_program.is_some());
    for _ in (0..STEPS).take_while(|_| index.is_some_and(is_attached)) {
        std::thread::sleep(STEP);
    }
}

pub(crate) fn remove_pin(path: &Path) -> Result<(), LoadError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(LoadError::system(format!("remove the pin {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// The interface a link is attached to; 0 if that is gone. The kernel tells it only to whoever holds a descriptor of
/// the link, in the descriptor's own file under /proc.
pub(crate) fn interface_of(link: &FdLink) -> Option<u32> {
    let id = link.info().ok()?.id();
    let descriptors = fs::read_dir("/proc/thread-self/fdinfo").ok()?;
    let texts = descriptors.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    texts.filter(|text| field(text, "link_id:") == Some(id)).find_map(|text| field(&text, "ifindex:"))
}

fn field(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| line.strip_prefix(name)).and_then(|value| value.trim().parse().ok())
}

/// Another program owns the hook (EBUSY), or one in the other mode does (EEXIST).
fn is_busy(error: &ProgramError) -> bool {
    let errno = match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    };
    matches!(errno, Some(nix::libc::EBUSY | nix::libc::EEXIST))
}

/// The end of the chain of causes, where the errno is.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
