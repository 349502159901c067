//! Logging in, staying logged in, and no longer being.

use http::{HeaderValue, StatusCode, header};

use super::super::Session;
use super::super::testing::TOTP_SECRET;
use super::bench::{Bench, Visitor, json, level_two, location, text};
use crate::identity::ApiKeys;

const RIGHT: &str = "user=alice&password=correct+horse+battery+staple";

#[tokio::test]
async fn curl_logs_in_with_one_form_and_sees_its_session() {
    let (bench, mut curl) = (Bench::new(), Visitor::curl());
    let response = curl.post(&bench, "/.lb/login", RIGHT).await;
    assert_eq!(response.status(), StatusCode::OK);
    bench.wait(5);
    let session = json(curl.open(&bench, "/.lb/session").await).await;
    assert_eq!(
        session,
        serde_json::json!({
            "user": "alice", "level": 1, "acr": "urn:lb:acr:1",
            "factors": [{"method": "password", "age_seconds": 5}], "ends_in_seconds": 12 * 3600 - 5,
        })
    );
}

#[tokio::test]
async fn a_browser_comes_back_to_where_it_was_going() {
    let (bench, mut browser) = (Bench::new(), Visitor::browser());
    let login_url = location(&bench.step_up.log_in(&browser.get("/orders?page=2"))).to_owned();
    assert!(login_url.starts_with("/.lb/login?to=v1."), "{login_url}");
    let page = text(browser.open(&bench, &login_url).await).await;
    assert!(page.contains(&format!("action=\"{login_url}\"")));
    let response = browser.post(&bench, &login_url, RIGHT).await;
    assert_eq!(location(&response), "/orders?page=2");
}

