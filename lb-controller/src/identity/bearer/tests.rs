use serde_json::{Value, json};

use super::*;
use crate::config::{Assurance, PeerConfig, Profile};
use crate::identity::kept::Kept;
use crate::identity::key_set::KeySet;
use crate::identity::testing::{keys, sign};

const NOW: u64 = 1_000_000;
const PAUSE_SECONDS: u64 = 30;

/// Bearers with one issuer, whose keys are the tests'; the clock can be moved, and the keys counted.
struct Scene {
    bearers: Bearers,
    clock: Clock,
    fetched: Arc<std::sync::atomic::AtomicUsize>,
}

fn config(types: &[&str]) -> TokenIssuer {
    TokenIssuer {
        name: "corp".to_owned(),
        profile: Profile::Generic,
        issuer: "https://idp.example".to_owned(),
        audiences: vec!["https://api.example".to_owned()],
        algorithms: vec!["ES256".to_owned()],
        types: types.iter().map(|kind| (*kind).to_owned()).collect(),
        claims: Profile::Generic.default_claims(),
        assurance: Assurance { acr: vec![("gold".into(), Level(2))], amr: Vec::new() },
        dpop_nonce: false,
        introspection: None,
        peer: PeerConfig::testing(),
    }
}

fn scene(types: &[&str]) -> Scene {
    scene_of(config(types))
}

fn scene_of(config: TokenIssuer) -> Scene {
    let (clock, fetched) = (Clock::fixed(NOW), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let runtime = Handle::current();
    let mut published = Published::by("https://idp.example", &config.peer, &clock, &runtime).unwrap();
    let count = fetched.clone();
    published.keys = Kept::new(clock.clone(), runtime, PAUSE_SECONDS, move || {
        count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let set = json!({ "keys": [keys().0] });
        async move { Ok(KeySet::read(set.to_string().as_bytes()).unwrap()) }
    });
    let issuer = Issuer { config, published, clock: clock.clone() };
    Scene { bearers: Bearers::new(vec![Arc::new(issuer)], clock.clone()), clock, fetched }
}

fn honest() -> Value {
    json!({
        "iss": "https://idp.example", "aud": "https://api.example", "sub": "carol", "client_id": "app",
        "exp": NOW + 600, "iat": NOW, "scope": "orders:read", "acr": "gold", "auth_time": NOW - 30, "groups": ["staff"],
    })
}

fn with(changes: &Value) -> Value {
    let mut claims = honest().as_object().unwrap().clone();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.remove(name)),
            value => drop(claims.insert(name.clone(), value.clone())),
        }
    }
    claims.into()
}

fn access_token(changes: &Value) -> String {
    sign(&json!({"typ": "at+jwt"}), &with(changes))
}

fn presented(token: &str) -> Presented<'_> {
    Presented {
        scheme: Scheme::Bearer,
        token,
        proof: None,
        method: "GET",
        authority: "api.example",
        path: "/orders",
        certificate: None,
    }
}

