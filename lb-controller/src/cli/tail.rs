//! `lb-controller tail`: requests as they end.

use std::time::Duration;

use ipnet::IpNet;

use super::output::{Paint, paint};
use crate::admin::client::{self, AskError};
use crate::config;
use crate::failure::{ExitKind, Failure};
use crate::instance::Instance;
use crate::report::{StatusSet, TailFilter, TailLine, TailedRequest};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only requests of the route with this label, as metrics and the access log name it.
    #[arg(long, value_name = "LABEL")]
    route: Option<String>,
    /// Only these statuses: 404, 5xx, 400-499, or several with commas between.
    #[arg(long, value_name = "STATUSES")]
    status: Option<StatusSet>,
    /// Only requests of which the rules decided this.
    #[arg(long, value_name = "DECISION", value_parser = DECISIONS)]
    decision: Option<String>,
    /// Only from this address or network.
    #[arg(long, value_name = "CIDR", value_parser = super::samples::network)]
    client: Option<IpNet>,
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// Only for this host.
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Only paths that begin so.
    #[arg(long, value_name = "START")]
    path: Option<String>,
    /// Only what took at least as long: 250ms, 2s.
    #[arg(long, value_name = "DURATION", value_parser = config::parse_latency)]
    min_duration: Option<Duration>,
    /// Stop after so many requests.
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print JSON, one object a line.
    #[arg(long)]
    json: bool,
}

const DECISIONS: [&str; 7] =
    ["allow", "allow_within_limits", "log_in", "challenge", "deny", "revoke", "regenerate_api_key"];

pub(super) fn run(instance: &Instance, arguments: Arguments) -> Result<(), Failure> {
    let (json, mut left) = (arguments.json, arguments.count);
    let filter = TailFilter {
        route: arguments.route,
        status: arguments.status,
        decision: arguments.decision,
        client: arguments.client,
        method: arguments.method.map(|method| method.to_ascii_uppercase()),
        host: arguments.host,
        path: arguments.path,
        min_duration_us: arguments.min_duration.map(|least| u64::try_from(least.as_micros()).unwrap_or(u64::MAX)),
    };
    let ended = client::follow(instance, "/v1/tail", &filter, |line| {
        let parsed: TailLine = serde_json::from_slice(line)?;
        if json {
            say!("{}", serde_json::to_string(&parsed)?);
        } else {
            say!("{}", text(&parsed));
        }
        if let (TailLine::Request(_), Some(left)) = (&parsed, &mut left) {
            *left -= 1;
        }
        Ok(left != Some(0))
    });
    ended.map_err(|error| match error {
        AskError::NotRunning { .. } => Failure::new(ExitKind::NotRunning, error),
        AskError::Permission { .. } => Failure::new(ExitKind::Permission, error),
        error => Failure::new(ExitKind::Other, error),
    })
}

fn text(line: &TailLine) -> String {
    match line {
        TailLine::Missed { missed } => format!("({missed} requests came too fast to be shown)"),
        TailLine::Request(request) => request_text(request),
    }
}

/// `2026-01-02T03:04:05.6Z 200 GET shop.example/cart 12.3 ms 192.0.2.7 */** 10.0.0.1:8080 allow`
fn request_text(request: &TailedRequest) -> String {
    let colour = match request.status {
        ..400 => Paint::Good,
        400..500 => Paint::Bold,
        500.. => Paint::Bad,
    };
    let mut text = format!(
        "{} {} {} {}{} {} {}",
        request.at,
        paint(colour, &request.status.to_string()),
        request.method,
        shown(&request.host),
        shown(&request.path),
        took(request.duration_us),
        request.client,
    );
    let rule = request.rule.as_ref().map(|rule| format!("by {rule}"));
    let error = request.error.as_ref().map(|error| paint(Paint::Bad, &format!("({})", shown(error))));
    let backend = request.backend.map(|backend| backend.to_string());
    for part in [request.route.clone(), backend, request.decision.clone(), rule, error].into_iter().flatten() {
        text.push(' ');
        text.push_str(&part);
    }
    text
}

/// A terminal obeys control characters, and a client chose these.
fn shown(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

/// `870 µs`, `12.3 ms`, `4.56 s`.
fn took(microseconds: u64) -> String {
    match microseconds {
        0..1_000 => format!("{microseconds} µs"),
        1_000..1_000_000 => format!("{:.1} ms", microseconds as f64 / 1e3),
        _ => format!("{:.2} s", microseconds as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_whatever_a_client_sent() {
        let request = TailedRequest {
            at: "2026-01-02T03:04:05.6Z".to_owned(),
            request_id: "1-0".to_owned(),
            client: "192.0.2.7".parse().unwrap(),
            method: "GET".to_owned(),
            protocol: "HTTP/1.1".to_owned(),
            host: "shop.example".to_owned(),
            path: "/\u{1b}[2J\n\u{9b}31m".to_owned(),
            status: 403,
            bytes: 3,
            duration_us: 12_345,
            route: Some("*/**".to_owned()),
            backend: None,
            decision: Some("deny".to_owned()),
            rule: Some("office".to_owned()),
            error: None,
            trace_id: None,
        };
        let text = request_text(&request);
        assert_eq!(
            text,
            "2026-01-02T03:04:05.6Z 403 GET shop.example/\u{fffd}[2J\u{fffd}\u{fffd}31m 12.3 ms 192.0.2.7 */** deny by office"
        );
    }

    #[test]
    fn times_are_in_the_unit_that_fits() {
        for (microseconds, text) in [(0, "0 µs"), (999, "999 µs"), (1_000, "1.0 ms"), (4_560_000, "4.56 s")] {
            assert_eq!(took(microseconds), text);
        }
    }
}
