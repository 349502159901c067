//! How much a second: the difference of two readings of the counters.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::report::{Backend, Datapath};

/// What is counted, at one moment.
#[derive(Debug)]
pub struct Reading {
    /// Since any moment that both readings share.
    pub at: Duration,
    pub datapath: Datapath,
    pub backends: Vec<Backend>,
}

/// What happened between two readings, by the second. The answer of `top --json`.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Between the readings.
    pub seconds: f64,
    /// Packets of any kind that XDP judged.
    pub packets_per_second: f64,
    /// To services, and let in.
    pub admitted_per_second: f64,
    pub dropped_per_second: f64,
    /// By reason, the most frequent first; only those that happened.
    pub reasons: Vec<ReasonRate>,
    pub services: Vec<ServiceRate>,
    pub backends: Vec<BackendRate>,
    pub cpus: Vec<CpuRate>,
    /// The busiest CPU's packets over the mean of all that judged any: 1 is even. 0 without packets.
    pub cpu_imbalance: f64,
    /// Sources as they are now.
    pub verified_sources: usize,
    pub blocked_sources: usize,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct ReasonRate {
    pub reason: String,
    /// `drop`, `pass`, `transmit` or `redirect`.
    pub verdict: String,
    pub packets_per_second: f64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceRate {
    pub service: String,
    /// Admitted.
    pub packets_per_second: f64,
    pub bits_per_second: f64,
    pub syns_per_second: f64,
    pub dropped_per_second: f64,
    /// By class; only those that happened.
    pub drops_per_second: BTreeMap<String, f64>,
    pub syn_cookies_per_second: f64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendRate {
    pub pool: String,
    pub backend: String,
    pub packets_per_second: f64,
    pub bits_per_second: f64,
    pub new_flows_per_second: f64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct CpuRate {
    pub cpu: usize,
    pub packets_per_second: f64,
    pub dropped_per_second: f64,
}

const BITS: f64 = 8.0;

/// Counters that went back, because a service or the maps were made anew, count from 0.
pub fn between(before: &Reading, after: &Reading) -> Rates {
    let seconds = after.at.saturating_sub(before.at).as_secs_f64();
    let rate = Rate { seconds };
    let reasons = reasons(rate, &before.datapath, &after.datapath);
    let sum = |verdict: fn(&str) -> bool| {
        total(reasons.iter().filter(|reason| verdict(&reason.verdict)).map(|reason| reason.packets_per_second))
    };
    let cpus = cpus(rate, &before.datapath, &after.datapath);
    let services = services(rate, &before.datapath, &after.datapath);
    Rates {
        seconds,
        packets_per_second: sum(|_| true),
        admitted_per_second: total(services.iter().map(|service| service.packets_per_second)),
        dropped_per_second: sum(|verdict| verdict == DROP),
        services,
        backends: backends(rate, &before.backends, &after.backends),
        cpu_imbalance: imbalance(&cpus),
        cpus,
        reasons,
        verified_sources: after.datapath.verified.len(),
        blocked_sources: after.datapath.blocked.len(),
    }
}

const DROP: &str = "drop";

#[derive(Clone, Copy)]
struct Rate {
    seconds: f64,
}

impl Rate {
    fn of(self, before: u64, after: u64) -> f64 {
        if self.seconds <= 0.0 {
            return 0.0;
        }
        after.checked_sub(before).unwrap_or(after) as f64 / self.seconds
    }
}

/// By reason and verdict, of both classes of sources together.
fn outcomes(datapath: &Datapath) -> BTreeMap<(&str, &str), u64> {
    let mut outcomes = BTreeMap::new();
    let admitted = datapath.admitted.iter().map(|one| (one.reason.as_str(), "pass", one.packets));
    let dropped = datapath.dropped.iter().map(|one| (one.reason.as_str(), DROP, one.packets));
    let others = datapath.others.iter().map(|one| (one.reason.as_str(), one.verdict.as_str(), one.packets));
    for (reason, verdict, packets) in admitted.chain(dropped).chain(others) {
        *outcomes.entry((reason, verdict)).or_default() += packets;
    }
    outcomes
}

fn reasons(rate: Rate, before: &Datapath, after: &Datapath) -> Vec<ReasonRate> {
    let before = outcomes(before);
    let mut reasons: Vec<_> = outcomes(after)
        .into_iter()
        .map(|((reason, verdict), packets)| ReasonRate {
            reason: reason.to_owned(),
            verdict: verdict.to_owned(),
            packets_per_second: rate.of(before.get(&(reason, verdict)).copied().unwrap_or(0), packets),
        })
        .filter(|reason| reason.packets_per_second > 0.0)
        .collect();
    reasons.sort_by(|one, other| other.packets_per_second.total_cmp(&one.packets_per_second));
    reasons
}

fn services(rate: Rate, before: &Datapath, after: &Datapath) -> Vec<ServiceRate> {
    let row = |now: &crate::report::Service| {
        let was = before.services.iter().find(|service| service.name == now.name);
        let of = |field: fn(&crate::report::Service) -> u64| rate.of(was.map_or(0, field), field(now));
        let drops = now.drops.iter().map(|(class, packets)| {
            let was = was.and_then(|was| was.drops.get(class)).copied().unwrap_or(0);
            (class.clone(), rate.of(was, *packets))
        });
        let drops_per_second: BTreeMap<_, _> = drops.filter(|(_, rate)| *rate > 0.0).collect();
        ServiceRate {
            service: now.name.clone(),
            packets_per_second: of(|service| service.packets),
            bits_per_second: of(|service| service.bytes) * BITS,
            syns_per_second: of(|service| service.syns),
            dropped_per_second: total(drops_per_second.values().copied()),
            drops_per_second,
            syn_cookies_per_second: of(|service| service.syn_cookies.sent),
        }
    };
    after.services.iter().map(row).collect()
}

/// Those that packets are forwarded to.
fn backends(rate: Rate, before: &[Backend], after: &[Backend]) -> Vec<BackendRate> {
    let row = |now: &Backend| {
        let is_same = |one: &&Backend| one.pool == now.pool && one.address == now.address;
        let was = before.iter().find(is_same).and_then(|backend| backend.l4.as_ref());
        let l4 = now.l4.as_ref().filter(|l4| l4.way.is_some() || l4.packets > 0)?;
        let of = |field: fn(&crate::report::BackendL4) -> u64| rate.of(was.map_or(0, field), field(l4));
        Some(BackendRate {
            pool: now.pool.clone(),
            backend: now.address.to_string(),
            packets_per_second: of(|l4| l4.packets),
            bits_per_second: of(|l4| l4.bytes) * BITS,
            new_flows_per_second: of(|l4| l4.new_flows),
        })
    };
    after.iter().filter_map(row).collect()
}

fn cpus(rate: Rate, before: &Datapath, after: &Datapath) -> Vec<CpuRate> {
    let row = |now: &crate::report::Cpu| {
        let was = before.cpus.iter().find(|cpu| cpu.cpu == now.cpu);
        CpuRate {
            cpu: now.cpu,
            packets_per_second: rate.of(was.map_or(0, |cpu| cpu.packets), now.packets),
            dropped_per_second: rate.of(was.map_or(0, |cpu| cpu.dropped_packets), now.dropped_packets),
        }
    };
    after.cpus.iter().map(row).collect()
}

fn imbalance(cpus: &[CpuRate]) -> f64 {
    let busy = || cpus.iter().map(|cpu| cpu.packets_per_second).filter(|rate| *rate > 0.0);
    let (sum, count) = (busy().sum::<f64>(), busy().count());
    if count == 0 { 0.0 } else { busy().fold(0.0, f64::max) * count as f64 / sum }
}

/// Of nothing `sum` makes -0, and people would be shown that.
fn total(rates: impl Iterator<Item = f64>) -> f64 {
    rates.fold(0.0, |total, rate| total + rate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Admitted, BackendL4, BackendWay, Cpu, Dropped, Passed, Service, SynCookies};

    fn service(packets: u64, bytes: u64, blocked: u64) -> Service {
        Service {
            name: "shop".to_owned(),
            endpoints: Vec::new(),
            forward: "l7".to_owned(),
            pool: None,
            packets,
            bytes,
            syns: 0,
            dropped_packets: blocked,
            drops: BTreeMap::from([("block".to_owned(), blocked), ("list".to_owned(), 0)]),
            limits: Vec::new(),
            syn_cookies: SynCookies { mode: "off".to_owned(), answering: false, sent: 0, valid: 0, bad: 0 },
            nat: None,
        }
    }

    #[test]
    fn the_total_of_no_rate_is_shown_without_a_sign() {
        assert_eq!(total([].into_iter()).to_string(), "0");
        assert_eq!(total([1.5, 2.0].into_iter()), 3.5);
    }

    fn reading(at_ms: u64, packets: u64, blocked: u64) -> Reading {
        let class = || "unknown".to_owned();
        let way = BackendWay { interface: "eth1".to_owned(), next_hop: String::new(), mtu_bytes: 1500 };
        let l4 = BackendL4 {
            weight: 1,
            packets,
            bytes: packets * 100,
            new_flows: packets / 10,
            way: Some(way),
            server_ids: Vec::new(),
        };
        Reading {
            at: Duration::from_millis(at_ms),
            datapath: Datapath {
                services: vec![service(packets, packets * 100, blocked)],
                admitted: vec![Admitted { reason: "admitted".to_owned(), class: class(), packets }],
                dropped: vec![
                    Dropped { reason: "blocked".to_owned(), class: class(), packets: blocked / 2 },
                    Dropped { reason: "blocked".to_owned(), class: "verified".to_owned(), packets: blocked / 2 },
                ],
                others: vec![Passed {
                    reason: "no_service".to_owned(),
                    verdict: "pass".to_owned(),
                    class: class(),
                    packets: 7,
                }],
                cpus: vec![
                    Cpu { cpu: 0, packets: packets * 3, dropped_packets: blocked },
                    Cpu { cpu: 1, packets, dropped_packets: 0 },
                    Cpu { cpu: 2, packets: 5, dropped_packets: 0 },
                ],
                ..Datapath::default()
            },
            backends: vec![Backend {
                from: None,
                pool: "shop".to_owned(),
                address: "192.0.2.1:80".parse().expect("an address"),
                l7: None,
                ebpf: None,
                l4: Some(l4),
            }],
        }
    }

    #[test]
    fn rates_are_differences_by_the_second() {
        let rates = between(&reading(1000, 100, 20), &reading(3000, 300, 60));
        assert_eq!(rates.seconds, 2.0);
        assert_eq!(
            (rates.packets_per_second, rates.admitted_per_second, rates.dropped_per_second),
            (120.0, 100.0, 20.0)
        );
        let reasons: Vec<_> = rates
            .reasons
            .iter()
            .map(|one| (one.reason.as_str(), one.verdict.as_str(), one.packets_per_second))
            .collect();
        assert_eq!(reasons, [("admitted", "pass", 100.0), ("blocked", "drop", 20.0)], "what stood still is left out");
        let service = &rates.services[0];
        assert_eq!((service.packets_per_second, service.bits_per_second), (100.0, 80_000.0));
        assert_eq!(service.drops_per_second, BTreeMap::from([("block".to_owned(), 20.0)]));
        let backend = &rates.backends[0];
        assert_eq!((backend.packets_per_second, backend.new_flows_per_second), (100.0, 10.0));
        assert_eq!(rates.cpus[0].packets_per_second, 300.0);
        assert_eq!(rates.cpu_imbalance, 1.5, "of the two CPUs that judged packets");
    }

    #[test]
    fn counters_that_began_anew_count_from_0_and_no_time_makes_no_rate() {
        let rates = between(&reading(0, 300, 60), &reading(1000, 100, 60));
        assert_eq!(rates.services[0].packets_per_second, 100.0);
        let rates = between(&reading(0, 100, 0), &reading(0, 300, 0));
        assert_eq!((rates.packets_per_second, rates.cpu_imbalance), (0.0, 0.0));
    }
}
