//! The configuration after every check: what the rest of the controller works with. Nothing in it can be wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use lb_datapath::{
    DesiredNat, Forward, HashBy, Limits, Ports, Protocols, Rate, Sampling, ServerIdLengths, SynCookies, Tier, VipPrefix,
};
use lb_policy::{CountedBy, Levels, RequestMatcher, RuleSet};

use crate::audit::TrailConfig;

mod access_log;
mod acme;
mod backend_tls;
mod compile;
mod diagnostic;
mod discover;
mod factors;
mod front;
mod health;
mod identity;
mod pages;
mod pools;
mod retries;
mod route;
mod section;
mod taken_in;
mod tls;
mod tracing;
mod tree;
mod values;
mod watch;

pub use access_log::{AccessFormat, AccessLogConfig, AlwaysLogged, LogDestination, LogFileConfig, Rotation};
pub use acme::{AcmeConfig, ChallengeKind, ExternalAccount, OrderedCertificate};
pub use backend_tls::{BackendTls, ClientIdentity};
pub use diagnostic::{Diagnostic, Diagnostics};
pub use discover::{BackendOrigin, DiscoverConfig, DiscoverFrom, DnsKind, DnsQuestion, read_backends, unfit_backend};
pub use factors::{
    CaptchaConfig, EndpointConfig, ExternalConfig, FactorsConfig, MailConfig, MailProtection, RelyingParty, WorkConfig,
};
pub use front::{ConnectionLimits, OverloadConfig, PassThrough, ProxyVersion, ServerNames};
pub use health::{EjectionConfig, HealthConfig, HealthKind, PoolLimits};
pub use identity::{
    Assurance, CertificateUser, ClaimNames, ClientAuthentication, ClientCertificates, ClientKeyConfig, Freshness,
    IdentityProvider, IntrospectionClient, PeerConfig, Profile, Secret, TokenIssuer, is_https_url,
};
pub use pages::{Logo, Look, PagesConfig};
pub use pools::{BackendConfig, BackendProtocol, Balance, HashKey, PoolConfig, StickyConfig};
pub use retries::{RetryBudget, RetryConfig, RetryOn, Timeouts};
pub use route::{Action, FixedResponse, HeaderChanges, Mirror, Redirect, Rewrite, Route, Routes, Split, own_value};
pub use taken_in::TakenIn;
pub use tls::{Alpn, CertificateFiles, TlsConfig, TlsVersion};
pub use tracing::TracingConfig;
pub use watch::{Known, WatchError, Watcher};

/// Larger files are refused unread: they are no configuration.
const MOST_FILE_BYTES: u64 = 32 * 1024 * 1024;

/// Compiles the text of a configuration; `file` is for messages, and its folder is where relative paths start. All
/// mistakes are returned, not only the first.
pub fn compile_read(file: &Path, source: &str) -> Result<Config, Diagnostics> {
    compile::compile(&file.display().to_string(), source, file.parent().unwrap_or(Path::new("")))
}

/// The text of a file. With it known, [`Watcher::start`] reports only what changes from then on.
pub fn read(file: &Path) -> Result<String, Diagnostics> {
    let refuse = |message: String, help: &str| Diagnostics::of_whole_file(&file.display().to_string(), message, help);
    let unreadable = |error: std::io::Error| refuse(format!("the file cannot be read: {error}"), "");
    let metadata = std::fs::metadata(file).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(refuse("this is no file".into(), "name the YAML file itself"));
    }
    if metadata.len() > MOST_FILE_BYTES {
        return Err(refuse(format!("the file has {} bytes; at most {MOST_FILE_BYTES} are read", metadata.len()), ""));
    }
    let bytes = std::fs::read(file).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|_| refuse("the file is not UTF-8".into(), "save it as UTF-8"))
}

/// A duration as the configuration writes it, such as `90d`, for the command line.
///
/// Errors: what is wrong with the text.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(100 * 366 * 86_400);
    values::duration(Duration::from_secs(1)..=longest)(text).map_err(|complaint| complaint.message)
}

/// How long something took, such as `250ms`, for the command line.
///
/// Errors: what is wrong with the text.
pub fn parse_latency(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(24 * 3600);
    values::duration(Duration::ZERO..=longest)(text).map_err(|complaint| complaint.message)
}

