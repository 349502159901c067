//! Counters for Prometheus. Every label comes from the configuration or from a closed list, so clients cannot grow them.

mod answers;
mod backends;
mod decisions;
mod histogram;
mod mirrored;
mod per_worker;
mod requests;
mod spans;
mod workers;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

pub use backends::{BackendSample, BackendSource, PoolSample};
pub use histogram::Histogram;
pub use mirrored::Mirrored;
pub(crate) use per_worker::PerWorker;
pub use spans::SpanFate;
pub use workers::{WorkerMetrics, WorkerView};

/// All metrics of the L7 side. Clones share their counts.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Mutex<Registry>,
    requests: Arc<requests::Requests>,
    backends: Arc<backends::Backends>,
    answers: Arc<answers::BackendAnswers>,
    workers: workers::Workers,
    decisions: Arc<decisions::Decisions>,
    streams_ended: Family<[(&'static str, &'static str); 1], Counter>,
    mirrored: Family<[(&'static str, String); 2], Counter>,
    access_lines_dropped: Counter,
    shed: Family<[(&'static str, &'static str); 1], Counter>,
    spans: Family<[(&'static str, &'static str); 1], Counter>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut registry = Registry::with_prefix("lb");
        let requests = Arc::new(requests::Requests::default());
        registry.register_collector(Box::new(requests.clone()));
        let backends = Arc::new(backends::Backends::default());
        registry.register_collector(Box::new(backends.clone()));
        let answers = Arc::new(answers::BackendAnswers::default());
        registry.register_collector(Box::new(answers.clone()));
        let workers = workers::Workers::register(&mut registry);
        let decisions = Arc::new(decisions::Decisions::default());
        registry.register_collector(Box::new(decisions.clone()));
        let streams_ended = Family::default();
        registry.register(
            "streams_ended",
            "Streams that were ended before their time, by reason",
            streams_ended.clone(),
        );
        let mirrored = Family::default();
        registry.register(
            "mirrored_requests",
            "Copies of requests, by their pool and what became of them",
            mirrored.clone(),
        );
        let access_lines_dropped = Counter::default();
        registry.register(
            "access_log_dropped",
            "Access log lines dropped because the log could not be written, or not as fast",
            access_lines_dropped.clone(),
        );
        let shed = Family::default();
        registry.register(
            "requests_shed",
            "Requests that an overloaded worker left out, by whose they were",
            shed.clone(),
        );
        let spans = Family::<_, Counter>::default();
        for fate in SpanFate::ALL {
            spans.get_or_create(&[("result", fate.name())]).inc_by(0);
        }
        registry.register("trace_spans", "Spans of sampled requests, by what became of them", spans.clone());
        Metrics(Arc::new(Inner {
            registry: Mutex::new(registry),
            requests,
            backends,
            answers,
            workers,
            decisions,
            streams_ended,
            mirrored,
            access_lines_dropped,
            shed,
            spans,
        }))
    }
}

