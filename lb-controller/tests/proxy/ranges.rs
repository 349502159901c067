//! Parts of a whole (RFC 9110, section 14): what client and backend agree about them is theirs, and passes untouched.

use std::io::Write;

use bytes::Bytes;
use http::{Request, Response};
use lb_controller::config::{BackendProtocol, PoolConfig};

use crate::support::client::{Raw, h2, status};
use crate::support::edge::{Edge, Options};
use crate::support::h2_origin::{Call, H2Origin};
use crate::support::origin::{Origin, Received};

/// What a client asks, and what the backend says to it.
struct Row {
    what: &'static str,
    asked: &'static [(&'static str, &'static str)],
    status: u16,
    told: &'static [(&'static str, &'static str)],
    body: &'static str,
}

const ROWS: &[Row] = &[
    Row {
        what: "one part",
        asked: &[("range", "bytes=2-4")],
        status: 206,
        told: &[("content-range", "bytes 2-4/10"), ("etag", "\"one\""), ("accept-ranges", "bytes")],
        body: "cde",
    },
    Row {
        what: "several parts",
        asked: &[("range", "bytes=0-0, -1")],
        status: 206,
        told: &[("content-type", "multipart/byteranges; boundary=gap")],
        body: "--gap\r\nContent-Range: bytes 0-0/10\r\n\r\na\r\n--gap\r\nContent-Range: bytes 9-9/10\r\n\r\nj\r\n--gap--\r\n",
    },
    Row {
        what: "the rest, if it is still the same",
        asked: &[("range", "bytes=8-"), ("if-range", "\"one\"")],
        status: 206,
        told: &[("content-range", "bytes 8-9/10"), ("etag", "\"one\"")],
        body: "ij",
    },
    Row {
        what: "the rest of what has changed: all of it",
        asked: &[("range", "bytes=8-"), ("if-range", "Sun, 06 Nov 1994 08:49:37 GMT")],
        status: 200,
        told: &[("etag", "W/\"two\""), ("last-modified", "Mon, 07 Nov 1994 08:49:37 GMT")],
        body: "abcdefghij",
    },
    Row {
        what: "a part that is not there",
        asked: &[("range", "bytes=10-")],
        status: 416,
        told: &[("content-range", "bytes */10")],
        body: "no such part",
    },
    Row {
        what: "a unit that nobody knows",
        asked: &[("range", "verses=3-5;x=\"a,b\"")],
        status: 206,
        told: &[("content-range", "verses 3-5/*"), ("accept-ranges", "verses, bytes")],
        body: "so be it",
    },
];

fn row_of(path: &str) -> &'static Row {
    let number: Option<usize> = path.trim_start_matches("/row/").split(' ').next().and_then(|text| text.parse().ok());
    number.and_then(|number| ROWS.get(number)).unwrap_or(&ROWS[0])
}

fn over_http1(request: &Received, stream: &mut std::net::TcpStream) -> bool {
    let row = row_of(request.request_line().split(' ').nth(1).unwrap_or_default());
    let told: String = row.told.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = row.body.len();
    write!(stream, "HTTP/1.1 {} So\r\n{told}Content-Length: {length}\r\n\r\n{}", row.status, row.body).is_ok()
}

async fn over_h2(mut call: Call) {
    let row = row_of(call.request.uri().path());
    let mut response = Response::builder().status(row.status).header("content-length", row.body.len());
    for (name, value) in row.told {
        response = response.header(*name, *value);
    }
    if let Ok(mut stream) = call.respond.send_response(response.body(()).unwrap(), false) {
        let _ = stream.send_data(Bytes::from_static(row.body.as_bytes()), true);
    }
}

/// Asks as each row does, by HTTP/1.1 and by HTTP/2. `asked` is what the backend received of a header, all its values.
fn passes(edge: &Edge, backend: &str, asked: impl Fn(usize, &str) -> Vec<String>) {
    let mut sent = 0;
    let mut arrived = |row: &Row| {
        for name in ["range", "if-range"] {
            let expected: Vec<_> =
                row.asked.iter().filter(|(asked, _)| *asked == name).map(|(_, value)| *value).collect();
            assert_eq!(asked(sent, name), expected, "{}, {name} at a backend over {backend}", row.what);
        }
        sent += 1;
    };
    for (number, row) in ROWS.iter().enumerate() {
        let what = format!("{}, {backend} behind it", row.what);
        let lines: String = row.asked.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let mut raw = Raw::connect(edge);
        raw.write(format!("GET /row/{number} HTTP/1.1\r\nHost: shop.example\r\n{lines}\r\n"));
        let (head, body) = raw.read_response();
        assert_eq!((status(&head), &body[..]), (row.status, row.body.as_bytes()), "{what}: {head}");
        for (name, value) in row.told {
            assert!(head.lines().any(|line| line.eq_ignore_ascii_case(&format!("{name}: {value}"))), "{what}: {head}");
        }
        arrived(row);

        let mut request = Request::get(format!("https://shop.example/row/{number}"));
        for (name, value) in row.asked {
            request = request.header(*name, *value);
        }
        let answer = h2(edge, vec![request.body(Bytes::new()).unwrap()]).remove(0);
        assert_eq!((answer.status().as_u16(), &answer.body()[..]), (row.status, row.body.as_bytes()), "{what}");
        for (name, value) in row.told {
            let values: Vec<_> = answer.headers().get_all(*name).iter().collect();
            assert_eq!(values, [value], "{what}: {name} over HTTP/2");
        }
        assert_eq!(answer.headers()["content-length"], row.body.len().to_string().as_str(), "{what}");
        arrived(row);
    }
}

#[test]
fn parts_pass_untouched_between_clients_of_both_kinds_and_a_backend_over_http1() {
    let origin = Origin::start(over_http1);
    let edge = Edge::start(&[origin.address]);
    let of_requests = || origin.received().into_iter().filter(|one| !one.request_line().contains("/health"));
    passes(&edge, "HTTP/1.1", |number, name| {
        let received = of_requests().nth(number).unwrap();
        received.values(name).into_iter().map(str::to_owned).collect()
    });
}

#[test]
fn parts_pass_untouched_between_clients_of_both_kinds_and_a_backend_over_http2() {
    let origin = H2Origin::start(over_h2);
    let h2c = |pool: &mut PoolConfig| pool.protocol = BackendProtocol::H2c;
    let edge = Edge::with(&[origin.address], Options { pool: Some(h2c), ..Options::default() });
    passes(&edge, "HTTP/2", |number, name| {
        let values = origin.received()[number].headers.clone();
        values.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    });
}
