//! Logging in and out.

use std::borrow::Cow;

use http::{HeaderValue, Method as HttpMethod, StatusCode, header};
use lb_common::Source;
use lb_policy::Method;
use serde_json::json;

use super::account::Account;
use super::check::{Answer, NotProved};
use super::client_kind::ClientKind;
use super::cookies::{self, Found, Keep};
use super::device::Device;
use super::form::Form;
use super::pages::{self, Forms, Frame, LoginPage, Rejection, SessionPage, html, see_other, with_cookie};
use super::seal::Purpose;
use super::session::Session;
use super::{StepUp, Visit, factor};
use crate::audit::Event;
use crate::config::Config;
use crate::serve::facts::only_value;
use crate::serve::request::Inbound;
use crate::serve::respond::OwnResponse;
use crate::texts::{Message, say};

/// Longer ones exist nowhere; they only cost hashing.
/// What is longer is cut in the audit trail, which strangers must not fill.
const LONGEST_AUDITED_PATH_BYTES: usize = 512;

const LONGEST_USER_NAME: usize = 256;
const LONGEST_PASSWORD: usize = 1024;
/// A longer way back is not worth carrying through the login page's URL.
const LONGEST_RETURN_PATH: usize = 1024;

impl StepUp {
    /// Nobody is logged in and the route needs somebody: to the login page, or 401.
    pub fn log_in(&self, request: &Inbound) -> OwnResponse {
        let response = match ClientKind::of(request) {
            ClientKind::Browser => see_other(&self.login_url(request)),
            ClientKind::Preflight => pages::own(StatusCode::NO_CONTENT, "text/plain", String::new()),
            _ => unauthenticated(request, "login-required", say::log_in_first(), say::log_in_first_about()),
        };
        // A cookie that does not open never will: without this, a duplicate would lock the user out. One that has ended is
        // left alone: the browser may hold its successor already, and this answer may come late.
        let is_foreign = match cookies::find(&request.headers, cookies::SESSION) {
            Found::Absent => false,
            Found::Once(text) => self.sealer.open_sealed(Purpose::Session, &request.host, text).is_none(),
            Found::Repeated => true,
        };
        if is_foreign {
            return with_cookie(response, cookies::set(cookies::SESSION, "", Keep::NotAtAll));
        }
        response
    }

    /// The login page that leads back to where a safe request was going. The way back is sealed, so nobody can make a
    /// link to our login page that ends elsewhere.
    fn login_url(&self, request: &Inbound) -> String {
        let is_safe = matches!(request.method, HttpMethod::GET | HttpMethod::HEAD);
        // A challenge belongs to the login it was made for; there is no way back to it by another.
        let returns = is_safe && !request.path.starts_with("/.lb/");
        if !returns || request.target == "/" || request.target.len() > LONGEST_RETURN_PATH {
            return "/.lb/login".to_owned();
        }
        let to = self.sealer.seal(Purpose::ReturnPath, &request.host, request.target.as_bytes());
        format!("/.lb/login?to={to}")
    }

    pub(super) fn return_path(&self, request: &Inbound) -> String {
        let sealed = request.raw_query().split('&').find_map(|pair| pair.strip_prefix("to="));
        sealed
            .and_then(|sealed| self.sealer.open_sealed(Purpose::ReturnPath, &request.host, sealed))
            .and_then(|path| String::from_utf8(path.to_vec()).ok())
            // `//host` would leave the origin; the guard resolves empty segments, and this does not rely on it.
            .filter(|path| path.starts_with('/') && !path.starts_with("//"))
            .unwrap_or_else(|| "/".to_owned())
    }

    pub(super) async fn login_page(&self, visit: &Visit<'_>, request: &Inbound) -> OwnResponse {
        // Where there are no passwords there is nothing to choose.
        if visit.config.users.is_empty() && !visit.config.identity_providers.is_empty() {
            return self.log_in_anywhere(visit, request).await;
        }
        login_form(visit.config, request, StatusCode::OK, "", None)
    }

