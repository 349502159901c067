//! A request as the arguments of a `curl` command: copied from a terminal, or from a browser's developer tools.

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Hypothetical;

/// What changes how curl behaves and not what it asks for.
const IGNORED: &[&str] = &[
    "--compressed",
    "--fail",
    "--fail-with-body",
    "--globoff",
    "--http1.1",
    "--http2",
    "--include",
    "--insecure",
    "--ipv4",
    "--ipv6",
    "--location",
    "--no-buffer",
    "--path-as-is",
    "--show-error",
    "--silent",
    "--verbose",
];
/// Their short forms, which may be written together: `-sk`.
const IGNORED_SHORT: &str = "fgiNkLsSv46";
/// Likewise, with a value that is left out as well.
const IGNORED_WITH_VALUE: &[&str] = &[
    "-o",
    "--output",
    "-w",
    "--write-out",
    "-m",
    "--max-time",
    "--connect-timeout",
    "-c",
    "--cookie-jar",
    "--resolve",
];

/// Puts a request together from curl's arguments, `curl` itself in front or not.
pub fn parse(arguments: &[String]) -> Result<Hypothetical> {
    let mut parser = Parser::default();
    let mut words = arguments.iter().map(String::as_str).peekable();
    words.next_if_eq(&"curl");
    while let Some(word) = words.next() {
        parser.take(word, &mut words)?;
    }
    parser.finish()
}

/// As [`parse`], of a line as a shell would take it.
pub fn parse_line(line: &str) -> Result<Hypothetical> {
    parse(&shlex::split(line).context("a quote in the curl command is not closed")?)
}

#[derive(Default)]
struct Parser {
    request: Hypothetical,
    data: Vec<String>,
    fields: Vec<String>,
    is_json: bool,
    as_query: bool,
    is_head: bool,
}

impl Parser {
    fn take<'w>(&mut self, word: &'w str, words: &mut impl Iterator<Item = &'w str>) -> Result<()> {
        if !word.starts_with('-') || word == "-" {
            return self.url(word);
        }
        let (name, attached) = name_and_value(word);
        if IGNORED.contains(&word) || is_ignored_short(word) {
            return Ok(());
        }
        let mut value = || {
            let value = attached.or_else(|| words.next());
            value.with_context(|| format!("curl's {name} wants a value"))
        };
        match name {
            _ if IGNORED_WITH_VALUE.contains(&name) => drop(value()?),
            "-X" | "--request" => self.request.method = Some(value()?.to_owned()),
            "-H" | "--header" => self.request.headers.push(value()?.to_owned()),
            "-A" | "--user-agent" => self.header("User-Agent", value()?),
            "-e" | "--referer" => self.header("Referer", value()?),
            "-b" | "--cookie" => self.header("Cookie", value()?),
            "-u" | "--user" => {
                let credentials = format!("Basic {}", STANDARD.encode(value()?));
                self.header("Authorization", &credentials);
            }
            "--oauth2-bearer" => {
                let token = format!("Bearer {}", value()?);
                self.header("Authorization", &token);
            }
            "-d" | "--data" | "--data-ascii" | "--data-raw" | "--data-binary" => self.datum(name, value()?)?,
            "--data-urlencode" => {
                let value = value()?;
                let (field, text) = value.split_once('=').unwrap_or(("", value));
                let separator = if field.is_empty() { "" } else { "=" };
                self.data.push(format!("{field}{separator}{}", escaped(text)));
            }
            "--json" => {
                self.is_json = true;
                self.datum(name, value()?)?;
            }
            "-F" | "--form" | "--form-string" => self.fields.push(value()?.to_owned()),
            "-G" | "--get" => self.as_query = true,
            "-I" | "--head" => self.is_head = true,
            "--url" => self.url(value()?)?,
            _ => bail!("curl's {name} is not understood here; leave it out if it does not change the request"),
        }
        Ok(())
    }

    fn url(&mut self, url: &str) -> Result<()> {
        ensure!(self.request.url.is_empty(), "one URL is explained at a time; {url:?} is a second one");
        // As curl does, but over the only scheme that is served.
        self.request.url = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
        Ok(())
    }

    fn header(&mut self, name: &str, value: &str) {
        self.request.headers.push(format!("{name}: {value}"));
    }

    fn datum(&mut self, name: &str, value: &str) -> Result<()> {
        let is_file = name != "--data-raw" && value.starts_with('@');
        let text = match value.strip_prefix('@').filter(|_| is_file) {
            Some(file) => std::fs::read_to_string(file).with_context(|| format!("curl's {name} {value}"))?,
            None => value.to_owned(),
        };
        self.data.push(text);
        Ok(())
    }

    fn finish(mut self) -> Result<Hypothetical> {
        ensure!(!self.request.url.is_empty(), "the curl command names no URL");
        ensure!(self.fields.is_empty() || self.data.is_empty(), "curl sends either --form or --data");
        let has_type =
            self.request.headers.iter().any(|line| {
                line.split_once(':').is_some_and(|(name, _)| name.trim().eq_ignore_ascii_case("content-type"))
            });
        let joined = self.data.join(if self.is_json { "" } else { "&" });
        if self.as_query && !self.data.is_empty() {
            let separator = if self.request.url.contains('?') { '&' } else { '?' };
            self.request.url.extend([separator.to_string(), joined]);
        } else if !self.data.is_empty() {
            if !has_type {
                let kind = if self.is_json { "application/json" } else { "application/x-www-form-urlencoded" };
                // A bare `-d '{…}'` means JSON: whoever explains a rule should not have to spell the header.
                let looks_like_json = joined.trim_start().starts_with('{');
                self.header("Content-Type", if looks_like_json { "application/json" } else { kind });
            }
            self.request.data = Some(joined);
        } else if !self.fields.is_empty() {
            self.header("Content-Type", &format!("multipart/form-data; boundary={BOUNDARY}"));
            self.request.data = Some(multipart(&self.fields)?);
        }
        if self.is_head && self.request.method.is_none() {
            self.request.method = Some("HEAD".to_owned());
        }
        Ok(self.request)
    }
}

