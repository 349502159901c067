//! Backends that ask for more proof themselves (RFC 9470), and what each kind of client is told; the whole program.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use lb_tests::edge::{alice, service_with, totp_code};
use lb_tests::site::Site;
use lb_tests::visitor::{Answer, FORM, NAVIGATION, Visitor};

/// Backends may ask under `/vault`, and not under `/open/vault`, where the origin asks all the same.
fn configuration(address: SocketAddr, backend: SocketAddr) -> Result<String> {
    let routes = "  - {path: /vault/**, pool: shop, backend_step_up: true}
  - {path: /**, pool: shop}
";
    Ok([&service_with(address, backend, routes), &*alice()?].concat())
}

/// A browser's form goes to `path`, the challenge is met, and the form that sends it on is sent. Returns the answer to
/// that, and the form.
async fn send_and_prove(site: &Site, alice: &mut Visitor, path: &str) -> Result<(Answer, String)> {
    let answer = alice.post(&site.url(path), FORM, &[("note", "two words & more")]).await?;
    let challenge = answer.header("location").to_owned();
    ensure!(answer.status == 303 && challenge.starts_with("/.lb/challenge/"), "{} {challenge}", answer.status);
    ensure!(answer.header("www-authenticate").is_empty(), "a browser would ask for a password");
    let answer = alice.post(&site.url(&challenge), FORM, &[("code", &totp_code(0)?)]).await?;
    let resume = answer.header("location").to_owned();
    ensure!(answer.status == 303 && resume.starts_with("/.lb/resume/"), "{} {resume}", answer.status);
    let page = alice.get(&site.url(&resume), NAVIGATION).await?.text();
    ensure!(page.contains(&format!("action=\"{path}\"")), "the form goes elsewhere: {page}");
    let transaction = page.split("name=\"lb-tx\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
    let transaction = transaction.context("the page has no form to go on")?.to_owned();
    Ok((alice.post(&site.url(path), FORM, &[("lb-tx", &transaction)]).await?, transaction))
}

#[tokio::test]
async fn a_browsers_form_goes_on_with_its_body_once_after_the_code_that_the_backend_wants() -> Result<()> {
    let Some(site) = Site::open(configuration).await? else { return Ok(()) };
    let mut alice = site.alice().await?;
    let (answer, transaction) = send_and_prove(&site, &mut alice, "/vault").await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    let received = answer.json()?;
    ensure!(received["body"] == "note=two+words+%26+more" && received["method"] == "POST", "{received}");
    ensure!(site.origin.seen("POST /vault") == 2, "once refused and once taken: {}", site.origin.seen("POST /vault"));
    let again = alice.post(&site.url("/vault"), FORM, &[("lb-tx", &transaction)]).await?;
    ensure!(again.status == 410, "it went on twice: {} {}", again.status, again.text());
    ensure!(site.origin.seen("POST /vault") == 2);
    let log = site.edge.log();
    ensure!(log.contains("rule=\"backend\"") || log.contains("\"rule\":\"backend\""), "not in the audit trail:\n{log}");
    Ok(())
}

#[tokio::test]
async fn a_script_is_told_in_the_words_of_the_rfc_and_sends_its_request_again() -> Result<()> {
    let Some(site) = Site::open(configuration).await? else { return Ok(()) };
    let mut alice = site.alice().await?;
    let challenge = alice.send("POST", &site.url("/vault"), &[], "a body".into()).await?;
    ensure!(challenge.status == 401, "{} {}", challenge.status, challenge.text());
    let told = challenge.header("www-authenticate");
    let expected = "Bearer error=\"insufficient_user_authentication\", acr_values=\"urn:lb:acr:2\"";
    ensure!(told.starts_with(expected), "{told}");
    site.prove(&mut alice, &challenge, 0).await?;
    let answer = alice.send("POST", &site.url("/vault"), &[], "a body".into()).await?;
    ensure!(answer.status == 200 && answer.json()?["body"] == "a body", "{} {}", answer.status, answer.text());
    Ok(())
}

#[tokio::test]
async fn nobody_is_sent_in_circles_by_a_backend_that_is_never_content() -> Result<()> {
    let Some(site) = Site::open(configuration).await? else { return Ok(()) };
    let mut alice = site.alice().await?;
    // What it wants it says in words that no level here has: any login would do, and she has one.
    let answer = alice.get(&site.url("/vault/elsewhere"), &[]).await?;
    ensure!(answer.status == 403 && answer.problem() == "step-up-unmet", "{} {}", answer.status, answer.text());
    ensure!(answer.header("www-authenticate").is_empty(), "{:?}", answer.headers);
    // The second 401 comes when the code was given.
    let (answer, _) = send_and_prove(&site, &mut alice, "/vault/never").await?;
    ensure!(answer.status == 403 && answer.header("location").is_empty(), "{} {}", answer.status, answer.text());
    for headers in [NAVIGATION, &[]] {
        let answer = alice.get(&site.url("/vault/never"), headers).await?;
        ensure!(answer.status == 403, "{} {}", answer.status, answer.text());
    }
    Ok(())
}

#[tokio::test]
async fn where_a_backend_may_not_ask_its_wish_is_taken_out_of_the_answer() -> Result<()> {
    let Some(site) = Site::open(configuration).await? else { return Ok(()) };
    let mut alice = site.alice().await?;
    for headers in [NAVIGATION, &[]] {
        let answer = alice.get(&site.url("/open/vault"), headers).await?;
        ensure!(answer.status == 401 && answer.text() == "more proof, please\n", "{} {}", answer.status, answer.text());
        ensure!(answer.header("www-authenticate").is_empty(), "{:?}", answer.headers);
    }
    Ok(())
}

#[tokio::test]
async fn a_body_too_large_to_be_kept_is_not_sent_again_and_its_sender_is_told_so() -> Result<()> {
    let Some(site) = Site::open(configuration).await? else { return Ok(()) };
    let mut alice = site.alice().await?;
    let body = "x".repeat(300 * 1024);
    let answer = alice.send("POST", &site.url("/vault"), FORM, body).await?;
    ensure!(answer.status == 401, "{} {}", answer.status, answer.text());
    ensure!(answer.header("www-authenticate").is_empty(), "a wish that nobody can meet: {:?}", answer.headers);
    ensure!(site.origin.seen("POST /vault") == 1);
    Ok(())
}
