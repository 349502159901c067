//! Logins and step-ups at a real OpenID provider, honest and lying, before the real controller.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lb_tests::edge::{Edge, free_address, service};
use lb_tests::federated::{Federated, RULES, provider_entry};
use lb_tests::idp::{CLIENT_ID, CLIENT_SECRET, Idp, KEY_CLIENT_ID, PASSWORD_ACR};
use lb_tests::visitor::{NAVIGATION, Visitor};
use lb_tests::{level, origin};
use serde_json::{Value, json};

#[tokio::test]
async fn somebody_logs_in_at_the_provider_steps_up_there_and_the_request_goes_on() -> Result<()> {
    let Some(scene) = Federated::start().await? else { return Ok(()) };
    let mut carol = Visitor::default();
    ensure!(scene.log_in(&mut carol).await? == "carol");
    let session = scene.session(&mut carol).await?;
    ensure!(session["level"] == 1, "after a login by password: {session}");
    let seen = scene.idp.seen().await?;
    let pushed = seen.iter().filter(|request| request["method"] == "POST" && request["path"] == "/request").count();
    ensure!(pushed == 1, "the request was not pushed: {seen:?}");

    let (answer, at) = carol.browse(&scene.edge.url("/transfer?to=dave")).await?;
    ensure!(answer.status == 200 && at == scene.edge.url("/transfer?to=dave"), "{at}: {}", answer.text());
    let session = scene.session(&mut carol).await?;
    ensure!(session["level"] == 2, "after a second factor there: {session}");

    let before = scene.idp.seen().await?.len();
    for _ in 0..100 {
        let answer = carol.get(&scene.edge.url("/transfer"), NAVIGATION).await?;
        ensure!(answer.status == 200, "{}", answer.text());
    }
    ensure!(scene.idp.seen().await?.len() == before, "a session costs no question to the provider");
    let cookie = carol.jar(&scene.edge.address.to_string())["__Host-lb"].len();
    ensure!(cookie < 1024, "the session's cookie has {cookie} bytes");
    let store = std::fs::read(scene.edge.state_dir().join("store.redb"))?;
    ensure!(!store.windows(4).any(|bytes| bytes == b"eyJh"), "a token lies in the store in plain text");
    Ok(())
}

#[tokio::test]
async fn whoever_approves_a_payment_at_the_provider_is_shown_it_before() -> Result<()> {
    let Some(scene) = Federated::start().await? else { return Ok(()) };
    let mut carol = Visitor::default();
    scene.log_in(&mut carol).await?;
    let form = [NAVIGATION[0], NAVIGATION[1], ("sec-fetch-site", "same-origin")];
    let payments = scene.edge.url("/payments");
    let answer = carol.post(&payments, &form, &[("amount", "900.00")]).await?;
    ensure!(answer.status == 303, "{}: {}", answer.status, answer.text());
    let challenge = scene.edge.url(answer.header("location"));
    let seen = scene.idp.seen().await?.len();
    let page = carol.get(&challenge, NAVIGATION).await?;
    ensure!(page.status == 200 && page.text().contains("<dt>amount</dt><dd>900.00</dd>"), "{}", page.text());
    ensure!(scene.idp.seen().await?.len() == seen, "the provider was asked before anything was shown");
    let (resume, at) = carol.browse(&format!("{challenge}/idp")).await?;
    ensure!(at.contains("/.lb/resume/"), "{at}: {}", resume.text());
    let id = at.rsplit('/').next().unwrap_or_default();
    let goes_on = carol.post(&payments, &form, &[("lb-tx", id)]).await?;
    ensure!(goes_on.status == 200, "{}: {}", goes_on.status, goes_on.text());
    let received = scene.origin.received().pop();
    ensure!(received.is_some_and(|request| request.body == "amount=900.00"), "other bytes arrived");
    Ok(())
}

