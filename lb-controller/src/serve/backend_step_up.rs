//! Backends that ask for more proof themselves: a 401 with `insufficient_user_authentication` (RFC 9470 §3) becomes a
//! challenge, and once it is met the request goes to the backend again. Routes opt in, because their requests are kept.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper::body::Body as _;
use lb_policy::{Level, Levels, Requirement};

use crate::config::{Config, Route};
use crate::serve::body_memory::BodyMemory;
use crate::serve::facts::{announced_bytes, hold_body};
use crate::serve::request::{Inbound, InboundBody};
use crate::serve::respond::Early;
use crate::stepup::Session;

/// In explanations and the audit trail: no rule of ours asked for it.
pub(super) const RULE: &str = "backend";

const ERROR: &str = "insufficient_user_authentication";

/// Copies the request where the route lets its backend ask for more proof. A body that is larger than what is parked, or
/// of unknown length, streams on, and its request is not sent again.
pub(super) async fn keep(
    config: &Config,
    route: &Route,
    memory: &Arc<BodyMemory>,
    request: &mut Inbound,
    session: Option<&Session>,
) -> Result<Option<Box<Inbound>>, Early> {
    if !route.backend_step_up || session.is_none() || request.upgrade.is_some() {
        return Ok(None);
    }
    let limit = config.step_up.park_limit_bytes as u64;
    let announced = match &request.body {
        InboundBody::Streaming(incoming) if incoming.is_end_stream() => Some(0),
        _ => announced_bytes(&request.headers),
    };
    if let Some(bytes) = announced.filter(|bytes| *bytes <= limit) {
        request.body = InboundBody::Whole(hold_body(memory, request.take_body(), bytes, false).await?);
    }
    Ok(request.copy().map(Box::new))
}

/// What the backend's response asks for; `None`: nothing that is ours to meet.
pub(super) fn asked(response: &Response<impl Sized>, levels: &Levels) -> Option<Requirement> {
    if response.status() != StatusCode::UNAUTHORIZED {
        return None;
    }
    let challenge = response.headers().get_all(header::WWW_AUTHENTICATE).iter().find_map(Asked::read)?;
    Some(challenge.requirement(levels))
}

/// Where a backend may not ask, its challenge is not passed on either: it is not for clients to see what would do.
pub(super) fn hide(headers: &mut HeaderMap) {
    let all = headers.get_all(header::WWW_AUTHENTICATE);
    if all.iter().all(|value| Asked::read(value).is_none()) {
        return;
    }
    let others: Vec<HeaderValue> = all.iter().filter(|value| Asked::read(value).is_none()).cloned().collect();
    headers.remove(header::WWW_AUTHENTICATE);
    for other in others {
        headers.append(header::WWW_AUTHENTICATE, other);
    }
}

/// The parameters of such a challenge.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    acr_values: Vec<String>,
    max_age_seconds: Option<u64>,
}

impl Asked {
    fn read(value: &HeaderValue) -> Option<Asked> {
        let text = value.to_str().ok()?;
        let parameters = parameters(text);
        let of = |name: &str| parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        (of("error") == Some(ERROR)).then(|| Asked {
            acr_values: of("acr_values").unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect(),
            max_age_seconds: of("max_age").and_then(|seconds| seconds.parse().ok()),
        })
    }

    /// Any one of the levels will do (RFC 9470 §3), so the lowest is asked for. Names that no level has are passed over.
    fn requirement(&self, levels: &Levels) -> Requirement {
        let level: Option<Level> = self.acr_values.iter().filter_map(|acr| levels.with_acr(acr)).min();
        let per_action = self.max_age_seconds == Some(0);
        Requirement {
            level,
            methods: Vec::new(),
            max_age_seconds: self.max_age_seconds.filter(|_| !per_action),
            per_action,
        }
    }
}

/// `name=value` and `name="value"` of a `WWW-Authenticate` (RFC 9110 §11.2), names in lower case. Words between them are
/// schemes, and passed over.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('=') {
        let name = before.rsplit([' ', '\t', ',']).find(|word| !word.is_empty()).unwrap_or_default();
        let after = after.trim_start();
        let (value, behind) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let (value, behind) = after.split_at(after.find([',', ' ', '\t']).unwrap_or(after.len()));
                (value.to_owned(), behind)
            }
        };
        found.push((name.to_ascii_lowercase(), value));
        rest = behind;
    }
    found
}

/// The text up to the closing quote, and what follows it.
fn unquote(quoted: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn requirement_of(header: &'static str) -> Option<Requirement> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        response.headers_mut().append(header::WWW_AUTHENTICATE, HeaderValue::from_static(header));
        asked(&response, &Levels::default())
    }

    #[test]
    fn a_backends_challenge_becomes_a_requirement() {
        let require = |level: Option<u8>, max_age_seconds, per_action| {
            Some(Requirement { level: level.map(Level), methods: Vec::new(), max_age_seconds, per_action })
        };
        let rows: &[(&str, &str, Option<Requirement>)] = &[
            (
                "level and age",
                r#"Bearer error="insufficient_user_authentication", acr_values="urn:lb:acr:2", max_age="300""#,
                require(Some(2), Some(300), false),
            ),
            (
                "other order, spaces and letter case",
                r#"bearer realm="a, b", max_age=60 , ERROR="insufficient_user_authentication""#,
                require(None, Some(60), false),
            ),
            (
                "any one of several levels",
                r#"DPoP error="insufficient_user_authentication", acr_values="urn:lb:acr:3 other urn:lb:acr:2""#,
                require(Some(2), None, false),
            ),
            ("each time", r#"Bearer error="insufficient_user_authentication", max_age="0""#, require(None, None, true)),
            (
                "names that no level has",
                r#"Bearer error="insufficient_user_authentication", acr_values="x""#,
                require(None, None, false),
            ),
            ("another error", r#"Bearer error="invalid_token", acr_values="urn:lb:acr:2""#, None),
            ("the words inside another value", r#"Bearer realm="error=insufficient_user_authentication""#, None),
            ("an escaped quote", r#"Bearer realm="\", error=insufficient_user_authentication""#, None),
            ("no challenge of ours", "Basic realm=\"x\"", None),
        ];
        for (name, header, expected) in rows {
            assert_eq!(requirement_of(header), *expected, "{name}");
        }
    }

    #[test]
    fn only_a_401_asks_and_only_what_asks_is_hidden() {
        let mut response = Response::new(());
        let headers = response.headers_mut();
        headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"x\""));
        headers.append(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static(r#"Bearer error="insufficient_user_authentication""#),
        );
        assert_eq!(asked(&response, &Levels::default()), None, "a 200");
        hide(response.headers_mut());
        assert_eq!(
            response.headers().get_all(header::WWW_AUTHENTICATE).iter().collect::<Vec<_>>(),
            ["Basic realm=\"x\""]
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_panic(text in "\\PC{0,120}") {
            let _ = parameters(&text);
        }

        #[test]
        fn what_is_written_is_read(realm in "[ -~]{0,20}", seconds: u32) {
            let realm = realm.replace('\\', "\\\\").replace('"', "\\\"");
            let text = format!(r#"Bearer realm="{realm}", error="{ERROR}", max_age="{seconds}""#);
            let read = Asked::read(&HeaderValue::try_from(text).unwrap()).unwrap();
            prop_assert_eq!(read, Asked { acr_values: Vec::new(), max_age_seconds: Some(seconds.into()) });
        }
    }
}