/// One configuration file, compiled. The default is one that serves nothing.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Interfaces the XDP program is attached to; empty: none (L7 alone).
    pub interfaces: Vec<String>,
    /// Keys, certificates made at first start, and the embedded store live here, readable by the controller alone.
    pub state_dir: PathBuf,
    /// Where Prometheus may scrape; never the data port.
    pub metrics: Option<SocketAddr>,
    pub services: Vec<Service>,
    /// Peers whose connections begin with a PROXY header, where no service takes them that has its own.
    pub proxy_protocol: Vec<IpNet>,
    /// That one source may hold.
    pub connections: ConnectionLimits,
    /// What is not ended here, but goes on as it comes.
    pub pass_through: Vec<PassThrough>,
    pub overload: OverloadConfig,
    /// New flows that XDP admits to all services together.
    pub new_flows: Rate,
    /// Which packets XDP writes down.
    pub sampling: Sampling,
    /// Whose tunnels end on this host; `None`: nobody's.
    pub decapsulate: Option<Tier>,
    pub nat: NatConfig,
    pub drain: DrainConfig,
    /// Served by SNI, the first being the default; empty: self-signed at first start.
    pub certificates: Vec<CertificateFiles>,
    pub tls: TlsConfig,
    /// Certificates that are ordered; `None`: none are.
    pub acme: Option<AcmeConfig>,
    pub pools: Vec<PoolConfig>,
    pub routes: Routes,
    pub users: Vec<User>,
    /// In the order in which they are offered and tried.
    pub identity_providers: Vec<IdentityProvider>,
    /// Whose access tokens are taken.
    pub tokens: Vec<TokenIssuer>,
    /// Whose client certificates are taken; `None`: none is asked for.
    pub client_certificates: Option<ClientCertificates>,
    /// Peers whose `Forwarded` and `X-Forwarded-For` are believed.
    pub trusted_proxies: Vec<IpNet>,
    pub method_override: MethodOverride,
    /// Origins, besides our own, whose pages may send requests with our cookies.
    pub trusted_origins: Vec<String>,
    /// Never blocked in XDP.
    pub protected_networks: Vec<IpNet>,
    pub lists: ListsConfig,
    pub factors: FactorsConfig,
    /// Shared with every request: its answer may be a page.
    pub pages: Arc<PagesConfig>,
    pub step_up: StepUpConfig,
    /// Where the audit trail is kept besides the log; `None`: nowhere.
    pub audit: Option<TrailConfig>,
    /// `None`: each request has a line among the log's own, at its level.
    pub access_log: Option<AccessLogConfig>,
    /// `None`: nothing is traced.
    pub tracing: Option<TracingConfig>,
    pub rules: Arc<RuleSet>,
    /// What is counted, in the order in which rules know it.
    pub rates: Vec<RateConfig>,
    pub geo: GeoConfig,
    pub reputation: Vec<ReputationListConfig>,
    /// What `check` tries on the rules.
    pub tests: Vec<PolicyTest>,
    /// Files that were read into this: when one changes, the configuration does.
    pub taken_in: Vec<TakenIn>,
}

/// How long what is under way may take once its process is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainConfig {
    /// The edge is to stop.
    pub on_stop: Duration,
    /// A new process has taken over.
    pub on_upgrade: Duration,
    /// A process ends, whatever it has under way, once so many more upgrades have followed the one that replaced it.
    pub generations: u32,
}

impl Default for DrainConfig {
    fn default() -> DrainConfig {
        DrainConfig { on_stop: Duration::from_secs(10), on_upgrade: Duration::from_secs(600), generations: 3 }
    }
}

/// What is done with a request that names another method than it has, in a header or its query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MethodOverride {
    /// 400.
    #[default]
    Refuse,
    /// A `POST` that names `PUT`, `PATCH` or `DELETE` is that: for rules, and for backends.
    Apply,
}

/// A request, and what the rules are to make of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyTest {
    pub name: String,
    /// In the file, from 1.
    pub line: usize,
    /// A curl command.
    pub request: String,
    /// Who is logged in; `None`: nobody.
    pub user: Option<String>,
    /// Proved factors, and how many seconds ago.
    pub factors: Vec<(String, u64)>,
    pub from: Option<IpAddr>,
    /// Unix seconds; `None`: now.
    pub at: Option<u64>,
    /// By the names under which rules know them.
    pub facts: BTreeMap<String, String>,
    /// `allow`, `allow_within_limits`, `log_in`, `challenge`, `deny`, `revoke` or `regenerate_api_key`.
    pub decision: String,
    /// One that must have brought it about.
    pub rule: Option<String>,
    /// What a challenge must ask for.
    pub methods: Option<Vec<String>>,
}

/// Requests that are counted, for rules to go by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateConfig {
    pub name: String,
    pub matches: RequestMatcher,
    pub counted_by: CountedBy,
    pub within: Duration,
}

/// Databases in the MaxMind DB format; `None`: what it would tell is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GeoConfig {
    /// Of countries; one of cities tells how far places are apart as well.
    pub country: Option<PathBuf>,
    pub asn: Option<PathBuf>,
}

