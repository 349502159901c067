//! Which requests a rule is about: patterns of hosts, methods and paths.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::host::canonical_host;
use crate::path::hex_pair;

/// The methods that the gateway lets through, and so those a rule may name.
pub(crate) const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// The compiled form of [`crate::MatchSource`]. An empty list matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Matcher {
    pub(crate) hosts: Vec<HostPattern>,
    pub(crate) methods: MethodSet,
    pub(crate) paths: Vec<PathPattern>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostPattern {
    Exact(Box<str>),
    /// Everything below this name; not the name itself.
    Below(Box<str>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathPattern {
    pub(crate) segments: Vec<SegmentPattern>,
    /// `/**`: whatever lies below matches too.
    pub(crate) and_below: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SegmentPattern {
    Literal(Box<str>),
    Any,
}

/// A set of methods; the default holds all, including any that the table does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MethodSet(u16);

/// What is wrong with a pattern, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PatternError {
    pub(crate) message: &'static str,
    pub(crate) help: Option<String>,
}

const MAX_SEGMENTS: usize = 32;

impl Matcher {
    pub(crate) fn matches_host(&self, host: &str) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|pattern| pattern.matches(host))
    }

    pub(crate) fn matches_method(&self, method: &str) -> bool {
        self.methods.intersects(MethodSet::of_request(method))
    }

    pub(crate) fn matches_path(&self, path: &str) -> bool {
        self.paths.is_empty() || self.paths.iter().any(|pattern| pattern.matches(path))
    }
}

impl Default for MethodSet {
    fn default() -> MethodSet {
        MethodSet(u16::MAX)
    }
}

impl MethodSet {
    /// The set of one request's method. A method that the table does not know is in every set: a rule must not be
    /// dodged by a method nobody thought of.
    pub(crate) fn of_request(method: &str) -> MethodSet {
        METHODS.iter().position(|known| *known == method).map_or(MethodSet(u16::MAX), |index| MethodSet(1 << index))
    }

    /// The set of methods that a rule names; `None` for names out of the table. `GET` holds `HEAD`, which backends
    /// answer by the same code (RFC 9110 §9.3.2).
    pub(crate) fn of_rule(names: &[&str]) -> Option<MethodSet> {
        let bit = |name: &str| METHODS.iter().position(|known| *known == name).map(|index| 1_u16 << index);
        let mut bits = names.iter().try_fold(0, |bits, name| Some(bits | bit(name)?))?;
        if names.contains(&"GET") {
            bits |= bit("HEAD")?;
        }
        Some(MethodSet(bits))
    }

    /// All of its methods are in `other`.
    pub(crate) fn is_within(self, other: MethodSet) -> bool {
        self.0 & !other.0 == 0
    }

    pub(crate) fn len(self) -> u32 {
        self.0.count_ones()
    }

    pub(crate) fn intersects(self, other: MethodSet) -> bool {
        self.0 & other.0 != 0
    }
}

impl HostPattern {
    pub(crate) fn parse(text: &str) -> Result<HostPattern, PatternError> {
        let (name, below) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        if name.contains('*') {
            return Err(PatternError {
                message: "`*` stands for whole labels in front",
                help: Some("as in `*.shop.example`".into()),
            });
        }
        let host = canonical_host(name)
            .map_err(|error| PatternError { message: "not a host name", help: Some(error.to_string()) })?;
        let has_port = !name.starts_with('[') && name.contains(':') || name.contains("]:");
        if has_port {
            return Err(PatternError { message: "a host without its port is meant here", help: Some(host) });
        }
        Ok(if below { HostPattern::Below(host.into()) } else { HostPattern::Exact(host.into()) })
    }

    pub(crate) fn matches(&self, host: &str) -> bool {
        match self {
            HostPattern::Exact(name) => **name == *host,
            HostPattern::Below(name) => {
                host.strip_suffix(&**name).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
        }
    }
}

impl PathPattern {
    pub(crate) fn parse(text: &str) -> Result<PathPattern, PatternError> {
        let relative = text.strip_prefix('/').ok_or(PatternError { message: "a path starts with `/`", help: None })?;
        let mut pattern = PathPattern { segments: Vec::new(), and_below: false };
        // `/admin/` is `/admin`, as requests for the two are judged alike.
        let mut segments = relative.strip_suffix('/').unwrap_or(relative).split('/').peekable();
        if relative.is_empty() {
            return Ok(pattern);
        }
        while let Some(segment) = segments.next() {
            if segment == "**" && segments.peek().is_none() {
                pattern.and_below = true;
                break;
            }
            pattern.segments.push(SegmentPattern::parse(segment)?);
        }
        if pattern.segments.len() > MAX_SEGMENTS {
            return Err(PatternError { message: "at most 32 segments", help: None });
        }
        Ok(pattern)
    }

