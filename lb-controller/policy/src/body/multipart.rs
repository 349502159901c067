//! HTML forms with files (`multipart/form-data`, RFC 7578), read as browsers write them and in no other way.
//!
//! Readers of multipart differ in what they forgive: text before the first part, bare line feeds, a second
//! `Content-Disposition`, a boundary that is only the beginning of a line. Each of these is an error here, so that no
//! backend finds another field than the rules did.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeSet;
use alloc::string::String;

use super::form::{Fields, may_stand_for, named};
use super::{BodyError, Found, Pointer};

/// More parts are refused: names are compared with one another.
const MOST_PARTS: usize = 256;

/// The fields by name, and the names of files.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Multipart {
    fields: Fields,
    files: BTreeSet<String>,
}

/// The headers of one part.
struct PartHeaders<'a> {
    name: &'a str,
    is_file: bool,
}

pub(super) fn parse(bytes: &[u8], boundary: &str) -> Result<Multipart, BodyError> {
    let delimiter = [b"--", boundary.as_bytes()].concat();
    let mut multipart = Multipart::default();
    let mut position = 0;
    let error = |offset_bytes, problem| BodyError::Malformed { offset_bytes, problem };
    let fail = |offset_bytes, problem| Err(error(offset_bytes, problem));
    if !bytes.starts_with(&delimiter) {
        return fail(0, "something before the first boundary");
    }
    for _ in 0..MOST_PARTS {
        position += delimiter.len();
        match &bytes[position..] {
            b"--" | b"--\r\n" => return Ok(multipart),
            rest if rest.starts_with(b"\r\n") => position += 2,
            _ => return fail(position, "the boundary within a line, or something after the last one"),
        }
        let part = &bytes[position..];
        let Some(end) = find(part, &delimiter) else { return fail(position, "the last boundary is missing") };
        let Some(part) = part[..end].strip_suffix(b"\r\n") else {
            return fail(position + end, "the boundary within a line");
        };
        multipart.add(part).map_err(|problem| error(position, problem))?;
        position += end;
    }
    fail(position, "more than 256 parts")
}

impl Multipart {
    fn add(&mut self, part: &[u8]) -> Result<(), &'static str> {
        // A part without a line of headers has no name.
        let end = find(part, b"\r\n\r\n").ok_or("a part without headers")?;
        let PartHeaders { name, is_file } = part_headers(&part[..end])?;
        let content = &part[end + 4..];
        if is_file {
            self.files.insert(name.to_owned());
            return if self.fields.contains_key(name) { Err("a field and a file of one name") } else { Ok(()) };
        }
        let text = core::str::from_utf8(content).map_err(|_| "a field that is not UTF-8")?;
        if text.contains('\0') {
            return Err("a NUL character");
        }
        if self.files.contains(name) || self.fields.insert(name.to_owned(), text.to_owned()).is_some() {
            return Err("the same field twice");
        }
        Ok(())
    }

    /// The field that a pointer of one name calls for; deeper pointers find nothing in a form, and a file is no text.
    pub(super) fn find(&self, pointer: &Pointer) -> Result<Found<'_>, BodyError> {
        let [name] = pointer.segments() else { return Ok(Found::Nothing) };
        if self.files.contains(name) {
            return Ok(Found::Composite);
        }
        let is_like_a_file = self.files.iter().any(|file| may_stand_for(file, name));
        match named(&self.fields, name) {
            Ok(text) if !is_like_a_file => Ok(text.map_or(Found::Nothing, |text| Found::FormText(text.into()))),
            _ => Err(BodyError::AmbiguousName { pointer: pointer.text().into() }),
        }
    }
}

