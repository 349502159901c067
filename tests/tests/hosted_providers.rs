//! Providers that people rent rather than run, each as its documentation says it behaves (tests/idp/profiles.mjs), before the
//! real controller with no more configuration than docs/providers.md asks for.

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lb_tests::federated::Federated;
use lb_tests::visitor::Visitor;
use serde_json::{Value, json};

struct Hosted {
    profile: &'static str,
    /// Beside `profile`.
    lines: &'static str,
    weak: &'static str,
    strong: &'static str,
    /// What the provider is asked for when level 2 is needed.
    asked: fn(&Value) -> bool,
    /// What the challenge of an API's client must say, before anything else of it.
    challenge: &'static str,
    /// Its access tokens tell how strong a login was.
    tokens_tell: bool,
}

const MULTI_FACTOR: &str = "http://schemas.openid.net/pape/policies/2007/06/multi-factor";

const HOSTED: &[Hosted] = &[
    Hosted {
        profile: "keycloak",
        lines: "    groups_claim: realm_access.roles\n",
        weak: "1",
        strong: "2",
        asked: |query| {
            let claims = r#"{"id_token":{"acr":{"essential":true,"values":["2","3"]},"sub":{"value":"carol"}}}"#;
            query["acr_values"] == "2 3" && query["claims"] == claims
        },
        challenge: "Bearer error=\"insufficient_user_authentication\", acr_values=\"2 3\"",
        tokens_tell: true,
    },
    Hosted {
        profile: "auth0",
        lines: "",
        weak: "password",
        strong: MULTI_FACTOR,
        asked: |query| query["acr_values"] == MULTI_FACTOR && query.get("claims").is_none(),
        challenge: "Bearer error=\"insufficient_user_authentication\", \
                    acr_values=\"http://schemas.openid.net/pape/policies/2007/06/multi-factor\"",
        tokens_tell: false,
    },
    Hosted {
        profile: "entra",
        lines: "    acr: {c1: 2}\n",
        weak: "none",
        strong: "c1",
        asked: |query| {
            let claims = r#"{"id_token":{"acrs":{"essential":true,"values":["c1"]},"sub":{"value":"carol"}}}"#;
            query.get("acr_values").is_none() && query["claims"] == claims
        },
        challenge: "Bearer realm=\"\", authorization_uri=\"https://localhost:",
        tokens_tell: true,
    },
    Hosted {
        profile: "okta",
        lines: "",
        weak: "urn:okta:loa:1fa:any",
        strong: "urn:okta:loa:2fa:any",
        asked: |query| query["acr_values"] == "urn:okta:loa:2fa:any phr phrh",
        challenge: "Bearer error=\"insufficient_user_authentication\", acr_values=\"urn:okta:loa:2fa:any phr phrh\"",
        tokens_tell: true,
    },
];

async fn scene(hosted: &Hosted) -> Result<Option<Federated>> {
    if let Some(lacking) = Federated::lacking() {
        ensure!(std::env::var_os("CI").is_none(), "in CI nothing may be skipped: {lacking}");
        eprintln!("SKIPPED: {lacking}");
        return Ok(None);
    }
    Federated::start_like(hosted.profile, hosted.lines).await.map(Some)
}

#[tokio::test]
async fn a_step_up_asks_each_provider_in_its_own_words_and_understands_the_answer() -> Result<()> {
    for hosted in HOSTED {
        let Some(scene) = scene(hosted).await? else { return Ok(()) };
        step_up(&scene, hosted).await.with_context(|| hosted.profile)?;
    }
    Ok(())
}

async fn step_up(scene: &Federated, hosted: &Hosted) -> Result<()> {
    let mut carol = Visitor::default();
    ensure!(scene.log_in(&mut carol).await? == "carol");
    ensure!(scene.session(&mut carol).await?["level"] == 1, "after a login that asked for nothing");
    let target = scene.edge.url("/transfer?to=dave");
    let (answer, at) = carol.browse(&target).await?;
    ensure!(answer.status == 200 && at == target, "{at}: {} {}", answer.status, answer.text());
    ensure!(scene.session(&mut carol).await?["level"] == 2, "after the step-up");
    let seen = scene.idp.seen().await?;
    let logins: Vec<&Value> = seen.iter().filter(|request| request["method"] == "LOGIN").collect();
    let asked = logins.last().context("nobody logged in")?;
    ensure!((hosted.asked)(&asked["query"]), "the provider was asked {asked:#}");
    ensure!(asked["query"].get("max_age").is_none(), "no rule asked for a fresh login: {asked:#}");
    // What was proved a moment ago is fresh, and nobody is asked again.
    ensure!(carol.browse(&scene.edge.url("/recent")).await?.0.status == 200, "a strong login of the last minute");
    let asked_again = scene.idp.seen().await?.iter().filter(|request| request["method"] == "LOGIN").count();
    ensure!(asked_again == logins.len(), "carol was asked again");
    let verified = scene.edge.audited("verify", 1)?;
    let provider =
        json!({"name": "corp", "acr": hosted.strong, "auth_time": verified[0]["event"]["provider"]["auth_time"]});
    ensure!(verified[0]["event"]["provider"] == provider, "{verified:#?}");

    // A provider that does not give what was asked for is not believed, and not asked without end.
    let mut carol = Visitor::default();
    scene.log_in(&mut carol).await?;
    scene.idp.switch(json!({"acr": hosted.weak})).await?;
    let callback = carol.browse_until(&scene.edge.url("/transfer"), "/.lb/callback/").await?;
    let answer = carol.get(&callback, &[]).await?;
    ensure!(answer.status == 403 && answer.problem() == "step_up_unmet", "{} {}", answer.status, answer.text());
    ensure!(scene.session(&mut carol).await?["level"] == 1, "a step-up that came to nothing");
    Ok(())
}

