//! Traces, as a collector and the backends see them. The collector's side reads with OpenTelemetry's own types.

use std::io::Write;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lb_controller::config::{EndpointConfig, RetryBudget, TracingConfig};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use prost::Message as _;

use crate::support::client::{Raw, exchange, get, status};
use crate::support::edge::{Edge, Options};
use crate::support::eventually;
use crate::support::origin::{Origin, ok};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

fn tracing(collector: &str, ratio: f64, continue_from: &str) -> TracingConfig {
    TracingConfig {
        endpoint: EndpointConfig {
            url: format!("http://{collector}/v1/traces").parse().unwrap(),
            secret: Default::default(),
            timeout: Duration::from_secs(10),
            ca: None,
        },
        headers: vec![("x-team".parse().unwrap(), "edge".parse().unwrap())],
        service_name: "the-edge".to_owned(),
        ratio,
        continue_from: continue_from.parse().into_iter().collect(),
    }
}

fn edge(backends: &[&Origin], tracing: TracingConfig) -> Edge {
    let addresses: Vec<_> = backends.iter().map(|origin| origin.address).collect();
    Edge::with(&addresses, Options { tracing: Some(tracing), ..Options::default() })
}

/// A collector that takes everything.
fn collector() -> Origin {
    Origin::answering("")
}

fn spans(collector: &Origin) -> Vec<Span> {
    let requests = collector.received().into_iter().map(|received| {
        assert_eq!(received.request_line(), "POST /v1/traces HTTP/1.1");
        assert_eq!(received.values("content-type"), ["application/x-protobuf"]);
        assert_eq!(received.values("x-team"), ["edge"]);
        ExportTraceServiceRequest::decode(&*received.body).unwrap()
    });
    let mut all = Vec::new();
    for resource in requests.flat_map(|request| request.resource_spans) {
        let name = resource.resource.unwrap().attributes.into_iter().find(|pair| pair.key == "service.name").unwrap();
        assert_eq!(name.value.unwrap().value, Some(any_value::Value::StringValue("the-edge".to_owned())));
        all.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
    }
    all
}

/// The value of an attribute as text; nothing if it is not there.
fn attribute(span: &Span, name: &str) -> String {
    let found = span.attributes.iter().find(|pair| pair.key == name);
    match found.and_then(|pair| pair.value.as_ref()?.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(other) => panic!("{name} is {other:?}"),
        None => String::new(),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_error(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code == StatusCode::Error as i32)
}

fn metric(edge: &Edge, series: &str) -> u64 {
    let text = edge.metrics.render();
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok()).unwrap_or(0)
}

#[test]
fn a_request_is_a_span_with_a_child_for_each_try_and_the_backend_is_told_of_its_own() {
    let (collector, broken) = (collector(), Origin::start(|_, _| false));
    let origin = Origin::answering("hello");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = Options {
        tracing: Some(tracing(&collector.address.to_string(), 1.0, "")),
        pool: Some(|pool| {
            pool.retries.attempts = 3;
            pool.retries.on.reset_before_response = true;
            pool.retry_budget = RetryBudget { percent: 20, minimum_per_second: 100 };
        }),
        ..Options::default()
    };
    let edge = Edge::with(&[nobody, broken.address, origin.address], options);
    let (answered, _) = get(&edge, "/cart?token=secret");
    assert_eq!(answered, 200);
    let mut all = Vec::new();
    eventually("four spans at the collector", || {
        all = spans(&collector);
        all.len() >= 4
    });
    let server = all.iter().find(|span| span.kind == SpanKind::Server as i32).unwrap();
    for (name, value) in [
        ("http.request.method", "GET"),
        ("url.path", "/cart"),
        ("server.address", "shop.example"),
        ("http.route", "*/**"),
        ("http.response.status_code", "200"),
        ("network.protocol.version", "1.1"),
        ("client.address", "127.0.0.1"),
    ] {
        assert_eq!(attribute(server, name), value, "{name}");
    }
    assert_eq!((server.name.as_str(), server.parent_span_id.len(), is_error(server)), ("GET */**", 0, false));
    assert!(!format!("{all:?}").contains("secret"));

    let mut tries: Vec<&Span> = all.iter().filter(|span| span.kind == SpanKind::Client as i32).collect();
    tries.sort_by_key(|span| attribute(span, "http.request.resend_count"));
    let told: Vec<_> = tries
        .iter()
        .map(|span| {
            assert_eq!((&span.trace_id, &span.parent_span_id), (&server.trace_id, &server.span_id));
            assert!(span.start_time_unix_nano >= server.start_time_unix_nano, "{span:?} before {server:?}");
            assert!(span.end_time_unix_nano <= server.end_time_unix_nano, "{span:?} after {server:?}");
            (attribute(span, "server.port"), attribute(span, "error.type"), is_error(span))
        })
        .collect();
    let port = |address: std::net::SocketAddr| address.port().to_string();
    assert_eq!(
        told,
        [
            (port(nobody), "connect".to_owned(), true),
            (port(broken.address), "reset".to_owned(), true),
            (port(origin.address), String::new(), false)
        ]
    );
    for (backend, span) in [(&broken, tries[1]), (&origin, tries[2])] {
        let expected = format!("00-{}-{}-03", hexadecimal(&span.trace_id), hexadecimal(&span.span_id));
        assert_eq!(backend.received()[0].values("traceparent"), [expected.as_str()]);
    }
}