#[tokio::test]
async fn an_access_token_is_its_issuers_word_for_this_audience_now_and_no_other_kind_passes_for_one() {
    let invalid = |bad: BadToken| Err(TokenRefused::Invalid(bad));
    let kind = |what| invalid(BadToken::Kind(what));
    const MEANT: &str = "an access token is meant";
    const NEITHER: &str = "an ID token or a logout token is no access token";
    let (marked, unmarked): (&[&str], &[&str]) = (&["at+jwt"], &["at+jwt", "jwt"]);
    type Row<'a> = (&'a str, &'a [&'a str], &'a str, Value, Result<(), TokenRefused>);
    let rows: &[Row<'_>] = &[
        ("honest", marked, "at+jwt", json!({}), Ok(())),
        ("with its full media type", marked, "application/at+JWT", json!({}), Ok(())),
        ("for several audiences", marked, "at+jwt", json!({"aud": ["x", "https://api.example"]}), Ok(())),
        ("unmarked, where that is not expected", marked, "JWT", json!({}), kind(MEANT)),
        ("unmarked, where it is", unmarked, "JWT", json!({}), Ok(())),
        ("an ID token", marked, "JWT", json!({"nonce": "n"}), kind(MEANT)),
        ("an ID token, where access tokens are unmarked", unmarked, "JWT", json!({"nonce": "n"}), kind(NEITHER)),
        ("another ID token", unmarked, "JWT", json!({"at_hash": "h"}), kind(NEITHER)),
        ("a logout token", unmarked, "JWT", json!({"events": {}}), kind(NEITHER)),
        ("a logout token that says so", unmarked, "logout+jwt", json!({}), kind(MEANT)),
        ("Keycloak's ID token", unmarked, "JWT", json!({"typ": "ID"}), kind(MEANT)),
        ("Keycloak's access token", unmarked, "JWT", json!({"typ": "Bearer"}), Ok(())),
        ("a DPoP proof", unmarked, "dpop+jwt", json!({}), kind(MEANT)),
        ("the gateway's own assertion", unmarked, "lb-assertion+jwt", json!({}), kind(MEANT)),
        ("over", marked, "at+jwt", json!({"exp": NOW - 5}), invalid(BadToken::Expired)),
        ("without an end", marked, "at+jwt", json!({"exp": null}), invalid(BadToken::Claim("exp"))),
        ("not yet", marked, "at+jwt", json!({"nbf": NOW + 6}), invalid(BadToken::Early("nbf"))),
        ("from the future", marked, "at+jwt", json!({"iat": NOW + 6}), invalid(BadToken::Early("iat"))),
        (
            "a login of the future",
            marked,
            "at+jwt",
            json!({"auth_time": NOW + 6}),
            invalid(BadToken::Early("auth_time")),
        ),
        ("another audience", marked, "at+jwt", json!({"aud": "https://other"}), invalid(BadToken::Audience)),
        ("no audience", marked, "at+jwt", json!({"aud": null}), invalid(BadToken::Audience)),
        ("another issuer", marked, "at+jwt", json!({"iss": "https://evil"}), invalid(BadToken::Issuer)),
        ("no issuer", marked, "at+jwt", json!({"iss": null}), invalid(BadToken::Claim("iss"))),
        (
            "bound to nothing that is known",
            marked,
            "at+jwt",
            json!({"cnf": {"x": "y"}}),
            invalid(BadToken::Claim("cnf")),
        ),
        (
            "bound to two things",
            marked,
            "at+jwt",
            json!({"cnf": {"jkt": "a", "x5t#S256": "b"}}),
            invalid(BadToken::Claim("cnf")),
        ),
    ];
    for (name, types, typ, changes, expected) in rows {
        let token = sign(&json!({"typ": typ}), &with(changes));
        let outcome = scene(types).bearers.authenticate(presented(&token)).await.map(drop);
        assert_eq!(outcome, *expected, "{name}");
    }
}

#[tokio::test]
async fn a_token_tells_whether_a_person_stands_behind_it() {
    let service_account = json!({"sub": "some-id", "preferred_username": "service-account-app"});
    let rows = [
        ("a person", Profile::Generic, json!({}), Some("carol")),
        ("a client for itself", Profile::Generic, json!({"sub": "app"}), None),
        ("a client, as Okta names it", Profile::Okta, json!({"client_id": null, "cid": "app", "sub": "app"}), None),
        ("a client, as Auth0 says it", Profile::Auth0, json!({"sub": "app@clients"}), None),
        ("a client, as Entra may say it", Profile::Entra, json!({"scp": "a", "idtyp": "app"}), None),
        ("a client, as Entra always says it", Profile::Entra, json!({"roles": ["a"]}), None),
        ("a person, as Entra says it", Profile::Entra, json!({"scp": "a"}), Some("carol")),
        ("a client, as Keycloak says it", Profile::Keycloak, service_account, None),
        (
            "a person who is called so",
            Profile::Keycloak,
            json!({"preferred_username": "service-account-x"}),
            Some("carol"),
        ),
        ("nobody", Profile::Generic, json!({"sub": null}), None),
    ];
    for (name, profile, changes, person) in rows {
        let scene = scene_of(TokenIssuer { profile, ..config(&["at+jwt"]) });
        let verified = scene.bearers.authenticate(presented(&access_token(&changes))).await.unwrap();
        assert_eq!(verified.has_user.then_some(&*verified.user), person, "{name}");
        assert!(person.is_some() || &*verified.user == "app", "{name}");
    }
}

