//! What stands before requests.

use std::time::Duration;

use ipnet::IpNet;
use lb_policy::RouteHost;

use super::super::section::{Complaint, Problems, Section};
use super::super::tree::{Node, Value};
use super::super::{
    AcmeConfig, ConnectionLimits, OverloadConfig, PassThrough, PoolConfig, Routes, ServerNames, values,
};

/// More than one worker holds.
const MOST_CONNECTIONS: u32 = 1_000_000;

const LONGEST_IDLE: Duration = Duration::from_secs(7 * 86_400);
const USUAL_IDLE: Duration = Duration::from_secs(3_600);

/// Whose connections begin with a PROXY header, of the whole configuration or of one service.
pub(super) fn proxy_protocol(section: &Section<'_>) -> Option<Vec<IpNet>> {
    let node = section.get("proxy_protocol")?;
    let section = Section::open("`proxy_protocol`", node, section.problems)?;
    let nodes = section.require_list("from").iter();
    let from = nodes.filter_map(|node| node.read(section.problems, values::peers)).collect();
    section.finish();
    Some(from)
}

pub(super) fn connections(config: &Section<'_>) -> ConnectionLimits {
    let usual = ConnectionLimits::default();
    let Some(section) =
        config.get("connections").and_then(|node| Section::open("`connections`", node, config.problems))
    else {
        return usual;
    };
    let limit = |key: &'static str| section.value(key, values::number(0..=MOST_CONNECTIONS));
    // 0 is any number, as of other limits.
    let of = |number: Option<u32>, usual| number.map_or(usual, |number| Some(number).filter(|number| *number > 0));
    let per_source = of(limit("per_source"), usual.per_source);
    let verified = limit("per_verified_source");
    let is_less = |of_verified: &Option<u32>| match (of_verified, per_source) {
        (Some(of_verified), Some(per_source)) => *of_verified < per_source,
        (Some(_), None) => true,
        (None, _) => false,
    };
    let mut per_verified_source = of(verified, usual.per_verified_source);
    if is_less(&per_verified_source) {
        if verified.is_some() {
            let help = "give it as many as `per_source`, or more";
            let complaint = Complaint::new("who has proven something would get less than a stranger", help);
            section.report_key("per_verified_source", complaint);
        }
        per_verified_source = per_source;
    }
    section.finish();
    ConnectionLimits { per_source, per_verified_source }
}

pub(super) fn overload(config: &Section<'_>) -> OverloadConfig {
    let usual = OverloadConfig::default();
    let Some(section) = config.get("overload").and_then(|node| Section::open("`overload`", node, config.problems))
    else {
        return usual;
    };
    let longest = Duration::from_secs(10);
    let queueing_delay =
        section.value("queueing_delay", |text| match values::duration(Duration::ZERO..=longest)(text)? {
            // Timers are no more exact than that.
            delay if delay.is_zero() || delay >= Duration::from_millis(5) => Ok(delay),
            _ => Err("from 5ms to 10s is allowed here, or 0 for never".into()),
        });
    section.finish();
    OverloadConfig { queueing_delay: queueing_delay.unwrap_or(usual.queueing_delay) }
}

/// What else has names.
pub(super) struct Served<'a> {
    pub(super) pools: &'a [PoolConfig],
    pub(super) routes: &'a Routes,
    pub(super) acme: Option<&'a AcmeConfig>,
}

pub(super) fn pass_through(config: &Section<'_>, served: &Served<'_>) -> Vec<PassThrough> {
    let mut all = Vec::new();
    let rule_hosts = rule_hosts(config);
    for node in config.list("pass_through") {
        let one = one(node, &all, (served, &rule_hosts), config.problems);
        all.extend(one);
    }
    all
}

