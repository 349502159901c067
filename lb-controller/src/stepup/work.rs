//! Work that visitors do before anybody asks who they are: a puzzle, or somebody else's captcha.
//!
//! Nothing is kept for a visitor here: what the puzzle is for travels in the page's address, what was done in a cookie,
//! both sealed. So a flood of visitors takes no memory, and any request goes on that can be sent again.

use http::{HeaderValue, StatusCode};
use lb_common::Source;
use lb_policy::{Challenge, Method, UnixSeconds};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ask::path_of;
use super::client_kind::ClientKind;
use super::cookies::{self, Found, Keep};
use super::factor::proof_of_work::{self, Difficulty, Scope, verify_work};
use super::factor::{Failure, Shape};
use super::form::Form;
use super::grpc;
use super::login::with_www_authenticate;
use super::pages::{self, DonePage, Forms, Frame, Rejection, WorkPage, html, see_other, with_cookie, with_retry_after};
use super::seal::Purpose;
use super::terms::required;
use super::throttle::Bucket;
use super::{StepUp, Visit};
use crate::audit::Event;
use crate::serve::request::Inbound;
use crate::serve::respond::{OwnResponse, problem};
use crate::texts::{Message, english, say};

const PATH: &str = "/.lb/work";
/// How long it counts; the policy has the same limit.
const COUNTS_SECONDS: u64 = 600;
/// The cookie has room for no more; the oldest goes first.
const MOST_RULES: usize = 16;
/// A longer way back is not worth carrying through the page's address.
const LONGEST_TARGET: usize = 2048;

/// What a puzzle is for.
#[derive(Debug, Serialize, Deserialize)]
struct Errand {
    method: String,
    /// Path and query, or the path alone where nobody goes back to it.
    target: String,
    /// The browser goes back there by itself.
    returns: bool,
    /// The ids of those that asked.
    rules: Vec<String>,
    /// Whoever logs in has another way.
    has_other_way: bool,
}

/// What a browser has done, and where it was.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Done {
    source: String,
    /// Rules, and when the work for each was done; the latest last.
    at: Vec<(String, UnixSeconds)>,
}

impl StepUp {
    /// Asks for the work of `challenge`, whoever sent `request`.
    pub fn ask_for_work(&self, request: &Inbound, challenge: &Challenge) -> OwnResponse {
        self.audit_asked_for_work(request, challenge);
        let kind = ClientKind::of(request);
        let is_safe = request.method.is_safe();
        let returns = kind == ClientKind::Browser && is_safe && request.target.len() <= LONGEST_TARGET;
        let methods = || challenge.unmet.iter().flat_map(|(_, requirement)| &requirement.methods);
        let errand = Errand {
            method: request.method.to_string(),
            target: if returns { &request.target } else { shortened(&request.path) }.to_owned(),
            returns,
            rules: challenge.unmet.iter().map(|(rule, _)| rule.to_string()).collect(),
            has_other_way: methods().any(|method| *method != Method::ProofOfWork),
        };
        let errand = serde_json::to_vec(&errand).expect("an errand is plain data");
        let to = self.sealer.seal(Purpose::Errand, &request.host, &errand);
        match kind {
            ClientKind::Browser => see_other(&format!("{PATH}?to={to}")),
            ClientKind::Grpc => {
                grpc::refusal(StatusCode::UNAUTHORIZED, "a puzzle has to be solved first, which takes a browser")
            }
            ClientKind::Api | ClientKind::Preflight => api_answer(&to),
        }
    }

    /// The rules that the client which sends `request` did work for, from where it is now, and when.
    pub fn worked(&self, request: &Inbound, now: UnixSeconds) -> Vec<(String, UnixSeconds)> {
        self.done(request, now).at
    }