/// `Content-Disposition: form-data; name="…"` once, with `filename="…"` for a file, and at most a `Content-Type`.
fn part_headers(bytes: &[u8]) -> Result<PartHeaders<'_>, &'static str> {
    let text = core::str::from_utf8(bytes).map_err(|_| "a part's headers are not UTF-8")?;
    let (mut disposition, mut has_type) = (None, false);
    for line in text.split("\r\n") {
        let (name, value) = line.split_once(':').ok_or("a part's header without a colon")?;
        if value.contains(|char: char| char.is_control()) {
            return Err("a control character in a part's header");
        }
        let is = |known| name.eq_ignore_ascii_case(known);
        let is_repeated = if is("content-disposition") {
            disposition.replace(value.trim()).is_some()
        } else if is("content-type") {
            core::mem::replace(&mut has_type, true)
        } else {
            return Err("a part's header other than Content-Disposition and Content-Type");
        };
        if is_repeated {
            return Err("a part's header twice");
        }
    }
    let headers = disposition_of(disposition.ok_or("a part without Content-Disposition")?)?;
    // What a part of this name holds becomes the character set of all others (RFC 7578 §4.6).
    if headers.name.eq_ignore_ascii_case("_charset_") {
        return Err("a part named _charset_");
    }
    Ok(headers)
}