    pub(super) async fn submit_login(
        &self,
        visit: &Visit<'_>,
        request: Inbound,
        form: Form,
        old_session: Option<&Session>,
    ) -> OwnResponse {
        let (Some(user_name), Some(password)) = (form.get("user"), form.get("password")) else {
            return incomplete(&request);
        };
        if user_name.len() > LONGEST_USER_NAME || password.len() > LONGEST_PASSWORD {
            return incomplete(&request);
        }
        let account = Account::built_in(visit.config, user_name);
        let device = Device::of_user(&self.sealer, &request.headers, &request.host, user_name);
        let answer = Answer {
            method: Method::Password,
            user_name,
            account: account.clone(),
            text: password,
            aim: None,
            device: device.as_ref(),
        };
        let outcome = self.check(visit.config, &request, answer).await;
        let proof = match outcome {
            Ok(proof) => proof,
            Err(not_proved) => return self.login_refused(visit, &request, user_name, &not_proved),
        };
        let Some(account) = account else { return incomplete(&request) };
        if let Some(old) = old_session {
            // Whoever planted the old session must not go on in it beside the user.
            if let Err(unavailable) = self.end_login(&request, old).await {
                return unavailable;
            }
        }
        let session = Session::begin(proof, &account, &visit.config.step_up, self.clock.now());
        let event = self.event_of("login", "ok", &request, Some(&session));
        Event { factor: Some(Method::Password.name()), ..event }.record();
        let response = match ClientKind::of(&request) {
            ClientKind::Browser => see_other(&self.return_path(&request)),
            _ => pages::json(StatusCode::OK, &self.describe(visit.config, &session)),
        };
        let device = device.unwrap_or_else(|| Device::new(user_name));
        let response = with_cookie(response, device.cookie(&self.sealer, &request.host));
        with_cookie(response, self.session_cookie(&request.host, &session))
    }

    fn login_refused(
        &self,
        visit: &Visit<'_>,
        request: &Inbound,
        user_name: &str,
        not_proved: &NotProved,
    ) -> OwnResponse {
        let (result, tag) = (not_proved.result(), self.tags.tag(user_name));
        let event = self.event("login", &result, request, Some(&tag));
        Event { factor: Some(Method::Password.name()), ..event }.record();
        if let Some(unchecked) = not_proved.unchecked_answer(request) {
            return unchecked;
        }
        visit.joint.failed(visit.config, &request.client);
        match ClientKind::of(request) {
            ClientKind::Browser => with_www_authenticate(login_form(
                visit.config,
                request,
                StatusCode::UNAUTHORIZED,
                user_name,
                Some(say::login_wrong()),
            )),
            _ => unauthenticated(request, "login-failed", say::login_failed(), say::login_wrong()),
        }
    }

    /// Ends the login with all its sessions and transactions.
    pub(super) async fn log_out(&self, visit: &Visit<'_>, request: Inbound, session: Option<&Session>) -> OwnResponse {
        if let Some(session) = session {
            if let Err(unavailable) = self.end_login(&request, session).await {
                return unavailable;
            }
            self.event_of("logout", "ok", &request, Some(session)).record();
        }
        let response = match ClientKind::of(&request) {
            ClientKind::Browser => {
                let there = match session {
                    Some(session) => self.provider_logout(visit, &request, session).await,
                    None => None,
                };
                there.unwrap_or_else(|| see_other("/.lb/login"))
            }
            _ => pages::own(StatusCode::NO_CONTENT, "text/plain", String::new()),
        };
        with_cookie(response, cookies::set(cookies::SESSION, "", Keep::NotAtAll))
    }

