//! Somebody with a cookie jar: logs in, asks for refunds, answers challenges, and counts what reached the backends.

use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::demo::account::USER;
use crate::demo::curl::{Answer, Curl};
use crate::demo::place::{BACKENDS, Host};
use crate::demo::scene::Scene;
use crate::run;

/// The rule of the demo asks for a code above 500.00.
pub(super) const OVER_THE_LIMIT: &str = r#"{"amount": 900.00}"#;
pub(super) const UNDER_THE_LIMIT: &str = r#"{"amount": 20.00}"#;

/// One session's owner.
#[derive(Clone, Copy)]
pub(super) struct Visitor {
    /// Also the name of the cookie jar.
    pub(super) name: &'static str,
    pub(super) host: Host,
    /// Source address to use, where the host has several.
    pub(super) address: Option<&'static str>,
}

impl Visitor {
    pub(super) fn at_this_machine(name: &'static str) -> Visitor {
        Visitor { name, host: Host::Machine, address: None }
    }

    pub(super) fn curl<'a>(&self, scene: &'a Scene) -> Curl<'a> {
        let curl = scene.curl(self.host).jar(self.name);
        match self.address {
            Some(address) => curl.with(&["--interface", address]),
            None => curl,
        }
    }

    pub(super) fn log_in(&self, scene: &Scene) -> Result<()> {
        let fields = [("user", USER), ("password", &scene.account.password)];
        let answer = self.curl(scene).post_form("/.lb/login", &fields)?;
        ensure!(matches!(answer.status, 200 | 303), "the login answered {}: {}", answer.status, answer.body.trim());
        Ok(())
    }

    pub(super) fn refund(&self, scene: &Scene, body: &str) -> Result<Answer> {
        self.curl(scene).post_json("/refunds", body)
    }

    /// Asks for a refund over the limit and returns the challenge that stands in its way.
    pub(super) fn meet_challenge(&self, scene: &Scene) -> Result<Challenge> {
        Challenge::of(&self.refund(scene, OVER_THE_LIMIT)?.expect_status(401)?)
    }

    /// Answers a challenge; where the edge asks for patience after failures, it is given.
    pub(super) fn answer(&self, scene: &Scene, challenge: &Challenge, code: &str) -> Result<Answer> {
        patiently(scene, || self.curl(scene).post_form(&challenge.path, &[("code", code)]))
    }
}

/// Repeats a request that is answered 429 after the time that `Retry-After` names.
pub(super) fn patiently(scene: &Scene, send: impl Fn() -> Result<Answer>) -> Result<Answer> {
    const LONGEST_WAIT_SECONDS: u64 = 20;
    loop {
        let answer = send()?;
        if answer.status != 429 {
            return Ok(answer);
        }
        let seconds: u64 = answer.header("retry-after").context("a 429 without Retry-After")?.parse()?;
        ensure!(seconds <= LONGEST_WAIT_SECONDS, "asked to wait {seconds} s");
        for _ in 0..seconds * 10 {
            scene.interrupt.check()?;
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// What a refused request is told to do.
pub(super) struct Challenge {
    pub(super) path: String,
    pub(super) problem: Value,
}

impl Challenge {
    fn of(answer: &Answer) -> Result<Challenge> {
        let problem = answer.json()?;
        let url = problem["challenge_url"].as_str().context("the problem has no challenge_url")?;
        // The edge may write the URL with or without its own origin.
        let path = url.find("/.lb/").map(|at| url[at..].to_owned()).context("challenge_url leads elsewhere")?;
        Ok(Challenge { path, problem })
    }
}

/// Refunds that reached the backends, asked of them directly.
pub(super) fn refunds(scene: &Scene) -> Result<u64> {
    let mut total = 0;
    for index in 0..BACKENDS {
        let url = format!("http://{}/refunds", scene.place.backend(index));
        let mut curl: Command = scene.place.command(Host::Backend(index), "curl");
        let text = run::output(curl.args(["-sS", "--fail", "--max-time", "5", &url]))?;
        let told: Value = serde_json::from_str(&text)?;
        total += told["count"].as_u64().with_context(|| format!("{url} told {text}"))?;
    }
    Ok(total)
}