fn disposition_of(value: &str) -> Result<PartHeaders<'_>, &'static str> {
    let mut rest = value.strip_prefix("form-data").ok_or("a part that is no form-data")?;
    let (mut name, mut is_file) = (None, false);
    while !rest.is_empty() {
        let parameter = rest.strip_prefix(';').ok_or("a part's name that could be read in two ways")?.trim_start();
        let (key, quoted) = parameter.split_once("=\"").ok_or("a part's name without quotes")?;
        let (text, after) = quoted.split_once('"').ok_or("a part's name without its closing quote")?;
        // Browsers write a quote as %22; a backslash is an escape to some readers and a letter to others.
        if text.contains('\\') {
            return Err("a backslash in a part's name");
        }
        let is_repeated = match key {
            "name" => name.replace(text).is_some(),
            "filename" => core::mem::replace(&mut is_file, true),
            _ => return Err("a part's parameter other than name and filename"),
        };
        if is_repeated {
            return Err("a part's name twice");
        }
        rest = after.trim_start();
    }
    // Escapes are undone by some readers and not by others.
    match name {
        Some(name) if !name.contains('%') => Ok(PartHeaders { name, is_file }),
        Some(_) => Err("an escape in a part's name"),
        None => Err("a part without a name"),
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    use super::*;

    const FIELD: &str = "Content-Disposition: form-data; name=\"amount\"\r\n\r\n7";

    fn body(parts: &[&str]) -> String {
        let parts: Vec<String> = parts.iter().map(|part| format!("--b\r\n{part}\r\n")).collect();
        format!("{}--b--\r\n", parts.concat())
    }

    fn amount(body: &str) -> Result<Option<String>, String> {
        let multipart = parse(body.as_bytes(), "b").map_err(|error| error.to_string())?;
        match multipart.find(&Pointer::parse("/amount").unwrap()).map_err(|error| error.to_string())? {
            Found::FormText(text) => Ok(Some(text.into_owned())),
            Found::Composite => Ok(Some("(a file)".into())),
            _ => Ok(None),
        }
    }

    #[test]
    fn a_field_is_found_in_what_browsers_write() {
        let file =
            "Content-Disposition: form-data; name=\"photo\"; filename=\"a;b=\\\"c.png\"\r\nContent-Type: image/png";
        let file = file.replace("\\\"", "");
        let rows = [
            (body(&[FIELD]), Some("7")),
            (body(&[FIELD]).trim_end().to_string(), Some("7")),
            (body(&["content-disposition:form-data;name=\"amount\"\r\nContent-Type: text/plain\r\n\r\n7"]), Some("7")),
            (body(&[&format!("{file}\r\n\r\n\u{0}PNG\r\n\r\n-b"), FIELD]), Some("7")),
            (body(&["Content-Disposition: form-data; name=\"amount\"\r\n\r\n"]), Some("")),
            (body(&["Content-Disposition: form-data; name=\"amount\"\r\n\r\na\r\nb"]), Some("a\r\nb")),
            (body(&["Content-Disposition: form-data; name=\"amount\"; filename=\"x\"\r\n\r\n7"]), Some("(a file)")),
            (body(&["Content-Disposition: form-data; name=\"other\"\r\n\r\n7"]), None),
            (body(&[]), None),
        ];
        for (body, expected) in rows {
            assert_eq!(amount(&body), Ok(expected.map(String::from)), "{body:?}");
        }
    }

    #[test]
    fn what_two_readers_could_read_in_two_ways_is_refused() {
        let with = |change: fn(&str) -> String| body(&[&change(FIELD)]);
        #[rustfmt::skip]
        let rows = [
            ("something in front", format!("hello\r\n{}", body(&[FIELD])), "something before the first boundary"),
            ("something behind", format!("{}x", body(&[FIELD])), "the boundary within a line, or something after the last one"),
            ("bare line feeds", body(&[FIELD]).replace("\r\n", "\n"), "the boundary within a line, or something after the last one"),
            ("a boundary that goes on", body(&[FIELD]).replacen("--b\r", "--bc\r", 1), "the boundary within a line, or something after the last one"),
            ("a boundary within the text", with(|field| format!("{field}x--b")), "the boundary within a line"),
            ("no end", "--b\r\nx".to_string(), "the last boundary is missing"),
            ("the same field twice", body(&[FIELD, FIELD]), "the same field twice"),
            ("a field and a file", body(&[FIELD, &FIELD.replace("\r\n\r\n", "; filename=\"f\"\r\n\r\n")]), "a field and a file of one name"),
            ("a field in capitals beside it", body(&[FIELD, &FIELD.replace("amount", "Amount")]), "the body has a name that could be mistaken for /amount"),
            ("a file like a list", body(&[FIELD, &FIELD.replace("amount\"", "amount[]\"; filename=\"f\"")]), "the body has a name that could be mistaken for /amount"),
            ("two dispositions", with(|field| format!("Content-Disposition: form-data; name=\"x\"\r\n{field}")), "a part's header twice"),
            ("two names", with(|field| field.replace("amount\"", "x\"; name=\"amount\"")), "a part's name twice"),
            ("a name in another notation", with(|field| field.replace("name=", "name*=")), "a part's parameter other than name and filename"),
            ("a name without quotes", with(|field| field.replace('"', "")), "a part's name without quotes"),
            ("an escaped quote", with(|field| field.replace("amount", "a\\")), "a backslash in a part's name"),
            ("an escaped name", with(|field| field.replace("amount", "amoun%74")), "an escape in a part's name"),
            ("a header that goes on", with(|field| field.replace("; name", ";\r\n name")), "a part's header without a colon"),
            ("a transfer encoding", with(|field| format!("Content-Transfer-Encoding: base64\r\n{field}")), "a part's header other than Content-Disposition and Content-Type"),
            ("another character set", body(&["Content-Disposition: form-data; name=\"_charset_\"\r\n\r\nutf-16", FIELD]), "a part named _charset_"),
            ("no disposition", body(&["Content-Type: text/plain\r\n\r\n7"]), "a part without Content-Disposition"),
        ];
        for (name, body, expected) in rows {
            let problem = amount(&body).expect_err(name);
            assert_eq!(problem.rsplit(" of the body: ").next(), Some(expected), "{name}: {body:?}");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_what_is_read(
            fields in proptest::collection::btree_map("[a-z]{1,4}", "[a-z \r\n\"-]{0,12}", 0..5),
        ) {
            prop_assume!(fields.values().all(|value| !value.contains("--b")));
            let parts: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("Content-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}"))
                .collect();
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            let multipart = parse(body(&parts).as_bytes(), "b").unwrap();
            prop_assert_eq!(multipart.fields, fields);
        }

        #[test]
        fn no_bytes_make_reading_panic(bytes in "(--b|\r\n|:|;|\"|name=|Content-Disposition|form-data|x){0,24}") {
            let _ = parse(bytes.as_bytes(), "b");
        }
    }
}
