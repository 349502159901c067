//! What people see, and the shapes of answers for everything else. Pages work without JavaScript, load nothing, and
//! cannot be framed.

use askama::Template;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use super::client_kind::ClientKind;
use super::factor::Field;
use super::grpc;
use super::random_id::random_bytes;
use crate::serve::request::Inbound;
use crate::serve::respond::{OwnResponse, problem};

/// For one page; its `<style>` and `<script>` carry it, injected ones cannot.
pub(super) struct Nonce(String);

impl Nonce {
    pub(super) fn new() -> Nonce {
        Nonce(URL_SAFE_NO_PAD.encode(random_bytes::<16>()))
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

#[derive(Template)]
#[template(path = "login.html")]
pub(super) struct LoginPage<'a> {
    pub(super) nonce: &'a str,
    pub(super) host: &'a str,
    /// Where the form goes: the page itself, with the way back in its query.
    pub(super) action: &'a str,
    pub(super) user: &'a str,
    pub(super) error: Option<&'a str>,
    /// What each identity provider is called, and where the login there begins.
    pub(super) providers: &'a [(&'a str, String)],
}

#[derive(Template)]
#[template(path = "challenge.html")]
pub(super) struct ChallengePage<'a> {
    pub(super) nonce: &'a str,
    pub(super) host: &'a str,
    pub(super) user: &'a str,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    /// Names and values of what is approved.
    pub(super) facts: &'a [(&'a str, String)],
    pub(super) why: &'a str,
    pub(super) action: &'a str,
    /// Of the method, as rules call it.
    pub(super) name: &'a str,
    pub(super) field: &'a str,
    pub(super) label: &'a str,
    pub(super) hint: &'a str,
    pub(super) form: AnswerForm<'a>,
    /// Other ways: name of the method, what people call it.
    pub(super) others: &'a [(&'static str, &'static str)],
    pub(super) step: usize,
    pub(super) steps: usize,
    pub(super) error: Option<&'a str>,
    pub(super) tries: Option<&'a str>,
    pub(super) onward: &'a str,
    /// Where the same can be proved at the user's identity provider.
    pub(super) at_provider: Option<&'a str>,
}

/// Before the way to an identity provider.
#[derive(Template)]
#[template(path = "approve.html")]
pub(super) struct ApprovePage<'a> {
    pub(super) nonce: &'a str,
    pub(super) host: &'a str,
    pub(super) user: &'a str,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) facts: &'a [(&'a str, String)],
    pub(super) why: &'a str,
    pub(super) action: &'a str,
}

/// How the answer comes.
pub(super) enum AnswerForm<'a> {
    Typed {
        field: Field,
    },
    Sent {
        field: Field,
        to: &'a str,
        is_out: bool,
    },
    /// `call`: the function of `navigator.credentials`.
    Passkey {
        options: String,
        call: &'a str,
    },
    Signature {
        text: &'a str,
        namespace: &'a str,
    },
    Work {
        puzzle: &'a str,
        bits: u8,
        captcha: Option<&'a str>,
    },
}

#[derive(Template)]
#[template(path = "work.html")]
pub(super) struct WorkPage<'a> {
    pub(super) nonce: &'a str,
    pub(super) host: &'a str,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) action: &'a str,
    pub(super) field: &'a str,
    pub(super) hint: &'a str,
    pub(super) puzzle: &'a str,
    pub(super) bits: u8,
    pub(super) captcha: Option<&'a str>,
    /// Where there is another way, for those who log in.
    pub(super) login: Option<&'a str>,
    pub(super) error: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "factors.html")]
pub(super) struct FactorsPage<'a> {
    pub(super) nonce: &'a str,
    pub(super) host: &'a str,
    pub(super) user: &'a str,
    pub(super) action: &'a str,
    pub(super) factors: &'a [ListedFactor],
    /// Name of the method, and what people call it.
    pub(super) addable: &'a [(&'static str, &'static str)],
    /// A recovery code was used.
    pub(super) must_add: bool,
    pub(super) error: Option<&'a str>,
}

/// One line of the list.
pub(super) struct ListedFactor {
    pub(super) id: String,
    pub(super) kind: &'static str,
    /// Empty: it has none.
    pub(super) name: String,
    pub(super) added: String,
    pub(super) used: String,
}

#[derive(Template)]
#[template(path = "add_factor.html")]
pub(super) struct AddPage<'a> {
    pub(super) nonce: &'a str,
    pub(super) host: &'a str,
    pub(super) user: &'a str,
    pub(super) action: &'a str,
    pub(super) label: &'a str,
    pub(super) form: AddForm,
    pub(super) error: Option<&'a str>,
}

/// What adding a factor takes.
pub(super) enum AddForm {
    /// `qr`: SVG that we drew.
    Totp {
        secret: String,
        qr: String,
    },
    /// `call`: the function of `navigator.credentials`.
    Passkey {
        options: String,
        call: &'static str,
    },
    Pin,
    DeveloperKey,
    RecoveryCodes,
}

