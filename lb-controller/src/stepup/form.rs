//! `application/x-www-form-urlencoded` (URL standard §5.1), read strictly: a field that came twice is nobody's choice.

use zeroize::Zeroizing;

/// Larger than any form of ours with every field at its longest.
pub(super) const FORM_LIMIT_BYTES: usize = 8 * 1024;
const MOST_FIELDS: usize = 16;

/// The fields of one form. They may be secrets, so they are wiped when dropped.
pub(super) struct Form(Vec<(String, Zeroizing<String>)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FormError {
    TooManyFields,
    /// `%` without two hex digits, or bytes that are not UTF-8.
    BadEscape,
    Repeated,
}

impl Form {
    pub(super) fn parse(body: &[u8]) -> Result<Form, FormError> {
        let mut fields: Vec<(String, Zeroizing<String>)> = Vec::new();
        for pair in body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
                Some(at) => (&pair[..at], &pair[at + 1..]),
                None => (pair, &[][..]),
            };
            let name = decode(name)?;
            if fields.len() == MOST_FIELDS {
                return Err(FormError::TooManyFields);
            }
            if fields.iter().any(|field| field.0 == name) {
                return Err(FormError::Repeated);
            }
            fields.push((name, Zeroizing::new(decode(value)?)));
        }
        Ok(Form(fields))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|field| field.0 == name).map(|field| field.1.as_str())
    }
}

fn decode(text: &[u8]) -> Result<String, FormError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        (bytes, rest) = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).ok_or(FormError::BadEscape);
                bytes.push((digit(high)? << 4 | digit(low)?) as u8);
                (bytes, tail)
            }
            (b'%', _) => return Err(FormError::BadEscape),
            (byte, tail) => {
                bytes.push(if *byte == b'+' { b' ' } else { *byte });
                (bytes, tail)
            }
        };
    }
    String::from_utf8(bytes).map_err(|_| FormError::BadEscape)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forms_are_read_as_browsers_and_curl_write_them() {
        let form = Form::parse(b"user=alice&password=a%26b%3Dc+%C3%A9%2b&empty=&bare&&").unwrap();
        let rows = [
            ("user", Some("alice")),
            ("password", Some("a&b=c é+")),
            ("empty", Some("")),
            ("bare", Some("")),
            ("absent", None),
        ];
        for (name, value) in rows {
            assert_eq!(form.get(name), value, "{name}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let rows: &[(&str, &[u8], FormError)] = &[
            ("a repeated field", b"code=1&code=2", FormError::Repeated),
            ("a field repeated in another spelling", b"code=1&c%6fde=2", FormError::Repeated),
            ("a cut-off escape", b"code=%4", FormError::BadEscape),
            ("an escape of no digits", b"code=%zz", FormError::BadEscape),
            ("bytes that are no text", b"code=%ff", FormError::BadEscape),
            ("more fields than a form has", b"a&b&c&d&e&f&g&h&i&j&k&l&m&n&o&p&q", FormError::TooManyFields),
        ];
        for (name, body, expected) in rows {
            assert_eq!(Form::parse(body).err(), Some(*expected), "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_parsing_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Form::parse(&body);
        }

        #[test]
        fn any_text_survives_being_escaped(value in "\\PC{0,40}") {
            let escaped: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let form = Form::parse(format!("field={escaped}").as_bytes()).unwrap();
            prop_assert_eq!(form.get("field"), Some(value.as_str()));
        }
    }
}
