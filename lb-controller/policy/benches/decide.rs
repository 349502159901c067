//! What a decision costs, with one rule and with ten thousand: `cargo xtask bench policy`.
//!
//! Prints one JSON list; see [`Row`]. Every decision is timed by itself, so that the slowest percent is one of requests and
//! not of averages. All requests are decided once before any is decided again, so that none finds what it needs still in the
//! nearest cache; of its timings the least counts, since whatever else runs on the machine only ever adds. What reading the
//! clock takes is measured beforehand and taken away.

#[path = "decide/routes.rs"]
mod routes;

use std::hint::black_box;
use std::time::Instant;

use lb_policy::{
    BodyFacts, ClientFacts, Decision, Everything, Facts, HeaderLookup, Levels, MatchSource, Method, NO_PARAMETERS,
    ObservedFacts, OutcomeSource, ProvedFactor, RequestFacts, RequireSource, RouteFacts, RuleSet, RuleSource,
    SessionFacts,
};

const HOSTS: usize = 100;
/// Rules that are about every request.
const WITHOUT_MATCH: usize = 10;
const ALL_RULES: usize = 10_000;
/// How many rules lie over each part of a host, one below the other.
const DEPTHS: [usize; 12] = [1, 1, 1, 1, 2, 2, 2, 3, 4, 5, 12, 15];
const REQUESTS: usize = 20_000;
const ROUNDS: usize = 10;
const NOW: u64 = 1_800_000_000;

/// One line of the result.
struct Row {
    case: &'static str,
    /// Or routes.
    rules: usize,
    ns_p50: u64,
    ns_p99: u64,
    /// Of all timed decisions together.
    allocs: u64,
    /// In the median, and at the 99th percentile.
    rules_tried: [usize; 2],
}

/// A request line.
struct Line {
    method: &'static str,
    host: String,
    path: String,
}

#[derive(Debug)]
struct Browser;

impl HeaderLookup for Browser {
    fn header(&self, lower_case_name: &str) -> Option<&str> {
        match lower_case_name {
            "user-agent" => Some("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
            "accept-language" => Some("de,en;q=0.5"),
            _ => None,
        }
    }

    fn has(&self, lower_case_name: &str) -> bool {
        self.header(lower_case_name).is_some()
    }
}

/// Numbers that look random and are the same in every run (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }
}

fn main() {
    let one = RuleSet::compile(&[rule("refund", &["h0.example"], &["/refunds"], 0)], &Levels::default())
        .expect("a sound rule");
    let lines: Vec<Line> =
        (0..REQUESTS).map(|_| Line { method: "POST", host: "h0.example".into(), path: "/refunds".into() }).collect();
    let many = RuleSet::compile(&ten_thousand(), &Levels::default()).expect("sound rules");
    assert_eq!(many.len(), ALL_RULES);
    let mut rows = vec![measure("decide_1", &one, &lines), measure("decide_10k", &many, &requests())];
    rows.extend(routes::rows());
    let rows: Vec<String> = rows.iter().map(Row::json).collect();
    println!("[\n  {}\n]", rows.join(",\n  "));
}

/// A rule with a condition as people write them; none of them asks for more than the session has.
fn rule(id: &str, hosts: &[&str], paths: &[&str], variant: usize) -> RuleSource {
    let condition = match variant % 6 {
        0 => format!(
            "\"admins-{variant}\" in session.groups \
             && !(client.address in [cidr(\"192.0.2.{}/32\"), cidr(\"2001:db8::/32\")])",
            variant % 256
        ),
        1 => format!("session.level >= 1 && request.headers[\"user-agent\"].contains(\"curl/{variant}\")"),
        2 => format!("signals.failed_logins_10m > {} || threat >= \"elevated\"", 3 + variant),
        3 => format!("client.asn == {variant} || !client.device_known && !(client.country in session.usual_countries)"),
        4 => format!(
            "session.factor_age.password > duration(\"{}s\") && request.path.endsWith(\"/export\")",
            28_800 + variant
        ),
        _ => format!("client.country != \"DE\" || client.asn in [64496, {}]", 65_000 + variant),
    };
    let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
    let require = RequireSource { level: Some(2), max_age_seconds: Some(900), ..RequireSource::default() };
    RuleSource {
        id: id.into(),
        matches: MatchSource {
            hosts: texts(hosts),
            methods: if variant.is_multiple_of(3) { texts(&["GET", "POST", "DELETE"]) } else { Vec::new() },
            paths: texts(paths),
        },
        body: None,
        when: (!variant.is_multiple_of(7)).then_some(condition),
        outcome: OutcomeSource::Require(require),
        on_missing: None,
    }
}

