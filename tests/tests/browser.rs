//! The step-up as people meet it: a real browser before the real controller.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Result, ensure};
use lb_tests::browser::Browser;
use lb_tests::edge::{Edge, PASSWORD, USER, totp_code};
use lb_tests::origin::Origin;
use tokio::net::TcpListener;

/// A code is accepted once and belongs to alice, so each test has an edge, and with it a store, of its own.
struct Scene {
    edge: Edge,
    origin: Arc<Origin>,
    browser: Browser,
}

impl Scene {
    async fn start(javascript: bool) -> Result<Scene> {
        let (origin, backend) = origin().await?;
        let edge = tokio::task::spawn_blocking(move || Edge::start(backend)).await??;
        Ok(Scene { edge, origin, browser: Browser::start(javascript).await? })
    }

    async fn log_in(&self) -> Result<()> {
        let Scene { edge, browser, .. } = self;
        browser.open(&edge.url("/")).await?;
        browser.arrives_at("/.lb/login").await?;
        browser.type_into(&browser.find("input[name=user]").await?, USER).await?;
        browser.type_into(&browser.find("input[name=password]").await?, PASSWORD).await?;
        self.submit().await?;
        let shop = browser.text(&browser.find("h1").await?).await?;
        ensure!(shop == "The shop", "after the login the browser shows {shop:?}");
        Ok(())
    }

    /// Sends the shop's form, whose amount is over the limit.
    async fn ask_for_refund(&self) -> Result<()> {
        self.submit().await?;
        self.browser.arrives_at("/.lb/challenge/").await
    }

    async fn give_code(&self, code: &str) -> Result<()> {
        self.browser.type_into(&self.browser.find("input[name=code]").await?, code).await?;
        self.submit().await
    }

    async fn submit(&self) -> Result<()> {
        self.browser.click(&self.browser.find("form button, form input[type=submit]").await?).await
    }

    fn refunds(&self) -> u64 {
        self.origin.refunds()
    }

    /// What every page that asks for a secret owes to people who do not see, point or wait.
    async fn page_is_accessible(&self, field: &str) -> Result<()> {
        let browser = &self.browser;
        let language = browser.attribute(&browser.find("html").await?, "lang").await?;
        ensure!(language == "en", "the page's language is {language:?}");
        ensure!(!browser.title().await?.is_empty(), "the page has no title");
        ensure!(browser.count("h1").await? == 1, "the page has {} main headings", browser.count("h1").await?);
        ensure!(browser.count("main").await? == 1, "the page has no main landmark");
        let input = browser.find(&format!("input[name={field}]")).await?;
        ensure!(!browser.accessible_name(&input).await?.is_empty(), "a screen reader has no name for {field}");
        ensure!(browser.focused().await? == input, "{field} does not have the keyboard from the start");
        let button = browser.find("form button, form input[type=submit]").await?;
        ensure!(!browser.accessible_name(&button).await?.is_empty(), "a screen reader has no name for the button");
        let viewport = browser.count("meta[name=viewport]").await?;
        ensure!(viewport == 1, "phones would show the page as if from afar");
        Ok(())
    }

    /// The error is spoken at once (`role=alert`) and again when the field is reached (`aria-describedby`).
    async fn error_is_accessible(&self, field: &str) -> Result<()> {
        let browser = &self.browser;
        let alert = browser.find("[role=alert]").await?;
        ensure!(!browser.text(&alert).await?.is_empty(), "the error says nothing");
        let alert = browser.attribute(&alert, "id").await?;
        let input = browser.find(&format!("input[name={field}]")).await?;
        let described_by = browser.attribute(&input, "aria-describedby").await?;
        ensure!(
            described_by.split(' ').any(|id| id == alert),
            "{field} is described by {described_by:?}, not {alert:?}"
        );
        Ok(())
    }
}

