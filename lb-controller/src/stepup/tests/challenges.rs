//! What a challenged client is told, by kind of client.

use http::{StatusCode, header};
use lb_policy::{Challenge, Level, Levels, Method, ProvableFactors as _, Requirement};

use super::bench::{Bench, NOW, Visitor, json, level_two, location, per_action, text};

async fn logged_in(bench: &Bench, mut visitor: Visitor, user: &str) -> Visitor {
    visitor.log_in(bench, user).await;
    visitor
}

#[tokio::test]
async fn curl_is_told_in_the_words_of_rfc_9470_proves_a_code_and_its_retry_passes() {
    let bench = Bench::new();
    let mut curl = logged_in(&bench, Visitor::curl(), "alice").await;
    let response = curl.challenged(&bench, curl.refund(), level_two()).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        response.headers()[header::WWW_AUTHENTICATE],
        r#"Bearer error="insufficient_user_authentication", acr_values="urn:lb:acr:2", max_age="300""#
    );
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    let mut problem = json(response).await;
    let url = problem["challenge_url"].as_str().unwrap().to_owned();
    assert_eq!(problem["status_url"], format!("{url}/status"));
    problem.as_object_mut().unwrap().retain(|key, _| !["challenge_url", "status_url", "detail"].contains(&&**key));
    let expected = serde_json::json!({
        "type": "urn:lb:problem:step-up", "title": "Step-up required", "status": 401,
        "acr_values": ["urn:lb:acr:2"], "max_age": 300, "methods": ["totp"], "expires_in": 600, "resume": "retry",
    });
    assert_eq!(problem, expected);

    let response = curl.post(&bench, &url, &format!("code={}", bench.code())).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(json(response).await["level"], 2);
    let (request, proved) = curl.resumed(&bench, curl.refund()).await.unwrap();
    assert!(proved.is_empty(), "the session says it all");
    assert_eq!(bench.session_of(&request).unwrap().level(&Levels::default(), NOW), Level(2));
}

