//! The tests that a configuration brings with it: requests, and what its rules are to make of them.

use super::{Explained, Hypothetical, curl};
use crate::config::{Config, PolicyTest};

/// One test that did not come out as it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    pub name: String,
    /// In the configuration file, from 1.
    pub line: usize,
    /// What differs, such as `decision: expected challenge, got allow`.
    pub problems: Vec<String>,
}

/// Runs all tests of `config`; gives those that failed.
pub fn rehearse(config: &Config, now: u64) -> Vec<Failed> {
    let failed = |test: &PolicyTest| {
        let problems = match explain(test, config, now) {
            Ok(explained) => differences(test, &explained),
            Err(error) => vec![format!("{error:#}")],
        };
        (!problems.is_empty()).then(|| Failed { name: test.name.clone(), line: test.line, problems })
    };
    config.tests.iter().filter_map(failed).collect()
}

fn explain(test: &PolicyTest, config: &Config, now: u64) -> anyhow::Result<Explained> {
    let request = curl::parse_line(&test.request)?;
    let question = Hypothetical {
        user: test.user.clone(),
        proved: test.factors.clone(),
        from: test.from,
        facts: test.facts.clone(),
        at: test.at,
        ..request
    };
    question.explain(config, now)
}

fn differences(test: &PolicyTest, explained: &Explained) -> Vec<String> {
    let mut problems = Vec::new();
    if explained.decision != test.decision {
        problems.push(format!("decision: expected {}, got {}", test.decision, explained.decision));
    }
    let decisive = explained.decisive_rules();
    if let Some(rule) = &test.rule
        && !decisive.contains(&rule.as_str())
    {
        let got = if decisive.is_empty() { "none".to_owned() } else { decisive.join(", ") };
        problems.push(format!("rule: expected {rule}, got {got}"));
    }
    if let Some(methods) = &test.methods
        && explained.methods != *methods
    {
        problems.push(format!("methods: expected {}, got {}", methods.join(" and "), explained.methods.join(" and ")));
    }
    problems
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_examples_of_protected_actions_do_what_their_tests_say() {
        const NOW: u64 = 1_790_000_000;
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/actions");
        let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() >= 12, "{files:?}");
        for file in files {
            let text = crate::config::read(&file).unwrap_or_else(|errors| panic!("{errors}"));
            let config = crate::config::compile_read(&file, &text).unwrap_or_else(|errors| panic!("{errors}"));
            assert!(config.tests.len() >= 4, "{}", file.display());
            assert!(config.tests.iter().any(|test| test.decision == "allow"), "{}", file.display());
            assert_eq!(rehearse(&config, NOW), [], "{}", file.display());
        }
    }
}
