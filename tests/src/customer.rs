//! Somebody at a real browser, and the site they visit.

use std::net::SocketAddr;

use anyhow::{Result, ensure};

use crate::browser::{Browser, Element};
use crate::edge::{PASSWORD, USER};
use crate::level;
use crate::site::Site;

/// Somebody at a real browser, and the site.
#[derive(Debug)]
pub struct Customer {
    pub site: Site,
    pub browser: Browser,
}

impl Customer {
    /// See [`Site::open`]; without `javascript` pages cannot run any.
    pub async fn enter(
        javascript: bool,
        configure: impl FnOnce(SocketAddr, SocketAddr) -> Result<String>,
    ) -> Result<Option<Customer>> {
        if level::is_skipped("browser", Browser::lacking()) {
            return Ok(None);
        }
        let Some(site) = Site::open(configure).await? else { return Ok(None) };
        Ok(Some(Customer { site, browser: Browser::start(javascript).await? }))
    }

    pub fn url(&self, path: &str) -> String {
        self.site.url(path)
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
        ensure!(self.site.origin.refunds() == 1, "{} refunds reached the backend", self.site.origin.refunds());
        Ok(())
    }
}
