//! An engine with its state directory, and visitors who keep their cookies.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use http::{StatusCode, header};
use http_body_util::BodyExt as _;
use lb_policy::{Challenge, Level, Method, ProvedFactor, Requirement, ThreatLevel};

use super::super::testing::{self, PASSWORD, TOTP_SECRET};
use super::super::{Session, StepUp, Visit, factor};
use crate::clock::Clock;
use crate::config::Config;
use crate::identity::Identities;
use crate::joint::{Joint, SourceChange};
use crate::serve::request::Inbound;
use crate::serve::respond::OwnResponse;

pub(super) const NOW: u64 = 1_790_000_010;

pub(super) struct Bench {
    pub(super) step_up: StepUp,
    pub(super) config: Config,
    pub(super) clock: Clock,
    pub(super) told: Arc<Mutex<Vec<SourceChange>>>,
    joint: Joint,
    identities: Identities,
    directory: tempfile::TempDir,
}

impl Bench {
    pub(super) fn new() -> Bench {
        Bench::with(testing::config())
    }

    pub(super) fn with(config: Config) -> Bench {
        let (directory, clock) = (tempfile::tempdir().unwrap(), Clock::fixed(NOW));
        let told = Arc::new(Mutex::new(Vec::new()));
        let listener = told.clone();
        let joint = Joint::new(clock.clone(), [], move |change| listener.lock().unwrap().push(change));
        let step_up = StepUp::open(directory.path(), clock.clone()).unwrap();
        Bench { step_up, config, clock, told, joint, identities: Identities::default(), directory }
    }

    /// The same host after a crash: memory is gone, the state directory is not.
    pub(super) fn restarted(self) -> Bench {
        let Bench { step_up, config, clock, told, joint, identities, directory } = self;
        drop(step_up);
        let step_up = StepUp::open(directory.path(), clock.clone()).unwrap();
        Bench { step_up, config, clock, told, joint, identities, directory }
    }

    pub(super) fn visit(&self) -> Visit<'_> {
        Visit { config: &self.config, joint: &self.joint, identities: &self.identities, threat: ThreatLevel::Normal }
    }

    pub(super) fn wait(&self, seconds: u64) {
        self.clock.set(self.clock.now() + seconds);
    }

    /// The code that alice's app shows now.
    pub(super) fn code(&self) -> String {
        factor::totp::totp(TOTP_SECRET).generate(self.clock.now()).to_string()
    }

    pub(super) fn session_of(&self, request: &Inbound) -> Option<Session> {
        self.step_up.session(&self.config, request)
    }
}

/// A browser or a command-line client.
#[derive(Clone)]
pub(super) struct Visitor {
    pub(super) cookies: BTreeMap<String, String>,
    headers: Vec<(&'static str, &'static str)>,
}

impl Visitor {
    pub(super) fn curl() -> Visitor {
        Visitor { cookies: BTreeMap::new(), headers: vec![("accept", "*/*")] }
    }

    pub(super) fn browser() -> Visitor {
        let headers = vec![("accept", "text/html"), ("sec-fetch-mode", "navigate"), ("sec-fetch-site", "same-origin")];
        Visitor { cookies: BTreeMap::new(), headers }
    }

    /// The same cookies, sent by a page of another site.
    pub(super) fn lured(&self) -> Visitor {
        let headers = vec![("accept", "text/html"), ("sec-fetch-mode", "navigate"), ("sec-fetch-site", "cross-site")];
        Visitor { cookies: self.cookies.clone(), headers }
    }

    pub(super) fn request(&self, method: &str, target: &str, content_type: Option<&str>, body: &str) -> Inbound {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookies = cookies.join("; ");
        let mut headers = self.headers.clone();
        if !cookies.is_empty() {
            headers.push(("cookie", &cookies));
        }
        if let Some(content_type) = content_type {
            headers.push(("content-type", content_type));
        }
        testing::request(method, target, &headers, body)
    }

