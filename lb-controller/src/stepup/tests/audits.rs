//! The audit trail: what it tells, and what it must never tell.

use std::io;
use std::sync::{Arc, Mutex};

use super::super::testing::{PASSWORD, TOTP_SECRET};
use super::bench::{Bench, REFUND, Visitor, level_two, location};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_trail_tells_each_step_of_a_step_up_and_no_secret_of_it() {
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .without_time()
        .flatten_event(true)
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);

    let (bench, mut browser) = (Bench::new(), Visitor::browser());
    browser.post(&bench, "/.lb/login", "user=alice&password=hunter2").await;
    browser.log_in(&bench, "alice").await;
    let url = location(&browser.challenged(&bench, browser.refund(), level_two()).await).to_owned();
    browser.post(&bench, &url, "code=135790").await;
    let code = bench.code();
    browser.post(&bench, &url, &format!("code={code}")).await;
    let id = url.rsplit('/').next().unwrap();
    let form = format!("lb-tx={id}");
    let resume = browser.request("POST", "/refunds?shop=1", Some("application/x-www-form-urlencoded"), &form);
    assert!(browser.resumed(&bench, resume).await.is_ok());
    let cookies: Vec<String> = browser.cookies.values().cloned().collect();
    browser.post(&bench, "/.lb/logout", "").await;
    drop(guard);

    let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    let events: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|event| event["target"] == "audit")
        .collect();
    let told: Vec<_> =
        events.iter().map(|event| (event["event"].as_str().unwrap(), event["result"].as_str().unwrap())).collect();
    let expected = [
        ("login", "wrong"),
        ("login", "ok"),
        ("challenge", "issued"),
        ("verify", "wrong"),
        ("verify", "ok"),
        ("verified", "ok"),
        ("resume", "ok"),
        ("logout", "ok"),
    ];
    assert_eq!(told, expected);
    let challenge = &events[2];
    assert_eq!(challenge["rule"], "refund-over-limit");
    assert_eq!(challenge["required"], "level 2, within 300 s");
    assert_eq!(challenge["had"], "level 1: password 0 s");
    assert_eq!(challenge["source"], "192.0.2.7/32");

    // Random digits could spell a code by chance.
    let tag = challenge["user"].as_str().unwrap();
    let log = log.replace(id, "").replace(tag, "");
    let secret_text = str::from_utf8(TOTP_SECRET).unwrap();
    for secret in [PASSWORD, "hunter2", "135790", &code, secret_text, REFUND, "alice"] {
        assert!(!log.contains(secret), "the log contains {secret}");
    }
    for cookie in cookies {
        assert!(!log.contains(&cookie), "the log contains a cookie");
    }
}
