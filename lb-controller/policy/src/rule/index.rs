//! Finds the rules that are about a request without trying all of them: by host, then along the path, then by method.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::hash::BuildHasher;
use core::ops::Range;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use super::Rule;
use super::pattern::{HostPattern, Matcher, MethodSet, PathPattern, SegmentPattern, segments_of};
use crate::facts::RequestFacts;

/// A lookup allocates nothing, and its cost grows with the depth of the path, not with the number of rules.
///
/// All trees of path segments share one table of edges and one list of entries, so that a request touches few lines of
/// memory however many rules there are.
#[derive(Default)]
pub(super) struct RuleIndex {
    any_host: Option<NodeId>,
    exact: HashMap<Box<str>, NodeId>,
    below: HashMap<Box<str>, NodeId>,
    nodes: Vec<Node>,
    edges: EdgeTable,
    entries: Vec<Entry>,
}

type NodeId = u32;

/// One segment of all patterns of a host that begin alike.
#[derive(Clone, Debug)]
struct Node {
    /// Entries of patterns that end here.
    here: Range<u32>,
    /// Entries of patterns that hold here and for everything below.
    and_below: Range<u32>,
    /// What `*` leads to.
    any: Option<NodeId>,
    has_literals: bool,
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

/// Where a literal segment leads, for all nodes.
#[derive(Default)]
struct EdgeTable {
    edges: HashTable<Edge>,
    hasher: DefaultHashBuilder,
    /// All segments, one after the other.
    text: String,
}

#[derive(Clone, Debug)]
struct Edge {
    parent: NodeId,
    child: NodeId,
    segment: Range<u32>,
}

/// All of it follows from the rules, and its tables are in another order each time.
impl fmt::Debug for RuleIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleIndex").field("entries", &self.entries).finish_non_exhaustive()
    }
}

impl RuleIndex {
    pub(super) fn of(rules: &[Rule]) -> RuleIndex {
        let mut builder = Builder::default();
        for (number, rule) in (0..).zip(rules) {
            builder.add(number, &rule.about.matcher);
        }
        builder.finish()
    }

    /// Puts the rules in the order in which requests lead to them, so that what is judged together is fetched together.
    /// Returns where each went.
    pub(super) fn order(&mut self, rules: &mut Vec<Rule>) -> Vec<u32> {
        const NOWHERE: u32 = u32::MAX;
        let mut places = vec![NOWHERE; rules.len()];
        let mut next = 0;
        for entry in &mut self.entries {
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
    pub(super) fn for_each_match(&self, rules: &[Rule], request: &RequestFacts<'_>, visit: &mut impl FnMut(usize)) {
        let methods = MethodSet::of_request(request.method);
        let mut visit_entry = |entry: &Entry| {
            let rule = entry.rule as usize;
            if entry.methods.intersects(methods) && !entry.is_repeated(rules, request) {
                visit(rule);
            }
        };
        let mut walk = |node: Option<NodeId>| {
            if let Some(node) = node {
                self.walk(node, segments_of(request.path), &mut visit_entry);
            }
        };
        walk(self.any_host);
        walk(self.exact.get(request.host).copied());
        if !self.below.is_empty() {
            for (dot, _) in request.host.match_indices('.').filter(|(dot, _)| *dot > 0) {
                walk(self.below.get(&request.host[dot + 1..]).copied());
            }
        }
    }

    /// Goes no deeper than the deepest pattern, however long the path is.
    fn walk<'a>(&self, node: NodeId, mut rest: impl Iterator<Item = &'a str> + Clone, visit: &mut impl FnMut(&Entry)) {
        let here = &self.nodes[node as usize];
        self.entries_in(&here.and_below).iter().for_each(&mut *visit);
        let Some(segment) = rest.next() else {
            return self.entries_in(&here.here).iter().for_each(visit);
        };
        if here.has_literals
            && let Some(child) = self.edges.child(node, segment)
        {
            self.walk(child, rest.clone(), visit);
        }
        if let Some(child) = here.any {
            self.walk(child, rest, visit);
        }
    }

    fn entries_in(&self, range: &Range<u32>) -> &[Entry] {
        &self.entries[range.start as usize..range.end as usize]
    }
}

impl Entry {
    /// Whether an earlier pattern of the same rule leads to the request too: every rule is visited for the first one alone.
    fn is_repeated(&self, rules: &[Rule], request: &RequestFacts<'_>) -> bool {
        // Nearly all rules have one pattern. Looking at a rule that its methods leave out would cost more than the rest.
        if (self.host, self.path) == (0, 0) {
            return false;
        }
        let matcher = &rules[self.rule as usize].about.matcher;
        matcher.hosts.iter().take(self.host as usize).any(|pattern| pattern.matches(request.host))
            || matcher.paths.iter().take(self.path as usize).any(|pattern| pattern.matches(request.path))
    }
}

impl EdgeTable {
    fn child(&self, parent: NodeId, segment: &str) -> Option<NodeId> {
        let hash = self.hasher.hash_one((parent, segment));
        let found = self.edges.find(hash, |edge| edge.parent == parent && self.segment(edge) == segment);
        found.map(|edge| edge.child)
    }

