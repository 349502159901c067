//! The access log, as whoever collects it reads it.

use std::io::Write;
use std::sync::{Arc, Mutex};

use lb_controller::config::{AccessFormat, AccessLogConfig, LogDestination, LogFileConfig};
use lb_controller::metrics::Metrics;
use lb_controller::serve::access_log::{AccessLog, NonBlocking};
use serde_json::Value;
use tracing_subscriber::util::SubscriberInitExt;

use crate::support::client::{exchange, get};
use crate::support::edge::{Edge, Options};
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

/// What a client sends to write lines of its own stays within its line, and in it.
#[test]
fn nobody_writes_lines_of_their_own_into_a_combined_log() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    let log = AccessLog::json(NonBlocking::new(Metrics::default()));
    let config = AccessLogConfig {
        destination: LogDestination::File(LogFileConfig { path: file.clone(), rotation: None }),
        format: Some(AccessFormat::Combined),
        ..AccessLogConfig::default()
    };
    log.put(log.prepare(Some(&config)).unwrap());
    log.write_to(std::io::sink()).unwrap();
    let edge = Edge::with(&[Origin::answering("hello").address], Options { access_log: log, ..Options::default() });
    for agent in ["x\" 200 1 \"-\" \"y", "\\", "\\\"", "caf\u{e9}\u{9b}31m\u{7f}", "tab\there"] {
        let request = format!(
            "GET /a%22%20200%201 HTTP/1.1\r\nHost: shop.example\r\nReferer: https://a.example/?token=secret\r\n\
             User-Agent: {agent}\r\nConnection: close\r\n\r\n"
        );
        exchange(&edge, request);
    }
    exchange(&edge, "GET /last HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n");
    eventually("the last line", || std::fs::read_to_string(&file).is_ok_and(|text| text.contains("/last")));
    let text = std::fs::read_to_string(&file).unwrap();
    let start = "127.0.0.1 - - [";
    assert!(text.lines().all(|line| line.starts_with(start) && line.is_ascii()), "{text}");
    assert!(!text.contains("secret"), "{text}");
    for end in [
        r#"] "GET /a%22%20200%201 HTTP/1.1" 200 5 "https://a.example/" "x\" 200 1 \"-\" \"y""#,
        r#""https://a.example/" "\\""#,
        r#""https://a.example/" "\\\"""#,
        r#""https://a.example/" "tab\there""#,
        r#"] "GET /last HTTP/1.1" 200 5 "-" "-""#,
    ] {
        assert_eq!(text.lines().filter(|line| line.ends_with(end)).count(), 1, "{end} is not in\n{text}");
    }
}

#[test]
fn a_request_is_one_line_of_json_without_its_query() {
    let lines = Lines::default();
    let writer = NonBlocking::new(Metrics::default());
    writer.write_to(lines.clone()).unwrap();
    // Lines are written where their level is asked for.
    tracing_subscriber::registry().init();

    let origin = Origin::answering("hello");
    let options = Options { access_log: AccessLog::json(writer), ..Options::default() };
    let edge = Edge::with(&[origin.address], options);
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
