//! What factors need from outside: whose passkeys they are, who carries mails and messages, who verifies for us.

use std::fmt;
use std::time::Duration;

use http::Uri;
use zeroize::Zeroizing;

/// The `factors` section. A factor that is not configured cannot be enrolled or asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FactorsConfig {
    pub passkey: Option<RelyingParty>,
    /// Codes by e-mail, and news of changes to factors.
    pub mail: Option<MailConfig>,
    /// Codes by text message.
    pub sms: Option<EndpointConfig>,
    pub work: WorkConfig,
    /// A captcha of somebody else's beside the built-in proof of work.
    pub captcha: Option<CaptchaConfig>,
    pub external: Option<ExternalConfig>,
}

/// How hard the built-in proof of work is: leading zero bits, each of which doubles the work. The least are asked for at
/// the threat level `normal`, the most at `critical`, and of sources that ask for many puzzles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkConfig {
    pub least_bits: u8,
    pub most_bits: u8,
}

impl Default for WorkConfig {
    fn default() -> WorkConfig {
        WorkConfig { least_bits: 18, most_bits: 22 }
    }
}

/// Whose credentials passkeys are. It comes from here, never from a request's `Host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelyingParty {
    /// The domain that credentials are bound to (rpId).
    pub id: String,
    /// What authenticators show beside the account.
    pub name: String,
    /// Origins whose pages may use them, such as `https://shop.example`; those outside `id` are related origins
    /// (WebAuthn L3 §5.11).
    pub origins: Vec<String>,
}

/// How the connection to the mail server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailProtection {
    /// TLS from the first byte (RFC 8314).
    Implicit,
    /// TLS before anything else is said (RFC 3207); a server that does not offer it gets no mail.
    StartTls,
    /// To this machine alone.
    None,
}

/// The SMTP server, and who the mails are from.
#[derive(Clone, PartialEq, Eq)]
pub struct MailConfig {
    pub host: String,
    pub port: u16,
    pub protection: MailProtection,
    pub login: Option<(String, Zeroizing<String>)>,
    /// PEM certificates that sign the server's, instead of those that this machine trusts.
    pub ca: Option<Vec<u8>>,
    /// Such as `Shop <no-reply@shop.example>`.
    pub from: String,
}

/// A service that is called over HTTP.
#[derive(Clone, PartialEq, Eq)]
pub struct EndpointConfig {
    /// `https`, or `http` to this machine alone.
    pub url: Uri,
    /// Both sides have it.
    pub secret: Zeroizing<Vec<u8>>,
    pub timeout: Duration,
    /// PEM certificates that sign the service's, instead of those that this machine trusts.
    pub ca: Option<Vec<u8>>,
}

/// Somebody else's captcha: visitors fetch a token from `page`, and `verify` says whether it is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptchaConfig {
    pub page: Uri,
    pub verify: EndpointConfig,
}

/// A factor that somebody else verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalConfig {
    /// What pages call the answer.
    pub label: String,
    /// Where users find it.
    pub hint: String,
    pub verify: EndpointConfig,
}

impl fmt::Debug for EndpointConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointConfig").field("url", &self.url).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl fmt::Debug for MailConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailConfig").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}
