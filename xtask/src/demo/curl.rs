//! curl, as a user would call it, and what it got.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::place::{Host, Place};
use super::scene::Scene;

/// No answer of the scene takes longer; what does is a failure.
const SECONDS_AT_MOST: &str = "8";

/// One request in the making.
pub(crate) struct Curl<'a> {
    scene: &'a Scene,
    host: Host,
    edge: std::net::SocketAddr,
    arguments: Vec<String>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `1.1` or `2`.
    pub(crate) http_version: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl<'a> Curl<'a> {
    pub(super) fn new(scene: &'a Scene, host: Host) -> Curl<'a> {
        Curl { scene, host, edge: scene.place.edge(), arguments: Vec::new() }
    }

    /// To the edge's other address.
    pub(crate) fn to(mut self, edge: std::net::SocketAddr) -> Curl<'a> {
        self.edge = edge;
        self
    }

    /// More of curl's own arguments.
    pub(crate) fn with(mut self, arguments: &[&str]) -> Curl<'a> {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// Cookies are read from and written to the named jar.
    pub(crate) fn jar(self, name: &str) -> Curl<'a> {
        let file = self.scene.home.join(format!("{name}.cookies")).display().to_string();
        self.with(&["--cookie", &file, "--cookie-jar", &file])
    }

    /// Looks like a browser following a link or sending a form, as far as a server can tell.
    pub(crate) fn like_a_browser(self) -> Curl<'a> {
        let origin = Place::url(self.edge, "");
        self.with(&["--header", "accept: text/html,application/xhtml+xml", "--header", "sec-fetch-mode: navigate"])
            .with(&["--header", "sec-fetch-site: same-origin", "--header", &format!("origin: {origin}")])
    }

    pub(crate) fn get(self, path: &str) -> Result<Answer> {
        self.send(path)
    }

    /// POSTs `application/x-www-form-urlencoded` fields, encoded by curl.
    pub(crate) fn post_form(self, path: &str, fields: &[(&str, &str)]) -> Result<Answer> {
        let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut curl = self;
        for field in &fields {
            curl = curl.with(&["--data-urlencode", field]);
        }
        curl.send(path)
    }

    pub(crate) fn post_json(self, path: &str, body: &str) -> Result<Answer> {
        self.with(&["--header", "content-type: application/json", "--data-binary", body]).send(path)
    }

    /// The command without running it.
    pub(crate) fn command(&self, path: &str) -> Command {
        let mut curl = self.scene.place.command(self.host, "curl");
        // The demo's certificate is self-signed; that it names the VIP is checked in a step of its own.
        curl.args(["--silent", "--show-error", "--insecure", "--include", "--max-time", SECONDS_AT_MOST]);
        // Errors and facts go to standard error, so that standard output is the response and nothing else.
        curl.args(["--write-out", "%{stderr}%{json}"]);
        curl.args(&self.arguments).arg(Place::url(self.edge, path));
        curl
    }

    fn send(self, path: &str) -> Result<Answer> {
        let output = self.command(path).output().context("curl could not be started")?;
        let told = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            // The facts follow curl's own sentence.
            bail!("{path}: {}", told.split("\n{").next().unwrap_or_default().trim());
        }
        let facts: Value = serde_json::from_str(told.trim()).with_context(|| format!("curl's facts: {told}"))?;
        Answer::parse(&String::from_utf8_lossy(&output.stdout), &facts)
    }
}

impl Answer {
    fn parse(text: &str, facts: &Value) -> Result<Answer> {
        let (mut head, mut body) = split_head(text)?;
        // Interim responses, such as 100 Continue, come before the one that counts.
        while head.split(' ').nth(1).is_some_and(|status| status.starts_with('1') && status != "101") {
            (head, body) = split_head(body)?;
        }
        let headers = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        Ok(Answer {
            status: facts["http_code"].as_u64().context("curl told no status")? as u16,
            http_version: facts["http_version"].as_str().unwrap_or_default().to_owned(),
            headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect(),
            body: body.to_owned(),
        })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("no JSON: {}", self.body))
    }

    pub(crate) fn expect_status(self, status: u16) -> Result<Answer> {
        ensure!(self.status == status, "expected {status}, got {}: {}", self.status, self.body.trim());
        Ok(self)
    }
}

fn split_head(text: &str) -> Result<(&str, &str)> {
    text.split_once("\r\n\r\n").with_context(|| format!("no end of the response's head: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_response_that_counts_is_the_one_after_the_interim_ones() {
        let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nX-Name:  value \r\n\r\nbody\r\n\r\nmore";
        let facts = serde_json::json!({"http_code": 201, "http_version": "1.1"});
        let answer = Answer::parse(text, &facts).unwrap();
        assert_eq!((answer.status, answer.header("x-name")), (201, Some("value")));
        assert_eq!(answer.body, "body\r\n\r\nmore");
    }
}
