//! Answers on the challenge page: right, wrong, used, late, stolen, and too many.

use http::StatusCode;
use lb_policy::{Level, Levels, Method};

use super::bench::{Bench, Visitor, level_two, location, text};
use crate::joint::SourceChange;

/// A browser whose refund was challenged, and where to answer.
async fn challenged(bench: &Bench) -> (Visitor, String) {
    let mut browser = Visitor::browser();
    browser.log_in(bench, "alice").await;
    let response = browser.challenged(bench, browser.refund(), level_two()).await;
    let url = location(&response).to_owned();
    (browser, url)
}

#[tokio::test]
async fn a_right_code_raises_the_session_under_a_new_id_and_kills_the_old_cookie() {
    let bench = Bench::new();
    let (mut browser, url) = challenged(&bench).await;
    let before = browser.clone();
    bench.wait(20);
    let response = browser.post(&bench, &url, &format!("code={}", bench.code())).await;
    assert_eq!(location(&response), url.replace("challenge", "resume"));
    let raised = browser.session(&bench).unwrap();
    assert_eq!(raised.level(&Levels::default(), bench.clock.now()), Level(2));
    let ages: Vec<_> = raised.factors().iter().map(|f| (f.method, f.age_seconds(bench.clock.now()))).collect();
    assert_eq!(ages, [(Method::Password, Some(20)), (Method::Totp, Some(0))], "each factor keeps its own age");
    assert!(before.session(&bench).is_none());
    let bench = bench.restarted();
    assert!(before.session(&bench).is_none() && browser.session(&bench).is_some(), "after a crash");
}

#[tokio::test]
async fn wrong_used_and_stale_codes_are_refused_alike() {
    let bench = Bench::new();
    let (mut first, url) = challenged(&bench).await;
    let used = bench.code();
    first.post(&bench, &url, &format!("code={used}")).await;
    let (mut browser, url) = challenged(&bench).await;
    for (name, code) in [("wrong", "000000"), ("used", used.as_str()), ("empty-looking", "+++")] {
        let response = browser.post(&bench, &url, &format!("code={code}")).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{name}");
        let page = text(response).await;
        assert!(page.contains("role=\"alert\"") && page.contains("That code was not accepted."), "{name}");
        bench.wait(60);
    }
    assert_eq!(browser.post(&bench, &url, &format!("code={used}")).await.status(), StatusCode::UNAUTHORIZED, "stale");
    assert_eq!(browser.session(&bench).unwrap().level(&Levels::default(), bench.clock.now()), Level(1));
}