#[tokio::test]
async fn a_provider_that_lies_gains_its_user_nothing_and_nobody_goes_in_circles() -> Result<()> {
    let Some(scene) = Federated::start().await? else { return Ok(()) };
    let rows: &[(&str, &str, Value, &str)] = &[
        ("it ignores what was asked for", "/transfer", json!({"acr": PASSWORD_ACR}), "step_up_unmet"),
        ("an unknown word for it", "/transfer", json!({"acr": "urn:idp:Two-Factor"}), "step_up_unmet"),
        ("no word at all", "/transfer", json!({"id_token": {"acr": null}}), "step_up_unmet"),
        ("an old login, with a fresh token", "/recent", json!({"auth_time_offset_seconds": 70}), "step_up_unmet"),
        ("no time of the login", "/recent", json!({"id_token": {"auth_time": null}}), "login_refused"),
        ("a login of tomorrow", "/recent", json!({"auth_time_offset_seconds": -86_400}), "login_refused"),
        ("an approval without a new login", "/approve", json!({"auth_time_offset_seconds": 60}), "step_up_unmet"),
        ("somebody else", "/transfer", json!({"id_token": {"sub": "mallory"}}), "other_user"),
        ("another issuer", "/transfer", json!({"id_token": {"iss": "https://evil.example"}}), "login_refused"),
        ("another audience", "/transfer", json!({"id_token": {"aud": "other"}}), "login_refused"),
        ("another nonce", "/transfer", json!({"id_token": {"nonce": "x"}}), "login_refused"),
        ("an expired token", "/transfer", json!({"id_token": {"exp": 1}}), "login_refused"),
        ("a token that is not signed", "/transfer", json!({"algorithm": "none"}), "login_refused"),
        ("one signed with the secret", "/transfer", json!({"algorithm": "HS256"}), "login_refused"),
        ("a logout token", "/transfer", json!({"id_token": {"events": {}}}), "login_refused"),
        ("an access token", "/transfer", json!({"header": {"typ": "at+jwt"}}), "login_refused"),
        (
            "an answer of another",
            "/transfer",
            json!({"authorization_response": {"iss": "https://evil"}}),
            "login_refused",
        ),
        ("an answer of nobody", "/transfer", json!({"authorization_response": {"iss": null}}), "login_refused"),
        ("a code that was never given", "/transfer", json!({"authorization_response": {"code": "x"}}), "login_refused"),
    ];
    for (name, path, lies, problem) in rows {
        let mut carol = Visitor::default();
        scene.idp.reset().await?;
        scene.log_in(&mut carol).await?;
        scene.idp.switch(lies.clone()).await?;
        let callback = carol.browse_until(&scene.edge.url(path), "/.lb/callback/").await?;
        // As a tool, to be told the name of the refusal.
        let answer = carol.get(&callback, &[]).await?;
        ensure!(answer.status == 403, "{name}: {} {}", answer.status, answer.text());
        ensure!(answer.problem() == *problem, "{name}: {}", answer.text());
        ensure!(answer.header("cache-control") == "no-store", "{name}");
        let session = scene.session(&mut carol).await?;
        ensure!(session["user"] == "carol" && session["level"] == 1, "{name}: {session}");
        let again = carol.get(&callback, &[]).await?;
        ensure!(again.status == 403 && again.problem() == "login_not_begun_here", "{name}, again: {}", again.text());
    }
    // Each is written down as what it was, and none as a proof.
    let events = scene.edge.audited("verify", rows.len())?;
    let results: Vec<&str> = events.iter().filter_map(|line| line["event"]["result"].as_str()).collect();
    for (result, count) in [("unmet", 5), ("other-user", 1), ("declined", 1), ("bad-answer", rows.len() - 7)] {
        let found = results.iter().filter(|found| **found == result).count();
        ensure!(found == count, "{found} of {count} are {result}: {results:?}");
    }
    let metrics = scene.edge.metrics()?;
    let series =
        |result: &str, reason: &str| format!(r#"lb_verify_total{{method="idp",result="{result}",reason="{reason}"}}"#);
    ensure!(
        metrics.value(&series("refused", "other-user")) == 1.0 && metrics.value(&series("refused", "unmet")) == 5.0
    );
    Ok(())
}

#[tokio::test]
async fn what_an_id_token_leaves_out_is_asked_for_and_nobody_elses_answer_is_taken() -> Result<()> {
    let Some(scene) = Federated::start().await? else { return Ok(()) };
    let mut carol = Visitor::default();
    scene.idp.switch(json!({"id_token": {"groups": null}})).await?;
    scene.log_in(&mut carol).await?;
    let asked = || async {
        let seen = scene.idp.seen().await?;
        Ok::<_, anyhow::Error>(seen.iter().filter(|request| request["path"] == "/me").count())
    };
    ensure!(asked().await? == 1, "the groups were not asked for");
    let answer = carol.get(&scene.edge.url("/staff"), &[]).await?;
    ensure!(answer.status == 200, "carol is of the staff: {} {}", answer.status, answer.text());

    scene.idp.switch(json!({"user_info": {"sub": "mallory"}})).await?;
    let mut dave = Visitor::default();
    let callback = dave.browse_until(&scene.edge.url("/"), "/.lb/callback/").await?;
    let answer = dave.get(&callback, &[]).await?;
    ensure!(answer.status == 403 && answer.problem() == "other_user", "{} {}", answer.status, answer.text());

    scene.idp.reset().await?;
    scene.idp.switch(json!({"id_token": {"groups": null}, "trouble": {"/me": "html"}})).await?;
    let mut dave = Visitor::default();
    let callback = dave.browse_until(&scene.edge.url("/"), "/.lb/callback/").await?;
    let answer = dave.get(&callback, &[]).await?;
    ensure!(answer.status == 503 && answer.problem() == "idp_unavailable", "{} {}", answer.status, answer.text());
    // Who has all of it in the ID token costs no question.
    scene.idp.reset().await?;
    let before = asked().await?;
    scene.log_in(&mut Visitor::default()).await?;
    ensure!(asked().await? == before, "it was asked for what was there");
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_met_is_tried_twice_and_then_never_again() -> Result<()> {
    let Some(scene) = Federated::start().await? else { return Ok(()) };
    let mut carol = Visitor::default();
    scene.log_in(&mut carol).await?;
    scene.idp.switch(json!({"acr": PASSWORD_ACR})).await?;
    let at = carol.browse_until(&scene.edge.url("/transfer"), "/.lb/challenge/").await?;
    for _ in 0..2 {
        let (answer, _) = carol.browse(&at).await?;
        ensure!(answer.status == 403 && answer.text().contains("Not confirmed"), "{}", answer.text());
    }
    let seen = scene.idp.seen().await?.len();
    let (answer, _) = carol.browse(&at).await?;
    ensure!(answer.status == 403 && answer.text().contains("No tries left"), "{}", answer.text());
    ensure!(scene.idp.seen().await?.len() == seen, "the provider was asked a third time");
    Ok(())
}

#[tokio::test]
async fn a_provider_in_trouble_refuses_logins_in_time_and_leaves_sessions_alone() -> Result<()> {
    let Some(scene) = Federated::start().await? else { return Ok(()) };
    let mut carol = Visitor::default();
    scene.log_in(&mut carol).await?;
    for trouble in ["down", "html", "slow", "huge", "error"] {
        scene.idp.reset().await?;
        scene.idp.switch(json!({"trouble": {"/request": trouble}})).await?;
        let begun = Instant::now();
        let answer = Visitor::default().get(&scene.edge.url("/.lb/login/corp"), &[]).await?;
        ensure!(answer.status == 503 && answer.problem() == "idp_unavailable", "{trouble}: {}", answer.text());
        ensure!(!answer.header("retry-after").is_empty(), "{trouble}: no Retry-After");
        ensure!(begun.elapsed() < Duration::from_secs(5), "{trouble}: refused after {:?}", begun.elapsed());
        let answer = carol.get(&scene.edge.url("/orders"), NAVIGATION).await?;
        ensure!(answer.status == 200, "{trouble}: the session is refused: {}", answer.text());

        scene.idp.reset().await?;
        let mut dave = Visitor::default();
        let callback = dave.browse_until(&scene.edge.url("/"), "/.lb/callback/").await?;
        scene.idp.switch(json!({"trouble": {"/token": trouble}})).await?;
        let answer = dave.get(&callback, &[]).await?;
        ensure!(answer.status == 503 && answer.problem() == "idp_unavailable", "{trouble}: {}", answer.text());
    }
    Ok(())
}

#[tokio::test]
async fn nobody_finishes_what_another_began() -> Result<()> {
    let Some(scene) = Federated::start().await? else { return Ok(()) };
    let (mut mallory, mut victim) = (Visitor::default(), Visitor::default());
    // Login CSRF: the victim is made to open mallory's way back.
    let callback = mallory.browse_until(&scene.edge.url("/"), "/.lb/callback/").await?;
    let answer = victim.get(&callback, &[]).await?;
    ensure!(answer.status == 403 && answer.problem() == "login_not_begun_here", "{}", answer.text());
    ensure!(!victim.jar(&scene.edge.address.to_string()).contains_key("__Host-lb"));

    // A forced step-up: mallory's transaction, finished by the victim.
    scene.log_in(&mut mallory).await?;
    scene.log_in(&mut victim).await?;
    let challenge = mallory.browse_until(&scene.edge.url("/transfer"), "/.lb/challenge/").await?;
    let answer = victim.get(&format!("{challenge}/idp"), NAVIGATION).await?;
    ensure!(answer.status == 403, "{} {}", answer.status, answer.text());
    let callback = mallory.browse_until(&challenge, "/.lb/callback/").await?;
    let answer = victim.get(&callback, &[]).await?;
    ensure!(answer.status == 403 && answer.problem() == "login_not_begun_here", "{}", answer.text());
    ensure!(scene.session(&mut victim).await?["level"] == 1);
    Ok(())
}

#[tokio::test]
async fn a_logout_here_is_one_there_and_one_there_ends_sessions_here_within_a_second() -> Result<()> {
    let Some(scene) = Federated::start().await? else { return Ok(()) };
    let mut first = Visitor::default();
    scene.log_in(&mut first).await?;
    // A second browser window of the same person: the same login at the provider, a session of its own here.
    let mut second = first.clone();
    second.jar(&scene.edge.address.to_string()).clear();
    scene.log_in(&mut second).await?;
    // Somebody else, whom none of this concerns.
    scene.idp.switch(json!({"account": "dave"})).await?;
    let mut dave = Visitor::default();
    ensure!(scene.log_in(&mut dave).await? == "dave");

    let stolen = first.clone();
    let answer = first.post(&scene.edge.url("/.lb/logout"), NAVIGATION, &[]).await?;
    let there = answer.header("location").to_owned();
    ensure!(answer.status == 303 && there.starts_with(&scene.idp.issuer), "{} {there}", answer.status);
    ensure!(there.contains("id_token_hint=") && there.contains("post_logout_redirect_uri="), "{there}");
    let page = first.get(&there, NAVIGATION).await?.text();
    let xsrf = page.split("name=\"xsrf\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
    let confirm = format!("{}/session/end/confirm", scene.idp.issuer);
    let answer = first.post(&confirm, NAVIGATION, &[("xsrf", xsrf), ("logout", "yes")]).await?;
    let told = Instant::now();
    ensure!(answer.header("location").starts_with(&scene.edge.url("/.lb/login")), "{page} {:?}", answer.headers);

    loop {
        let answer = second.get(&scene.edge.url("/orders"), &[]).await?;
        if answer.status == 401 {
            break;
        }
        ensure!(
            told.elapsed() < Duration::from_secs(1),
            "the session lives on: {}\n{}",
            answer.status,
            scene.edge.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let answer = stolen.clone().get(&scene.edge.url("/orders"), &[]).await?;
    ensure!(answer.status == 401, "a cookie of before the logout opens: {}", answer.status);
    ensure!(scene.session(&mut dave).await?["user"] == "dave", "somebody else was logged out");

    let forged = [("logout_token", "eyJhbGciOiJub25lIn0.e30.")];
    let url = scene.edge.url("/.lb/backchannel-logout/corp");
    let answer = Visitor::default().post(&url, &[], &forged).await?;
    ensure!(answer.status == 400, "{} {}", answer.status, answer.text());
    Ok(())
}

#[tokio::test]
async fn the_first_provider_that_answers_is_used_and_none_at_all_is_no_way_in() -> Result<()> {
    if level::is_skipped("peers", Federated::lacking()) {
        return Ok(());
    }
    let (_origin, backend) = origin::start().await?;
    let address = free_address()?;
    let port = || free_address().map(|address| address.port());
    let (one, two) = (port()?, port()?);
    let (edge, first, second) = tokio::task::spawn_blocking(move || -> Result<_> {
        let (first, second) = (Idp::start_at(address, one, "first")?, Idp::start_at(address, two, "second")?);
        let providers = [provider_entry("first", &first), provider_entry("second", &second)].concat();
        let text = [&service(address, backend), "identity_providers:\n", &providers, RULES].concat();
        Ok((Edge::start_at(address, &text)?, first, second))
    })
    .await??;
    let lands_at = async |idp: &Idp| -> Result<bool> {
        let at = Visitor::default().browse_until(&edge.url("/"), "/auth").await?;
        Ok(at.starts_with(&idp.issuer))
    };
    ensure!(lands_at(&first).await?, "both are up, and the first was not used");
    first.switch(json!({"trouble": {"*": "down"}})).await?;
    ensure!(lands_at(&second).await?, "the first is down, and the second was not used");
    second.switch(json!({"trouble": {"*": "down"}})).await?;
    let answer = Visitor::default().get(&edge.url("/.lb/login"), &[]).await?;
    ensure!(answer.status == 503 && answer.problem() == "idp_unavailable", "{} {}", answer.status, answer.text());
    let answer = Visitor::default().get(&edge.url("/orders"), &[]).await?;
    ensure!(answer.status == 401, "{}", answer.status);
    Ok(())
}

#[tokio::test]
async fn the_edge_proves_who_it_is_by_a_key_that_the_provider_does_not_have() -> Result<()> {
    if level::is_skipped("peers", Federated::lacking()) {
        return Ok(());
    }
    let (_origin, backend) = origin::start().await?;
    let address = free_address()?;
    let (edge, idp) = tokio::task::spawn_blocking(move || -> Result<_> {
        let idp = Idp::start(address)?;
        let own = format!("client_id: {KEY_CLIENT_ID}\n    client_key_file: {}\n", idp.client_key().display());
        let secret = format!("client_id: {CLIENT_ID}\n    client_secret: '{CLIENT_SECRET}'\n");
        let provider = provider_entry("corp", &idp);
        ensure!(provider.contains(&secret), "{provider}");
        let text =
            [&service(address, backend), "identity_providers:\n", &provider.replace(&secret, &own), RULES].concat();
        Ok((Edge::start_at(address, &text)?, idp))
    })
    .await??;
    // The request is pushed, the code traded, and each time with an assertion of its own.
    let mut carol = Visitor::default();
    carol.browse(&edge.url("/hello")).await?;
    let (answer, at) = carol.browse(&edge.url("/transfer")).await?;
    ensure!(
        answer.status == 200 && at == edge.url("/transfer"),
        "{at}: {} {}\n{}",
        answer.status,
        answer.text(),
        edge.log()
    );
    let seen = idp.seen().await?;
    let posts: Vec<_> =
        seen.iter().filter(|request| request["method"] == "POST").map(|request| &request["path"]).collect();
    ensure!(posts == ["/request", "/token", "/request", "/token"], "{posts:?}");
    Ok(())
}

#[tokio::test]
async fn a_provider_may_change_its_keys() -> Result<()> {
    let Some(scene) = Federated::start().await? else { return Ok(()) };
    scene.log_in(&mut Visitor::default()).await?;
    scene.idp.switch(json!({"rotate_keys": true})).await?;
    // Not before the provider may be asked for its keys again.
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(error) = scene.log_in(&mut Visitor::default()).await {
        ensure!(Instant::now() < deadline, "its new key was not fetched: {error:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
