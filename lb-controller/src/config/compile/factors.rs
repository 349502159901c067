//! The `factors` section, and the files with secrets that it names.

use std::path::Path;
use std::time::Duration;

use http::Uri;
use lb_policy::canonical_host;
use zeroize::Zeroizing;

use super::super::factors::{
    CaptchaConfig, EndpointConfig, ExternalConfig, FactorsConfig, MailConfig, MailProtection, RelyingParty, WorkConfig,
};
use super::super::section::{Complaint, Section};
use super::super::values;

/// Whoever guesses it can speak for this gateway.
const SHORTEST_SECRET_BYTES: usize = 24;
/// Larger files are no secret and no certificate.
const LONGEST_FILE_BYTES: u64 = 256 * 1024;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn compile(config: &Section<'_>, folder: &Path) -> FactorsConfig {
    let Some(section) = config.get("factors").and_then(|node| Section::open("`factors`", node, config.problems)) else {
        return FactorsConfig::default();
    };
    let open = |name, what| section.get(name).and_then(|node| Section::open(what, node, config.problems));
    let factors = FactorsConfig {
        passkey: open("passkey", "`passkey`").and_then(relying_party),
        mail: open("mail", "`mail`").and_then(|section| mail(section, folder)),
        sms: open("sms", "`sms`").and_then(|section| endpoint(section, folder, "url")),
        work: open("pow", "`pow`").map(work).unwrap_or_default(),
        captcha: open("captcha", "`captcha`").and_then(|section| captcha(section, folder)),
        external: open("external", "`external`").and_then(|section| external(section, folder)),
    };
    section.finish();
    factors
}

fn work(section: Section<'_>) -> WorkConfig {
    let default = WorkConfig::default();
    let least_bits = section.value("least_bits", bits).unwrap_or(default.least_bits);
    let most_bits = section.value("most_bits", bits).unwrap_or(default.most_bits.max(least_bits));
    if least_bits > most_bits
        && let Some(node) = section.get("most_bits").or_else(|| section.get("least_bits"))
    {
        let message = format!("from {least_bits} to {most_bits} bits is no range");
        section.problems.report(&node.place, message);
    }
    section.finish();
    WorkConfig { least_bits, most_bits }
}

/// Below, a machine does not notice; above, a phone does not finish before the puzzle expires.
fn bits(text: &str) -> Result<u8, Complaint> {
    let bits = text.parse().ok().filter(|bits| (8..=26).contains(bits));
    bits.ok_or_else(|| Complaint::new(format!("`{text}` is no number of bits"), "from 8 to 26; each doubles the work"))
}

fn relying_party(section: Section<'_>) -> Option<RelyingParty> {
    let id = section.required_value("id", domain);
    let name = section.value("name", text);
    let origins: Vec<String> =
        section.require_list("origins").iter().filter_map(|node| node.read(section.problems, origin)).collect();
    section.finish();
    let id = id?;
    Some(RelyingParty { name: name.unwrap_or_else(|| id.clone()), id, origins })
}

fn mail(section: Section<'_>, folder: &Path) -> Option<MailConfig> {
    let server = section.required_value("server", host_and_port);
    let protection = section.value("tls", protection).unwrap_or(MailProtection::StartTls);
    let user = section.value("user", text);
    let password = section.value("password_file", |text| secret_file(folder, text, 1));
    let ca = section.value("ca", |text| file(folder, text));
    let from = section.required_value("from", mail_address);
    if let (Some((host, _)), MailProtection::None) = (&server, protection)
        && !is_this_machine(host)
        && let Some(node) = section.get("tls")
    {
        let help = "write `starttls` or `implicit`";
        section.problems.report(&node.place, Complaint::new("without TLS mail goes to this machine alone", help));
    }
    if section.has("user") != section.has("password_file")
        && let Some(node) = section.get("user").or_else(|| section.get("password_file"))
    {
        section.problems.report(&node.place, "`user` and `password_file` go together");
    }
    section.finish();
    let (host, port) = server?;
    let password = password.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok()).map(Zeroizing::new);
    Some(MailConfig { host, port, protection, login: user.zip(password), ca, from: from? })
}

fn captcha(section: Section<'_>, folder: &Path) -> Option<CaptchaConfig> {
    let page = section.required_value("page", service_url);
    let verify = endpoint(section, folder, "verify");
    Some(CaptchaConfig { page: page?, verify: verify? })
}

fn external(section: Section<'_>, folder: &Path) -> Option<ExternalConfig> {
    let label = section.required_value("label", text);
    let hint = section.value("hint", text).unwrap_or_default();
    let verify = endpoint(section, folder, "url");
    Some(ExternalConfig { label: label?, hint, verify: verify? })
}

/// The last keys of a section: where to call under `url_key`, and how.
fn endpoint(section: Section<'_>, folder: &Path, url_key: &'static str) -> Option<EndpointConfig> {
    let url = section.required_value(url_key, service_url);
    let secret = section.required_value("secret_file", |text| secret_file(folder, text, SHORTEST_SECRET_BYTES));
    let seconds = Duration::from_secs(1)..=Duration::from_secs(30);
    let timeout = section.value("timeout", values::duration(seconds)).unwrap_or(DEFAULT_TIMEOUT);
    let ca = section.value("ca", |text| file(folder, text));
    section.finish();
    Some(EndpointConfig { url: url?, secret: secret?, timeout, ca })
}

