//! The step-up as people meet it: a real browser before the real controller.

use anyhow::{Result, ensure};
use lb_tests::browser::{Browser, ENTER, TAB};
use lb_tests::customer::Customer;
use lb_tests::edge::{PASSWORD, USER, totp_code};
use lb_tests::site::usual;
use lb_tests::{level, origin};

/// Proves the tools: what fails in the tests below is then the edge's doing.
#[tokio::test]
async fn without_an_edge_the_refund_needs_nothing_with_and_without_javascript() -> Result<()> {
    if level::is_skipped("browser", Browser::lacking()) {
        return Ok(());
    }
    let (origin, backend) = origin::start().await?;
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
    let Some(customer) = Customer::enter(true, usual).await? else { return Ok(()) };
    customer.log_in().await?;
    customer.ask_for_refund().await?;
    ensure!(customer.site.origin.refunds() == 0, "the refund reached the backend before the code was given");
    customer.give("code", &totp_code(0)?).await?;
    customer.refund_went_through_once().await
}

#[tokio::test]
async fn a_wrong_code_is_told_accessibly_and_the_right_one_still_works() -> Result<()> {
    let Some(customer) = Customer::enter(true, usual).await? else { return Ok(()) };
    customer.log_in().await?;
    customer.ask_for_refund().await?;
    page_is_accessible(&customer.browser, "code").await?;
    customer.give("code", "000000").await?;
    error_is_accessible(&customer.browser, "code").await?;
    ensure!(customer.site.origin.refunds() == 0, "a wrong code let the refund through");
    customer.give("code", &totp_code(0)?).await?;
    customer.refund_went_through_once().await
}

#[tokio::test]
async fn a_wrong_password_is_told_accessibly() -> Result<()> {
    let Some(customer) = Customer::enter(true, usual).await? else { return Ok(()) };
    customer.browser.open(&customer.url("/")).await?;
    customer.browser.arrives_at("/.lb/login").await?;
    page_is_accessible(&customer.browser, "user").await?;
    customer.fill("user", USER).await?;
    customer.give("password", "guess").await?;
    error_is_accessible(&customer.browser, "password").await
}

#[tokio::test]
async fn without_javascript_the_same_way_leads_to_the_same_end() -> Result<()> {
    let Some(customer) = Customer::enter(false, usual).await? else { return Ok(()) };
    customer.log_in().await?;
    customer.ask_for_refund().await?;
    customer.give("code", &totp_code(0)?).await?;
    // Until then the button that is found may be the last page's.
    customer.browser.arrives_at("/.lb/resume/").await?;
    ensure!(customer.site.origin.refunds() == 0, "without JavaScript somebody else sent the refund on");
    customer.submit().await?;
    customer.refund_went_through_once().await
}

/// Presses keys until the keyboard is at what a screen reader calls `name`.
async fn tab_to(browser: &Browser, name: &str) -> Result<()> {
    for _ in 0..10 {
        if browser.accessible_name(&browser.focused().await?).await? == name {
            return Ok(());
        }
        browser.press_keys(TAB).await?;
    }
    anyhow::bail!("the keyboard does not come to {name:?} on {}", browser.url().await?)
}

#[tokio::test]
async fn by_keyboard_alone_somebody_logs_in_steps_up_and_gets_the_refund() -> Result<()> {
    let Some(customer) = Customer::enter(true, usual).await? else { return Ok(()) };
    let browser = &customer.browser;
    browser.open(&customer.url("/")).await?;
    browser.arrives_at("/.lb/login").await?;
    for (field, text) in [("User name", USER), ("Password", PASSWORD)] {
        tab_to(browser, field).await?;
        browser.press_keys(text).await?;
    }
    browser.press_keys(ENTER).await?;
    browser.find("#backend").await?;
    tab_to(browser, "Refund, in euros").await?;
    browser.press_keys(ENTER).await?;
    browser.arrives_at("/.lb/challenge/").await?;
    tab_to(browser, "6-digit code").await?;
    browser.press_keys("000000").await?;
    browser.press_keys(ENTER).await?;
    error_is_accessible(browser, "code").await?;
    tab_to(browser, "6-digit code").await?;
    browser.press_keys(&totp_code(0)?).await?;
    tab_to(browser, "Confirm").await?;
    browser.press_keys(ENTER).await?;
    customer.refund_went_through_once().await
}

/// What every page that asks for a secret owes to people who do not see, point or wait.
async fn page_is_accessible(browser: &Browser, field: &str) -> Result<()> {
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
async fn error_is_accessible(browser: &Browser, field: &str) -> Result<()> {
    let alert = browser.find("[role=alert]").await?;
    ensure!(!browser.text(&alert).await?.is_empty(), "the error says nothing");
    let alert = browser.attribute(&alert, "id").await?;
    let input = browser.find(&format!("input[name={field}]")).await?;
    let described_by = browser.attribute(&input, "aria-describedby").await?;
    ensure!(described_by.split(' ').any(|id| id == alert), "{field} is described by {described_by:?}, not {alert:?}");
    Ok(())
}

#[tokio::test]
async fn a_browser_exchanges_keys_in_a_way_that_quantum_computers_do_not_undo() -> Result<()> {
    let Some(customer) = Customer::enter(true, usual).await? else { return Ok(()) };
    customer.log_in().await?;
    let metrics = customer.site.edge.metrics()?;
    let of_kind = |kind: &str| {
        let series =
            format!("lb_tls_handshakes_total{{version=\"1.3\",kind=\"{kind}\",key_exchange=\"X25519MLKEM768\"}}");
        metrics.value(&series)
    };
    ensure!(of_kind("full") >= 1.0, "{metrics:?}");
    ensure!(metrics.sum_of(|series| series.contains("kind=\"retried\"")) == 0.0, "no round trip more: {metrics:?}");
    Ok(())
}
