//! What the joint remembers, and the guards. Pure but for what it is given, and bounded: whoever fails proofs from a
//! million addresses fills tables, not memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use ipnet::IpNet;
use lb_common::Source;
use lb_datapath::VipPrefix;
use lb_policy::UnixSeconds;

use super::SourceChange;
use crate::config::Config;
use crate::serve::request::Client;

/// Why XDP is told nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing has happened yet that is worth telling.
    Nothing,
    /// A block was earned, but a guard speaks for the source.
    Spared(&'static str),
}

#[derive(Default)]
pub(super) struct Memory {
    verified_at: HashMap<Source, UnixSeconds>,
    failures: HashMap<Source, Failures>,
    blocks: HashMap<Source, Block>,
}

/// The failed proofs of one source, oldest first.
#[derive(Default)]
struct Failures {
    at: Vec<UnixSeconds>,
}

struct Block {
    times: u32,
    ends_at: UnixSeconds,
}

const FAILURE_WINDOW_SECONDS: u64 = 600;
/// Where somebody proved who they are, others may sit behind the same address.
const VERIFIED_PROTECTS_SECONDS: u64 = 24 * 3600;
const FIRST_BLOCK_SECONDS: u64 = 60;
const LONGEST_BLOCK_SECONDS: u64 = 3600;
/// A source that has kept quiet for this long starts again with the shortest block.
const REPEATS_FORGOTTEN_AFTER_SECONDS: u64 = 24 * 3600;
/// As many as the XDP map takes.
const MOST_LIVE_BLOCKS: usize = 4096;
const MOST_REMEMBERED_BLOCKS: usize = 4 * MOST_LIVE_BLOCKS;
const MOST_FAILING_SOURCES: usize = 16 * 1024;
const MOST_VERIFIED_SOURCES: usize = 64 * 1024;

impl Memory {
    pub(super) fn remember_verified(&mut self, source: Source, at: UnixSeconds) {
        make_room(&mut self.verified_at, &source, MOST_VERIFIED_SOURCES, |at| *at);
        let latest = self.verified_at.entry(source).or_insert(at);
        *latest = at.max(*latest);
    }

    pub(super) fn is_verified(&self, source: Source, verified_for: Duration, now: UnixSeconds) -> bool {
        self.verified_at.get(&source).is_some_and(|at| now < at + verified_for.as_secs())
    }

    pub(super) fn finished(
        &mut self,
        config: &Config,
        client: &Client,
        now: UnixSeconds,
    ) -> Result<SourceChange, Told> {
        // Behind the proxy's one address are all its clients.
        if client.through_trusted_proxy {
            return Err(Told::Nothing);
        }
        let source = Source::of(client.address);
        self.remember_verified(source, now);
        self.failures.remove(&source);
        Ok(SourceChange::Verified { source, ttl: config.step_up.verified_for })
    }

    pub(super) fn failed(&mut self, config: &Config, client: &Client, now: UnixSeconds) -> Result<SourceChange, Told> {
        let enough = config.step_up.block_after_failures;
        if client.through_trusted_proxy || enough == 0 {
            return Err(Told::Nothing);
        }
        let source = Source::of(client.address);
        make_room(&mut self.failures, &source, MOST_FAILING_SOURCES, |failures| failures.latest());
        let failures = self.failures.entry(source).or_default();
        if failures.add(now, enough) < enough {
            return Err(Told::Nothing);
        }
        self.failures.remove(&source);
        if let Some(why) = self.spared(config, client, &source, now) {
            return Err(Told::Spared(why));
        }
        let ttl = self.block(source, now);
        Ok(SourceChange::Blocked { source, ttl })
    }