fn protection(text: &str) -> Result<MailProtection, Complaint> {
    match text {
        "implicit" => Ok(MailProtection::Implicit),
        "starttls" => Ok(MailProtection::StartTls),
        "none" => Ok(MailProtection::None),
        _ => Err(Complaint::unknown("protection", text, ["implicit", "starttls", "none"])),
    }
}

fn text(text: &str) -> Result<String, Complaint> {
    if text.is_empty() || text.len() > 128 || text.chars().any(char::is_control) {
        return Err("1 to 128 bytes of text without control characters are meant here".into());
    }
    Ok(text.to_owned())
}

/// One address, with or without a name before it. The mail library reads it again, and its reading counts.
pub(super) fn mail_address(text: &str) -> Result<String, Complaint> {
    let complaint = || Complaint::new(format!("`{text}` is no e-mail address"), "write `Shop <no-reply@shop.example>`");
    text.parse::<lettre::message::Mailbox>().map_err(|_| complaint())?;
    Ok(text.to_owned())
}

fn domain(text: &str) -> Result<String, Complaint> {
    let is_domain = host_name(text) && !text.ends_with('.') && text.parse::<std::net::IpAddr>().is_err();
    if !is_domain {
        let help = "browsers bind passkeys to a domain such as shop.example, never to an address";
        return Err(Complaint::new(format!("`{text}` is no domain"), help));
    }
    Ok(text.to_owned())
}

/// As browsers write it: no default port, no path, lower case.
fn origin(text: &str) -> Result<String, Complaint> {
    let complaint = || Complaint::new(format!("`{text}` is no origin"), "write `https://shop.example`, without a path");
    let rest = text.strip_prefix("https://").ok_or_else(complaint)?;
    let (host, port) = rest.rsplit_once(':').map_or((rest, None), |(host, port)| (host, Some(port)));
    let good_port = port.is_none_or(|port| {
        port.parse::<u16>().is_ok_and(|number| number != 443 && number != 0 && number.to_string() == port)
    });
    if !host_name(host) || !good_port {
        return Err(complaint());
    }
    Ok(text.to_owned())
}

fn host_and_port(text: &str) -> Result<(String, u16), Complaint> {
    let complaint = || Complaint::new(format!("`{text}` is no server"), "write `mail.example:587`");
    let (host, port) = text.rsplit_once(':').ok_or_else(complaint)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(complaint)?;
    if !host_name(host) && host.parse::<std::net::IpAddr>().is_err() {
        return Err(complaint());
    }
    Ok((host.to_owned(), port))
}

/// A domain as browsers write it.
fn host_name(text: &str) -> bool {
    canonical_host(text).is_ok_and(|host| host == text)
}

fn service_url(text: &str) -> Result<Uri, Complaint> {
    let complain = |message: &str| Complaint::new(message, "write `https://host/path`");
    let url: Uri = text.parse().map_err(|_| complain("this is no URL"))?;
    let authority = url.authority().ok_or_else(|| complain("this is no URL of a service"))?;
    if authority.as_str().contains('@') {
        return Err(complain("a URL with a password in it ends up in logs"));
    }
    match url.scheme_str() {
        Some("https") => Ok(url),
        Some("http") if is_this_machine(authority.host()) => Ok(url),
        Some("http") => Err(complain("plain http:// goes to this machine alone")),
        _ => Err(complain("this is no URL of a service")),
    }
}

fn is_this_machine(host: &str) -> bool {
    matches!(host, "127.0.0.1" | "::1" | "[::1]" | "localhost")
}

/// What a file holds, without the line break at its end.
pub(super) fn secret_file(folder: &Path, text: &str, shortest: usize) -> Result<Zeroizing<Vec<u8>>, Complaint> {
    let mut bytes = Zeroizing::new(file(folder, text)?);
    while bytes.last().is_some_and(u8::is_ascii_whitespace) {
        bytes.pop();
    }
    if bytes.len() < shortest {
        let help = format!("it needs at least {shortest} bytes; `openssl rand -hex 32` makes good ones");
        return Err(Complaint::new(format!("the secret in {text} is too short"), help));
    }
    Ok(bytes)
}

pub(super) fn file(folder: &Path, text: &str) -> Result<Vec<u8>, Complaint> {
    let path = super::path_in(folder, text)?;
    let unreadable = |error: &dyn std::fmt::Display| Complaint::from(format!("{}: {error}", path.display()));
    let metadata = std::fs::metadata(&path).map_err(|error| unreadable(&error))?;
    if !metadata.is_file() || metadata.len() > LONGEST_FILE_BYTES {
        return Err(unreadable(&"this is no file of a secret or a certificate"));
    }
    std::fs::read(&path).map_err(|error| unreadable(&error))
}
