//! Which of many routes takes a request, whatever order they were written in: the narrowest.

mod narrowness;
mod path;
mod table;
mod template;
#[cfg(test)]
mod tests;
mod value;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

pub use self::path::RoutePath;
pub use self::table::{Clash, RouteTable};
pub use self::template::PathTemplate;
pub use self::value::ValuePattern;
use crate::rule::pattern::{HostPattern, METHODS, MethodSet, PatternError};
use crate::suggest::closest_name;

/// What a request must be for a route to take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMatcher {
    /// `None`: any.
    pub host: Option<RouteHost>,
    pub path: RoutePath,
    pub methods: RouteMethods,
    /// By lower-case name. One that came twice has no value.
    pub headers: Vec<(String, ValuePattern)>,
    /// Parameters of the query by name, decoded. One that came twice has no value.
    pub query: Vec<(String, ValuePattern)>,
}

/// `shop.example`, or `*.shop.example` for all below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteHost(HostPattern);

/// A set of methods, of which `GET` brings `HEAD` along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteMethods(MethodSet);

/// What is wrong with a part of a route, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteError {
    pub message: String,
    pub help: Option<String>,
}

impl RouteError {
    fn new(message: impl Into<String>, help: impl Into<String>) -> RouteError {
        RouteError { message: message.into(), help: Some(help.into()) }
    }
}

impl From<PatternError> for RouteError {
    fn from(error: PatternError) -> RouteError {
        RouteError { message: error.message.to_string(), help: error.help }
    }
}

impl RouteMatcher {
    /// Every request with this path.
    pub fn of_path(path: RoutePath) -> RouteMatcher {
        RouteMatcher { host: None, path, methods: RouteMethods::default(), headers: Vec::new(), query: Vec::new() }
    }
}

impl RouteHost {
    pub fn parse(text: &str) -> Result<RouteHost, RouteError> {
        Ok(RouteHost(HostPattern::parse(text)?))
    }

    /// The name, unless it stands for many.
    pub fn exact(&self) -> Option<&str> {
        match &self.0 {
            HostPattern::Exact(name) => Some(name),
            HostPattern::Below(_) => None,
        }
    }

    pub fn matches(&self, host: &str) -> bool {
        self.0.matches(host)
    }
}

impl fmt::Display for RouteHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            HostPattern::Exact(name) => f.write_str(name),
            HostPattern::Below(name) => write!(f, "*.{name}"),
        }
    }
}

impl RouteMethods {
    /// Names as HTTP has them, upper-case. None at all stands for every method.
    pub fn parse(names: &[&str]) -> Result<RouteMethods, RouteError> {
        if names.is_empty() {
            return Ok(RouteMethods::default());
        }
        MethodSet::of_rule(names).map(RouteMethods).ok_or_else(|| {
            let unknown = names.iter().find(|name| !METHODS.contains(name)).copied().unwrap_or_default();
            let help = match closest_name(&unknown.to_ascii_uppercase(), METHODS.iter().copied()) {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("known: {}", METHODS.join(", ")),
            };
            RouteError::new(format!("there is no method `{unknown}`"), help)
        })
    }

    /// Names in the order of the table; none: every method.
    fn names(self) -> Vec<&'static str> {
        if self == RouteMethods::default() {
            return Vec::new();
        }
        METHODS.iter().copied().filter(|name| self.0.intersects(MethodSet::of_request(name))).collect()
    }
}

/// `shop.example/orders/{id} GET x-version=2 ?lang=de`: in metrics, in the access log and for people.
impl fmt::Display for RouteMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) => write!(f, "{host}{}", self.path)?,
            None => write!(f, "*{}", self.path)?,
        }
        let names = self.methods.names();
        if !names.is_empty() {
            write!(f, " {}", names.join(","))?;
        }
        for (name, pattern) in &self.headers {
            write!(f, " {name}={pattern}")?;
        }
        for (name, pattern) in &self.query {
            write!(f, " ?{name}={pattern}")?;
        }
        Ok(())
    }
}
