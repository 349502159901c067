//! What finding the route costs, of one route and of ten thousand.

use std::hint::black_box;
use std::time::Instant;

use lb_policy::{RouteHost, RouteMatcher, RouteMethods, RoutePath, RouteTable, ValuePattern};

use super::{Dice, HOSTS, Line, REQUESTS, ROUNDS, Row, clock_ns, percentile, request_of};

/// Of each host: paths with and without names in them, some of them apart by method or header.
const OF_A_HOST: usize = 100;

pub(super) fn rows() -> Vec<Row> {
    let one = [route("h0.example", "/parts/{part}/items/**")];
    let many: Vec<RouteMatcher> = (0..HOSTS).flat_map(routes_of).collect();
    assert_eq!(many.len(), HOSTS * OF_A_HOST);
    let mut dice = Dice(2);
    let mut lines = |hosts: usize| -> Vec<Line> {
        let mut line = || {
            let (part, item) = (dice.below(OF_A_HOST), dice.below(1_000_000));
            let host = format!("h{}.example", dice.below(hosts));
            Line { method: ["GET", "POST"][dice.below(2)], host, path: format!("/parts/{part}/items/{item}/more") }
        };
        (0..REQUESTS).map(|_| line()).collect()
    };
    vec![measure("route_1", &one, &lines(1)), measure("route_10k", &many, &lines(HOSTS))]
}

fn routes_of(host: usize) -> Vec<RouteMatcher> {
    let name = format!("h{host}.example");
    let mut routes = vec![route(&name, "/**"), route(&name, "/parts/{part}/**")];
    let mut part = 0;
    while routes.len() < OF_A_HOST {
        let path = format!("/parts/{part}/items/**");
        routes.push(match part % 3 {
            0 => RouteMatcher { methods: RouteMethods::parse(&["GET"]).expect("a method"), ..route(&name, &path) },
            1 => {
                let german = ValuePattern::parse("de*").expect("a value");
                RouteMatcher { headers: vec![("accept-language".to_owned(), german)], ..route(&name, &path) }
            }
            _ => route(&name, &path),
        });
        part += 1;
    }
    routes
}

fn route(host: &str, path: &str) -> RouteMatcher {
    let host = Some(RouteHost::parse(host).expect("a host"));
    RouteMatcher { host, ..RouteMatcher::of_path(RoutePath::parse(path).expect("a path")) }
}

fn measure(case: &'static str, routes: &[RouteMatcher], lines: &[Line]) -> Row {
    let table = RouteTable::of(routes).expect("none clash");
    let mut timings = vec![u64::MAX; lines.len()];
    let clock_ns = clock_ns();
    let counted = allocation_counter::measure(|| {
        for (line, request) in (0..ROUNDS).flat_map(|_| lines.iter().zip(0_usize..)) {
            let facts = request_of(line);
            let started = Instant::now();
            let found = table.find(black_box(&facts));
            let timing = (started.elapsed().as_nanos() as u64).saturating_sub(clock_ns);
            timings[request] = timings[request].min(timing);
            assert!(found.is_some(), "every request has a route");
        }
    });
    Row {
        case,
        rules: routes.len(),
        ns_p50: percentile(&mut timings, 50),
        ns_p99: percentile(&mut timings, 99),
        allocs: counted.count_total,
        rules_tried: [0, 0],
    }
}
