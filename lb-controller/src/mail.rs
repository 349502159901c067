//! E-mails to users: codes, and news of changes to their factors. Handed to one SMTP server (RFC 5321).

use std::time::Duration;

use anyhow::{Context as _, Result};
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::config::{MailConfig, MailProtection};

/// Hands mails over.
pub(crate) struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

/// A person waits for it.
const TIMEOUT: Duration = Duration::from_secs(10);

impl Mailer {
    pub(crate) fn new(config: &MailConfig) -> Result<Mailer> {
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&config.host)
            .port(config.port)
            .timeout(Some(TIMEOUT))
            .tls(tls(config)?);
        if let Some((user, password)) = &config.login {
            builder = builder.credentials(Credentials::new(user.clone(), password.to_string()));
        }
        Ok(Mailer {
            transport: builder.build(),
            from: config.from.parse().context("`from` of `mail` is no e-mail address")?,
        })
    }

    /// Errors when the server did not take the mail over.
    pub(crate) async fn send(&self, to: &str, subject: &str, text: String) -> Result<()> {
        let message = Message::builder()
            .from(self.from.clone())
            .to(to.parse().context("the address on record is no e-mail address")?)
            .subject(subject)
            .header(ContentType::TEXT_PLAIN)
            .body(text)?;
        let sent = tokio::time::timeout(TIMEOUT, self.transport.send(message)).await;
        sent.context("the mail server is too slow")?.context("the mail server did not take the mail")?;
        Ok(())
    }
}

fn tls(config: &MailConfig) -> Result<Tls> {
    if config.protection == MailProtection::None {
        return Ok(Tls::None);
    }
    let mut parameters = TlsParameters::builder(config.host.clone());
    if let Some(pem) = &config.ca {
        parameters = parameters.certificate_store(CertificateStore::None);
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let der = certificate.context("`ca` of `mail` is no PEM")?.to_vec();
            parameters = parameters.add_root_certificate(Certificate::from_der(der)?);
        }
    }
    let parameters = parameters.build().context("TLS to the mail server cannot be prepared")?;
    Ok(match config.protection {
        MailProtection::Implicit => Tls::Wrapper(parameters),
        _ => Tls::Required(parameters),
    })
}

#[cfg(test)]
mod tests;
