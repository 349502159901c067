//! HTML forms (`application/x-www-form-urlencoded`), read strictly: browsers write them one way, attackers in many.

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::pointer::{folded, mistakable};
use super::{BodyError, Found, Pointer};
use crate::path::hex_pair;

/// The fields by decoded name.
pub(crate) type Fields = BTreeMap<String, String>;

/// Reads all fields; a name that comes twice is an error, since backends differ on which of the two counts.
pub(crate) fn parse(bytes: &[u8]) -> Result<Fields, BodyError> {
    let mut fields = Fields::new();
    let mut offset_bytes = 0;
    for pair in bytes.split(|byte| *byte == b'&') {
        let fail = |problem| BodyError::Malformed { offset_bytes, problem };
        let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
            Some(equals) => (&pair[..equals], &pair[equals + 1..]),
            None => (pair, &[][..]),
        };
        let name = decode(name).map_err(fail)?;
        let value = decode(value).map_err(fail)?;
        if !pair.is_empty() && fields.insert(name, value).is_some() {
            return Err(fail("the same field twice"));
        }
        offset_bytes += pair.len() + 1;
    }
    Ok(fields)
}

/// The field that a pointer of one name calls for; deeper pointers find nothing in a form.
pub(super) fn find<'a>(fields: &'a Fields, pointer: &Pointer) -> Result<Found<'a>, BodyError> {
    let [name] = pointer.segments() else {
        return Ok(Found::Nothing);
    };
    match named(fields, name) {
        Ok(text) => Ok(text.map_or(Found::Nothing, |text| Found::FormText(Cow::Borrowed(text)))),
        Err(Ambiguous) => Err(BodyError::AmbiguousName { pointer: pointer.text().into() }),
    }
}

/// There is a name that some backends take for the one that is looked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ambiguous;

/// The field of this name.
pub(crate) fn named<'a>(fields: &'a Fields, name: &str) -> Result<Option<&'a str>, Ambiguous> {
    if fields.keys().any(|field| field != name && may_stand_for(field, name)) {
        return Err(Ambiguous);
    }
    Ok(fields.get(name).map(String::as_str))
}

/// `amount[]` and `amount[0]` overwrite `amount` in some frameworks, `order.id` and `order id` are `order_id` in PHP.
pub(super) fn may_stand_for(field: &str, name: &str) -> bool {
    mistakable(field, name) || folded(stem(field)).eq(folded(stem(name)))
}

fn stem(field: &str) -> impl Iterator<Item = char> {
    let end = field.find('[').unwrap_or(field.len());
    field[..end].trim_start().chars().map(|char| if matches!(char, '.' | ' ') { '_' } else { char })
}

/// `+` is a space, `%XX` a byte; what browsers always escape must be escaped.
fn decode(text: &[u8]) -> Result<String, &'static str> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => hex_pair(bytes.next(), bytes.next()).ok_or("a `%` without two hexadecimal digits")?,
            // Old parsers end a field at `;`.
            b';' => return Err("a `;` that is not percent-encoded"),
            0x21..0x7f => byte,
            _ => return Err("a character that must be percent-encoded"),
        });
    }
    match String::from_utf8(decoded) {
        Ok(text) if text.contains('\0') => Err("a NUL character"),
        Ok(text) => Ok(text),
        Err(_) => Err("not UTF-8"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_only_under_its_one_name() {
        let pointer = Pointer::parse("/order_id").unwrap();
        let ambiguous = Err(BodyError::AmbiguousName { pointer: "/order_id".into() });
        let malformed = |offset_bytes, problem| Err(BodyError::Malformed { offset_bytes, problem });
        let rows = [
            ("order_id=7", Ok(Some("7"))),
            ("a=b&order_id=7+8%2B9", Ok(Some("7 8+9"))),
            ("order%5Fid=7", Ok(Some("7"))),
            ("&&order_id=7&", Ok(Some("7"))),
            ("order_id", Ok(Some(""))),
            ("order_id=a=b", Ok(Some("a=b"))),
            ("other=7", Ok(None)),
            ("order_id=1&order_id=7", malformed(11, "the same field twice")),
            ("order_id=1&order%5fid=7", malformed(11, "the same field twice")),
            ("order_id=1;order_id=7", malformed(0, "a `;` that is not percent-encoded")),
            ("x=1&order_id=%4", malformed(4, "a `%` without two hexadecimal digits")),
            ("order_id=%ff", malformed(0, "not UTF-8")),
            ("order_id=%00", malformed(0, "a NUL character")),
            ("order_id=\u{e9}", malformed(0, "a character that must be percent-encoded")),
            ("{\"order_id\": 7}", malformed(0, "a character that must be percent-encoded")),
            ("order_id=1&order_id%5B%5D=7", ambiguous.clone()),
            ("order_id=1&order_id[0]=7", ambiguous.clone()),
            ("order_id=1&order.id=7", ambiguous.clone()),
            ("order_id=1&order+id=7", ambiguous.clone()),
            ("order_id=1&+order_id=7", ambiguous.clone()),
            ("Order_ID=7", ambiguous),
        ];
        for (body, expected) in rows {
            let found = parse(body.as_bytes()).and_then(|fields| {
                Ok(match find(&fields, &pointer)? {
                    Found::FormText(text) => Some(text.into_owned()),
                    _ => None,
                })
            });
            assert_eq!(found, expected.map(|text| text.map(String::from)), "{body}");
        }
    }
}
