//! The programs: loaded together, and kept in reach of one another and of the next version.

use std::fs;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::maps::{MapError, ProgramArray};
use aya::programs::{ProgramError, ProgramFd, SkLookup, Xdp};
use lb_common::slow_path::SlowPath;

use crate::error::LoadError;

/// Names of the programs in the object that are attached.
pub(crate) const XDP_PROGRAM: &str = "lb_process";
pub(crate) const STEER_PROGRAM: &str = "lb_steer";

/// Name of the map in the object, and of its pin: the programs that the fast one calls.
const SLOW_PATHS: &str = "SLOW_PATHS";
/// Pin of the attached XDP program, for a start that fails and has to put it back.
const PROGRAM: &str = "PROGRAM";

/// What is pinned beside the maps.
pub(crate) const PINNED_WITH_MAPS: [&str; 2] = [SLOW_PATHS, PROGRAM];

/// Loads the programs, and puts those that the fast one calls into the array where it looks. Each load has an array of
/// its own: the program that is being replaced goes on calling what it was loaded with.
pub(crate) fn load(
    ebpf: &mut Ebpf,
    refused: impl Fn(&'static str, ProgramError) -> LoadError,
) -> Result<(), LoadError> {
    xdp_program(ebpf)?.load().map_err(|error| refused(XDP_PROGRAM, error))?;
    steer_program(ebpf)?.load().map_err(|error| refused(STEER_PROGRAM, error))?;
    let mut programs = Vec::new();
    for path in SlowPath::ALL {
        let name = path.program_name();
        let program = xdp(ebpf, name)?;
        program.load().map_err(|error| refused(name, error))?;
        programs.push((path.index(), descriptor(program)?));
    }
    let failed = |error: MapError| LoadError::system("fill the array of slow paths", error);
    let map = ebpf.map_mut(SLOW_PATHS).ok_or(LoadError::ObjectMissing)?;
    let mut array = ProgramArray::try_from(map).map_err(failed)?;
    for (index, program) in &programs {
        array.set(*index, program, 0).map_err(failed)?;
    }
    Ok(())
}

pub(crate) fn xdp_program(ebpf: &mut Ebpf) -> Result<&mut Xdp, LoadError> {
    xdp(ebpf, XDP_PROGRAM)
}

fn xdp<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut Xdp, LoadError> {
    let program = ebpf.program_mut(name).ok_or(LoadError::ObjectMissing)?;
    program.try_into().map_err(|error: ProgramError| LoadError::system(format!("find the program {name}"), error))
}

pub(crate) fn steer_program(ebpf: &mut Ebpf) -> Result<&mut SkLookup, LoadError> {
    let program = ebpf.program_mut(STEER_PROGRAM).ok_or(LoadError::ObjectMissing)?;
    program.try_into().map_err(|error: ProgramError| LoadError::system("find the sk_lookup program", error))
}

fn descriptor(program: &Xdp) -> Result<ProgramFd, LoadError> {
    let failed = |error: &dyn std::fmt::Display| LoadError::system("hold a slow path's program", error.to_string());
    program.fd().map_err(|error| failed(&error))?.try_clone().map_err(|error| failed(&error))
}

/// Where a run with these maps pinned the program that it attached.
pub(crate) fn pinned_program(maps: &Path) -> PathBuf {
    maps.join(PROGRAM)
}

/// The pins while the start may still fail: beside the earlier run's. Its array the kernel would empty as soon as nobody
/// held it, and its program is the one to go back to.
pub(crate) struct PinnedPrograms {
    maps: PathBuf,
    is_kept: bool,
}

impl PinnedPrograms {
    /// Beside the maps in the folder `maps`.
    pub(crate) fn new(ebpf: &mut Ebpf, maps: &Path) -> Result<Self, LoadError> {
        let pinned = Self { maps: maps.to_path_buf(), is_kept: false };
        // Left by a start that was killed.
        pinned.remove_drafts();
        let failed = |path: &Path| format!("pin {}", path.display());
        let array = pinned.draft(SLOW_PATHS);
        let map = ebpf.map(SLOW_PATHS).ok_or(LoadError::ObjectMissing)?;
        map.pin(&array).map_err(|error| LoadError::system(failed(&array), error))?;
        let program = pinned.draft(PROGRAM);
        xdp_program(ebpf)?.pin(&program).map_err(|error| LoadError::system(failed(&program), error))?;
        Ok(pinned)
    }

    /// Takes the place of the earlier run's in the folder `maps`, whose programs no longer run.
    pub(crate) fn keep(&mut self, maps: &Path) -> Result<(), LoadError> {
        self.maps = maps.to_path_buf();
        for name in PINNED_WITH_MAPS {
            let place = self.maps.join(name);
            fs::rename(self.draft(name), &place)
                .map_err(|error| LoadError::system(format!("pin {}", place.display()), error))?;
        }
        self.is_kept = true;
        Ok(())
    }

    fn draft(&self, name: &str) -> PathBuf {
        self.maps.join(format!("{name}-new"))
    }

    fn remove_drafts(&self) {
        for name in PINNED_WITH_MAPS {
            // An error that led here is the one to report.
            let _ = fs::remove_file(self.draft(name));
        }
    }
}

impl Drop for PinnedPrograms {
    fn drop(&mut self) {
        if !self.is_kept {
            self.remove_drafts();
        }
    }
}
