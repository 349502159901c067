//! Backends that the DNS names.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver};

use super::found::{Asked, Outcome};
use crate::config::{BackendConfig, BackendOrigin, Config, DnsKind, DnsQuestion, unfit_backend};

/// For one answer; asked twice where there is none.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// For everything that one question takes: SRV records, and the addresses of their targets.
const ALL_WITHIN: Duration = Duration::from_secs(20);

/// Different targets of SRV records whose addresses are asked for.
const MOST_TARGETS: usize = 64;

/// Records that are looked at in one answer, whatever it holds.
const MOST_RECORDS: usize = 8_192;

/// After a failure it is asked again so soon, and then less and less often.
const FIRST_RETRY: Duration = Duration::from_secs(1);

pub(super) struct Asker {
    question: DnsQuestion,
    resolver: Option<TokioResolver>,
    /// What each family last answered, for when it fails while the other does not.
    last: [Vec<IpAddr>; 2],
    failures_in_a_row: u32,
}

/// What was found, each with its port and weight, and for how long that counts.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) records: Vec<Answered>,
    pub(super) ttl: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) address: SocketAddr,
    /// Of SRV: the lower, the sooner.
    pub(super) priority: u16,
    pub(super) weight: u16,
}

impl Asker {
    pub(super) fn new(question: DnsQuestion) -> Asker {
        Asker { question, resolver: None, last: Default::default(), failures_in_a_row: 0 }
    }

    pub(super) async fn ask(&mut self, pool: &str, config: &Config) -> Asked {
        let answered = match tokio::time::timeout(ALL_WITHIN, self.answer()).await {
            Ok(answered) => answered,
            Err(_) => Err("no answer in time".to_owned()),
        };
        let at = Instant::now();
        let answered = answered.and_then(|answer| {
            let (backends, refused) = backends(&answer.records, &self.question, pool, config);
            match (backends.is_empty(), refused.is_empty()) {
                (true, true) => Err("the answer has no address".to_owned()),
                (true, false) => Err(format!("no address of the answer may be taken: {}", refused[0].1)),
                (false, _) => Ok((answer.ttl, backends, refused)),
            }
        });
        match answered {
            Ok((ttl, backends, refused)) => {
                self.failures_in_a_row = 0;
                let again_after = self.bounded(ttl.unwrap_or_default());
                Asked { at, again_after, outcome: Outcome::Backends(backends), refused }
            }
            Err(error) => {
                self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
                // Made anew: `resolv.conf` may be another by now, and connections to servers that are gone are given up.
                self.resolver = None;
                let doubled = FIRST_RETRY * 2_u32.saturating_pow(self.failures_in_a_row.min(10) - 1);
                let again_after = doubled.min(self.question.maximum_ttl.min(Duration::from_secs(30)));
                Asked { at, again_after, outcome: Outcome::Failed(error), refused: Vec::new() }
            }
        }
    }

    fn bounded(&self, ttl: Duration) -> Duration {
        ttl.clamp(self.question.minimum_ttl, self.question.maximum_ttl)
    }

    async fn answer(&mut self) -> Result<Answer, String> {
        let resolver = match &self.resolver {
            Some(resolver) => resolver.clone(),
            None => self.resolver.insert(resolver(&self.question)?).clone(),
        };
        match self.question.kind {
            DnsKind::Addresses { port } => {
                let (addresses, ttl) = addresses(&resolver, &self.question.name, &mut self.last).await?;
                let record = |address| Answered { address: SocketAddr::new(address, port), priority: 0, weight: 1 };
                Ok(Answer { records: addresses.into_iter().map(record).collect(), ttl })
            }
            DnsKind::Services => services(&resolver, &self.question.name).await,
        }
    }
}