#[derive(Template)]
#[template(path = "recovery_codes.html")]
pub(super) struct CodesPage<'a> {
    pub(super) nonce: &'a str,
    pub(super) host: &'a str,
    pub(super) user: &'a str,
    pub(super) codes: &'a [String],
}

#[derive(Template)]
#[template(path = "enrol.html")]
pub(super) struct EnrolPage<'a> {
    pub(super) nonce: &'a str,
    pub(super) host: &'a str,
    pub(super) user: &'a str,
    pub(super) action: &'a str,
    pub(super) error: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "resume.html")]
pub(super) struct ResumePage<'a> {
    pub(super) nonce: &'a str,
    pub(super) host: &'a str,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) target: &'a str,
    pub(super) field: &'a str,
    pub(super) transaction: &'a str,
}

#[derive(Template)]
#[template(path = "done.html")]
pub(super) struct DonePage<'a> {
    pub(super) nonce: &'a str,
    pub(super) host: &'a str,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
}

#[derive(Template)]
#[template(path = "session.html")]
pub(super) struct SessionPage<'a> {
    pub(super) nonce: &'a str,
    pub(super) host: &'a str,
    pub(super) user: &'a str,
    /// Each factor and how long ago it was proved.
    pub(super) proofs: &'a [(&'static str, String)],
    pub(super) ends_in: &'a str,
}

#[derive(Template)]
#[template(path = "message.html")]
pub(super) struct MessagePage<'a> {
    pub(super) nonce: &'a str,
    pub(super) host: &'a str,
    pub(super) heading: &'a str,
    pub(super) text: &'a str,
    pub(super) request: Option<(&'a str, &'a str)>,
}

/// Where a page's form may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forms {
    /// To the gateway's own pages; no script runs.
    Own,
    /// The same; the page's own script runs.
    OwnWithScript,
    /// To the gateway's own pages, which may lead on to an identity provider; no script runs.
    Elsewhere,
    /// To a backend or an identity provider, by a script or the button. Browsers hold the policy against redirects too, so a backend that
    /// answers a form with a redirect to, say, a payment site must be let through.
    Backend,
}

/// A page with the headers that protect it.
pub(super) fn html(status: StatusCode, nonce: &Nonce, forms: Forms, page: &impl Template) -> OwnResponse {
    let body = page.render().expect("templates write to memory and call nothing that fails");
    let nonce = nonce.text();
    let (script, form_action) = match forms {
        Forms::Own => (String::new(), "'self'"),
        Forms::OwnWithScript => (format!("script-src 'nonce-{nonce}'; "), "'self'"),
        Forms::Elsewhere => (String::new(), "'self' https:"),
        Forms::Backend => (format!("script-src 'nonce-{nonce}'; "), "'self' https:"),
    };
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; {script}form-action {form_action}; \
         frame-ancestors 'none'; base-uri 'none'"
    );
    let mut response = own(status, "text/html; charset=utf-8", body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::try_from(policy).expect("the policy is plain ASCII"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    // Not `no-referrer`: it makes browsers send `Origin: null` with our own forms.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
    response
}

pub(super) fn json(status: StatusCode, value: &serde_json::Value) -> OwnResponse {
    own(status, "application/json", value.to_string())
}

/// 303: the browser follows with a GET, so that a reload repeats nothing.
pub(super) fn see_other(location: &str) -> OwnResponse {
    let mut response = own(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", String::new());
    let location = HeaderValue::try_from(location).unwrap_or(HeaderValue::from_static("/"));
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// A refusal in the shape that this client understands.
pub(super) struct Rejection<'a> {
    pub(super) status: StatusCode,
    /// The last part of `urn:lb:problem:…`.
    pub(super) problem: &'a str,
    pub(super) title: &'a str,
    pub(super) detail: &'a str,
}

impl Rejection<'_> {
    pub(super) fn answer(&self, request: &Inbound) -> OwnResponse {
        match ClientKind::of(request) {
            ClientKind::Browser => {
                let nonce = Nonce::new();
                let page = MessagePage {
                    nonce: nonce.text(),
                    host: &request.authority,
                    heading: self.title,
                    text: self.detail,
                    request: Some((request.method.as_str(), &request.path)),
                };
                html(self.status, &nonce, Forms::Own, &page)
            }
            ClientKind::Grpc => grpc::refusal(self.status, self.title),
            ClientKind::Api | ClientKind::Preflight => problem(self.status, self.problem, self.title, self.detail),
        }
    }
}

pub(super) fn own(status: StatusCode, content_type: &'static str, body: String) -> OwnResponse {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

pub(super) fn with_cookie(mut response: OwnResponse, cookie: HeaderValue) -> OwnResponse {
    response.headers_mut().append(header::SET_COOKIE, cookie);
    response
}

pub(super) fn with_retry_after(mut response: OwnResponse, seconds: u64) -> OwnResponse {
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}
