//! Deny and allow lists: prefixes in place, and the names of files that hold more of them.

use std::path::Path;

use super::super::section::{Complaint, Problems, Section};
use super::super::tree::{Node, Value};
use super::super::{ListEntry, ListsConfig, values};

/// More files than this are a mistake: each one is watched.
const MOST_FILES: usize = 256;

pub(super) fn compile(config: &Section<'_>, folder: &Path) -> ListsConfig {
    let problems = config.problems;
    let Some(section) = config.get("lists").and_then(|node| Section::open("`lists`", node, problems)) else {
        return ListsConfig::default();
    };
    let read = |name| section.list(name).iter().filter_map(|node| entry(node, folder, problems)).collect();
    let lists = ListsConfig { deny: read("deny"), allow: read("allow") };
    section.finish();
    let files = lists.files().count();
    if files > MOST_FILES
        && let Some(node) = config.get("lists")
    {
        let complaint =
            Complaint::new(format!("{files} list files are named"), format!("at most {MOST_FILES} are read"));
        problems.report(&node.place, complaint);
    }
    lists
}

fn entry(node: &Node, folder: &Path, problems: &Problems) -> Option<ListEntry> {
    if !matches!(node.value, Value::Map(_)) {
        return node.read(problems, values::network).map(ListEntry::Prefix);
    }
    let section = Section::open("a list entry", node, problems)?;
    let file = section.required_value("file", |text| super::path_in(folder, text));
    section.finish();
    file.map(ListEntry::File)
}
