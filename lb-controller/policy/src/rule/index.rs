//! Finds the rules that are about a request without trying all of them: by host, then along the path, then by method.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::Rule;
use super::pattern::{HostPattern, MethodSet, PathPattern, SegmentPattern, segments_of};
use crate::facts::RequestFacts;

/// A lookup allocates nothing, and its cost grows with the depth of the path, not with the number of rules.
#[derive(Debug, Default)]
pub(super) struct RuleIndex {
    any_host: PathTree,
    exact: BTreeMap<Box<str>, PathTree>,
    below: BTreeMap<Box<str>, PathTree>,
}

/// One segment of all patterns that begin alike.
#[derive(Debug, Default)]
struct PathTree {
    /// Patterns that end here.
    here: Vec<Entry>,
    /// Patterns that hold here and for everything below.
    and_below: Vec<Entry>,
    literal: BTreeMap<Box<str>, PathTree>,
    any: Option<Box<PathTree>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    rule: usize,
    methods: MethodSet,
}

impl RuleIndex {
    pub(super) fn of(rules: &[Rule]) -> RuleIndex {
        let mut index = RuleIndex::default();
        let everything = PathPattern { segments: Vec::new(), and_below: true };
        for (number, rule) in rules.iter().enumerate() {
            let matcher = &rule.matcher;
            let entry = Entry { rule: number, methods: matcher.methods };
            let no_paths = matcher.paths.is_empty().then_some(&everything);
            for path in matcher.paths.iter().chain(no_paths) {
                if matcher.hosts.is_empty() {
                    index.any_host.insert(&path.segments, path.and_below, entry);
                }
                for host in &matcher.hosts {
                    let tree = match host {
                        HostPattern::Exact(name) => index.exact.entry(name.clone()).or_default(),
                        HostPattern::Below(name) => index.below.entry(name.clone()).or_default(),
                    };
                    tree.insert(&path.segments, path.and_below, entry);
                }
            }
        }
        index
    }

    /// Visits the number of every rule that is about the request; more than once if several of its patterns fit.
    pub(super) fn for_each_match(&self, request: &RequestFacts<'_>, visit: &mut dyn FnMut(usize)) {
        let methods = MethodSet::of_request(request.method);
        let mut visit_entry = |entry: &Entry| {
            if entry.methods.intersects(methods) {
                visit(entry.rule);
            }
        };
        let mut walk = |tree: &PathTree| tree.walk(segments_of(request.path), &mut visit_entry);
        walk(&self.any_host);
        if let Some(tree) = self.exact.get(request.host) {
            walk(tree);
        }
        if !self.below.is_empty() {
            for (dot, _) in request.host.match_indices('.').filter(|(dot, _)| *dot > 0) {
                if let Some(tree) = self.below.get(&request.host[dot + 1..]) {
                    walk(tree);
                }
            }
        }
    }
}

impl PathTree {
    fn insert(&mut self, segments: &[SegmentPattern], and_below: bool, entry: Entry) {
        match segments {
            [] if and_below => self.and_below.push(entry),
            [] => self.here.push(entry),
            [SegmentPattern::Literal(literal), rest @ ..] => {
                self.literal.entry(literal.clone()).or_default().insert(rest, and_below, entry);
            }
            [SegmentPattern::Any, rest @ ..] => self.any.get_or_insert_default().insert(rest, and_below, entry),
        }
    }

    /// Goes no deeper than the deepest pattern, however long the path is.
    fn walk<'a>(&self, mut rest: impl Iterator<Item = &'a str> + Clone, visit: &mut impl FnMut(&Entry)) {
        self.and_below.iter().for_each(&mut *visit);
        match rest.next() {
            None => self.here.iter().for_each(visit),
            Some(segment) => {
                if let Some(tree) = self.literal.get(segment) {
                    tree.walk(rest.clone(), visit);
                }
                if let Some(tree) = &self.any {
                    tree.walk(rest, visit);
                }
            }
        }
    }
}
