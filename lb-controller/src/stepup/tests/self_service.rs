//! Adding, naming and removing one's own factors, and who may not.

use http::StatusCode;
use serde_json::json;

use super::super::factor::passkey::Challenge as PasskeyChallenge;
use super::super::factor::passkey::soft_authenticator::{Claims, ORIGIN, RP_ID, SoftAuthenticator};
use super::super::factor::totp;
use super::super::testing;
use super::bench::{Bench, Visitor, json as body_json, location, text};
use crate::config::{Config, RelyingParty};

fn config() -> Config {
    let mut config = testing::config();
    config.factors.passkey =
        Some(RelyingParty { id: RP_ID.to_owned(), name: "Shop".to_owned(), origins: vec![ORIGIN.to_owned()] });
    config
}

fn form(name: &str, value: &str) -> String {
    let escaped: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
    format!("{name}={escaped}")
}

async fn logged_in(bench: &Bench, user: &str) -> Visitor {
    let mut browser = Visitor::browser();
    browser.log_in(bench, user).await;
    browser
}

fn tool_of(browser: &Visitor) -> Visitor {
    let mut tool = Visitor::curl();
    tool.cookies = browser.cookies.clone();
    tool
}

async fn listed(bench: &Bench, browser: &Visitor) -> Vec<serde_json::Value> {
    let response = tool_of(browser).open(bench, "/.lb/factors").await;
    assert_eq!(response.status(), StatusCode::OK, "{}", text(response).await);
    body_json(response).await["factors"].as_array().unwrap().clone()
}

/// Bob, who has a password alone, with a token of the operator's.
async fn with_token(bench: &Bench) -> Visitor {
    let mut browser = logged_in(bench, "bob").await;
    let token = bench.step_up.enrolment_token(&bench.config, "bob", 3600).unwrap();
    let response = browser.post(bench, "/.lb/enrol", &form("token", &token.to_lowercase())).await;
    assert_eq!(location(&response), "/.lb/factors");
    browser
}

#[tokio::test]
async fn a_password_alone_sees_and_changes_nothing() {
    let bench = Bench::with(config());
    let mut browser = logged_in(&bench, "bob").await;
    let key = form("answer", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMcGC9uqr4Hq7uEk3V1tEoTQZ3s4qs8U7uS1mmbwDiIW");
    for response in [
        browser.open(&bench, "/.lb/factors").await,
        browser.open(&bench, "/.lb/factors/add/totp").await,
        browser.post(&bench, "/.lb/factors/add/devkey", &key).await,
        browser.post(&bench, "/.lb/factors", "remove=00112233445566778899aabbccddeeff").await,
    ] {
        assert_eq!(location(&response), "/.lb/enrol", "bob has no second factor");
    }
    assert!(bench.step_up.factors_of(&bench.config, "bob").unwrap().is_empty());
    let mut alice = logged_in(&bench, "alice").await;
    let response = alice.post(&bench, "/.lb/factors/add/devkey", &key).await;
    assert!(location(&response).starts_with("/.lb/challenge/"), "alice has one, and must show it first");
    assert!(bench.step_up.factors_of(&bench.config, "alice").unwrap().is_empty());
    let refused = tool_of(&browser).open(&bench, "/.lb/factors").await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert_eq!(body_json(refused).await["type"], "urn:lb:problem:enrolment-token-needed");
}

#[tokio::test]
async fn a_fresh_code_opens_the_list_and_a_stale_one_does_not() {
    let bench = Bench::with(config());
    let mut browser = logged_in(&bench, "alice").await;
    let url = location(&browser.open(&bench, "/.lb/factors").await).to_owned();
    let response = browser.post(&bench, &url, &format!("code={}", bench.code())).await;
    assert_eq!(location(&response), "/.lb/factors");
    let page = text(browser.open(&bench, "/.lb/factors").await).await;
    assert!(page.contains("You have added none yet.") && page.contains("/.lb/factors/add/webauthn"), "{page}");
    bench.wait(301);
    assert!(location(&browser.open(&bench, "/.lb/factors").await).starts_with("/.lb/challenge/"));
}

#[tokio::test]
async fn a_token_works_once_for_its_own_user_until_it_expires() {
    let bench = Bench::with(config());
    let mut alice = logged_in(&bench, "alice").await;
    let mut bob = logged_in(&bench, "bob").await;
    let token = bench.step_up.enrolment_token(&bench.config, "bob", 3600).unwrap();
    let answer = form("token", &token);
    assert_eq!(alice.post(&bench, "/.lb/enrol", &answer).await.status(), StatusCode::UNAUTHORIZED, "alice's it is not");
    let wrong = bob.post(&bench, "/.lb/enrol", "token=AAAAAAAAAAAAAAAA").await;
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    assert!(text(wrong).await.contains("role=\"alert\""));
    bench.wait(60);
    assert_eq!(location(&bob.post(&bench, "/.lb/enrol", &answer).await), "/.lb/factors");
    let mut again = logged_in(&bench, "bob").await;
    assert_eq!(again.post(&bench, "/.lb/enrol", &answer).await.status(), StatusCode::UNAUTHORIZED, "again");
    let late = bench.step_up.enrolment_token(&bench.config, "bob", 100).unwrap();
    bench.wait(100);
    assert_eq!(again.post(&bench, "/.lb/enrol", &form("token", &late)).await.status(), StatusCode::UNAUTHORIZED);
    bench.wait(600);
    assert_eq!(location(&bob.open(&bench, "/.lb/factors").await), "/.lb/enrol", "a token opens ten minutes");
    assert!(bench.step_up.enrolment_token(&bench.config, "nobody", 100).is_err());
}

#[tokio::test]
async fn guessing_at_tokens_is_throttled() {
    let bench = Bench::with(config());
    let mut bob = logged_in(&bench, "bob").await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(bob.post(&bench, "/.lb/enrol", "token=AAAAAAAAAAAAAAAA").await.status().as_u16());
    }
    assert_eq!(statuses, [401, 401, 429]);
}