#[tokio::test]
async fn requirements_are_summed_up_by_the_highest_level_and_the_shortest_age() {
    let requirement = |level, max_age_seconds, per_action| {
        let requirement = Requirement { level, max_age_seconds, per_action, ..Requirement::default() };
        ("rule".into(), requirement)
    };
    let error = r#"Bearer error="insufficient_user_authentication""#;
    let rows = [
        (
            "a method alone: the level it leads to",
            vec![requirement(None, None, false)],
            format!(r#"{error}, acr_values="urn:lb:acr:2""#),
        ),
        (
            "a level alone",
            vec![requirement(Some(Level(2)), None, false)],
            format!(r#"{error}, acr_values="urn:lb:acr:2""#),
        ),
        (
            "two rules",
            vec![requirement(Some(Level(1)), Some(900), false), requirement(Some(Level(2)), Some(60), false)],
            format!(r#"{error}, acr_values="urn:lb:acr:2", max_age="60""#),
        ),
        (
            "one action",
            vec![requirement(None, Some(300), true)],
            format!(r#"{error}, acr_values="urn:lb:acr:2", max_age="0""#),
        ),
    ];
    let bench = Bench::new();
    let mut curl = logged_in(&bench, Visitor::curl(), "alice").await;
    for (name, unmet, expected) in rows {
        let challenge = Challenge { unmet, ways: vec![vec![Method::Totp]], shown: vec![] };
        let response = curl.challenged(&bench, curl.get("/x"), challenge).await;
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], expected.as_str(), "{name}");
    }
}

#[tokio::test]
async fn who_has_no_such_factor_is_told_so_once_and_not_sent_in_circles() {
    let bench = Bench::new();
    for visitor in [Visitor::curl(), Visitor::browser()] {
        let mut bob = logged_in(&bench, visitor, "bob").await;
        let session = bob.session(&bench).unwrap();
        let provable = bench.step_up.provable(&bench.config, Some(&session)).provable();
        let methods: Vec<_> = provable.iter().map(|factor| factor.method).collect();
        assert_eq!(methods, [Method::Password, Method::ProofOfWork]);
        let no_way = Challenge { ways: vec![], ..level_two() };
        let response = bob.challenged(&bench, bob.refund(), no_way).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert!(!response.headers().contains_key(header::WWW_AUTHENTICATE));
    }
}

#[tokio::test]
async fn grpc_and_preflights_are_answered_in_their_own_shape() {
    let bench = Bench::new();
    let mut curl = logged_in(&bench, Visitor::curl(), "alice").await;
    let call = curl.request("POST", "/shop.Refunds/Create", Some("application/grpc"), "\0\0\0\0\0");
    let logged_out = bench.step_up.log_in(&call);
    let challenged = curl.challenged(&bench, call, level_two()).await;
    for response in [&logged_out, &challenged] {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], "16");
        assert!(response.headers().contains_key(header::WWW_AUTHENTICATE));
    }
    let mut preflight = Visitor::curl().request("OPTIONS", "/refunds", None, "");
    preflight.headers.insert("origin", "https://shop.example".parse().unwrap());
    preflight.headers.insert("access-control-request-method", "PUT".parse().unwrap());
    let response = bench.step_up.log_in(&preflight);
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert!(!response.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
}

#[tokio::test]
async fn a_request_from_another_sites_page_is_neither_parked_nor_challenged() {
    let bench = Bench::new();
    let browser = logged_in(&bench, Visitor::browser(), "alice").await;
    let mut lured = browser.lured();
    let response = lured.challenged(&bench, lured.refund(), level_two()).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(bench.step_up.load().parked_requests, 0);
    assert!(!lured.cookies.keys().any(|name| name.contains("-tx-")));
}

#[tokio::test]
async fn browsers_keep_five_transaction_cookies_and_the_oldest_make_room() {
    let bench = Bench::new();
    let mut browser = logged_in(&bench, Visitor::browser(), "alice").await;
    let mut urls = Vec::new();
    for n in 0..7 {
        bench.wait(1);
        let response = browser.challenged(&bench, browser.get(&format!("/page/{n}")), level_two()).await;
        urls.push(location(&response).to_owned());
    }
    let alive = |cookies: &Visitor| cookies.cookies.keys().filter(|name| name.starts_with("__Host-lb-tx-")).count();
    assert!(alive(&browser) <= 5, "{}", alive(&browser));
    assert_ne!(browser.open(&bench, &urls[0]).await.status(), StatusCode::OK);
    assert_eq!(browser.open(&bench, &urls[6]).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn parking_has_a_limit_for_each_body_and_each_login_and_what_is_over_is_sent_again() {
    let mut bench = Bench::new();
    bench.config.step_up.park_limit_bytes = 100;
    let mut browser = logged_in(&bench, Visitor::browser(), "alice").await;
    let too_large = browser.request("POST", "/upload", Some("text/plain"), &"x".repeat(101));
    location(&browser.challenged(&bench, too_large, level_two()).await);
    assert_eq!(bench.step_up.load().parked_requests, 0);
    for parked in [1, 2, 3, 3] {
        location(&browser.challenged(&bench, browser.refund(), level_two()).await);
        assert_eq!(bench.step_up.load().parked_requests, parked);
    }
    browser.post(&bench, "/.lb/logout", "").await;
    assert_eq!((bench.step_up.load().parked_requests, bench.step_up.load().parked_bytes), (0, 0));
}

#[tokio::test]
async fn what_can_be_neither_kept_nor_told_apart_is_refused_rather_than_asked_for_again_and_again() {
    let mut bench = Bench::new();
    bench.config.step_up.park_limit_bytes = 100;
    for visitor in [Visitor::browser(), Visitor::curl()] {
        let mut visitor = logged_in(&bench, visitor, "alice").await;
        let too_large = visitor.request("POST", "/upload", Some("text/plain"), &"x".repeat(101));
        let response = visitor.challenged(&bench, too_large, per_action()).await;
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}

#[tokio::test]
async fn what_was_parked_is_forgotten_when_its_time_is_over() {
    let bench = Bench::new();
    let mut browser = logged_in(&bench, Visitor::browser(), "alice").await;
    browser.challenged(&bench, browser.refund(), per_action()).await;
    assert_eq!(bench.step_up.load().parked_requests, 1);
    bench.wait(600);
    bench.step_up.tend();
    assert_eq!(bench.step_up.load().parked_requests, 0);
}

#[tokio::test]
async fn a_script_waits_for_a_proof_that_is_given_in_another_window() {
    let bench = Bench::new();
    let mut script = logged_in(&bench, Visitor::curl(), "alice").await;
    let problem = json(script.challenged(&bench, script.refund(), level_two()).await).await;
    let (url, status_url) = (problem["challenge_url"].as_str().unwrap(), problem["status_url"].as_str().unwrap());
    let open = json(script.open(&bench, status_url).await).await;
    assert_eq!(open, serde_json::json!({"state": "open", "missing": ["totp"], "expires_in": 600}));

    // The same browser, in a window of its own.
    let mut window = Visitor::browser();
    window.cookies.clone_from(&script.cookies);
    let answer = window.post(&bench, url, &format!("code={}", bench.code())).await;
    let done = window.open(&bench, location(&answer)).await;
    let policy = done.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
    let page = text(done).await;
    assert!(page.contains("You can close this window"), "{page}");
    let nonce = page.split("<script nonce=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    assert!(policy.contains(&format!("script-src 'nonce-{nonce}';")), "{policy}");

    let stranger = Visitor::curl().open(&bench, status_url).await;
    assert_eq!(stranger.status(), StatusCode::UNAUTHORIZED);
    script.cookies = window.cookies;
    assert_eq!(json(script.open(&bench, status_url).await).await["state"], "proved");
}

#[tokio::test]
async fn a_backend_that_asks_for_what_was_proved_is_told_to_nobody_twice() {
    let bench = Bench::new();
    let curl = logged_in(&bench, Visitor::curl(), "alice").await;
    let session = curl.session(&bench).unwrap();
    let refuse = bench.step_up.challenge_for_backend(&bench.visit(), curl.refund(), &session, None).await;
    assert_eq!(refuse.status(), StatusCode::FORBIDDEN);
    assert!(!refuse.headers().contains_key(header::WWW_AUTHENTICATE));
    assert_eq!(json(refuse).await["type"], "urn:lb:problem:step-up-unmet");
    let ask = bench.step_up.challenge_for_backend(&bench.visit(), curl.refund(), &session, Some(level_two())).await;
    assert_eq!(ask.status(), StatusCode::UNAUTHORIZED);
}
