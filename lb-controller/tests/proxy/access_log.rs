//! The access log, as whoever collects it reads it.

use std::io::Write;
use std::sync::{Arc, Mutex};

use lb_controller::metrics::Metrics;
use lb_controller::serve::access_log::{AccessLayer, NonBlocking};
use serde_json::Value;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::support::client::{exchange, get};
use crate::support::edge::Edge;
use crate::support::eventually;
use crate::support::origin::Origin;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// The one line about a path; other tests of this process write here too.
    fn about(&self, path: &str) -> Option<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        lines.into_iter().find(|line| line["path"] == path)
    }
}

#[test]
fn a_request_is_one_line_of_json_without_its_query() {
    let lines = Lines::default();
    let writer = NonBlocking::new(Metrics::default());
    writer.write_to(lines.clone()).unwrap();
    tracing_subscriber::registry().with(AccessLayer::new(writer)).init();

    let origin = Origin::answering("hello");
    let edge = Edge::start(&[origin.address]);
    get(&edge, "/logged?token=secret");
    exchange(&edge, "GET /refused HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n");
    let mut line = Value::Null;
    for (path, fields) in [
        (
            "/logged",
            serde_json::json!({
                "method": "GET", "host": "shop.example", "status": 200, "bytes": 5, "client": "127.0.0.1",
                "route": "*/**", "backend": origin.address.to_string(),
            }),
        ),
        ("/refused", serde_json::json!({ "status": 421, "host": "other.example", "target": "access" })),
    ] {
        eventually("the line is written", || {
            line = lines.about(path).unwrap_or_default();
            !line.is_null()
        });
        for (name, expected) in fields.as_object().unwrap() {
            assert_eq!(&line[name], expected, "{name} in {line}");
        }
        assert!(line["request_id"].is_string() && line["duration_us"].is_u64(), "{line}");
        assert!(!line.to_string().contains("secret"), "{line}");
    }
}
