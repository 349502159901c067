//! The page that asks for a proof: what for, why, and how the request goes on.

use http::StatusCode;
use lb_policy::Method;

use super::client_kind::ClientKind;
use super::factor;
use super::pages::{ChallengePage, Forms, Nonce, html};
use super::prove::refused_answer;
use super::random_id::RandomId;
use super::session::Session;
use super::terms::{in_words, is_per_action, with_terms};
use super::transaction::{OnwardKind, Refused, View};
use crate::serve::request::Inbound;
use crate::serve::respond::{OwnResponse, problem};

/// The page, or for other clients the problem, that asks for `method`.
pub(super) fn challenge_form(
    request: &Inbound,
    session: &Session,
    id: &RandomId,
    view: &View,
    method: Method,
    error: Option<&str>,
) -> OwnResponse {
    let Some(factor) = factor::of(method) else { return refused_answer(request, Refused::Gone) };
    let status = if error.is_some() { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
    if let (Some(error), false) = (error, ClientKind::of(request) == ClientKind::Browser) {
        return with_terms(problem(status, "proof-refused", "Not accepted", error), &view.terms);
    }
    let nonce = Nonce::new();
    let tries = match view.tries_left {
        0 => "This was the last try; start again from the page you came from.".to_owned(),
        1 => "One try is left.".to_owned(),
        left => format!("{left} tries are left."),
    };
    let (leads_to_provider, at_provider) =
        (view.askable().any(|method| method == Method::IdentityProvider), format!("/.lb/challenge/{id}/idp"));
    let page = ChallengePage {
        nonce: nonce.text(),
        host: &request.authority,
        user: session.user(),
        method: view.method.as_str(),
        path: path_of(&view.target),
        why: &why(view),
        action: &format!("/.lb/challenge/{id}"),
        input: &factor.input,
        step: view.proved_count + 1,
        steps: view.proved_count + view.missing.len(),
        error,
        tries: error.is_some().then_some(&tries),
        onward: match view.onward {
            OnwardKind::Redirect => "You go straight on to the page once you confirm.",
            OnwardKind::Parked => "Your request is kept and goes on once you confirm.",
            OnwardKind::Retry => "Once you confirm, go back and send your request again.",
            OnwardKind::Elsewhere => "Once you confirm, your request can go on where you came from.",
        },
        at_provider: leads_to_provider.then_some(&at_provider),
    };
    // The next proof may be one at a provider, and browsers hold the policy against redirects too.
    let forms = if leads_to_provider { Forms::Elsewhere } else { Forms::Own };
    let response = html(status, &nonce, forms, &page);
    if error.is_some() { with_terms(response, &view.terms) } else { response }
}

/// In plain words, what the rules want.
fn why(view: &View) -> String {
    let requirements = || view.unmet.iter().map(|(_, requirement)| requirement);
    if requirements().any(is_per_action) {
        return "This request has to be confirmed each time.".to_owned();
    }
    match requirements().filter_map(|requirement| requirement.max_age_seconds).min() {
        Some(seconds) => format!("This request needs one more proof, which then counts for {}.", in_words(seconds)),
        None => "This request needs one more proof.".to_owned(),
    }
}

pub(super) fn path_of(target: &str) -> &str {
    target.split_once('?').map_or(target, |(path, _)| path)
}
