//! Backends that speak HTTP/2: streams both ways, connections that are shared, and what ends them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{Request, Response};
use lb_controller::config::{BackendProtocol, BackendTls, PoolConfig, PoolLimits, RetryOn};
use lb_controller::health::HealthChecks;
use lb_controller::pool::Timeouts;
use rustls_pki_types::ServerName;

use crate::support::authority::Authority;
use crate::support::client::{Raw, exchange, get, h2, status};
use crate::support::edge::{Edge, Options};
use crate::support::eventually;
use crate::support::h2_client::{connect, with_connection};
use crate::support::h2_origin::{H2Origin, Settings, answer, echo, go_away, raw, send, trailers};
use crate::support::tls_origin::{Terms, TlsOrigin, server_config};

fn h2c(pool: &mut PoolConfig) {
    pool.protocol = BackendProtocol::H2c;
}

fn edge(origin: &H2Origin) -> Edge {
    Edge::with(&[origin.address], Options { pool: Some(h2c), ..Options::default() })
}

fn post(path: &str) -> Request<()> {
    Request::post(format!("https://shop.example{path}")).body(()).unwrap()
}

const GET: &str = "GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n";

#[test]
fn requests_of_all_clients_reach_it_as_http2() {
    let origin = H2Origin::echoing();
    let edge = edge(&origin);
    let answer = exchange(
        &edge,
        "POST /a?b=c HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 3\r\nConnection: close, x-mine\r\nX-Mine: 1\r\nTE: trailers\r\n\r\nabc",
    );
    assert!(status(&answer) == 200 && answer.ends_with("3\r\nabc\r\n0\r\n\r\n"), "{answer}");
    let body = Bytes::from("x".repeat(300_000));
    let request = Request::put("https://shop.example/large").body(body.clone()).unwrap();
    assert!(h2(&edge, vec![request]).iter().all(|response| response.body() == &body));
    let received = origin.received();
    assert_eq!(received[0].uri.to_string(), "http://shop.example/a?b=c");
    let of_first = |name: &str| received[0].headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    for (name, value) in [
        ("te", Some("trailers")),
        ("content-length", Some("3")),
        ("x-forwarded-proto", Some("https")),
        ("host", None),
        ("connection", None),
        ("x-mine", None),
        ("transfer-encoding", None),
    ] {
        assert_eq!(of_first(name).as_deref(), value, "{name}");
    }
    assert_eq!(received[1].headers["content-length"], "300000");
    assert_eq!(origin.connections(), 1);
}

