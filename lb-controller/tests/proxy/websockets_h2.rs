//! WebSockets as streams of h2 (RFC 8441), from clients and to backends, in every pairing with HTTP/1.1.

use std::io::{Read, Write};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol;
use http::{Method, Request, Response, StatusCode};
use lb_controller::config::{BackendProtocol, PoolConfig};

use crate::support::client::{Raw, exchange, get, status};
use crate::support::edge::{Edge, Options};
use crate::support::eventually;
use crate::support::h2_client::with_connection;
use crate::support::h2_origin::{Call, H2Origin, Settings, send};
use crate::support::origin::Origin;

fn connect(protocol: &'static str) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = "https://shop.example/chat?room=1".parse().unwrap();
    request.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    request.headers_mut().insert("origin", "https://shop.example".parse().unwrap());
    request.extensions_mut().insert(Protocol::from_static(protocol));
    request
}

/// Waits until the edge has said that it takes WebSockets.
async fn invited(sender: &SendRequest<Bytes>) {
    while !sender.is_extended_connect_protocol_enabled() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Says hello on a WebSocket over h2 and hears it shouted back, until one side ends it.
fn hello_over_h2(edge: &Edge, then: impl AsyncFnOnce(h2::SendStream<Bytes>, &mut h2::RecvStream)) {
    with_connection(edge, async |mut sender| {
        invited(&sender).await;
        let (response, mut sending) = sender.send_request(connect("websocket"), false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        for name in ["connection", "upgrade", "sec-websocket-accept", "content-length"] {
            assert!(!response.headers().contains_key(name), "{name}: {:?}", response.headers());
        }
        let mut body = response.into_body();
        sending.send_data(Bytes::from_static(b"\x81\x05hello"), false).unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(b"HELLO") {
            heard.extend_from_slice(&body.data().await.unwrap().unwrap());
        }
        then(sending, &mut body).await;
    });
}

/// The backend's end is the stream's.
async fn has_ended(body: &mut h2::RecvStream) {
    while let Some(data) = body.data().await {
        assert!(data.unwrap().is_empty());
    }
}

/// A backend of HTTP/1.1 that answers the challenge and shouts everything back.
fn shouting(is_honest: bool) -> Origin {
    Origin::start(move |request, stream| {
        assert_eq!((request.values("upgrade"), request.values("connection")), (vec!["websocket"], vec!["upgrade"]));
        let key = request.values("sec-websocket-key")[0].to_owned() + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes());
        let accept = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, hash);
        let accept = if is_honest { accept } else { "nothing".to_owned() };
        let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
        write!(stream, "{switch}Sec-WebSocket-Accept: {accept}\r\n\r\n").unwrap();
        let mut piece = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut piece) {
            stream.write_all(&piece[..read].to_ascii_uppercase()).unwrap();
        }
        false
    })
}

/// A backend of HTTP/2 that does the same.
async fn shout(mut call: Call) {
    assert_eq!(call.request.method(), Method::CONNECT);
    assert_eq!(call.request.extensions().get::<Protocol>().unwrap().as_str(), "websocket");
    let mut stream = call.respond.send_response(Response::new(()), false).unwrap();
    let body = call.request.body_mut();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        send(&mut stream, data.to_ascii_uppercase().into()).await;
    }
    let _ = stream.send_data(Bytes::new(), true);
}

fn taking_connect() -> H2Origin {
    H2Origin::with(Settings { takes_connect: true, ..Settings::default() }, shout)
}

fn h2c(pool: &mut PoolConfig) {
    pool.protocol = BackendProtocol::H2c;
}

#[test]
fn a_client_of_h2_gets_its_websocket_from_a_backend_of_http1() {
    let origin = shouting(true);
    let edge = Edge::start(&[origin.address]);
    hello_over_h2(&edge, async |mut sending, body| {
        assert_eq!(edge.pools.list()[0].in_flight, 1, "a tunnel counts as in flight");
        sending.send_data(Bytes::new(), true).unwrap();
        has_ended(body).await;
    });
    let received = &origin.received()[0];
    assert_eq!(received.request_line(), "GET /chat?room=1 HTTP/1.1");
    assert_eq!(
        (received.values("sec-websocket-version"), received.values("origin")),
        (vec!["13"], vec!["https://shop.example"])
    );
    eventually("the backend is free", || edge.pools.list()[0].in_flight == 0);
}

