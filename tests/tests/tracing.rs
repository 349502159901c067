//! One trace from the client's request to the backend, the logs and the collector.

use anyhow::{Context, Result, ensure};
use lb_tests::edge::{RULES, alice, service};
use lb_tests::origin;
use lb_tests::site::Site;
use serde_json::Value;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// The trace that the access log has for the last request to `path`.
async fn logged(site: &Site, path: &str) -> Result<String> {
    let line = |log: String| {
        let lines = log.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.into_iter().find(|line| line["target"] == "access" && line["path"] == path)
    };
    site.eventually("the access line", async |site| Ok(line(site.edge.log()).is_some())).await?;
    let line = line(site.edge.log()).context("it was there")?;
    Ok(line["trace_id"].as_str().with_context(|| format!("no trace in {line}"))?.to_owned())
}

#[tokio::test]
async fn client_backend_logs_and_collector_agree_on_the_trace() -> Result<()> {
    let (collector, at) = origin::start().await?;
    let section = |from: &str| format!("tracing: {{otlp: \"http://{at}\", sample: 1/1, continue_from: [{from}]}}\n");
    let configure =
        |address, backend| Ok([&service(address, backend), &alice()?, RULES, &section("127.0.0.1")].concat());
    let Some(site) = Site::open(configure).await? else { return Ok(()) };
    let mut alice = site.alice().await?;
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let headers = [("traceparent", parent.as_str()), ("tracestate", "vendor=1"), ("accept", "application/json")];

    let answer = alice.get(&site.url("/account"), &headers).await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    let received = site.origin.received().pop().context("nothing reached the origin")?;
    let header = |name: &str| received.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let sent = header("traceparent");
    ensure!(sent.starts_with(&format!("00-{TRACE}-")) && !sent.contains(CALLER), "{sent}");
    ensure!(header("tracestate") == "vendor=1", "{received:?}");
    ensure!(logged(&site, "/account").await? == TRACE);

    // A challenge is part of it too.
    let json = [&headers[..], &[("content-type", "application/json")]].concat();
    let answer = alice.send("POST", &site.url("/refunds"), &json, r#"{"amount": 900.00}"#.to_owned()).await?;
    site.challenge_url(&answer)?;
    ensure!(logged(&site, "/refunds").await? == TRACE);
    let events = site.edge.audited("decision", 1)?;
    ensure!(events.iter().all(|event| event["event"]["trace"] == TRACE), "{events:?}");

    // Once nobody is believed, the same request is a trace of its own.
    site.reconfigure(&section("127.0.0.1"), &section(""))?;
    let answer = alice.get(&site.url("/orders"), &headers).await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    let received = site.origin.received().pop().context("nothing reached the origin")?;
    let sent = received.headers["traceparent"].to_str()?.to_owned();
    ensure!(!sent.contains(TRACE) && !received.headers.contains_key("tracestate"), "{received:?}");
    let logged = logged(&site, "/orders").await?;
    ensure!(sent.contains(&logged), "{sent} at the backend, {logged} in the log");

    // Names are plain text in what the collector gets.
    site.eventually("the collector has all kinds of spans", async |_| {
        let bodies = collector.received().into_iter().map(|received| received.body.to_vec()).collect::<Vec<_>>();
        let all = String::from_utf8_lossy(&bodies.concat()).into_owned();
        Ok(["GET */**", "POST */**", "decide", "challenge", "http.response.status_code"]
            .iter()
            .all(|name| all.contains(name)))
    })
    .await?;
    let received = collector.received().pop().context("it was there")?;
    ensure!(
        received.target == "/v1/traces" && received.headers["content-type"] == "application/x-protobuf",
        "{received:?}"
    );
    Ok(())
}
