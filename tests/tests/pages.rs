//! Pages in people's languages and the operator's look; the whole program.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use lb_tests::edge::{RULES, USER, alice, service};
use lb_tests::site::{DOMAIN, Site, usual};
use lb_tests::visitor::{FORM, NAVIGATION, Visitor};
use tempfile::TempDir;

fn speaking<'a>(language: &'a str, headers: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [headers, &[("accept-language", language)]].concat()
}

#[tokio::test]
async fn people_are_asked_in_the_language_of_their_browser_and_programs_in_english() -> Result<()> {
    let Some(site) = Site::open(usual).await? else { return Ok(()) };
    let rows = [
        ("de-AT,de;q=0.9,en;q=0.5", "de", "Anmelden"),
        ("fr-CH;q=0.8, en;q=0.7", "fr", "Connexion"),
        ("en-GB", "en", "Log in"),
        ("sv, da", "en", "Log in"),
        ("", "en", "Log in"),
    ];
    for (accepted, language, heading) in rows {
        let page = Visitor::default().get(&site.url("/.lb/login"), &speaking(accepted, NAVIGATION)).await?;
        ensure!(page.text().contains(&format!("<html lang=\"{language}\">")), "{accepted}: {}", page.text());
        ensure!(page.text().contains(&format!("<h1>{heading}</h1>")), "{accepted}: {}", page.text());
        ensure!(page.header("content-language") == language, "{accepted}: {:?}", page.headers);
    }
    // All the way: a wrong password, a refusal and a challenge.
    let german = speaking("de", FORM);
    let wrong = [("user", USER), ("password", "guess")];
    let page = Visitor::default().post(&site.url("/.lb/login"), &german, &wrong).await?.text();
    ensure!(page.contains("Benutzername oder Passwort ist falsch."), "{page}");
    let mut alice = site.alice().await?;
    let answer = alice.post(&site.url("/refunds"), &german, &[("amount", "900.00")]).await?;
    let page = alice.get(&site.url(answer.header("location")), &speaking("de", NAVIGATION)).await?.text();
    ensure!(page.contains("Bestätigen Sie Ihre Identität") && page.contains("gilt dann 5 Minuten lang"), "{page}");
    let page = alice.get(&site.url("/.lb/nothing"), &speaking("fr", NAVIGATION)).await?.text();
    ensure!(page.contains("Cette page n’existe pas ici."), "{page}");
    let answer = alice.get(&site.url("/.lb/nothing"), &[("accept-language", "fr")]).await?;
    ensure!(answer.json()?["title"] == "Not found", "{}", answer.text());
    Ok(())
}

#[tokio::test]
async fn pages_wear_the_operators_name_logo_colours_and_words_and_stay_as_guarded() -> Result<()> {
    let folder = TempDir::new()?;
    let file = |name: &str| folder.path().join(name);
    std::fs::write(file("logo.svg"), "<svg xmlns='http://www.w3.org/2000/svg'/>")?;
    std::fs::write(file("texts.yaml"), "login: {en: Welcome back}\nlogin_why: {en: Sign in to see your orders.}\n")?;
    let configure = |address: SocketAddr, backend: SocketAddr| {
        let pages = format!(
            "pages:
  name: The <b>shop</b>
  logo: {}
  accent: {{light: \"#0b6e4f\", dark: \"#7bd8b5\"}}
  font: 'Georgia, serif'
  texts: {}
",
            file("logo.svg").display(),
            file("texts.yaml").display()
        );
        Ok([&service(address, backend), &alice()?, RULES, &pages].concat())
    };
    let Some(site) = Site::open(configure).await? else { return Ok(()) };
    let answer = Visitor::default().get(&site.url("/.lb/login"), NAVIGATION).await?;
    let page = answer.text();
    ensure!(page.contains("<h1>Welcome back</h1>") && page.contains("Sign in to see your orders."), "{page}");
    ensure!(page.contains("The &#60;b&#62;shop") || page.contains("The &lt;b&gt;shop"), "{page}");
    ensure!(page.contains("--accent: #0b6e4f") && page.contains("font-family: Georgia, serif"), "{page}");
    ensure!(page.contains(DOMAIN), "people must see where they are: {page}");
    let policy = answer.header("content-security-policy");
    ensure!(
        policy.starts_with("default-src 'none'; style-src 'nonce-") && policy.contains("img-src 'self';"),
        "{policy}"
    );
    ensure!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{policy}");

    let logo = Visitor::default().get(&site.url("/.lb/logo"), &[]).await?;
    ensure!(logo.status == 200 && logo.header("content-type") == "image/svg+xml", "{:?}", logo.headers);
    ensure!(logo.header("content-security-policy").contains("sandbox"), "a picture must run nothing");
    ensure!(logo.header("x-content-type-options") == "nosniff", "{:?}", logo.headers);
    Ok(())
}

#[tokio::test]
async fn a_page_without_a_logo_loads_nothing_and_a_change_of_texts_is_followed() -> Result<()> {
    let folder = TempDir::new()?;
    let texts = folder.path().join("texts.yaml");
    std::fs::write(&texts, "login: {en: Before}\n")?;
    let configure = |address: SocketAddr, backend: SocketAddr| {
        Ok([service(address, backend), alice()?, format!("pages: {{texts: {}}}\n", texts.display())].concat())
    };
    let Some(site) = Site::open(configure).await? else { return Ok(()) };
    let answer = Visitor::default().get(&site.url("/.lb/login"), NAVIGATION).await?;
    ensure!(answer.text().contains("<h1>Before</h1>"), "{}", answer.text());
    ensure!(!answer.header("content-security-policy").contains("img-src"), "{:?}", answer.headers);
    ensure!(Visitor::default().get(&site.url("/.lb/logo"), &[]).await?.status == 404);

    let aside = folder.path().join("new");
    std::fs::write(&aside, "login: {en: After}\n")?;
    std::fs::rename(&aside, &texts)?;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let answer = Visitor::default().get(&site.url("/.lb/login"), NAVIGATION).await?;
        if answer.text().contains("<h1>After</h1>") {
            return Ok(());
        }
        ensure!(std::time::Instant::now() < deadline, "still {}\n{}", answer.text(), site.edge.log());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_colour_that_cannot_be_read_is_refused_before_anybody_sees_it() -> Result<()> {
    let Some(site) = Site::open(usual).await? else { return Ok(()) };
    let folder = TempDir::new()?;
    let file = folder.path().join("lb.yaml");
    let service = service(site.edge.address, site.edge.address);
    std::fs::write(&file, [&service, "pages: {accent: {light: \"#ffcc00\"}}\n"].concat())?;
    let refused = site.edge.command(&["check", file.to_str().context("a path in UTF-8")?]).unwrap_err().to_string();
    ensure!(refused.contains("has a contrast of 1.3:1") && refused.contains("the nearest that has it is"), "{refused}");
    Ok(())
}