/// The spans of tries by the port of their backend, once there are `count` spans in all.
fn tries_of(collector: &Origin, count: usize) -> Vec<Span> {
    let mut all = Vec::new();
    eventually("all spans are at the collector", || {
        all = spans(collector);
        all.len() >= count
    });
    assert_eq!(all.len(), count, "{all:#?}");
    let server = all.iter().find(|span| span.kind == SpanKind::Server as i32).unwrap().span_id.clone();
    all.retain(|span| span.kind == SpanKind::Client as i32);
    assert!(all.iter().all(|span| span.parent_span_id == server), "{all:#?}");
    all
}

fn try_at(tries: &[Span], backend: std::net::SocketAddr) -> &Span {
    let port = backend.port().to_string();
    tries.iter().find(|span| attribute(span, "server.port") == port).unwrap_or_else(|| panic!("{tries:#?}"))
}

/// What a backend was told is its parent, as the span of its try has it.
fn named_by(span: &Span) -> String {
    format!("00-{}-{}-03", hexadecimal(&span.trace_id), hexadecimal(&span.span_id))
}

#[test]
fn of_two_backends_that_are_asked_at_once_each_is_told_of_a_span_of_its_own() {
    // The first one is slow, and the second answers so; which of the two counts, and how the other ended.
    for (what, first, second, counts) in [
        ("the second is quicker", "200 OK", "200 OK", 1),
        ("the second fails at once", "200 OK", "503 Busy", 0),
        ("the first fails at last", "503 Busy", "200 OK", 1),
    ] {
        let collector = collector();
        let answering = |status: &'static str, after: u64| {
            Origin::start(move |_, stream| {
                std::thread::sleep(Duration::from_millis(after));
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\nhello").is_ok()
            })
        };
        let is_last = what == "the first fails at last";
        let origins = [answering(first, 600), answering(second, if is_last { 900 } else { 0 })];
        let options = Options {
            tracing: Some(tracing(&collector.address.to_string(), 1.0, "")),
            pool: Some(|pool| {
                pool.timeouts.hedge_after = Some(Duration::from_millis(200));
                pool.retries.on.service_unavailable = true;
                pool.retry_budget = RetryBudget { percent: 20, minimum_per_second: 100 };
            }),
            ..Options::default()
        };
        let edge = Edge::with(&[origins[0].address, origins[1].address], options);
        assert_eq!(get(&edge, "/cart").0, 200, "{what}");
        let tries = tries_of(&collector, 3);
        for (index, origin) in origins.iter().enumerate() {
            let span = try_at(&tries, origin.address);
            assert_eq!(origin.received()[0].values("traceparent"), [named_by(span)], "{what}: {index}");
            let error = match (index == counts, [first, second][index]) {
                (true, _) => "",
                (false, "503 Busy") => "503",
                (false, _) => "cancelled",
            };
            assert_eq!(attribute(span, "error.type"), error, "{what}: {index}");
        }
        let took = |origin: &Origin| {
            let span = try_at(&tries, origin.address);
            Duration::from_nanos(span.end_time_unix_nano - span.start_time_unix_nano)
        };
        assert!(took(&origins[0]) >= Duration::from_millis(190), "{what}: it began before the second");
        assert!(took(&origins[1]) < Duration::from_millis(1500), "{what}: {:?}", took(&origins[1]));
    }
}

#[test]
fn a_websocket_has_a_span_for_each_backend_that_was_asked_for_it() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let open = "GET /ws HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let agreed = "HTTP/1.1 101 So\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    for (what, answer, status_of_client, error) in [("it agrees", agreed, 101, ""), ("it breaks off", "", 502, "reset")]
    {
        let collector = collector();
        let origin = Origin::start(move |_, stream| stream.write_all(answer.as_bytes()).is_ok() && !answer.is_empty());
        let options = Options { tracing: Some(tracing(&collector.address.to_string(), 1.0, "")), ..Options::default() };
        let edge = Edge::with(&[nobody, origin.address], options);
        let mut raw = Raw::connect(&edge);
        raw.write(open);
        let head = raw.read_until("\r\n\r\n");
        assert_eq!(status(&head), status_of_client, "{what}: {head}");
        let tries = tries_of(&collector, 3);
        assert_eq!(attribute(try_at(&tries, nobody), "error.type"), "connect", "{what}");
        let span = try_at(&tries, origin.address);
        assert_eq!(attribute(span, "error.type"), error, "{what}");
        assert_eq!(origin.received()[0].values("traceparent"), [named_by(span)], "{what}");
    }
}

