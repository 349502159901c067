//! Routes: a path that is made of another has one reading, and the one that the template says.
//!
//! Input: the route's path, a template and a request's path, a line each.
#![no_main]

use lb_policy::{
    CanonicalPath, NO_PARAMETERS, NoHeaders, PathTemplate, RequestFacts, RouteMatcher, RoutePath, RouteTable,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut lines = text.splitn(3, '\n');
    let (Some(route), Some(template), Some(raw)) = (lines.next(), lines.next(), lines.next()) else { return };
    let (Ok(route), Ok(path)) = (RoutePath::parse(route), CanonicalPath::parse(raw)) else { return };
    assert_eq!(RoutePath::parse(&route.to_string()).as_ref(), Ok(&route), "a path is read as it is shown");
    let facts = RequestFacts {
        method: "GET",
        host: "h",
        path: path.judged(),
        query: "",
        parameters: &NO_PARAMETERS,
        headers: &NoHeaders,
    };
    let table = RouteTable::of(&[RouteMatcher::of_path(route.clone())]).expect("one clashes with none");
    assert_eq!(table.find(&facts).is_some(), route.matches(path.judged()), "found where it matches");
    let Ok(template) = PathTemplate::parse(template, &route) else { return };
    if route.matches(path.judged()) {
        let made = template.expand(&route, path.forwarded());
        let read = CanonicalPath::parse(&made).expect("what is made can be read");
        assert_eq!(read.forwarded(), made, "and is read as it is");
    }
});
