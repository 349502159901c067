//! Whether the kernel takes the programs, without attaching or pinning anything.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use aya::EbpfLoader;
use aya::maps::{Map, MapData};
use lb_common::maps::PINNED;

use crate::desired::DesiredNat;
use crate::error::LoadError;
use crate::globals::Globals;
use crate::load::refused;
use crate::maps::possible_cpus;
use crate::{nat, programs};

/// A program that the verifier has let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedProgram {
    pub name: String,
    /// Instructions that the verifier followed, all ways together; it gives up at a million.
    pub instructions: u32,
}

/// How all of them were taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub programs: Vec<VerifiedProgram>,
    /// Of all programs.
    pub took: Duration,
    pub maps: Vec<MapMemory>,
}

/// What a map costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapMemory {
    pub name: String,
    pub entries: u32,
    /// As the kernel counts it, of all CPUs together.
    pub bytes: u64,
}

/// Loads every program with `globals`, and lets go of them. Needs what loading needs, and the memory of the maps for as long.
pub fn verify(globals: &Globals) -> Result<Verified, LoadError> {
    let object = crate::OBJECT.ok_or(LoadError::ObjectMissing)?;
    let mut loader = EbpfLoader::new();
    globals.set(&mut loader);
    let possible_cpus = possible_cpus()?;
    for shape in PINNED {
        loader.map_max_entries(shape.name, shape.entries(possible_cpus) as u32);
    }
    for (map, entries) in nat::lengths(DesiredNat::DEFAULT_CAPACITY) {
        loader.map_max_entries(map, entries);
    }
    let mut ebpf = loader.load(object).map_err(|error| LoadError::system("create the eBPF maps", error))?;
    let begin = Instant::now();
    programs::load(&mut ebpf, refused)?;
    let took = begin.elapsed();
    let mut programs = Vec::new();
    for (name, program) in ebpf.programs() {
        let info = program.info().map_err(|error| LoadError::system(format!("ask about program {name}"), error))?;
        let instructions = info.verified_instruction_count().unwrap_or(0);
        programs.push(VerifiedProgram { name: name.to_owned(), instructions });
    }
    programs.sort_by(|one, other| one.name.cmp(&other.name));
    let mut maps = ebpf.maps().filter_map(|(name, map)| memory(name, map)).collect::<Vec<_>>();
    largest_first(&mut maps);
    Ok(Verified { programs, took, maps })
}

/// `None` for the constants of the programs.
fn memory(name: &str, map: &Map) -> Option<MapMemory> {
    if name.starts_with('.') {
        return None;
    }
    let data = match map {
        Map::Array(data)
        | Map::PerCpuArray(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::LpmTrie(data)
        | Map::ProgramArray(data)
        | Map::SockMap(data)
        | Map::RingBuf(data)
        | Map::ArrayOfMaps(data)
        | Map::HashOfMaps(data) => data,
        _ => return None,
    };
    of_map(name, data)
}

/// Of the maps that are pinned in `folder`, those of this version, the largest first.
pub(crate) fn of_pins(folder: &Path) -> Vec<MapMemory> {
    let pinned = PINNED.iter().filter_map(|shape| Some((shape.name, MapData::from_pin(folder.join(shape.name)).ok()?)));
    let mut maps: Vec<_> = pinned.filter_map(|(name, map)| of_map(name, &map)).collect();
    largest_first(&mut maps);
    maps
}

fn largest_first(maps: &mut [MapMemory]) {
    maps.sort_by(|one, other| (other.bytes, &one.name).cmp(&(one.bytes, &other.name)));
}

fn of_map(name: &str, data: &MapData) -> Option<MapMemory> {
    let info = data.info().ok()?;
    let text = fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", data.fd().as_fd().as_raw_fd())).ok()?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:"))?.trim().parse().ok()?;
    Some(MapMemory { name: name.to_owned(), entries: info.max_entries(), bytes })
}
