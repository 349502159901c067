//! Finds what patterns of hosts and paths lead to without trying all of them: by host, then along the path.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::hash::BuildHasher;
use core::ops::Range;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use crate::rule::pattern::{HostPattern, PathPattern, SegmentPattern, Segments, segments_of};

/// A lookup allocates nothing, and its cost grows with the depth of the path, not with the number of patterns.
///
/// All trees of path segments share one table of edges and one list of entries, so that a request touches few lines of
/// memory however many patterns there are.
pub(crate) struct PatternTree<Entry> {
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
    literals: Literals,
}

/// What literal segments lead to.
#[derive(Clone, Debug)]
enum Literals {
    None,
    /// As in `/api/v1/…`, where looking in a table takes longer than the rest.
    One(Edge),
    Many,
}

impl Node {
    /// Nothing hangs on what follows in the path.
    fn is_last(&self) -> bool {
        matches!(self.literals, Literals::None) && self.any.is_none() && self.here.is_empty()
    }
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

impl<Entry> Default for PatternTree<Entry> {
    fn default() -> PatternTree<Entry> {
        PatternTree {
            any_host: None,
            exact: HashMap::new(),
            below: HashMap::new(),
            nodes: Vec::new(),
            edges: EdgeTable::default(),
            entries: Vec::new(),
        }
    }
}

/// All of it follows from the patterns, and its tables are in another order each time.
impl<Entry: fmt::Debug> fmt::Debug for PatternTree<Entry> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PatternTree").field("entries", &self.entries).finish_non_exhaustive()
    }
}

impl<Entry> PatternTree<Entry> {
    /// In the order in which requests come upon them.
    pub(crate) fn entries_mut(&mut self) -> &mut [Entry] {
        &mut self.entries
    }

    /// Visits the entries of every pattern that matches.
    pub(crate) fn for_each(&self, host: &str, path: &str, visit: &mut impl FnMut(&Entry)) {
        let mut walk = |node: Option<NodeId>| {
            if let Some(node) = node {
                self.walk(node, segments_of(path), visit);
            }
        };
        walk(self.any_host);
        walk(self.exact.get(host).copied());
        if !self.below.is_empty() {
            for (dot, _) in host.match_indices('.').filter(|(dot, _)| *dot > 0) {
                walk(self.below.get(&host[dot + 1..]).copied());
            }
        }
    }

    /// The first entry that `pick` takes, those of the narrowest pattern first: of hosts the exact one, then the longest
    /// `*.…`, then any; of paths, segment by segment, the literal one, then `*`, then `/**`.
    pub(crate) fn find<Found>(
        &self,
        host: &str,
        path: &str,
        pick: &mut impl FnMut(&Entry) -> Option<Found>,
    ) -> Option<Found> {
        let mut find = |node: Option<NodeId>| self.find_below(node?, segments_of(path), pick);
        if let Some(found) = find(self.exact.get(host).copied()) {
            return Some(found);
        }
        if !self.below.is_empty() {
            for (dot, _) in host.match_indices('.').filter(|(dot, _)| *dot > 0) {
                if let Some(found) = find(self.below.get(&host[dot + 1..]).copied()) {
                    return Some(found);
                }
            }
        }
        find(self.any_host)
    }

    /// Goes no deeper than the deepest pattern, however long the path is.
    fn walk(&self, node: NodeId, mut rest: Segments<'_>, visit: &mut impl FnMut(&Entry)) {
        let here = &self.nodes[node as usize];
        self.entries_in(&here.and_below).iter().for_each(&mut *visit);
        if here.is_last() {
            return;
        }
        let Some(segment) = rest.next() else {
            return self.entries_in(&here.here).iter().for_each(visit);
        };
        if let Some(child) = self.literal_child(node, segment) {
            self.walk(child, rest.clone(), visit);
        }
        if let Some(child) = here.any {
            self.walk(child, rest, visit);
        }
    }

