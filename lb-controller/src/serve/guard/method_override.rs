//! Other methods than the one a request has, named in its headers or its query: what a backend behind a framework would
//! go by, rules must go by too.

use std::borrow::Cow;

use http::{HeaderMap, Method};

use super::names::folded_eq;
use crate::config::MethodOverride;
use crate::serve::respond::Refusal;

/// Headers that frameworks take a method from, folded. All of them are removed whatever is done.
pub(super) const HEADERS: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

/// What a `POST` may stand for: the methods that HTML forms cannot send. A `GET` in the clothes of a `POST` would slip by
/// what is asked of unsafe requests.
const OVERRIDES: [Method; 3] = [Method::PUT, Method::PATCH, Method::DELETE];

/// The method that rules judge and backends receive. `query` is the target's, canonical.
///
/// Errors: [`Refusal::MethodOverride`], where another is named and that is not to be, or it is not clear which.
pub(super) fn effective(
    setting: MethodOverride,
    method: Method,
    headers: &HeaderMap,
    query: &str,
) -> Result<Method, Refusal> {
    let in_headers = headers.iter().filter(|(name, _)| HEADERS.iter().any(|header| folded_eq(name.as_str(), header)));
    let in_headers = in_headers.map(|(_, value)| value.to_str().map_or(Cow::Borrowed("?"), Cow::Borrowed));
    // Frameworks look for the parameter in a POST alone; elsewhere it is any parameter.
    let in_query = (method == Method::POST).then(|| named_in_query(query)).into_iter().flatten();
    let mut effective: Option<Method> = None;
    for name in in_headers.chain(in_query) {
        let name = name.trim();
        let named = OVERRIDES.iter().chain([&method]).find(|known| known.as_str().eq_ignore_ascii_case(name));
        let named = named.ok_or(Refusal::MethodOverride)?;
        if effective.as_ref().is_some_and(|other| other != named) {
            return Err(Refusal::MethodOverride);
        }
        effective = Some(named.clone());
    }
    match effective {
        None => Ok(method),
        Some(same) if same == method => Ok(method),
        Some(other) if setting == MethodOverride::Apply && method == Method::POST => Ok(other),
        Some(_) => Err(Refusal::MethodOverride),
    }
}

/// The values of `_method`.
fn named_in_query(query: &str) -> impl Iterator<Item = Cow<'_, str>> {
    // Some frameworks part them by `;` too.
    let pairs = query.split(';').flat_map(|part| form_urlencoded::parse(part.as_bytes()));
    pairs.filter(|(name, _)| is_method_parameter(name)).map(|(_, value)| value)
}

/// PHP makes `_` of a `.`, a space or a `[` in a name, and drops spaces before it.
fn is_method_parameter(name: &str) -> bool {
    let name = name.trim_start_matches(' ');
    let rest = name.strip_prefix(['_', '.', '[']).unwrap_or(name.strip_prefix(' ').unwrap_or_default());
    rest.eq_ignore_ascii_case("method")
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    const REFUSED: Result<Method, Refusal> = Err(Refusal::MethodOverride);

    fn of(setting: MethodOverride, method: Method, headers: &[(&str, &str)], query: &str) -> Result<Method, Refusal> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        effective(setting, method, &map, query)
    }

    #[test]
    fn another_method_is_refused_wherever_it_is_named() {
        type Row = (&'static str, &'static [(&'static str, &'static str)], &'static str, bool);
        let rows: &[Row] = &[
            ("none", &[], "", true),
            ("the same", &[("x-http-method-override", "post")], "_method=POST", true),
            ("a header", &[("x-http-method-override", "DELETE")], "", false),
            ("in another spelling", &[("X_HTTP.Method", "delete")], "", false),
            ("no method", &[("x-method-override", "BREW")], "", false),
            ("a safe one", &[("x-method-override", "GET")], "", false),
            ("nothing", &[("x-method-override", "")], "", false),
            ("twice", &[("x-method-override", "POST"), ("x-method-override", "PUT")], "", false),
            ("in the query", &[], "a=1&_method=put", false),
            ("with escapes", &[], "%5Fmeth%6Fd=%44ELETE", false),
            ("as PHP reads it", &[], ".method=DELETE", false),
            ("with a space before", &[], "+_method=DELETE", false),
            ("after a semicolon", &[], "a=1;_method=DELETE", false),
            ("without a value", &[], "_method", false),
            ("another name", &[], "my_method=DELETE&method=PUT&_methods=PUT", true),
        ];
        for (name, headers, query, passes) in rows {
            let outcome = of(MethodOverride::Refuse, Method::POST, headers, query);
            assert_eq!(outcome, if *passes { Ok(Method::POST) } else { REFUSED }, "{name}");
        }
    }

    #[test]
    fn where_it_is_applied_it_is_the_one_method_there_is() {
        type Row = (&'static str, Method, &'static [(&'static str, &'static str)], &'static str, Option<Method>);
        let rows: &[Row] = &[
            ("a header", Method::POST, &[("x-http-method-override", "delete")], "", Some(Method::DELETE)),
            ("the query", Method::POST, &[], "_method=patch", Some(Method::PATCH)),
            ("both alike", Method::POST, &[("x-http-method", "PUT")], "_method=put", Some(Method::PUT)),
            ("two that differ", Method::POST, &[("x-http-method", "PUT")], "_method=delete", None),
            ("one beside the real one", Method::POST, &[("x-http-method", "PUT")], "_method=post", None),
            ("a safe one", Method::POST, &[("x-http-method", "GET")], "", None),
            ("of a GET", Method::GET, &[("x-http-method", "DELETE")], "", None),
            ("a parameter of a GET", Method::GET, &[], "_method=delete", Some(Method::GET)),
        ];
        for (name, method, headers, query, expected) in rows {
            let outcome = of(MethodOverride::Apply, method.clone(), headers, query);
            assert_eq!(outcome.ok(), expected.clone(), "{name}");
        }
    }
}
