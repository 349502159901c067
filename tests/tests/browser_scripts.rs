//! Pages whose scripts meet a step-up: a real browser, a window that opens and closes, and the request that goes on.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lb_tests::browser::Browser;
use lb_tests::edge::{Edge, PASSWORD, RULES, USER, alice, free_address, service, totp_code};
use lb_tests::origin::Origin;
use tokio::net::TcpListener;

struct Scene {
    port: u16,
    origin: Arc<Origin>,
    browser: Browser,
    _edge: Edge,
}

impl Scene {
    /// `https://shop.test`, and its page at a sibling origin, `https://app.shop.test`.
    async fn start() -> Result<Option<Scene>> {
        Scene::start_with(configuration).await
    }

    async fn start_with(configuration: fn(SocketAddr, SocketAddr) -> Result<String>) -> Result<Option<Scene>> {
        if let Some(lacking) = Browser::lacking().or_else(Edge::lacking) {
            ensure!(std::env::var_os("CI").is_none(), "level browser {lacking}");
            writeln!(std::io::stderr(), "SKIPPED: level browser: {lacking}")?;
            return Ok(None);
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let backend = listener.local_addr()?;
        let origin = Origin::new("the backend");
        tokio::spawn(Arc::clone(&origin).serve(listener));
        let address = free_address()?;
        let edge = tokio::task::spawn_blocking(move || Edge::start_at(address, &configuration(address, backend)?));
        let browser = Browser::start(true).await?;
        Ok(Some(Scene { port: address.port(), origin, browser, _edge: edge.await?? }))
    }

    async fn log_in(&self) -> Result<()> {
        let browser = &self.browser;
        browser.open(&format!("https://shop.test:{}/", self.port)).await?;
        browser.type_into(&browser.find("input[name=user]").await?, USER).await?;
        browser.type_into(&browser.find("input[name=password]").await?, PASSWORD).await?;
        browser.click(&browser.find("form button").await?).await?;
        browser.find("#backend").await.map(drop)
    }

    /// Opens the page, asks for a refund, gives the code in the window that opens; returns what the page then says.
    async fn refund_by_script(&self, page: &str) -> Result<String> {
        let browser = &self.browser;
        browser.open(page).await?;
        let page_window = browser.windows().await?.remove(0);
        browser.click(&browser.find("#refund:enabled").await?).await?;
        browser.enter_new_window(std::slice::from_ref(&page_window)).await?;
        ensure!(self.origin.refunds() == 0, "the refund reached the backend before the code was given");
        browser.type_into(&browser.find("input[name=code]").await?, &totp_code(0)?).await?;
        // The window closes itself once it is done, and may do so before the click is answered.
        let _ = browser.click(&browser.find("form button").await?).await;
        browser.enter_window(&page_window).await?;
        let outcome = browser.text(&browser.find("#outcome:not(:empty)").await?).await?;
        self.is_alone(&page_window).await?;
        Ok(outcome)
    }

    async fn is_alone(&self, window: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.browser.windows().await? != [window] {
            ensure!(Instant::now() < deadline, "the window stays open: {:?}", self.browser.windows().await?);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

fn configuration(address: SocketAddr, backend: SocketAddr) -> Result<String> {
    let port = address.port();
    let sibling = format!(
        "trusted_origins: [\"https://app.shop.test:{port}\"]
routes:
  - {{host: app.shop.test, path: /app, pool: shop, public: true}}
  - {{path: /**, pool: shop}}
"
    );
    let service = service(address, backend).replace("routes:\n  - {path: /**, pool: shop}\n", &sibling);
    ensure!(service.contains("trusted_origins"), "the routes are not where they were: {service}");
    Ok([&service, &alice()?, RULES].concat())
}

#[tokio::test]
async fn a_page_of_ours_asks_for_a_refund_and_it_goes_on_once_the_code_was_given() -> Result<()> {
    let Some(scene) = Scene::start().await? else { return Ok(()) };
    scene.log_in().await?;
    let outcome = scene.refund_by_script(&format!("https://shop.test:{}/app", scene.port)).await?;
    ensure!(outcome.starts_with("201 "), "{outcome}");
    ensure!(scene.origin.refunds() == 1, "{} refunds", scene.origin.refunds());
    Ok(())
}

#[tokio::test]
async fn so_does_a_page_of_a_sibling_origin_that_is_trusted() -> Result<()> {
    let Some(scene) = Scene::start().await? else { return Ok(()) };
    scene.log_in().await?;
    let port = scene.port;
    let page = format!("https://app.shop.test:{port}/app?api=https://shop.test:{port}");
    let outcome = scene.refund_by_script(&page).await?;
    ensure!(outcome.starts_with("201 "), "{outcome}");
    ensure!(scene.origin.refunds() == 1, "{} refunds", scene.origin.refunds());
    Ok(())
}

/// Where nobody needs a login, and a refund takes some work.
fn open_to_strangers(address: SocketAddr, backend: SocketAddr) -> Result<String> {
    let closed = "routes:\n  - {path: /**, pool: shop}\n";
    let service = service(address, backend);
    ensure!(service.contains(closed), "the routes are not where they were: {service}");
    let open = "routes:\n  - {path: /**, pool: shop, public: true}\n";
    let rules = "factors: {pow: {least_bits: 12}}
rules: [{id: robots, match: {methods: [POST], paths: [/refunds]}, require: {methods: [pow]}}]\n";
    Ok([&service.replace(closed, open), &alice()?, rules].concat())
}

#[tokio::test]
async fn a_stranger_works_in_a_window_that_closes_itself_and_the_pages_request_goes_on() -> Result<()> {
    let Some(scene) = Scene::start_with(open_to_strangers).await? else { return Ok(()) };
    let browser = &scene.browser;
    browser.open(&format!("https://shop.test:{}/app", scene.port)).await?;
    let page_window = browser.windows().await?.remove(0);
    browser.click(&browser.find("#refund:enabled").await?).await?;
    let outcome = browser.text(&browser.find("#outcome:not(:empty)").await?).await?;
    ensure!(outcome.starts_with("201 "), "{outcome}");
    ensure!(scene.origin.refunds() == 1, "{} refunds", scene.origin.refunds());
    scene.is_alone(&page_window).await
}