/// A file of networks with something against them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReputationListConfig {
    pub file: PathBuf,
    /// 0 to 100, for lines without one of their own.
    pub score: u8,
    /// Since the file was written.
    pub valid_for: Duration,
}

/// How packets of services with `forward: nat` are rewritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatConfig {
    pub translation: DesiredNat,
    /// Connections that fit.
    pub capacity: usize,
}

impl Default for NatConfig {
    fn default() -> NatConfig {
        NatConfig { translation: DesiredNat::default(), capacity: DesiredNat::DEFAULT_CAPACITY }
    }
}

/// Addresses and ports whose packets the XDP program steers to this controller, or sends on to a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: String,
    pub vips: Vec<VipPrefix>,
    pub ports: Ports,
    pub protocols: Protocols,
    pub limits: Limits,
    pub syn_cookies: SynCookies,
    pub forwarding: Forwarding,
    /// Its connections are plain HTTP: whoever comes is sent to HTTPS.
    pub plain_http: bool,
    /// Peers whose connections begin with a PROXY header.
    pub proxy_protocol: Vec<IpNet>,
}

impl Service {
    /// Its requests are served here, and not merely sent on.
    pub fn is_local(&self) -> bool {
        self.forwarding.forward == Forward::Local
    }

    /// Would a TCP connection to this address be one to the service?
    pub fn takes_tcp(&self, address: SocketAddr) -> bool {
        self.protocols.tcp && self.ports.contains(address.port()) && self.has_vip(address.ip())
    }

    pub fn has_vip(&self, address: IpAddr) -> bool {
        self.vips.iter().any(|vip| vip.contains(address))
    }
}

/// Where a service's packets go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarding {
    pub forward: Forward,
    /// `Some` unless `forward` is [`Forward::Local`].
    pub pool: Option<String>,
    pub hash_by: HashBy,
    /// UDP destination port; 0 unless `forward` is [`Forward::Gue`].
    pub gue_port: u16,
    /// The largest TCP segment that a SYN may announce, less where less fits; 0: as it comes.
    pub max_segment_bytes: u16,
    /// How QUIC connection ids name a backend; nothing: not routed by them.
    pub quic: ServerIdLengths,
}

/// Sources that XDP drops, or never drops for being listed or blocked. The longest prefix decides, and of two equal ones
/// the one that allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListsConfig {
    pub deny: Vec<ListEntry>,
    pub allow: Vec<ListEntry>,
}

impl ListsConfig {
    /// The files of both lists.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.deny.iter().chain(&self.allow).filter_map(|entry| match entry {
            ListEntry::File(file) => Some(file.as_path()),
            ListEntry::Prefix(_) => None,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListEntry {
    Prefix(IpNet),
    /// A prefix or an address a line; not read yet.
    File(PathBuf),
}

/// A built-in user.
#[derive(Clone)]
pub struct User {
    pub name: String,
    /// PHC string, Argon2id.
    pub password_hash: String,
    /// RFC 6238 secret, decoded from Base32; 16 to 64 bytes.
    pub totp_secret: Option<Vec<u8>>,
    /// Where codes and news are mailed.
    pub email: Option<String>,
    /// Where codes are sent as text messages, in the form of E.164: `+4915112345678`.
    pub phone: Option<String>,
    pub groups: Vec<String>,
}

/// Without the secrets: users end up in logs.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).field("groups", &self.groups).finish_non_exhaustive()
    }
}

/// Everything about sessions, challenges and what they tell XDP.
#[derive(Clone, Debug)]
pub struct StepUpConfig {
    /// A session ends this long after login, whatever happens.
    pub session_lifetime: Duration,
    /// A session ends after this long without a request.
    pub session_idle: Duration,
    /// A challenge, and the request parked behind it, must be finished within this.
    pub transaction_lifetime: Duration,
    /// Largest request body that is parked for resumption.
    pub park_limit_bytes: usize,
    /// What each level takes.
    pub levels: Levels,
    /// How long a finished step-up lets its source pass first.
    pub verified_for: Duration,
    /// Failed proofs from one source, within ten minutes, that make it blocked in XDP.
    pub block_after_failures: u32,
}

impl Default for StepUpConfig {
    fn default() -> StepUpConfig {
        StepUpConfig {
            session_lifetime: Duration::from_secs(12 * 3600),
            session_idle: Duration::from_secs(3600),
            transaction_lifetime: Duration::from_secs(600),
            park_limit_bytes: 256 * 1024,
            levels: Levels::default(),
            verified_for: Duration::from_secs(900),
            block_after_failures: 10,
        }
    }
}
