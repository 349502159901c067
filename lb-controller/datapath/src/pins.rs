//! Where things are pinned, and under which names.
//!
//! `ROOT/maps-LAYOUT/NAME` and `ROOT/links/{native|generic}-INTERFACE`, `ROOT/links/steer`. The layout is part of the
//! path because the kernel re-opens a pinned map of any layout without a word. While maps are being filled their folder
//! is `ROOT/new-LAYOUT`; it gets its name when packets are judged by them.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::attach::AttachMode;
use crate::layout::{Layout, OtherVersion};
use crate::migrate::MEANINGS;
use crate::programs::PINNED_WITH_MAPS;

const MAPS_PREFIX: &str = "maps-";
const DRAFT_PREFIX: &str = "new-";
/// A draft of a start that was killed. Packets may be judged by it already: it goes when others are in force.
const LEFT_PREFIX: &str = "left-";
const LINKS: &str = "links";
pub(crate) const STEER_LINK: &str = "steer";

#[derive(Clone, Debug)]
pub(crate) struct Pins {
    root: PathBuf,
    layout: Layout,
}

impl Pins {
    pub(crate) fn new(root: &Path) -> Self {
        Self::of_version(root, &OtherVersion::default())
    }

    pub(crate) fn of_version(root: &Path, version: &OtherVersion) -> Self {
        Self { root: root.to_path_buf(), layout: Layout::of(version) }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The folder of this version's maps.
    pub(crate) fn maps(&self) -> PathBuf {
        self.folder(MAPS_PREFIX)
    }

    /// Their folder before they are in force.
    pub(crate) fn draft(&self) -> PathBuf {
        self.folder(DRAFT_PREFIX)
    }

    fn folder(&self, prefix: &str) -> PathBuf {
        self.root.join(format!("{prefix}{:016x}", self.layout.hash()))
    }

    pub(crate) fn links(&self) -> PathBuf {
        self.root.join(LINKS)
    }

    pub(crate) fn link(&self, name: &str) -> PathBuf {
        self.links().join(name)
    }

    /// Names of the pinned links; empty if there is no folder.
    pub(crate) fn link_names(&self) -> io::Result<Vec<String>> {
        file_names(&self.links())
    }

    /// One of this version's folders, each map by its name: listing the folder would need a descriptor, and a process
    /// that has none left is one of those that clean up.
    pub(crate) fn remove_folder(&self, folder: &Path) -> io::Result<()> {
        let maps = self.layout.shapes().map(|shape| shape.name).chain([MEANINGS]);
        for name in maps.chain(PINNED_WITH_MAPS) {
            absent_is_fine(fs::remove_file(folder.join(name)))?;
        }
        absent_is_fine(fs::remove_dir(folder))
    }

    /// Makes room for a draft. One that was left is kept under another name, because the program that runs may call the
    /// programs pinned there; [`Pins::other_folders`] lists it.
    pub(crate) fn set_draft_aside(&self) -> io::Result<()> {
        if !self.draft().exists() {
            return Ok(());
        }
        let mut number = 0;
        let mut place = self.root.join(format!("{LEFT_PREFIX}{number}"));
        while place.exists() {
            number += 1;
            place = self.root.join(format!("{LEFT_PREFIX}{number}"));
        }
        fs::rename(self.draft(), place)
    }

    /// The folders themselves, unless something is still pinned in them.
    pub(crate) fn remove_empty_folders(&self) -> io::Result<()> {
        for folder in [&self.links(), &self.root] {
            match fs::remove_dir(folder) {
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {}
                answer => answer?,
            }
        }
        Ok(())
    }

    /// Folders of maps that another version left.
    pub(crate) fn other_maps(&self) -> io::Result<Vec<PathBuf>> {
        let mut folders = self.folders(&[MAPS_PREFIX])?;
        folders.retain(|folder| *folder != self.maps());
        Ok(folders)
    }

    /// All that is not this version's: other versions' maps, and drafts of starts that were killed.
    pub(crate) fn other_folders(&self) -> io::Result<Vec<PathBuf>> {
        let mut folders = self.folders(&[MAPS_PREFIX, DRAFT_PREFIX, LEFT_PREFIX])?;
        folders.retain(|folder| *folder != self.maps() && *folder != self.draft());
        Ok(folders)
    }

    /// Every folder of maps, in force or not.
    pub(crate) fn all_folders(&self) -> io::Result<Vec<PathBuf>> {
        self.folders(&[MAPS_PREFIX, DRAFT_PREFIX, LEFT_PREFIX])
    }

    fn folders(&self, prefixes: &[&str]) -> io::Result<Vec<PathBuf>> {
        let names = file_names(&self.root)?;
        let is_one = |name: &&String| prefixes.iter().any(|prefix| name.starts_with(prefix));
        Ok(names.iter().filter(is_one).map(|name| self.root.join(name)).collect())
    }
}

fn absent_is_fine(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        answer => answer,
    }
}

/// Names in a folder, sorted; empty if it does not exist.
fn file_names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The pin of an interface's link. The kernel refuses a dot in a pin's name, and VLAN interfaces have one.
pub(crate) fn link_name(interface: &str, mode: AttachMode) -> String {
    let escaped = interface.replace('%', "%25").replace('.', "%2e");
    format!("{}-{escaped}", mode.name())
}

/// The reverse of [`link_name`]; `None` for the pins of other links.
pub(crate) fn parse_link_name(name: &str) -> Option<(String, AttachMode)> {
    let (mode, escaped) = name.split_once('-')?;
    let mode = [AttachMode::Native, AttachMode::Generic].into_iter().find(|candidate| candidate.name() == mode)?;
    Some((escaped.replace("%2e", ".").replace("%25", "%"), mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_of_any_name_survives_the_round_trip_without_a_dot() {
        for interface in ["eth0", "eth0.100", "a-b", "%2e", "%252e.%"] {
            for mode in [AttachMode::Native, AttachMode::Generic] {
                let name = link_name(interface, mode);
                assert!(!name.contains('.'), "{name}");
                assert_eq!(parse_link_name(&name), Some((interface.to_owned(), mode)), "{name}");
            }
        }
    }

    #[test]
    fn the_link_of_sk_lookup_is_no_interface() {
        assert_eq!(parse_link_name(STEER_LINK), None);
        assert_eq!(parse_link_name("steer-new"), None);
    }
}
