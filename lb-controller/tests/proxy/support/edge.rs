//! An edge with one worker, whose only route is public.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response};
use ipnet::IpNet;
use lb_controller::clock::Clock;
use lb_controller::config::{
    BackendTls, Balance, CertificateFiles, Config, HealthConfig, HealthKind, PoolConfig, TlsConfig, TracingConfig,
};
use lb_controller::metrics::Metrics;
use lb_controller::pool::{Pools, Timeouts};
use lb_controller::serve::accept::{Limits, Workers};
use lb_controller::serve::access_log::{AccessLog, Record, Recorder};
use lb_controller::serve::body::{ClientBody, ResponseBody};
use lb_controller::serve::front::Front;
use lb_controller::serve::plain_http::{Direct, PlainHttp};
use lb_controller::serve::request::Peer;
use lb_controller::serve::respond::Refusal;
use lb_controller::serve::standing::Over;
use lb_controller::serve::target::Target;
use lb_controller::serve::{forward, guard, listen, tls};
use lb_controller::tail::Tail;
use lb_controller::traces::Tracer;
use lb_policy::{
    BodyFacts, ClientFacts, Decision, Everything, Facts, Levels, NO_PARAMETERS, NoHeaders, ObservedFacts, Permit,
    RequestFacts, RouteFacts, RuleSet,
};
use rustls::pki_types::CertificateDer;
use tokio::sync::Notify;

pub(crate) struct Edge {
    pub(crate) address: SocketAddr,
    /// Where plain HTTP is spoken, if it is.
    pub(crate) plain: Option<SocketAddr>,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) certificates: Arc<tls::CertificateStore>,
    pub(crate) metrics: Metrics,
    pub(crate) pools: Pools,
    workers: Option<Workers>,
}

struct State {
    config: Config,
    pools: Pools,
    assertion: Option<HeaderValue>,
    login_over: Arc<Notify>,
}

/// What a test may want otherwise.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) timeouts: Timeouts,
    /// What the pool has otherwise than usual.
    pub(crate) pool: Option<fn(&mut PoolConfig)>,
    pub(crate) backend_tls: Option<BackendTls>,
    pub(crate) assertion: Option<HeaderValue>,
    /// Told when everybody's login is over.
    pub(crate) login_over: Arc<Notify>,
    pub(crate) limits: Limits,
    /// What the configuration has otherwise than usual.
    pub(crate) config: Option<fn(&mut Config)>,
    /// It speaks plain HTTP too, at an address of its own.
    pub(crate) speaks_plain_http: bool,
    /// Where a step-up was lately finished.
    pub(crate) is_verified: bool,
    pub(crate) access_log: AccessLog,
    /// Beside the first.
    pub(crate) more_workers: usize,
    pub(crate) tracing: Option<TracingConfig>,
}

impl Edge {
    pub(crate) fn start(backends: &[SocketAddr]) -> Edge {
        Edge::with(backends, Options::default())
    }

    pub(crate) fn with(backends: &[SocketAddr], options: Options) -> Edge {
        let state_dir = tempfile::tempdir().unwrap();
        let names = ["shop.example".to_owned(), "other.example".to_owned()];
        let files = tls::self_signed(state_dir.path(), &names).unwrap();
        let certificate = rustls_pki_types::pem::PemObject::from_pem_file(&files.certificate).unwrap();
        let certificates = tls::CertificateStore::new(served(files), Clock::system());

        let mut config = config(backends, options.trusted_proxies);
        config.pools[0].timeouts = options.timeouts;
        config.pools[0].tls = options.backend_tls;
        if let Some(change) = options.pool {
            change(&mut config.pools[0]);
        }
        if let Some(change) = options.config {
            change(&mut config);
        }
        let pools = Pools::build(&config.pools, None);
        let metrics = Metrics::default();
        metrics.show_pools(&pools);
        let Options { assertion, login_over, access_log, more_workers, tracing, .. } = options;
        let tracer = Tracer::default();
        tracer.put(tracer.prepare(tracing.as_ref(), &metrics).unwrap());
        let recorder = Recorder { metrics: metrics.clone(), access_log, tail: Tail::default(), tracer };
        let front = Front::new(Arc::new(config.clone()), pools.clone(), &recorder, move |_| options.is_verified);
        let state = Arc::new(State { config, pools: pools.clone(), assertion, login_over });
        let any_port = || "127.0.0.1:0".parse().unwrap();
        let second = options.speaks_plain_http.then(any_port);
        let listeners = listen::direct_all(any_port(), second, 1 + more_workers).unwrap();
        let at = |index: usize| listeners[0].get(index).map(|listener| listener.local_addr().unwrap());
        let (address, plain) = (at(0).unwrap(), at(1));
        let (settings, folder, clock) = (TlsConfig::default(), state_dir.path(), Clock::system());
        let direct = plain.map(|http| Direct { http, https: address });
        let plain_http = PlainHttp::new(Arc::default(), direct);
        let tls = tls::Tls::new(&settings, folder, certificates.clone(), Arc::default(), plain_http, clock).unwrap();
        let make_handler = move || {
            let (state, recorder) = (state.clone(), Rc::new(recorder.clone()));
            move |peer: Rc<Peer>, request| {
                let (state, recorder) = (state.clone(), recorder.clone());
                async move { handle(&state, &recorder, &peer, request).await }
            }
        };
        let workers = Workers::start(listeners, (tls, front), &metrics, options.limits, make_handler);
        Edge { address, plain, certificate, certificates, metrics, pools, workers: Some(workers.unwrap()) }
    }