const BOUNDARY: &str = "------------------------lb-explain";

fn multipart(fields: &[String]) -> Result<String> {
    let mut body = String::new();
    for field in fields {
        let (name, value) = field.split_once('=').with_context(|| format!("curl's --form {field:?} lacks a `=`"))?;
        let file = value.strip_prefix('@').map(|file| format!("; filename={file:?}")).unwrap_or_default();
        body.push_str(&format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n"
        ));
    }
    Ok(body + &format!("--{BOUNDARY}--\r\n"))
}

/// `--name=value` is not curl's, `-Xvalue` is.
fn name_and_value(word: &str) -> (&str, Option<&str>) {
    if word.starts_with("--") || word.len() == 2 || !word.is_char_boundary(2) {
        return (word, None);
    }
    let (name, value) = word.split_at(2);
    (name, Some(value))
}

fn is_ignored_short(word: &str) -> bool {
    !word.starts_with("--") && word[1..].chars().all(|letter| IGNORED_SHORT.contains(letter))
}

fn escaped(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.as_bytes()
        .iter()
        .map(|byte| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curl_command_is_the_request_that_curl_would_send() {
        // command, then method, URL, headers, data
        type Row<'a> = (&'a str, Option<&'a str>, &'a str, &'a [&'a str], Option<&'a str>);
        let rows: &[Row<'_>] = &[
            ("curl https://h/a", None, "https://h/a", &[], None),
            ("curl -sk -i h/a", None, "https://h/a", &[], None),
            ("https://h/a -XDELETE", Some("DELETE"), "https://h/a", &[], None),
            (
                "curl -X POST https://h/r --json '{\"amount\":900}'",
                Some("POST"),
                "https://h/r",
                &["Content-Type: application/json"],
                Some("{\"amount\":900}"),
            ),
            (
                "curl https://h/r -d a=1 -d 'b=2 3'",
                None,
                "https://h/r",
                &["Content-Type: application/x-www-form-urlencoded"],
                Some("a=1&b=2 3"),
            ),
            ("curl https://h/r -d '{}'", None, "https://h/r", &["Content-Type: application/json"], Some("{}")),
            (
                "curl https://h/r -H 'content-type: text/plain' --data-raw @x",
                None,
                "https://h/r",
                &["content-type: text/plain"],
                Some("@x"),
            ),
            ("curl -G https://h/r?x=1 --data-urlencode 'q=a b&c'", None, "https://h/r?x=1&q=a%20b%26c", &[], None),
            ("curl -I https://h/", Some("HEAD"), "https://h/", &[], None),
            (
                "curl -u alice:secret -A agent -b 'a=b' https://h/",
                None,
                "https://h/",
                &["Authorization: Basic YWxpY2U6c2VjcmV0", "User-Agent: agent", "Cookie: a=b"],
                None,
            ),
            ("curl --oauth2-bearer t --url https://h/", None, "https://h/", &["Authorization: Bearer t"], None),
        ];
        for (line, method, url, headers, data) in rows {
            let request = parse_line(line).unwrap_or_else(|error| panic!("{line}: {error:#}"));
            assert_eq!(request.method.as_deref(), *method, "{line}");
            assert_eq!((request.url.as_str(), request.data.as_deref()), (*url, *data), "{line}");
            assert_eq!(request.headers, *headers, "{line}");
        }
        let form = parse_line("curl https://h/ -F amount=7 -F file=@photo.png").unwrap();
        let data = form.data.unwrap();
        assert!(data.contains("name=\"amount\"\r\n\r\n7\r\n") && data.contains("filename=\"photo.png\""), "{data}");
    }

    #[test]
    fn what_would_be_guessed_is_refused() {
        let rows = [
            ("curl", "the curl command names no URL"),
            ("curl https://h/ https://i/", "one URL is explained at a time; \"https://i/\" is a second one"),
            ("curl https://h/ -X", "curl's -X wants a value"),
            (
                "curl https://h/ --proxy p",
                "curl's --proxy is not understood here; leave it out if it does not change the request",
            ),
            ("curl https://h/ -d a -F b=c", "curl sends either --form or --data"),
            ("curl 'https://h/", "a quote in the curl command is not closed"),
        ];
        for (line, expected) in rows {
            assert_eq!(parse_line(line).expect_err(line).to_string(), expected, "{line}");
        }
    }
}
