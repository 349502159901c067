//! Who carries codes and who verifies for us, made ready once for each configuration.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::{EndpointConfig, FactorsConfig};
use crate::mail::Mailer;
use crate::webhook::Endpoint;

/// Ready to be called. What cannot be made ready is absent: its factor then fails, and says so in the log.
#[derive(Default)]
pub(crate) struct Services {
    pub(crate) config: FactorsConfig,
    pub(crate) mailer: Option<Mailer>,
    pub(crate) sms: Option<Endpoint>,
    pub(crate) captcha: Option<Endpoint>,
    pub(crate) external: Option<Endpoint>,
}

impl Services {
    fn of(config: &FactorsConfig) -> Services {
        let endpoint = |what: &str, config: &EndpointConfig| ready(what, Endpoint::new(config));
        Services {
            mailer: config.mail.as_ref().and_then(|mail| ready("mail", Mailer::new(mail))),
            sms: config.sms.as_ref().and_then(|sms| endpoint("sms", sms)),
            captcha: config.captcha.as_ref().and_then(|captcha| endpoint("captcha", &captcha.verify)),
            external: config.external.as_ref().and_then(|external| endpoint("external", &external.verify)),
            config: config.clone(),
        }
    }
}

fn ready<T>(what: &str, made: anyhow::Result<T>) -> Option<T> {
    made.inspect_err(|error| tracing::error!("`{what}` of `factors` cannot be used: {error:#}")).ok()
}

/// Those of the configuration in force.
#[derive(Default)]
pub(crate) struct CurrentServices(ArcSwap<Services>);

impl CurrentServices {
    pub(crate) fn of(&self, config: &FactorsConfig) -> Arc<Services> {
        let current = self.0.load_full();
        if current.config == *config {
            return current;
        }
        let services = Arc::new(Services::of(config));
        self.0.store(services.clone());
        services
    }
}
