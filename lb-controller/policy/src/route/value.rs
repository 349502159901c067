//! Values of headers and of parameters of the query.

use alloc::boxed::Box;
use core::fmt;

use super::RouteError;

/// `2`: exactly that. `2.*`: what begins so. `*`: whatever it is, if it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValuePattern {
    Exact(Box<str>),
    Prefix(Box<str>),
    Present,
}

impl ValuePattern {
    pub fn parse(text: &str) -> Result<ValuePattern, RouteError> {
        let (prefix, is_open) = match text.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (text, false),
        };
        if prefix.contains('*') || prefix.chars().any(char::is_control) {
            return Err(RouteError::new("`*` stands at the end only", "as in `2.*`, or `*` alone for any value"));
        }
        match (prefix, is_open) {
            ("", true) => Ok(ValuePattern::Present),
            ("", false) => Err(RouteError::new("an empty value", "write `*` for any value")),
            (prefix, true) => Ok(ValuePattern::Prefix(prefix.into())),
            (exact, false) => Ok(ValuePattern::Exact(exact.into())),
        }
    }

    /// `value`: `None` where there is none, or it cannot be told which. `is_present`: there is one, whichever.
    pub(super) fn matches(&self, value: Option<&str>, is_present: impl FnOnce() -> bool) -> bool {
        match self {
            ValuePattern::Exact(exact) => value == Some(exact),
            ValuePattern::Prefix(prefix) => value.is_some_and(|value| value.starts_with(&**prefix)),
            ValuePattern::Present => is_present(),
        }
    }

    /// Whatever matches this one matches `other`.
    pub(super) fn is_within(&self, other: &ValuePattern) -> bool {
        match (self, other) {
            (_, ValuePattern::Present) => true,
            (ValuePattern::Exact(text) | ValuePattern::Prefix(text), ValuePattern::Prefix(prefix)) => {
                text.starts_with(&**prefix)
            }
            (one, other) => one == other,
        }
    }

    /// Some value may match both.
    pub(super) fn meets(&self, other: &ValuePattern) -> bool {
        // Prefixes and single values are nested, or apart.
        self.is_within(other) || other.is_within(self)
    }
}

impl fmt::Display for ValuePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValuePattern::Exact(exact) => f.write_str(exact),
            ValuePattern::Prefix(prefix) => write!(f, "{prefix}*"),
            ValuePattern::Present => f.write_str("*"),
        }
    }
}
