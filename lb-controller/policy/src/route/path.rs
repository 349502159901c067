//! Paths of routes: `/orders/{id}/items/**`.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use super::RouteError;
use crate::rule::pattern::{PathPattern, SegmentPattern};

/// A pattern of paths whose segments may have names. Two that differ in these names alone match the same.
#[derive(Clone, Debug)]
pub struct RoutePath {
    pub(crate) pattern: PathPattern,
    /// Of each segment that stands for any: its name, empty for `*`; in their order.
    names: Vec<Box<str>>,
}

/// Parts of one path as a backend receives it, cut up as a pattern has it.
pub(super) struct Parts<'p> {
    /// What the segments that stand for any are.
    pub(super) named: Vec<&'p str>,
    /// What follows all segments: empty, or `/…`.
    pub(super) rest: &'p str,
}

impl PartialEq for RoutePath {
    fn eq(&self, other: &RoutePath) -> bool {
        self.pattern == other.pattern
    }
}

impl Eq for RoutePath {}

impl RoutePath {
    /// An exact path, decoded and without a query. A segment may be `*` or `{name}`, which stand for any one segment; a
    /// last `/**` takes everything below and the path itself.
    pub fn parse(text: &str) -> Result<RoutePath, RouteError> {
        let mut names: Vec<Box<str>> = Vec::new();
        let mut plain: Vec<&str> = Vec::new();
        for segment in text.split('/') {
            match name_of(segment)? {
                Some(name) if names.iter().any(|earlier| **earlier == *name) => {
                    return Err(RouteError::new("two segments have one name", "give each a name of its own"));
                }
                Some(name) => names.push(name.into()),
                None if segment == "*" => names.push("".into()),
                None => {}
            }
            plain.push(if segment.starts_with('{') { "*" } else { segment });
        }
        Ok(RoutePath { pattern: PathPattern::parse(&plain.join("/"))?, names })
    }

    /// It takes what lies below, too.
    pub fn takes_below(&self) -> bool {
        self.pattern.and_below
    }

    /// The first segment, where it is always the same.
    pub fn first_segment(&self) -> Option<&str> {
        match self.pattern.segments.first()? {
            SegmentPattern::Literal(literal) => Some(literal),
            SegmentPattern::Any => None,
        }
    }

    pub fn matches(&self, judged_path: &str) -> bool {
        self.pattern.matches(judged_path)
    }

    /// Names of segments, for templates.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// Cuts up a path of the form that backends receive, see [`crate::CanonicalPath::forwarded`], whose judged form
    /// matches.
    pub(super) fn parts<'p>(&self, forwarded: &'p str) -> Parts<'p> {
        let (mut named, mut rest) = (Vec::new(), forwarded);
        for pattern in &self.pattern.segments {
            let (segment, after) = next_segment(rest);
            if matches!(pattern, SegmentPattern::Any) {
                named.push(segment);
            }
            rest = after;
        }
        Parts { named, rest }
    }
}

/// The first segment that rules see, and what follows it. One that is nothing but parameters they do not see.
fn next_segment(path: &str) -> (&str, &str) {
    let mut rest = path;
    loop {
        let inner = rest.strip_prefix('/').unwrap_or(rest);
        let (segment, after) = inner.split_at(inner.find('/').unwrap_or(inner.len()));
        let is_seen = !(segment.starts_with(';') || segment.starts_with("%3B"));
        if is_seen || after.is_empty() {
            return (segment, after);
        }
        rest = after;
    }
}

/// The name in `{name}`; `None`: another kind of segment.
fn name_of(segment: &str) -> Result<Option<&str>, RouteError> {
    const HELP: &str = "as in `/orders/{id}`: a letter or `_` first, then letters, digits and `_`";
    if !segment.contains(['{', '}']) {
        return Ok(None);
    }
    let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default();
    let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_name { Ok(Some(name)) } else { Err(RouteError::new("a name in braces stands for a whole segment", HELP)) }
}

impl fmt::Display for RoutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = self.names.iter();
        for segment in &self.pattern.segments {
            match segment {
                SegmentPattern::Literal(literal) => write!(f, "/{literal}")?,
                SegmentPattern::Any => match names.next().map(|name| &**name) {
                    None | Some("") => f.write_str("/*")?,
                    Some(name) => write!(f, "/{{{name}}}")?,
                },
            }
        }
        match (self.pattern.and_below, self.pattern.segments.is_empty()) {
            (true, _) => f.write_str("/**"),
            (false, true) => f.write_str("/"),
            (false, false) => Ok(()),
        }
    }
}
