//! Which reader a `Content-Type` calls for.

/// The formats that rules can look into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyFormat {
    Json,
    Form,
}

impl BodyFormat {
    /// `None` for every other type, for a character set other than UTF-8 (JSON in UTF-16 would hide its keys), and
    /// without a type: a backend that guesses would guess for itself.
    pub(super) fn of(content_type: Option<&str>) -> Option<BodyFormat> {
        let mut parts = content_type?.split(';');
        let essence = parts.next()?.trim().to_ascii_lowercase();
        for parameter in parts {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = value.trim().trim_matches('"');
            if name.trim().eq_ignore_ascii_case("charset") && !value.eq_ignore_ascii_case("utf-8") {
                return None;
            }
        }
        match essence.strip_prefix("application/")? {
            "json" => Some(BodyFormat::Json),
            "x-www-form-urlencoded" => Some(BodyFormat::Form),
            // RFC 6839 §3.1; a comma would be two header values glued together.
            other => (other.ends_with("+json") && !other.contains(',')).then_some(BodyFormat::Json),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_and_forms_in_utf_8_are_read() {
        let rows = [
            (Some("application/json"), Some(BodyFormat::Json)),
            (Some("Application/JSON; charset=UTF-8"), Some(BodyFormat::Json)),
            (Some("application/json; charset=\"utf-8\""), Some(BodyFormat::Json)),
            (Some("application/vnd.shop+json"), Some(BodyFormat::Json)),
            (Some("application/x-www-form-urlencoded"), Some(BodyFormat::Form)),
            (Some("application/json; charset=utf-16"), None),
            (Some("application/json; charset=utf-7"), None),
            (Some("application/json; charset"), None),
            (Some("application/json; charset=utf-8; charset=utf-16"), None),
            (Some("application/json, text/plain"), None),
            (Some("text/plain, application/x+json"), None),
            (Some("text/json"), None),
            (Some("multipart/form-data; boundary=x"), None),
            (Some(""), None),
            (None, None),
        ];
        for (content_type, expected) in rows {
            assert_eq!(BodyFormat::of(content_type), expected, "{content_type:?}");
        }
    }
}
