//! Pages whose scripts meet a step-up: a real browser, a window that opens and closes, and the request that goes on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lb_tests::browser::Browser;
use lb_tests::customer::Customer;
use lb_tests::edge::{RULES, alice, service_with, totp_code};

/// `https://shop.test`, and its page at a sibling origin, `https://app.shop.test`.
fn configuration(address: SocketAddr, backend: SocketAddr) -> Result<String> {
    let routes = "  - {host: app.shop.test, path: /app, pool: shop, public: true}
  - {path: /**, pool: shop}
";
    let trusted = format!("trusted_origins: [\"https://app.shop.test:{}\"]\n", address.port());
    Ok([&service_with(address, backend, routes), &trusted, &alice()?, RULES].concat())
}

/// Opens the page, asks for a refund, gives the code in the window that opens; returns what the page then says.
async fn refund_by_script(customer: &Customer, page: &str) -> Result<String> {
    let browser = &customer.browser;
    browser.open(page).await?;
    let page_window = browser.windows().await?.remove(0);
    browser.click(&browser.find("#refund:enabled").await?).await?;
    browser.enter_new_window(std::slice::from_ref(&page_window)).await?;
    ensure!(customer.site.origin.refunds() == 0, "the refund reached the backend before the code was given");
    browser.type_into(&browser.find("input[name=code]").await?, &totp_code(0)?).await?;
    // The window closes itself once it is done, and may do so before the click is answered.
    let _ = browser.click(&browser.find("form button").await?).await;
    browser.enter_window(&page_window).await?;
    let outcome = browser.text(&browser.find("#outcome:not(:empty)").await?).await?;
    is_alone(browser, &page_window).await?;
    Ok(outcome)
}

async fn is_alone(browser: &Browser, window: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    while browser.windows().await? != [window] {
        ensure!(Instant::now() < deadline, "the window stays open: {:?}", browser.windows().await?);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_page_of_ours_asks_for_a_refund_and_it_goes_on_once_the_code_was_given() -> Result<()> {
    let Some(customer) = Customer::enter(true, configuration).await? else { return Ok(()) };
    customer.log_in().await?;
    let outcome = refund_by_script(&customer, &customer.url("/app")).await?;
    ensure!(outcome.starts_with("201 "), "{outcome}");
    ensure!(customer.site.origin.refunds() == 1, "{} refunds", customer.site.origin.refunds());
    Ok(())
}

#[tokio::test]
async fn so_does_a_page_of_a_sibling_origin_that_is_trusted() -> Result<()> {
    let Some(customer) = Customer::enter(true, configuration).await? else { return Ok(()) };
    customer.log_in().await?;
    let page = format!("https://app.{}/app?api={}", customer.site.authority(), customer.url(""));
    let outcome = refund_by_script(&customer, &page).await?;
    ensure!(outcome.starts_with("201 "), "{outcome}");
    ensure!(customer.site.origin.refunds() == 1, "{} refunds", customer.site.origin.refunds());
    Ok(())
}

/// Where nobody needs a login, and a refund takes some work.
fn open_to_strangers(address: SocketAddr, backend: SocketAddr) -> Result<String> {
    let open = "  - {path: /**, pool: shop, public: true}\n";
    let rules = "factors: {pow: {least_bits: 12}}
rules: [{id: robots, match: {methods: [POST], paths: [/refunds]}, require: {methods: [pow]}}]\n";
    Ok([&service_with(address, backend, open), &*alice()?, rules].concat())
}

#[tokio::test]
async fn a_stranger_works_in_a_window_that_closes_itself_and_the_pages_request_goes_on() -> Result<()> {
    let Some(customer) = Customer::enter(true, open_to_strangers).await? else { return Ok(()) };
    let browser = &customer.browser;
    browser.open(&customer.url("/app")).await?;
    let page_window = browser.windows().await?.remove(0);
    browser.click(&browser.find("#refund:enabled").await?).await?;
    let outcome = browser.text(&browser.find("#outcome:not(:empty)").await?).await?;
    ensure!(outcome.starts_with("201 "), "{outcome}");
    ensure!(customer.site.origin.refunds() == 1, "{} refunds", customer.site.origin.refunds());
    is_alone(browser, &page_window).await
}