#[tokio::test]
async fn a_used_code_stays_used_after_a_crash() {
    let bench = Bench::new();
    let (mut first, url) = challenged(&bench).await;
    let used = format!("code={}", bench.code());
    assert_eq!(first.post(&bench, &url, &used).await.status(), StatusCode::SEE_OTHER);
    let bench = bench.restarted();
    let (mut second, url) = challenged(&bench).await;
    assert_eq!(second.post(&bench, &url, &used).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_answer_to_what_is_proved_already_checks_nothing_and_shows_browsers_the_way_on() {
    let bench = Bench::new();
    let (mut browser, url) = challenged(&bench).await;
    let form = format!("code={}", bench.code());
    let onward = location(&browser.post(&bench, &url, &form).await).to_owned();
    assert_eq!(location(&browser.post(&bench, &url, &form).await), onward);
    let mut curl = Visitor::curl();
    curl.cookies = browser.cookies.clone();
    assert_eq!(curl.post(&bench, &url, &form).await.status(), StatusCode::GONE);
}

#[tokio::test]
async fn one_code_sent_from_many_logins_at_once_is_taken_once() {
    let bench = Bench::new();
    let (mut one, one_url) = challenged(&bench).await;
    let (mut other, other_url) = challenged(&bench).await;
    let form = format!("code={}", bench.code());
    let (first, second) = tokio::join!(one.post(&bench, &one_url, &form), other.post(&bench, &other_url, &form));
    let mut statuses = [first.status().as_u16(), second.status().as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [303, 401]);
}

#[tokio::test]
async fn five_wrong_answers_end_the_transaction_and_waits_grow_between_them() {
    let bench = Bench::new();
    let (mut browser, url) = challenged(&bench).await;
    for wait in [0, 0, 1, 2, 4] {
        if wait > 0 {
            let early = browser.post(&bench, &url, "code=000000").await;
            assert_eq!(early.status(), StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(early.headers()["retry-after"], wait.to_string().as_str());
        }
        bench.wait(wait);
        assert_eq!(browser.post(&bench, &url, "code=000000").await.status(), StatusCode::UNAUTHORIZED);
    }
    bench.wait(60);
    let right = browser.post(&bench, &url, &format!("code={}", bench.code())).await;
    assert_eq!(right.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn opening_more_logins_and_challenges_buys_no_more_guesses() {
    let bench = Bench::new();
    let mut checked = 0;
    for _ in 0..50 {
        let (mut browser, url) = challenged(&bench).await;
        for _ in 0..4 {
            let status = browser.post(&bench, &url, "code=000000").await.status();
            checked += usize::from(status == StatusCode::UNAUTHORIZED);
        }
    }
    assert_eq!(checked, 2);
}

#[tokio::test]
async fn nobody_else_can_answer_a_challenge_nor_make_somebody_answer_theirs() {
    let bench = Bench::new();
    let (alices, url) = challenged(&bench).await;
    let form = format!("code={}", bench.code());
    let mut bob = Visitor::browser();
    bob.log_in(&bench, "bob").await;
    let mut alice_elsewhere = Visitor::browser();
    alice_elsewhere.log_in(&bench, "alice").await;
    let mut without_cookie = alices.clone();
    without_cookie.cookies.retain(|name, _| !name.starts_with("__Host-lb-tx-"));
    let mut bob_with_her_cookie = bob.clone();
    bob_with_her_cookie
        .cookies
        .extend(alices.cookies.iter().filter(|c| c.0.contains("-tx-")).map(|(n, v)| (n.clone(), v.clone())));
    let rows = [
        ("another user", bob),
        ("another user with the transaction's cookie", bob_with_her_cookie),
        ("the same user in another browser", alice_elsewhere),
        ("the same login without the transaction's cookie", without_cookie),
        ("a page of another site", alices.lured()),
    ];
    for (name, mut visitor) in rows {
        assert_eq!(visitor.post(&bench, &url, &form).await.status(), StatusCode::FORBIDDEN, "{name}");
    }
    let mut alices = alices;
    assert_eq!(alices.post(&bench, &url, &form).await.status(), StatusCode::SEE_OTHER, "and hers still works");
}

#[tokio::test]
async fn a_challenge_is_over_after_its_time_and_after_logout() {
    let bench = Bench::new();
    let (mut browser, url) = challenged(&bench).await;
    bench.wait(600);
    assert_eq!(browser.open(&bench, &url).await.status(), StatusCode::GONE);
    let (mut browser, url) = challenged(&bench).await;
    browser.post(&bench, "/.lb/logout", "").await;
    assert_eq!(location(&browser.open(&bench, &url).await), "/.lb/login");
}

#[tokio::test]
async fn xdp_learns_of_finished_step_ups_and_of_sources_that_keep_failing() {
    let mut config = super::super::testing::config();
    config.step_up.block_after_failures = 3;
    let bench = Bench::with(config);
    let (mut browser, url) = challenged(&bench).await;
    for wait in [0, 0, 1] {
        bench.wait(wait);
        browser.post(&bench, &url, "code=000000").await;
    }
    assert!(matches!(bench.told.lock().unwrap()[..], [SourceChange::Blocked { .. }]));
    bench.wait(2);
    browser.post(&bench, &url, &format!("code={}", bench.code())).await;
    assert!(matches!(bench.told.lock().unwrap()[1..], [SourceChange::Verified { .. }]));
}

#[tokio::test]
async fn two_factors_are_asked_for_one_after_the_other() {
    let bench = Bench::new();
    let mut browser = Visitor::browser();
    browser.log_in(&bench, "alice").await;
    let mut both = level_two();
    both.ways = vec![vec![Method::Password, Method::Totp]];
    let response = browser.challenged(&bench, browser.get("/export"), both).await;
    let url = location(&response).to_owned();
    assert!(text(browser.open(&bench, &url).await).await.contains("Password (step 1 of 2)"));
    let response = browser.post(&bench, &url, "password=correct+horse+battery+staple").await;
    assert_eq!(location(&response), url);
    assert!(text(browser.open(&bench, &url).await).await.contains("6-digit code (step 2 of 2)"));
    let response = browser.post(&bench, &url, &format!("code={}", bench.code())).await;
    assert_eq!(location(&response), "/export");
}
