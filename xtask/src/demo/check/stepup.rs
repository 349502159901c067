//! Point 5: log in, browse, meet a challenge, pass it, and nothing happens twice.

use anyhow::{Context, Result, bail, ensure};

use super::Step;
use super::visitor::{OVER_THE_LIMIT, UNDER_THE_LIMIT, Visitor, patiently, refunds};
use crate::demo::account::USER;
use crate::demo::place::Host;
use crate::demo::scene::Scene;

pub(super) const STEPS: &[Step] = &[
    Step {
        number: "5.1",
        sentence: "without a session a browser is sent to the login page, a program gets 401",
        run: anonymous,
    },
    Step { number: "5.2", sentence: "a wrong password is refused", run: wrong_password },
    Step {
        number: "5.3",
        sentence: "after the login alice browses freely and a small refund asks nothing",
        run: browse,
    },
    Step {
        number: "5.4",
        sentence: "a refund over the limit gets 401 as RFC 9470 and RFC 9457 say, and goes no further",
        run: challenged,
    },
    Step { number: "5.5", sentence: "a wrong code and a stale code are refused", run: wrong_codes },
    Step {
        number: "5.6",
        sentence: "after the right code the refund passes, and the backend sees level and factor times",
        run: right_code,
    },
    Step { number: "5.7", sentence: "a second refund inside max_age asks nothing", run: inside_max_age },
    Step { number: "5.8", sentence: "a code that was used is refused in another session", run: replayed_code },
    Step { number: "5.9", sentence: "a browser's own POST goes on after the code, once", run: browser_resumes },
];

fn alice() -> Visitor {
    Visitor::at_this_machine("alice")
}

fn anonymous(scene: &mut Scene) -> Result<()> {
    let browser = scene.curl(Host::Machine).like_a_browser().get("/account")?.expect_status(303)?;
    let location = browser.header("location").unwrap_or_default();
    ensure!(location.contains("/.lb/login"), "the browser was sent to {location:?}");
    scene.curl(Host::Machine).get(&location[location.find("/.lb/").unwrap_or(0)..])?.expect_status(200)?;
    scene.curl(Host::Machine).get("/account")?.expect_status(401)?;
    Ok(())
}

fn wrong_password(scene: &mut Scene) -> Result<()> {
    let stranger = Visitor::at_this_machine("stranger");
    let answer = stranger.curl(scene).post_form("/.lb/login", &[("user", USER), ("password", "guess")])?;
    ensure!((400..500).contains(&answer.status), "a wrong password was answered {}", answer.status);
    stranger.curl(scene).get("/account")?.expect_status(401)?;
    Ok(())
}

fn browse(scene: &mut Scene) -> Result<()> {
    alice().log_in(scene)?;
    for path in ["/account", "/orders?page=2", "/", "/orders/17"] {
        alice().curl(scene).get(path)?.expect_status(200)?;
    }
    alice().refund(scene, UNDER_THE_LIMIT)?.expect_status(201)?;
    Ok(())
}

fn challenged(scene: &mut Scene) -> Result<()> {
    let before = refunds(scene)?;
    let answer = alice().refund(scene, OVER_THE_LIMIT)?.expect_status(401)?;
    let header = answer.header("www-authenticate").context("no WWW-Authenticate")?;
    for part in ["Bearer", "error=\"insufficient_user_authentication\"", "acr_values=\"urn:lb:acr:2\"", "max_age="] {
        ensure!(header.contains(part), "WWW-Authenticate lacks {part}: {header}");
    }
    let content_type = answer.header("content-type").unwrap_or_default();
    ensure!(content_type.starts_with("application/problem+json"), "the content type is {content_type}");
    let problem = answer.json()?;
    ensure!(problem["type"] == "urn:lb:problem:step-up" && problem["status"] == 401, "{problem}");
    ensure!(problem["methods"].to_string().contains("totp"), "the problem names no method: {problem}");
    ensure!(refunds(scene)? == before, "the refused refund reached a backend");
    Ok(())
}

fn wrong_codes(scene: &mut Scene) -> Result<()> {
    let before = refunds(scene)?;
    let challenge = alice().meet_challenge(scene)?;
    for code in [scene.account.wrong_code(), scene.account.stale_code()] {
        let answer = alice().answer(scene, &challenge, &code)?;
        ensure!((400..500).contains(&answer.status), "a code that is none was answered {}", answer.status);
    }
    alice().refund(scene, OVER_THE_LIMIT)?.expect_status(401)?;
    ensure!(refunds(scene)? == before, "a refused refund reached a backend");
    Ok(())
}