    fn insert(&mut self, parent: NodeId, segment: &str, child: NodeId) {
        let start = self.text.len() as u32;
        self.text.push_str(segment);
        let edge = Edge { parent, child, segment: start..self.text.len() as u32 };
        let EdgeTable { edges, hasher, text } = self;
        let hash_of = |edge: &Edge| {
            let segment = &text[edge.segment.start as usize..edge.segment.end as usize];
            hasher.hash_one((edge.parent, segment))
        };
        edges.insert_unique(hash_of(&edge), edge, hash_of);
    }

    fn segment(&self, edge: &Edge) -> &str {
        &self.text[edge.segment.start as usize..edge.segment.end as usize]
    }
}

/// The trees while they grow; entries are put in line at the end.
#[derive(Default)]
struct Builder {
    index: RuleIndex,
    here: Vec<Vec<Entry>>,
    and_below: Vec<Vec<Entry>>,
}

impl Builder {
    fn add(&mut self, rule: u32, matcher: &Matcher) {
        let everything = PathPattern { segments: Vec::new(), and_below: true };
        let no_paths = matcher.paths.is_empty().then_some(&everything);
        for (path, pattern) in (0..).zip(matcher.paths.iter().chain(no_paths)) {
            let entry = |host| Entry { rule, host, path, methods: matcher.methods };
            if matcher.hosts.is_empty() {
                let root = self.index.any_host.unwrap_or_else(|| self.new_node());
                self.index.any_host = Some(root);
                self.insert(root, pattern, entry(0));
            }
            for (host, name) in (0..).zip(&matcher.hosts) {
                let root = self.root_of(name);
                self.insert(root, pattern, entry(host));
            }
        }
    }

    fn root_of(&mut self, host: &HostPattern) -> NodeId {
        let (is_exact, name) = match host {
            HostPattern::Exact(name) => (true, name),
            HostPattern::Below(name) => (false, name),
        };
        let known = if is_exact { self.index.exact.get(name) } else { self.index.below.get(name) };
        known.copied().unwrap_or_else(|| {
            let root = self.new_node();
            let roots = if is_exact { &mut self.index.exact } else { &mut self.index.below };
            roots.insert(name.clone(), root);
            root
        })
    }

    fn insert(&mut self, root: NodeId, pattern: &PathPattern, entry: Entry) {
        let mut node = root;
        for segment in &pattern.segments {
            node = match segment {
                SegmentPattern::Literal(literal) => self.index.edges.child(node, literal).unwrap_or_else(|| {
                    let child = self.new_node();
                    self.index.edges.insert(node, literal, child);
                    self.index.nodes[node as usize].has_literals = true;
                    child
                }),
                SegmentPattern::Any => self.index.nodes[node as usize].any.unwrap_or_else(|| {
                    let child = self.new_node();
                    self.index.nodes[node as usize].any = Some(child);
                    child
                }),
            };
        }
        let entries = if pattern.and_below { &mut self.and_below } else { &mut self.here };
        entries[node as usize].push(entry);
    }

    fn new_node(&mut self) -> NodeId {
        let node = self.index.nodes.len() as NodeId;
        self.index.nodes.push(Node { here: 0..0, and_below: 0..0, any: None, has_literals: false });
        self.here.push(Vec::new());
        self.and_below.push(Vec::new());
        node
    }

    fn finish(self) -> RuleIndex {
        let Builder { mut index, here, and_below } = self;
        let entries = &mut index.entries;
        let mut append = |more: Vec<Entry>| {
            let start = entries.len() as u32;
            entries.extend(more);
            start..entries.len() as u32
        };
        for ((node, here), and_below) in index.nodes.iter_mut().zip(here).zip(and_below) {
            node.and_below = append(and_below);
            node.here = append(here);
        }
        index
    }
}