    /// Ends the edge; what is under way may take as long as `deadline`.
    pub(crate) fn shutdown(&mut self, deadline: Duration) {
        if let Some(workers) = self.workers.take() {
            workers.shutdown(deadline);
        }
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.shutdown(Duration::ZERO);
    }
}

/// Certificates to be put in force.
pub(crate) fn served(files: CertificateFiles) -> tls::Prepared {
    tls::prepare_first(vec![tls::Wanted { files, origin: tls::Origin::SelfSigned }], Clock::system().now()).unwrap()
}

async fn handle(
    state: &State,
    recorder: &Rc<Recorder>,
    peer: &Peer,
    mut request: Request<ClientBody>,
) -> Response<ResponseBody> {
    let mut record = Record::start(recorder, peer, &request);
    record.begin_trace(peer, request.headers_mut());
    let response = match answer(state, peer, request, &mut record).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    };
    record.finish(response)
}

async fn answer(
    state: &State,
    peer: &Peer,
    request: Request<ClientBody>,
    record: &mut Record,
) -> Result<Response<ResponseBody>, Refusal> {
    let request = guard::check(&state.config, peer, request)?;
    record.set_client(request.client.address);
    record.set_route(&"*/**".into());
    let permit = permit(&state.config.rules);
    let pool = state.pools.get("web").ok_or(Refusal::NotFound)?;
    let login_over = state.login_over.clone();
    let over = async move {
        login_over.notified().await;
        Over::Login
    };
    let target = Target::of(pool, &request, None);
    forward::forward(permit, &target, Box::new(request), state.assertion.clone(), over, record).await
}

/// Without rules, a public route allows everything.
fn permit(rules: &RuleSet) -> Permit {
    let levels = Levels::default();
    let facts = Facts {
        now: 0,
        levels: &levels,
        request: RequestFacts {
            method: "GET",
            host: "shop.example",
            path: "/",
            query: "",
            parameters: &NO_PARAMETERS,
            headers: &NoHeaders,
        },
        client: ClientFacts::at("127.0.0.1".parse().unwrap()),
        session: None,
        proved_for_this_request: &[],
        provable: &Everything,
        body: &BodyFacts::default(),
        route: RouteFacts { is_public: true, labels: &[] },
        api_key: None,
        observed: ObservedFacts::default(),
    };
    match rules.decide(&facts) {
        Decision::Allow(permit) => permit,
        other => panic!("a public route without rules: {other:?}"),
    }
}

fn config(backends: &[SocketAddr], trusted_proxies: Vec<IpNet>) -> Config {
    let health = HealthConfig {
        kind: HealthKind::http("/health"),
        interval: Duration::from_millis(50),
        timeout: Duration::from_secs(2),
        rise: 2,
        interval_down: Duration::from_millis(50),
        fall: 2,
        ..HealthConfig::default()
    };
    Config {
        pools: vec![PoolConfig {
            name: "web".into(),
            backends: backends.iter().copied().map(Into::into).collect(),
            health,
            // So that tests know who is next.
            balance: Balance::RoundRobin,
            ..PoolConfig::default()
        }],
        trusted_proxies,
        ..Config::default()
    }
}
