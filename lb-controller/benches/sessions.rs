//! What it costs to know who sent a request: `cargo xtask bench policy`.
//!
//! Prints one JSON list. A case is a line of [`main`]; each is timed call by call, as a request would make it.

#[path = "sessions/issuer.rs"]
mod issuer;

use std::hint::black_box;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use http::{HeaderMap, HeaderValue, Method, header};
use lb_controller::clock::Clock;
use lb_controller::config::{self, Config};
use lb_controller::identity::{self, ApiKeys, Identities};
use lb_controller::joint::Joint;
use lb_controller::serve::request::{Client, Inbound, InboundBody};
use lb_controller::stepup::{Credential, StepUp, Visit};
use lb_policy::ThreatLevel;

const CALLS: usize = 100_000;
/// Each needs a token of its own.
const FIRST_CALLS: usize = 5_000;

/// The password is `password`; made with the least that Argon2 allows, since the login is not what is timed.
const CONFIGURATION: &str = "
pools: {name: shop, backends: '10.0.0.1:80'}
routes: {path: /**, pool: shop}
users:
  - name: alice
    groups: [staff, billing]
    password_hash: $argon2id$v=19$m=8,t=1,p=1$c2l4dGVlbiBieXRlcyBvaw$HASH
";

fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let issuer = issuer::Issuer::start(folder.path())?;
    let tokens = format!(
        "tokens: {{name: bench, issuer: '{}', audiences: ['{}'], algorithms: [ES256], ca: {}, acr: {{silver: 1}}}}\n",
        issuer.url,
        issuer::AUDIENCE,
        issuer.ca.display()
    );
    let text = CONFIGURATION.replace("HASH", &hash()) + &tokens;
    let config =
        config::compile_read(Path::new("bench.yaml"), &text).map_err(|diagnostics| anyhow::anyhow!("{diagnostics}"))?;
    let step_up = StepUp::open(folder.path(), Clock::system())?;
    let request = with_session(&step_up, &config)?;
    let cookie_open = timed("cookie_open", CALLS, |_| {
        assert!(step_up.session(black_box(&config), black_box(&request)).is_some(), "the session is good");
    });

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let identities = Identities::build(&config, None, &Clock::system(), &identity::start_runtime()?)?;
    let (joint, keys) = (Joint::new(Clock::system(), [], |_| ()), ApiKeys::open(step_up.store().clone())?);
    let visit = Visit { config: &config, joint: &joint, identities: &identities, threat: ThreatLevel::Normal };
    // The first asks for the issuer's keys.
    let mut known = with_token(&issuer.token(0)?)?;
    let first = runtime.block_on(step_up.credential(&visit, &keys, &mut known));
    anyhow::ensure!(first.session().is_some(), "the issuer's token is not taken");
    let mut others =
        (1..=FIRST_CALLS).map(|number| with_token(&issuer.token(number)?)).collect::<Result<Vec<_>, _>>()?;
    let jwt = |request: &mut Inbound| {
        let mut asking = pin!(step_up.credential(black_box(&visit), &keys, black_box(request)));
        let answer = asking.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(answer, Poll::Ready(Credential::Session(_))), "nobody is asked, and the token is good");
    };
    let jwt_es256 = timed("jwt_es256", FIRST_CALLS, |number| jwt(&mut others[number]));
    let jwt_cached = timed("jwt_cached", CALLS, |_| jwt(&mut known));
    println!("[\n  {}\n]", [cookie_open, jwt_cached, jwt_es256].join(",\n  "));
    Ok(())
}

fn with_token(token: &str) -> anyhow::Result<Inbound> {
    let mut request = request("/", Method::GET, b"");
    request.headers.insert(header::AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}"))?);
    Ok(request)
}

fn hash() -> String {
    use argon2::{Algorithm, Argon2, Params, Version};
    let params = Params::new(8, 1, 1, None).expect("the least that Argon2 allows");
    let mut hash = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(b"password", b"sixteen bytes ok", &mut hash)
        .expect("a password can be hashed");
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD_NO_PAD, hash)
}

/// Logs alice in, and gives a request with her cookie.
fn with_session(step_up: &StepUp, config: &Config) -> anyhow::Result<Inbound> {
    let (joint, identities) = (Joint::new(Clock::system(), [], |_| ()), Identities::default());
    let visit = Visit { config, joint: &joint, identities: &identities, threat: ThreatLevel::Normal };
    let form = b"user=alice&password=password";
    let mut login = request("/.lb/login", Method::POST, form);
    let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
    login.headers.insert(header::CONTENT_TYPE, form_type);
    login.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(form.len()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(step_up.pages(&visit, login, None));
    let cookies = answer.headers().get_all(header::SET_COOKIE).iter();
    let cookies: Vec<&str> = cookies.filter_map(|cookie| cookie.to_str().ok()?.split(';').next()).collect();
    anyhow::ensure!(!cookies.is_empty(), "alice could not log in: {answer:?}");
    let mut request = request("/", Method::GET, b"");
    request.headers.insert(header::COOKIE, HeaderValue::try_from(cookies.join("; "))?);
    Ok(request)
}

fn request(path: &str, method: Method, body: &'static [u8]) -> Inbound {
    Inbound {
        id: None,
        method,
        authority: "shop.example".to_owned(),
        host: "shop.example".to_owned(),
        path: path.to_owned(),
        target: path.to_owned(),
        headers: HeaderMap::new(),
        body: InboundBody::Whole(body.into()),
        client: Client { address: [192, 0, 2, 7].into(), through_trusted_proxy: false },
        ends: None,
        certificate: None,
        tls_class: None,
        pages: Default::default(),
        upgrade: None,
        onward: Default::default(),
    }
}

/// One line of the result. `call` gets the number of the call.
fn timed(case: &str, calls: usize, mut call: impl FnMut(usize)) -> String {
    let clock_ns = percentile(&mut (0..calls).map(|_| nanoseconds(|| ())).collect::<Vec<_>>(), 50);
    let mut timings: Vec<u64> =
        (0..calls).map(|number| nanoseconds(|| call(number)).saturating_sub(clock_ns)).collect();
    let (ns_p50, ns_p99) = (percentile(&mut timings, 50), percentile(&mut timings, 99));
    format!("{{\"case\": \"{case}\", \"rules\": 0, \"ns_p50\": {ns_p50}, \"ns_p99\": {ns_p99}}}")
}

fn nanoseconds(call: impl FnOnce()) -> u64 {
    let started = Instant::now();
    call();
    started.elapsed().as_nanos() as u64
}

fn percentile(numbers: &mut [u64], percent: usize) -> u64 {
    numbers.sort_unstable();
    numbers[(numbers.len() * percent / 100).min(numbers.len() - 1)]
}
