//! A shop behind an edge, alone on loopback, and what people do there whatever they do it with.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use crate::browser::{Browser, Element};
use crate::client::Client;
use crate::edge::{Edge, PASSWORD, RULES, USER, alice, free_address, service, totp_code};
use crate::level;
use crate::origin::{self, Origin};
use crate::visitor::{Answer, Visitor};

/// How the shop is called; browsers tell its origins apart by it.
pub const HOST: &str = "shop.test";

/// The running edge and what stands behind it.
#[derive(Debug)]
pub struct Shop {
    pub edge: Edge,
    pub origin: Arc<Origin>,
}

impl Shop {
    /// Opens one whose configuration `configure` writes, from the edge's and the backend's address. `None`, said aloud,
    /// where no edge can run.
    pub async fn open(configure: impl FnOnce(SocketAddr, SocketAddr) -> Result<String>) -> Result<Option<Shop>> {
        if level::is_skipped("peers", Edge::lacking()) {
            return Ok(None);
        }
        let (origin, backend) = origin::start().await?;
        let address = free_address()?;
        let text = configure(address, backend)?;
        let edge = tokio::task::spawn_blocking(move || Edge::start_at(address, &text)).await??;
        Ok(Some(Shop { edge, origin }))
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.site())
    }

    /// Host and port: whose cookies a visitor keeps for it.
    pub fn site(&self) -> String {
        format!("{HOST}:{}", self.edge.address.port())
    }

    /// Alice logs in with a tool.
    pub async fn log_in(&self) -> Result<Visitor> {
        let mut alice = Visitor::default();
        let answer = alice.post(&self.url("/.lb/login"), &[], &[("user", USER), ("password", PASSWORD)]).await?;
        ensure!(answer.status == 200, "the login is refused: {} {}", answer.status, answer.text());
        Ok(alice)
    }

    /// A client with the visitor's cookies, for what a visitor cannot do.
    pub fn client(&self, visitor: &mut Visitor) -> Client {
        let cookies = visitor.jar(&self.site()).iter().map(|(name, value)| format!("{name}={value}"));
        let cookie = cookies.collect::<Vec<_>>().join("; ");
        Client { edge: self.edge.address, authority: Some(self.site()), cookie }
    }

    /// Meets a challenge that a tool was given, with the code of `steps_ahead`. A code is accepted once.
    pub async fn prove(&self, alice: &mut Visitor, challenge: &Answer, steps_ahead: i64) -> Result<()> {
        ensure!(challenge.problem() == "step-up", "that is no challenge: {} {}", challenge.status, challenge.text());
        let json = challenge.json()?;
        let url = self.url(json["challenge_url"].as_str().context("it names no challenge_url")?);
        let answer = alice.post(&url, &[], &[("code", &totp_code(steps_ahead)?)]).await?;
        ensure!(answer.status == 200, "the code is refused: {} {}", answer.status, answer.text());
        Ok(())
    }
}

/// Everything needs a session, a refund over 500.00 a code.
pub fn usual(address: SocketAddr, backend: SocketAddr) -> Result<String> {
    Ok([&service(address, backend), &alice()?, RULES].concat())
}

/// Somebody at a real browser, and the shop.
#[derive(Debug)]
pub struct Customer {
    pub shop: Shop,
    pub browser: Browser,
}

impl Customer {
    /// See [`Shop::open`]; without `javascript` pages cannot run any.
    pub async fn enter(
        javascript: bool,
        configure: impl FnOnce(SocketAddr, SocketAddr) -> Result<String>,
    ) -> Result<Option<Customer>> {
        if level::is_skipped("browser", Browser::lacking()) {
            return Ok(None);
        }
        let Some(shop) = Shop::open(configure).await? else { return Ok(None) };
        Ok(Some(Customer { shop, browser: Browser::start(javascript).await? }))
    }

    pub fn url(&self, path: &str) -> String {
        self.shop.url(path)
    }

    pub async fn log_in(&self) -> Result<()> {
        self.browser.open(&self.url("/")).await?;
        self.browser.arrives_at("/.lb/login").await?;
        self.fill("user", USER).await?;
        self.give("password", PASSWORD).await?;
        self.browser.find("#backend").await.map(drop)
    }

    /// The field of this name.
    pub async fn field(&self, name: &str) -> Result<Element> {
        self.browser.find(&format!("input[name={name}]")).await
    }

    pub async fn fill(&self, name: &str, text: &str) -> Result<()> {
        self.browser.type_into(&self.field(name).await?, text).await
    }

    /// Fills one field and sends the form.
    pub async fn give(&self, name: &str, text: &str) -> Result<()> {
        self.fill(name, text).await?;
        self.submit().await
    }

    pub async fn submit(&self) -> Result<()> {
        self.press("form button, form input[type=submit]").await
    }

    pub async fn press(&self, selector: &str) -> Result<()> {
        self.browser.click(&self.browser.find(selector).await?).await
    }

    /// Sends the shop's form, whose amount is over the limit.
    pub async fn ask_for_refund(&self) -> Result<()> {
        self.browser.open(&self.url("/")).await?;
        self.submit().await?;
        self.browser.arrives_at("/.lb/challenge/").await
    }

    pub async fn refund_went_through_once(&self) -> Result<()> {
        self.browser.arrives_at("/refunds").await?;
        let heading = self.browser.text(&self.browser.find("h1").await?).await?;
        ensure!(heading == "Refund 1 is on its way", "the browser shows {heading:?}");
        ensure!(self.shop.origin.refunds() == 1, "{} refunds reached the backend", self.shop.origin.refunds());
        Ok(())
    }
}
