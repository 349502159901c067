//! An edge with one worker, whose only route is public.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use ipnet::IpNet;
use lb_controller::config::{Config, HealthConfig, HealthKind, PoolConfig};
use lb_controller::metrics::Metrics;
use lb_controller::pool::{Pools, Timeouts};
use lb_controller::serve::accept::{Limits, Workers};
use lb_controller::serve::access_log::Record;
use lb_controller::serve::body::ResponseBody;
use lb_controller::serve::request::Peer;
use lb_controller::serve::respond::Refusal;
use lb_controller::serve::standing::Over;
use lb_controller::serve::{forward, guard, listen, tls};
use lb_policy::{
    BodyFacts, ClientFacts, Decision, Everything, Facts, Levels, NO_PARAMETERS, NoHeaders, ObservedFacts, Permit,
    RequestFacts, RouteFacts, RuleSet,
};
use rustls::pki_types::CertificateDer;
use tokio::sync::Notify;

pub(crate) struct Edge {
    pub(crate) address: SocketAddr,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) certificates: Arc<tls::CertificateSwitch>,
    pub(crate) metrics: Metrics,
    pub(crate) pools: Pools,
    workers: Option<Workers>,
}

struct State {
    config: Config,
    pools: Pools,
    metrics: Metrics,
    assertion: Option<HeaderValue>,
    login_over: Arc<Notify>,
}

/// What a test may want otherwise.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) timeouts: Timeouts,
    pub(crate) assertion: Option<HeaderValue>,
    /// Told when everybody's login is over.
    pub(crate) login_over: Arc<Notify>,
    pub(crate) limits: Limits,
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
        let certificates = tls::CertificateSwitch::new(tls::Certificates::load(&[files]).unwrap());

        let config = config(backends, options.trusted_proxies);
        let pools = Pools::build_with(&config.pools, None, options.timeouts);
        let metrics = Metrics::default();
        metrics.show_pools(&pools);
        let Options { assertion, login_over, .. } = options;
        let state = Arc::new(State { config, pools: pools.clone(), metrics: metrics.clone(), assertion, login_over });
        let listeners = listen::direct("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let tls_config = tls::server_config(certificates.clone(), Arc::default()).unwrap();
        let address = listeners[0][0].local_addr().unwrap();
        let workers = Workers::start_with(listeners, tls_config, &metrics, options.limits, move |peer, request| {
            let state = state.clone();
            async move { handle(&state, &peer, request).await }
        });
        Edge { address, certificate, certificates, metrics, pools, workers: Some(workers.unwrap()) }
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

async fn handle(state: &State, peer: &Peer, request: Request<Incoming>) -> Response<ResponseBody> {
    let mut record = Record::start(&state.metrics, peer, &request);
    let response = match answer(state, peer, request, &mut record).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    };
    record.finish(response)
}

async fn answer(
    state: &State,
    peer: &Peer,
    request: Request<Incoming>,
    record: &mut Record,
) -> Result<Response<ResponseBody>, Refusal> {
    let request = guard::check(&state.config, peer, request)?;
    record.set_client(request.client.address);
    record.set_route("*/**".into());
    let permit = permit(&state.config.rules);
    let pool = state.pools.get("web").ok_or(Refusal::NotFound)?;
    let login_over = state.login_over.clone();
    let over = async move {
        login_over.notified().await;
        Over::Login
    };
    forward::forward(permit, pool, request, state.assertion.clone(), over, record).await
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
        kind: HealthKind::Http { path: "/health".into() },
        interval: Duration::from_millis(50),
        timeout: Duration::from_secs(2),
        rise: 2,
        fall: 2,
    };
    Config {
        pools: vec![PoolConfig {
            name: "web".into(),
            backends: backends.iter().copied().map(Into::into).collect(),
            health,
        }],
        trusted_proxies,
        ..Config::default()
    }
}