#[test]
fn a_backend_that_does_not_answer_the_challenge_speaks_no_websocket() {
    let origin = shouting(false);
    let edge = Edge::start(&[origin.address]);
    with_connection(&edge, async |mut sender| {
        invited(&sender).await;
        let (response, _sending) = sender.send_request(connect("websocket"), false).unwrap();
        assert_eq!(response.await.unwrap().status(), 502);
    });
}

#[test]
fn a_websocket_over_h2_ends_with_the_login_it_was_opened_by() {
    let origin = shouting(true);
    let options = Options::default();
    let login_over = options.login_over.clone();
    let edge = Edge::with(&[origin.address], options);
    hello_over_h2(&edge, async |sending, body| {
        login_over.notify_waiters();
        let mut rest = Vec::new();
        while let Some(Ok(data)) = body.data().await {
            rest.extend_from_slice(&data);
        }
        assert_eq!(
            String::from_utf8_lossy(&rest),
            "\u{fffd}\x13\x0b\u{fffd}the login is over",
            "a Close frame of code 3000"
        );
        drop(sending);
    });
    eventually("the backend is free", || edge.pools.list()[0].in_flight == 0);
}

#[test]
fn a_client_of_h2_gets_its_websocket_from_a_backend_of_h2() {
    let origin = taking_connect();
    let edge = Edge::with(&[origin.address], Options { pool: Some(h2c), ..Options::default() });
    hello_over_h2(&edge, async |mut sending, body| {
        sending.send_data(Bytes::new(), true).unwrap();
        has_ended(body).await;
    });
    let received = &origin.received()[0];
    assert_eq!(received.uri.to_string(), "http://shop.example/chat?room=1");
    assert!(!received.headers.contains_key("sec-websocket-key") && !received.headers.contains_key("upgrade"));
    eventually("the backend is free", || edge.pools.list()[0].in_flight == 0);
}

const WEBSOCKET: &str = "GET /chat HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[test]
fn a_client_of_http1_gets_its_websocket_from_a_backend_of_h2() {
    let origin = taking_connect();
    let edge = Edge::with(&[origin.address], Options { pool: Some(h2c), ..Options::default() });
    for _ in 0..2 {
        let mut raw = Raw::connect(&edge);
        raw.write(WEBSOCKET);
        let head = raw.read_until("\r\n\r\n").to_ascii_lowercase();
        assert_eq!(status(&head), 101, "{head}");
        assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
        raw.write(b"\x81\x05hello");
        raw.read_until("HELLO");
    }
    assert_eq!(origin.connections(), 1, "two streams of one connection");
    eventually("both are given up", || edge.pools.list()[0].in_flight == 0);
}

#[test]
fn what_cannot_be_a_websocket_is_none() {
    let origin = H2Origin::echoing();
    let edge = Edge::with(&[origin.address], Options { pool: Some(h2c), ..Options::default() });
    let answer = exchange(&edge, WEBSOCKET.replace("GET /chat", "GET /never"));
    assert_eq!(status(&answer), 502, "a backend that takes no WebSockets: {answer}");
    with_connection(&edge, async |mut sender| {
        invited(&sender).await;
        let (response, _sending) = sender.send_request(connect("connect-udp"), false).unwrap();
        assert_eq!(response.await.unwrap().status(), 405);
        let mut plain = connect("websocket");
        plain.extensions_mut().clear();
        *plain.uri_mut() = "shop.example:443".parse().unwrap();
        let (response, _sending) = sender.send_request(plain, false).unwrap();
        assert_eq!(response.await.unwrap().status(), 405, "an ordinary CONNECT leads nowhere");
    });
    assert_eq!(get(&edge, "/").0, 200, "ordinary requests do well meanwhile");
    assert!(origin.received().iter().all(|head| head.method != Method::CONNECT));
}
