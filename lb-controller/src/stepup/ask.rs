//! Asking for a proof: what for, why, and how the request goes on. A page for people, JSON for everybody else.

use http::StatusCode;
use lb_policy::Method;
use serde_json::{Value, json};

use super::account::Account;
use super::client_kind::ClientKind;
use super::factor::passkey::{self, Challenge};
use super::factor::{self, Factor, Shape, developer_key};
use super::pages::{self, AnswerForm, ApprovePage, ChallengePage, Forms, Frame, html};
use super::prove::refused_answer;
use super::random_id::RandomId;
use super::session::Session;
use super::shown;
use super::terms::{is_per_action, with_terms};
use super::transaction::{OnwardKind, Refused, View};
use super::{StepUp, Visit};
use crate::config::Config;
use crate::serve::request::Inbound;
use crate::serve::respond::{OwnResponse, problem};
use crate::texts::{Message, Texts, english};

/// What signs a file with an SSH key.
const SIGN: &str = "ssh-keygen -Y sign -n NAMESPACE -f ~/.ssh/id_ed25519 FILE";

/// Who is asked, and for which transaction.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) visit: &'a Visit<'a>,
    pub(super) request: &'a Inbound,
    pub(super) session: &'a Session,
    pub(super) id: &'a RandomId,
    pub(super) view: &'a View,
}

/// What one proof needs to be given, beside the answer's field.
enum Material {
    Typed,
    /// Where the code goes; `is_out`: one is on its way.
    Sent {
        to: String,
        is_out: bool,
    },
    Passkey {
        options: Value,
    },
    Signature {
        text: String,
    },
    Work {
        puzzle: String,
        bits: u8,
        captcha: Option<String>,
    },
}

impl StepUp {
    /// Asks for a proof by `method`; `error` says what was wrong with the one before.
    pub(super) fn ask(&self, asked: Asked<'_>, method: Method, error: Option<Message>) -> OwnResponse {
        let found = factor::of(method).and_then(|factor| Some((factor, self.material(asked, factor)?)));
        let Some((factor, material)) = found else { return refused_answer(asked.request, Refused::Gone) };
        let status = if error.is_some() { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
        let is_refused = error.is_some();
        let response = match (ClientKind::of(asked.request), error) {
            (ClientKind::Browser, error) => page(asked, status, factor, &material, error),
            (_, Some(error)) => problem(status, "proof-refused", "Not accepted", &english().put(&error)),
            (_, None) => pages::json(status, &described(asked, factor, material)),
        };
        if is_refused { with_terms(response, &asked.view.terms) } else { response }
    }

    /// `None`: the account has no such factor any more.
    fn material(&self, asked: Asked<'_>, factor: &Factor) -> Option<Material> {
        let Asked { visit, session, view, .. } = asked;
        let config = visit.config;
        let account = Account::of(config, session.account())?;
        let approval = || view.approval(session.user());
        Some(match factor.input.shape {
            Shape::Typed(_) => Material::Typed,
            Shape::Sent(_) => {
                let to = masked(account.address(factor.method)?);
                Material::Sent { to, is_out: self.tools.codes.is_out(asked.id, self.clock.now()) }
            }
            Shape::Passkey => {
                let party = config.factors.passkey.as_ref()?;
                let credentials = self.credentials(&account.id);
                let challenge = Challenge::of_commitment(approval().commitment());
                Material::Passkey { options: passkey::request_options(party, &challenge, &credentials) }
            }
            Shape::Signature => Material::Signature { text: approval().text() },
            Shape::Work => {
                let aim = self.aim(visit, asked.request, session, asked.id, view);
                let (puzzle, bits) = self.tools.work.puzzle(aim.scope(), self.clock.now());
                let captcha = config.factors.captcha.as_ref().map(|captcha| captcha.page.to_string());
                Material::Work { puzzle, bits, captcha }
            }
        })
    }
}

fn page(
    asked: Asked<'_>,
    status: StatusCode,
    factor: &Factor,
    material: &Material,
    error: Option<Message>,
) -> OwnResponse {
    let Asked { visit, request, session, id, view } = asked;
    let config = visit.config;
    let frame = Frame::of(request);
    let texts = frame.texts;
    let tries = match view.tries_left {
        0 => texts.last_try(),
        1 => texts.one_try_left(),
        left => texts.tries_left(left),
    };
    let form = answer_form(factor, material);
    let needs_script = matches!(form, AnswerForm::Passkey { .. } | AnswerForm::Work { .. });
    // That way leads to another page.
    let is_elsewhere = |method: &Method| *method == Method::IdentityProvider;
    let (leads_to_provider, at_provider) =
        (view.askable().any(|method| is_elsewhere(&method)), format!("/.lb/challenge/{id}/idp"));
    let others = view.askable().filter(|other| *other != factor.method && !is_elsewhere(other));
    let page = ChallengePage {
        frame: &frame,
        user: session.user(),
        method: view.request.method.as_str(),
        // Of what is approved as it stands all is shown.
        path: if view.is_per_action() { &view.request.target } else { path_of(&view.request.target) },
        facts: &view.shown.iter().map(|fact| shown::for_page(texts, fact)).collect::<Vec<_>>(),
        why: why(texts, view),
        action: &format!("/.lb/challenge/{id}"),
        name: factor.method.name(),
        field: factor.input.name,
        label: texts.put(&label(config, factor)),
        hint: texts.put(&hint(config, factor)),
        form,
        others: &others.map(|other| (other.name(), texts.put(&factor::label(other)))).collect::<Vec<_>>(),
        step: view.proved_count + 1,
        steps: view.proved_count + view.missing.len(),
        tries: error.is_some().then(|| tries.to_string()),
        error: error.map(|error| texts.put(&error)),
        onward: match view.onward {
            OnwardKind::Redirect => texts.onward_redirect(),
            OnwardKind::Parked => texts.onward_parked(),
            OnwardKind::Retry => texts.onward_retry(),
            OnwardKind::Elsewhere => texts.onward_elsewhere(),
        }
        .to_string(),
        at_provider: leads_to_provider.then_some(&at_provider),
    };
    // The next proof may be one at a provider, and browsers hold the policy against redirects too.
    let forms = match (leads_to_provider, needs_script) {
        (true, true) => Forms::Backend,
        (true, false) => Forms::Elsewhere,
        (false, true) => Forms::OwnWithScript,
        (false, false) => Forms::Own,
    };
    html(status, &frame, forms, &page)
}

/// What is approved, and the way to the provider where that is done.
pub(super) fn approve_at_provider(asked: Asked<'_>) -> OwnResponse {
    let Asked { request, session, id, view, .. } = asked;
    let frame = Frame::of(request);
    let texts = frame.texts;
    let page = ApprovePage {
        frame: &frame,
        user: session.user(),
        method: view.request.method.as_str(),
        path: &view.request.target,
        facts: &view.shown.iter().map(|fact| shown::for_page(texts, fact)).collect::<Vec<_>>(),
        why: why(texts, view),
        action: &format!("/.lb/challenge/{id}/idp"),
    };
    html(StatusCode::OK, &frame, Forms::Elsewhere, &page)
}

fn answer_form<'a>(factor: &Factor, material: &'a Material) -> AnswerForm<'a> {
    match (material, factor.input.shape) {
        (Material::Sent { to, is_out }, Shape::Sent(field)) => AnswerForm::Sent { field, to, is_out: *is_out },
        (Material::Passkey { options }, _) => AnswerForm::Passkey { options: options.to_string(), call: "get" },
        (Material::Signature { text }, _) => {
            AnswerForm::Signature { text, command: SIGN.replace("NAMESPACE", developer_key::NAMESPACE) }
        }
        (Material::Work { puzzle, bits, captcha }, _) => {
            AnswerForm::Work { puzzle, bits: *bits, captcha: captcha.as_deref() }
        }
        (_, Shape::Typed(field) | Shape::Sent(field)) => AnswerForm::Typed { field },
        (Material::Typed | Material::Sent { .. }, _) => AnswerForm::Typed { field: factor::PLAIN_FIELD },
    }
}

