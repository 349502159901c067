//! Credentials that somebody made up, changed, kept too long or took from elsewhere, before the real controller: none opens
//! anything, none is an error of ours, and each is counted and written down.

use anyhow::{Context, Result, ensure};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use lb_tests::federated::Federated;
use lb_tests::idp::{CLIENT_ID, OPAQUE_CLIENT_ID};
use lb_tests::signing_key::{SigningKey, changed, now, unique};
use lb_tests::visitor::Visitor;
use serde_json::{Value, json};

fn refused_tokens(scene: &Federated) -> Result<f64> {
    Ok(scene.edge.metrics()?.value(r#"lb_tokens_refused_total{reason="invalid_token"}"#))
}

/// Sends each token, and holds that none opens anything, and that each is counted and written down.
async fn all_are_refused(scene: &Federated, tokens: &[(&str, String)]) -> Result<()> {
    let (counted, written) = (refused_tokens(scene)?, scene.edge.audited("token", 0)?.len());
    for (name, token) in tokens {
        let answer = scene.with_token(token, "/orders").await?;
        ensure!(answer.status == 401, "{name}: {} {}", answer.status, answer.text());
        ensure!(answer.problem() == "invalid_token", "{name}: {}", answer.text());
        ensure!(answer.header("www-authenticate").starts_with("Bearer error=\"invalid_token\""), "{name}");
        ensure!(!answer.text().contains(token.as_str()), "{name}: the answer repeats the token");
    }
    let counted = refused_tokens(scene)? - counted;
    ensure!(counted == tokens.len() as f64, "{counted} of {} were counted", tokens.len());
    let events = scene.edge.audited("token", written + tokens.len())?;
    ensure!(events.iter().all(|line| line["event"]["result"] == "invalid_token"), "{events:#?}");
    let trail = std::fs::read_to_string(scene.edge.audit_file())?;
    ensure!(tokens.iter().all(|(_, token)| !trail.contains(token.as_str())), "a token lies in the audit trail");
    Ok(())
}

/// The issuer's public key in the forms in which somebody may take it for a shared secret.
fn spellings(jwk: &Value) -> Result<[(&'static str, Vec<u8>); 3]> {
    // SubjectPublicKeyInfo of a key on P-256 (RFC 5480 §2), up to the point.
    const PREFIX: [u8; 26] = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
        0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap_or_default());
    let der = [&PREFIX[..], &[4], &coordinate("x")?, &coordinate("y")?].concat();
    let base64 = STANDARD.encode(&der);
    let (first, second) = base64.split_at(64);
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{first}\n{second}\n-----END PUBLIC KEY-----\n");
    Ok([("PEM", pem.into_bytes()), ("DER", der), ("JWK", jwk.to_string().into_bytes())])
}

#[tokio::test]
async fn a_token_that_its_issuer_did_not_sign_is_refused_however_it_is_dressed() -> Result<()> {
    let Some(scene) = Federated::start().await? else { return Ok(()) };
    let honest = scene.idp.access_token("client=app&account=carol").await?;
    ensure!(scene.with_token(&honest, "/orders").await?.status == 200, "an honest token");
    let other = scene.idp.access_token("client=app&account=dave").await?;
    let (body, signature) = honest.rsplit_once('.').context("no JWT")?;
    let (header, claims) = body.split_once('.').context("no JWT")?;
    let other_claims = other.split('.').nth(1).context("no JWT")?;
    let read = |part: &str| -> Result<Value> { Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part)?)?) };
    let (header_json, claims_json) = (read(header)?, read(claims)?);
    let with_header = |changes: Value| URL_SAFE_NO_PAD.encode(changed(header_json.clone(), &changes).to_string());
    let mallory = SigningKey::generate()?;
    let by_mallory = |changes: Value| mallory.sign(&changed(header_json.clone(), &changes), &claims_json);

    let mut tokens = vec![
        ("without a signature", format!("{body}.")),
        ("without its last part", body.to_owned()),
        ("of zeros", format!("{body}.{}", URL_SAFE_NO_PAD.encode([0; 64]))),
        ("with another's claims", format!("{header}.{other_claims}.{signature}")),
        ("of nobody", format!("{}.{claims}.", with_header(json!({"alg": "none"})))),
        ("of nobody, signed", format!("{}.{claims}.{signature}", with_header(json!({"alg": "None"})))),
        ("by another key, under the issuer's name for its own", by_mallory(json!({}))?),
        ("by another key that it brings along", by_mallory(json!({"jwk": mallory.jwk()}))?),
        ("by a nameless key that it brings along", by_mallory(json!({"jwk": mallory.jwk(), "kid": null}))?),
        ("by a key from elsewhere", by_mallory(json!({"jku": "https://evil.example/jwks", "kid": "evil"}))?),
        ("by a key in a file", by_mallory(json!({"kid": "../../../../dev/null"}))?),
        ("by a key from a database", by_mallory(json!({"kid": "' UNION SELECT 'x"}))?),
        ("with something critical", by_mallory(json!({"crit": ["exp"]}))?),
        ("with a header that is no object", format!("{}.{claims}.{signature}", URL_SAFE_NO_PAD.encode("[]"))),
        ("with padding", format!("{body}.{signature}==")),
        ("in five parts", format!("{honest}.a.b")),
    ];
    for algorithm in ["RS256", "PS256", "ES384", "EdDSA", "ES256K", "HS256"] {
        tokens
            .push(("of another algorithm", format!("{}.{claims}.{signature}", with_header(json!({"alg": algorithm})))));
    }
    let jwks = Visitor::default().get(&format!("{}/jwks", scene.idp.issuer), &[]).await?.json()?;
    for (form, secret) in spellings(&jwks["keys"][0])? {
        let text = format!("{}.{claims}", with_header(json!({"alg": "HS256"})));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), text.as_bytes());
        tokens.push((form, format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag))));
    }
    all_are_refused(&scene, &tokens).await
}