/// Proves the tools: what fails in the tests below is then the edge's doing.
#[tokio::test]
async fn without_an_edge_the_refund_needs_nothing_with_and_without_javascript() -> Result<()> {
    if let Some(lacking) = Browser::lacking() {
        return skip(lacking);
    }
    let (origin, backend) = origin().await?;
    for (javascript, refunds) in [(true, 1), (false, 2)] {
        let browser = Browser::start(javascript).await?;
        browser.open(&format!("http://{backend}/")).await?;
        ensure!(browser.accessible_name(&browser.find("input").await?).await? == "Refund, in euros");
        browser.click(&browser.find("form button").await?).await?;
        browser.arrives_at("/refunds").await?;
        ensure!(origin.refunds() == refunds, "{} refunds arrived", origin.refunds());
    }
    Ok(())
}

#[tokio::test]
async fn after_the_right_code_the_original_post_reaches_the_backend_exactly_once() -> Result<()> {
    let Some(scene) = scene(true).await? else { return Ok(()) };
    scene.log_in().await?;
    scene.ask_for_refund().await?;
    ensure!(scene.refunds() == 0, "the refund reached the backend before the code was given");
    scene.give_code(&totp_code(0)?).await?;
    scene.browser.arrives_at("/refunds").await?;
    let heading = scene.browser.text(&scene.browser.find("h1").await?).await?;
    ensure!(heading == "Refund 1 is on its way", "the browser shows {heading:?}");
    ensure!(scene.refunds() == 1, "{} refunds reached the backend", scene.refunds());
    Ok(())
}

#[tokio::test]
async fn a_wrong_code_is_told_accessibly_and_the_right_one_still_works() -> Result<()> {
    let Some(scene) = scene(true).await? else { return Ok(()) };
    scene.log_in().await?;
    scene.ask_for_refund().await?;
    scene.page_is_accessible("code").await?;
    scene.give_code("000000").await?;
    scene.error_is_accessible("code").await?;
    ensure!(scene.refunds() == 0, "a wrong code let the refund through");
    scene.give_code(&totp_code(0)?).await?;
    scene.browser.arrives_at("/refunds").await?;
    ensure!(scene.refunds() == 1, "{} refunds reached the backend", scene.refunds());
    Ok(())
}

#[tokio::test]
async fn a_wrong_password_is_told_accessibly() -> Result<()> {
    let Some(scene) = scene(true).await? else { return Ok(()) };
    scene.browser.open(&scene.edge.url("/")).await?;
    scene.browser.arrives_at("/.lb/login").await?;
    scene.page_is_accessible("user").await?;
    scene.browser.type_into(&scene.browser.find("input[name=user]").await?, USER).await?;
    scene.browser.type_into(&scene.browser.find("input[name=password]").await?, "guess").await?;
    scene.submit().await?;
    scene.error_is_accessible("password").await
}

#[tokio::test]
async fn without_javascript_the_same_way_leads_to_the_same_end() -> Result<()> {
    let Some(scene) = scene(false).await? else { return Ok(()) };
    scene.log_in().await?;
    scene.ask_for_refund().await?;
    scene.give_code(&totp_code(0)?).await?;
    // Until then the button that is found may be the last page's.
    scene.browser.arrives_at("/.lb/resume/").await?;
    ensure!(scene.refunds() == 0, "without JavaScript somebody else sent the refund on");
    scene.submit().await?;
    scene.browser.arrives_at("/refunds").await?;
    ensure!(scene.refunds() == 1, "{} refunds reached the backend", scene.refunds());
    Ok(())
}

async fn origin() -> Result<(Arc<Origin>, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let backend = listener.local_addr()?;
    let origin = Origin::new("the backend");
    tokio::spawn(Arc::clone(&origin).serve(listener));
    Ok((origin, backend))
}

/// `None`, said aloud, where the level cannot run.
async fn scene(javascript: bool) -> Result<Option<Scene>> {
    match Browser::lacking().or_else(Edge::lacking) {
        None => Scene::start(javascript).await.map(Some),
        Some(lacking) => skip(lacking).map(|()| None),
    }
}

/// In CI a level that cannot run is a failure.
fn skip(lacking: &str) -> Result<()> {
    ensure!(std::env::var_os("CI").is_none(), "level browser {lacking}");
    // Not `println!`, which the test runner keeps to itself when a test passes.
    writeln!(std::io::stderr(), "SKIPPED: level browser: {lacking}")?;
    Ok(())
}
