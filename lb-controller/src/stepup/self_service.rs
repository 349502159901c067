//! People's own factors: listed, added, named and removed on pages that themselves ask for a fresh proof of level 2. A
//! password alone never adds a factor, or whoever stole it would: with no other factor yet it takes a token that the
//! operator gave out.

mod add;
mod enrolling;
mod list;
mod notice;
mod permission;
mod report;
mod token;

pub(super) use self::enrolling::Enrolling;
pub(super) use self::notice::Change;
pub(super) use self::permission::Permissions;
pub use self::report::{NoSuchUser, NotDone};

use lb_policy::Method;

use super::form::Form;
use super::session::Session;
use super::{StepUp, Visit};
use crate::serve::request::Inbound;
use crate::serve::respond::OwnResponse;

/// One of these pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    List,
    Add(Method),
    /// Where an enrolment token is given.
    Token,
}

/// The page that leads to all others.
pub(super) const LIST_PATH: &str = "/.lb/factors";
pub(super) const TOKEN_PATH: &str = "/.lb/enrol";

/// What people can add themselves; the rest comes from the configuration.
pub(super) const ADDABLE: [Method; 5] =
    [Method::Webauthn, Method::Totp, Method::Pin, Method::DeveloperKey, Method::RecoveryCode];

impl Page {
    /// `path` is what follows `/.lb/`.
    pub(super) fn at(path: &str) -> Option<Page> {
        match path {
            "factors" => Some(Page::List),
            "enrol" => Some(Page::Token),
            other => {
                let method = Method::from_name(other.strip_prefix("factors/add/")?)?;
                ADDABLE.contains(&method).then_some(Page::Add(method))
            }
        }
    }
}

impl StepUp {
    /// Answers a request for one of these pages; `form` came with a POST.
    pub(super) async fn self_service(
        &self,
        visit: &Visit<'_>,
        request: &Inbound,
        form: Option<Form>,
        session: &Session,
        page: Page,
    ) -> OwnResponse {
        if page == Page::Token {
            return match form {
                Some(form) => self.submit_token(visit, request, &form, session).await,
                None => self.token_page(request, session, None),
            };
        }
        if let Err(refused) = self.permit(visit, request, session).await {
            return refused;
        }
        match (page, form) {
            (Page::List | Page::Token, None) => self.list_page(visit.config, request, session, None),
            (Page::List | Page::Token, Some(form)) => self.change_factor(visit.config, request, &form, session).await,
            (Page::Add(method), None) => self.add_page(visit.config, request, session, method, None),
            (Page::Add(method), Some(form)) => self.add_factor(visit.config, request, &form, session, method).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_people_can_add_themselves_has_a_page() {
        for (path, page) in [
            ("factors", Some(Page::List)),
            ("enrol", Some(Page::Token)),
            ("factors/add/webauthn", Some(Page::Add(Method::Webauthn))),
            ("factors/add/recovery", Some(Page::Add(Method::RecoveryCode))),
            ("factors/add/password", None),
            ("factors/add/email", None),
            ("factors/add/", None),
            ("factors/", None),
        ] {
            assert_eq!(Page::at(path), page, "{path}");
        }
    }
}
