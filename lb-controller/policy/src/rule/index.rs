//! Finds the rules that are about a request without trying all of them: by host, then along the path, then by method.

use alloc::vec;
use alloc::vec::Vec;

use super::Rule;
use super::pattern::{Matcher, MethodSet, PathPattern};
use crate::facts::RequestFacts;
use crate::pattern_tree::{GrowingTree, PatternTree};

#[derive(Debug, Default)]
pub(super) struct RuleIndex {
    tree: PatternTree<Entry>,
}

/// One pattern of one rule.
#[derive(Clone, Copy, Debug)]
struct Entry {
    rule: u32,
    /// Place of the pattern among the rule's hosts.
    host: u32,
    /// Place of the pattern among the rule's paths.
    path: u32,
    methods: MethodSet,
}

impl RuleIndex {
    pub(super) fn of(rules: &[Rule]) -> RuleIndex {
        let mut tree = GrowingTree::default();
        for (number, rule) in (0..).zip(rules) {
            add(&mut tree, number, &rule.about.matcher);
        }
        RuleIndex { tree: tree.finish() }
    }

    /// Puts the rules in the order in which requests lead to them, so that what is judged together is fetched together.
    /// Returns where each went.
    pub(super) fn order(&mut self, rules: &mut Vec<Rule>) -> Vec<u32> {
        const NOWHERE: u32 = u32::MAX;
        let mut places = vec![NOWHERE; rules.len()];
        let mut next = 0;
        for entry in self.tree.entries_mut() {
            let place = &mut places[entry.rule as usize];
            if *place == NOWHERE {
                *place = next;
                next += 1;
            }
            entry.rule = *place;
        }
        let mut placed: Vec<(u32, Rule)> = places.iter().copied().zip(rules.drain(..)).collect();
        placed.sort_unstable_by_key(|(place, _)| *place);
        rules.extend(placed.into_iter().map(|(_, rule)| rule));
        places
    }

    /// Visits the number of every rule that is about the request, each once.
    pub(super) fn for_each_match(&self, rules: &[Rule], request: &RequestFacts<'_>, visit: &mut impl FnMut(u32)) {
        let methods = MethodSet::of_request(request.method);
        let mut visit_entry = |entry: &Entry| {
            if entry.methods.intersects(methods) && !entry.is_repeated(rules, request) {
                visit(entry.rule);
            }
        };
        self.tree.for_each(request.host, request.path, &mut visit_entry);
    }
}

fn add(tree: &mut GrowingTree<Entry>, rule: u32, matcher: &Matcher) {
    let everything = PathPattern { segments: Vec::new(), and_below: true };
    let no_paths = matcher.paths.is_empty().then_some(&everything);
    for (path, pattern) in (0..).zip(matcher.paths.iter().chain(no_paths)) {
        let entry = |host| Entry { rule, host, path, methods: matcher.methods };
        if matcher.hosts.is_empty() {
            tree.add(None, pattern, entry(0));
        }
        for (host, name) in (0..).zip(&matcher.hosts) {
            tree.add(Some(name), pattern, entry(host));
        }
    }
}

impl Entry {
    /// Whether an earlier pattern of the same rule leads to the request too: every rule is visited for the first one alone.
    #[inline]
    fn is_repeated(&self, rules: &[Rule], request: &RequestFacts<'_>) -> bool {
        // Nearly all rules have one pattern. Looking at a rule that its methods leave out would cost more than the rest.
        (self.host, self.path) != (0, 0) && self.matches_earlier(rules, request)
    }

    #[inline(never)]
    fn matches_earlier(&self, rules: &[Rule], request: &RequestFacts<'_>) -> bool {
        let matcher = &rules[self.rule as usize].about.matcher;
        matcher.hosts.iter().take(self.host as usize).any(|pattern| pattern.matches(request.host))
            || matcher.paths.iter().take(self.path as usize).any(|pattern| pattern.matches(request.path))
    }
}