#[test]
fn a_trace_goes_on_from_who_is_believed_and_begins_anew_from_everybody_else() {
    let parent = |flags: &str| format!("traceparent: 00-{TRACE}-{CALLER}-{flags}\r\n");
    let state = "tracestate: a=1\r\ntracestate: b=2\r\n";
    for (what, from, ratio, headers, goes_on, sampled, kept_state) in [
        ("believed, kept", "127.0.0.0/8", 0.0, parent("01") + state, true, true, 2),
        ("believed, not kept", "127.0.0.0/8", 1.0, parent("00") + state, true, false, 2),
        ("believed, foul state", "127.0.0.0/8", 0.0, parent("01") + "tracestate: A=1\r\n", true, true, 0),
        ("believed, two parents", "127.0.0.0/8", 1.0, parent("01") + &parent("01") + state, false, true, 0),
        ("believed, no parent", "127.0.0.0/8", 1.0, state.to_owned(), false, true, 0),
        ("believed, foul parent", "127.0.0.0/8", 1.0, parent("01").to_uppercase(), false, true, 0),
        ("not believed, chosen", "10.0.0.0/8", 1.0, parent("00") + state, false, true, 0),
        ("not believed, not chosen", "10.0.0.0/8", 0.0, parent("01") + state, false, false, 0),
    ] {
        let (collector, origin) = (collector(), Origin::answering("hello"));
        let edge = edge(&[&origin], tracing(&collector.address.to_string(), ratio, from));
        let request = format!("GET / HTTP/1.1\r\nHost: shop.example\r\n{headers}Connection: close\r\n\r\n");
        assert_eq!(status(&exchange(&edge, request)), 200, "{what}");
        let received = &origin.received()[0];
        let [sent] = received.values("traceparent")[..] else { panic!("{what}: {}", received.head) };
        let parts: Vec<&str> = sent.split('-').collect();
        assert_eq!(parts[1] == TRACE, goes_on, "{what}: {sent}");
        assert_ne!(parts[2], CALLER, "{what}: the backend's parent is ours");
        assert_eq!(u8::from_str_radix(parts[3], 16).unwrap() & 1 == 1, sampled, "{what}: {sent}");
        assert_eq!(received.values("tracestate").len(), kept_state, "{what}: {}", received.head);
        if !sampled {
            // Nothing of it is ever sent: the next request of this edge's collector would have brought it.
            assert!(spans(&collector).is_empty(), "{what}");
            continue;
        }
        let mut all = Vec::new();
        eventually("spans at the collector", || {
            all = spans(&collector);
            all.len() == 2
        });
        let server = all.iter().find(|span| span.kind == SpanKind::Server as i32).unwrap();
        assert_eq!(hexadecimal(&server.trace_id), parts[1], "{what}");
        let parent = if goes_on { CALLER } else { "" };
        assert_eq!(hexadecimal(&server.parent_span_id), parent, "{what}");
        let linked = what == "not believed, chosen";
        let links: Vec<_> = server.links.iter().map(|link| hexadecimal(&link.trace_id)).collect();
        assert_eq!(links, if linked { vec![TRACE] } else { vec![] }, "{what}");
    }
}

#[test]
fn a_collector_that_was_busy_gets_the_spans_later_and_one_that_refuses_them_is_left_in_peace() {
    let asked = AtomicUsize::new(0);
    let busy_at_first = Origin::start(move |_, stream| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => write!(stream, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").is_ok(),
        // One of the two spans is rejected: partial_success { rejected_spans: 1 }.
        _ => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\x0a\x02\x08\x01").is_ok(),
    });
    let refusing = Origin::start(|_, stream| write!(stream, "HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n").is_ok());
    for (collector, calls, counted) in
        [(&busy_at_first, 2, [("sent", 1), ("refused", 1)]), (&refusing, 1, [("sent", 0), ("refused", 2)])]
    {
        let origin = Origin::answering("hello");
        let edge = edge(&[&origin], tracing(&collector.address.to_string(), 1.0, ""));
        assert_eq!(get(&edge, "/").0, 200);
        let result = |result: &str| metric(&edge, &format!("lb_trace_spans_total{{result=\"{result}\"}}"));
        eventually("both spans are counted", || result("sent") + result("refused") == 2);
        for (name, count) in counted {
            assert_eq!(result(name), count, "{name}");
        }
        assert_eq!(collector.received().len(), calls);
    }
}

#[test]
fn requests_go_on_whether_a_collector_is_there_and_whether_it_answers() {
    // It accepts, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (collector, is_refused) in [(silent.local_addr().unwrap(), false), (nobody, true)] {
        let origin = Origin::start(|_, stream| ok(stream, "hello"));
        let edge = edge(&[&origin], tracing(&collector.to_string(), 1.0, ""));
        let mut raw = Raw::connect(&edge);
        for _ in 0..20 {
            raw.write("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
            assert_eq!(status(&raw.read_response().0), 200);
        }
        // A batch is tried for seven seconds before it is given up.
        let deadline = Instant::now() + Duration::from_secs(60);
        while is_refused && metric(&edge, "lb_trace_spans_total{result=\"failed\"}") == 0 {
            assert!(Instant::now() < deadline, "nothing is given up:\n{}", edge.metrics.render());
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(get(&edge, "/").0, 200);
    }
}
