//! Each factor on the challenge page, asked for, answered rightly and wrongly.

use std::time::Duration;

use http::StatusCode;
use lb_policy::{Challenge, Level, Method, Requirement, Strength};
use serde_json::json;

use super::super::account::Account;
use super::super::enrolments::Enrolment;
use super::super::factor::passkey::soft_authenticator::{Claims, ORIGIN, RP_ID, SoftAuthenticator};
use super::super::factor::passkey::{self, Challenge as PasskeyChallenge};
use super::super::factor::recovery::{RecoveryCodes, grouped};
use super::super::factor::{Attempt, Verify, pin, proof_of_work, recovery};
use super::super::session::Session;
use super::super::testing;
use super::bench::{Bench, Visitor, json as body_json, location, text};
use crate::config::{Config, ExternalConfig, RelyingParty};
use crate::webhook::testing::{Service, endpoint};

fn config() -> Config {
    let mut config = testing::config();
    config.factors.passkey =
        Some(RelyingParty { id: RP_ID.to_owned(), name: "Shop".to_owned(), origins: vec![ORIGIN.to_owned()] });
    config
}

/// A challenge that each of `methods` alone answers.
fn any_of(methods: &[Method]) -> Challenge {
    let requirement = Requirement { methods: methods.to_vec(), max_age_seconds: Some(300), ..Requirement::default() };
    let ways = methods.iter().map(|method| vec![*method]).collect();
    Challenge { unmet: vec![("refund-over-limit".into(), requirement)], ways, shown: vec![] }
}

/// A browser of alice's whose refund was challenged, and where to answer.
async fn challenged(bench: &Bench, methods: &[Method]) -> (Visitor, String) {
    let mut browser = Visitor::browser();
    browser.log_in(bench, "alice").await;
    let response = browser.challenged(bench, browser.refund(), any_of(methods)).await;
    let url = location(&response).to_owned();
    (browser, url)
}

/// A tool with the same cookies: it gets JSON.
fn tool_of(browser: &Visitor) -> Visitor {
    let mut tool = Visitor::curl();
    tool.cookies = browser.cookies.clone();
    tool
}

async fn ask(bench: &Bench, browser: &Visitor, url: &str) -> serde_json::Value {
    let response = tool_of(browser).open(bench, url).await;
    assert_eq!(response.status(), StatusCode::OK);
    body_json(response).await["ask"].clone()
}

fn enrol(bench: &Bench, method: Method, record: Vec<u8>) -> Enrolment {
    let account = Session::account(&testing::session("alice", 0)).clone();
    let enrolment = Enrolment::new(method, "mine", record, bench.clock.now());
    assert!(bench.step_up.enrolments.add(&account, &enrolment).unwrap());
    enrolment
}

fn enrolled(bench: &Bench) -> Vec<Enrolment> {
    bench.step_up.enrolments.of(testing::session("alice", 0).account()).unwrap()
}

fn strength_of(browser: &Visitor, bench: &Bench, method: Method) -> Option<Strength> {
    let session = browser.session(bench)?;
    session.factors().iter().find(|factor| factor.method == method).map(|factor| factor.strength)
}

fn form(name: &str, value: &str) -> String {
    let escaped: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
    format!("{name}={escaped}")
}

/// Alice's passkey.
fn passkey_of_alice(bench: &Bench) -> SoftAuthenticator {
    let authenticator = SoftAuthenticator::new(b"one");
    let challenge = PasskeyChallenge::committing_to("enrolment");
    let answer = authenticator.create(&challenge, &Claims::honest("webauthn.create"));
    let party = bench.config.factors.passkey.clone().unwrap();
    let credential = passkey::register(&party, &challenge, &answer).unwrap();
    enrol(bench, Method::Webauthn, serde_json::to_vec(&credential).unwrap());
    authenticator
}

/// The challenge that the page shows now.
async fn passkey_challenge(bench: &Bench, browser: &Visitor, url: &str) -> PasskeyChallenge {
    let asked = ask(bench, browser, &format!("{url}?method=webauthn")).await;
    PasskeyChallenge::of_options(&asked["publicKey"])
}