#[tokio::test]
async fn a_verified_token_is_remembered_for_a_minute_at_most_and_never_beyond_its_end() {
    let scene = scene(&["at+jwt"]);
    let long = access_token(&json!({}));
    assert!(!scene.bearers.remembers(&long));
    let first = scene.bearers.authenticate(presented(&long)).await.unwrap();
    scene.clock.set(NOW + 59);
    let second = scene.bearers.authenticate(presented(&long)).await.unwrap();
    assert!(Arc::ptr_eq(&first, &second), "it was not verified again");
    assert!(scene.bearers.remembers(&long));
    scene.clock.set(NOW + 60);
    assert!(!scene.bearers.remembers(&long), "a minute is over");
    assert!(!Arc::ptr_eq(&first, &scene.bearers.authenticate(presented(&long)).await.unwrap()), "a minute is over");
    scene.clock.set(NOW);
    let short = access_token(&json!({"exp": NOW + 10}));
    scene.bearers.authenticate(presented(&short)).await.unwrap();
    scene.clock.set(NOW + 15);
    let outcome = scene.bearers.authenticate(presented(&short)).await;
    assert_eq!(outcome, Err(TokenRefused::Invalid(BadToken::Expired)));
}

#[tokio::test]
async fn tokens_are_verified_anew_once_they_are_to_be_forgotten() {
    let scene = scene(&["at+jwt"]);
    let token = access_token(&json!({}));
    let first = scene.bearers.authenticate(presented(&token)).await.unwrap();
    scene.bearers.forget();
    assert!(!Arc::ptr_eq(&first, &scene.bearers.authenticate(presented(&token)).await.unwrap()));
}

#[tokio::test]
async fn a_flood_of_made_up_key_names_asks_the_issuer_once() {
    let scene = scene(&["at+jwt"]);
    for number in 0..500 {
        let token = sign(&json!({"typ": "at+jwt", "kid": format!("made-up-{number}")}), &honest());
        let outcome = scene.bearers.authenticate(presented(&token)).await;
        assert_eq!(outcome, Err(TokenRefused::Invalid(BadToken::UnknownKey)));
    }
    let fetched = scene.fetched.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(fetched, 1, "questions in one second");
}

fn thumbprint() -> String {
    keys().0.thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256).unwrap()
}

fn bound_token() -> String {
    access_token(&json!({"cnf": {"jkt": thumbprint()}}))
}

fn proof_header() -> Value {
    json!({"typ": "dpop+jwt", "jwk": serde_json::to_value(keys().0).unwrap()})
}

fn proof_claims(token: &str) -> Value {
    use base64::Engine as _;
    let hash = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(crate::identity::sha256(token.as_bytes()));
    json!({"jti": "1", "htm": "GET", "htu": "https://API.example:443/orders", "iat": NOW, "ath": hash})
}

#[tokio::test]
async fn a_token_bound_to_a_key_counts_with_a_fresh_proof_for_this_request_once() {
    let bound = bound_token();
    let other_key = access_token(&json!({"cnf": {"jkt": "x".repeat(43)}}));
    let unbound = access_token(&json!({}));
    let possession = |why| Err(TokenRefused::Proof(BadToken::Possession(why)));
    let bad = |bad| Err(TokenRefused::Proof(bad));
    let header = proof_header();
    type Row<'a> = (&'a str, &'a str, Value, Value, Result<(), TokenRefused>);
    let rows: &[Row<'_>] = &[
        ("honest", &bound, header.clone(), json!({}), Ok(())),
        ("another method", &bound, header.clone(), json!({"htm": "POST"}), possession("htm is another method")),
        (
            "another path",
            &bound,
            header.clone(),
            json!({"htu": "https://api.example/other"}),
            possession("htu is another URL"),
        ),
        (
            "another host",
            &bound,
            header.clone(),
            json!({"htu": "https://evil/orders"}),
            possession("htu is another URL"),
        ),
        (
            "plain HTTP",
            &bound,
            header.clone(),
            json!({"htu": "http://api.example/orders"}),
            possession("htu is another URL"),
        ),
        ("with a query", &bound, header.clone(), json!({"htu": "https://api.example/orders?a=1"}), Ok(())),
        ("of another token", &bound, header.clone(), json!({"ath": "x"}), possession("ath is of another token")),
        ("of no token", &bound, header.clone(), json!({"ath": null}), possession("ath is of another token")),
        ("too old", &bound, header.clone(), json!({"iat": NOW - 61}), bad(BadToken::Expired)),
        ("of the future", &bound, header.clone(), json!({"iat": NOW + 61}), bad(BadToken::Early("iat"))),
        ("without an id", &bound, header.clone(), json!({"jti": null}), bad(BadToken::Claim("jti"))),
        ("without a key", &bound, json!({"typ": "dpop+jwt"}), json!({}), possession("it carries no key")),
        (
            "of another kind",
            &bound,
            json!({"typ": "JWT", "jwk": header["jwk"]}),
            json!({}),
            bad(BadToken::Kind("a DPoP proof is meant")),
        ),
        ("by another key", &other_key, header.clone(), json!({}), possession("the token is bound to another key")),
        (
            "for a token that is bound to none",
            &unbound,
            header.clone(),
            json!({}),
            Err(TokenRefused::Invalid(BadToken::Possession("the token is bound to no key"))),
        ),
    ];
    for (name, token, header, changes, expected) in rows {
        let scene = scene(&["at+jwt"]);
        let mut claims = proof_claims(token).as_object().unwrap().clone();
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.remove(name)),
                value => drop(claims.insert(name.clone(), value.clone())),
            }
        }
        let proof = sign(header, &claims.into());
        let presented = Presented { scheme: Scheme::Dpop, proof: Some(&proof), ..presented(token) };
        assert_eq!(scene.bearers.authenticate(presented).await.map(drop), *expected, "{name}");
        if expected.is_ok() {
            let again = scene.bearers.authenticate(presented).await.map(drop);
            assert_eq!(again, bad(BadToken::Replayed), "{name}, again");
        }
    }
    let as_bearer = scene(&["at+jwt"]).bearers.authenticate(presented(&bound)).await.map(drop);
    assert_eq!(as_bearer, Err(TokenRefused::BoundToKey));
}