#[tokio::test]
async fn how_old_a_login_is_is_known_as_each_provider_tells_it() -> Result<()> {
    for hosted in HOSTED {
        let Some(scene) = scene(hosted).await? else { return Ok(()) };
        let mut carol = Visitor::default();
        scene.log_in(&mut carol).await?;
        // The provider says that people logged in an hour ago, whatever they did since.
        scene.idp.switch(json!({"auth_time_offset_seconds": 3600})).await?;
        let callback = carol.browse_until(&scene.edge.url("/recent"), "/.lb/callback/").await?;
        let answer = carol.get(&callback, &[]).await?;
        let is_auth0 = hosted.profile == "auth0";
        if is_auth0 {
            ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
            ensure!(
                carol.browse(&scene.edge.url("/recent")).await?.0.status == 200,
                "what was proved just now is fresh"
            );
            // Another window: the provider remembers the second factor, asks for none, and says `mfa` no more.
            carol.jar(&scene.edge.address.to_string()).clear();
            scene.log_in(&mut carol).await?;
            let callback = carol.browse_until(&scene.edge.url("/recent"), "/.lb/callback/").await?;
            let answer = carol.get(&callback, &[]).await?;
            ensure!(
                answer.problem() == "step_up_unmet",
                "a proof of then was taken: {} {}",
                answer.status,
                answer.text()
            );
        } else {
            ensure!(answer.problem() == "step_up_unmet", "{}: {} {}", hosted.profile, answer.status, answer.text());
        }
    }
    Ok(())
}

#[tokio::test]
async fn access_tokens_of_each_provider_are_understood_and_asked_for_more_in_its_words() -> Result<()> {
    for hosted in HOSTED {
        let Some(scene) = scene(hosted).await? else { return Ok(()) };
        tokens(&scene, hosted).await.with_context(|| hosted.profile)?;
    }
    Ok(())
}

async fn tokens(scene: &Federated, hosted: &Hosted) -> Result<()> {
    let token = async |acr: &str| scene.idp.access_token(&format!("client=app&account=carol&acr={acr}")).await;
    let (weak, strong) = (token(hosted.weak).await?, token(hosted.strong).await?);
    let program = scene.idp.access_token("client=app").await?;
    ensure!(scene.with_token(&weak, "/orders").await?.status == 200, "a person's token");
    ensure!(scene.with_token(&program, "/orders").await?.status == 200, "a program's token");

    let answer = scene.with_token(&weak, "/transfer").await?;
    let challenge = answer.header("www-authenticate");
    ensure!(answer.status == 401 && challenge.starts_with(hosted.challenge), "{} {challenge}", answer.status);
    if hosted.profile == "entra" {
        let claims = challenge.split("error=\"insufficient_claims\", claims=\"").nth(1).context("no claims")?;
        let claims: Value = serde_json::from_slice(&STANDARD.decode(claims.trim_end_matches('"'))?)?;
        ensure!(claims == json!({"access_token": {"acrs": {"essential": true, "value": "c1"}}}), "{claims}");
    }
    let answer = scene.with_token(&strong, "/transfer").await?;
    let expected = if hosted.tokens_tell { 200 } else { 401 };
    ensure!(answer.status == expected, "a strong token: {} {}", answer.status, answer.text());
    let answer = scene.with_token(&program, "/transfer").await?;
    ensure!(answer.problem() == "step_up_impossible", "a program's: {} {}", answer.status, answer.text());
    // Signed by the same keys, and no access token.
    let id_token = scene.idp.token_saying(&json!({"nonce": "n", "typ": null}), &json!({"typ": "JWT"})).await?;
    let answer = scene.with_token(&id_token, "/orders").await?;
    ensure!(answer.status == 401 && answer.problem() == "invalid_token", "an ID token: {}", answer.text());
    Ok(())
}
