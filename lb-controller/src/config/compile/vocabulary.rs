//! What rules may name because the configuration defines it: sets of networks, rates, labels of routes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lb_policy::{Network, PrefixSet, RateName, RequestMatcher, Vocabulary};

use super::super::section::{Complaint, Problems, Section};
use super::super::tree::{Key, Node, Value};
use super::super::{RateConfig, Route, TakenIn, values};
use super::rule;

/// More networks than this, of all sets together, are a mistake of whatever wrote them.
const MOST_NETWORKS: usize = 2_000_000;
const MOST_FILE_BYTES: u64 = 128 * 1024 * 1024;
const MOST_RATES: usize = 64;

/// Everything that is defined beside the rules, for their sake.
pub(super) struct Definitions {
    pub(super) vocabulary: Vocabulary,
    pub(super) rates: Vec<RateConfig>,
    /// Files that were read: a change of one is a change of the configuration.
    pub(super) taken_in: Vec<TakenIn>,
}

pub(super) fn compile(config: &Section<'_>, routes: &[Route], folder: &Path) -> Definitions {
    let mut taken_in = Vec::new();
    let prefix_sets = entries(config, "sets")
        .iter()
        .filter_map(|(key, node)| {
            let name = identifier(key, config.problems)?;
            Some((name, Arc::new(prefix_set(node, folder, &mut taken_in, config.problems))))
        })
        .collect();
    let rate_nodes = entries(config, "rates");
    if let Some((extra, _)) = rate_nodes.get(MOST_RATES) {
        config.problems.report(&extra.place, format!("at most {MOST_RATES} rates"));
    }
    let rates: Vec<RateConfig> =
        rate_nodes.iter().take(MOST_RATES).filter_map(|(key, node)| rate(key, node, config.problems)).collect();
    let mut route_labels: Vec<String> =
        routes.iter().flat_map(|route| &route.labels).map(|(name, _)| name.clone()).collect();
    route_labels.sort();
    route_labels.dedup();
    let rate_name =
        |rate: &RateConfig| RateName { name: rate.name.clone(), needs_session: rate.counted_by.needs_session() };
    let vocabulary = Vocabulary { prefix_sets, route_labels, rates: rates.iter().map(rate_name).collect() };
    Definitions { vocabulary, rates, taken_in }
}

/// The entries of a section whose keys are the author's.
fn entries<'a>(config: &Section<'a>, name: &'static str) -> &'a [(Key, Node)] {
    let section = config.get(name).and_then(|node| Section::open(name, node, config.problems));
    section.map_or(&[], |section| section.entries())
}

fn identifier(key: &Key, problems: &Problems) -> Option<String> {
    if values::is_identifier(&key.name) {
        return Some(key.name.clone());
    }
    let help = "letters, digits and `_`, as in `sets.office` or `rate.exports`";
    problems.report(&key.place, Complaint::new("not a name that a condition can write", help));
    None
}

/// Prefixes, addresses, and files of them.
fn prefix_set(node: &Node, folder: &Path, taken_in: &mut Vec<TakenIn>, problems: &Problems) -> PrefixSet {
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let mut networks = Vec::new();
    for item in items {
        if matches!(item.value, Value::Map(_)) {
            let Some(section) = Section::open("an entry of a set", item, problems) else { continue };
            let file = section.required_value("file", |text| super::path_in(folder, text));
            section.finish();
            let Some(file) = file else { continue };
            taken_in.push(TakenIn::now(&file));
            match read_file(&file) {
                Ok(more) => networks.extend(more),
                Err(mistakes) => mistakes.into_iter().for_each(|mistake| problems.report(&item.place, mistake)),
            }
        } else {
            networks.extend(item.read(problems, |text| {
                Network::parse_or_host(text).map_err(|error| format!("`{text}` is no network: {error}").into())
            }));
        }
        if networks.len() > MOST_NETWORKS {
            problems.report(&item.place, format!("at most {MOST_NETWORKS} networks in a set"));
            break;
        }
    }
    networks.into_iter().collect()
}

/// A network or an address a line; `#` and `;` begin a comment. The first mistakes are told, each with its line.
fn read_file(file: &Path) -> Result<Vec<Network>, Vec<String>> {
    const MOST_MISTAKES: usize = 5;
    let unreadable = |error: std::io::Error| vec![format!("{} cannot be read: {error}", file.display())];
    let bytes = std::fs::metadata(file).map_err(unreadable)?.len();
    if bytes > MOST_FILE_BYTES {
        return Err(vec![format!("{} has {bytes} bytes; at most {MOST_FILE_BYTES} are read", file.display())]);
    }
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    let (mut networks, mut mistakes) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split(['#', ';']).next().unwrap_or_default().trim();
        match Network::parse_or_host(line) {
            _ if line.is_empty() => {}
            Ok(network) => networks.push(network),
            Err(_) if mistakes.len() == MOST_MISTAKES => break,
            Err(error) => mistakes.push(format!("{}:{number}: {error}", file.display())),
        }
    }
    if mistakes.is_empty() { Ok(networks) } else { Err(mistakes) }
}

fn rate(key: &Key, node: &Node, problems: &Problems) -> Option<RateConfig> {
    let name = identifier(key, problems);
    let section = Section::open("a rate", node, problems)?;
    let matches = section.get("match").map(|node| {
        let source = rule::matches(node, problems)?;
        RequestMatcher::compile(&source)
            .map_err(|errors| {
                for error in errors {
                    problems.report(&node.place, Complaint { message: error.message, help: error.help });
                }
            })
            .ok()
    });
    let counted_by = section.required_value("by", rule::counted_by);
    let within =
        section.required_value("within", values::duration(Duration::from_secs(1)..=Duration::from_secs(86_400)));
    section.finish();
    let matches = match matches {
        None => RequestMatcher::default(),
        Some(matches) => matches?,
    };
    Some(RateConfig { name: name?, matches, counted_by: counted_by?, within: within? })
}
