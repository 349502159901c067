//! A disk that takes no writes: people go on with what they have, nothing is proved that cannot be recorded, everybody is
//! told so, and all is well again when the disk is.

use anyhow::{Context, Result, ensure};
use lb_tests::edge::totp_code;
use lb_tests::prover::Prover;
use lb_tests::site::{Plan, Site};
use lb_tests::visitor::{Answer, Visitor};
use serde_json::json;

const RULES: &str = "rules:
  - {id: refund, match: {methods: [POST], paths: [/refunds]}, require: {methods: [totp, pin, recovery], max_age: 5m}}
";
const REFUND: &str = r#"{"amount": 900.00}"#;

async fn challenged(site: &Site, alice: &mut Visitor) -> Result<String> {
    site.challenge_url(&site.send_json(alice, "POST", "/refunds", REFUND).await?)
}

fn is_refused_honestly(what: &str, answer: &Answer) -> Result<()> {
    let is_honest = answer.status == 503 && answer.problem() == "store-unavailable";
    ensure!(is_honest && !answer.header("retry-after").is_empty(), "{what}: {} {}", answer.status, answer.text());
    Ok(())
}

#[tokio::test]
async fn while_the_disk_takes_no_writes_people_go_on_nothing_is_proved_and_then_everything_is_as_before() -> Result<()>
{
    let Some(site) = Site::start(Plan::of(RULES)).await? else { return Ok(()) };
    let mut alice = site.alice().await?;
    let prover = Prover::enrol(&site, &mut alice, &["pin", "recovery"]).await?;
    let mut leaver = site.alice().await?;
    let challenge = challenged(&site, &mut alice).await?;
    let before = site.edge.metrics()?;
    ensure!(before.value("lb_store_up") == 1.0, "the store is down already");

    site.edge.break_disk()?;
    let code = totp_code(0)?;
    for (field, answer) in [
        ("code", code.as_str()),
        // At once again: nobody is let in because the store rests.
        ("code", code.as_str()),
        ("pin", lb_tests::prover::PIN),
        ("recovery", &prover.answer(&json!({"method": "recovery"}), true)?),
    ] {
        let answer = alice.post(&challenge, &[], &[(field, answer)]).await?;
        is_refused_honestly(field, &answer)?;
        let page = alice.get(&site.url("/account"), &[]).await?;
        ensure!(page.status == 200, "the session ended with a {field}: {} {}", page.status, page.text());
    }
    ensure!(site.origin.refunds() == 0, "a refund went through without proof");
    for _ in 0..20 {
        ensure!(
            site.alice().await?.get(&site.url("/account"), &[]).await?.status == 200,
            "a login that needs no write"
        );
    }
    // Said here at once, and recorded later: whoever logs out is out.
    let mut stolen = leaver.clone();
    is_refused_honestly("logout", &leaver.post(&site.url("/.lb/logout"), &[], &[]).await?)?;
    ensure!(stolen.get(&site.url("/account"), &[]).await?.status == 401, "a session that was logged out goes on");
    let said = site.edge.command(&["enrol-token", "alice"]).err().context("a token was given out")?.to_string();
    ensure!(said.contains("disk"), "{said}");

    let metrics = site.edge.metrics()?;
    ensure!(metrics.value("lb_store_up") == 0.0, "nobody is told that the store fails");
    ensure!(metrics.value("lb_store_failures_total") >= before.value("lb_store_failures_total") + 4.0);
    for method in ["totp", "pin", "recovery"] {
        let series = format!("lb_verify_total{{method=\"{method}\",result=\"unchecked\",reason=\"store\"}}");
        ensure!(metrics.value(&series) >= 1.0, "{series}: {}", metrics.value(&series));
    }

    site.edge.mend_disk()?;
    site.eventually("the store is up, and nobody did anything", async |site| {
        Ok(site.edge.metrics()?.value("lb_store_up") == 1.0)
    })
    .await?;
    // Nothing was used up.
    let proved = alice.post(&challenge, &[], &[("code", &code)]).await?;
    ensure!(proved.status == 200, "{}: {}", proved.status, proved.text());
    ensure!(site.send_json(&mut alice, "POST", "/refunds", REFUND).await?.status == 201);
    ensure!(site.origin.refunds() == 1, "{} refunds", site.origin.refunds());
    let mut other = site.alice().await?;
    let challenge = challenged(&site, &mut other).await?;
    let replayed = other.post(&challenge, &[], &[("code", &code)]).await?;
    ensure!(replayed.problem() == "proof-refused", "{}: {}", replayed.status, replayed.text());
    ensure!(stolen.get(&site.url("/account"), &[]).await?.status == 401);
    Ok(())
}
