//! Paths made of other paths: `/v2/{id}/**`.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{RouteError, RoutePath};
use crate::path::CanonicalPath;
use crate::suggest::closest_name;

/// A path with gaps, to be filled with parts of the path that a request has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate {
    pieces: Vec<Piece>,
    /// A last `/**`: what follows the segments of the route's path is put there.
    with_rest: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// As it is sent, escapes and all.
    Literal(Box<str>),
    /// What stands at the place of one of the route's segments, by its place among those that stand for any.
    Segment(usize),
}

impl PathTemplate {
    /// `path` is the route's. `{name}` is what stands in its segment of that name; a last `/**` what its own `/**` took.
    pub fn parse(text: &str, path: &RoutePath) -> Result<PathTemplate, RouteError> {
        let (text, with_rest) = match text.strip_suffix("/**") {
            Some(before) => (before, true),
            None => (text, false),
        };
        if with_rest && !path.takes_below() {
            return Err(RouteError::new(
                "`/**` stands for what the route's `/**` took, and that has none",
                format!("leave it out, or write the route's path as `{path}/**`"),
            ));
        }
        let is_all_rest = with_rest && text.is_empty();
        if !(is_all_rest || text.starts_with('/')) {
            return Err(RouteError { message: "a path starts with `/`".to_string(), help: None });
        }
        let template = PathTemplate { pieces: pieces(text, path)?, with_rest };
        template.check_reading("")?;
        if with_rest {
            // What follows begins with a slash of its own, unless there is nothing.
            template.check_reading("/x")?;
        }
        Ok(template)
    }

    /// Whatever fills the gaps is such a segment; `rest` is what may follow.
    fn check_reading(&self, rest: &str) -> Result<(), RouteError> {
        let example = self.filled(&|_| "x", rest);
        match CanonicalPath::parse(&example) {
            Ok(canonical) if canonical.forwarded() == example => Ok(()),
            Ok(canonical) => {
                let help = format!("with `x` in its gaps it would be sent as `{}`", canonical.forwarded());
                Err(RouteError::new("a backend could read this path in more than one way", help))
            }
            Err(error) => {
                Err(RouteError::new(error.to_string(), "escapes are written as they are sent, such as `%20`"))
            }
        }
    }

    /// The path that is made of `forwarded`, a path of the form that backends receive whose judged form `path` matches. It
    /// is of that form too.
    pub fn expand(&self, path: &RoutePath, forwarded: &str) -> String {
        let parts = path.parts(forwarded);
        let segment = |at: usize| parts.named.get(at).copied().unwrap_or_default();
        self.filled(&segment, if self.with_rest { parts.rest } else { "" })
    }

    fn filled<'p>(&self, segment: &dyn Fn(usize) -> &'p str, rest: &str) -> String {
        let mut filled = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(literal) => filled.push_str(literal),
                Piece::Segment(at) => filled.push_str(segment(*at)),
            }
        }
        filled.push_str(rest);
        if filled.is_empty() {
            filled.push('/');
        }
        filled
    }
}

fn pieces(text: &str, path: &RoutePath) -> Result<Vec<Piece>, RouteError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((literal, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else {
            return Err(RouteError::new("a `{` without its `}`", "as in `/v2/{id}`; a brace itself is `%7B`"));
        };
        let Some(at) = path.names().position(|known| known == name && !name.is_empty()) else {
            let known = || path.names().filter(|name| !name.is_empty());
            let help = match closest_name(name, known()) {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("name a segment so in the route's path, `{path}`"),
            };
            return Err(RouteError::new(format!("the route's path has no segment `{name}`"), help));
        };
        pieces.extend((!literal.is_empty()).then(|| Piece::Literal(literal.into())));
        pieces.push(Piece::Segment(at));
        rest = after;
    }
    if rest.contains(['}', '*']) {
        return Err(RouteError::new("`*` and `}` mean nothing here", "write `%2A` or `%7D` for the character itself"));
    }
    pieces.extend((!rest.is_empty()).then(|| Piece::Literal(rest.into())));
    Ok(pieces)
}
