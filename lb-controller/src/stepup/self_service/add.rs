//! Adding a factor: what the page shows, and what the answer makes of it.

use http::StatusCode;
use lb_policy::Method;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::super::StepUp;
use super::super::account::{Account, AccountId};
use super::super::client_kind::ClientKind;
use super::super::enrolments::{Enrolment, MOST_PER_ACCOUNT, Wanted};
use super::super::factor::developer_key::DeveloperKey;
use super::super::factor::recovery::{RecoveryCodes, grouped};
use super::super::factor::{self, passkey, pin, totp};
use super::super::form::Form;
use super::super::login::store_unavailable;
use super::super::pages::{AddForm, AddPage, CodesPage, Forms, Frame, Rejection, html, json as json_answer, see_other};
use super::super::session::Session;
use super::LIST_PATH;
use super::enrolling::{Secret, passkey_challenge};
use super::list::{can_add, good_name};
use super::notice::{Change, called};
use crate::config::Config;
use crate::serve::request::Inbound;
use crate::serve::respond::{OwnResponse, problem};
use crate::store::StoreError;
use crate::texts::{Message, english, say};

/// Why nothing was added.
enum NotAdded {
    /// The user can mend it.
    Mistake(Message),
    Unavailable,
}

/// What was made of an answer: the record to keep, and codes to show once.
struct Made {
    record: Vec<u8>,
    codes: Vec<Zeroizing<String>>,
}

impl Made {
    fn of(record: Vec<u8>) -> Made {
        Made { record, codes: Vec::new() }
    }
}

impl StepUp {
    pub(super) fn add_page(
        &self,
        config: &Config,
        request: &Inbound,
        session: &Session,
        method: Method,
        error: Option<Message>,
    ) -> OwnResponse {
        let Some(form) = self.form_for(config, session, method) else { return not_here(request) };
        let status = if error.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
        if ClientKind::of(request) != ClientKind::Browser {
            return match error {
                Some(error) => problem(status, "not-added", "Not added", &english().put(&error)),
                None => json_answer(status, &described(&form)),
            };
        }
        let frame = Frame::of(request);
        let forms = if matches!(form, AddForm::Passkey { .. }) { Forms::OwnWithScript } else { Forms::Own };
        let page = AddPage {
            frame: &frame,
            user: session.user(),
            action: &format!("{LIST_PATH}/add/{}", method.name()),
            label: frame.texts.put(&factor::label(method)),
            form,
            error: error.map(|error| frame.texts.put(&error)),
        };
        html(status, &frame, forms, &page)
    }

    /// What is shown for a new factor, and remembered until it is answered. `None`: it cannot be added here now.
    fn form_for(&self, config: &Config, session: &Session, method: Method) -> Option<AddForm> {
        let now = self.clock.now();
        match method {
            Method::Totp => {
                let secret = Zeroizing::new(totp::new_secret());
                let form = AddForm::Totp {
                    secret: totp::shown(&secret),
                    qr: totp::qr_code(&secret, session.user(), issuer(config))?,
                };
                self.enrolling.show(session.login, Secret::Totp(secret), now).then_some(form)
            }
            Method::Webauthn => {
                let party = config.factors.passkey.as_ref()?;
                let challenge = passkey_challenge(session.user());
                let handle = passkey::user_handle(&self.tools, session.account());
                let enrolled = self.credentials(session.account());
                let options = passkey::creation_options(party, &challenge, session.user(), &handle, &enrolled);
                let shown = self.enrolling.show(session.login, Secret::Passkey(challenge), now);
                shown.then(|| AddForm::Passkey { options: options.to_string(), call: "create" })
            }
            Method::Pin => Some(AddForm::Pin),
            Method::DeveloperKey => Some(AddForm::DeveloperKey),
            Method::RecoveryCode => Some(AddForm::RecoveryCodes),
            _ => None,
        }
    }

    pub(super) async fn add_factor(
        &self,
        config: &Config,
        request: &Inbound,
        form: &Form,
        session: &Session,
        method: Method,
    ) -> OwnResponse {
        if !can_add(config, method) {
            return not_here(request);
        }
        let name = form.get("name").and_then(good_name).unwrap_or_default().to_owned();
        let name = if name.is_empty() { default_name(form, method) } else { name };
        let added = match self.made_of(config, form, session, method).await {
            Ok(made) => self.keep(session, method, &name, made).await,
            Err(not_added) => Err(not_added),
        };
        self.audit_factor(request, session, "factor", if added.is_ok() { "added" } else { "not-added" }, Some(method));
        let codes = match added {
            Ok(codes) => codes,
            Err(NotAdded::Unavailable) => return store_unavailable(request),
            Err(NotAdded::Mistake(error)) => return self.add_page(config, request, session, method, Some(error)),
        };
        if let Some(account) = Account::of(config, session.account()) {
            let texts = request.texts();
            self.notify(config, &account, Change::Added, &called(texts, &name, Some(method)), (&request.host, texts));
        }
        added_answer(request, session, &codes)
    }