fn resolver(question: &DnsQuestion) -> Result<TokioResolver, String> {
    let provider = TokioRuntimeProvider::default();
    let builder = if question.servers.is_empty() {
        Resolver::builder(provider).map_err(|error| format!("/etc/resolv.conf cannot be used: {error}"))?
    } else {
        let servers = question.servers.iter().map(|server| {
            let connection = |mut connection: ConnectionConfig| {
                connection.port = server.port();
                connection
            };
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(connection).to_vec();
            NameServerConfig::new(server.ip(), true, connections)
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        Resolver::builder_with_config(config, provider)
    };
    let mut builder = builder;
    let options: &mut ResolverOpts = builder.options_mut();
    // What is known is kept here, with the bounds of the configuration.
    options.cache_size = 0;
    options.timeout = ANSWER_WITHIN;
    options.attempts = 2;
    builder.build().map_err(|error| error.to_string())
}

/// What one family's question came to.
enum Family {
    Found(Vec<IpAddr>, Duration),
    /// The name has none: an answer like any other.
    None,
    Failed(String),
}

/// The addresses of both families. One that fails while the other does not keeps what it had.
async fn addresses(
    resolver: &TokioResolver,
    name: &str,
    last: &mut [Vec<IpAddr>; 2],
) -> Result<(Vec<IpAddr>, Option<Duration>), String> {
    let (v4, v6) = tokio::join!(resolver.lookup(name, RecordType::A), resolver.lookup(name, RecordType::AAAA));
    let families = [family(v4), family(v6)];
    let is_any_found = families.iter().any(|family| matches!(family, Family::Found(..)));
    let (mut all, mut ttl, mut failed) = (Vec::new(), None::<Duration>, None);
    for (family, last) in families.into_iter().zip(last) {
        match family {
            Family::Found(addresses, family_ttl) => {
                ttl = Some(ttl.map_or(family_ttl, |ttl| ttl.min(family_ttl)));
                all.extend(&addresses);
                *last = addresses;
            }
            Family::None => last.clear(),
            Family::Failed(error) => {
                if is_any_found {
                    all.extend(&*last);
                }
                // Asked again soon, whatever the other says.
                ttl = Some(Duration::ZERO);
                failed = Some(error);
            }
        }
    }
    match (all.is_empty(), failed) {
        (true, Some(error)) => Err(error),
        (true, None) => Err("the name has no address".to_owned()),
        (false, _) => Ok((all, ttl)),
    }
}

fn family(answer: Result<Lookup, NetError>) -> Family {
    match answer {
        Ok(lookup) => {
            let address = |data: &RData| match data {
                RData::A(address) => Some(IpAddr::V4(address.0)),
                RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                _ => None,
            };
            let records = lookup.answers().iter().take(MOST_RECORDS);
            Family::Found(records.filter_map(|record| address(&record.data)).collect(), ttl_of(&lookup))
        }
        Err(error) if error.is_no_records_found() && !error.is_nx_domain() => Family::None,
        Err(error) => Family::Failed(error.to_string()),
    }
}

/// The shortest of the answer's records, aliases among them.
fn ttl_of(lookup: &Lookup) -> Duration {
    let seconds = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or_default();
    Duration::from_secs(seconds.into())
}

async fn services(resolver: &TokioResolver, name: &str) -> Result<Answer, String> {
    let lookup = resolver.lookup(name, RecordType::SRV).await.map_err(|error| error.to_string())?;
    let mut ttl = ttl_of(&lookup);
    let service = |data: &RData| match data {
        RData::SRV(service) => Some((service.target.to_utf8(), service.port, service.priority, service.weight)),
        _ => None,
    };
    let records = lookup.answers().iter().take(MOST_RECORDS);
    let services: Vec<_> = records.filter_map(|record| service(&record.data)).collect();
    let mut targets: Vec<&str> = services.iter().map(|(target, ..)| target.as_str()).collect();
    targets.sort_unstable();
    targets.dedup();
    targets.truncate(MOST_TARGETS);
    let mut answer = Answer::default();
    // RFC 2782: the target "." says that the service is not there.
    for target in targets.into_iter().filter(|target| *target != ".") {
        // One target without an address must not cost the others.
        let Ok((found, target_ttl)) = addresses(resolver, target, &mut Default::default()).await else { continue };
        ttl = target_ttl.map_or(ttl, |target_ttl| ttl.min(target_ttl));
        for (_, port, priority, weight) in services.iter().filter(|(name, ..)| name == target) {
            let record =
                |address| Answered { address: SocketAddr::new(address, *port), priority: *priority, weight: *weight };
            answer.records.extend(found.iter().copied().map(record).take(MOST_RECORDS - answer.records.len()));
        }
    }
    answer.ttl = Some(ttl);
    Ok(answer)
}

/// What of an answer may be backends, and what not, and why.
pub(super) fn backends(
    records: &[Answered],
    question: &DnsQuestion,
    pool: &str,
    config: &Config,
) -> (Vec<BackendConfig>, Vec<(SocketAddr, String)>) {
    let (mut backends, mut refused) = (Vec::new(), Vec::new());
    let mut priorities: Vec<u16> = records.iter().map(|record| record.priority).collect();
    priorities.sort_unstable();
    priorities.dedup();
    let tier = |priority| priorities.partition_point(|other| *other < priority).min(BackendConfig::LAST_BACKUP.into());
    let heaviest = records.iter().map(|record| record.weight).max().unwrap_or_default();
    for record in records {
        let address = SocketAddr::new(record.address.ip().to_canonical(), record.address.port());
        match unfit(address, question.allow_local).map(str::to_owned).or_else(|| unfit_backend(address, pool, config)) {
            Some(why) if refused.len() < MOST_REFUSED => refused.push((address, why)),
            Some(_) => {}
            None => backends.push(BackendConfig {
                weight: weight(record.weight, heaviest),
                backup: tier(record.priority) as u8,
                origin: BackendOrigin::Discovered,
                ..address.into()
            }),
        }
    }
    refused.sort_unstable();
    refused.dedup();
    (backends, refused)
}

/// That are told of.
const MOST_REFUSED: usize = 16;

/// Weights of SRV go up to 65,535, ours to 255. One of 0 gets little, and not nothing (RFC 2782).
fn weight(weight: u16, heaviest: u16) -> u8 {
    const MOST: u32 = u8::MAX as u32;
    if u32::from(heaviest) <= MOST {
        return weight.clamp(1, u8::MAX.into()) as u8;
    }
    (u32::from(weight) * MOST / u32::from(heaviest)).clamp(1, MOST) as u8
}

/// Why nobody is sent there who does not know the address himself: whoever can write into a zone could otherwise make this
/// host talk to itself, or to its cloud's metadata.
fn unfit(address: SocketAddr, allow_local: bool) -> Option<&'static str> {
    let is_link_local = match address.ip() {
        IpAddr::V4(v4) => v4.is_link_local(),
        // The same metadata services, by their addresses of IPv6.
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254],
    };
    let is_nowhere = match address.ip() {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.octets()[0] == 0,
        IpAddr::V6(_) => false,
    };
    match address {
        address if address.port() == 0 => Some("port 0 is none"),
        address if is_nowhere || address.ip().is_unspecified() || address.ip().is_multicast() => {
            Some("it is no host's address")
        }
        address if address.ip().is_loopback() && !allow_local => {
            Some("it is a loopback address; `allow_local` takes them")
        }
        _ if is_link_local && !allow_local => Some("it is a link-local address; `allow_local` takes them"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::compile_read;

    fn question(allow_local: bool) -> DnsQuestion {
        DnsQuestion {
            name: "app.example".into(),
            kind: DnsKind::Services,
            servers: vec![],
            minimum_ttl: Duration::from_secs(5),
            maximum_ttl: Duration::from_secs(300),
            allow_local,
        }
    }

    fn config() -> Config {
        let text = "services: [{name: shop, vips: [198.51.100.10], port: 443}]\n\
                    pools: [{name: shop, backends: \"10.0.0.9:80\"}]\nroutes: [{path: /**, pool: shop}]\n";
        compile_read(std::path::Path::new("/etc/lb/lb.yaml"), text).unwrap()
    }

    fn record(address: &str, priority: u16, weight: u16) -> Answered {
        Answered { address: address.parse().unwrap(), priority, weight }
    }

    #[test]
    fn addresses_that_lead_back_to_this_host_or_to_its_cloud_are_taken_only_where_it_is_said() {
        let rows = [
            ("10.0.0.1:80", true, true),
            ("[2001:db8::1]:80", true, true),
            ("127.0.0.1:80", false, true),
            ("127.8.9.1:80", false, true),
            ("[::1]:80", false, true),
            ("[::ffff:127.0.0.1]:80", false, true),
            ("169.254.169.254:80", false, true),
            ("[fe80::1]:80", false, true),
            ("[fd00:ec2::254]:80", false, true),
            ("0.0.0.0:80", false, false),
            ("0.1.2.3:80", false, false),
            ("[::]:80", false, false),
            ("255.255.255.255:80", false, false),
            ("224.0.0.1:80", false, false),
            ("[ff02::1]:80", false, false),
            ("10.0.0.1:0", false, false),
            // A service of this edge: requests would go round in circles.
            ("198.51.100.10:443", false, false),
            ("198.51.100.10:444", true, true),
        ];
        for (address, usually, where_local_is_allowed) in rows {
            for (allow_local, taken) in [(false, usually), (true, where_local_is_allowed)] {
                let records = [record(address, 0, 1)];
                let (backends, refused) = backends(&records, &question(allow_local), "shop", &config());
                assert_eq!((backends.len(), refused.len()), (taken.into(), (!taken).into()), "{address} {allow_local}");
            }
        }
    }

    #[test]
    fn priorities_become_backups_and_weights_shares() {
        let of = |records: &[Answered]| {
            let (backends, _) = backends(records, &question(false), "shop", &config());
            backends.iter().map(|backend| (backend.weight, backend.backup)).collect::<Vec<_>>()
        };
        let small = [record("10.0.0.1:80", 10, 3), record("10.0.0.2:80", 10, 0), record("10.0.0.3:80", 20, 7)];
        assert_eq!(of(&small), [(3, 0), (1, 0), (7, 1)]);
        let large = [record("10.0.0.1:80", 0, 65_535), record("10.0.0.2:80", 0, 32_768), record("10.0.0.3:80", 0, 1)];
        let tiers: Vec<Answered> = (0..12).map(|n| record(&format!("10.0.0.{n}:80"), 60_000 - 5 * n, 1)).collect();
        assert_eq!(
            of(&tiers).iter().map(|(_, backup)| *backup).rev().collect::<Vec<_>>(),
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9]
        );
        assert_eq!(of(&large), [(255, 0), (127, 0), (1, 0)]);
    }
}
