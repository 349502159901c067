//! What alice proves herself with: enrolled at a site by an operator's token, and then used, rightly or wrongly.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::authenticator::Authenticator;
use crate::edge::totp_code_of_text;
use crate::puzzle::Puzzle;
use crate::site::Site;
use crate::ssh_key::SshKey;
use crate::visitor::{Answer, Visitor};

pub const PIN: &str = "271828";

/// Her factors at one site; those that are sent or verified elsewhere are the test's own.
#[derive(Debug, Default)]
pub struct Prover {
    app: Option<String>,
    codes: Vec<String>,
    key: Option<SshKey>,
    pub device: Option<Authenticator>,
}

impl Prover {
    /// Enrols each of `methods`.
    pub async fn enrol(site: &Site, alice: &mut Visitor, methods: &[&str]) -> Result<Prover> {
        let mut prover = Prover::default();
        for method in methods {
            match *method {
                "totp" => {
                    site.permit_enrolment(alice).await?;
                    let url = site.url("/.lb/factors/add/totp");
                    let shown = alice.get(&url, &[]).await?.json()?;
                    let secret = shown["secret"].as_str().context("no secret")?.to_owned();
                    let code = totp_code_of_text(&secret, 0)?;
                    let added = alice.post(&url, &[], &[("answer", &code)]).await?;
                    ensure!(added.status == 201, "{}: {}", added.status, added.text());
                    prover.app = Some(secret);
                }
                "pin" => drop(site.enrol(alice, "pin", &[("answer", PIN), ("again", PIN)]).await?),
                "recovery" => {
                    let told = site.enrol(alice, "recovery", &[]).await?;
                    let codes = told["codes"].as_array().context("no codes")?.iter();
                    prover.codes = codes.filter_map(|code| code.as_str().map(str::to_owned)).collect();
                }
                "devkey" => {
                    let key = SshKey::new()?;
                    site.enrol(alice, "devkey", &[("answer", &key.public)]).await?;
                    prover.key = Some(key);
                }
                "webauthn" => prover.device = Some(site.enrol_passkey(alice).await?),
                // They need no enrolment.
                "pow" | "email" | "sms" | "external" => {}
                other => anyhow::bail!("nothing here enrols {other}"),
            }
        }
        Ok(prover)
    }

    /// What answers `ask`, as the edge describes it to tools; or something that looks like it.
    pub fn answer(&self, ask: &Value, is_right: bool) -> Result<String> {
        let method = ask["method"].as_str().context("no method")?;
        Ok(match (method, is_right) {
            // A step ahead of the one that was used to enrol.
            ("totp", true) => totp_code_of_text(self.app.as_deref().context("no app")?, 1)?,
            ("totp", false) => "000000".to_owned(),
            ("pin", true) => PIN.to_owned(),
            ("pin", false) => "271829".to_owned(),
            ("recovery", true) => self.codes.first().context("no codes")?.clone(),
            ("recovery", false) => "AAAA-AAAA-AAAA-AAAA".to_owned(),
            ("devkey", is_right) => {
                let text = ask["text"].as_str().context("no text")?.to_owned();
                let text = if is_right { text } else { format!("{text}and more\n") };
                self.key.as_ref().context("no key")?.sign(&text)?
            }
            ("webauthn", is_right) => {
                let device = self.device.as_ref().context("no device")?;
                let mut said = device.truth(&ask["publicKey"])?;
                if !is_right {
                    said.origin = "https://evil.test".to_owned();
                }
                device.get(&said)?
            }
            ("pow", true) => Puzzle::read(ask)?.solve(),
            ("pow", false) => Puzzle::read(ask)?.guess_wrong(),
            (other, _) => anyhow::bail!("nothing here answers {other}"),
        })
    }

    /// Answers a challenge by `method`.
    pub async fn prove(
        &self,
        site: &Site,
        alice: &mut Visitor,
        challenge: &str,
        method: &str,
        is_right: bool,
    ) -> Result<Answer> {
        let ask = site.ask(alice, challenge, method).await?;
        let field = ask["field"].as_str().context("no field")?.to_owned();
        let answer = self.answer(&ask, is_right)?;
        alice.post(challenge, &[], &[(&field, &answer)]).await
    }
}
