//! A headless Chromium, driven over WebDriver (W3C) through Debian's chromedriver.

mod wire;

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use wire::Driver;

/// Chromium's cold start on a busy machine.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
/// How long an element may take to appear.
const APPEARS_WITHIN: Duration = Duration::from_secs(10);

/// The key under which WebDriver hands out elements (WebDriver section 12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Keys that are no characters (WebDriver section 17.4.2).
pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";

/// One browser with an empty profile. Dropping it ends it.
#[derive(Debug)]
pub struct Browser {
    driver: Driver,
    session: String,
    _process: Child,
    _profile: TempDir,
}

/// An element of the page that was open when it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element(String);

impl Browser {
    /// What this machine lacks to start one, if anything.
    pub fn lacking() -> Option<&'static str> {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let installed = |name: &str| std::env::split_paths(&folders).any(|folder| folder.join(name).is_file());
        let complete = installed("chromium") && installed("chromedriver");
        (!complete).then_some("needs Chromium and its driver; as root: cargo xtask setup --for test")
    }

    /// Starts one that takes self-signed certificates; without `javascript` pages cannot run any.
    pub async fn start(javascript: bool) -> Result<Browser> {
        let profile = TempDir::new()?;
        let mut command = Command::new("chromedriver");
        // A port of the kernel's choosing, told on standard output.
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut process = command.spawn().context("starting chromedriver (Debian: chromium-driver)")?;
        let port = timeout(STARTS_WITHIN, port_of(&mut process)).await.context("chromedriver names no port")??;
        let driver = Driver::new(port);
        let capabilities = json!({"capabilities": {"alwaysMatch": capabilities(&profile, javascript)}});
        let session = timeout(STARTS_WITHIN, driver.post("/session", &capabilities));
        let session = session.await.context("Chromium does not start")??;
        let session = session["sessionId"].as_str().context("chromedriver gave no session")?.to_owned();
        let browser = Browser { driver, session, _process: process, _profile: profile };
        browser
            .post(
                "timeouts",
                json!({"implicit": APPEARS_WITHIN.as_millis() as u64, "script": APPEARS_WITHIN.as_millis() as u64}),
            )
            .await?;
        Ok(browser)
    }

    pub async fn open(&self, url: &str) -> Result<()> {
        self.post("url", json!({ "url": url })).await.map(drop)
    }

    pub async fn url(&self) -> Result<String> {
        self.get_text("url").await
    }

    pub async fn title(&self) -> Result<String> {
        self.get_text("title").await
    }

    /// Waits until the page's address contains `part`.
    pub async fn arrives_at(&self, part: &str) -> Result<()> {
        let deadline = Instant::now() + APPEARS_WITHIN;
        loop {
            let url = self.url().await?;
            if url.contains(part) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the browser is at {url}, not at {part}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The first element that the CSS `selector` matches; waits for it.
    pub async fn find(&self, selector: &str) -> Result<Element> {
        let found = self.post("element", json!({"using": "css selector", "value": selector})).await;
        element(&found.with_context(|| format!("no {selector} on the page"))?)
    }

    /// How many elements match now.
    pub async fn count(&self, selector: &str) -> Result<usize> {
        let found = self.post("elements", json!({"using": "css selector", "value": selector})).await?;
        Ok(found.as_array().map_or(0, Vec::len))
    }

    /// What the keyboard's next key goes to.
    pub async fn focused(&self) -> Result<Element> {
        element(&self.driver.get(&self.path("element/active")).await?)
    }

    /// Types into the element, as a keyboard would.
    pub async fn type_into(&self, element: &Element, text: &str) -> Result<()> {
        self.post(&format!("element/{}/value", element.0), json!({ "text": text })).await.map(drop)
    }

    /// Presses keys one after the other, whatever they go to then; see [`TAB`] and [`ENTER`].
    pub async fn press_keys(&self, keys: &str) -> Result<()> {
        let press = |key: char| [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})];
        let keyboard: Vec<Value> = keys.chars().flat_map(press).collect();
        let actions = json!({"actions": [{"type": "key", "id": "keyboard", "actions": keyboard}]});
        self.post("actions", actions).await.map(drop)
    }

    pub async fn click(&self, element: &Element) -> Result<()> {
        self.post(&format!("element/{}/click", element.0), json!({})).await.map(drop)
    }

    pub async fn text(&self, element: &Element) -> Result<String> {
        self.get_text(&format!("element/{}/text", element.0)).await
    }

    /// The attribute as written in the page; empty when it is not there.
    pub async fn attribute(&self, element: &Element, name: &str) -> Result<String> {
        let value = self.driver.get(&self.path(&format!("element/{}/attribute/{name}", element.0))).await?;
        Ok(value.as_str().unwrap_or_default().to_owned())
    }

    /// What a screen reader calls the element, as the browser itself computes it.
    pub async fn accessible_name(&self, element: &Element) -> Result<String> {
        self.get_text(&format!("element/{}/computedlabel", element.0)).await
    }

    /// Runs a script in the page, whose last argument is a function to be called with the outcome.
    pub async fn run(&self, script: &str) -> Result<Value> {
        self.post("execute/async", json!({"script": script, "args": []})).await
    }

    /// Gives the browser a device of its own for passkeys, whose user is always there and willing (WebDriver extension of
    /// WebAuthn L3 §11).
    pub async fn add_authenticator(&self) -> Result<()> {
        let device = json!({
            "protocol": "ctap2",
            "transport": "internal",
            "hasResidentKey": true,
            "hasUserVerification": true,
            "isUserConsenting": true,
            "isUserVerified": true,
        });
        self.post("webauthn/authenticator", device).await.map(drop)
    }

    /// Everything from now on happens in the window that opened last; waits for one that is not `known`. Returns it.
    pub async fn enter_new_window(&self, known: &[String]) -> Result<String> {
        let deadline = Instant::now() + APPEARS_WITHIN;
        loop {
            if let Some(new) = self.windows().await?.into_iter().find(|window| !known.contains(window)) {
                self.enter_window(&new).await?;
                return Ok(new);
            }
            ensure!(Instant::now() < deadline, "no window opened");
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn enter_window(&self, window: &str) -> Result<()> {
        self.post("window", json!({ "handle": window })).await.map(drop)
    }

    /// All that are open.
    pub async fn windows(&self) -> Result<Vec<String>> {
        let handles = self.driver.get(&self.path("window/handles")).await?;
        Ok(serde_json::from_value(handles)?)
    }

    async fn get_text(&self, what: &str) -> Result<String> {
        let value = self.driver.get(&self.path(what)).await?;
        Ok(value.as_str().with_context(|| format!("{what} is no text: {value}"))?.to_owned())
    }

    async fn post(&self, what: &str, value: Value) -> Result<Value> {
        self.driver.post(&self.path(what), &value).await
    }

    fn path(&self, what: &str) -> String {
        format!("/session/{}/{what}", self.session)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Killing the driver alone would leave Chromium running; told to end the session, it takes Chromium along.
        self.driver.end_session_blocking(&self.session);
    }
}

fn capabilities(profile: &TempDir, javascript: bool) -> Value {
    let profile = format!("--user-data-dir={}", profile.path().display());
    let mut arguments = vec!["--headless", "--disable-gpu", "--disable-quic", "--no-first-run", &profile];
    arguments.extend(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    arguments.extend(["--ignore-certificate-errors", "--disable-dev-shm-usage"]);
    // Names of one site, for what depends on origins and sites.
    arguments.push("--host-resolver-rules=MAP shop.test 127.0.0.1,MAP *.shop.test 127.0.0.1");
    if nix::unistd::geteuid().is_root() {
        // Chromium's sandbox refuses root; what is opened here is our own.
        arguments.push("--no-sandbox");
    }
    const BLOCK: u8 = 2;
    let preferences = match javascript {
        true => json!({}),
        false => json!({"profile.managed_default_content_settings.javascript": BLOCK}),
    };
    json!({
        "browserName": "chrome",
        "acceptInsecureCerts": true,
        "goog:chromeOptions": {"args": arguments, "prefs": preferences},
    })
}

/// chromedriver says `… was started successfully on port 40123.`
async fn port_of(process: &mut Child) -> Result<u16> {
    let output = process.stdout.take().context("a pipe was asked for")?;
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await? {
        let words = line.trim_end_matches('.').rsplit(' ').next().unwrap_or_default();
        if let (true, Ok(port)) = (line.contains("started successfully"), words.parse()) {
            // It goes on writing; a closed pipe would end it.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(port);
        }
    }
    anyhow::bail!("chromedriver ended before it listened")
}

fn element(value: &Value) -> Result<Element> {
    Ok(Element(value[ELEMENT].as_str().with_context(|| format!("no element: {value}"))?.to_owned()))
}