#[tokio::test]
async fn a_token_that_its_issuer_signed_for_another_time_place_or_purpose_is_refused() -> Result<()> {
    let Some(scene) = Federated::start().await? else { return Ok(()) };
    let none = json!({});
    let id_token = json!({"aud": CLIENT_ID, "nonce": "n", "scope": null});
    let logout = json!({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}, "aud": CLIENT_ID});
    let rows = [
        ("over", json!({"exp": now() - 10}), none.clone()),
        ("without an end", json!({"exp": null}), none.clone()),
        ("with an end in words", json!({"exp": "tomorrow"}), none.clone()),
        ("not valid yet", json!({"nbf": now() + 600}), none.clone()),
        ("of the future", json!({"iat": now() + 600}), none.clone()),
        ("of a login of the future", json!({"auth_time": now() + 600}), none.clone()),
        ("for another audience", json!({"aud": "https://other.example"}), none.clone()),
        ("for an audience that is a part of ours", json!({"aud": "https://api"}), none.clone()),
        ("for nobody", json!({"aud": null}), none.clone()),
        ("of another issuer", json!({"iss": "https://evil.example"}), none.clone()),
        ("of an issuer with a slash more", json!({"iss": format!("{}/", scene.idp.issuer)}), none.clone()),
        ("of nobody", json!({"iss": null}), none.clone()),
        ("that is unmarked", none.clone(), json!({"typ": null})),
        ("that is an ID token", id_token.clone(), json!({"typ": "JWT"})),
        ("that is an ID token for our audience", json!({"nonce": "n"}), json!({"typ": "JWT"})),
        ("that is a logout token", logout.clone(), json!({"typ": "logout+jwt"})),
        ("that is a proof", none.clone(), json!({"typ": "dpop+jwt"})),
        ("that is bound to what nobody knows", json!({"cnf": {"kid": "x"}}), none.clone()),
    ];
    let mut tokens = Vec::new();
    for (name, claims, header) in &rows {
        tokens.push((*name, scene.idp.token_saying(claims, header).await?));
    }
    // What the gateway itself signs for backends is for them alone.
    let mut carol = Visitor::default();
    scene.log_in(&mut carol).await?;
    let told = carol.get(&scene.edge.url("/orders"), &[]).await?.json()?;
    let assertion = told["headers"]["lb-assertion"][0].as_str().context("the backend got no assertion")?;
    tokens.push(("that the gateway signed", assertion.to_owned()));
    all_are_refused(&scene, &tokens).await?;

    // Nor does any other kind pass for a logout token: carol's session lives on.
    let logout_url = scene.edge.url("/.lb/backchannel-logout/corp");
    let missing = |name: &str| changed(changed(logout.clone(), &json!({"jti": "1"})), &json!({name: null}));
    for (name, claims, header) in [
        ("an access token", json!({}), json!({})),
        ("an ID token", id_token, json!({"typ": "JWT"})),
        ("one without its event", missing("events"), json!({"typ": "logout+jwt"})),
        ("one for another client", json!({"events": logout["events"]}), json!({"typ": "logout+jwt"})),
        ("one with a nonce", changed(logout.clone(), &json!({"nonce": "n"})), json!({"typ": "logout+jwt"})),
    ] {
        let token = scene.idp.token_saying(&claims, &header).await?;
        let answer = Visitor::default().post(&logout_url, &[], &[("logout_token", &token)]).await?;
        ensure!(answer.status == 400, "{name}: {} {}", answer.status, answer.text());
    }
    ensure!(scene.session(&mut carol).await?["user"] == "carol", "carol was logged out");
    // An honest one ends it, and only once.
    let honest =
        scene.idp.token_saying(&changed(logout, &json!({"jti": unique()})), &json!({"typ": "logout+jwt"})).await?;
    for (time, status) in [("first", 200), ("again", 400)] {
        let answer = Visitor::default().post(&logout_url, &[], &[("logout_token", &honest)]).await?;
        ensure!(answer.status == status, "{time}: {} {}", answer.status, answer.text());
    }
    let answer = carol.get(&scene.edge.url("/orders"), &[]).await?;
    ensure!(answer.status == 401, "carol's session lives on: {}", answer.status);
    Ok(())
}