    /// GET: the page with the puzzle.
    pub(super) fn work_page(&self, visit: &Visit<'_>, request: &Inbound, error: Option<Message>) -> OwnResponse {
        let Some(errand) = self.errand(request) else { return no_errand(request) };
        let now = self.clock.now();
        let rules = errand.rules.join(",");
        let (puzzle, bits) = self.tools.work.puzzle(scope(visit, request, &rules), now);
        let captcha = visit.config.factors.captcha.as_ref().map(|captcha| captcha.page.to_string());
        let status = if error.is_some() { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
        match (ClientKind::of(request), error) {
            (ClientKind::Browser, error) => {
                let frame = Frame::of(request);
                let login = errand.has_other_way.then(|| self.login_url_to(request, &errand));
                let input = &proof_of_work::FACTOR.input;
                let page = WorkPage {
                    frame: &frame,
                    method: &errand.method,
                    path: path_of(&errand.target),
                    action: &request.target,
                    field: input.name,
                    hint: frame.texts.put(&(input.hint)()),
                    puzzle: &puzzle,
                    bits,
                    captcha: captcha.as_deref(),
                    login: login.as_deref(),
                    error: error.map(|error| frame.texts.put(&error)),
                };
                html(status, &frame, Forms::OwnWithScript, &page)
            }
            (_, Some(error)) => problem(status, "proof-refused", "Not accepted", &english().put(&error)),
            (_, None) => {
                let ask = json!({
                    "method": Method::ProofOfWork.name(),
                    "field": proof_of_work::FACTOR.input.name,
                    "puzzle": puzzle,
                    "bits": bits,
                    "captcha_page": captcha,
                });
                pages::json(status, &json!({"missing": [Method::ProofOfWork.name()], "ask": ask}))
            }
        }
    }

    /// The login that leads to where the errand was going.
    fn login_url_to(&self, request: &Inbound, errand: &Errand) -> String {
        let to = self.sealer.seal(Purpose::ReturnPath, &request.host, errand.target.as_bytes());
        format!("/.lb/login?to={to}")
    }

    /// POST: the solution.
    pub(super) async fn submit_work(&self, visit: &Visit<'_>, request: &Inbound, form: &Form) -> OwnResponse {
        let Some(errand) = self.errand(request) else { return no_errand(request) };
        let (name, now) = (Method::ProofOfWork.name(), self.clock.now());
        let longest = Shape::Work.longest_answer_bytes();
        let Some(answer) = form.get(proof_of_work::FACTOR.input.name).filter(|answer| answer.len() <= longest) else {
            return self.work_page(visit, request, Some((proof_of_work::FACTOR.input.refused)()));
        };
        // A solution is checked in a moment; a captcha's provider must not be asked without end.
        let buckets = [Bucket::Source(Source::of(request.client.address))];
        if let Err(wait) = self.throttle.charge(name, &buckets, now) {
            self.counters.rate_limited(wait.bucket, "");
            return throttled(request, wait.seconds);
        }
        let rules = errand.rules.join(",");
        let (services, scope) = (self.services.of(&visit.config.factors), scope(visit, request, &rules));
        let outcome = verify_work(&self.tools, &services, scope, &request.host, answer, now).await;
        let result = outcome.as_ref().map_or_else(Failure::to_string, |()| "ok".to_owned());
        let (checked, reason) = match &outcome {
            Ok(()) => ("ok", String::new()),
            Err(failure) => failure.labels(),
        };
        self.counters.verified(Method::ProofOfWork, checked, reason);
        Event { factor: Some(name), ..self.event("verify", &result, request, None) }.record();
        match outcome {
            Ok(()) => self.throttle.succeeded(name, &buckets),
            Err(failure) if failure.is_unchecked() => {
                tracing::error!(%failure, "an answer cannot be verified, so it is not accepted");
                self.throttle.not_checked(name, &buckets);
                return busy(request);
            }
            Err(_) => return self.work_page(visit, request, Some((proof_of_work::FACTOR.input.refused)())),
        }
        let cookie = self.done_cookie(request, errand.rules.iter().map(String::as_str));
        with_cookie(onward(request, &errand), cookie)
    }

    /// GET: how far it is, for a script that waits while its user's browser works in another window.
    pub(super) fn work_status(&self, request: &Inbound) -> OwnResponse {
        let Some(errand) = self.errand(request) else { return no_errand(request) };
        let done = self.done(request, self.clock.now());
        let is_done = errand.rules.iter().all(|rule| done.at.iter().any(|(other, _)| other == rule));
        let (state, missing) = if is_done { ("proved", vec![]) } else { ("open", vec![Method::ProofOfWork.name()]) };
        pages::json(StatusCode::OK, &json!({"state": state, "missing": missing, "expires_in": COUNTS_SECONDS}))
    }

    /// The cookie that says work for `rules` was done, beside what was done before.
    pub(super) fn done_cookie<'r>(&self, request: &Inbound, rules: impl Iterator<Item = &'r str>) -> HeaderValue {
        let now = self.clock.now();
        let mut done = self.done(request, now);
        for rule in rules {
            done.at.retain(|(other, _)| other != rule);
            done.at.push((rule.to_owned(), now));
        }
        let surplus = done.at.len().saturating_sub(MOST_RULES);
        done.at.drain(..surplus);
        let plain = serde_json::to_vec(&done).expect("what was done is plain data");
        let sealed = self.sealer.seal(Purpose::Work, &request.host, &plain);
        cookies::set(cookies::WORK, &sealed, Keep::Seconds(COUNTS_SECONDS))
    }

