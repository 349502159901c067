//! All routes, found by what a request is.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use hashbrown::HashMap;

use super::narrowness::Standing;
use super::{RouteMatcher, ValuePattern};
use crate::facts::RequestFacts;
use crate::pattern_tree::{GrowingTree, PatternTree};
use crate::rule::pattern::{HostPattern, MethodSet, SegmentPattern};

/// Finds the narrowest route for a request. What that costs grows with the depth of the path and the number of routes that
/// have one host and path in common, and not with the number of all.
///
/// Of two routes whose hosts differ, an exact host is narrower than `*.…`, a longer `*.…` than a shorter one, and any of
/// them than none; then, by segments of the path from the left, a literal one than one that stands for any, and both than
/// `/**`; then whichever asks for all that the other asks for and more.
#[derive(Debug, Default)]
pub struct RouteTable {
    tree: PatternTree<Entry>,
    reads_query: bool,
}

#[derive(Debug)]
struct Entry {
    route: u32,
    methods: MethodSet,
    /// Most routes have none.
    conditions: Option<Box<Conditions>>,
}

#[derive(Debug)]
struct Conditions {
    headers: Vec<(String, ValuePattern)>,
    query: Vec<(String, ValuePattern)>,
}

/// Two routes that take one request, by their places; the earlier one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clash {
    pub earlier: usize,
    pub later: usize,
    /// They take the same requests. Otherwise each takes some that the other does not.
    pub is_same: bool,
}

/// Routes with one of these in common are told apart by what else they ask.
#[derive(PartialEq, Eq, Hash)]
struct Place<'a> {
    host: Option<(bool, &'a str)>,
    segments: Vec<Option<&'a str>>,
    and_below: bool,
}

impl RouteTable {
    /// Errors: every two routes of which neither is the narrower one for some request.
    pub fn of(routes: &[RouteMatcher]) -> Result<RouteTable, Vec<Clash>> {
        let mut places: HashMap<Place<'_>, Vec<usize>> = HashMap::new();
        for (number, route) in routes.iter().enumerate() {
            places.entry(Place::of(route)).or_default().push(number);
        }
        let clashes = places.values().flat_map(|together| clashes(routes, together));
        let mut clashes: Vec<Clash> = clashes.collect();
        if !clashes.is_empty() {
            clashes.sort_by_key(|clash| (clash.later, clash.earlier));
            return Err(clashes);
        }
        let mut order: Vec<usize> = (0..routes.len()).collect();
        order.sort_by_cached_key(|number| routes[*number].rank());
        let mut tree = GrowingTree::default();
        for number in order {
            let route = &routes[number];
            let entry = Entry {
                route: u32::try_from(number).unwrap_or(u32::MAX),
                methods: route.methods.0,
                conditions: Conditions::of(route),
            };
            tree.add(route.host.as_ref().map(|host| &host.0), &route.path.pattern, entry);
        }
        let reads_query = routes.iter().any(|route| !route.query.is_empty());
        Ok(RouteTable { tree: tree.finish(), reads_query })
    }

    /// Some route goes by parameters of the query: [`RouteTable::find`] needs them then.
    pub fn reads_query(&self) -> bool {
        self.reads_query
    }

    /// The place of the narrowest route for the request.
    pub fn find(&self, request: &RequestFacts<'_>) -> Option<usize> {
        let methods = MethodSet::of_request(request.method);
        let mut pick = |entry: &Entry| {
            let takes = entry.methods.intersects(methods)
                && entry.conditions.as_ref().is_none_or(|conditions| conditions.are_met(request));
            takes.then_some(entry.route as usize)
        };
        self.tree.find(request.host, request.path, &mut pick)
    }
}

fn clashes<'r>(routes: &'r [RouteMatcher], together: &'r [usize]) -> impl Iterator<Item = Clash> + 'r {
    let pairs =
        together.iter().enumerate().flat_map(|(at, later)| together[..at].iter().map(move |one| (*one, *later)));
    pairs.filter_map(|(earlier, later)| match routes[earlier].stands_to(&routes[later]) {
        Standing::Apart | Standing::Nested => None,
        Standing::Same => Some(Clash { earlier, later, is_same: true }),
        Standing::Ambiguous => Some(Clash { earlier, later, is_same: false }),
    })
}

impl<'a> Place<'a> {
    fn of(route: &'a RouteMatcher) -> Place<'a> {
        let pattern = &route.path.pattern;
        let segment = |segment: &'a SegmentPattern| match segment {
            SegmentPattern::Literal(literal) => Some(&**literal),
            SegmentPattern::Any => None,
        };
        Place {
            host: route.host.as_ref().map(|host| match &host.0 {
                HostPattern::Exact(name) => (true, &**name),
                HostPattern::Below(name) => (false, &**name),
            }),
            segments: pattern.segments.iter().map(segment).collect(),
            and_below: pattern.and_below,
        }
    }
}

impl Conditions {
    fn of(route: &RouteMatcher) -> Option<Box<Conditions>> {
        let has_some = !route.headers.is_empty() || !route.query.is_empty();
        has_some.then(|| Box::new(Conditions { headers: route.headers.clone(), query: route.query.clone() }))
    }

    fn are_met(&self, request: &RequestFacts<'_>) -> bool {
        let header = |(name, pattern): &(String, ValuePattern)| {
            pattern.matches(request.headers.header(name), || request.headers.has(name))
        };
        let parameter = |(name, pattern): &(String, ValuePattern)| {
            // Where it cannot be told whether it is there, it is not.
            let is_present = || request.parameters.is_present(name) == Some(true);
            pattern.matches(request.parameters.value(name), is_present)
        };
        self.headers.iter().all(header) && self.query.iter().all(parameter)
    }
}