impl Metrics {
    /// Everything in the OpenMetrics text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let registry = self.0.registry.lock().unwrap_or_else(PoisonError::into_inner);
        match prometheus_client::encoding::text::encode(&mut text, &registry) {
            Ok(()) => text,
            // Only a collector's own failure can end here; what was written before it is still true.
            Err(error) => format!("{text}# incomplete: {error}\n"),
        }
    }

    /// Adds metrics that are read at scrape time, such as the datapath's. Their names get the prefix `lb_`.
    pub fn register_collector(&self, collector: impl Collector) {
        self.0.registry.lock().unwrap_or_else(PoisonError::into_inner).register_collector(Box::new(collector));
    }

    /// Adds metrics that others count. Their names get the prefix `lb_`.
    pub fn register(&self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.0.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The pools whose backends are shown from now on; call it with every snapshot.
    pub fn show_pools(&self, pools: &(impl BackendSource + Clone)) {
        self.0.backends.show(Box::new(pools.clone()));
    }

    /// A request has come to `route`, and will end on this thread. Returns the label to take along.
    pub fn request_begins(&self, route: &Arc<str>) -> Arc<str> {
        self.0.requests.begin(route)
    }

    /// The head of a backend's answer has come, so long after the request was sent.
    pub fn backend_answered(&self, pool: &Arc<str>, backend: SocketAddr, status: StatusCode, after: Duration) {
        self.0.answers.count(pool, backend, status, after);
    }

    /// One request, when its response has been sent or given up.
    pub fn request(&self, route: &str, status: StatusCode, duration: Duration) {
        self.0.requests.count(route, status, duration);
    }

    /// What the rules decided about a request on `route`, and the first rule that stood in the way.
    pub fn decision(&self, route: &Arc<str>, rule: Option<&Arc<str>>, decision: &'static str) {
        self.0.decisions.count(route, rule, decision);
    }

    /// Runs `decide`, and remembers, now and then, how long that took.
    pub fn timed_decision<T>(&self, decide: impl FnOnce() -> T) -> T {
        self.0.decisions.timed(decide)
    }

    /// A stream was ended because of its `login`, a `proof`, the rules (`denied`) or its `age`.
    pub fn stream_ended(&self, reason: &'static str) {
        self.0.streams_ended.get_or_create(&[("reason", reason)]).inc();
    }

    /// A copy of a request for `pool`, whose name comes from the configuration.
    pub fn mirrored(&self, pool: &str, what: Mirrored) {
        let labels = [("pool", pool.to_owned()), ("result", what.name().to_owned())];
        self.0.mirrored.get_or_create(&labels).inc();
    }

    /// A request was left out because its worker had more to do than it could.
    pub fn shed(&self, share: &'static str) {
        self.0.shed.get_or_create(&[("share", share)]).inc();
    }

    pub fn access_lines_dropped(&self, lines: u64) {
        self.0.access_lines_dropped.inc_by(lines);
    }

    pub fn spans(&self, fate: SpanFate, count: u64) {
        if count > 0 {
            self.0.spans.get_or_create(&[("result", fate.name())]).inc_by(count);
        }
    }

    /// The counters of worker `index`.
    pub fn worker(&self, index: usize) -> WorkerMetrics {
        self.0.workers.worker(index)
    }

    /// What each worker has accepted and holds open, in order of index.
    pub fn workers(&self) -> Vec<WorkerView> {
        self.0.workers.views()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shows(metrics: &Metrics, line: &str) {
        let text = metrics.render();
        assert!(text.lines().any(|shown| shown == line), "{line}\nis not in\n{text}");
    }

    #[test]
    fn requests_are_counted_by_route_and_status_class() {
        let metrics = Metrics::default();
        metrics.request("*/**", StatusCode::OK, Duration::from_millis(3));
        metrics.request("*/**", StatusCode::CREATED, Duration::from_millis(30));
        let other_worker = metrics.clone();
        std::thread::spawn(move || other_worker.request("*/**", StatusCode::BAD_GATEWAY, Duration::from_secs(3)))
            .join()
            .unwrap();
        shows(&metrics, r#"lb_requests_total{route="*/**",status="2xx"} 2"#);
        shows(&metrics, r#"lb_requests_total{route="*/**",status="5xx"} 1"#);
        shows(&metrics, r#"lb_request_seconds_bucket{le="0.005",route="*/**"} 1"#);
        shows(&metrics, r#"lb_request_seconds_bucket{le="0.05",route="*/**"} 2"#);
        shows(&metrics, r#"lb_request_seconds_bucket{le="+Inf",route="*/**"} 3"#);
        shows(&metrics, r#"lb_request_seconds_count{route="*/**"} 3"#);
    }

    #[test]
    fn what_is_under_way_is_known_by_route_and_backends_are_told_apart_by_pool() {
        let metrics = Metrics::default();
        for _ in 0..3 {
            metrics.request_begins(&"*/**".into());
        }
        metrics.request("*/**", StatusCode::OK, Duration::ZERO);
        metrics.request("none", StatusCode::NOT_FOUND, Duration::ZERO);
        shows(&metrics, r#"lb_requests_in_flight{route="*/**"} 2"#);
        assert!(!metrics.render().contains(r#"lb_requests_in_flight{route="none"}"#));

        let backend = "10.0.0.1:80".parse().unwrap();
        for (pool, status, after_ms) in [("a", 200, 3), ("b", 503, 30), ("b", 200, 1)] {
            let status = StatusCode::from_u16(status).unwrap();
            metrics.backend_answered(&Arc::from(pool), backend, status, Duration::from_millis(after_ms));
        }
        for line in [
            r#"lb_backend_responses_total{pool="a",backend="10.0.0.1:80",status="2xx"} 1"#,
            r#"lb_backend_responses_total{pool="b",backend="10.0.0.1:80",status="5xx"} 1"#,
            r#"lb_backend_response_seconds_bucket{le="0.005",pool="b",backend="10.0.0.1:80"} 1"#,
            r#"lb_backend_response_seconds_count{pool="b",backend="10.0.0.1:80"} 2"#,
        ] {
            shows(&metrics, line);
        }
    }

    #[test]
    fn invented_route_labels_end_in_one_series() {
        let metrics = Metrics::default();
        for number in 0..5_000 {
            metrics.request(&format!("route-{number}"), StatusCode::OK, Duration::ZERO);
        }
        let series = metrics.render().lines().filter(|line| line.starts_with("lb_requests_total")).count();
        assert!(series <= 1_100, "{series} series");
        assert!(metrics.render().contains(r#"lb_requests_total{route="other",status="2xx"}"#));
    }

    #[test]
    fn workers_and_decisions_appear() {
        let metrics = Metrics::default();
        metrics.worker(1).accepted();
        let (route, rule): (Arc<str>, Arc<str>) = ("*/**".into(), "refund".into());
        metrics.decision(&route, None, "allow");
        metrics.timed_decision(|| metrics.decision(&route, Some(&rule), "challenge"));
        shows(&metrics, r#"lb_connections_accepted_total{worker="1"} 1"#);
        shows(&metrics, r#"lb_decisions_total{route="*/**",rule="",decision="allow"} 1"#);
        shows(&metrics, r#"lb_decisions_total{route="*/**",rule="refund",decision="challenge"} 1"#);
        shows(&metrics, "lb_decision_seconds_count 1");
    }

    #[test]
    fn rules_of_endless_edits_end_in_one_series() {
        let (metrics, route) = (Metrics::default(), Arc::from("*/**"));
        for number in 0..10_000 {
            metrics.decision(&route, Some(&format!("rule-{number}").into()), "deny");
        }
        let text = metrics.render();
        let series = text.lines().filter(|line| line.starts_with("lb_decisions_total")).count();
        assert!(series <= 4_100, "{series} series");
        assert!(text.contains(r#"lb_decisions_total{route="other",rule="other",decision="deny"} 5904"#));
    }
}