#[tokio::test]
async fn only_a_way_back_that_we_sealed_for_this_host_is_taken() {
    let bench = Bench::new();
    let mut elsewhere = Visitor::browser().get("/orders");
    elsewhere.host = "blog.example".to_owned();
    let other_host = location(&bench.step_up.log_in(&elsewhere)).to_owned();
    let rows = [
        ("no way back", "/.lb/login"),
        ("a path in the clear", "/.lb/login?to=/orders"),
        ("another origin", "/.lb/login?to=https://evil.example/"),
        ("one sealed for another host", &other_host),
    ];
    for (name, url) in rows {
        let response = Visitor::browser().post(&bench, url, RIGHT).await;
        assert_eq!(location(&response), "/", "{name}");
    }
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_get_the_same_answer() {
    for visitor in [Visitor::curl(), Visitor::browser()] {
        let bench = Bench::new();
        let mut answers = Vec::new();
        for user in ["alice", "alicf"] {
            let response = visitor.clone().post(&bench, "/.lb/login", &format!("user={user}&password=wrong")).await;
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
            assert!(response.headers().contains_key(header::WWW_AUTHENTICATE));
            assert!(!response.headers().contains_key(header::SET_COOKIE));
            let body = text(response).await.replace(user, "USER");
            // Each page has a nonce of its own.
            answers
                .push(body.split("nonce=\"").map(|part| part.get(22..).unwrap_or(part).to_owned()).collect::<Vec<_>>());
        }
        assert_eq!(answers[0], answers[1]);
    }
}

#[tokio::test]
async fn a_form_that_is_not_a_login_is_refused() {
    let (bench, mut curl) = (Bench::new(), Visitor::curl());
    let long = format!("user=alice&password={}", "x".repeat(1025));
    for form in ["", "user=alice", "password=x", "user=alice&user=bob&password=x", "user=%ff&password=x", &long] {
        assert_eq!(curl.post(&bench, "/.lb/login", form).await.status(), StatusCode::BAD_REQUEST, "{form:.40}");
    }
    let huge = "x".repeat(9000);
    assert_eq!(curl.post(&bench, "/.lb/login", &huge).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let json = curl.request("POST", "/.lb/login", Some("application/json"), "{}");
    let response = bench.step_up.pages(&bench.visit(), json, None).await;
    assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn another_sites_page_can_log_nobody_in_or_out() {
    let (bench, mut browser) = (Bench::new(), Visitor::browser());
    let mut lured = browser.lured();
    assert_eq!(lured.post(&bench, "/.lb/login", RIGHT).await.status(), StatusCode::FORBIDDEN);
    assert!(lured.cookies.is_empty());
    browser.log_in(&bench, "alice").await;
    assert_eq!(browser.lured().post(&bench, "/.lb/logout", "").await.status(), StatusCode::FORBIDDEN);
    assert!(browser.session(&bench).is_some());
}

#[tokio::test]
async fn guessing_is_slowed_down_even_for_the_right_password_and_a_wait_is_announced() {
    let (bench, mut curl) = (Bench::new(), Visitor::curl());
    for _ in 0..2 {
        let wrong = curl.post(&bench, "/.lb/login", "user=alice&password=guess").await;
        assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    }
    let early = curl.post(&bench, "/.lb/login", RIGHT).await;
    assert_eq!(early.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(early.headers()[header::RETRY_AFTER], "1");
    bench.wait(1);
    assert_eq!(curl.post(&bench, "/.lb/login", RIGHT).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn guesses_from_many_addresses_lock_out_strangers_but_not_the_browser_alice_used_before() {
    let (bench, mut alices) = (Bench::new(), Visitor::browser());
    alices.log_in(&bench, "alice").await;
    alices.cookies.remove("__Host-lb");
    let from = |visitor: &Visitor, last: u8, form: &str| {
        let mut request = visitor.request("POST", "/.lb/login", Some("application/x-www-form-urlencoded"), form);
        request.client.address = [198, 51, 100, last].into();
        request
    };
    for last in 0..=120 {
        let guess = from(&Visitor::curl(), last, "user=alice&password=guess");
        bench.step_up.pages(&bench.visit(), guess, None).await;
    }
    let stranger = bench.step_up.pages(&bench.visit(), from(&Visitor::curl(), 200, RIGHT), None).await;
    assert_eq!(stranger.status(), StatusCode::TOO_MANY_REQUESTS);
    let owner = bench.step_up.pages(&bench.visit(), from(&alices, 201, RIGHT), None).await;
    assert_eq!(owner.status(), StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn logging_out_ends_every_cookie_of_the_login_for_good() {
    let (bench, mut browser) = (Bench::new(), Visitor::browser());
    browser.log_in(&bench, "alice").await;
    let stolen = browser.clone();
    let response = browser.post(&bench, "/.lb/logout", "").await;
    assert_eq!(location(&response), "/.lb/login");
    assert!(!browser.cookies.contains_key("__Host-lb"));
    assert!(stolen.session(&bench).is_none());
    assert!(stolen.session(&bench.restarted()).is_none(), "after a crash");
}

#[tokio::test]
async fn a_session_planted_before_the_login_is_ended_by_it() {
    let (bench, mut browser) = (Bench::new(), Visitor::browser());
    browser.log_in(&bench, "bob").await;
    let planted = browser.clone();
    browser.log_in(&bench, "alice").await;
    assert_eq!(browser.session(&bench).unwrap().user(), "alice");
    assert!(planted.session(&bench).is_none());
}

#[tokio::test]
async fn sessions_outlive_a_restart_but_not_their_idle_limit_nor_their_user() {
    let (bench, mut browser) = (Bench::new(), Visitor::browser());
    browser.log_in(&bench, "alice").await;
    let mut bench = bench.restarted();
    assert!(browser.session(&bench).is_some());
    let users = std::mem::take(&mut bench.config.users);
    assert!(browser.session(&bench).is_none(), "alice was removed");
    bench.config.users = users;
    bench.config.users[0].totp_secret = Some([TOTP_SECRET, b"!"].concat());
    assert!(browser.session(&bench).is_none(), "her secret changed");
    bench.config.users[0].totp_secret = Some(TOTP_SECRET.to_vec());
    bench.wait(3600);
    assert!(browser.session(&bench).is_none(), "an hour without a request");
}

#[tokio::test]
async fn the_idle_clock_moves_with_use_at_most_once_a_minute_and_never_revives_an_ended_session() {
    let (bench, mut browser) = (Bench::new(), Visitor::browser());
    browser.log_in(&bench, "alice").await;
    let refresh = |bench: &Bench, browser: &Visitor| {
        bench.step_up.session_cookie_refresh("shop.example", &browser.session(bench)?)
    };
    bench.wait(59);
    assert!(refresh(&bench, &browser).is_none());
    for _ in 0..3 {
        bench.wait(3000);
        let cookie = refresh(&bench, &browser).expect("a refresh is due");
        let value = cookie.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap().1.to_owned();
        browser.cookies.insert("__Host-lb".to_owned(), value);
    }
    let held = browser.session(&bench).unwrap();
    bench.wait(100);
    browser.post(&bench, "/.lb/logout", "").await;
    assert!(bench.step_up.session_cookie_refresh("shop.example", &held).is_none());
}

#[tokio::test]
async fn a_cookie_that_is_not_exactly_ours_counts_as_none_and_is_cleared() {
    let (bench, mut browser) = (Bench::new(), Visitor::browser());
    browser.log_in(&bench, "alice").await;
    let ours = browser.cookies["__Host-lb"].clone();
    let device = browser.cookies["__Host-lb-device"].clone();
    let rows = [
        ("cut off", format!("__Host-lb={}", &ours[..ours.len() - 1])),
        ("twice", format!("__Host-lb={ours}; __Host-lb={ours}")),
        ("a sealed cookie of another purpose", format!("__Host-lb={device}")),
        ("nonsense", "__Host-lb=admin".to_owned()),
        ("empty", "__Host-lb=".to_owned()),
    ];
    for (n, (name, cookie)) in rows.into_iter().enumerate() {
        let mut request = Visitor::curl().get("/");
        request.headers.insert(header::COOKIE, HeaderValue::from_str(&cookie).unwrap());
        assert!(bench.session_of(&request).is_none(), "{name}");
        assert_eq!(bench.step_up.load().refused_cookies, n as u64 + 1, "{name}");
        let cleared = bench.step_up.log_in(&request).headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
        assert!(cleared.starts_with("__Host-lb=;") && cleared.ends_with("Max-Age=0"), "{name}");
    }
    let mut other_host = browser.get("/");
    other_host.host = "blog.example".to_owned();
    assert!(bench.session_of(&other_host).is_none(), "another virtual host's");
    assert!(browser.session(&bench).is_some());
}

#[tokio::test]
async fn a_stream_goes_on_as_long_as_its_login_and_beyond_a_rise_in_level() {
    let (mut bench, mut browser) = (Bench::new(), Visitor::browser());
    let keys = ApiKeys::open(bench.step_up.store().clone()).unwrap();
    let goes_on = |bench: &Bench, session: &Session| bench.step_up.goes_on(&bench.config, &keys, session);
    browser.log_in(&bench, "alice").await;
    let session = bench.session_of(&browser.get("/")).unwrap();
    assert!(goes_on(&bench, &session), "at once");

    let url = location(&browser.challenged(&bench, browser.get("/keys"), level_two()).await).to_owned();
    browser.post(&bench, &url, &format!("code={}", bench.code())).await;
    assert!(bench.session_of(&browser.get("/")).is_some_and(|raised| raised != session));
    assert!(goes_on(&bench, &session), "after a rise");

    browser.post(&bench, "/.lb/logout", "").await;
    assert!(!goes_on(&bench, &session), "after logout");

    browser.log_in(&bench, "alice").await;
    let session = bench.session_of(&browser.get("/")).unwrap();
    bench.wait(11 * 3600);
    assert!(goes_on(&bench, &session), "idle, which an open stream is not");
    let users = std::mem::take(&mut bench.config.users);
    assert!(!goes_on(&bench, &session), "its user is gone");
    bench.config.users = users;
    bench.wait(3600);
    assert!(!goes_on(&bench, &session), "after its time");
}