    pub(super) async fn end_login(&self, request: &Inbound, session: &Session) -> Result<(), OwnResponse> {
        self.transactions.forget_login(&session.login);
        let (revocations, ended, now) = (self.revocations.clone(), session.clone(), self.clock.now());
        match self.disk.run(move || revocations.end_login(&ended, now)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                tracing::error!(%error, "an ended session cannot be recorded");
                Err(store_unavailable(request))
            }
            Err(_) => Err(store_unavailable(request)),
        }
    }

    /// Who is logged in, by what, and the way out.
    pub(super) fn session_page(&self, config: &Config, request: &Inbound, session: &Session) -> OwnResponse {
        if ClientKind::of(request) != ClientKind::Browser {
            return pages::json(StatusCode::OK, &self.describe(config, session));
        }
        let (frame, now) = (Frame::of(request), self.clock.now());
        let texts = frame.texts;
        let proofs = session.factors().iter().map(|factor| {
            let ago = texts.ago(texts.span(factor.age_seconds(now).unwrap_or(0))).to_string();
            (texts.put(&factor::label(factor.method)), ago)
        });
        let page = SessionPage {
            frame: &frame,
            user: session.user(),
            proofs: &proofs.collect::<Vec<_>>(),
            ends_in: texts.span(session.ends_at.saturating_sub(now)),
        };
        // The way out may lead on to the provider's.
        let forms = if session.account().issuer.is_some() { Forms::Elsewhere } else { Forms::Own };
        html(StatusCode::OK, &frame, forms, &page)
    }

    /// What a client may know of its own session.
    pub(super) fn describe(&self, config: &Config, session: &Session) -> serde_json::Value {
        let now = self.clock.now();
        let levels = &config.step_up.levels;
        let level = session.level(levels, now);
        let factors: Vec<_> = session
            .factors()
            .iter()
            .map(|factor| json!({"method": factor.method.name(), "age_seconds": factor.age_seconds(now)}))
            .collect();
        json!({
            "user": session.user(),
            "level": level.0,
            "acr": levels.acr(level),
            "factors": factors,
            "ends_in_seconds": session.ends_at.saturating_sub(now),
        })
    }

    /// An audit event about `request`, to be filled in.
    pub(super) fn event<'a>(
        &self,
        event: &'static str,
        result: &'a str,
        request: &'a Inbound,
        user_tag: Option<&'a str>,
    ) -> Event<'a> {
        Event {
            event,
            result,
            user: user_tag.map(Cow::Borrowed),
            request_id: request.id.map(|id| id.to_string()),
            trace: only_value(&request.headers, "traceparent").and_then(trace_id),
            source: Some(Source::of(request.client.address)),
            host: Some(&request.host),
            request_method: Some(request.method.as_str()),
            path: Some(&request.path[..request.path.floor_char_boundary(LONGEST_AUDITED_PATH_BYTES)]),
            ..Event::default()
        }
    }

    /// The same, with whose session it is.
    pub(crate) fn event_of<'a>(
        &self,
        event: &'static str,
        result: &'a str,
        request: &'a Inbound,
        session: Option<&Session>,
    ) -> Event<'a> {
        Event {
            user: session.map(|session| self.tags.tag(session.user()).into()),
            session: session.filter(|session| session.is_by_cookie()).map(|session| self.tags.tag_of_login(session)),
            ..self.event(event, result, request, None)
        }
    }
}

/// The trace that a request is part of (W3C Trace Context §3.2): `00-<32 digits>-<16 digits>-<2 digits>`.
fn trace_id(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.split('-');
    let (_, id) = (parts.next()?, parts.next()?);
    (id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))).then_some(id)
}

fn login_form(
    config: &Config,
    request: &Inbound,
    status: StatusCode,
    user: &str,
    error: Option<Message>,
) -> OwnResponse {
    let frame = Frame::of(request);
    let query = request.target.split_once('?').map(|(_, query)| format!("?{query}")).unwrap_or_default();
    let link = |name: &str| format!("/.lb/login/{name}{query}");
    let providers = config.identity_providers.iter().map(|provider| (provider.label.as_str(), link(&provider.name)));
    let page = LoginPage {
        frame: &frame,
        action: &request.target,
        user,
        error: error.map(|error| frame.texts.put(&error)),
        providers: &providers.collect::<Vec<_>>(),
    };
    html(status, &frame, Forms::Own, &page)
}

fn unauthenticated(request: &Inbound, problem: &str, title: Message, detail: Message) -> OwnResponse {
    let rejection = Rejection { status: StatusCode::UNAUTHORIZED, problem, title, detail };
    with_www_authenticate(rejection.answer(request))
}

/// The challenge that RFC 9110 §15.5.2 demands with a 401; no error code, as RFC 6750 §3.1 has it for requests without
/// credentials.
pub(super) fn with_www_authenticate(mut response: OwnResponse) -> OwnResponse {
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"lb\""));
    response
}

fn incomplete(request: &Inbound) -> OwnResponse {
    let (title, detail) = (say::incomplete_form(), say::incomplete_form_about());
    Rejection { status: StatusCode::BAD_REQUEST, problem: "form", title, detail }.answer(request)
}

pub(super) fn store_unavailable(request: &Inbound) -> OwnResponse {
    let rejection = Rejection {
        status: StatusCode::SERVICE_UNAVAILABLE,
        problem: "store-unavailable",
        title: say::store_unavailable(),
        detail: say::store_unavailable_about(),
    };
    pages::with_retry_after(rejection.answer(request), 2)
}