#[tokio::test]
async fn where_proofs_must_hold_a_nonce_it_is_told_and_taken_for_two_minutes() {
    let bound = bound_token();
    let header = proof_header();
    let wants_nonces = scene_of(TokenIssuer { dpop_nonce: true, ..config(&["at+jwt"]) });
    let nonced = async |nonce: &str, id: &str| {
        let mut claims = proof_claims(&bound);
        (claims["nonce"], claims["jti"]) = (nonce.into(), id.into());
        claims["iat"] = wants_nonces.clock.now().into();
        let proof = sign(&header, &claims);
        let presented = Presented { scheme: Scheme::Dpop, proof: Some(&proof), ..presented(&bound) };
        wants_nonces.bearers.authenticate(presented).await.map(drop)
    };
    let Err(TokenRefused::NonceWanted(nonce)) = nonced("", "1").await else { panic!("no nonce is asked for") };
    assert_eq!(nonced("x", "2").await, Err(TokenRefused::NonceWanted(nonce.clone())));
    assert_eq!(nonced(&nonce, "3").await, Ok(()));
    assert_eq!(nonced(&nonce, "3").await, Err(TokenRefused::Proof(BadToken::Replayed)));
    wants_nonces.clock.set(NOW + 60);
    assert_eq!(nonced(&nonce, "4").await, Ok(()), "in the minute after");
    wants_nonces.clock.set(NOW + 120);
    assert!(matches!(nonced(&nonce, "5").await, Err(TokenRefused::NonceWanted(other)) if other != nonce));
}

#[tokio::test]
async fn a_token_bound_to_a_certificate_counts_on_connections_with_that_certificate_alone() {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode([7; 32]);
    let token = access_token(&json!({"cnf": {"x5t#S256": encoded}}));
    for (certificate, expected) in [(Some([7; 32]), true), (Some([8; 32]), false), (None, false)] {
        let presented = Presented { certificate, ..presented(&token) };
        let outcome = scene(&["at+jwt"]).bearers.authenticate(presented).await;
        assert_eq!(outcome.is_ok(), expected, "{certificate:?}");
    }
}

#[test]
fn only_credentials_of_known_schemes_are_tokens() {
    let rows = [
        ("Bearer abc", Some((Scheme::Bearer, "abc"))),
        ("bearer  abc ", Some((Scheme::Bearer, "abc"))),
        ("DPoP abc", Some((Scheme::Dpop, "abc"))),
        ("Basic abc", None),
        ("Bearer", None),
        ("", None),
    ];
    for (header, expected) in rows {
        assert_eq!(credentials(header), expected, "{header}");
    }
}

proptest::proptest! {
    // Each case makes an issuer anew.
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
    #[test]
    fn no_text_is_a_token_unless_an_issuer_signed_it(text in ".{0,300}") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let accepted = runtime.block_on(async { scene(&["at+jwt"]).bearers.authenticate(presented(&text)).await.is_ok() });
        proptest::prop_assert!(!accepted);
    }
}
