//! The gateway's own pages: what exists, what protects it, and what it tells people who see, hear or type.

use http::{StatusCode, header};

use super::bench::{Bench, Visitor, level_two, location, text};

#[tokio::test]
async fn nothing_but_the_listed_pages_exists_under_the_prefix() {
    let bench = Bench::new();
    let id = "0".repeat(32);
    let rows = [
        ("GET", "/.lb/".to_owned(), 404),
        ("GET", "/.lb/metrics".to_owned(), 404),
        ("GET", "/.lb/admin".to_owned(), 404),
        ("GET", "/.lb/login/".to_owned(), 404),
        ("GET", "/.lb/LOGIN".to_owned(), 404),
        ("GET", "/.lb/challenge".to_owned(), 404),
        ("GET", "/.lb/challenge/".to_owned(), 404),
        ("GET", "/.lb/challenge/zz".to_owned(), 404),
        ("GET", format!("/.lb/challenge/{id}/x"), 404),
        ("GET", format!("/.lb/challenge/{}", "A".repeat(32)), 404),
        ("GET", "/.lb/logout".to_owned(), 405),
        ("PUT", "/.lb/login".to_owned(), 405),
        ("POST", "/.lb/jwks.json".to_owned(), 405),
        ("DELETE", format!("/.lb/resume/{id}"), 405),
        ("GET", "/.lb/session".to_owned(), 401),
        ("GET", format!("/.lb/challenge/{id}"), 401),
        ("GET", "/.lb/login".to_owned(), 200),
        ("HEAD", "/.lb/login".to_owned(), 200),
        ("GET", "/.lb/jwks.json".to_owned(), 200),
    ];
    for (method, path, status) in rows {
        let request = Visitor::curl().request(method, &path, None, "");
        let response = bench.step_up.pages(&bench.visit(), request, None).await;
        assert_eq!(response.status(), status, "{method} {path}");
        assert_eq!(response.headers().contains_key(header::ALLOW), status == 405, "{method} {path}");
    }
}

/// Every page with a form, one after the other.
async fn all_pages(bench: &Bench) -> Vec<(&'static str, http::HeaderMap, String)> {
    let mut browser = Visitor::browser();
    let mut pages = Vec::new();
    let login = browser.open(bench, "/.lb/login").await;
    pages.push(("login", login.headers().clone(), text(login).await));
    browser.log_in(bench, "alice").await;
    let target = "/refunds?note=\"><script>alert(1)</script>";
    let refund = browser.request("POST", target, Some("application/json"), "{}");
    let url = location(&browser.challenged(bench, refund, level_two()).await).to_owned();
    let challenge = browser.open(bench, &url).await;
    pages.push(("challenge", challenge.headers().clone(), text(challenge).await));
    let wrong = browser.post(bench, &url, "code=000000").await;
    pages.push(("wrong code", wrong.headers().clone(), text(wrong).await));
    let session = browser.open(bench, "/.lb/session").await;
    pages.push(("session", session.headers().clone(), text(session).await));
    let response = browser.post(bench, &url, &format!("code={}", bench.code())).await;
    let resume = browser.open(bench, location(&response)).await;
    pages.push(("resume", resume.headers().clone(), text(resume).await));
    pages
}

#[tokio::test]
async fn pages_load_nothing_are_framed_by_nobody_and_run_no_script_but_the_resuming_one() {
    for (name, headers, body) in all_pages(&Bench::new()).await {
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        for part in
            ["default-src 'none'; style-src 'nonce-", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"]
        {
            assert!(policy.contains(part), "{name}: {policy}");
        }
        assert_eq!(policy.contains("script-src"), name == "resume", "{name}");
        assert_eq!(body.matches("<script").count(), usize::from(name == "resume"), "{name}");
        assert_eq!(headers[header::CACHE_CONTROL], "no-store", "{name}");
        assert_eq!(headers[header::X_FRAME_OPTIONS], "DENY", "{name}");
        assert!(body.len() < 30 * 1024, "{name}: {} bytes", body.len());
        for outside in ["http://", "src=", "url(", "@import", "<link"] {
            assert!(!body.contains(outside), "{name} contains {outside}");
        }
    }
}

#[tokio::test]
async fn two_visits_share_no_nonce() {
    let bench = Bench::new();
    let nonce = |headers: &http::HeaderMap| headers[header::CONTENT_SECURITY_POLICY].clone();
    let (one, other) = (all_pages(&bench).await, all_pages(&Bench::new()).await);
    assert_ne!(nonce(&one[0].1), nonce(&other[0].1));
}

#[tokio::test]
async fn pages_can_be_used_by_keyboard_phone_and_screen_reader() {
    for (name, _, body) in all_pages(&Bench::new()).await {
        for part in ["<html lang=\"en\">", "name=\"viewport\"", "<title>", "<h1>", "<main>", "<button type=\"submit\""]
        {
            assert!(body.contains(part), "{name} lacks {part}");
        }
        let first_field = usize::from(name != "session");
        assert_eq!(body.matches("autofocus").count(), first_field, "{name}: one field takes the first key");
        let labels = body.matches("<label for=").count();
        let inputs = body.matches("<input id=").count();
        assert_eq!(labels, inputs, "{name}: every field has its label");
        assert!(body.contains("prefers-color-scheme: dark"), "{name}");
    }
}

#[tokio::test]
async fn the_challenge_page_says_what_is_asked_for_what_and_why() {
    let pages = all_pages(&Bench::new()).await;
    let page = |wanted: &str| pages.iter().find(|page| page.0 == wanted).map(|page| page.2.as_str()).unwrap();
    let challenge = page("challenge");
    for part in [
        "<b>POST</b> /refunds",
        "You are logged in as <strong>alice</strong>",
        "5 minutes",
        "Your request is kept and goes on once you confirm.",
        "name=\"code\"",
        "autocomplete=\"one-time-code\"",
        "inputmode=\"numeric\"",
        "aria-describedby=\"hint\"",
    ] {
        assert!(challenge.contains(part), "{part}");
    }
    let wrong = page("wrong code");
    for part in
        ["role=\"alert\" id=\"error\"", "aria-describedby=\"error hint\"", "aria-invalid=\"true\"", "4 tries are left."]
    {
        assert!(wrong.contains(part), "{part}");
    }
}

#[tokio::test]
async fn denials_tell_the_client_that_it_may_not_and_nothing_of_the_rules() {
    let (bench, mut browser) = (Bench::new(), Visitor::browser());
    browser.log_in(&bench, "alice").await;
    for visitor in [browser, Visitor::curl()] {
        let response = bench.step_up.deny(&visitor.get("/admin"));
        assert_eq!(
            (response.status(), &response.headers()["cache-control"]),
            (StatusCode::FORBIDDEN, &"no-store".parse().unwrap())
        );
        assert!(text(response).await.contains("The rules of this service do not allow this request."));
    }
}