#[tokio::test]
async fn a_device_bound_passkey_reaches_level_three_and_its_answer_works_once() {
    let bench = Bench::with(config());
    let authenticator = passkey_of_alice(&bench);
    let (mut browser, url) = challenged(&bench, &[Method::Webauthn]).await;
    let challenge = passkey_challenge(&bench, &browser, &url).await;
    let answer = authenticator.get(&challenge, &Claims { sign_count: 2, ..Claims::honest("webauthn.get") });
    let response = browser.post(&bench, &url, &form("passkey", &answer)).await;
    assert_eq!(location(&response), url.replace("challenge", "resume"));
    assert_eq!(strength_of(&browser, &bench, Method::Webauthn), Some(Strength::DeviceBound));
    let session = browser.session(&bench).unwrap();
    assert_eq!(session.level(&bench.config.step_up.levels, bench.clock.now()), Level(3));
    assert_eq!(enrolled(&bench)[0].last_used_at, Some(bench.clock.now()));
    let (mut other, url) = challenged(&bench, &[Method::Webauthn]).await;
    let replayed = other.post(&bench, &url, &form("passkey", &answer)).await;
    assert_eq!(replayed.status(), StatusCode::UNAUTHORIZED, "for another transaction");
}

#[tokio::test]
async fn a_passkey_s_challenge_is_new_after_every_try_and_for_one_request_only() {
    let bench = Bench::with(config());
    let authenticator = passkey_of_alice(&bench);
    let (mut browser, url) = challenged(&bench, &[Method::Webauthn]).await;
    let first = passkey_challenge(&bench, &browser, &url).await;
    assert_eq!(passkey_challenge(&bench, &browser, &url).await, first, "two tabs show the same");
    let lie = Claims { origin: "https://evil.example", sign_count: 2, ..Claims::honest("webauthn.get") };
    let response = browser.post(&bench, &url, &form("passkey", &authenticator.get(&first, &lie))).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_ne!(passkey_challenge(&bench, &browser, &url).await, first);
    let late = authenticator.get(&first, &Claims { sign_count: 2, ..Claims::honest("webauthn.get") });
    let response = browser.post(&bench, &url, &form("passkey", &late)).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "the challenge before");
}

#[tokio::test]
async fn a_passkey_whose_counter_went_back_is_refused() {
    let bench = Bench::with(config());
    let authenticator = passkey_of_alice(&bench);
    for (count, status) in [(5, StatusCode::SEE_OTHER), (4, StatusCode::UNAUTHORIZED)] {
        let (mut browser, url) = challenged(&bench, &[Method::Webauthn]).await;
        let challenge = passkey_challenge(&bench, &browser, &url).await;
        let answer = authenticator.get(&challenge, &Claims { sign_count: count, ..Claims::honest("webauthn.get") });
        assert_eq!(browser.post(&bench, &url, &form("passkey", &answer)).await.status(), status, "{count}");
    }
}

#[tokio::test]
async fn pages_stay_small_load_nothing_and_run_no_script_but_their_own() {
    let bench = Bench::with(config());
    passkey_of_alice(&bench);
    let methods = [Method::Webauthn, Method::Totp, Method::ProofOfWork];
    let (mut browser, url) = challenged(&bench, &methods).await;
    for method in methods {
        let response = browser.open(&bench, &format!("{url}?method={}", method.name())).await;
        let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'; style-src 'nonce-"), "{policy}");
        assert_eq!(policy.contains("script-src"), method != Method::Totp, "{method}");
        let page = text(response).await;
        assert!(page.len() <= 30 * 1024, "{method}: {} bytes", page.len());
        assert!(!page.contains("src=") && !page.contains("@import"), "{method} loads something");
        let others = methods.iter().filter(|other| **other != method);
        assert!(others.clone().all(|other| page.contains(&format!("?method={}", other.name()))), "{method}: {page}");
    }
}

