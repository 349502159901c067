//! The original request after the proof: the same bytes, to the same place, once.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use lb_policy::{Challenge, Method, ProvedFactor};

use super::super::testing::body_of;
use super::bench::{Bench, REFUND, Visitor, level_two, location, per_action, text};

/// A visitor who has proved what `challenge` asks for `method` `target`, and the resume page's URL or the target.
async fn proved(bench: &Bench, mut visitor: Visitor, challenge: Challenge) -> (Visitor, String) {
    visitor.log_in(bench, "alice").await;
    let response = visitor.challenged(bench, visitor.refund(), challenge).await;
    let url = match response.status() {
        StatusCode::SEE_OTHER => location(&response).to_owned(),
        _ => super::bench::json(response).await["challenge_url"].as_str().unwrap().to_owned(),
    };
    let answer = visitor.post(bench, &url, &format!("code={}", bench.code())).await;
    assert!(answer.status() == StatusCode::OK || answer.status() == StatusCode::SEE_OTHER, "{answer:?}");
    (visitor, url.replace("challenge", "resume"))
}

/// The form that the resume page sends, to `target`.
fn resume_form(visitor: &Visitor, resume_url: &str, method: &str, target: &str) -> crate::serve::request::Inbound {
    let id = resume_url.rsplit('/').next().unwrap();
    visitor.request(method, target, Some("application/x-www-form-urlencoded"), &format!("lb-tx={id}"))
}

#[tokio::test]
async fn a_browsers_parked_post_goes_on_with_its_own_bytes_once() {
    let bench = Bench::new();
    let (mut browser, url) = proved(&bench, Visitor::browser(), level_two()).await;
    let page = text(browser.open(&bench, &url).await).await;
    let id = url.rsplit('/').next().unwrap();
    assert!(page.contains("action=\"/refunds?shop=1\""), "{page}");
    assert!(page.contains(&format!("name=\"lb-tx\" value=\"{id}\"")));

    bench.wait(30);
    let form = || resume_form(&browser, &url, "POST", "/refunds?shop=1");
    let (request, factors) = browser.resumed(&bench, form()).await.unwrap();
    assert_eq!(body_of(&request), REFUND.as_bytes());
    assert_eq!(request.headers["content-type"], "application/json");
    assert_eq!(request.headers["content-length"], REFUND.len().to_string().as_str());
    assert_eq!(factors, [ProvedFactor::ordinary(Method::Totp, bench.clock.now())], "proved as if now");
    assert_eq!(browser.resumed(&bench, form()).await.unwrap_err().status(), StatusCode::GONE, "a second time");
    assert_eq!(bench.step_up.load().parked_requests, 0);
}

#[tokio::test]
async fn of_two_racing_resumes_one_goes_on() {
    let bench = Bench::new();
    let (browser, url) = proved(&bench, Visitor::browser(), level_two()).await;
    let form = || resume_form(&browser, &url, "POST", "/refunds?shop=1");
    let (one, other) = tokio::join!(browser.resumed(&bench, form()), browser.resumed(&bench, form()));
    assert!(one.is_ok() != other.is_ok());
}

#[tokio::test]
async fn a_proof_for_one_request_sends_no_other() {
    let bench = Bench::new();
    let (browser, url) = proved(&bench, Visitor::browser(), level_two()).await;
    let mut bob = Visitor::browser();
    bob.log_in(&bench, "bob").await;
    let mut moved = resume_form(&browser, &url, "POST", "/refunds?shop=1");
    moved.authority = "shop.example:8443".to_owned();
    let rows = [
        ("another path", resume_form(&browser, &url, "POST", "/transfers?shop=1"), StatusCode::FORBIDDEN),
        ("another query", resume_form(&browser, &url, "POST", "/refunds?shop=2"), StatusCode::FORBIDDEN),
        ("another port", moved, StatusCode::FORBIDDEN),
        ("another user", resume_form(&bob, &url, "POST", "/refunds?shop=1"), StatusCode::FORBIDDEN),
        ("another site's page", resume_form(&browser.lured(), &url, "POST", "/refunds?shop=1"), StatusCode::FORBIDDEN),
        ("nobody", resume_form(&Visitor::browser(), &url, "POST", "/refunds?shop=1"), StatusCode::SEE_OTHER),
    ];
    for (name, request, status) in rows {
        assert_eq!(browser.resumed(&bench, request).await.unwrap_err().status(), status, "{name}");
    }
    let own = resume_form(&browser, &url, "POST", "/refunds?shop=1");
    assert!(browser.resumed(&bench, own).await.is_ok(), "and its own still goes on");
}

