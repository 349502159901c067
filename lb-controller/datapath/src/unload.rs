//! Leaving nothing behind.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lb_common::vip::VipPrefix;

use crate::attach::await_detached;
use crate::error::UnloadError;
use crate::lock::{InstanceLock, LockError};
use crate::pins::Pins;
use crate::route::Routes;

/// What was removed; empty if nothing was there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnloadReport {
    /// Pinned links: interfaces and the network namespace are free again.
    pub links: Vec<String>,
    /// Pinned folders of maps.
    pub maps: Vec<PathBuf>,
    /// VIPs that are no longer local.
    pub routes: Vec<VipPrefix>,
}

/// Detaches the programs, forgets the maps and removes the VIPs' routes from the calling thread's network namespace.
/// Refused while the instance runs: `lock_folder` is that of its [`crate::LoadOptions`].
pub fn unload(pin_root: &Path, lock_folder: &Path) -> Result<UnloadReport, UnloadError> {
    let lock = InstanceLock::acquire(lock_folder, pin_root).map_err(|error| match error {
        LockError::Held { pid, .. } => UnloadError::Running { pid },
        LockError::Failed { path, source } => UnloadError::Lock { path, source },
    })?;
    let pins = Pins::new(pin_root);
    let mut report = UnloadReport::default();
    // Packets first pass freely, then stop being local: the other way round they would be answered with errors.
    for name in pins.link_names().map_err(pin_error(&pins.links()))? {
        fs::remove_file(pins.link(&name)).map_err(pin_error(&pins.link(&name)))?;
        await_detached(&name);
        report.links.push(name);
    }
    for folder in pins.all_folders().map_err(pin_error(pins.root()))? {
        fs::remove_dir_all(&folder).map_err(pin_error(&folder))?;
        report.maps.push(folder);
    }
    pins.remove_empty_folders().map_err(pin_error(pins.root()))?;
    let routes = Routes::open().map_err(UnloadError::Route)?;
    for vip in routes.ours().map_err(UnloadError::Route)? {
        routes.remove(vip).map_err(UnloadError::Route)?;
        report.routes.push(vip);
    }
    lock.remove();
    Ok(report)
}

fn pin_error(path: &Path) -> impl FnOnce(io::Error) -> UnloadError + use<> {
    let path = path.to_path_buf();
    move |source| UnloadError::Pin { path, source }
}
