//! One identity provider: its metadata, its keys, and what this gateway keeps of it.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::client_key::ClientKey;
use super::http::HttpClient;
use super::kept::Kept;
use super::key_set::KeySet;
use super::metadata::Metadata;
use crate::clock::Clock;
use crate::config::{IdentityProvider, PeerConfig};

/// Between two questions for metadata that nobody waits for.
const METADATA_PAUSE_SECONDS: u64 = 30;

/// Where an issuer publishes things, and what it published last.
#[derive(Clone)]
pub(super) struct Published {
    pub(super) http: Arc<HttpClient>,
    pub(super) metadata: Arc<Kept<Metadata>>,
    pub(super) keys: Arc<Kept<KeySet>>,
}

impl Published {
    /// Nothing is fetched yet: a start does not depend on others being up.
    pub(super) fn by(issuer: &str, peer: &PeerConfig, clock: &Clock, runtime: &Handle) -> anyhow::Result<Published> {
        let http = Arc::new(HttpClient::new(peer, runtime.clone())?);
        let metadata = {
            let (http, issuer): (_, Arc<str>) = (http.clone(), issuer.into());
            Kept::new(clock.clone(), runtime.clone(), METADATA_PAUSE_SECONDS, move || {
                let (http, issuer) = (http.clone(), issuer.clone());
                async move { Metadata::fetch(&http, &issuer).await }
            })
        };
        let keys = {
            let (http, metadata) = (http.clone(), metadata.clone());
            Kept::new(clock.clone(), runtime.clone(), peer.keys_cooldown.as_secs(), move || {
                let (http, metadata) = (http.clone(), metadata.clone());
                async move { KeySet::fetch(&http, &metadata.get().await?.jwks_uri).await }
            })
        };
        Ok(Published { http, metadata, keys })
    }
}

/// An identity provider of the configuration.
pub(crate) struct Provider {
    pub(super) config: IdentityProvider,
    pub(super) client_key: Option<ClientKey>,
    pub(super) clock: Clock,
    pub(super) http: Arc<HttpClient>,
    pub(super) metadata: Arc<Kept<Metadata>>,
    pub(super) keys: Arc<Kept<KeySet>>,
}

impl Provider {
    pub(super) fn new(config: &IdentityProvider, clock: &Clock, runtime: &Handle) -> anyhow::Result<Provider> {
        let Published { http, metadata, keys } = Published::by(&config.issuer, &config.peer, clock, runtime)?;
        let client_key = config.client_key.as_ref().map(ClientKey::read).transpose()?;
        Ok(Provider { config: config.clone(), client_key, clock: clock.clone(), http, metadata, keys })
    }

    pub(crate) fn config(&self) -> &IdentityProvider {
        &self.config
    }
}