    pub(super) fn get(&self, target: &str) -> Inbound {
        self.request("GET", target, None, "")
    }

    /// A refund as a client of this kind sends it.
    pub(super) fn refund(&self) -> Inbound {
        self.request("POST", "/refunds?shop=1", Some("application/json"), REFUND)
    }

    /// Takes the cookies of `response`.
    pub(super) fn keep(&mut self, response: &OwnResponse) {
        for cookie in response.headers().get_all(header::SET_COOKIE) {
            let text = cookie.to_str().unwrap();
            let (name, value) = text.split(';').next().unwrap().split_once('=').unwrap();
            if text.ends_with("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    /// Opens one of the gateway's pages.
    pub(super) async fn open(&mut self, bench: &Bench, target: &str) -> OwnResponse {
        self.send(bench, self.get(target)).await
    }

    /// Posts a form to one of the gateway's pages.
    pub(super) async fn post(&mut self, bench: &Bench, target: &str, form: &str) -> OwnResponse {
        let request = self.request("POST", target, Some("application/x-www-form-urlencoded"), form);
        self.send(bench, request).await
    }

    async fn send(&mut self, bench: &Bench, request: Inbound) -> OwnResponse {
        let session = bench.session_of(&request);
        let response = bench.step_up.pages(&bench.visit(), request, session.as_ref()).await;
        self.keep(&response);
        response
    }

    pub(super) async fn log_in(&mut self, bench: &Bench, user: &str) {
        let form = format!("user={user}&password={}", PASSWORD.replace(' ', "+"));
        let response = self.post(bench, "/.lb/login", &form).await;
        assert!(response.status().is_success() || response.status() == StatusCode::SEE_OTHER, "{response:?}");
        assert!(self.session(bench).is_some());
    }

    pub(super) fn session(&self, bench: &Bench) -> Option<Session> {
        bench.session_of(&self.get("/"))
    }

    /// Sends `request` where the rules answer with `challenge`; gives back the answer.
    pub(super) async fn challenged(&mut self, bench: &Bench, request: Inbound, challenge: Challenge) -> OwnResponse {
        let session = self.session(bench).expect("logged in");
        let response = bench.step_up.challenge(&bench.visit(), request, &session, challenge).await;
        self.keep(&response);
        response
    }

    /// Sends `request` after a proof: what would be judged and forwarded, with what was proved for it.
    pub(super) async fn resumed(
        &self,
        bench: &Bench,
        mut request: Inbound,
    ) -> Result<(Inbound, Vec<ProvedFactor>), OwnResponse> {
        let session = bench.session_of(&request);
        let resumed = bench.step_up.resume(&bench.visit(), &mut request, session.as_ref()).await;
        resumed.map(|resumed| (request, resumed.proved))
    }
}

pub(super) const REFUND: &str = r#"{"amount": 900.00}"#;

/// "Level 2, not older than five minutes", as for the refund of the demo.
pub(super) fn level_two() -> Challenge {
    let requirement = Requirement { level: Some(Level(2)), max_age_seconds: Some(300), ..Requirement::default() };
    Challenge { unmet: vec![("refund-over-limit".into(), requirement)], ways: vec![vec![Method::Totp]], shown: vec![] }
}

/// "A code for exactly this".
pub(super) fn per_action() -> Challenge {
    let requirement = Requirement { methods: vec![Method::Totp], per_action: true, ..Requirement::default() };
    Challenge { unmet: vec![("each-refund".into(), requirement)], ways: vec![vec![Method::Totp]], shown: vec![] }
}

pub(super) async fn text(response: OwnResponse) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

pub(super) async fn json(response: OwnResponse) -> serde_json::Value {
    serde_json::from_str(&text(response).await).unwrap()
}

pub(super) fn location(response: &OwnResponse) -> &str {
    assert_eq!(response.status(), StatusCode::SEE_OTHER, "{response:?}");
    response.headers()[header::LOCATION].to_str().unwrap()
}