    /// What speaks for a source that earned a block.
    fn spared(&mut self, config: &Config, client: &Client, source: &Source, now: UnixSeconds) -> Option<&'static str> {
        let network = network_of(source);
        let is_within = |networks: &[IpNet]| networks.iter().any(|protected| overlap(protected, &network));
        if is_within(&config.trusted_proxies) || config.speaks_for_others(&network) {
            return Some("spared: trusted proxy");
        }
        if is_within(&config.protected_networks) {
            return Some("spared: protected network");
        }
        let mut vips = config.services.iter().flat_map(|service| &service.vips);
        if client.address.is_loopback() || vips.any(|vip| overlap(&block_of(vip), &network)) {
            return Some("spared: our own address");
        }
        if self.verified_at.get(source).is_some_and(|at| now < at + VERIFIED_PROTECTS_SECONDS) {
            return Some("spared: verified within 24 hours");
        }
        self.blocks.retain(|_, block| now < block.ends_at + REPEATS_FORGOTTEN_AFTER_SECONDS);
        let live = self.blocks.values().filter(|block| now < block.ends_at).count();
        (live >= MOST_LIVE_BLOCKS && !self.blocks.contains_key(source)).then_some("spared: the block list is full")
    }

    /// The length of this block: twice the last one.
    fn block(&mut self, source: Source, now: UnixSeconds) -> Duration {
        make_room(&mut self.blocks, &source, MOST_REMEMBERED_BLOCKS, |block| block.ends_at);
        let block = self.blocks.entry(source).or_insert(Block { times: 0, ends_at: now });
        let seconds = (FIRST_BLOCK_SECONDS << block.times.min(16)).min(LONGEST_BLOCK_SECONDS);
        *block = Block { times: block.times + 1, ends_at: now + seconds };
        Duration::from_secs(seconds)
    }
}

impl Failures {
    /// Adds one and counts those within the window. Never keeps more than are asked for.
    fn add(&mut self, now: UnixSeconds, enough: u32) -> u32 {
        // Those of a clock that was set back since count as of now, and not until it is that late again.
        self.at.iter_mut().for_each(|at| *at = now.min(*at));
        self.at.retain(|at| now < at + FAILURE_WINDOW_SECONDS);
        if self.at.len() >= enough as usize {
            self.at.remove(0);
        }
        self.at.push(now);
        u32::try_from(self.at.len()).unwrap_or(u32::MAX)
    }

    fn latest(&self) -> UnixSeconds {
        self.at.last().copied().unwrap_or(0)
    }
}

/// The addresses that a block of `source` would hit.
fn network_of(source: &Source) -> IpNet {
    let address = source.network();
    let prefix_bits = if address.is_ipv4() { 32 } else { 64 };
    IpNet::new_assert(address, prefix_bits)
}

/// A VIP's length fits its family, so that the other branch is never taken.
fn block_of(vip: &VipPrefix) -> IpNet {
    IpNet::new(vip.network(), vip.length_bits() as u8).unwrap_or_else(|_| vip.network().into())
}