#[tokio::test]
async fn nothing_goes_on_before_the_proof() {
    let (bench, mut browser) = (Bench::new(), Visitor::browser());
    browser.log_in(&bench, "alice").await;
    let url = location(&browser.challenged(&bench, browser.refund(), level_two()).await).replace("challenge", "resume");
    let early = resume_form(&browser, &url, "POST", "/refunds?shop=1");
    assert_eq!(browser.resumed(&bench, early).await.unwrap_err().status(), StatusCode::FORBIDDEN);
    assert_eq!(location(&browser.open(&bench, &url).await), url.replace("resume", "challenge"));
}

#[tokio::test]
async fn a_code_for_this_one_action_counts_for_the_same_bytes_sent_again_and_for_no_others() {
    let bench = Bench::new();
    let (curl, _) = proved(&bench, Visitor::curl(), per_action()).await;
    let json = Some("application/json");
    let with = |name, value| {
        let mut request = curl.refund();
        request.headers.append(name, HeaderValue::from_static(value));
        request
    };
    let others = [
        ("the same bytes to be unpacked", with(CONTENT_ENCODING, "deflate")),
        ("a second type beside the first", with(CONTENT_TYPE, "text/plain")),
        ("another amount", curl.request("POST", "/refunds?shop=1", json, r#"{"amount": 901.00}"#)),
        ("another type", curl.request("POST", "/refunds?shop=1", Some("text/plain"), REFUND)),
        ("another path", curl.request("POST", "/refunds?shop=2", json, REFUND)),
        ("another method", curl.request("PUT", "/refunds?shop=1", json, REFUND)),
    ];
    for (name, request) in others {
        let (request, factors) = curl.resumed(&bench, request).await.unwrap();
        assert!(factors.is_empty(), "{name}");
        assert!(!body_of(&request).is_empty(), "{name}: the body goes on");
    }
    let (request, factors) = curl.resumed(&bench, curl.refund()).await.unwrap();
    assert_eq!(factors.len(), 1);
    assert_eq!(body_of(&request), REFUND.as_bytes());
    assert!(curl.resumed(&bench, curl.refund()).await.unwrap().1.is_empty(), "once");
}

#[tokio::test]
async fn a_page_that_needs_a_fresh_code_each_time_opens_once_for_it() {
    let (bench, mut browser) = (Bench::new(), Visitor::browser());
    browser.log_in(&bench, "alice").await;
    let url = location(&browser.challenged(&bench, browser.get("/keys"), per_action()).await).to_owned();
    let response = browser.post(&bench, &url, &format!("code={}", bench.code())).await;
    assert_eq!(location(&response), "/keys");
    for proofs in [1, 0] {
        assert_eq!(browser.resumed(&bench, browser.get("/keys")).await.unwrap().1.len(), proofs);
    }
}

#[tokio::test]
async fn requests_that_only_look_like_a_resume_are_left_alone() {
    let (bench, mut browser) = (Bench::new(), Visitor::browser());
    browser.log_in(&bench, "alice").await;
    let form = Some("application/x-www-form-urlencoded");
    let bodies = ["lb-tx=", "a=b", &format!("lb-tx={}", "G".repeat(32)), &format!("lb_tx={}", "0".repeat(32))];
    for body in bodies {
        let (request, factors) = browser.resumed(&bench, browser.request("POST", "/x", form, body)).await.unwrap();
        assert_eq!((body_of(&request), factors.len()), (body.as_bytes(), 0));
    }
}