#[tokio::test]
async fn a_flood_of_keys_that_do_not_exist_makes_no_question_to_the_issuer() -> Result<()> {
    let Some(scene) = Federated::start().await? else { return Ok(()) };
    let honest = scene.idp.access_token("client=app&account=carol").await?;
    ensure!(scene.with_token(&honest, "/orders").await?.status == 200);
    let begun = std::time::Instant::now();
    let (mallory, claims) = (SigningKey::generate()?, json!({"iss": scene.idp.issuer, "aud": "https://api.example"}));
    for _ in 0..200 {
        let token = mallory.sign(&json!({"typ": "at+jwt", "kid": unique()}), &claims)?;
        ensure!(scene.with_token(&token, "/orders").await?.status == 401);
    }
    let questions = scene.idp.seen().await?.iter().filter(|request| request["path"] == "/jwks").count() as u64;
    // Thirty seconds between two, which is what holds unless the configuration says otherwise.
    ensure!(questions <= 1 + begun.elapsed().as_secs() / 30, "{questions} questions in {:?}", begun.elapsed());
    ensure!(scene.with_token(&honest, "/orders").await?.status == 200, "honest tokens pass as before");
    Ok(())
}

#[tokio::test]
async fn an_issuer_that_answers_nonsense_about_a_token_opens_nothing() -> Result<()> {
    let Some(scene) = Federated::start().await? else { return Ok(()) };
    for trouble in ["down", "html", "slow", "huge", "error"] {
        scene.idp.reset().await?;
        let token = scene.idp.client_token(OPAQUE_CLIENT_ID).await?;
        scene.idp.switch(json!({"trouble": {"/token/introspection": trouble}})).await?;
        let answer = scene.with_token(&token, "/orders").await?;
        ensure!(answer.status == 503 && answer.problem() == "idp_unavailable", "{trouble}: {}", answer.text());
        ensure!(!answer.header("retry-after").is_empty(), "{trouble}: no Retry-After");
        let up = scene.edge.metrics()?.value(r#"lb_idp_up{issuer="corp-api",for="tokens"}"#);
        ensure!(up == 0.0, "{trouble}: the issuer counts as up");
        scene.idp.reset().await?;
        ensure!(scene.with_token(&token, "/orders").await?.status == 200, "{trouble}: it came back");
    }
    let metrics = scene.edge.metrics()?;
    for (result, at_least) in
        [("unreachable", 1.0), ("not_json", 1.0), ("too_slow", 1.0), ("too_long", 1.0), ("refused", 1.0), ("ok", 5.0)]
    {
        let series = format!(r#"lb_idp_requests_total{{issuer="corp-api",for="tokens",result="{result}"}}"#);
        ensure!(metrics.value(&series) >= at_least, "{series} is {}", metrics.value(&series));
    }
    Ok(())
}

#[tokio::test]
async fn keys_that_cannot_be_had_verify_nothing_until_they_can() -> Result<()> {
    let Some(scene) = Federated::start().await? else { return Ok(()) };
    let token = scene.idp.access_token("client=app&account=carol").await?;
    scene.idp.switch(json!({"trouble": {"/jwks": "html"}})).await?;
    let answer = scene.with_token(&token, "/orders").await?;
    ensure!(answer.status == 503 && answer.problem() == "idp_unavailable", "{} {}", answer.status, answer.text());
    ensure!(scene.edge.metrics()?.sum("lb_jwks_age_seconds") == 0.0, "there are no keys");
    scene.idp.reset().await?;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while scene.with_token(&token, "/orders").await?.status != 200 {
        ensure!(std::time::Instant::now() < deadline, "the keys were not asked for again\n{}", scene.edge.log());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    Ok(())
}