#[tokio::test]
async fn a_pin_is_asked_for_and_throttled() {
    let bench = Bench::with(config());
    enrol(&bench, Method::Pin, pin::enrol("271828").unwrap().unwrap().into_bytes());
    let (mut browser, url) = challenged(&bench, &[Method::Pin]).await;
    for status in [StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS] {
        assert_eq!(browser.post(&bench, &url, "pin=271829").await.status(), status);
    }
    bench.wait(60);
    assert_eq!(browser.post(&bench, &url, "pin=271828").await.status(), StatusCode::SEE_OTHER);
    let session = browser.session(&bench).unwrap();
    assert_eq!(
        session.level(&bench.config.step_up.levels, bench.clock.now()),
        Level(1),
        "beside a password: one class"
    );
}

#[tokio::test]
async fn an_enrolled_totp_secret_works_beside_the_configured_one_and_each_code_once() {
    use super::super::factor::totp;
    let bench = Bench::with(config());
    let secret = totp::new_secret();
    enrol(&bench, Method::Totp, secret.clone());
    let code = totp::totp(&secret).generate(bench.clock.now()).to_string();
    for (name, code, status) in [
        ("enrolled", code.clone(), StatusCode::SEE_OTHER),
        ("enrolled, again", code, StatusCode::UNAUTHORIZED),
        ("configured", bench.code(), StatusCode::SEE_OTHER),
    ] {
        let (mut browser, url) = challenged(&bench, &[Method::Totp]).await;
        assert_eq!(browser.post(&bench, &url, &form("code", &code)).await.status(), status, "{name}");
    }
}

#[test]
fn of_a_hundred_uses_of_one_recovery_code_at_once_exactly_one_counts() {
    let bench = Bench::with(config());
    let shown = recovery_codes_of_alice(&bench);
    let Verify::Disk(verify) = recovery::FACTOR.verify else { panic!("it is checked in the store") };
    let attempt = || Attempt {
        account: Account::built_in(&bench.config, "alice").unwrap(),
        answer: shown[0].clone().into(),
        now: bench.clock.now(),
        store: bench.step_up.store.clone(),
        enrolments: bench.step_up.enrolments.clone(),
        tools: bench.step_up.tools.clone(),
        services: bench.step_up.services.of(&bench.config.factors),
        aim: None,
    };
    let wins = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..100).map(|_| scope.spawn(|| verify(&attempt()).is_ok())).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).filter(|won| *won).count()
    });
    assert_eq!(wins, 1);
}

#[tokio::test]
async fn a_recovery_code_leads_to_new_factors_and_no_second_one_works_until_one_was_added() {
    let bench = Bench::with(config());
    let shown = recovery_codes_of_alice(&bench);
    let (mut browser, url) = challenged(&bench, &[Method::RecoveryCode]).await;
    let response = browser.post(&bench, &url, &form("recovery", &shown[0])).await;
    assert_eq!(location(&response), "/.lb/factors");
    let page = text(browser.open(&bench, "/.lb/factors").await).await;
    assert!(page.contains("You used a recovery code."), "{page}");
    let (mut other, other_url) = challenged(&bench, &[Method::RecoveryCode]).await;
    let second = form("recovery", &shown[1]);
    assert_eq!(other.post(&bench, &other_url, &second).await.status(), StatusCode::UNAUTHORIZED);
    let added = browser.post(&bench, "/.lb/factors/add/pin", "answer=271828&again=271828").await;
    assert_eq!(location(&added), "/.lb/factors");
    assert_eq!(location(&other.post(&bench, &other_url, &second).await), "/.lb/factors");
}

fn recovery_codes_of_alice(bench: &Bench) -> Vec<String> {
    let owner = testing::session("alice", 0).account().key();
    let (codes, shown) = RecoveryCodes::generate(&bench.step_up.tools.keyed, &owner);
    enrol(bench, Method::RecoveryCode, codes.record());
    shown.iter().map(|code| grouped(code)).collect()
}