/// Either holds the other. A protected host inside an IPv6 /64 speaks for the whole /64: a block could not spare it.
fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// Before `key` is added to a full table, the entry whose time is longest past goes.
fn make_room<K: Copy + Eq + Hash, V>(table: &mut HashMap<K, V>, key: &K, limit: usize, time: impl Fn(&V) -> u64) {
    if table.len() < limit || table.contains_key(key) {
        return;
    }
    if let Some(oldest) = table.iter().min_by_key(|(_, value)| time(value)).map(|(key, _)| *key) {
        table.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::config::{Forwarding, Service};
    use lb_datapath::{Ports, Protocols};

    fn client(address: &str) -> Client {
        Client { address: address.parse().unwrap(), through_trusted_proxy: false }
    }

    fn config() -> Config {
        Config {
            trusted_proxies: vec!["198.51.100.0/28".parse().unwrap()],
            protected_networks: vec!["203.0.113.53/32".parse().unwrap(), "2001:db8:53::53/128".parse().unwrap()],
            services: vec![Service {
                name: "shop".to_owned(),
                vips: vec!["203.0.113.10".parse().unwrap()],
                ports: Ports::One(443),
                protocols: Protocols::TCP,
                limits: lb_datapath::Limits::default(),
                syn_cookies: lb_datapath::SynCookies::Off,
                forwarding: Forwarding::default(),
                plain_http: false,
                proxy_protocol: vec!["198.51.100.64/28".parse().unwrap()],
            }],
            ..crate::stepup::testing::config()
        }
    }

    /// Fails until something is decided.
    fn fail_often(memory: &mut Memory, config: &Config, client: &Client, now: u64) -> Result<SourceChange, Told> {
        let failures = 0..config.step_up.block_after_failures;
        failures.map(|_| memory.failed(config, client, now)).last().unwrap()
    }

    #[test]
    fn guards_speak_for_their_sources_and_for_nobody_else() {
        let rows: &[(&str, &str, Option<&str>)] = &[
            ("a stranger", "192.0.2.7", None),
            ("a stranger over IPv6", "2001:db8:1::7", None),
            ("a trusted proxy itself", "198.51.100.3", Some("spared: trusted proxy")),
            ("a tier that says whose its connections are", "198.51.100.65", Some("spared: trusted proxy")),
            ("just outside the trusted proxies", "198.51.100.16", None),
            ("the protected resolver", "203.0.113.53", Some("spared: protected network")),
            ("the protected resolver, v4-mapped", "::ffff:203.0.113.53", Some("spared: protected network")),
            ("a neighbour of the resolver in its /64", "2001:db8:53::bad", Some("spared: protected network")),
            ("our own VIP", "203.0.113.10", Some("spared: our own address")),
            ("loopback", "127.0.0.1", Some("spared: our own address")),
            ("where a session was verified", "192.0.2.200", Some("spared: verified within 24 hours")),
        ];
        for (name, address, spared) in rows {
            let (mut memory, config) = (Memory::default(), config());
            memory.finished(&config, &client("192.0.2.200"), 1_000).unwrap();
            let outcome = fail_often(&mut memory, &config, &client(address), 2_000);
            match spared {
                Some(why) => assert_eq!(outcome, Err(Told::Spared(why)), "{name}"),
                None => assert!(matches!(outcome, Ok(SourceChange::Blocked { .. })), "{name}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn nothing_behind_a_trusted_proxy_is_told_to_xdp() {
        let (mut memory, config) = (Memory::default(), config());
        let behind = Client { address: "192.0.2.7".parse().unwrap(), through_trusted_proxy: true };
        assert_eq!(memory.finished(&config, &behind, 1_000), Err(Told::Nothing));
        assert_eq!(fail_often(&mut memory, &config, &behind, 1_000), Err(Told::Nothing));
        assert!(memory.failures.is_empty() && memory.verified_at.is_empty());
    }

    #[test]
    fn a_finished_step_up_marks_exactly_its_source_for_the_configured_time() {
        let (mut memory, config) = (Memory::default(), config());
        for address in ["192.0.2.7", "2001:db8:1:2:3:4:5:6"] {
            let address: IpAddr = address.parse().unwrap();
            let finished = memory.finished(&config, &client(&address.to_string()), 1_000);
            let (source, ttl) = (Source::of(address), config.step_up.verified_for);
            assert_eq!(finished, Ok(SourceChange::Verified { source, ttl }));
        }
    }

    #[test]
    fn failures_of_before_the_clock_was_set_back_count_no_longer_than_others() {
        let (mut memory, config) = (Memory::default(), config());
        let client = client("192.0.2.1");
        for _ in 0..config.step_up.block_after_failures - 2 {
            assert_eq!(memory.failed(&config, &client, 10_000), Err(Told::Nothing));
        }
        assert_eq!(memory.failed(&config, &client, 6_400), Err(Told::Nothing));
        assert_eq!(memory.failed(&config, &client, 6_400 + FAILURE_WINDOW_SECONDS), Err(Told::Nothing));
        assert_eq!(memory.failures.values().map(|failures| failures.at.len()).sum::<usize>(), 1);
    }

    #[test]
    fn only_failures_within_ten_minutes_of_one_source_count_together() {
        let (mut memory, config) = (Memory::default(), config());
        let (one, other) = (client("192.0.2.1"), client("192.0.2.2"));
        let enough = u64::from(config.step_up.block_after_failures);
        for n in 0..3 * enough {
            let now = 1_000 + n * FAILURE_WINDOW_SECONDS / (enough - 1);
            assert_eq!(memory.failed(&config, &one, now), Err(Told::Nothing), "spread too thin");
        }
        for _ in 0..enough - 1 {
            assert_eq!(memory.failed(&config, &other, 9_000), Err(Told::Nothing));
        }
        memory.finished(&config, &other, 9_000).unwrap();
        assert_eq!(memory.failed(&config, &other, 9_000), Err(Told::Nothing), "success begins a new count");
    }

    #[test]
    fn blocks_double_from_a_minute_to_an_hour_and_are_forgotten_after_a_day_of_quiet() {
        let (mut memory, config) = (Memory::default(), config());
        let mut now = 1_000;
        let mut next_block_seconds = |memory: &mut Memory, quiet: u64| {
            now += quiet;
            match fail_often(memory, &config, &client("192.0.2.7"), now) {
                Ok(SourceChange::Blocked { ttl, .. }) => {
                    now += ttl.as_secs();
                    ttl.as_secs()
                }
                other => panic!("{other:?}"),
            }
        };
        for expected in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
            assert_eq!(next_block_seconds(&mut memory, 1), expected);
        }
        assert_eq!(next_block_seconds(&mut memory, REPEATS_FORGOTTEN_AFTER_SECONDS), 60);
    }

    #[test]
    fn protection_by_a_verified_session_ends_after_a_day_and_survives_a_restart() {
        let config = config();
        let source = Source::of("192.0.2.7".parse().unwrap());
        for (name, verified_at, spared) in [("a minute short of a day", 60, true), ("a day", 0, false)] {
            let mut restarted = Memory::default();
            restarted.remember_verified(source, verified_at);
            let outcome = fail_often(&mut restarted, &config, &client("192.0.2.7"), VERIFIED_PROTECTS_SECONDS);
            assert_eq!(outcome.is_err(), spared, "{name}");
        }
    }

    #[test]
    fn tables_stay_bounded_whoever_fails_from_wherever() {
        let mut config = config();
        config.step_up.block_after_failures = 1;
        let mut memory = Memory::default();
        let address =
            |n: u32| Client { address: IpAddr::from((0x0a00_0000 + n).to_be_bytes()), through_trusted_proxy: false };
        for n in 0..MOST_LIVE_BLOCKS as u32 {
            assert!(memory.failed(&config, &address(n), 1_000).is_ok());
        }
        let full = memory.failed(&config, &address(MOST_LIVE_BLOCKS as u32), 1_000);
        assert_eq!(full, Err(Told::Spared("spared: the block list is full")));
        assert!(memory.failed(&config, &address(MOST_LIVE_BLOCKS as u32), 1_061).is_ok(), "once others have ended");

        config.step_up.block_after_failures = 2;
        let mut memory = Memory::default();
        for n in 0..MOST_FAILING_SOURCES as u32 + 50 {
            let _ = memory.failed(&config, &address(n), 1_000 + u64::from(n));
        }
        assert_eq!(memory.failures.len(), MOST_FAILING_SOURCES);
    }

    #[test]
    fn zero_failures_in_the_configuration_means_never_block() {
        let (mut memory, mut config) = (Memory::default(), config());
        config.step_up.block_after_failures = 0;
        for _ in 0..100 {
            assert_eq!(memory.failed(&config, &client("192.0.2.7"), 1_000), Err(Told::Nothing));
        }
    }
}
