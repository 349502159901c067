//! Work that visitors do, logged in or not: how hard it is, what it is good for, and what does not pass for it.

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use lb_tests::edge::{PASSWORD, USER};
use lb_tests::puzzle::Puzzle;
use lb_tests::site::{Plan, Site};
use lb_tests::visitor::{Answer, NAVIGATION, Visitor};
use lb_tests::web_service::WebService;

const ROUTES: &str = "routes:
  - {path: /search/**, pool: shop, public: true}
  - {path: /list/**, pool: shop, public: true}
  - {path: /offers/**, pool: shop, public: true}
  - {path: /**, pool: shop}
";
const RULES: &str = "trusted_proxies: [127.0.0.0/8]
factors: {pow: {least_bits: 8, most_bits: 12}}
rules:
  - {id: search, match: {paths: [/search/**, /offers/**]}, require: {methods: [pow]}}
  - {id: list, match: {paths: [/list/**]}, require: {methods: [pow]}}
  - {id: attack, match: {paths: [/.lb/login]}, when: 'threat >= \"high\"', require: {methods: [pow]}}
  - {id: refund, match: {methods: [POST], paths: [/refunds]}, require: {methods: [pow]}}
";
/// The edge believes who it is told the visitor is.
const HERE: (&str, &str) = ("x-forwarded-for", "192.0.2.7");
const ELSEWHERE: (&str, &str) = ("x-forwarded-for", "192.0.2.8");

async fn site() -> Result<Option<Site>> {
    Site::start(Plan { routes: Some(ROUTES.to_owned()), ..Plan::of(RULES) }).await
}

/// Where the puzzle is that `path` asks for, and the puzzle.
async fn asked(site: &Site, visitor: &mut Visitor, path: &str) -> Result<(String, Puzzle)> {
    let answer = visitor.get(&site.url(path), &[HERE]).await?;
    let url = site.challenge_url(&answer)?;
    ensure!(answer.json()?["methods"] == serde_json::json!(["pow"]), "{}", answer.text());
    let told = visitor.get(&url, &[HERE]).await?.json()?;
    Ok((url, Puzzle::read(&told["ask"])?))
}

async fn answer_from(visitor: &mut Visitor, url: &str, from: (&str, &str), work: &str) -> Result<Answer> {
    visitor.post(url, &[from], &[("work", work)]).await
}

#[tokio::test]
async fn a_visitor_works_once_for_what_a_rule_is_about_from_one_place() -> Result<()> {
    let Some(site) = site().await? else { return Ok(()) };
    let mut visitor = Visitor::default();
    let (url, puzzle) = asked(&site, &mut visitor, "/search/books?q=1").await?;
    ensure!(site.origin.received().is_empty(), "it was let through");
    let status = url.replace("/work?", "/work/status?");
    ensure!(visitor.get(&status, &[HERE]).await?.json()?["state"] == "open");
    let done = answer_from(&mut visitor, &url, HERE, &puzzle.solve()).await?;
    ensure!(done.status == 200, "{}: {}", done.status, done.text());
    ensure!(done.header("set-cookie").contains("Max-Age=600"), "{:?}", done.headers);
    ensure!(visitor.get(&status, &[HERE]).await?.json()?["state"] == "proved");
    for (path, from, status) in [
        ("/search/books?q=1", HERE, 200),
        ("/search/films", HERE, 200),
        ("/offers/today", HERE, 200),
        ("/list/books", HERE, 401),
        ("/search/books", ELSEWHERE, 401),
        ("/search/books", ("x-forwarded-for", "2001:db8::7"), 401),
    ] {
        let answer = visitor.get(&site.url(path), &[from]).await?;
        ensure!(answer.status.as_u16() == status, "{path} {from:?}: {} {}", answer.status, answer.text());
    }
    ensure!(site.origin.received().len() == 3, "{:?}", site.origin.received());
    ensure!(site.audited(&["event=challenge", "result=issued", "rule=search"]) >= 2, "{}", site.edge.log());
    ensure!(site.audited(&["event=verify", "result=ok", "factor=pow"]) == 1, "{}", site.edge.log());
    Ok(())
}

#[tokio::test]
async fn a_browser_is_sent_to_the_puzzle_and_back_to_where_it_was_going() -> Result<()> {
    let Some(site) = site().await? else { return Ok(()) };
    let mut browser = Visitor::default();
    let headers = [NAVIGATION[0], NAVIGATION[1], HERE];
    let answer = browser.get(&site.url("/search/books?q=1"), &headers).await?;
    ensure!(answer.status == 303, "{}", answer.status);
    let url = site.url(answer.header("location"));
    let page = browser.get(&url, &headers).await?;
    ensure!(page.status == 200 && page.header("cache-control") == "no-store", "{}", page.text());
    ensure!(page.text().contains("<noscript>"), "without JavaScript nothing is said: {}", page.text());
    let told = browser.get(&url, &[HERE]).await?.json()?;
    let puzzle = Puzzle::read(&told["ask"])?;
    let wrong = browser.post(&url, &headers, &[("work", &puzzle.guess_wrong())]).await?;
    ensure!(wrong.status == 401 && wrong.text().contains("role=\"alert\""), "{}: {}", wrong.status, wrong.text());
    let right = browser.post(&url, &headers, &[("work", &puzzle.solve())]).await?;
    ensure!(right.status == 303 && right.header("location") == "/search/books?q=1", "{:?}", right.headers);
    ensure!(browser.get(&site.url("/search/books?q=1"), &headers).await?.status == 200);
    Ok(())
}

#[tokio::test]
async fn nothing_passes_for_work_but_a_puzzle_of_ours_solved_once_by_who_got_it() -> Result<()> {
    let Some(site) = site().await? else { return Ok(()) };
    let mut visitor = Visitor::default();
    let (url, puzzle) = asked(&site, &mut visitor, "/search/books").await?;
    let (list_url, _) = asked(&site, &mut visitor, "/list/books").await?;
    let solution = puzzle.solve();
    let easier = Puzzle { text: puzzle.text.replacen(".8.", ".0.", 1), bits: 0 };
    ensure!(easier.text != puzzle.text, "the puzzle does not say how hard it is: {}", puzzle.text);
    let rows = [
        ("made easier", &url, HERE, easier.solve(), "foreign"),
        ("not solved", &url, HERE, puzzle.guess_wrong(), "unsolved"),
        ("from another address", &url, ELSEWHERE, solution.clone(), "foreign"),
        ("for another rule", &list_url, HERE, solution.clone(), "foreign"),
        ("made at home", &url, HERE, "1.8.9999999999.AAAAAAAAAAAAAAAAAAAAAA.AAAA:1".to_owned(), "foreign"),
        ("none at all", &url, HERE, "please".to_owned(), "malformed"),
    ];
    for (name, url, from, work, result) in rows {
        let answer = answer_from(&mut visitor, url, from, &work).await?;
        ensure!(answer.status == 401 && answer.header("set-cookie").is_empty(), "{name}: {}", answer.text());
        let event = ["event=verify", "factor=pow", &format!("result={result}")].map(str::to_owned);
        ensure!(site.audited(&event.each_ref().map(String::as_str)) > 0, "{name}: {}", site.edge.log());
    }
    ensure!(answer_from(&mut visitor, &url, HERE, &solution).await?.status == 200);
    let again = answer_from(&mut Visitor::default(), &url, HERE, &solution).await?;
    ensure!(again.status == 401, "a second visitor with the same solution: {}", again.status);
    ensure!(site.audited(&["event=verify", "result=replayed"]) == 1, "{}", site.edge.log());

    // Gathered in quiet times, and kept for the attack.
    let (url, puzzle) = asked(&site, &mut Visitor::default(), "/search/books").await?;
    site.edge.command(&["threat", "set", "critical", "--for", "5m"])?;
    let kept = answer_from(&mut visitor, &url, HERE, &puzzle.solve()).await?;
    ensure!(kept.status == 401, "a puzzle of before the attack: {}", kept.status);
    ensure!(site.audited(&["event=verify", "result=too-easy"]) == 1, "{}", site.edge.log());

    // What says that work was done is sealed.
    let site_name = format!("{}:{}", lb_tests::site::DOMAIN, site.edge.address.port());
    let cookie = visitor.jar(&site_name).get("__Host-lb-work").context("no cookie")?.clone();
    ensure!(visitor.get(&site.url("/search/books"), &[HERE]).await?.status == 200);
    let mut forged = cookie.clone().into_bytes();
    let middle = forged.len() / 2;
    forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
    visitor.jar(&site_name).insert("__Host-lb-work".to_owned(), String::from_utf8(forged)?);
    ensure!(visitor.get(&site.url("/search/books"), &[HERE]).await?.status == 401, "a forged cookie");
    Ok(())
}

#[tokio::test]
async fn the_higher_the_threat_the_harder_the_puzzle_and_repeated_asking_makes_it_harder_too() -> Result<()> {
    let Some(site) = site().await? else { return Ok(()) };
    for (number, (level, bits)) in
        [("normal", 8), ("elevated", 9), ("high", 10), ("critical", 12)].into_iter().enumerate()
    {
        site.edge.command(&["threat", "set", level, "--for", "5m"])?;
        let (_, puzzle) = asked(&site, &mut Visitor::default(), "/search/books").await?;
        ensure!(puzzle.bits == bits, "at {level}, visitor {number}: {} bits", puzzle.bits);
    }
    site.edge.command(&["threat", "set", "normal", "--for", "5m"])?;
    let mut hardest = 0;
    for _ in 0..40 {
        hardest = hardest.max(asked(&site, &mut Visitor::default(), "/search/books").await?.1.bits);
    }
    ensure!((10..=12).contains(&hardest), "after forty puzzles: {hardest} bits");
    Ok(())
}

#[tokio::test]
async fn the_login_page_takes_work_while_it_is_under_attack_and_only_then() -> Result<()> {
    let Some(site) = site().await? else { return Ok(()) };
    let login = site.url("/.lb/login");
    let form = [("user", USER), ("password", PASSWORD)];
    ensure!(Visitor::default().post(&login, &[HERE], &form).await?.status == 200, "in quiet times");
    site.edge.command(&["threat", "set", "high", "--for", "5m"])?;
    let mut browser = Visitor::default();
    let page = browser.get(&login, &[NAVIGATION[0], NAVIGATION[1], HERE]).await?;
    ensure!(page.status == 303 && page.header("location").starts_with("/.lb/work?to="), "{:?}", page.headers);
    let mut tool = Visitor::default();
    let refused = tool.post(&login, &[HERE], &form).await?;
    let url = site.challenge_url(&refused)?;
    ensure!(!tool.jar("").contains_key("__Host-lb"), "the password was taken");
    let told = tool.get(&url, &[HERE]).await?.json()?;
    let done = answer_from(&mut tool, &url, HERE, &Puzzle::read(&told["ask"])?.solve()).await?;
    ensure!(done.status == 200, "{}: {}", done.status, done.text());
    ensure!(tool.post(&login, &[ELSEWHERE], &form).await?.problem() == "step-up", "from elsewhere");
    let in_at_last = tool.post(&login, &[HERE], &form).await?;
    ensure!(in_at_last.status == 200, "{}: {}", in_at_last.status, in_at_last.text());
    Ok(())
}

#[tokio::test]
async fn work_of_somebody_logged_in_is_bound_to_the_place_too() -> Result<()> {
    let Some(site) = site().await? else { return Ok(()) };
    let mut alice = site.alice().await?;
    let send = [("content-type", "application/json"), HERE];
    let refund = alice.send("POST", &site.url("/refunds"), &send, "{}".to_owned()).await?;
    let url = site.challenge_url(&refund)?;
    let told = alice.get(&format!("{url}?method=pow"), &[HERE]).await?.json()?;
    let done = answer_from(&mut alice, &url, HERE, &Puzzle::read(&told["ask"])?.solve()).await?;
    ensure!(done.status == 200, "{}: {}", done.status, done.text());
    ensure!(alice.send("POST", &site.url("/refunds"), &send, "{}".to_owned()).await?.status == 201);
    let elsewhere = [("content-type", "application/json"), ELSEWHERE];
    let elsewhere = alice.send("POST", &site.url("/refunds"), &elsewhere, "{}".to_owned()).await?;
    ensure!(elsewhere.problem() == "step-up", "from elsewhere: {} {}", elsewhere.status, elsewhere.text());
    ensure!(site.origin.refunds() == 1, "{} refunds", site.origin.refunds());
    Ok(())
}

#[tokio::test]
async fn whoever_has_no_javascript_brings_a_token_of_the_captcha_provider() -> Result<()> {
    let provider = WebService::start(|call| match call.text().contains("response=%67%6F%6F%64") {
        true => (StatusCode::OK, r#"{"success": true, "hostname": "shop.test"}"#.to_owned()),
        false => (StatusCode::OK, r#"{"success": false}"#.to_owned()),
    })
    .await?;
    let folder = tempfile::tempdir()?;
    let secret = folder.path().join("captcha.secret");
    std::fs::write(&secret, "a secret of the captcha provider")?;
    let rest = format!(
        "factors: {{captcha: {{page: \"https://captcha.example/shop\", verify: \"http://{}/\", secret_file: {}}}}}
rules: [{{id: search, match: {{paths: [/search/**]}}, require: {{methods: [pow, totp]}}}}]\n",
        provider.address,
        secret.display()
    );
    let plan = Plan { routes: Some(ROUTES.to_owned()), ..Plan::of(&rest) };
    let Some(site) = Site::start(plan).await? else { return Ok(()) };
    let mut browser = Visitor::default();
    let asked = browser.get(&site.url("/search/books"), NAVIGATION).await?;
    let url = site.url(asked.header("location"));
    let page = browser.get(&url, NAVIGATION).await?.text();
    ensure!(page.contains("https://captcha.example/shop"), "{page}");
    ensure!(page.contains("/.lb/login?to="), "whoever logs in has a code: {page}");
    let bad = browser.post(&url, NAVIGATION, &[("work", "bad")]).await?;
    ensure!(bad.status == 401, "{}: {}", bad.status, bad.text());
    let good = browser.post(&url, NAVIGATION, &[("work", "good")]).await?;
    ensure!(good.status == 303 && good.header("location") == "/search/books", "{}: {}", good.status, good.text());
    ensure!(browser.get(&site.url("/search/books"), NAVIGATION).await?.status == 200);
    ensure!(provider.calls().len() == 2, "{:?}", provider.calls());
    Ok(())
}

#[tokio::test]
async fn whoever_comes_with_a_key_can_do_the_work_that_is_asked_of_strangers() -> Result<()> {
    let Some(site) = site().await? else { return Ok(()) };
    let created = site.edge.command(&["api-keys", "create", "--user", "nightly", "--name", "search"])?;
    let bearer = format!("Bearer {}", created.trim());
    let headers = [HERE, ("authorization", bearer.as_str())];
    let mut robot = Visitor::default();
    let answer = robot.get(&site.url("/search/books"), &headers).await?;
    let url = site.challenge_url(&answer)?;
    ensure!(site.origin.received().is_empty(), "it was let through");
    let told = robot.get(&url, &[HERE]).await?.json()?;
    let done = answer_from(&mut robot, &url, HERE, &Puzzle::read(&told["ask"])?.solve()).await?;
    ensure!(done.status == 200, "{}: {}", done.status, done.text());
    let answer = robot.get(&site.url("/search/books"), &headers).await?;
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    ensure!(site.last_assertion().await?["sub"] == "nightly", "the backend is not told whose key it was");
    // Nor does one key's work free another client of it.
    let other = Visitor::default().get(&site.url("/search/books"), &headers).await?;
    ensure!(other.problem() == "step-up", "{}: {}", other.status, other.text());
    Ok(())
}