    pub(crate) fn matches(&self, path: &str) -> bool {
        let mut segments = segments_of(path);
        let own_match = self.segments.iter().all(|pattern| match (pattern, segments.next()) {
            (SegmentPattern::Literal(literal), Some(segment)) => **literal == *segment,
            (SegmentPattern::Any, Some(_)) => true,
            (_, None) => false,
        });
        own_match && (self.and_below || segments.next().is_none())
    }
}

impl SegmentPattern {
    fn parse(segment: &str) -> Result<SegmentPattern, PatternError> {
        let error =
            |message, help: &str| Err(PatternError { message, help: (!help.is_empty()).then(|| help.to_string()) });
        match segment {
            "*" => return Ok(SegmentPattern::Any),
            "**" => return error("`**` stands at the end only", "use `*` for each segment in between"),
            "" => {
                return error("an empty segment matches nothing", "paths are matched with `//` collapsed");
            }
            "." | ".." => return error("`.` and `..` match nothing", "paths are matched with these resolved"),
            _ => {}
        }
        let bytes = segment.as_bytes();
        let escape =
            |at: usize| bytes[at] == b'%' && hex_pair(bytes.get(at + 1).copied(), bytes.get(at + 2).copied()).is_some();
        if segment.contains('*') {
            return error("`*` stands for a whole segment", "as in `/invoices/*/pdf`");
        }
        if (0..bytes.len()).any(escape) {
            return error("write the path decoded", "a space as a space, not as `%20`");
        }
        if segment.contains(['?', '#', ';', '\\']) || segment.chars().any(char::is_control) {
            return error(
                "a character that no judged path has",
                "the query is `request.query` in `when`; parameters (`;…`) are dropped",
            );
        }
        Ok(SegmentPattern::Literal(segment.into()))
    }
}

/// The segments that matching looks at: empty ones are skipped, so a trailing slash changes nothing.
pub(crate) fn segments_of(path: &str) -> Segments<'_> {
    Segments { rest: path }
}

/// As `split('/')` has them, which is made for long texts and costs a decision more than its rules do.
#[derive(Clone)]
pub(crate) struct Segments<'p> {
    rest: &'p str,
}

impl<'p> Iterator for Segments<'p> {
    type Item = &'p str;

    fn next(&mut self) -> Option<&'p str> {
        let bytes = self.rest.as_bytes();
        let start = bytes.iter().position(|byte| *byte != b'/')?;
        let length = bytes[start..].iter().position(|byte| *byte == b'/').unwrap_or(bytes.len() - start);
        let (segment, rest) = self.rest[start..].split_at(length);
        self.rest = rest;
        Some(segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_pattern_matches_whole_segments() {
        let rows = [
            ("/", "/", true),
            ("/", "/a", false),
            ("/admin", "/admin", true),
            ("/admin", "/admin/", true),
            ("/admin/", "/admin", true),
            ("/admin", "/admin/x", false),
            ("/admin", "/administrator", false),
            ("/admin", "/Admin", false),
            ("/a/*/c", "/a/b/c", true),
            ("/a/*/c", "/a/c", false),
            ("/a/*", "/a/", false),
            ("/a/*", "/a/b/c", false),
            ("/a/**", "/a", true),
            ("/a/**", "/a/b/c", true),
            ("/a/**", "/ab", false),
            ("/**", "/", true),
            ("/**", "/x/y", true),
            ("/a b/100%", "/a b/100%", true),
        ];
        for (pattern, path, expected) in rows {
            assert_eq!(PathPattern::parse(pattern).unwrap().matches(path), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn a_path_pattern_that_could_never_match_is_refused() {
        let patterns = [
            "", "admin", "//a", "/a//b", "/./a", "/a/..", "/**/a", "/*.php", "/a**", "/a%20b", "/a?b", "/a;b", "/a\\b",
        ];
        for pattern in patterns {
            assert!(PathPattern::parse(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_host_pattern_matches_a_name_or_what_lies_below_it() {
        let rows = [
            ("shop.example", "shop.example", true),
            ("SHOP.example.", "shop.example", true),
            ("shop.example", "www.shop.example", false),
            ("*.shop.example", "www.shop.example", true),
            ("*.shop.example", "a.b.shop.example", true),
            ("*.shop.example", "shop.example", false),
            ("*.shop.example", "workshop.example", false),
            ("[2001:DB8::10]", "[2001:db8::10]", true),
        ];
        for (pattern, host, expected) in rows {
            assert_eq!(HostPattern::parse(pattern).unwrap().matches(host), expected, "{pattern} on {host}");
        }
        for pattern in
            ["", "*", "*shop.example", "a.*.example", "shop.example:443", "[::1]:443", "https://shop.example"]
        {
            assert!(HostPattern::parse(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn get_covers_head_and_an_unknown_method_is_covered_by_all() {
        let rows = [
            (&["GET"][..], "GET", true),
            (&["GET"], "HEAD", true),
            (&["HEAD"], "GET", false),
            (&["POST", "PUT"], "PUT", true),
            (&["POST"], "GET", false),
            (&["POST"], "PROPFIND", true),
            (&["POST"], "post", true),
        ];
        for (rule, method, expected) in rows {
            let matches = MethodSet::of_rule(rule).unwrap().intersects(MethodSet::of_request(method));
            assert_eq!(matches, expected, "{rule:?} on {method}");
        }
        assert_eq!(MethodSet::of_rule(&["FETCH"]), None);
    }
}