#[test]
fn many_requests_at_once_share_a_connection_and_too_many_open_another() {
    for (most, expected) in [(None, 1..=1), (Some(10), 2..=5)] {
        let held = Arc::new(tokio::sync::Semaphore::new(0));
        let of_script = held.clone();
        let settings = Settings { max_streams: most, ..Settings::default() };
        let origin = H2Origin::with(settings, move |mut call| {
            let held = of_script.clone();
            async move {
                // The first one is alone, so that the settings of the other end are known.
                if call.number > 0 {
                    let _ = held.acquire().await;
                }
                answer(&mut call, 200, "hello");
            }
        });
        let edge = edge(&origin);
        assert_eq!(get(&edge, "/").0, 200);
        with_connection(&edge, async |mut sender| {
            let mut answers = Vec::new();
            for number in 0..20 {
                let (response, _) = sender.send_request(post(&format!("/{number}")), true).unwrap();
                answers.push(response);
            }
            let all_came = async {
                while origin.received().len() < 21 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            all_came.await;
            held.add_permits(20);
            for answer in answers {
                assert_eq!(answer.await.unwrap().status(), 200);
            }
        });
        assert!(expected.contains(&origin.connections()), "{most:?}: {}", origin.connections());
        assert_eq!(edge.pools.list()[0].errors, 0);
        eventually("none is under way", || edge.pools.list()[0].in_flight == 0);
    }
}

#[test]
fn a_grpc_stream_goes_both_ways_at_once_and_ends_in_trailers() {
    let origin = H2Origin::start(|mut call| async move {
        let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut stream = call.respond.send_response(head, false).unwrap();
        let body = call.request.body_mut();
        while let Some(Ok(data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
            send(&mut stream, data).await;
        }
        let theirs = body.trailers().await.unwrap().unwrap_or_default();
        let mut ours = trailers(&[("grpc-status", "0"), ("grpc-message", "done"), ("lb-session", "forged")]);
        let kept: Vec<&str> = theirs.keys().map(http::HeaderName::as_str).collect();
        ours.insert("x-seen", kept.join(",").parse().unwrap());
        stream.send_trailers(ours).unwrap();
    });
    let edge = edge(&origin);
    with_connection(&edge, async |mut sender| {
        let mut request = post("/shop.v1.Carts/Watch");
        request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        request.headers_mut().insert("te", "trailers".parse().unwrap());
        let (response, mut sending) = sender.send_request(request, false).unwrap();
        sending.send_data(Bytes::from_static(b"first"), false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/grpc");
        let mut body = response.into_body();
        for message in [&b"first"[..], b"second", b"third"] {
            assert_eq!(body.data().await.unwrap().unwrap(), message, "each comes back before the next is sent");
            if message != b"third" {
                let next = if message == b"first" { "second" } else { "third" };
                sending.send_data(Bytes::from_static(next.as_bytes()), false).unwrap();
            }
        }
        let mut own = trailers(&[("x-sum", "7"), ("authorization", "Bearer forged"), ("x-forwarded-for", "::1")]);
        own.insert("content-length", "9".parse().unwrap());
        sending.send_trailers(own).unwrap();
        assert!(body.data().await.is_none());
        let trailers = body.trailers().await.unwrap().unwrap();
        assert_eq!(
            (&trailers["grpc-status"], &trailers["grpc-message"]),
            (&"0".parse().unwrap(), &"done".parse().unwrap())
        );
        assert_eq!(trailers["x-seen"], "x-sum", "what no guard has seen makes it no other request");
        assert!(!trailers.contains_key("lb-session"));
    });
}

#[test]
fn resets_pass_both_ways() {
    let (reset, was_reset) = std::sync::mpsc::channel();
    let origin = H2Origin::start(move |mut call| {
        let reset = reset.clone();
        async move {
            let mut stream = call.respond.send_response(Response::new(()), false).unwrap();
            send(&mut stream, Bytes::from_static(b"begun")).await;
            if call.number == 0 {
                // What is queued when a stream is reset is never sent: until the client has it.
                call.request.body_mut().data().await;
                stream.send_reset(Reason::ENHANCE_YOUR_CALM);
            } else {
                let reason = std::future::poll_fn(|context| stream.poll_reset(context)).await;
                reset.send(reason.unwrap()).unwrap();
            }
        }
    });
    let edge = edge(&origin);
    with_connection(&edge, async |mut sender| {
        let (response, mut sending) = sender.send_request(post("/"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "begun");
        sending.send_data(Bytes::from_static(b"read"), false).unwrap();
        let error = loop {
            match body.data().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error,
                None => panic!("what broke off looks whole"),
            }
        };
        assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM));

        let (response, mut sending) = sender.send_request(post("/"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "begun");
        sending.send_reset(Reason::CANCEL);
        drop(body);
    });
    assert_eq!(was_reset.recv_timeout(Duration::from_secs(10)).unwrap(), Reason::CANCEL);
    assert_eq!(origin.connections(), 1, "other streams are none the worse for it");
}

#[test]
fn what_a_backend_has_not_looked_at_is_sent_anew_whatever_it_is() {
    let first = "POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    for (what, bytes, expected) in
        [("a stream that is refused", reset(1, Reason::REFUSED_STREAM), 1), ("a connection that ends", go_away(0), 2)]
    {
        let (address, connections) = raw(move |connection, request| match (connection, request) {
            (0, 0) => bytes.clone(),
            (0, _) => well(3),
            _ => well(1),
        });
        let edge = Edge::with(&[address], Options { pool: Some(h2c), ..Options::default() });
        let answer = exchange(&edge, first);
        assert_eq!(status(&answer), 200, "{what}: {answer}");
        assert_eq!(connections.load(Ordering::Relaxed), expected, "{what}");
        assert_eq!(edge.pools.list()[0].errors, 0, "{what}");
    }
}

/// The bytes of RST_STREAM.
fn reset(stream: u8, reason: Reason) -> Vec<u8> {
    [&[0, 0, 4, 3, 0, 0, 0, 0, stream][..], &u32::from(reason).to_be_bytes()].concat()
}

/// HEADERS that end a stream, with `:status: 200` of the static table.
fn well(stream: u8) -> Vec<u8> {
    vec![0, 0, 1, 1, 5, 0, 0, 0, stream, 0x88]
}

#[test]
fn what_a_backend_may_have_looked_at_is_not_sent_anew() {
    let (address, connections) = raw(move |_, request| match request {
        0 => well(1),
        request => reset(1 + 2 * request as u8, Reason::CANCEL),
    });
    let edge = Edge::with(&[address], Options { pool: Some(h2c), ..Options::default() });
    assert_eq!(get(&edge, "/").0, 200);
    let post = "POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    for (number, request) in [(1, post), (2, GET)] {
        assert_eq!(status(&exchange(&edge, request)), 502, "{request}");
        assert_eq!(edge.pools.list()[0].requests, 1 + number, "{request}");
        assert_eq!(edge.pools.list()[0].errors, number, "{request}");
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1, "one request's end is not its connection's");
}

#[test]
fn a_backend_that_goes_away_finishes_what_it_has_begun() {
    // GOAWAY that names stream 1 as looked at, and then its answer.
    let both = [go_away(1), well(1)].concat();
    let (address, connections) = raw(move |_, _| both.clone());
    let edge = Edge::with(&[address], Options { pool: Some(h2c), ..Options::default() });
    for number in 1..=3 {
        assert_eq!(get(&edge, "/").0, 200);
        assert_eq!(connections.load(Ordering::Relaxed), number, "and gets nothing more on that connection");
    }
    assert_eq!(edge.pools.list()[0].errors, 0);
}

#[test]
fn refusals_go_on_to_another_backend_where_that_is_wished() {
    let refusing = || H2Origin::start(|mut call| async move { call.respond.send_reset(Reason::REFUSED_STREAM) });
    let good = H2Origin::start(|mut call| async move { answer(&mut call, 200, "good") });
    let never: fn(&mut PoolConfig) = |pool| {
        h2c(pool);
        pool.retries.on = RetryOn::default();
    };
    for (pool, expected) in [(h2c as fn(&mut PoolConfig), 200), (never, 502)] {
        // In turn, so that the two refusing ones come first.
        let backends = [refusing().address, refusing().address, good.address];
        let edge = Edge::with(&backends, Options { pool: Some(pool), ..Options::default() });
        let request = "POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc";
        assert_eq!(status(&exchange(&edge, request)), expected);
    }
}

#[test]
fn a_backend_that_dies_in_the_middle_never_looks_like_a_whole_response() {
    // HEADERS that do not end stream 1, DATA "abc" that does not either, and a GOAWAY that is followed by nothing.
    let begun = [vec![0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88], vec![0, 0, 3, 0, 0, 0, 0, 0, 1, b'a', b'b', b'c']].concat();
    for (what, end) in [
        ("reset without an error", reset(1, Reason::NO_ERROR)),
        ("a malformed frame", vec![0, 0, 1, 6, 0, 0, 0, 0, 0, 1]),
    ] {
        let bytes = [begun.clone(), end].concat();
        let (address, _) = raw(move |_, _| bytes.clone());
        let edge = Edge::with(&[address], Options { pool: Some(h2c), ..Options::default() });
        let answer = exchange(&edge, GET);
        assert!(!answer.contains("0\r\n\r\n"), "{what}: {answer}");
        eventually("the backend is charged with it", || edge.pools.list()[0].errors >= 1);
    }
}

#[test]
fn a_client_that_does_not_read_slows_its_backend_and_nobody_else() {
    let (sent, was_sent) = std::sync::mpsc::channel();
    let origin = H2Origin::start(move |mut call| {
        let sent = sent.clone();
        async move {
            if call.request.uri().path() == "/short" {
                return answer(&mut call, 200, "short");
            }
            let mut stream = call.respond.send_response(Response::new(()), false).unwrap();
            for _ in 0..200 {
                send(&mut stream, Bytes::from(vec![0; 64 * 1024])).await;
                let _ = sent.send(());
            }
            let _ = stream.send_data(Bytes::new(), true);
        }
    });
    let edge = edge(&origin);
    with_connection(&edge, async |mut sender| {
        let (response, _) = sender.send_request(post("/long"), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let pieces = was_sent.try_iter().count();
        assert!(pieces < 50, "{pieces} of 64 KiB went off though nobody reads");
        for _ in 0..5 {
            let (response, _) = connect(&edge).await.send_request(post("/short"), true).unwrap();
            assert_eq!(response.await.unwrap().status(), 200);
        }
        assert_eq!(origin.connections(), 1);
        let mut bytes = 0;
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            bytes += data.len();
            body.flow_control().release_capacity(data.len()).unwrap();
        }
        assert_eq!(bytes, 200 * 64 * 1024);
    });
}

#[test]
fn limits_and_timeouts_hold_as_for_http1() {
    let silent = H2Origin::start(|call| async move {
        let _call = call;
        std::future::pending().await
    });
    let short = Timeouts { response: Duration::from_millis(200), ..Timeouts::default() };
    let pool: fn(&mut PoolConfig) = |pool| {
        h2c(pool);
        pool.limits = PoolLimits { requests_per_backend: Some(1), ..PoolLimits::default() };
    };
    let edge = Edge::with(&[silent.address], Options { pool: Some(pool), timeouts: short, ..Options::default() });
    let mut first = Raw::connect(&edge);
    first.write(GET);
    eventually("it is under way", || silent.received().len() == 1);
    assert_eq!(get(&edge, "/").0, 503, "as many are under way as may be");
    assert_eq!(status(&first.read_to_end()), 504);
    eventually("it is given up", || edge.pools.list()[0].in_flight == 0);
    assert_eq!(edge.pools.list()[0].errors, 1);
    assert_eq!(get(&edge, "/").0, 504);
    assert_eq!(silent.connections(), 1, "the connection is as good as before");
}

#[test]
fn a_second_backend_is_asked_when_the_first_is_slow() {
    let silent = H2Origin::start(|call| async move {
        let _call = call;
        std::future::pending().await
    });
    let good = H2Origin::start(|mut call| async move { answer(&mut call, 200, "good") });
    let timeouts = Timeouts { hedge_after: Some(Duration::from_millis(50)), ..Timeouts::default() };
    let options = Options { pool: Some(h2c), timeouts, ..Options::default() };
    let edge = Edge::with(&[silent.address, good.address], options);
    for _ in 0..4 {
        assert_eq!(get(&edge, "/").0, 200);
    }
    eventually("those that were given up are reset", || edge.pools.list()[0].in_flight == 0);
}

#[test]
fn bodies_that_are_none_are_none() {
    let origin = H2Origin::start(|mut call| async move {
        let status = call.request.uri().path()[1..].parse::<u16>().unwrap_or(200);
        let head = Response::builder().status(status).header("content-length", "5").body(()).unwrap();
        let _ = call.respond.send_response(head, true);
    });
    let edge = edge(&origin);
    let answer = exchange(&edge, "HEAD / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n");
    assert!(status(&answer) == 200 && answer.contains("content-length: 5") && answer.ends_with("\r\n\r\n"), "{answer}");
    let answer = get(&edge, "/304").1;
    assert!(status(&answer) == 304 && answer.ends_with("\r\n\r\n"), "{answer}");
}

/// Over TLS, by what `protocol` offers to a backend that speaks `protocols`.
fn over_tls(protocol: fn(&mut PoolConfig), authority: &Authority, address: std::net::SocketAddr) -> Edge {
    let tls = BackendTls {
        server_name: Some(ServerName::try_from("backend.internal").unwrap()),
        authorities: vec![authority.certificate.clone()],
        ..BackendTls::default()
    };
    Edge::with(&[address], Options { backend_tls: Some(tls), pool: Some(protocol), ..Options::default() })
}

fn h2_over_tls(authority: &Authority) -> H2Origin {
    let mut config = (*server_config(authority.issue("backend.internal"), &Terms::default())).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    H2Origin::with(Settings { tls: Some(Arc::new(config)), ..Settings::default() }, echo)
}

#[test]
fn over_tls_both_agree_on_what_is_spoken() {
    let authority = Authority::new();
    let http1 = TlsOrigin::start(authority.issue("backend.internal"));
    let h2 = h2_over_tls(&authority);
    let auto: fn(&mut PoolConfig) = |pool| pool.protocol = BackendProtocol::Auto;
    let only_h2: fn(&mut PoolConfig) = |pool| pool.protocol = BackendProtocol::H2;
    let only_http1: fn(&mut PoolConfig) = |pool| pool.protocol = BackendProtocol::Http1;
    for (what, protocol, address, expected) in [
        ("auto, with h2", auto, h2.address, 200),
        ("auto, with HTTP/1.1", auto, http1.address, 200),
        ("h2, with h2", only_h2, h2.address, 200),
        ("h2, with HTTP/1.1", only_h2, http1.address, 502),
        ("http1, with h2", only_http1, h2.address, 502),
        ("http1, with HTTP/1.1", only_http1, http1.address, 200),
    ] {
        let edge = over_tls(protocol, &authority, address);
        for _ in 0..2 {
            let (status, answer) = get(&edge, "/");
            assert_eq!(status, expected, "{what}: {answer}");
        }
    }
    assert!(h2.received().iter().all(|head| head.uri.scheme_str() == Some("https")));
    assert_eq!(
        (h2.connections(), h2.received().len()),
        (2 + 2, 4),
        "each edge keeps its connection, refused ones aside"
    );
}

#[test]
fn checks_speak_what_requests_speak() {
    let origin = H2Origin::start(|mut call| async move { answer(&mut call, 200, "well") });
    let edge = edge(&origin);
    let checks = HealthChecks::start(|_| {}).unwrap();
    checks.watch(&edge.pools);
    eventually("it was asked", || origin.received().len() > 2);
    assert!(edge.pools.list()[0].healthy);
    assert!(origin.received().iter().all(|head| head.uri.path() == "/health"));
}