    fn find_below<Found>(
        &self,
        node: NodeId,
        mut rest: Segments<'_>,
        pick: &mut impl FnMut(&Entry) -> Option<Found>,
    ) -> Option<Found> {
        let here = &self.nodes[node as usize];
        let mut found = None;
        match rest.next() {
            None => found = self.entries_in(&here.here).iter().find_map(&mut *pick),
            Some(segment) => {
                if let Some(child) = self.literal_child(node, segment) {
                    found = self.find_below(child, rest.clone(), pick);
                }
                if found.is_none()
                    && let Some(child) = here.any
                {
                    found = self.find_below(child, rest, pick);
                }
            }
        }
        found.or_else(|| self.entries_in(&here.and_below).iter().find_map(pick))
    }

    fn literal_child(&self, node: NodeId, segment: &str) -> Option<NodeId> {
        match &self.nodes[node as usize].literals {
            Literals::None => None,
            Literals::One(edge) => (self.edges.segment(edge) == segment).then_some(edge.child),
            Literals::Many => self.edges.child(node, segment),
        }
    }

    fn entries_in(&self, range: &Range<u32>) -> &[Entry] {
        &self.entries[range.start as usize..range.end as usize]
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
pub(crate) struct GrowingTree<Entry> {
    tree: PatternTree<Entry>,
    here: Vec<Vec<Entry>>,
    and_below: Vec<Vec<Entry>>,
}

impl<Entry> Default for GrowingTree<Entry> {
    fn default() -> GrowingTree<Entry> {
        GrowingTree { tree: PatternTree::default(), here: Vec::new(), and_below: Vec::new() }
    }
}

impl<Entry> GrowingTree<Entry> {
    /// `host`: `None` is any. Entries of one pattern keep the order in which they were added.
    pub(crate) fn add(&mut self, host: Option<&HostPattern>, path: &PathPattern, entry: Entry) {
        let mut node = self.root_of(host);
        for segment in &path.segments {
            node = match segment {
                SegmentPattern::Literal(literal) => self.tree.edges.child(node, literal).unwrap_or_else(|| {
                    let child = self.new_node();
                    self.tree.edges.insert(node, literal, child);
                    child
                }),
                SegmentPattern::Any => self.tree.nodes[node as usize].any.unwrap_or_else(|| {
                    let child = self.new_node();
                    self.tree.nodes[node as usize].any = Some(child);
                    child
                }),
            };
        }
        let entries = if path.and_below { &mut self.and_below } else { &mut self.here };
        entries[node as usize].push(entry);
    }

    fn root_of(&mut self, host: Option<&HostPattern>) -> NodeId {
        let (is_exact, name) = match host {
            None => {
                let root = self.tree.any_host.unwrap_or_else(|| self.new_node());
                self.tree.any_host = Some(root);
                return root;
            }
            Some(HostPattern::Exact(name)) => (true, name),
            Some(HostPattern::Below(name)) => (false, name),
        };
        let known = if is_exact { self.tree.exact.get(name) } else { self.tree.below.get(name) };
        known.copied().unwrap_or_else(|| {
            let root = self.new_node();
            let roots = if is_exact { &mut self.tree.exact } else { &mut self.tree.below };
            roots.insert(name.clone(), root);
            root
        })
    }

    fn new_node(&mut self) -> NodeId {
        let node = self.tree.nodes.len() as NodeId;
        self.tree.nodes.push(Node { here: 0..0, and_below: 0..0, any: None, literals: Literals::None });
        self.here.push(Vec::new());
        self.and_below.push(Vec::new());
        node
    }

    pub(crate) fn finish(self) -> PatternTree<Entry> {
        let GrowingTree { mut tree, here, and_below } = self;
        let entries = &mut tree.entries;
        let mut append = |more: Vec<Entry>| {
            let start = entries.len() as u32;
            entries.extend(more);
            start..entries.len() as u32
        };
        for ((node, here), and_below) in tree.nodes.iter_mut().zip(here).zip(and_below) {
            node.and_below = append(and_below);
            node.here = append(here);
        }
        for edge in &tree.edges.edges {
            let literals = &mut tree.nodes[edge.parent as usize].literals;
            *literals = if matches!(literals, Literals::None) { Literals::One(edge.clone()) } else { Literals::Many };
        }
        tree
    }
}
