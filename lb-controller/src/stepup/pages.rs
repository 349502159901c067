//! What people see, and the shapes of answers for everything else. Pages work without JavaScript, load nothing but the
//! operator's logo, and cannot be framed.

mod templates;

use askama::Template;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

pub(super) use templates::*;

use super::client_kind::ClientKind;
use super::grpc;
use super::random_id::random_bytes;
use crate::config::Look;
use crate::serve::request::Inbound;
use crate::serve::respond::{OwnResponse, problem};
use crate::texts::{Message, Texts, english};

/// What all pages have.
pub(super) struct Frame<'a> {
    /// For this page alone; its `<style>` and `<script>` carry it, injected ones cannot.
    pub(super) nonce: String,
    /// Where the browser is, with its port.
    pub(super) host: &'a str,
    /// In the reader's language.
    pub(super) texts: &'a Texts,
    pub(super) look: &'a Look,
}

impl Frame<'_> {
    pub(super) fn of(request: &Inbound) -> Frame<'_> {
        Frame {
            nonce: URL_SAFE_NO_PAD.encode(random_bytes::<16>()),
            host: &request.authority,
            texts: request.texts(),
            look: &request.pages.look,
        }
    }

    /// What people call the service.
    pub(super) fn name(&self) -> &str {
        self.look.name.as_deref().unwrap_or(self.host)
    }
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
pub(super) fn html(status: StatusCode, frame: &Frame<'_>, forms: Forms, page: &impl Template) -> OwnResponse {
    let body = page.render().expect("templates write to memory and call nothing that fails");
    let nonce = &frame.nonce;
    let images = if frame.look.logo.is_some() { "img-src 'self'; " } else { "" };
    let (script, form_action) = match forms {
        Forms::Own => (String::new(), "'self'"),
        Forms::OwnWithScript => (format!("script-src 'nonce-{nonce}'; "), "'self'"),
        Forms::Elsewhere => (String::new(), "'self' https:"),
        Forms::Backend => (format!("script-src 'nonce-{nonce}'; "), "'self' https:"),
    };
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; {images}{script}form-action {form_action}; \
         frame-ancestors 'none'; base-uri 'none'"
    );
    let mut response = own(status, "text/html; charset=utf-8", body);
    let headers = response.headers_mut();
    let language = HeaderValue::try_from(frame.texts.language());
    headers.extend(language.ok().map(|language| (header::CONTENT_LANGUAGE, language)));
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
    pub(super) title: Message,
    pub(super) detail: Message,
}

impl Rejection<'_> {
    pub(super) fn answer(&self, request: &Inbound) -> OwnResponse {
        match ClientKind::of(request) {
            ClientKind::Browser => {
                let frame = Frame::of(request);
                let page = MessagePage {
                    heading: frame.texts.put(&self.title),
                    text: frame.texts.put(&self.detail),
                    request: Some((request.method.as_str(), &request.path)),
                    frame: &frame,
                };
                html(self.status, &frame, Forms::Own, &page)
            }
            ClientKind::Grpc => grpc::refusal(self.status, &english().put(&self.title)),
            ClientKind::Api | ClientKind::Preflight => {
                problem(self.status, self.problem, &english().put(&self.title), &english().put(&self.detail))
            }
        }
    }
}

pub(super) fn own(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> OwnResponse {
    let mut response = Response::new(Full::new(body.into()));
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
