//! Whose login it is, wherever its name comes from: a built-in user, or a subject at an identity provider.

use std::sync::Arc;

use lb_policy::Method;

use crate::config::{Config, User};

/// Somebody who can log in here.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) id: AccountId,
    /// What the configuration says; `None`: it is known from an identity provider alone.
    pub(super) built_in: Option<User>,
}

/// Unique over all providers. Shared: it is made anew for each request that comes with a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct AccountId {
    /// The identity provider; `None`: built in.
    pub(super) issuer: Option<Arc<str>>,
    pub(super) name: Arc<str>,
}

impl Account {
    /// The built-in user of this name.
    pub(super) fn built_in(config: &Config, name: &str) -> Option<Account> {
        config.users.iter().find(|user| user.name == name).cloned().map(Account::from)
    }

    /// Who `id` is now. `None`: a built-in user who was removed, or somebody of a provider that was.
    pub(super) fn of(config: &Config, id: &AccountId) -> Option<Account> {
        match id.issuer {
            None => Account::built_in(config, &id.name),
            Some(ref issuer) => {
                let is_known = config.identity_providers.iter().any(|provider| provider.name == **issuer);
                is_known.then(|| Account { id: id.clone(), built_in: None })
            }
        }
    }
}

impl Account {
    /// Where codes of `method` are sent.
    pub(super) fn address(&self, method: Method) -> Option<&str> {
        match method {
            Method::Email => self.email(),
            Method::Sms => self.phone(),
            _ => None,
        }
    }

    /// Where codes and news may be mailed.
    pub(super) fn email(&self) -> Option<&str> {
        self.built_in.as_ref()?.email.as_deref()
    }

    /// Where codes may be sent as text messages.
    pub(super) fn phone(&self) -> Option<&str> {
        self.built_in.as_ref()?.phone.as_deref()
    }
}

impl From<User> for Account {
    fn from(user: User) -> Account {
        Account { id: AccountId { issuer: None, name: user.name.as_str().into() }, built_in: Some(user) }
    }
}

impl AccountId {
    /// The name under which the store keeps what belongs to the account. Names hold no NUL, so no two accounts share one.
    pub(super) fn key(&self) -> String {
        match &self.issuer {
            None => self.name.to_string(),
            Some(issuer) => [issuer, "\0", &self.name].concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_at_two_providers_and_here_is_three_accounts() {
        let id = |issuer: Option<&str>, name: &str| AccountId { issuer: issuer.map(Into::into), name: name.into() };
        let keys =
            [id(None, "alice"), id(Some("corp"), "alice"), id(Some("partner"), "alice"), id(Some("corp"), "bob")];
        for (at, one) in keys.iter().enumerate() {
            assert!(keys[at + 1..].iter().all(|other| other.key() != one.key()), "{one:?}");
        }
    }
}