fn right_code(scene: &mut Scene) -> Result<()> {
    let before = refunds(scene)?;
    let challenge = alice().meet_challenge(scene)?;
    ensure!(challenge.problem["expires_in"].as_u64().is_some(), "no expires_in: {}", challenge.problem);
    let code = scene.account.fresh_code();
    let answer = alice().answer(scene, &challenge, &code)?;
    ensure!(matches!(answer.status, 200 | 303), "the right code was answered {}: {}", answer.status, answer.body);
    let refunded = alice().refund(scene, OVER_THE_LIMIT)?.expect_status(201)?.json()?;
    ensure!(refunds(scene)? == before + 1, "{} refunds reached the backends, not 1", refunds(scene)? - before);
    let claims = &refunded["assertion"];
    ensure!(claims["sub"] == USER && claims["acr"] == "urn:lb:acr:2", "the assertion says {claims}");
    ensure!(claims["amr"].to_string().contains("otp"), "the assertion names no TOTP: {claims}");
    for factor in ["pwd", "otp"] {
        ensure!(
            claims["factor_times"][factor].is_u64(),
            "the assertion does not say when {factor} was proved: {claims}"
        );
    }
    let keys = scene.curl(Host::Machine).get("/.lb/jwks.json")?.expect_status(200)?.json()?;
    ensure!(keys["keys"][0]["alg"] == "ES256" || keys["keys"][0]["crv"] == "P-256", "the JWKS holds {keys}");
    Ok(())
}

fn inside_max_age(scene: &mut Scene) -> Result<()> {
    alice().refund(scene, OVER_THE_LIMIT)?.expect_status(201)?;
    Ok(())
}

fn replayed_code(scene: &mut Scene) -> Result<()> {
    let thief = Visitor::at_this_machine("thief");
    thief.log_in(scene)?;
    let challenge = thief.meet_challenge(scene)?;
    let answer = thief.answer(scene, &challenge, &scene.account.last_code())?;
    ensure!((400..500).contains(&answer.status), "a used code was answered {}", answer.status);
    thief.refund(scene, OVER_THE_LIMIT)?.expect_status(401)?;
    Ok(())
}

fn browser_resumes(scene: &mut Scene) -> Result<()> {
    let browser = Visitor::at_this_machine("browser");
    browser.log_in(scene)?;
    let before = refunds(scene)?;
    let sent =
        browser.curl(scene).like_a_browser().post_form("/refunds", &[("amount", "900.00")])?.expect_status(303)?;
    let location = sent.header("location").context("a 303 without Location")?;
    let challenge = location[location.find("/.lb/challenge/").context("the 303 leads elsewhere")?..].to_owned();
    let page = browser.curl(scene).like_a_browser().get(&challenge)?.expect_status(200)?;
    ensure!(page.body.contains("name=\"code\""), "the challenge page has no field for a code");
    let code = scene.account.fresh_code();
    let send_code = || browser.curl(scene).like_a_browser().post_form(&challenge, &[("code", &code)]);
    let mut answer = patiently(scene, send_code)?;
    if answer.status == 303 {
        let next = answer.header("location").context("a 303 without Location")?.to_owned();
        let next = next.find("/.lb/").map_or(next.clone(), |at| next[at..].to_owned());
        answer = browser.curl(scene).like_a_browser().get(&next)?;
    }
    let form = Form::of(&answer.expect_status(200)?.body)?;
    ensure!(refunds(scene)? == before, "the refund reached a backend before the browser sent it on");
    let fields: Vec<_> = form.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    browser.curl(scene).like_a_browser().post_form(&form.action, &fields)?.expect_status(201)?;
    ensure!(refunds(scene)? == before + 1, "{} refunds reached the backends, not 1", refunds(scene)? - before);
    // The browser's back button, or an impatient second click.
    let again = browser.curl(scene).like_a_browser().post_form(&form.action, &fields)?;
    ensure!(again.status != 201, "the parked refund was sent a second time");
    ensure!(refunds(scene)? == before + 1, "the parked refund reached a backend a second time");
    Ok(())
}

/// The form of the page that lets the original request go on.
struct Form {
    action: String,
    fields: Vec<(String, String)>,
}

impl Form {
    fn of(page: &str) -> Result<Form> {
        let Some((_, form)) = page.split_once("<form") else { bail!("no form to go on with: {page}") };
        let form = form.split("</form").next().unwrap_or_default();
        let action = attribute(form, "action").context("the form has no action")?;
        let inputs = form.split("<input").skip(1);
        let fields = inputs.filter_map(|input| {
            let tag = input.split('>').next().unwrap_or_default();
            Some((attribute(tag, "name")?, attribute(tag, "value").unwrap_or_default()))
        });
        Ok(Form { action, fields: fields.collect() })
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let value = tag.split_once(&format!("{name}=\""))?.1.split('"').next()?;
    Some(value.replace("&amp;", "&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_as_the_browser_would_send_it() {
        let page = r#"<p>x<form method="post" action="/refunds?a=1&amp;b=2"><input type="hidden" name="tx" value="7Q">
            <button>Go on</button></form>"#;
        let form = Form::of(page).unwrap();
        assert_eq!(form.action, "/refunds?a=1&b=2");
        assert_eq!(form.fields, [("tx".to_owned(), "7Q".to_owned())]);
    }
}
