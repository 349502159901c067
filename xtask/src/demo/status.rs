//! What `lb-controller status --json` and `backends --json` say, asked for by name.

use anyhow::{Context, Result};
use serde_json::Value;

use super::scene::Scene;

/// One reading of the edge's state.
#[derive(Debug)]
pub(crate) struct Status(Value);

impl Status {
    pub(crate) fn read(scene: &Scene) -> Result<Status> {
        let text = scene.controller_says(&["status", "--json"])?;
        Ok(Status(serde_json::from_str(&text).with_context(|| format!("`status --json` printed {text}"))?))
    }

    pub(crate) fn controller_runs(&self) -> bool {
        self.0["controller"].is_object()
    }

    pub(crate) fn config_version(&self) -> u64 {
        self.0["controller"]["config_version"].as_u64().unwrap_or_default()
    }

    /// Attached interfaces with their mode.
    pub(crate) fn interfaces(&self) -> Vec<(&str, &str)> {
        self.rows("interfaces")
            .iter()
            .map(|row| (row["name"].as_str().unwrap_or_default(), row["mode"].as_str().unwrap_or_default()))
            .collect()
    }

    /// Packets to services that XDP saw, all services together.
    pub(crate) fn packets(&self) -> u64 {
        self.sum("services", "packets", |_| true)
    }

    /// Packets that XDP dropped, by reason and class of source.
    pub(crate) fn dropped(&self, reason: &str, class: &str) -> u64 {
        self.sum("dropped", "packets", |row| row["reason"] == reason && row["class"] == class)
    }

    /// Packets that XDP let in, by why.
    pub(crate) fn admitted(&self, class: &str) -> u64 {
        self.sum("admitted", "packets", |row| row["class"] == class)
    }

    /// SYNs that XDP picked this worker for, and connections that sk_lookup steered to it. Workers that were never given
    /// anything are not listed.
    pub(crate) fn worker(&self, number: u64) -> (u64, u64) {
        let row = self.rows("workers").iter().find(|row| row["worker"] == number);
        let count = |name: &str| row.and_then(|row| row[name].as_u64()).unwrap_or_default();
        (count("syns_picked"), count("connections_steered"))
    }

    /// Connections that each worker accepted.
    pub(crate) fn accepted(&self) -> Vec<u64> {
        let counts = self.0["controller"]["accepted_by_worker"].as_array().map_or(&[][..], Vec::as_slice);
        counts.iter().filter_map(Value::as_u64).collect()
    }

    pub(crate) fn is_verified(&self, address: &str) -> bool {
        self.is_marked("verified", address)
    }

    pub(crate) fn is_blocked(&self, address: &str) -> bool {
        self.is_marked("blocked", address)
    }

    fn is_marked(&self, list: &str, address: &str) -> bool {
        let names = |source: &str| source == address || source.strip_suffix("/32") == Some(address);
        self.rows(list).iter().any(|row| row["source"].as_str().is_some_and(names))
    }

    fn sum(&self, list: &str, count: &str, wanted: impl Fn(&Value) -> bool) -> u64 {
        self.rows(list).iter().filter(|row| wanted(row)).filter_map(|row| row[count].as_u64()).sum()
    }

    fn rows(&self, list: &str) -> &[Value] {
        self.0["datapath"][list].as_array().map_or(&[], Vec::as_slice)
    }
}

/// Both views of one backend, as `backends` shows them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BackendViews {
    pub(crate) healthy_in_l7: bool,
    pub(crate) in_ebpf_map: String,
}

pub(crate) fn backend(scene: &Scene, index: usize) -> Result<BackendViews> {
    let text = scene.controller_says(&["backends", "--json"])?;
    let rows: Vec<Value> = serde_json::from_str(&text).with_context(|| format!("`backends --json` printed {text}"))?;
    let address = scene.place.backend(index).to_string();
    let row = rows.iter().find(|row| row["address"] == *address).with_context(|| format!("no {address} in {text}"))?;
    Ok(BackendViews {
        healthy_in_l7: row["l7"]["healthy"].as_bool().unwrap_or_default(),
        in_ebpf_map: row["ebpf"].as_str().unwrap_or_default().to_owned(),
    })
}
