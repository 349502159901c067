//! Everything under `/.lb/` on the data port. What is not listed here does not exist, and nothing under the prefix is
//! ever forwarded.

use http::{HeaderValue, Method as HttpMethod, StatusCode, header};

use super::body::{self, BodyError};
use super::challenge::body_cut_short;
use super::form::{FORM_LIMIT_BYTES, Form};
use super::pages::{self, Rejection};
use super::random_id::RandomId;
use super::session::Session;
use super::{StepUp, Visit, csrf, self_service};
use crate::serve::request::Inbound;
use crate::serve::respond::OwnResponse;
use crate::texts::say;

/// One of the gateway's own pages.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Page {
    Login,
    /// A login at the identity provider of this name.
    LoginAt(String),
    /// Back from there.
    Callback(String),
    BackchannelLogout(String),
    Logout,
    Session,
    Jwks,
    Script,
    Logo,
    Challenge(RandomId),
    Status(RandomId),
    /// A proof at the user's identity provider.
    ChallengeAtProvider(RandomId),
    Resume(RandomId),
    /// The puzzle of a visitor, who need not be logged in.
    Work,
    WorkStatus,
    SelfService(self_service::Page),
}

impl Page {
    /// `path` is canonical: one page has one path.
    fn at(path: &str) -> Option<Page> {
        let provider = |name: &str| (!name.contains('/')).then(|| name.to_owned());
        match path.strip_prefix("/.lb/")? {
            "login" => Some(Page::Login),
            "logout" => Some(Page::Logout),
            "session" => Some(Page::Session),
            "jwks.json" => Some(Page::Jwks),
            "step-up.js" => Some(Page::Script),
            "logo" => Some(Page::Logo),
            "work" => Some(Page::Work),
            "work/status" => Some(Page::WorkStatus),
            other => match other.split_once('/') {
                Some(("login", name)) => provider(name).map(Page::LoginAt),
                Some(("callback", name)) => provider(name).map(Page::Callback),
                Some(("backchannel-logout", name)) => provider(name).map(Page::BackchannelLogout),
                Some(("challenge", rest)) => match rest.split_once('/') {
                    None => RandomId::parse(rest).map(Page::Challenge),
                    Some((id, "status")) => RandomId::parse(id).map(Page::Status),
                    Some((id, "idp")) => RandomId::parse(id).map(Page::ChallengeAtProvider),
                    Some(_) => None,
                },
                Some(("resume", id)) => RandomId::parse(id).map(Page::Resume),
                _ => self_service::Page::at(other).map(Page::SelfService),
            },
        }
    }

    fn methods(&self) -> &'static str {
        match self {
            Page::Login | Page::Challenge(_) | Page::Work | Page::SelfService(_) => "GET, HEAD, POST",
            Page::Logout | Page::BackchannelLogout(_) => "POST",
            // A HEAD would begin, or end, what nobody sees.
            Page::LoginAt(_) | Page::Callback(_) | Page::ChallengeAtProvider(_) => "GET",
            Page::Session
            | Page::Jwks
            | Page::Script
            | Page::Logo
            | Page::Status(_)
            | Page::WorkStatus
            | Page::Resume(_) => "GET, HEAD",
        }
    }
}

impl StepUp {
    /// Answers a request for a path under `/.lb/`.
    pub async fn pages(&self, visit: &Visit<'_>, request: Inbound, session: Option<&Session>) -> OwnResponse {
        let Some(page) = Page::at(&request.path) else { return not_found(&request) };
        // Checked with or without a session, and whatever origins are trusted for requests: a forged login puts the victim into the attacker's account.
        if csrf::is_forged(&request, &[]) {
            return self.forged(&request, session);
        }
        match request.method {
            HttpMethod::GET if page.methods().starts_with("GET") => self.show(visit, &request, session, page).await,
            HttpMethod::HEAD if page.methods().contains("HEAD") => self.show(visit, &request, session, page).await,
            HttpMethod::POST if page.methods().ends_with("POST") => self.submit(visit, request, session, page).await,
            _ => wrong_method(&request, &page),
        }
    }

