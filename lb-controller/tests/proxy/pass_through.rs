//! Connections that go to a backend as they come, by the name that the client asks for.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use lb_controller::config::{Config, PassThrough, PoolConfig, ProxyVersion, ServerNames};

use crate::support::client::{Raw, hello_for, status};
use crate::support::edge::{Edge, Options};
use crate::support::eventually;
use crate::support::origin::Origin;

/// Of what is passed through: no handshake of the edge's is for it.
const NAME: &str = "other.example";

fn through(idle: Duration) -> Vec<PassThrough> {
    let server_names = vec![ServerNames::Exact(NAME.into()), ServerNames::Below("deep.example".into())];
    vec![PassThrough { server_names, pool: "web".into(), idle }]
}

fn passing(backends: &[SocketAddr]) -> Edge {
    let config: fn(&mut Config) = |config| config.pass_through = through(Duration::from_secs(60));
    Edge::with(backends, Options { config: Some(config), ..Options::default() })
}

fn shows(edge: &Edge, line: &str) -> bool {
    edge.metrics.render().lines().any(|shown| shown == line)
}

/// A backend that takes one connection after the other and does with each as it is told.
fn backend(serve: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

fn connect(edge: &Edge) -> TcpStream {
    let stream = TcpStream::connect(edge.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Says back all that came, once no more will.
fn echo_in_the_end() -> SocketAddr {
    backend(|mut stream| {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        let _ = stream.write_all(&all);
    })
}

#[test]
fn the_name_decides_whether_tls_ends_here_or_at_the_backend() {
    let origin = Origin::answering("behind");
    let tls_backend = Edge::start(&[origin.address]);
    let edge = passing(&[tls_backend.address]);
    for (name, expected) in [(NAME, &tls_backend), ("shop.example", &edge), ("127.0.0.1", &edge)] {
        // A client that trusts only the one that it should meet.
        let mut raw = Raw::connect_at(edge.address, expected, name);
        assert_eq!(raw.certificate(), Some(expected.certificate.clone()), "{name}");
    }
    let mut raw = Raw::connect_at(edge.address, &tls_backend, NAME);
    raw.write(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n"));
    let answer = raw.read_to_end();
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(answer.ends_with("behind"), "{answer}");
    drop(raw);
    eventually("both are over", || shows(&edge, "lb_passed_through_open{pool=\"web\"} 0"));
    assert_eq!(edge.metrics.workers()[0].handshakes_failed, 0, "what is passed through is no handshake of ours");
}

#[test]
fn bytes_go_both_ways_as_they_are_and_each_direction_ends_by_itself() {
    let edge = passing(&[echo_in_the_end()]);
    let hello = hello_for(NAME);
    let data: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let mut stream = connect(&edge);
    stream.write_all(&hello).unwrap();
    let mut reader = stream.try_clone().unwrap();
    let reading = std::thread::spawn(move || {
        let mut back = Vec::new();
        reader.read_to_end(&mut back).unwrap();
        back
    });
    stream.write_all(&data).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let back = reading.join().unwrap();
    assert!(back == [&hello[..], &data].concat(), "{} bytes came back", back.len());
    let bytes = back.len();
    eventually("it is counted", || {
        shows(&edge, "lb_passed_through_connections_total{pool=\"web\",result=\"ended\"} 1")
    });
    for direction in ["in", "out"] {
        let line = format!("lb_passed_through_bytes_total{{pool=\"web\",direction=\"{direction}\"}} {bytes}");
        assert!(shows(&edge, &line), "{}", edge.metrics.render());
    }
    assert_eq!(edge.pools.list()[0].in_flight, 0);
    assert_eq!((edge.pools.list()[0].requests, edge.pools.list()[0].errors), (1, 0));
}

#[test]
fn a_hello_in_many_pieces_is_one_and_one_too_large_or_for_nobody_goes_nowhere() {
    let edge = passing(&[echo_in_the_end()]);
    let mut stream = connect(&edge);
    stream.set_nodelay(true).unwrap();
    let hello = hello_for("a.deep.example");
    for byte in &hello {
        stream.write_all(&[*byte]).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    assert!(back == hello, "all of it, and as it was");

    // A message of 65,535 bytes, in records of 16 KiB.
    let mut stream = connect(&edge);
    let record = |payload: &[u8]| [&[0x16, 3, 1][..], &(payload.len() as u16).to_be_bytes(), payload].concat();
    let mut endless = record(&[&[1, 0, 0xff, 0xff][..], &[3; 16_000]].concat());
    endless.extend(record(&[3; 16_000]));
    endless.extend(record(&[3; 16_000]));
    let _ = stream.write_all(&endless);
    let mut back = Vec::new();
    let _ = stream.read_to_end(&mut back);
    assert!(back.is_empty() || back[0] == 0x15, "an alert at most: {back:?}");
    for name in ["b.a.deep.example", "deep.example", "stranger.example"] {
        let mut raw = Raw::connect_at(edge.address, &edge, name);
        raw.certificate();
    }
    assert!(shows(&edge, "lb_passed_through_connections_total{pool=\"web\",result=\"ended\"} 1"));
}

#[test]
fn the_backend_is_told_whose_connection_it_is() {
    let origin = Origin::answering("behind");
    let trust: fn(&mut Config) = |config| config.proxy_protocol = vec!["127.0.0.1/32".parse().unwrap()];
    let inner = Edge::with(&[origin.address], Options { config: Some(trust), ..Options::default() });
    let both: fn(&mut Config) = |config| {
        config.proxy_protocol = vec!["127.0.0.1/32".parse().unwrap()];
        config.pass_through = through(Duration::from_secs(60));
    };
    let sends: fn(&mut PoolConfig) = |pool| pool.send_proxy_protocol = Some(ProxyVersion::V2);
    let outer = Edge::with(&[inner.address], Options { config: Some(both), pool: Some(sends), ..Options::default() });
    let header = b"PROXY TCP4 203.0.113.9 198.51.100.10 5000 443\r\n";
    let mut raw = Raw::connect_at_after(outer.address, &inner, NAME, header);
    raw.write(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n"));
    assert_eq!(status(&raw.read_to_end()), 200);
    assert_eq!(origin.received()[0].values("x-forwarded-for"), ["203.0.113.9"]);
}

#[test]
fn a_connection_on_which_nothing_moves_is_ended() {
    let silent = backend(|mut stream| {
        let _ = stream.write_all(b"hello");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let config: fn(&mut Config) = |config| config.pass_through = through(Duration::from_secs(1));
    let edge = Edge::with(&[silent], Options { config: Some(config), ..Options::default() });
    let mut stream = connect(&edge);
    stream.write_all(&hello_for(NAME)).unwrap();
    let mut back = Vec::new();
    let _ = stream.read_to_end(&mut back);
    assert_eq!(back, b"hello");
    eventually("it is counted", || shows(&edge, "lb_passed_through_connections_total{pool=\"web\",result=\"idle\"} 1"));
}

#[test]
fn without_a_backend_the_connection_ends_and_another_backend_is_tried_first() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let edge = passing(&[nobody, echo_in_the_end()]);
    for _ in 0..2 {
        let mut stream = connect(&edge);
        stream.write_all(&hello_for(NAME)).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        assert!(!back.is_empty(), "the one that is there answers");
    }
    assert!(edge.pools.list()[0].errors >= 1, "the one that is not there");
    for backend in edge.pools.get("web").unwrap().backends() {
        backend.set_healthy(false, None);
    }
    let mut stream = connect(&edge);
    stream.write_all(&hello_for(NAME)).unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
    eventually("it is counted", || {
        shows(&edge, "lb_passed_through_connections_total{pool=\"web\",result=\"no_backend\"} 1")
    });
}
