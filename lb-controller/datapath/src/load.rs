//! From nothing, or from an earlier run's pins, to a working data plane: first maps and programs that judge nothing yet,
//! then, once the maps are filled, the exchange.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aya::programs::ProgramError;
use aya::{Ebpf, EbpfLoader};
use lb_common::types::{Control, HashKeys};

use crate::apply::read_state;
use crate::attach::{AttachedInterface, Switch};
use crate::desired::{Desired, DesiredNat};
use crate::error::LoadError;
use crate::globals::Globals;
use crate::kernel_tcp::KernelTcp;
use crate::layout::OtherVersion;
use crate::lists::await_packets;
use crate::lock::{InstanceLock, LockError};
use crate::log::XdpLog;
use crate::maps::{Maps, check_shapes, earlier_keys, open_samples, possible_cpus};
use crate::migrate::{Earlier, Forgotten, write_meanings};
use crate::nat;
use crate::pins::Pins;
use crate::plan::{MapState, Workers};
use crate::preflight;
use crate::programs::{self, PinnedPrograms, pinned_program};
use crate::reader::Reader;
use crate::route::Routes;
use crate::samples::SampleReader;
use crate::tunnels::HostAddresses;
use crate::watch::Watch;
use crate::way::Ways;

/// How talkative the programs are. Lines below the level are removed when the program is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// No line at all.
    #[default]
    Off,
    /// A sample of dropped packets.
    Debug,
}

/// What to attach to, and where to keep it.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// In the calling thread's network namespace. May be empty: sockets are steered, packets are not judged.
    pub interfaces: Vec<String>,
    /// On a BPF file system; created if needed. No dot may appear in its last folders: the kernel refuses them.
    pub pin_root: PathBuf,
    /// Where the lock of the instance lives; created if needed. Root's alone, and on a file system that forgets at boot.
    pub lock_folder: PathBuf,
    pub log_level: LogLevel,
    /// Connections through NAT that fit. Maps that are re-used keep the capacity that they were made with.
    pub nat_capacity: usize,
    /// The lock of the instance, from a run that hands its maps over and holds it as well; `None`: it is taken.
    pub handed_lock: Option<Arc<OwnedFd>>,
    /// Stands for another version of lb, in tests of upgrades.
    #[doc(hidden)]
    pub as_version: OtherVersion,
}

impl LoadOptions {
    pub const DEFAULT_LOCK_FOLDER: &str = "/run/lb";
    pub const DEFAULT_PIN_ROOT: &str = "/sys/fs/bpf/lb";
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            pin_root: Self::DEFAULT_PIN_ROOT.into(),
            lock_folder: Self::DEFAULT_LOCK_FOLDER.into(),
            log_level: LogLevel::default(),
            nat_capacity: DesiredNat::DEFAULT_CAPACITY,
            handed_lock: None,
            as_version: OtherVersion::default(),
        }
    }
}

