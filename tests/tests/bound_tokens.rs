//! Access tokens that are bound to a key (RFC 9449) or to a client certificate (RFC 8705), from a real OpenID provider and
//! before the real controller: a stolen one is of no use.

use anyhow::{Context, Result, ensure};
use lb_tests::authority::Authority;
use lb_tests::federated::Federated;
use lb_tests::idp::{CERTIFICATE_CLIENT_ID, ROBOT_CLIENT_ID, TWO_FACTOR_ACR};
use lb_tests::signing_key::{SigningKey, now};
use lb_tests::visitor::{Answer, Visitor};
use serde_json::{Value, json};
use tempfile::TempDir;

async fn scene(more: String) -> Result<Option<Federated>> {
    if let Some(lacking) = Federated::lacking() {
        ensure!(std::env::var_os("CI").is_none(), "in CI nothing may be skipped: {lacking}");
        eprintln!("SKIPPED: {lacking}");
        return Ok(None);
    }
    Federated::start_with(more).await.map(Some)
}

const ALGORITHMS: &str = "algs=\"ES256 ES384 EdDSA PS256 RS256\"";

/// GET with a token of the scheme `DPoP`, and these proofs.
async fn with_proofs(scene: &Federated, token: &str, path: &str, proofs: &[&str]) -> Result<Answer> {
    let authorization = format!("DPoP {token}");
    let mut headers = vec![("authorization", authorization.as_str())];
    headers.extend(proofs.iter().map(|proof| ("dpop", *proof)));
    Visitor::default().get(&scene.edge.url(path), &headers).await
}

#[tokio::test]
async fn a_token_bound_to_a_key_opens_with_a_proof_for_this_request_once() -> Result<()> {
    let Some(scene) = scene(String::new()).await? else { return Ok(()) };
    let (key, thief) = (SigningKey::generate()?, SigningKey::generate()?);
    let asking = key.proof("POST", &scene.idp.token_url(), None, &json!({}))?;
    let token = scene.idp.client_token_as(&mut Visitor::default(), ROBOT_CLIENT_ID, &[("dpop", &asking)]).await?;
    let url = scene.edge.url("/orders");

    let proof = key.proof("GET", &url, Some(&token), &json!({}))?;
    let answer = with_proofs(&scene, &token, "/orders", &[&proof]).await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    let answer = with_proofs(&scene, &token, "/orders", &[&proof]).await?;
    ensure!(answer.status == 401 && answer.text().contains("it was used before"), "{}", answer.text());

    let rows: &[(&str, &SigningKey, Value)] = &[
        ("for another method", &key, json!({"htm": "POST"})),
        ("for another path", &key, json!({"htu": scene.edge.url("/orders/1")})),
        ("for another host", &key, json!({"htu": "https://evil.example/orders"})),
        ("for no encrypted connection", &key, json!({"htu": url.replace("https:", "http:")})),
        ("for another token", &key, json!({"ath": "c29tZXRoaW5nIGVsc2U"})),
        ("for no token", &key, json!({"ath": null})),
        ("of long ago", &key, json!({"iat": now() - 600})),
        ("of the future", &key, json!({"iat": now() + 600})),
        ("without a time", &key, json!({"iat": null})),
        ("without a name", &key, json!({"jti": null})),
        ("by another key", &thief, json!({})),
    ];
    for (name, signer, changes) in rows {
        let proof = signer.proof("GET", &url, Some(&token), changes)?;
        let answer = with_proofs(&scene, &token, "/orders", &[&proof]).await?;
        refused(&answer, "invalid_dpop_proof").with_context(|| format!("a proof {name}"))?;
    }
    let claims = json!({"jti": "1", "htm": "GET", "htu": url, "iat": now()});
    let another_kind = key.sign(&json!({"typ": "JWT", "jwk": key.jwk()}), &claims)?;
    let keyless = key.sign(&json!({"typ": "dpop+jwt"}), &claims)?;
    let unsigned = key.sign(&json!({"typ": "dpop+jwt", "jwk": key.jwk(), "alg": "none"}), &claims)?;
    let (one, two) =
        (key.proof("GET", &url, Some(&token), &json!({}))?, key.proof("GET", &url, Some(&token), &json!({}))?);
    let rows: &[(&str, &[&str])] = &[
        ("none", &[]),
        ("two at once", &[&one, &two]),
        ("of another kind", &[&another_kind]),
        ("without a key", &[&keyless]),
        ("that nobody signed", &[&unsigned]),
        ("that is no token", &["nonsense"]),
    ];
    for (name, proofs) in rows {
        let answer = with_proofs(&scene, &token, "/orders", proofs).await?;
        refused(&answer, "invalid_dpop_proof").with_context(|| format!("proof: {name}"))?;
    }

    // Stolen, it is no bearer token; and a bearer token becomes no other by its scheme.
    let answer = scene.with_token(&token, "/orders").await?;
    refused(&answer, "invalid_token").context("as a bearer token")?;
    let unbound = scene.idp.client_token(ROBOT_CLIENT_ID).await?;
    let proof = key.proof("GET", &url, Some(&unbound), &json!({}))?;
    let answer = with_proofs(&scene, &unbound, "/orders", &[&proof]).await?;
    refused(&answer, "invalid_token").context("a token that is bound to no key")?;
    Ok(())
}

