//! Which module of lb-controller may name which.
//!
//! The table is the direction of the house: what is further down knows nothing of what is further up. A new edge is a
//! decision, made here in view of all the others.

use std::path::Path;

use super::{Complaint, Source};

/// Anybody may name these: they name nobody.
const FOUNDATION: &[&str] = &[
    "audit",
    "clock",
    "config",
    "descriptors",
    "failure",
    "folders",
    "instance",
    "metrics",
    "report",
    "seldom",
    "shutdown",
    "texts",
];

/// A module, and what it may name beside the foundation and itself.
const PERMITTED: &[(&str, &[&str])] = &[
    (
        "cli",
        &[
            "admin",
            "datapath_report",
            "explain",
            "handover",
            "logging",
            "pcap",
            "rates",
            "run",
            "samples",
            "signals",
            "stepup",
            "trace",
        ],
    ),
    (
        "run",
        &[
            "acme",
            "admin",
            "discovery",
            "edge",
            "explain",
            "handover",
            "health",
            "identity",
            "joint",
            "lists",
            "lists_metrics",
            "logging",
            "pool",
            "privileges",
            "reconcile",
            "samples",
            "serve",
            "signals",
            "stepup",
            "stepup_metrics",
            "tail",
            "traces",
            "xdp_metrics",
        ],
    ),
    (
        "admin",
        &[
            "datapath_report",
            "discovery",
            "edge",
            "explain",
            "handover",
            "identity",
            "lists",
            "pool",
            "reconcile",
            "samples",
            "stepup",
            "tail",
        ],
    ),
    // From one process to the next: what ended early in one ends in both.
    ("handover", &["store"]),
    ("reconcile", &["health", "joint"]),
    // A request's way. Its types (`serve::request`, `serve::respond`) are what the ones below speak in.
    ("serve", &["edge", "explain", "identity", "pool", "proxy_protocol", "signals", "stepup", "tail", "traces"]),
    ("explain", &["serve", "signals"]),
    ("edge", &["explain", "identity", "joint", "pool", "serve", "signals", "stepup", "tail"]),
    ("stepup", &["edge", "identity", "joint", "mail", "serve", "signals", "store", "webhook"]),
    ("signals", &["store"]),
    ("joint", &["serve"]),
    ("health", &["pool", "proxy_protocol"]),
    // Whom others vouch for; it decides about no request.
    ("identity", &["store"]),
    // What is ordered goes through files; what an authority asks, `serve` answers.
    ("acme", &["identity", "serve"]),
    ("discovery", &[]),
    ("lists", &[]),
    ("lists_metrics", &["lists"]),
    ("pcap", &[]),
    ("mail", &[]),
    ("pool", &[]),
    ("rates", &[]),
    ("samples", &[]),
    ("tail", &[]),
    ("trace", &["datapath_report"]),
    // Spans are posted as whatever else is.
    ("traces", &["webhook"]),
    ("store", &[]),
    ("datapath_report", &[]),
    ("stepup_metrics", &["edge"]),
    ("webhook", &[]),
    ("xdp_metrics", &[]),
    // Access lines are a log, and a request's.
    ("logging", &["serve"]),
    ("privileges", &[]),
    ("proxy_protocol", &[]),
    ("audit", &[]),
    ("clock", &[]),
    ("config", &[]),
    ("descriptors", &[]),
    ("failure", &[]),
    ("folders", &[]),
    ("instance", &[]),
    ("metrics", &[]),
    ("report", &[]),
    ("seldom", &[]),
    ("shutdown", &[]),
    ("texts", &[]),
];

pub(super) fn controller(source: &Source) -> Vec<Complaint> {
    let Some(module) = module_of(&source.path) else { return Vec::new() };
    let Some((_, permitted)) = PERMITTED.iter().find(|(name, _)| *name == module) else {
        let what = format!("module {module} is not in the table of permitted edges (xtask/src/tidy/edges.rs)");
        return vec![source.complain(1, what)];
    };
    let allowed = |name: &str| name == module || FOUNDATION.contains(&name) || permitted.contains(&name);
    // Tests come last, and may bring anything together.
    let production = source.lines().take_while(|(_, line)| !line.starts_with("#[cfg(test)]"));
    let named = production.flat_map(|(number, line)| modules_named(line).into_iter().map(move |name| (number, name)));
    named
        .filter(|(_, name)| !allowed(name))
        .map(|(number, name)| source.complain(number, format!("{module} may not name {name}")))
        .collect()
}

/// The top-level module of lb-controller that a source belongs to; the library's root and the binary name everybody.
fn module_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix("lb-controller/src").ok()?;
    if inside.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs" | "testing.rs"))) {
        return None;
    }
    let first = inside.components().next()?.as_os_str().to_str()?;
    let module = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(module, "lib" | "main")).then(|| module.to_owned())
}

/// `crate::a::…` names a; `crate::{a::…, b}` names a and b.
fn modules_named(line: &str) -> Vec<&str> {
    if line.trim_start().starts_with("//") {
        return Vec::new();
    }
    let is_lower = |name: &&str| name.starts_with(|first: char| first.is_ascii_lowercase());
    let mut named = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        // `$crate::` and `lb_crate::` are other words.
        if line[..at].ends_with(|before: char| before.is_alphanumeric() || matches!(before, '_' | '$')) {
            continue;
        }
        let rest = &line[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => {
                let group = group.split('}').next().unwrap_or_default();
                named.extend(group.split(',').map(|path| identifier(path.trim())));
            }
            None => named.push(identifier(rest)),
        }
    }
    named.into_iter().filter(is_lower).collect()
}

fn identifier(text: &str) -> &str {
    text.split(|next: char| !next.is_alphanumeric() && next != '_').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::complaints_about;
    use super::*;

    #[test]
    fn an_edge_against_the_direction_is_refused_and_one_along_it_is_not() {
        for (path, line, complaints) in [
            ("lb-controller/src/config/raw.rs", "use crate::serve::request::Inbound;", 1),
            ("lb-controller/src/config/raw.rs", "use crate::config::Config;", 0),
            ("lb-controller/src/serve.rs", "use crate::cli::Failure;", 1),
            ("lb-controller/src/serve.rs", "use crate::{edge::Edge, cli};", 1),
            ("lb-controller/src/serve.rs", "    let now = crate::clock::Clock::system();", 0),
            ("lb-controller/src/serve.rs", "//! See [`crate::cli`].", 0),
            ("lb-controller/src/lib.rs", "pub use crate::cli::Cli;", 0),
            ("lb-controller/src/serve.rs", "#[cfg(test)]\nmod tests {\n    use crate::cli;\n}", 0),
            ("lb-controller/src/serve/tests.rs", "use crate::cli;", 0),
            ("lb-controller/src/novel.rs", "", 1),
            ("lb-controller/policy/src/decide.rs", "use crate::level::Level;", 0),
        ] {
            assert_eq!(complaints_about(controller, path, line).len(), complaints, "{path}: {line}");
        }
    }

    #[test]
    fn nobody_may_name_the_command_line_and_the_table_names_only_modules_it_has() {
        let known: Vec<_> = PERMITTED.iter().map(|(name, _)| *name).collect();
        for (module, permitted) in PERMITTED {
            assert!(!permitted.contains(&"cli"), "{module}");
            assert!(permitted.iter().all(|name| known.contains(name)), "{module} names a module that has no row");
        }
    }
}