/// 99 or 100 rules a host: half of them lie over a part of it (`/**` or `*`), half are about one path; and ten about
/// everything.
fn ten_thousand() -> Vec<RuleSource> {
    let mut sources: Vec<RuleSource> =
        (0..WITHOUT_MATCH).map(|number| rule(&format!("everywhere-{number}"), &[], &[], number)).collect();
    for host in 0..HOSTS {
        let name = format!("h{host}.example");
        let add = |path: String, sources: &mut Vec<RuleSource>| {
            let id = format!("h{host}-{}", sources.len());
            sources.push(rule(&id, &[&name], &[&path], sources.len()));
        };
        for (part, depth) in DEPTHS.into_iter().enumerate() {
            for above in 0..depth {
                let below = ["/**", "/items/**", "/items/*", "/*/*", "/*/**"][above % 5];
                add(format!("/part{part}{below}"), &mut sources);
            }
        }
        let exact = (0..).map(|number| format!("/part{}/items/exact{number}", number % DEPTHS.len()));
        let wanted = WITHOUT_MATCH + (ALL_RULES - WITHOUT_MATCH) * (host + 1) / HOSTS;
        for path in exact.take(wanted - sources.len()) {
            add(path, &mut sources);
        }
    }
    sources
}

/// Requests spread over all hosts, and over their parts so that 12 rules are tried in the median and 25 in the slowest
/// percent.
fn requests() -> Vec<Line> {
    let mut dice = Dice(1);
    let mut line = || {
        let part = match dice.below(1000) {
            0..440 => dice.below(4),
            440..800 => 4 + dice.below(3),
            800..975 => 7 + dice.below(3),
            975..985 => 10,
            _ => 11,
        };
        let method = ["GET", "POST"][dice.below(2)];
        let host = format!("h{}.example", dice.below(HOSTS));
        Line { method, host, path: format!("/part{part}/items/{}", dice.below(1_000_000)) }
    };
    (0..REQUESTS).map(|_| line()).collect()
}

fn measure(case: &'static str, rules: &RuleSet, lines: &[Line]) -> Row {
    let groups = ["staff".to_owned(), "billing".to_owned()];
    let countries = ["DE".to_owned(), "FR".to_owned()];
    let factors =
        [ProvedFactor::ordinary(Method::Password, NOW - 600), ProvedFactor::ordinary(Method::Totp, NOW - 300)];
    let (body, levels) = (BodyFacts::default(), Levels::default());
    let facts = |request| Facts {
        now: NOW,
        levels: &levels,
        request,
        client: ClientFacts {
            country: Some("DE"),
            asn: Some(64500),
            device_known: true,
            ..ClientFacts::at([198, 51, 100, 7].into())
        },
        session: Some(SessionFacts { issuer: None, user: "alice", groups: &groups, factors: &factors, begun_at: 0 }),
        proved_for_this_request: &[],
        provable: &Everything,
        body: &body,
        route: RouteFacts::default(),
        api_key: None,
        observed: ObservedFacts { usual_countries: Some(&countries), ..ObservedFacts::default() },
    };
    let mut tried: Vec<usize> = lines.iter().map(|line| rules.rules_tried(&request_of(line))).collect();
    let mut timings = vec![u64::MAX; lines.len()];
    let clock_ns = clock_ns();
    let counted = allocation_counter::measure(|| {
        for (line, request) in (0..ROUNDS).flat_map(|_| lines.iter().zip(0_usize..)) {
            let facts = facts(request_of(line));
            let started = Instant::now();
            let needs = rules.body_needs(black_box(&facts.request));
            let decision = rules.decide(black_box(&facts));
            let timing = (started.elapsed().as_nanos() as u64).saturating_sub(clock_ns);
            timings[request] = timings[request].min(timing);
            assert!(matches!(decision, Decision::Allow(_)) && needs.is_none(), "every request is allowed as it is");
        }
    });
    Row {
        case,
        rules: rules.len(),
        ns_p50: percentile(&mut timings, 50),
        ns_p99: percentile(&mut timings, 99),
        allocs: counted.count_total,
        rules_tried: [percentile(&mut tried, 50), percentile(&mut tried, 99)],
    }
}

/// What timing nothing takes, in the median.
fn clock_ns() -> u64 {
    let mut timings: Vec<u64> = (0..10_000).map(|_| Instant::now().elapsed().as_nanos() as u64).collect();
    percentile(&mut timings, 50)
}

fn request_of(line: &Line) -> RequestFacts<'_> {
    RequestFacts {
        method: line.method,
        host: &line.host,
        path: &line.path,
        query: "",
        parameters: &NO_PARAMETERS,
        headers: &Browser,
    }
}

fn percentile<N: Ord + Copy>(numbers: &mut [N], percent: usize) -> N {
    numbers.sort_unstable();
    numbers[(numbers.len() * percent / 100).min(numbers.len() - 1)]
}

impl Row {
    fn json(&self) -> String {
        let Row { case, rules, ns_p50, ns_p99, allocs, rules_tried: [tried_p50, tried_p99] } = self;
        format!(
            "{{\"case\": \"{case}\", \"rules\": {rules}, \"ns_p50\": {ns_p50}, \"ns_p99\": {ns_p99}, \"allocs\": {allocs}, \
             \"rules_tried\": {tried_p50}, \"rules_tried_p99\": {tried_p99}}}"
        )
    }
}