    async fn show(&self, visit: &Visit<'_>, request: &Inbound, session: Option<&Session>, page: Page) -> OwnResponse {
        let config = visit.config;
        match (page, session) {
            (Page::Login, _) => self.login_page(visit, request).await,
            (Page::LoginAt(name), _) => self.log_in_at(visit, request, &name).await,
            (Page::Callback(name), session) => self.callback(visit, request, session, &name).await,
            (Page::Jwks, _) => self.key_set(),
            (Page::Script, _) => script(),
            (Page::Logo, _) => logo(request),
            (Page::Work, _) => self.work_page(visit, request, None),
            (Page::WorkStatus, _) => self.work_status(request),
            (_, None) => self.log_in(request),
            (Page::Session, Some(session)) => self.session_page(config, request, session),
            (Page::Challenge(id), Some(session)) => self.challenge_page(visit, request, session, &id),
            (Page::Status(id), Some(session)) => self.challenge_status(request, session, &id),
            (Page::Resume(id), Some(session)) => self.resume_page(request, session, &id),
            (Page::ChallengeAtProvider(id), Some(session)) => {
                self.step_up_at_provider(visit, request, session, &id).await
            }
            (Page::SelfService(page), Some(session)) => self.self_service(visit, request, None, session, page).await,
            (page @ (Page::Logout | Page::BackchannelLogout(_)), Some(_)) => wrong_method(request, &page),
        }
    }

    async fn submit(&self, visit: &Visit<'_>, request: Inbound, session: Option<&Session>, page: Page) -> OwnResponse {
        let (request, form) = match read_form(request).await {
            Ok(read) => read,
            Err(refused) => return refused,
        };
        match (page, session) {
            (Page::Login, session) => self.submit_login(visit, request, form, session).await,
            (Page::Work, _) => self.submit_work(visit, &request, &form).await,
            (Page::Logout, session) => self.log_out(visit, request, session).await,
            (Page::BackchannelLogout(name), _) => self.backchannel_logout(visit, &request, &form, &name).await,
            (Page::Challenge(_) | Page::SelfService(_), None) => self.log_in(&request),
            (Page::SelfService(page), Some(session)) => {
                self.self_service(visit, &request, Some(form), session, page).await
            }
            (Page::Challenge(id), Some(session)) => self.submit_proof(visit, request, form, session, &id).await,
            (page, _) => wrong_method(&request, &page),
        }
    }

    fn key_set(&self) -> OwnResponse {
        let mut response = pages::own(StatusCode::OK, "application/jwk-set+json", self.signer.jwks().to_owned());
        // Public, and the same for everybody; backends may keep it for a while.
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
        response
    }
}

/// For pages that send requests by script; see docs/clients.md.
fn script() -> OwnResponse {
    const SCRIPT: &str = include_str!("../../assets/step-up.js");
    let mut response = pages::own(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT.to_owned());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    response
}

/// The operator's picture. Opened by itself it is a document like any other, and must run nothing.
fn logo(request: &Inbound) -> OwnResponse {
    let Some(logo) = &request.pages.look.logo else { return not_found(request) };
    let mut response = pages::own(StatusCode::OK, logo.content_type, logo.bytes.clone());
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    let policy = "default-src 'none'; style-src 'unsafe-inline'; sandbox";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

async fn read_form(mut request: Inbound) -> Result<(Inbound, Form), OwnResponse> {
    let body = request.take_body();
    let body = match body::read(body, FORM_LIMIT_BYTES).await {
        Ok(body) => body,
        Err(BodyError::TooLarge) => return Err(bad_form(&request, StatusCode::PAYLOAD_TOO_LARGE)),
        Err(BodyError::TooSlow | BodyError::BrokenOff) => return Err(body_cut_short(&request)),
    };
    let is_form = request.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).is_none_or(|kind| {
        kind.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
    });
    if !is_form {
        return Err(bad_form(&request, StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    match Form::parse(&body) {
        Ok(form) => Ok((request, form)),
        Err(_) => Err(bad_form(&request, StatusCode::BAD_REQUEST)),
    }
}

fn bad_form(request: &Inbound, status: StatusCode) -> OwnResponse {
    let (title, detail) = (say::unreadable_form(), say::unreadable_form_about());
    Rejection { status, problem: "form", title, detail }.answer(request)
}

fn not_found(request: &Inbound) -> OwnResponse {
    let (title, detail) = (say::not_found(), say::no_such_page());
    Rejection { status: StatusCode::NOT_FOUND, problem: "not-found", title, detail }.answer(request)
}

fn wrong_method(request: &Inbound, page: &Page) -> OwnResponse {
    let (title, detail) = (say::wrong_method(), say::wrong_method_about());
    let rejection = Rejection { status: StatusCode::METHOD_NOT_ALLOWED, problem: "method", title, detail };
    let mut response = rejection.answer(request);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(page.methods()));
    response
}
