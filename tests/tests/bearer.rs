//! Access tokens of a real OpenID provider and API keys, before the real controller.

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lb_tests::federated::Federated;
use lb_tests::idp::{OPAQUE_CLIENT_ID, ROBOT_CLIENT_ID, TWO_FACTOR_ACR};
use lb_tests::visitor::{Answer, Visitor};
use serde_json::{Value, json};

/// The user that the backend was told of.
fn user_at_backend(answer: &Answer) -> Result<String> {
    let headers = &answer.json()?["headers"];
    let assertion = headers["lb-assertion"][0].as_str().context("the backend got no assertion")?.to_owned();
    let claims = URL_SAFE_NO_PAD.decode(assertion.split('.').nth(1).context("no JWT")?)?;
    let claims: Value = serde_json::from_slice(&claims)?;
    Ok(claims["sub"].as_str().context("it names nobody")?.to_owned())
}

#[tokio::test]
async fn tokens_of_people_and_programs_are_taken_and_the_issuer_is_not_asked_about_each() -> Result<()> {
    let Some(scene) = Federated::start().await? else { return Ok(()) };
    let person = scene.idp.access_token("client=app&account=carol").await?;
    let program = scene.idp.client_token(ROBOT_CLIENT_ID).await?;
    let opaque = scene.idp.client_token(OPAQUE_CLIENT_ID).await?;
    ensure!(opaque.matches('.').count() < 2, "{opaque} is no opaque token");
    for (token, user) in [(&person, "carol"), (&program, ROBOT_CLIENT_ID), (&opaque, OPAQUE_CLIENT_ID)] {
        let answer = scene.with_token(token, "/orders").await?;
        ensure!(answer.status == 200, "{user}: {} {}", answer.status, answer.text());
        ensure!(user_at_backend(&answer)? == user, "{user}: {}", answer.text());
    }
    let before = scene.idp.seen().await?.len();
    for token in [&person, &opaque] {
        for _ in 0..50 {
            ensure!(scene.with_token(token, "/orders").await?.status == 200);
        }
    }
    ensure!(scene.idp.seen().await?.len() == before, "verified tokens were verified again");
    Ok(())
}

