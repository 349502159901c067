//! How the gateway's own pages look, and what they say in which languages.

use bytes::Bytes;

use crate::texts::Catalogue;

#[derive(Clone, Debug, Default)]
pub struct PagesConfig {
    pub texts: Catalogue,
    pub look: Look,
}

/// What makes the pages the operator's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// What people call the service; `None`: by its host.
    pub name: Option<String>,
    pub logo: Option<Logo>,
    /// Colours and font, over those that are built in.
    pub css: String,
}

/// A picture, served at `/.lb/logo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logo {
    pub content_type: &'static str,
    pub bytes: Bytes,
}

impl Look {
    /// Neither name nor logo are set.
    pub fn is_plain(&self) -> bool {
        self.name.is_none() && self.logo.is_none()
    }
}