#[tokio::test]
async fn an_authenticator_app_is_added_named_used_and_removed() {
    let bench = Bench::with(config());
    let mut bob = with_token(&bench).await;
    let page = text(bob.open(&bench, "/.lb/factors/add/totp").await).await;
    assert!(page.contains("<svg") && page.contains("autocomplete=\"one-time-code\""));
    let shown = body_json(tool_of(&bob).open(&bench, "/.lb/factors/add/totp").await).await;
    let secret = shown["secret"].as_str().unwrap().replace('-', "");
    let secret = totp_rs::Secret::try_from_base32(&secret).unwrap().as_bytes().to_vec();
    let wrong = bob.post(&bench, "/.lb/factors/add/totp", "answer=000000").await;
    assert_eq!(wrong.status(), StatusCode::BAD_REQUEST);
    let shown_again = body_json(tool_of(&bob).open(&bench, "/.lb/factors/add/totp").await).await;
    assert_ne!(shown_again["secret"], shown["secret"], "each page has a secret of its own");
    let secret_again = shown_again["secret"].as_str().unwrap().replace('-', "");
    let right = totp_rs::Secret::try_from_base32(&secret_again).unwrap().as_bytes().to_vec();
    assert_ne!(right, secret);
    let code = totp::totp(&right).generate(bench.clock.now()).to_string();
    let added = bob.post(&bench, "/.lb/factors/add/totp", &format!("answer={code}&name=my+phone")).await;
    assert_eq!(location(&added), "/.lb/factors");
    let factors = listed(&bench, &bob).await;
    assert_eq!((&factors[0]["method"], &factors[0]["name"]), (&json!("totp"), &json!("my phone")));
    let id = factors[0]["id"].as_str().unwrap();
    let renamed = bob.post(&bench, "/.lb/factors", &format!("rename={id}&name=old+phone")).await;
    assert_eq!(location(&renamed), "/.lb/factors");
    assert_eq!(listed(&bench, &bob).await[0]["name"], "old phone");
    for name in ["", "%0A", &"x".repeat(65)] {
        let refused = bob.post(&bench, "/.lb/factors", &format!("rename={id}&name={name}")).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{name:?}");
    }
    let removed = bob.post(&bench, "/.lb/factors", &format!("remove={id}")).await;
    assert_eq!(location(&removed), "/.lb/factors");
    assert!(listed(&bench, &bob).await.is_empty());
    let again = bob.post(&bench, "/.lb/factors", &format!("remove={id}")).await;
    assert_eq!(again.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_passkey_is_added_for_the_challenge_that_was_shown_to_this_login() {
    let bench = Bench::with(config());
    let mut bob = with_token(&bench).await;
    let authenticator = SoftAuthenticator::new(b"one");
    let url = "/.lb/factors/add/webauthn";
    let options = body_json(tool_of(&bob).open(&bench, url).await).await["publicKey"].clone();
    assert_eq!(options["rp"]["id"], RP_ID);
    assert_eq!(options["user"]["name"], "bob");
    let honest = Claims::honest("webauthn.create");
    let answer = authenticator.create(&PasskeyChallenge::of_options(&options), &honest);
    let mut other = with_token(&bench).await;
    let stolen = other.post(&bench, url, &form("passkey", &answer)).await;
    assert_eq!(stolen.status(), StatusCode::BAD_REQUEST, "shown to another login");
    assert_eq!(location(&bob.post(&bench, url, &form("passkey", &answer)).await), "/.lb/factors");
    let replayed = bob.post(&bench, url, &form("passkey", &answer)).await;
    assert_eq!(replayed.status(), StatusCode::BAD_REQUEST, "a second time");
    assert_eq!(listed(&bench, &bob).await.len(), 1);
    let options = body_json(tool_of(&bob).open(&bench, url).await).await["publicKey"].clone();
    assert_eq!(options["excludeCredentials"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn pins_keys_and_recovery_codes_are_added_when_they_are_good() {
    let bench = Bench::with(config());
    let mut bob = with_token(&bench).await;
    let rows = [
        ("pin", "answer=123456&again=123456", StatusCode::BAD_REQUEST),
        ("pin", "answer=271828&again=271829", StatusCode::BAD_REQUEST),
        ("pin", "answer=271828&again=271828", StatusCode::SEE_OTHER),
        ("devkey", "answer=ssh-ed25519+nonsense", StatusCode::BAD_REQUEST),
        (
            "devkey",
            "answer=ssh-ed25519+AAAAC3NzaC1lZDI1NTE5AAAAIMcGC9uqr4Hq7uEk3V1tEoTQZ3s4qs8U7uS1mmbwDiIW+me",
            StatusCode::SEE_OTHER,
        ),
        ("recovery", "", StatusCode::OK),
        ("recovery", "", StatusCode::OK),
    ];
    for (method, answer, status) in rows {
        let response = bob.post(&bench, &format!("/.lb/factors/add/{method}"), answer).await;
        assert_eq!(response.status(), status, "{method} {answer}");
    }
    let factors = listed(&bench, &bob).await;
    let mut methods: Vec<_> = factors.iter().map(|factor| factor["method"].as_str().unwrap()).collect();
    methods.sort_unstable();
    assert_eq!(methods, ["devkey", "pin", "recovery"], "new recovery codes replace the old ones");
    assert!(factors.iter().any(|factor| factor["name"].as_str().unwrap().starts_with("SHA256:")));
    let kept = bench.step_up.factors_of(&bench.config, "bob").unwrap();
    assert_eq!(kept.len(), 3);
    bench.step_up.remove_factor(&bench.config, "bob", &kept[0].id).unwrap();
    assert!(bench.step_up.remove_factor(&bench.config, "bob", &kept[0].id).is_err());
    assert_eq!(bench.step_up.factors_of(&bench.config, "bob").unwrap().len(), 2);
}

#[tokio::test]
async fn other_sites_cannot_add_or_remove_factors() {
    let bench = Bench::with(config());
    let bob = with_token(&bench).await;
    let mut lured = bob.lured();
    for (url, body) in [("/.lb/factors/add/pin", "answer=271828&again=271828"), ("/.lb/factors", "remove=00")] {
        assert_eq!(lured.post(&bench, url, body).await.status(), StatusCode::FORBIDDEN, "{url}");
    }
    assert!(listed(&bench, &bob).await.is_empty());
}