#[tokio::test]
async fn a_code_by_text_message_is_sent_on_demand_three_times_at_most_and_works_in_its_own_browser() {
    let service = Service::answering(202, "", Duration::ZERO).await;
    let mut config = config();
    config.users[0].phone = Some("+4915112345678".to_owned());
    config.factors.sms = Some(service.config.clone());
    let bench = Bench::with(config);
    let (mut browser, url) = challenged(&bench, &[Method::Sms, Method::Totp]).await;
    assert!(text(browser.open(&bench, &url).await).await.contains("Send me a code"));
    assert!(service.calls().is_empty(), "looking at the page sends nothing");
    let sent = browser.post(&bench, &url, "send=sms").await;
    assert_eq!(location(&sent), format!("{url}?method=sms"));
    let page = text(browser.open(&bench, location(&sent)).await).await;
    assert!(page.contains("Sent to …678.") && page.contains("Send another code"), "{page}");
    let code = code_in(&service);
    let (mut other, other_url) = challenged(&bench, &[Method::Sms]).await;
    let elsewhere = other.post(&bench, &other_url, &form("sms", &code)).await;
    assert_eq!(elsewhere.status(), StatusCode::UNAUTHORIZED, "in another browser");
    let again = browser.post(&bench, &url, "send=sms").await;
    assert_eq!(again.status(), StatusCode::SEE_OTHER);
    let old = browser.post(&bench, &url, &form("sms", &code)).await;
    assert_eq!(old.status(), StatusCode::UNAUTHORIZED, "the code that was sent first");
    let fresh = code_in(&service);
    bench.wait(60);
    assert_eq!(browser.post(&bench, &url, &form("sms", &fresh)).await.status(), StatusCode::SEE_OTHER);
    let session = browser.session(&bench).unwrap();
    assert_eq!(session.level(&bench.config.step_up.levels, bench.clock.now()), Level(1), "it raises no level");
    assert_eq!(other.post(&bench, &other_url, "send=sms").await.status(), StatusCode::SEE_OTHER, "the third");
    let flood = other.post(&bench, &other_url, "send=sms").await;
    assert_eq!(flood.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(flood.headers().contains_key("retry-after"));
    assert_eq!(service.calls().len(), 3);
}

/// The code in the message that was sent last.
fn code_in(service: &Service) -> String {
    let (_, body) = service.calls().pop().unwrap();
    let message: serde_json::Value = serde_json::from_slice(&body).unwrap();
    message["text"].as_str().unwrap().split(' ').next().unwrap().to_owned()
}

#[tokio::test]
async fn what_cannot_be_sent_says_so_and_costs_no_try() {
    let mut config = config();
    config.users[0].phone = Some("+4915112345678".to_owned());
    config.factors.sms = Some(endpoint("http://127.0.0.1:1/", Duration::from_secs(1)));
    let bench = Bench::with(config);
    let (mut browser, url) = challenged(&bench, &[Method::Sms]).await;
    let response = browser.post(&bench, &url, "send=sms").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(text(response).await.contains("No code was sent"));
    assert_eq!(browser.post(&bench, &url, "send=totp").await.status(), StatusCode::GONE, "nothing to send");
}

#[tokio::test]
async fn an_external_verifier_decides_and_its_absence_is_no_yes_and_no_failure() {
    for (status, body, expected) in [
        (200, r#"{"verified": true, "user": "alice"}"#, StatusCode::SEE_OTHER),
        (200, r#"{"verified": true, "user": "mallory"}"#, StatusCode::UNAUTHORIZED),
        (503, "", StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let service = Service::answering(status, body, Duration::ZERO).await;
        let mut config = config();
        config.factors.external = Some(ExternalConfig {
            label: "Badge number".to_owned(),
            hint: "On the back.".to_owned(),
            verify: service.config.clone(),
        });
        let bench = Bench::with(config);
        let (mut browser, url) = challenged(&bench, &[Method::External]).await;
        assert!(text(browser.open(&bench, &url).await).await.contains("Badge number"));
        assert_eq!(browser.post(&bench, &url, "external=42").await.status(), expected, "{body}");
        let asked: serde_json::Value = serde_json::from_slice(&service.calls()[0].1).unwrap();
        assert!(asked["approval"].as_str().unwrap().contains("target: \"/refunds?shop=1\""), "{asked}");
    }
}

#[tokio::test]
async fn a_solved_puzzle_counts_for_its_method_and_raises_no_level() {
    let bench = Bench::with(config());
    let (mut browser, url) = challenged(&bench, &[Method::ProofOfWork]).await;
    let asked = ask(&bench, &browser, &url).await;
    let (puzzle, bits) = (asked["puzzle"].as_str().unwrap(), asked["bits"].as_u64().unwrap());
    let answer = proof_of_work::solve(puzzle, u8::try_from(bits).unwrap());
    let wrong = browser.post(&bench, &url, &form("work", &format!("{puzzle}:x"))).await;
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(browser.post(&bench, &url, &form("work", &answer)).await.status(), StatusCode::SEE_OTHER);
    let session = browser.session(&bench).unwrap();
    assert_eq!(session.level(&bench.config.step_up.levels, bench.clock.now()), Level(1));
    let (mut other, url) = challenged(&bench, &[Method::ProofOfWork]).await;
    assert_eq!(other.post(&bench, &url, &form("work", &answer)).await.status(), StatusCode::UNAUTHORIZED, "used");
}

#[tokio::test]
async fn a_developer_key_signs_the_text_that_is_shown_and_no_other() {
    let bench = Bench::with(config());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    let run = |arguments: &[&str]| {
        let mut ssh_keygen = std::process::Command::new("ssh-keygen");
        let done = ssh_keygen.current_dir(directory.path()).args(arguments).output().expect("openssh-client is there");
        assert!(done.status.success(), "{done:?}");
    };
    run(&["-q", "-t", "ed25519", "-N", "", "-f", "key"]);
    enrol(&bench, Method::DeveloperKey, std::fs::read(path.with_extension("pub")).unwrap());
    let (mut browser, url) = challenged(&bench, &[Method::DeveloperKey]).await;
    let sign = |text: &str| {
        std::fs::write(directory.path().join("text"), text).unwrap();
        let _ = std::fs::remove_file(directory.path().join("text.sig"));
        run(&["-q", "-Y", "sign", "-n", "step-up@lb", "-f", "key", "text"]);
        std::fs::read_to_string(directory.path().join("text.sig")).unwrap()
    };
    let shown = ask(&bench, &browser, &url).await["text"].as_str().unwrap().to_owned();
    assert!(shown.contains("method: \"POST\"") && shown.contains("user: \"alice\""), "{shown}");
    let other = browser.post(&bench, &url, &form("signature", &sign(&shown.replace("POST", "GET")))).await;
    assert_eq!(other.status(), StatusCode::UNAUTHORIZED);
    let late = browser.post(&bench, &url, &form("signature", &sign(&shown))).await;
    assert_eq!(late.status(), StatusCode::UNAUTHORIZED, "each try has a text of its own");
    bench.wait(60);
    let fresh = ask(&bench, &browser, &url).await["text"].as_str().unwrap().to_owned();
    let right = browser.post(&bench, &url, &form("signature", &sign(&fresh))).await;
    assert_eq!(right.status(), StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn tools_are_told_in_json_what_each_method_takes() {
    let bench = Bench::with(config());
    passkey_of_alice(&bench);
    let (browser, url) = challenged(&bench, &[Method::Webauthn, Method::Totp]).await;
    let response = tool_of(&browser).open(&bench, &url).await;
    let described = body_json(response).await;
    assert_eq!(described["missing"], json!(["webauthn"]));
    assert_eq!(described["instead"], json!(["totp"]));
    assert_eq!(described["ask"]["field"], "passkey");
    assert_eq!(described["ask"]["publicKey"]["rpId"], RP_ID);
    assert_eq!(ask(&bench, &browser, &format!("{url}?method=totp")).await, json!({"method": "totp", "field": "code"}));
}