#[tokio::test]
async fn a_token_that_is_not_good_enough_is_told_why_in_the_words_of_its_rfc() -> Result<()> {
    let Some(scene) = Federated::start().await? else { return Ok(()) };
    let carol = scene.idp.access_token("client=app&account=carol").await?;
    let old = scene.idp.access_token(&format!("client=app&account=carol&acr={TWO_FACTOR_ACR}&auth_time=1000")).await?;
    let strong = scene.idp.access_token(&format!("client=app&account=carol&acr={TWO_FACTOR_ACR}")).await?;
    let robot = scene.idp.client_token(ROBOT_CLIENT_ID).await?;
    let stepped = format!("Bearer error=\"insufficient_user_authentication\", acr_values=\"{TWO_FACTOR_ACR}\"");
    let recent = format!("{stepped}, max_age=\"60\"");
    let (head, signature) = carol.rsplit_once('.').context("no JWT")?;
    let tampered = format!("{head}.{}", signature.chars().rev().collect::<String>());
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", carol.split('.').nth(1).unwrap_or_default());
    let own = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJ1cm46bGIifQ.c2ln";
    let rows: &[(&str, &str, &str, u16, &str, &str)] = &[
        ("a login by password where more is needed", &carol, "/transfer", 401, "step-up", &stepped),
        ("a strong login of long ago", &old, "/recent", 401, "step-up", &recent),
        ("a strong login", &strong, "/transfer", 200, "", ""),
        ("a strong login of just now", &strong, "/recent", 200, "", ""),
        ("no token is made for one request", &strong, "/approve", 403, "step_up_impossible", ""),
        ("a program cannot prove more", &robot, "/transfer", 403, "step_up_impossible", ""),
        ("a backend that asks for more itself", &carol, "/vault", 401, "step-up", &stepped),
        ("a backend that has what it asks for", &strong, "/vault", 200, "", ""),
        ("a backend that asks for what is there", &strong, "/vault/never", 403, "step-up-unmet", ""),
        ("a backend with words of another service", &strong, "/vault/elsewhere", 403, "step-up-unmet", ""),
        ("a backend that asks a program", &robot, "/vault", 403, "step_up_impossible", ""),
        ("a changed signature", &tampered, "/orders", 401, "invalid_token", "Bearer error=\"invalid_token\""),
        ("no signature", &unsigned, "/orders", 401, "invalid_token", "Bearer error=\"invalid_token\""),
        ("of an issuer that nobody knows", own, "/orders", 401, "invalid_token", "Bearer error=\"invalid_token\""),
        ("an opaque token that the issuer does not know", "nonsense", "/orders", 401, "invalid_token", "Bearer error"),
    ];
    for (name, token, path, status, problem, header) in rows {
        let answer = scene.with_token(token, path).await?;
        ensure!(answer.status == *status, "{name}: {} {}", answer.status, answer.text());
        ensure!(*status == 200 || answer.problem() == *problem, "{name}: {}", answer.text());
        ensure!(answer.header("www-authenticate").starts_with(header), "{name}: {:?}", answer.headers);
        ensure!(answer.header("location").is_empty() && answer.header("set-cookie").is_empty(), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn when_the_issuer_is_gone_known_keys_go_on_and_what_needs_it_is_refused_as_unavailable() -> Result<()> {
    let Some(scene) = Federated::start().await? else { return Ok(()) };
    let (known, new) = (
        scene.idp.access_token("client=app&account=carol").await?,
        scene.idp.access_token("client=app&account=dave").await?,
    );
    let opaque = scene.idp.client_token(OPAQUE_CLIENT_ID).await?;
    ensure!(scene.with_token(&known, "/orders").await?.status == 200);
    scene.idp.switch(json!({"trouble": {"*": "down"}})).await?;
    for (name, token, status) in
        [("a token seen before", &known, 200), ("a new one", &new, 200), ("an opaque one", &opaque, 503)]
    {
        let answer = scene.with_token(token, "/orders").await?;
        ensure!(answer.status == status, "{name}: {} {}", answer.status, answer.text());
        ensure!(status == 200 || !answer.header("retry-after").is_empty(), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn an_api_key_opens_until_it_is_to_be_regenerated_rotated_or_revoked_and_stays_at_the_edge() -> Result<()> {
    let Some(scene) = Federated::start().await? else { return Ok(()) };
    let create =
        ["api-keys", "create", "--user", "nightly", "--name", "export", "--group", "robots", "--scope", "orders:read"];
    let key = scene.edge.command(&create)?.trim().to_owned();
    let id = key.rsplit_once('.').context("a key has a secret")?.0.to_owned();
    let answer = scene.with_token(&key, "/orders").await?;
    ensure!(answer.status == 200 && user_at_backend(&answer)? == "nightly", "{} {}", answer.status, answer.text());
    ensure!(answer.json()?["headers"].get("authorization").is_none(), "the key reached the backend");
    let listed: Value = serde_json::from_str(&scene.edge.command(&["api-keys", "list", "--json"])?)?;
    ensure!(listed[0]["id"] == id.as_str() && listed[0]["groups"] == json!(["robots"]), "{listed}");

    let answer = scene.with_token(&key, "/transfer").await?;
    ensure!(answer.status == 403 && answer.problem() == "step_up_impossible", "{}", answer.text());

    // A rule says so, or the operator; either way the key is out of use everywhere.
    let answer = scene.with_token(&key, "/secrets").await?;
    ensure!(answer.status == 401 && answer.problem() == "api-key-regenerate", "{}", answer.text());
    let answer = scene.with_token(&key, "/orders").await?;
    ensure!(answer.status == 401 && answer.problem() == "api-key-regenerate", "{}", answer.text());
    let key = scene.edge.command(&["api-keys", "rotate", &id])?.trim().to_owned();
    ensure!(scene.with_token(&key, "/orders").await?.status == 200, "the new secret does not open");
    scene.edge.command(&["api-keys", "require-regeneration", "--user", "nightly"])?;
    let answer = scene.with_token(&key, "/orders").await?;
    ensure!(answer.status == 401 && answer.problem() == "api-key-regenerate", "{}", answer.text());
    let rotated = scene.edge.command(&["api-keys", "rotate", &id])?.trim().to_owned();
    ensure!(scene.with_token(&rotated, "/orders").await?.status == 200);
    ensure!(scene.with_token(&key, "/orders").await?.status == 401, "the old secret still opens");
    scene.edge.command(&["api-keys", "revoke", &id])?;
    let answer = scene.with_token(&rotated, "/orders").await?;
    ensure!(answer.status == 401 && answer.problem() == "invalid_token", "{}", answer.text());
    Ok(())
}

#[tokio::test]
async fn a_cookie_beside_a_bad_token_does_not_count_and_a_token_needs_no_origin() -> Result<()> {
    let Some(scene) = Federated::start().await? else { return Ok(()) };
    let mut carol = Visitor::default();
    scene.log_in(&mut carol).await?;
    let answer = carol.get(&scene.edge.url("/orders"), &[("authorization", "Bearer nonsense")]).await?;
    ensure!(answer.status == 401, "{} {}", answer.status, answer.text());
    let token = format!("Bearer {}", scene.idp.access_token("client=app&account=dave").await?);
    let from_elsewhere = [("authorization", token.as_str()), ("sec-fetch-site", "cross-site")];
    let answer = carol.post(&scene.edge.url("/orders"), &from_elsewhere, &[("a", "b")]).await?;
    ensure!(answer.status == 200 && user_at_backend(&answer)? == "dave", "{} {}", answer.status, answer.text());
    Ok(())
}