#[tokio::test]
async fn where_proofs_need_a_nonce_a_client_is_told_it_and_one_made_beforehand_is_of_no_use() -> Result<()> {
    if Federated::lacking().is_some() {
        return scene(String::new()).await.map(drop);
    }
    let scene = Federated::start_with_token_lines("    dpop_nonce: true\n", String::new()).await?;
    let key = SigningKey::generate()?;
    let token = scene.idp.access_token(&format!("client=app&account=carol&jkt={}", key.thumbprint())).await?;
    let url = scene.edge.url("/orders");
    let sent = async |changes: &Value| -> Result<Answer> {
        let proof = key.proof("GET", &url, Some(&token), changes)?;
        with_proofs(&scene, &token, "/orders", &[&proof]).await
    };
    let answer = sent(&json!({})).await?;
    refused(&answer, "use_dpop_nonce").context("without a nonce")?;
    let nonce = answer.header("dpop-nonce").to_owned();
    ensure!(!nonce.is_empty(), "no nonce is told: {:?}", answer.headers);
    let answer = sent(&json!({"nonce": nonce})).await?;
    ensure!(answer.status == 200, "with it: {} {}", answer.status, answer.text());
    refused(&sent(&json!({"nonce": "bm90IHRoZSBub25jZSBvZiBhbnkgbWludXRl"})).await?, "use_dpop_nonce")
        .context("with another")?;
    ensure!(scene.edge.metrics()?.value(r#"lb_tokens_refused_total{reason="use_dpop_nonce"}"#) == 2.0);
    ensure!(scene.edge.audited("token", 0)?.is_empty(), "asking for a nonce is no event");
    Ok(())
}

/// 401 in the scheme that would do, with the algorithms that proofs may have (RFC 9449 §7.1).
fn refused(answer: &Answer, error: &str) -> Result<()> {
    let challenge = answer.header("www-authenticate");
    ensure!(answer.status == 401 && answer.problem() == error, "{} {}", answer.status, answer.text());
    ensure!(challenge.starts_with(&format!("DPoP error=\"{error}\"")) && challenge.contains(ALGORITHMS), "{challenge}");
    Ok(())
}

#[tokio::test]
async fn whoever_proves_a_key_is_asked_for_more_in_the_scheme_of_the_token() -> Result<()> {
    let Some(scene) = scene(String::new()).await? else { return Ok(()) };
    let key = SigningKey::generate()?;
    let token = async |acr: &str| {
        scene.idp.access_token(&format!("client=app&account=carol&acr={acr}&jkt={}", key.thumbprint())).await
    };
    let (weak, strong) = (token("").await?, token(TWO_FACTOR_ACR).await?);
    let rows = [
        ("a weak login", &weak, "/transfer", 401, "insufficient_user_authentication"),
        ("a strong one", &strong, "/transfer", 200, ""),
        ("a scope that it lacks", &strong, "/scoped", 403, "insufficient_scope"),
        ("what no token can bring", &strong, "/approve", 403, "step_up_impossible"),
    ];
    for (name, token, path, status, error) in rows {
        let proof = key.proof("GET", &scene.edge.url(path), Some(token), &json!({}))?;
        let answer = with_proofs(&scene, token, path, &[&proof]).await?;
        ensure!(answer.status == status, "{name}: {} {}", answer.status, answer.text());
        let challenge = answer.header("www-authenticate");
        match error {
            "" | "step_up_impossible" => ensure!(challenge.is_empty(), "{name}: {challenge}"),
            error => {
                ensure!(challenge.starts_with(&format!("DPoP error=\"{error}\", ")), "{name}: {challenge}");
                ensure!(challenge.ends_with(ALGORITHMS), "{name}: {challenge}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_token_bound_to_a_certificate_opens_on_connections_with_that_certificate_alone() -> Result<()> {
    let (authority, folder) = (Authority::new()?, TempDir::new()?);
    let ca = folder.path().join("clients.pem");
    std::fs::write(&ca, authority.pem()?)?;
    let Some(scene) = scene(format!("client_certificates: {{ca: {}}}\n", ca.display())).await? else { return Ok(()) };
    let visitor = |certificate| {
        let mut visitor = Visitor::default();
        visitor.certificate = certificate;
        visitor
    };
    let own = Some(authority.client("robot", |_| ())?);
    let token = scene.idp.client_token_as(&mut visitor(own.clone()), CERTIFICATE_CLIENT_ID, &[]).await?;
    let authorization = format!("Bearer {token}");
    let rows = [
        ("its own", own, 200),
        ("another of the same authority and name", Some(authority.client("robot", |_| ())?), 401),
        ("none", None, 401),
    ];
    for (name, certificate, status) in rows {
        let answer = visitor(certificate).get(&scene.edge.url("/orders"), &[("authorization", &authorization)]).await?;
        ensure!(answer.status == status, "{name}: {} {}", answer.status, answer.text());
        if status == 401 {
            ensure!(answer.problem() == "invalid_token", "{name}: {}", answer.text());
            let challenge = answer.header("www-authenticate");
            ensure!(challenge.starts_with("Bearer error=\"invalid_token\""), "{name}: {challenge}");
        }
    }
    let answer = with_proofs(&scene, &token, "/orders", &[]).await?;
    ensure!(answer.status == 401, "as a token of another scheme: {}", answer.status);
    Ok(())
}

#[tokio::test]
async fn a_token_opens_what_its_scopes_are_for_and_is_told_which_it_lacks() -> Result<()> {
    let Some(scene) = scene(String::new()).await? else { return Ok(()) };
    let token = async |scope: &str| scene.idp.access_token(&format!("client=app&account=carol&scope={scope}")).await;
    let rows = [
        ("both", token("orders:read+orders:write").await?, 200),
        ("one of them", token("orders:read").await?, 403),
        ("a longer name", token("orders:write2+orders:read").await?, 403),
        ("none", scene.idp.token_saying(&json!({"scope": null}), &json!({})).await?, 403),
    ];
    for (name, token, status) in rows {
        let answer = scene.with_token(&token, "/scoped").await?;
        ensure!(answer.status == status, "{name}: {} {}", answer.status, answer.text());
        if status == 403 {
            // RFC 6750 §3.1: `scope` lists what is needed.
            let expected = "Bearer error=\"insufficient_scope\", scope=\"orders:read orders:write\"";
            ensure!(answer.header("www-authenticate") == expected, "{name}: {:?}", answer.headers);
            ensure!(answer.problem() == "insufficient_scope", "{name}: {}", answer.text());
        }
        ensure!(scene.with_token(&token, "/orders").await?.status == 200, "{name}: where none is wanted");
    }
    // People are asked for proof, not for scopes.
    let mut carol = Visitor::default();
    scene.log_in(&mut carol).await?;
    ensure!(carol.get(&scene.edge.url("/scoped"), &[]).await?.status == 200, "a person's cookie");
    let create = ["api-keys", "create", "--user", "nightly", "--name", "n", "--scope", "orders:read"];
    let key = scene.edge.command(&create)?.trim().to_owned();
    let answer = scene.with_token(&key, "/scoped").await?;
    ensure!(answer.status == 403 && answer.problem() == "insufficient_scope", "an API key: {}", answer.text());
    Ok(())
}