/// For clients that are no browsers.
fn described(asked: Asked<'_>, factor: &Factor, material: Material) -> Value {
    let names = |methods: &[Method]| methods.iter().map(|method| method.name()).collect::<Vec<_>>();
    let mut ask = json!({"method": factor.method.name(), "field": factor.input.name});
    match material {
        Material::Typed => {}
        Material::Sent { to, is_out } => {
            ask["sent_to"] = json!(to);
            ask["is_sent"] = json!(is_out);
            ask["send_with"] = json!(format!("send={}", factor.method.name()));
        }
        Material::Passkey { options } => ask["publicKey"] = options,
        Material::Signature { text } => {
            ask["text"] = json!(text);
            ask["namespace"] = json!(developer_key::NAMESPACE);
        }
        Material::Work { puzzle, bits, captcha } => {
            ask["puzzle"] = json!(puzzle);
            ask["bits"] = json!(bits);
            ask["captcha_page"] = json!(captcha);
        }
    }
    let mut described = json!({
        "missing": names(&asked.view.missing),
        "instead": names(&asked.view.instead),
        "tries_left": asked.view.tries_left,
        "expires_at": asked.view.expires_at,
        "ask": ask,
    });
    if !asked.view.shown.is_empty() {
        described["facts"] = shown::as_json(&asked.view.shown);
    }
    described
}

fn label(config: &Config, factor: &Factor) -> Message {
    match &config.factors.external {
        Some(external) if factor.method == Method::External => Message::Literal(external.label.clone()),
        _ => (factor.input.label)(),
    }
}

fn hint(config: &Config, factor: &Factor) -> Message {
    match &config.factors.external {
        Some(external) if factor.method == Method::External => Message::Literal(external.hint.clone()),
        _ => (factor.input.hint)(),
    }
}

/// Enough of an address for its owner to know it: `a…@shop.example`, `…678`.
pub(super) fn masked(address: &str) -> String {
    match address.split_once('@') {
        Some((local, domain)) => format!("{}…@{domain}", local.chars().next().unwrap_or_default()),
        None => format!("…{}", &address[address.len().saturating_sub(3)..]),
    }
}

/// In plain words, what the rules want.
fn why(texts: &Texts, view: &View) -> String {
    let requirements = || view.unmet.iter().map(|(_, requirement)| requirement);
    if requirements().any(is_per_action) {
        return texts.why_each_time().to_string();
    }
    match requirements().filter_map(|requirement| requirement.max_age_seconds).min() {
        Some(seconds) => texts.why_for(texts.span(seconds)).to_string(),
        None => texts.why().to_string(),
    }
}

pub(super) fn path_of(target: &str) -> &str {
    target.split_once('?').map_or(target, |(path, _)| path)
}

#[cfg(test)]
mod tests {
    use super::masked;

    #[test]
    fn an_address_is_recognised_by_its_owner_and_read_by_nobody_else() {
        for (address, shown) in [("alice@shop.example", "a…@shop.example"), ("+4915112345678", "…678"), ("12", "…12")]
        {
            assert_eq!(masked(address), shown);
        }
    }
}
