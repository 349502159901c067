//! Factors as the operator sees them, and what only the operator may do.

use lb_policy::Method;
use zeroize::Zeroizing;

use super::super::StepUp;
use super::super::account::{Account, AccountId};
use super::super::enrolments::Wanted;
use super::super::random_id::RandomId;
use super::TOKEN_PATH;
use super::notice::{Change, called};
use crate::audit::Event;
use crate::config::Config;
use crate::report::EnrolledFactor;
use crate::store::StoreError;

/// Why the operator's order was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum NotDone {
    #[error(transparent)]
    NoSuchUser(#[from] NoSuchUser),
    #[error("there is no factor {0} of this user; `lb-controller factors USER` lists them")]
    NoSuchFactor(String),
    #[error("{0} has no `email`, so the token cannot be mailed")]
    NoAddress(String),
    #[error("the token cannot be mailed: {0:#}")]
    NotMailed(anyhow::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, thiserror::Error)]
#[error("there is no user `{0}`; a user of an identity provider is written as PROVIDER/NAME")]
pub struct NoSuchUser(String);

impl StepUp {
    /// All factors that `user` enrolled. Blocks on the disk.
    pub fn factors_of(&self, config: &Config, user: &str) -> Result<Vec<EnrolledFactor>, NotDone> {
        let account = account(config, user)?;
        let enrolled = self.enrolments.of(&account.id)?;
        let report = enrolled.into_iter().map(|enrolment| EnrolledFactor {
            id: enrolment.id.to_string(),
            method: enrolment.method().map_or("unknown", Method::name).to_owned(),
            name: enrolment.name.clone(),
            created_at: enrolment.created_at,
            last_used_at: enrolment.last_used_at,
        });
        Ok(report.collect())
    }

    /// Removes one of `user`'s factors, and tells the user. Blocks on the disk.
    pub fn remove_factor(&self, config: &Config, user: &str, id: &str) -> Result<(), NotDone> {
        let account = account(config, user)?;
        let parsed = RandomId::parse(id).ok_or_else(|| NotDone::NoSuchFactor(id.to_owned()))?;
        let removed = self.enrolments.change(&account.id, &parsed, |enrolment| (Wanted::Removal, enrolment.clone()))?;
        let removed = removed.ok_or_else(|| NotDone::NoSuchFactor(id.to_owned()))?;
        self.audit_operator(&account.id, "removed", removed.method());
        let host = config.factors.passkey.as_ref().map_or("the service", |party| &party.id);
        let texts = config.pages.texts.default_texts();
        self.notify(config, &account, Change::Removed, &called(texts, &removed.name, removed.method()), (host, texts));
        Ok(())
    }

    /// A token by which `user`, once logged in, may add the first factor. Blocks on the disk.
    pub fn enrolment_token(
        &self,
        config: &Config,
        user: &str,
        valid_for_seconds: u64,
    ) -> Result<Zeroizing<String>, NotDone> {
        let account = account(config, user)?;
        let token = self.new_token(&account.id, self.clock.now().saturating_add(valid_for_seconds))?;
        self.audit_operator(&account.id, "token-issued", None);
        Ok(token)
    }

    /// Mails a token to the address on record.
    pub async fn mail_token(&self, config: &Config, user: &str, token: &str) -> Result<(), NotDone> {
        let account = account(config, user)?;
        let address = account.email().ok_or_else(|| NotDone::NoAddress(user.to_owned()))?;
        let services = self.services.of(&config.factors);
        let not_configured = || NotDone::NotMailed(anyhow::anyhow!("`mail` of `factors` is not configured"));
        let mailer = services.mailer.as_ref().ok_or_else(not_configured)?;
        // Nobody has asked for it in a language of theirs.
        let texts = config.pages.texts.default_texts();
        let (subject, text) = (texts.mail_token_subject(), texts.mail_token(user, TOKEN_PATH, token));
        mailer.send(address, &subject.to_string(), text.to_string()).await.map_err(NotDone::NotMailed)
    }

    fn audit_operator(&self, account: &AccountId, result: &str, method: Option<Method>) {
        let tag = self.tags.tag(&account.name);
        Event { event: "factor", result, user: Some(tag.into()), factor: method.map(Method::name), ..Event::default() }
            .record();
    }
}

fn account(config: &Config, user: &str) -> Result<Account, NoSuchUser> {
    if let Some(account) = Account::built_in(config, user) {
        return Ok(account);
    }
    let (issuer, name) = user.split_once('/').ok_or_else(|| NoSuchUser(user.to_owned()))?;
    let id = AccountId { issuer: Some(issuer.into()), name: name.into() };
    Account::of(config, &id).ok_or_else(|| NoSuchUser(user.to_owned()))
}