/// Where the maps came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapsOrigin {
    Fresh,
    /// Counters, flows, verified and blocked sources of an earlier run go on.
    Reused,
    /// An earlier run's maps had another layout. What meant the same was taken over; this was not.
    Migrated {
        forgotten: BTreeSet<Forgotten>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadReport {
    pub interfaces: Vec<AttachedInterface>,
    pub maps: MapsOrigin,
}

/// The programs and maps of one instance, with the only right to write them. Dropping it leaves everything attached:
/// L4 goes on without the controller. [`crate::unload`] removes it.
pub struct Datapath {
    pub(crate) ebpf: Ebpf,
    pub(crate) maps: Maps,
    pub(crate) control: Box<Control>,
    pub(crate) routes: Routes,
    pub(crate) ways: Ways,
    pub(crate) host_addresses: HostAddresses,
    pub(crate) state: MapState,
    pub(crate) desired: Desired,
    pub(crate) workers: Workers,
    pub(crate) kernel_tcp: KernelTcp,
    pub(crate) watch: Watch,
    pub(crate) pins: Pins,
    reader: Reader,
    log: Option<XdpLog>,
    samples: Option<SampleReader>,
    /// Until packets are judged by these maps. Dropped before the lock is given up.
    start: Option<Start>,
    lock: LockOfStart,
}

/// What a start has made, and takes away again if it does not come to its end.
struct Start {
    interfaces: Vec<String>,
    programs: PinnedPrograms,
    origin: MapsOrigin,
    earlier: Option<Earlier>,
    draft: Draft,
}

impl Datapath {
    /// [`Datapath::prepare`] and [`Datapath::attach`] in one.
    pub fn load(options: &LoadOptions) -> Result<(Self, LoadReport), LoadError> {
        let mut datapath = Self::prepare(options)?;
        let report = datapath.attach()?;
        Ok((datapath, report))
    }

    /// Loads the programs. No packet is judged by them before [`Datapath::attach`]; until then an earlier run's go on, and
    /// dropping this leaves them as they were. Fill the maps in between: where their layout has changed they are new ones.
    ///
    /// Needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN.
    pub fn prepare(options: &LoadOptions) -> Result<Self, LoadError> {
        let object = crate::OBJECT.ok_or(LoadError::ObjectMissing)?;
        preflight::check(&options.pin_root)?;
        for name in &options.interfaces {
            crate::interface::index_of(name)?;
        }
        let pins = Pins::of_version(&options.pin_root, &options.as_version);
        let lock = LockOfStart { lock: Some(lock(options)?), root: options.pin_root.clone() };
        let draft = Draft::open(&pins)?;
        let earlier = earlier(&pins, &draft)?;
        let origin = |forgotten| match (draft.is_new, &earlier) {
            (false, _) => MapsOrigin::Reused,
            (true, None) => MapsOrigin::Fresh,
            (true, Some(_)) => MapsOrigin::Migrated { forgotten },
        };

        let kernel_tcp = KernelTcp::read();
        let keys = keys(&draft.folder, earlier.as_ref())?;
        let globals = Globals::of(&keys, options.log_level, &kernel_tcp, segment_bytes(&options.interfaces));
        let mut ebpf = load_object(object, &pins, &draft.folder, &globals, &keys, options.nat_capacity)?;
        write_meanings(&draft.folder, pins.layout())?;
        let forgotten = earlier.as_ref().map(|earlier| earlier.copy_state(&draft.folder)).transpose()?;
        let origin = origin(forgotten.unwrap_or_default());
        let maps = Maps::open(&draft.folder)?;
        let control = Box::new(maps.control.get(0)?);
        nat::compare_capacity(&maps, options.nat_capacity);
        let routes = Routes::open().map_err(|error| LoadError::system("open a netlink socket", error))?;
        let ways = Ways::open().map_err(|error| LoadError::system("listen for changes of routes", error))?;
        let state = read_state(&maps, &control, &routes)?;
        // An earlier run's numbers stand until the new workers listen: sockets that are gone steer nobody.
        let workers = state.workers();
        let reader = Reader::new(Arc::new(Maps::open(&draft.folder)?), pins.clone());
        let log = match options.log_level {
            LogLevel::Off => None,
            LogLevel::Debug => Some(XdpLog::open(&mut ebpf)?),
        };
        let samples = Some(SampleReader::new(open_samples(&draft.folder)?, reader.clone()));
        let programs = PinnedPrograms::new(&mut ebpf, &draft.folder)?;
        Ok(Self {
            ebpf,
            maps,
            control,
            routes,
            ways,
            host_addresses: HostAddresses::default(),
            state,
            desired: Desired::default(),
            workers,
            kernel_tcp,
            watch: Watch::default(),
            pins,
            reader,
            log,
            samples,
            start: Some(Start { interfaces: options.interfaces.clone(), programs, origin, earlier, draft }),
            lock,
        })
    }

    /// Exchanges the programs under the pinned links of an earlier run without a gap, and attaches to the interfaces that
    /// are new. If it fails, packets are judged as before.
    ///
    /// Afterwards all capabilities may be dropped: everything except routes of new VIPs, new lists and interfaces that come
    /// back goes through descriptors that are already open.
    pub fn attach(&mut self) -> Result<LoadReport, LoadError> {
        // What is named last is undone first: packets go the old way again before what the new way needs is gone.
        let Some(Start { mut draft, earlier, origin, mut programs, interfaces }) = self.start.take() else {
            return Err(LoadError::system("attach", "it is attached already"));
        };
        let earlier_maps = earlier.as_ref().map_or_else(|| self.pins.maps(), |earlier| earlier.folder().to_path_buf());
        let mut switch = Switch::prepare(&mut self.ebpf, &self.pins, &interfaces, &pinned_program(&earlier_maps))?;
        let origin = self.caught_up(&draft, earlier.as_ref(), origin)?;
        switch.exchange(&mut self.ebpf)?;
        // The earlier programs call one another through an array that is emptied when its pin goes.
        await_packets(&mut self.maps)?;
        draft.move_into_place()?;
        programs.keep(&draft.folder)?;
        let interfaces = switch.keep()?;
        draft.is_kept = true;
        remove_other_folders(&self.pins)?;
        self.lock.name_holder();
        self.watch = Watch::new(&interfaces);
        Ok(LoadReport { interfaces, maps: origin })
    }

    /// What moved on in the earlier maps while these were filled.
    fn caught_up(
        &mut self,
        draft: &Draft,
        earlier: Option<&Earlier>,
        origin: MapsOrigin,
    ) -> Result<MapsOrigin, LoadError> {
        let (Some(earlier), MapsOrigin::Migrated { mut forgotten }) = (earlier, origin.clone()) else {
            return Ok(origin);
        };
        if !earlier.copy_translations(&draft.folder)? {
            forgotten.insert(Forgotten::Translations);
        }
        if !earlier.copy_counters(&mut self.maps)? {
            forgotten.insert(Forgotten::Counters);
        }
        Ok(MapsOrigin::Migrated { forgotten })
    }

    /// Nothing of this instance was there before, and nothing is attached yet.
    pub fn is_fresh(&self) -> bool {
        self.start.as_ref().is_some_and(|start| start.origin == MapsOrigin::Fresh)
    }

    /// Goes on after another process was lent the maps and has ended without keeping them. What it wrote is read, and the
    /// next [`Datapath::apply`] makes it what is desired here; sockets must be steered to anew.
    ///
    /// Errors: it came so far that maps of another layout took the place of these.
    pub fn take_back(&mut self) -> Result<(), LoadError> {
        if !self.pins.maps().exists() {
            return Err(LoadError::system("go on with the eBPF maps", "those of another version took their place"));
        }
        *self.control = self.maps.control.get(0)?;
        self.state = read_state(&self.maps, &self.control, &self.routes)?;
        self.workers = self.state.workers();
        self.lock.name_holder();
        Ok(())
    }

    /// A descriptor of the instance's lock, to hand over; see [`LoadOptions::handed_lock`].
    pub fn share_lock(&self) -> io::Result<OwnedFd> {
        self.lock.lock.as_ref().ok_or(io::ErrorKind::NotFound)?.share()
    }

    /// What the kernel's TCP was set to at the start.
    pub fn kernel_tcp(&self) -> KernelTcp {
        self.kernel_tcp
    }

    /// Cheap to clone, and for any thread.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// The samples of packets, once: for a thread that reads them all the time.
    pub fn take_samples(&mut self) -> Option<SampleReader> {
        self.samples.take()
    }

    /// The programs' log lines, once; `None` if the level is off or they were taken.
    pub fn take_log(&mut self) -> Option<XdpLog> {
        self.log.take()
    }
}

/// The folder of the maps while the start may still fail. A half-made set must not be taken for an earlier run's, so new
/// ones are made in a folder of another name, which goes if the start fails.
struct Draft {
    pins: Pins,
    folder: PathBuf,
    /// None of this layout was there before.
    is_new: bool,
    is_kept: bool,
}

impl Draft {
    fn open(pins: &Pins) -> Result<Self, LoadError> {
        let is_new = !check_shapes(&pins.maps(), pins.layout())?;
        pins.set_draft_aside().map_err(|error| LoadError::system("set an unfinished start's maps aside", error))?;
        let folder = if is_new { pins.draft() } else { pins.maps() };
        let draft = Self { pins: pins.clone(), folder, is_new, is_kept: false };
        for folder in [&draft.folder, &pins.links()] {
            fs::create_dir_all(folder)
                .map_err(|error| LoadError::system(format!("create the folder {}", folder.display()), error))?;
        }
        Ok(draft)
    }

    /// Gives the folder the name of maps that are in force.
    fn move_into_place(&mut self) -> Result<(), LoadError> {
        if self.is_new {
            let place = self.pins.maps();
            fs::rename(&self.folder, &place)
                .map_err(|error| LoadError::system(format!("move the new maps to {}", place.display()), error))?;
            self.folder = place;
        }
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.is_new && !self.is_kept {
            // The error that led here is the one to report.
            let _ = self.pins.remove_folder(&self.folder);
            let _ = self.pins.remove_empty_folders();
        }
    }
}

/// The lock, until the start has succeeded: one that leaves nothing leaves no lock file either.
struct LockOfStart {
    lock: Option<InstanceLock>,
    root: PathBuf,
}

impl Drop for LockOfStart {
    fn drop(&mut self) {
        if !self.root.exists()
            && let Some(lock) = self.lock.take()
        {
            lock.remove();
        }
    }
}

impl LockOfStart {
    /// Only messages go by the name.
    fn name_holder(&self) {
        if let Some(Err(error)) = self.lock.as_ref().map(InstanceLock::name_holder) {
            tracing::warn!(%error, "the lock file names another process than its holder");
        }
    }
}

fn lock(options: &LoadOptions) -> Result<InstanceLock, LoadError> {
    let lock = match &options.handed_lock {
        Some(handed) => InstanceLock::adopt(handed, &options.lock_folder, &options.pin_root),
        None => InstanceLock::acquire(&options.lock_folder, &options.pin_root),
    };
    lock.map_err(|error| match error {
        LockError::Held { pid, path } => LoadError::AlreadyRunning { pid, lock_file: path },
        LockError::Failed { path, source } => LoadError::system(format!("lock {}", path.display()), source),
    })
}

/// The maps of another layout that packets are judged by now. Several there are only where a start was killed in the
/// moment between its last steps: then the latest is in force.
fn earlier(pins: &Pins, draft: &Draft) -> Result<Option<Earlier>, LoadError> {
    if !draft.is_new {
        return Ok(None);
    }
    let others = pins.other_maps().map_err(|error| LoadError::system("list the pins", error))?;
    let made = |folder: &PathBuf| fs::metadata(folder).and_then(|metadata| metadata.modified()).ok();
    let latest = others.into_iter().max_by_key(made);
    latest.map(|folder| Earlier::open(folder, pins.layout())).transpose()
}

fn remove_other_folders(pins: &Pins) -> Result<(), LoadError> {
    for folder in pins.other_folders().map_err(|error| LoadError::system("list the pins", error))? {
        fs::remove_dir_all(&folder)
            .map_err(|error| LoadError::system(format!("remove {}", folder.display()), error))?;
    }
    Ok(())
}

/// The hash keys of the run before, so that no connection moves, or new ones.
fn keys(folder: &Path, earlier: Option<&Earlier>) -> Result<HashKeys, LoadError> {
    let known = match earlier {
        Some(earlier) => earlier.keys()?,
        None => earlier_keys(folder)?,
    };
    match known {
        Some(keys) => Ok(keys),
        None => random_keys().map_err(|error| LoadError::system("read random bytes", error)),
    }
}

fn load_object(
    object: &[u8],
    pins: &Pins,
    folder: &Path,
    globals: &Globals,
    keys: &HashKeys,
    nat_capacity: usize,
) -> Result<Ebpf, LoadError> {
    let mut loader = EbpfLoader::new();
    globals.set(&mut loader);
    let possible_cpus = possible_cpus()?;
    for shape in pins.layout().shapes() {
        loader.map_pin_path(shape.name, folder.join(shape.name));
        loader.map_max_entries(shape.name, shape.entries(possible_cpus) as u32);
    }
    for (map, entries) in nat::lengths(nat_capacity) {
        loader.map_max_entries(map, entries);
    }
    let mut ebpf = loader.load(object).map_err(|error| LoadError::system("create the eBPF maps", error))?;
    Maps::open(folder)?.keys.set(0, keys)?;
    programs::load(&mut ebpf, refused)?;
    Ok(ebpf)
}

/// The largest TCP segment over IPv4 that all the interfaces take.
pub(crate) fn segment_bytes(interfaces: &[String]) -> u16 {
    const USUAL_MTU_BYTES: u32 = 1500;
    const LEAST_MTU_BYTES: u32 = 576;
    const LARGEST_MTU_BYTES: u32 = u16::MAX as u32;
    const HEADER_BYTES: u32 = 40;
    let mtu_bytes = interfaces.iter().filter_map(|name| crate::interface::mtu_bytes(name)).min();
    (mtu_bytes.unwrap_or(USUAL_MTU_BYTES).clamp(LEAST_MTU_BYTES, LARGEST_MTU_BYTES) - HEADER_BYTES) as u16
}

pub(crate) fn refused(program: &'static str, error: ProgramError) -> LoadError {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            tracing::debug!(program, %log, "the verifier's whole log");
            LoadError::Refused {
                program,
                kernel: preflight::kernel_release(),
                finding: finding(&log),
                source: io_error,
            }
        }
        error => LoadError::system(format!("load program {program}"), error),
    }
}

/// The last line that is not statistics: what the verifier objected to.
fn finding(log: &str) -> String {
    const STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];
    let is_statistics = |line: &&str| STATISTICS.iter().any(|start| line.starts_with(start));
    let mut lines = log.lines().map(str::trim).filter(|line| !line.is_empty() && !is_statistics(line));
    lines.next_back().unwrap_or("without a reason").to_owned()
}

fn random_keys() -> io::Result<HashKeys> {
    let mut bytes = [0; size_of::<HashKeys>()];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(zerocopy::transmute!(bytes))
}

#[cfg(test)]
mod tests {
    use super::finding;

    #[test]
    fn of_the_verifiers_log_the_objection_is_kept() {
        let log = "3: (71) r2 = *(u8 *)(r1 +12)\nR1 offset is outside of the packet\nverification time 2163 usec\n\
                   stack depth 136+0\nprocessed 181 insns (limit 1000000)\n\n";
        assert_eq!(finding(log), "R1 offset is outside of the packet");
        assert_eq!(finding(""), "without a reason");
    }
}
