//! One order, from the account to the certificate in its file.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, ExternalAccountKey, Identifier, NewAccount,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use serde::{Deserialize, Serialize};

use super::client::{Http, RetryAfter};
use super::folder::Folder;
use super::schedule::{FailureKind, LONGEST_RETRY_AFTER};
use crate::clock::Clock;
use crate::config::{AcmeConfig, ChallengeKind, OrderedCertificate};
use crate::serve::tls::{Challenge, Challenges};

/// Hosts that share a folder look into it once a second; after this all of them can answer.
const SEEN_BY_ALL: Duration = Duration::from_millis(2_500);
const VALIDATED_WITHIN: Duration = Duration::from_secs(120);

/// Why no certificate has come.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) kind: FailureKind,
    pub(super) reason: String,
    /// What the authority asked for.
    pub(super) retry_after: Duration,
}

impl Failed {
    pub(super) fn slow(within: Duration) -> Failed {
        Failed::unavailable(format!("the order did not end within {} s", within.as_secs()))
    }

    fn unavailable(reason: String) -> Failed {
        Failed { kind: FailureKind::Unavailable, reason, retry_after: Duration::ZERO }
    }

    fn refused(reason: String) -> Failed {
        Failed { kind: FailureKind::Refused, ..Failed::unavailable(reason) }
    }
}

/// Something here, and not there: it counts against nobody.
impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Failed {
        Failed::unavailable(format!("{error:#}"))
    }
}

impl From<rcgen::Error> for Failed {
    fn from(error: rcgen::Error) -> Failed {
        Failed::unavailable(format!("no key could be made: {error}"))
    }
}

impl From<instant_acme::Error> for Failed {
    fn from(error: instant_acme::Error) -> Failed {
        use instant_acme::Error;
        match &error {
            // RFC 8555 §6.5: to be sent again with another. The library did so twice; the next order is soon.
            error if is_problem(error, "badNonce") => Failed::unavailable(error.to_string()),
            Error::Api(problem) => Failed::refused(format!("the authority refused: {problem}")),
            Error::Json(_) | Error::Str(_) => Failed::refused(format!("the authority answers badly: {error}")),
            _ => Failed::unavailable(error.to_string()),
        }
    }
}

/// The account at an authority, as it is kept.
#[derive(Serialize, Deserialize)]
struct KeptAccount {
    contact: Vec<String>,
    credentials: AccountCredentials,
}

/// Orders a certificate and puts it into its file. The caller holds the folder's lock, and takes answers to challenges away
/// afterwards, however it went.
pub(super) async fn order(
    config: &AcmeConfig,
    folder: &Folder,
    certificate: &OrderedCertificate,
    challenges: &Challenges,
) -> Result<(), Failed> {
    let http = Http::new(config.ca.as_deref())?;
    let retry_after = http.retry_after();
    let ended = place(config, folder, certificate, challenges, http).await;
    ended.map_err(|failed| with_retry_after(failed, &retry_after))
}

fn with_retry_after(failed: Failed, retry_after: &RetryAfter) -> Failed {
    Failed { retry_after: retry_after.remaining().min(LONGEST_RETRY_AFTER), ..failed }
}

async fn place(
    config: &AcmeConfig,
    folder: &Folder,
    certificate: &OrderedCertificate,
    challenges: &Challenges,
    http: Http,
) -> Result<(), Failed> {
    let account = account(config, folder, http).await?;
    let identifiers: Vec<_> = certificate.names.iter().cloned().map(Identifier::Dns).collect();
    let placed = account.new_order(&NewOrder::new(&identifiers)).await;
    let mut order = match placed {
        Ok(order) => order,
        Err(error) => {
            if is_problem(&error, "accountDoesNotExist") {
                tracing::warn!("the authority does not know our account any more; the next order makes a new one");
                folder.forget_account(&config.directory);
                return Err(Failed::unavailable(error.to_string()));
            }
            return Err(error.into());
        }
    };
    prove(config, folder, &mut order, challenges).await?;

    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(certificate.names.clone())?;
    params.distinguished_name = DistinguishedName::new();
    order.finalize_csr(params.serialize_request(&key)?.der()).await?;
    let chain = order.poll_certificate(&RetryPolicy::new().timeout(VALIDATED_WITHIN)).await?;
    let pem = zeroize::Zeroizing::new(format!("{}\n{chain}", key.serialize_pem()));
    let put = folder.put_certificate(&certificate.names, &pem, Clock::system().now());
    put.map_err(|error| Failed::refused(format!("{error:#}")))
}

/// RFC 8555 §6.7.
fn is_problem(error: &instant_acme::Error, name: &str) -> bool {
    let instant_acme::Error::Api(problem) = error else { return false };
    problem.r#type.as_deref().and_then(|kind| kind.strip_prefix("urn:ietf:params:acme:error:")) == Some(name)
}

