//! Which reader a `Content-Type` calls for.

/// The formats that rules can look into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyFormat<'a> {
    Json,
    Form,
    /// `multipart/form-data`, parts being set apart by this.
    Multipart {
        boundary: &'a str,
    },
}

impl<'a> BodyFormat<'a> {
    /// `None` for every other type, for a character set other than UTF-8 (JSON in UTF-16 would hide its keys), and
    /// without a type: a backend that guesses would guess for itself.
    pub(super) fn of(content_type: Option<&'a str>) -> Option<BodyFormat<'a>> {
        let mut parts = content_type?.split(';');
        let essence = parts.next()?.trim().to_ascii_lowercase();
        let mut boundary = None;
        for parameter in parts {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let (name, value) = (name.trim(), value.trim());
            if name.eq_ignore_ascii_case("charset") && !value.trim_matches('"').eq_ignore_ascii_case("utf-8") {
                return None;
            }
            // Given twice, or in other words (RFC 2231), backends would differ on what sets the parts apart.
            if name.len() >= 8 && name.as_bytes()[..8].eq_ignore_ascii_case(b"boundary") {
                let is_first = boundary.replace(boundary_of(value)?).is_none();
                if !is_first || name.len() > 8 {
                    return None;
                }
            }
        }
        if essence == "multipart/form-data" {
            return boundary.map(|boundary| BodyFormat::Multipart { boundary });
        }
        match essence.strip_prefix("application/")? {
            "json" => Some(BodyFormat::Json),
            "x-www-form-urlencoded" => Some(BodyFormat::Form),
            // RFC 6839 §3.1; a comma would be two header values glued together.
            other => (other.ends_with("+json") && !other.contains(',')).then_some(BodyFormat::Json),
        }
    }
}

/// 1 to 70 of the characters that every reader takes as they are (RFC 2046 §5.1.1, without spaces), in quotes or not.
fn boundary_of(value: &str) -> Option<&str> {
    let unquoted = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_-./:=?".contains(&byte);
    ((1..=70).contains(&unquoted.len()) && unquoted.bytes().all(is_plain)).then_some(unquoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_and_forms_in_utf_8_are_read() {
        let multipart = |boundary| Some(BodyFormat::Multipart { boundary });
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
            (Some("multipart/form-data; boundary=x"), multipart("x")),
            (Some("Multipart/Form-Data; charset=utf-8; Boundary=\"a-b\""), multipart("a-b")),
            (Some("multipart/form-data"), None),
            (Some("multipart/form-data; boundary="), None),
            (Some("multipart/form-data; boundary=a; boundary=b"), None),
            (Some("multipart/form-data; boundary=a; boundary*0=b"), None),
            (Some("multipart/form-data; boundary=\"a b\""), None),
            (Some("multipart/form-data; boundary=\"a\\\"b\""), None),
            (Some("multipart/mixed; boundary=x"), None),
            (Some(""), None),
            (None, None),
        ];
        for (content_type, expected) in rows {
            assert_eq!(BodyFormat::of(content_type), expected, "{content_type:?}");
        }
    }
}