    /// What still counts. Done elsewhere, it counts for nothing here.
    fn done(&self, request: &Inbound, now: UnixSeconds) -> Done {
        let here = Source::of(request.client.address).to_string();
        let done = match cookies::find(&request.headers, cookies::WORK) {
            Found::Once(sealed) => self.sealer.open_sealed(Purpose::Work, &request.host, sealed),
            Found::Absent | Found::Repeated => None,
        };
        let done = done.and_then(|plain| serde_json::from_slice::<Done>(&plain).ok());
        let mut done = done.filter(|done| done.source == here).unwrap_or(Done { source: here, at: Vec::new() });
        done.at.retain(|(_, at)| *at <= now && now < *at + COUNTS_SECONDS);
        done
    }

    /// What the page is for; `None`: its address is none of ours.
    fn errand(&self, request: &Inbound) -> Option<Errand> {
        let sealed = request.raw_query().split('&').find_map(|pair| pair.strip_prefix("to="))?;
        let plain = self.sealer.open_sealed(Purpose::Errand, &request.host, sealed)?;
        serde_json::from_slice(&plain).ok()
    }

    fn audit_asked_for_work(&self, request: &Inbound, challenge: &Challenge) {
        self.counters.issued(Method::ProofOfWork.name(), ClientKind::of(request).name());
        let rules: Vec<&str> = challenge.unmet.iter().map(|(rule, _)| &**rule).collect();
        Event {
            rule: Some(&rules.join(",")),
            required: required(challenge),
            ..self.event("challenge", "issued", request, None)
        }
        .record();
    }
}

fn scope<'a>(visit: &Visit<'_>, request: &Inbound, rules: &'a str) -> Scope<'a> {
    let difficulty = Difficulty::of(visit.config.factors.work, visit.threat);
    Scope { client: request.client.address, rules, difficulty }
}

/// For a page that only names it.
fn shortened(path: &str) -> &str {
    path.get(..LONGEST_TARGET).unwrap_or(path)
}

fn onward(request: &Inbound, errand: &Errand) -> OwnResponse {
    match ClientKind::of(request) {
        // What we sealed began with one slash; this does not rely on it.
        ClientKind::Browser if errand.returns && !errand.target.starts_with("//") => see_other(&errand.target),
        ClientKind::Browser => {
            let frame = Frame::of(request);
            let (method, path) = (errand.method.as_str(), errand.target.as_str());
            let page = DonePage { frame: &frame, method, path };
            html(StatusCode::OK, &frame, Forms::OwnWithScript, &page)
        }
        _ => pages::json(StatusCode::OK, &json!({"missing": [], "resume": "retry"})),
    }
}

fn api_answer(to: &str) -> OwnResponse {
    let body = json!({
        "type": "urn:lb:problem:step-up",
        "title": "Step-up required",
        "status": 401,
        "detail": "Solve the puzzle at challenge_url, then send the request again.",
        "challenge_url": format!("{PATH}?to={to}"),
        "status_url": format!("{PATH}/status?to={to}"),
        "methods": [Method::ProofOfWork.name()],
        "expires_in": COUNTS_SECONDS,
        "resume": "retry",
    });
    with_www_authenticate(pages::own(StatusCode::UNAUTHORIZED, "application/problem+json", body.to_string()))
}

fn no_errand(request: &Inbound) -> OwnResponse {
    let (title, detail) = (say::no_errand(), say::no_errand_about());
    Rejection { status: StatusCode::BAD_REQUEST, problem: "no-errand", title, detail }.answer(request)
}

fn throttled(request: &Inbound, seconds: u64) -> OwnResponse {
    let (title, detail) = (say::too_many_attempts(), say::too_many_attempts_about(seconds));
    let rejection = Rejection { status: StatusCode::TOO_MANY_REQUESTS, problem: "too-many-attempts", title, detail };
    with_retry_after(rejection.answer(request), seconds)
}

fn busy(request: &Inbound) -> OwnResponse {
    let (status, title, detail) = (StatusCode::SERVICE_UNAVAILABLE, say::busy(), say::busy_about());
    with_retry_after(Rejection { status, problem: "busy", title, detail }.answer(request), 2)
}
