//! Whose requests count together.

use std::net::IpAddr;

use lb_common::Source;
use lb_policy::CountedBy;

/// Who sent a request, by what came with it.
#[derive(Clone, Debug)]
pub struct Sender {
    pub address: IpAddr,
    /// Unique over all providers.
    pub user: Option<String>,
    /// What the login is known by.
    pub session: Option<[u8; 16]>,
    /// A browser that is known from before.
    pub device: Option<[u8; 16]>,
    /// The session has proved more than a password.
    pub is_trusted: bool,
}

impl Sender {
    pub fn who(&self) -> Who<'_> {
        let source = Source::of(self.address);
        Who { user: self.user.as_deref(), session: self.session, device: self.device, source }
    }
}

/// What is known of who sent a request, for counting.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// The session's user.
    pub user: Option<&'a str>,
    /// What the login is known by.
    pub session: Option<[u8; 16]>,
    /// A browser that is known from before.
    pub device: Option<[u8; 16]>,
    pub source: Source,
}

/// Who a count is kept for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    User(Box<str>),
    Session([u8; 16]),
    Device([u8; 16]),
    Source([u32; 4]),
    Everybody,
}

impl Who<'_> {
    /// `None`: there is no such user, session or device.
    pub(super) fn subject(&self, counted_by: CountedBy) -> Option<Subject> {
        match counted_by {
            CountedBy::User => self.user.map(|user| Subject::User(user.into())),
            CountedBy::Session => self.session.map(Subject::Session),
            CountedBy::Device => self.device.map(Subject::Device),
            CountedBy::Source => Some(Subject::Source(self.source.key())),
            CountedBy::Action => Some(Subject::Everybody),
        }
    }

    /// For limits, which nobody may slip by being nobody: whoever is not known counts by their address.
    pub(super) fn subject_or_source(&self, counted_by: CountedBy) -> Subject {
        self.subject(counted_by).unwrap_or(Subject::Source(self.source.key()))
    }
}