/// The hosts that rules name, whatever else is wrong with them: complaints about those are made where rules are read.
fn rule_hosts<'a>(config: &Section<'a>) -> Vec<&'a str> {
    let below = |value: &'a Value, name: &str| match value {
        Value::Map(entries) => entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| &node.value),
        _ => None,
    };
    let each = |value: &'a Value| match value {
        Value::List(nodes) => nodes.iter().map(|node| &node.value).collect(),
        one => vec![one],
    };
    let rules = config.entries().iter().filter(|(key, _)| key.name == "rules").flat_map(|(_, node)| each(&node.value));
    let hosts = rules.filter_map(|rule| below(below(rule, "match")?, "hosts")).flat_map(each);
    hosts.filter_map(|host| if let Value::Text(host) = host { Some(host.as_str()) } else { None }).collect()
}

fn one(
    node: &Node,
    earlier: &[PassThrough],
    (served, rule_hosts): (&Served<'_>, &[&str]),
    problems: &Problems,
) -> Option<PassThrough> {
    let section = Section::open("a way through", node, problems)?;
    let mut server_names = Vec::new();
    for node in section.require_list("server_names") {
        let name = node.read(problems, |text| {
            let names = names(text)?;
            let known = earlier.iter().flat_map(|other| &other.server_names).chain(&server_names);
            if known.into_iter().any(|known| *known == names) {
                return Err("this name is passed through already".into());
            }
            match owner(&names, served, rule_hosts) {
                None => Ok(names),
                Some(owner) => {
                    let help = "a name is either served here, with its certificate and by the rules, or passed through";
                    Err(Complaint::new(format!("`{text}` is served here: {owner}"), help))
                }
            }
        });
        server_names.extend(name);
    }
    let pool = section.required_value("pool", |text| {
        let names: Vec<&str> = served.pools.iter().map(|pool| pool.name.as_str()).collect();
        match names.contains(&text) {
            true => Ok(text.to_owned()),
            false => Err(Complaint::unknown("pool", text, names)),
        }
    });
    let idles = Duration::from_secs(1)..=LONGEST_IDLE;
    let idle = section.value("idle", values::duration(idles)).unwrap_or(USUAL_IDLE);
    section.finish();
    Some(PassThrough { server_names, pool: pool?, idle })
}

fn names(text: &str) -> Result<ServerNames, Complaint> {
    const HELP: &str = "write a name, such as vault.example, or `*.vault.example` for those a label below it";
    let (name, is_below) = text.strip_prefix("*.").map_or((text, false), |parent| (parent, true));
    let canonical = lb_policy::canonical_host(name).ok().filter(|canonical| canonical.contains('.'));
    // An address is no server name (RFC 6066 §3), and a port is of no connection's beginning.
    let is_name =
        |canonical: &String| canonical.eq_ignore_ascii_case(name) && canonical.parse::<std::net::IpAddr>().is_err();
    match canonical.filter(is_name) {
        Some(parent) if is_below => Ok(ServerNames::Below(parent)),
        Some(name) => Ok(ServerNames::Exact(name)),
        None => Err(Complaint::new(format!("`{text}` is no server name"), HELP)),
    }
}

/// Who serves something under these names; for people.
fn owner(names: &ServerNames, served: &Served<'_>, rule_hosts: &[&str]) -> Option<String> {
    let by_rule = rule_hosts.iter().find(|host| match names {
        ServerNames::Exact(name) => RouteHost::parse(host).is_ok_and(|host| host.matches(name)),
        ServerNames::Below(_) => names.hold(host),
    });
    let by_route = served.routes.iter().find(|route| {
        let Some(host) = &route.matcher.host else { return false };
        match names {
            ServerNames::Exact(name) => host.matches(name),
            ServerNames::Below(_) => host.exact().is_some_and(|host| names.hold(host)),
        }
    });
    let certificates = served.acme.iter().flat_map(|acme| &acme.certificates);
    let ordered = certificates.flat_map(|certificate| &certificate.names).find(|name| names.hold(name));
    by_route
        .map(|route| format!("by the route {}", route.label))
        .or_else(|| by_rule.map(|host| format!("a rule is about {host}")))
        .or_else(|| ordered.map(|name| format!("a certificate is ordered for {name}")))
}
