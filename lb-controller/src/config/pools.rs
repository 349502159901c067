//! Pools of backends: who is in them, which of them takes a request, and how their health is known.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use lb_datapath::ServerId;

use super::{
    Alpn, BackendOrigin, BackendTls, DiscoverConfig, EjectionConfig, HealthConfig, PoolLimits, ProxyVersion,
    RetryBudget, RetryConfig, Secret, Timeouts,
};

/// A named group of backends that can stand in for one another.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    pub name: String,
    /// Those that the configuration names, and behind them those that were found.
    pub backends: Vec<BackendConfig>,
    /// Where more of them are found; `None`: nowhere.
    pub discover: Option<DiscoverConfig>,
    /// `None`: backends are spoken to in plain.
    pub tls: Option<BackendTls>,
    pub protocol: BackendProtocol,
    pub health: HealthConfig,
    pub balance: Balance,
    /// Clients stay with the backend that served them first; `None`: they do not.
    pub sticky: Option<StickyConfig>,
    /// A backend that comes back gets its whole share after this long; zero: at once.
    pub slow_start: Duration,
    /// When fewer of a hundred backends are available than this, all are used; 0: never.
    pub panic_threshold_percent: u8,
    /// When fewer of a hundred near backends are available than this, those of other zones share the requests.
    pub near_threshold_percent: u8,
    /// `None`: requests take no backend out.
    pub ejection: Option<EjectionConfig>,
    pub limits: PoolLimits,
    pub timeouts: Timeouts,
    pub retries: RetryConfig,
    pub retry_budget: RetryBudget,
    /// What connections to its backends begin with; `None`: with what is spoken.
    pub send_proxy_protocol: Option<ProxyVersion>,
}

impl Default for PoolConfig {
    fn default() -> PoolConfig {
        PoolConfig {
            name: String::new(),
            backends: Vec::new(),
            discover: None,
            tls: None,
            protocol: BackendProtocol::default(),
            health: HealthConfig::default(),
            balance: Balance::default(),
            sticky: None,
            slow_start: Duration::ZERO,
            panic_threshold_percent: 0,
            near_threshold_percent: 50,
            ejection: None,
            limits: PoolLimits::default(),
            timeouts: Timeouts::default(),
            retries: RetryConfig::default(),
            retry_budget: RetryBudget::default(),
            send_proxy_protocol: None,
        }
    }
}

/// What is spoken with backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendProtocol {
    #[default]
    Http1,
    /// HTTP/2 over TLS.
    H2,
    /// HTTP/2 in plain, which is known beforehand (RFC 9113 §3.3).
    H2c,
    /// Over TLS what the backend likes best (ALPN), in plain HTTP/1.1.
    Auto,
}

impl BackendProtocol {
    /// What is offered within TLS, the favourite first.
    pub fn offered(self) -> &'static [Alpn] {
        match self {
            BackendProtocol::Http1 => &[Alpn::Http1],
            BackendProtocol::H2 | BackendProtocol::H2c => &[Alpn::H2],
            BackendProtocol::Auto => &[Alpn::H2, Alpn::Http1],
        }
    }

    /// Whether requests may come to share a connection.
    pub fn may_be_h2(self) -> bool {
        self != BackendProtocol::Http1
    }

    /// Whether nothing else is spoken.
    pub fn is_h2(self) -> bool {
        matches!(self, BackendProtocol::H2 | BackendProtocol::H2c)
    }
}

/// Which backend takes the next request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Of two that are drawn at random, the one with less under way for its weight.
    #[default]
    LeastRequest,
    /// Of two that are drawn at random, the one that is expected to answer sooner.
    Latency,
    /// One after the other.
    RoundRobin,
    /// Requests that have this in common go to the same backend.
    Hash(HashKey),
}

/// What requests that belong together have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    Source,
    Cookie(String),
    Header(HeaderName),
    /// Who is logged in.
    User,
    /// Without the query.
    Path,
}

/// A cookie names the backend that a client stays with.
#[derive(Clone, Debug)]
pub struct StickyConfig {
    pub cookie: String,
    /// What its values are made with; `None`: a key of this host's own, so that they mean nothing to other hosts.
    pub key: Option<Secret>,
}

/// One server of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendConfig {
    /// Health checks and L7 connect to the port; forwarded packets keep theirs, except with NAT.
    pub address: SocketAddr,
    /// Its share of requests and of forwarded flows, in proportion to the others'.
    pub weight: u8,
    /// It keeps what it has, and gets nothing new.
    pub drain: bool,
    /// Not 0: it gets requests only while none, or too few, of those with lower numbers can take them.
    pub backup: u8,
    /// Where it stands.
    pub zone: Option<Arc<str>>,
    /// It stands in another zone than this host.
    pub is_far: bool,
    /// What it puts into its QUIC connection ids; `None`: what its address makes of as many bytes as a service asks for.
    pub server_id: Option<ServerId>,
    pub origin: BackendOrigin,
}

impl BackendConfig {
    pub const DEFAULT_WEIGHT: u8 = 1;
    /// More tiers than anybody has.
    pub const LAST_BACKUP: u8 = 9;

    /// What names it in connection ids whose server ids have so many bytes.
    pub fn server_id(&self, bytes: u8) -> Option<ServerId> {
        let given = self.server_id.filter(|id| id.as_bytes().len() == usize::from(bytes));
        given.or_else(|| ServerId::derived(self.address.ip().into(), self.address.port(), bytes.into()))
    }
}

/// As most are: with the usual weight, and at work.
impl From<SocketAddr> for BackendConfig {
    fn from(address: SocketAddr) -> BackendConfig {
        BackendConfig {
            address,
            weight: BackendConfig::DEFAULT_WEIGHT,
            drain: false,
            backup: 0,
            zone: None,
            is_far: false,
            server_id: None,
            origin: BackendOrigin::default(),
        }
    }
}
