//! A captcha of somebody else's, for those who cannot or will not run our puzzle: the visitor brings a token, and the
//! provider is asked whether it is good (the `siteverify` call that reCAPTCHA began and hCaptcha and Turnstile kept).

use std::net::IpAddr;

use serde::Deserialize;

use crate::webhook::{Endpoint, WebhookError};

/// Tokens of Turnstile have up to 2048 characters.
const LONGEST_TOKEN_BYTES: usize = 4096;

/// Why a token is not good.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("malformed")]
    Malformed,
    #[error("refused-by-provider")]
    Refused,
    /// Solved on another site's page.
    #[error("other-host")]
    OtherHost,
    /// No answer is no yes.
    #[error("provider-unavailable")]
    Unavailable(#[from] WebhookError),
}

#[derive(Deserialize)]
struct Verdict {
    success: bool,
    hostname: Option<String>,
}

/// Asks the provider about `token`, which a visitor of `host` at `client` brought.
pub(crate) async fn verify(provider: &Endpoint, token: &str, host: &str, client: IpAddr) -> Result<(), Refusal> {
    if token.is_empty() || token.len() > LONGEST_TOKEN_BYTES {
        return Err(Refusal::Malformed);
    }
    let fields = [("secret", provider.secret()), ("response", token.as_bytes())];
    let mut form = format!("remoteip={client}");
    for (name, value) in fields {
        form.push_str(&format!("&{name}="));
        form.extend(value.iter().map(|byte| format!("%{byte:02X}")));
    }
    let reply = provider.post_form(form).await?;
    // A captive portal's page, or an error's, is no verdict.
    let verdict: Verdict = serde_json::from_slice(&reply.body).map_err(|_| Refusal::Refused)?;
    if !reply.status.is_success() || !verdict.success {
        return Err(Refusal::Refused);
    }
    match verdict.hostname {
        Some(hostname) if !hostname.eq_ignore_ascii_case(host) => Err(Refusal::OtherHost),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::webhook::testing::Service;

    #[tokio::test]
    async fn only_a_plain_yes_for_this_host_is_one() {
        let rows = [
            ("yes", 200, r#"{"success": true, "hostname": "shop.example", "challenge_ts": "now"}"#, "ok"),
            ("yes without a host", 200, r#"{"success": true}"#, "ok"),
            ("yes for another site", 200, r#"{"success": true, "hostname": "evil.example"}"#, "other-host"),
            ("no", 200, r#"{"success": false, "error-codes": ["timeout-or-duplicate"]}"#, "refused-by-provider"),
            ("a text that looks like yes", 200, r#"{"success": "true"}"#, "refused-by-provider"),
            ("a web page", 200, "<html>success</html>", "refused-by-provider"),
            ("an error that says yes", 500, r#"{"success": true}"#, "refused-by-provider"),
            ("a redirect", 302, "", "refused-by-provider"),
        ];
        for (name, status, body, outcome) in rows {
            let service = Service::answering(status, body, Duration::ZERO).await;
            let verified = verify(&service.endpoint, "to&ken", "shop.example", [192, 0, 2, 7].into()).await;
            assert_eq!(verified.map_or_else(|refusal| refusal.to_string(), |()| "ok".to_owned()), outcome, "{name}");
            let form = String::from_utf8(service.calls()[0].1.to_vec()).unwrap();
            assert!(form.starts_with("remoteip=192.0.2.7&secret=%61%20%73"), "{form}");
            assert!(form.ends_with("&response=%74%6F%26%6B%65%6E"), "{form}");
        }
        let slow = Service::answering(200, r#"{"success": true}"#, Duration::from_secs(5)).await;
        let verified = verify(&slow.endpoint, "token", "shop.example", [192, 0, 2, 7].into()).await;
        assert!(matches!(verified, Err(Refusal::Unavailable(_))));
        for malformed in [String::new(), "x".repeat(5000)] {
            let verified = verify(&slow.endpoint, &malformed, "shop.example", [192, 0, 2, 7].into()).await;
            assert!(matches!(verified, Err(Refusal::Malformed)));
        }
    }
}