/// The account that is kept, or a new one.
async fn account(config: &AcmeConfig, folder: &Folder, http: Http) -> Result<Account, Failed> {
    let contact: Vec<String> = config.contact.iter().map(|address| format!("mailto:{address}")).collect();
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let builder = Account::builder_with_http(Box::new(http));
    if let Some(kept) = folder.account::<KeptAccount>(&config.directory) {
        let account = builder.from_credentials(kept.credentials).await?;
        if kept.contact != config.contact {
            account.update_contacts(&contact).await?;
            // The credentials cannot be copied, so they are read again.
            if let Some(kept) = folder.account::<KeptAccount>(&config.directory) {
                let kept = KeptAccount { contact: config.contact.clone(), credentials: kept.credentials };
                folder.write_account(&config.directory, &kept)?;
            }
        }
        return Ok(account);
    }
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let external = config.external_account.as_ref().map(|external| {
        // Checked when the configuration was read.
        let key = zeroize::Zeroizing::new(URL_SAFE_NO_PAD.decode(external.hmac_key.reveal()).unwrap_or_default());
        ExternalAccountKey::new(external.key_id.clone(), &key)
    });
    let (account, credentials) = builder.create(&new, config.directory.clone(), external.as_ref()).await?;
    folder.write_account(&config.directory, &KeptAccount { contact: config.contact.clone(), credentials })?;
    Ok(account)
}

/// Shows that every name is ours.
async fn prove(config: &AcmeConfig, folder: &Folder, order: &mut Order, challenges: &Challenges) -> Result<(), Failed> {
    let mut asked = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let offered: Vec<_> = authorization.challenges.iter().map(|challenge| challenge.r#type.clone()).collect();
        let kind = config.challenges.iter().map(|kind| kind_of(*kind)).find(|kind| offered.contains(kind));
        let kind = kind.ok_or_else(|| {
            let wanted: Vec<_> = config.challenges.iter().map(|kind| kind.name()).collect();
            Failed::refused(format!("the authority offers none of the challenges {}", wanted.join(", ")))
        })?;
        let handle = authorization.challenge(kind).ok_or_else(|| Failed::refused("no challenge".to_owned()))?;
        let Identifier::Dns(name) = handle.identifier().identifier else {
            return Err(Failed::refused("the authority asks about what was not ordered".to_owned()));
        };
        asked.push(Challenge {
            name: name.to_ascii_lowercase(),
            token: handle.token.clone(),
            key_authorization: handle.key_authorization().as_str().to_owned(),
        });
    }
    if asked.is_empty() {
        return Ok(());
    }
    for challenge in &asked {
        folder.write_challenge(challenge)?;
    }
    challenges.put(asked.clone());
    if config.storage.is_some() {
        tokio::time::sleep(SEEN_BY_ALL).await;
    }
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        let is_asked = |token: &str| asked.iter().any(|challenge| challenge.token == token);
        let kinds = config.challenges.iter().map(|kind| kind_of(*kind));
        let of_ours = |kind: &ChallengeType| {
            let mut all = authorization.challenges.iter();
            all.any(|challenge| challenge.r#type == *kind && is_asked(&challenge.token))
        };
        let Some(kind) = kinds.into_iter().find(of_ours) else { continue };
        if let Some(mut handle) = authorization.challenge(kind) {
            handle.set_ready().await?;
        }
    }
    let polled = order.poll_ready(&RetryPolicy::new().timeout(VALIDATED_WITHIN)).await;
    match polled {
        Ok(OrderStatus::Ready) => Ok(()),
        Err(error) if is_problem(&error, "badNonce") => Err(error.into()),
        Ok(_) | Err(instant_acme::Error::Api(_)) => Err(Failed::refused(why_invalid(order).await)),
        Err(error) => Err(error.into()),
    }
}

fn kind_of(kind: ChallengeKind) -> ChallengeType {
    match kind {
        ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
        ChallengeKind::Http01 => ChallengeType::Http01,
    }
}

/// What the authority says of the challenges that it saw unanswered.
async fn why_invalid(order: &mut Order) -> String {
    let mut reasons = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        for challenge in &state.challenges {
            if let Some(error) = &challenge.error {
                reasons.push(format!("{}: {error}", state.identifier()));
            }
        }
    }
    format!("the authority does not believe that the names are ours: {}", reasons.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_refusal_is_tried_again_soon() {
        for (name, expected) in [
            ("badNonce", FailureKind::Unavailable),
            ("rateLimited", FailureKind::Refused),
            ("rejectedIdentifier", FailureKind::Refused),
        ] {
            let problem = serde_json::json!({"type": format!("urn:ietf:params:acme:error:{name}"), "status": 400});
            let problem = serde_json::from_value(problem).unwrap();
            assert_eq!(Failed::from(instant_acme::Error::Api(problem)).kind, expected, "{name}");
        }
    }
}