    /// Verifies the answer to what the page has shown.
    async fn made_of(&self, config: &Config, form: &Form, session: &Session, method: Method) -> Result<Made, NotAdded> {
        let mistake = NotAdded::Mistake;
        let answer = form.get("answer").unwrap_or_default();
        let now = self.clock.now();
        match method {
            Method::Totp => match self.enrolling.take(&session.login, now) {
                Some(Secret::Totp(secret)) if totp::is_current(&secret, answer, now) => Ok(Made::of(secret.to_vec())),
                _ => Err(mistake(say::wrong_totp())),
            },
            Method::Webauthn => {
                let shown = self.enrolling.take(&session.login, now);
                let (Some(Secret::Passkey(challenge)), Some(party)) = (shown, &config.factors.passkey) else {
                    return Err(mistake(say::took_too_long()));
                };
                let credential = passkey::register(party, &challenge, form.get("passkey").unwrap_or_default())
                    .map_err(|refusal| {
                        tracing::info!(%refusal, "a passkey was not added");
                        mistake(say::passkey_not_taken())
                    })?;
                Ok(Made::of(serde_json::to_vec(&credential).expect("a credential is plain data")))
            }
            Method::Pin => {
                if form.get("again") != Some(answer) {
                    return Err(mistake(say::pins_differ()));
                }
                let pin = Zeroizing::new(answer.to_owned());
                let hashed = self.hashing.run(move || pin::enrol(&pin)).await.map_err(|_| NotAdded::Unavailable)?;
                let hash = hashed.map_err(|weak| mistake(weak.message()))?;
                hash.map(|hash| Made::of(hash.into_bytes())).map_err(|_| NotAdded::Unavailable)
            }
            Method::DeveloperKey => {
                let key = DeveloperKey::parse(answer.trim()).map_err(|_| mistake(say::not_a_public_key()))?;
                Ok(Made::of(key.to_string().into_bytes()))
            }
            Method::RecoveryCode => {
                let (codes, shown) = RecoveryCodes::generate(&self.tools.keyed, &session.account().key());
                Ok(Made { record: codes.record(), codes: shown })
            }
            _ => Err(mistake(say::cannot_be_added())),
        }
    }

    /// Stores it. New recovery codes replace the old ones; any other factor makes what is left of them good again.
    async fn keep(
        &self,
        session: &Session,
        method: Method,
        name: &str,
        made: Made,
    ) -> Result<Vec<Zeroizing<String>>, NotAdded> {
        let enrolment = Enrolment::new(method, name, made.record, self.clock.now());
        let (enrolments, account) = (self.enrolments.clone(), session.account().clone());
        let job = move || -> Result<bool, StoreError> {
            let others = enrolments.of(&account)?;
            if !enrolments.add(&account, &enrolment)? {
                return Ok(false);
            }
            for codes in others.iter().filter(|other| other.method() == Some(Method::RecoveryCode)) {
                renew(&enrolments, &account, codes, method)?;
            }
            Ok(true)
        };
        match self.disk.run(job).await {
            Ok(Ok(true)) => Ok(made.codes),
            Ok(Ok(false)) => Err(NotAdded::Mistake(say::too_many_factors(MOST_PER_ACCOUNT))),
            Ok(Err(error)) => {
                tracing::error!(%error, "a factor cannot be added");
                Err(NotAdded::Unavailable)
            }
            Err(_) => Err(NotAdded::Unavailable),
        }
    }
}

fn renew(
    enrolments: &super::super::enrolments::Enrolments,
    account: &AccountId,
    codes: &Enrolment,
    added: Method,
) -> Result<(), StoreError> {
    enrolments.change(account, &codes.id, |codes| {
        if added == Method::RecoveryCode {
            return (Wanted::Removal, ());
        }
        match RecoveryCodes::record_after_enrolment(&codes.record) {
            Some(record) => {
                codes.record = record.into();
                (Wanted::Save, ())
            }
            None => (Wanted::Nothing, ()),
        }
    })?;
    Ok(())
}

/// Keys have a name of their own already.
fn default_name(form: &Form, method: Method) -> String {
    let key = (method == Method::DeveloperKey).then(|| form.get("answer")).flatten();
    key.and_then(|line| DeveloperKey::parse(line.trim()).ok()).map(|key| key.fingerprint()).unwrap_or_default()
}

/// What authenticator apps show beside the account.
fn issuer(config: &Config) -> &str {
    config.factors.passkey.as_ref().map_or("lb", |party| &party.name)
}

fn added_answer(request: &Inbound, session: &Session, codes: &[Zeroizing<String>]) -> OwnResponse {
    let codes: Vec<String> = codes.iter().map(|code| grouped(code)).collect();
    match ClientKind::of(request) {
        ClientKind::Browser if codes.is_empty() => see_other(LIST_PATH),
        ClientKind::Browser => {
            let frame = Frame::of(request);
            let page = CodesPage { frame: &frame, user: session.user(), codes: &codes };
            html(StatusCode::OK, &frame, Forms::Own, &page)
        }
        _ => json_answer(StatusCode::CREATED, &json!({"codes": codes})),
    }
}

fn described(form: &AddForm) -> Value {
    match form {
        AddForm::Totp { secret, .. } => json!({"secret": secret, "fields": ["answer", "name"]}),
        AddForm::Passkey { options, .. } => {
            let options: Value = serde_json::from_str(options).unwrap_or_default();
            json!({"publicKey": options, "fields": ["passkey", "name"]})
        }
        AddForm::Pin => json!({"fields": ["answer", "again", "name"]}),
        AddForm::DeveloperKey => json!({"fields": ["answer", "name"]}),
        AddForm::RecoveryCodes => json!({"fields": []}),
    }
}

fn not_here(request: &Inbound) -> OwnResponse {
    let (title, detail) = (say::not_found(), say::not_here_about());
    Rejection { status: StatusCode::NOT_FOUND, problem: "not-found", title, detail }.answer(request)
}
