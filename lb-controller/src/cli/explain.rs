//! `lb-controller explain`: of the last refused request, or of one given as curl would be.

use std::net::IpAddr;
use std::path::PathBuf;

use super::output::{Paint, paint, print_json};
use crate::admin::client::{self, AskError};
use crate::clock::Clock;
use crate::explain::{Explained, Hypothetical, Required, Rule, curl};
use crate::failure::{ExitKind, Failure};
use crate::instance::Instance;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The request's URL, such as https://shop.example/refunds; without one, explains the last refused request.
    #[arg(value_name = "URL")]
    url: Option<String>,

    /// The request as a curl command: `explain --user alice -- curl -X POST https://shop.example/refunds --json '{}'`.
    #[arg(last = true, value_name = "CURL", conflicts_with_all = ["url", "id", "method", "headers", "data"])]
    curl: Vec<String>,

    /// Explain the refused request with this id (the `lb-request-id` header of its answer).
    #[arg(long, value_name = "ID", conflicts_with = "url")]
    id: Option<String>,

    /// The request's method; without it GET, or POST when there is a body.
    #[arg(short = 'X', long = "request", value_name = "METHOD", requires = "url")]
    method: Option<String>,

    /// A header, as curl takes it (repeat for several).
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", requires = "url")]
    headers: Vec<String>,

    /// The request's body.
    #[arg(short = 'd', long = "data", value_name = "BODY", requires = "url")]
    data: Option<String>,

    /// Logged in as this user, with a password just now.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,

    /// A factor and how long ago it was proved, such as totp=30s (repeat for several).
    #[arg(long = "factor", alias = "proved", value_name = "FACTOR=TIME", value_parser = proved)]
    proved: Vec<(String, u64)>,

    /// The client's address; without it 127.0.0.1.
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,

    /// A fact by the name that rules know it under, such as client.country=DE (repeat for several).
    #[arg(long = "fact", value_name = "NAME=VALUE", value_parser = fact)]
    facts: Vec<(String, String)>,

    /// The time of the request, such as 2026-11-28T14:30:00+01:00; without it now.
    #[arg(long, value_name = "TIME", value_parser = unix_seconds)]
    at: Option<u64>,

    /// Judge by this file instead of the running controller's configuration.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn proved(text: &str) -> Result<(String, u64), String> {
    let (factor, time) = text.split_once('=').ok_or("write it as FACTOR=TIME, such as totp=30s")?;
    let seconds = match time.parse() {
        Ok(seconds) => seconds,
        Err(_) => crate::config::parse_duration(time)?.as_secs(),
    };
    Ok((factor.to_owned(), seconds))
}

fn fact(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE, such as client.country=DE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn unix_seconds(text: &str) -> Result<u64, String> {
    let time = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339);
    let time = time.map_err(|_| format!("{text:?} is no time; write it as 2026-11-28T14:30:00+01:00"))?;
    u64::try_from(time.unix_timestamp()).map_err(|_| "before 1970 nothing was served".to_owned())
}

pub(super) fn run(instance: &Instance, arguments: Arguments) -> Result<(), Failure> {
    let json = arguments.json;
    let explained = explain(instance, arguments)?;
    if json {
        print_json(&explained)?;
    } else {
        print(&explained);
    }
    Ok(())
}

fn explain(instance: &Instance, arguments: Arguments) -> Result<Explained, Failure> {
    let request = if !arguments.curl.is_empty() {
        curl::parse(&arguments.curl)?
    } else {
        let Some(url) = arguments.url else { return recent(instance, arguments.id.as_deref()) };
        let (method, headers, data) = (arguments.method, arguments.headers, arguments.data);
        Hypothetical { method, url, headers, data, ..Hypothetical::default() }
    };
    let question = Hypothetical {
        user: arguments.user,
        proved: arguments.proved,
        from: arguments.from,
        facts: arguments.facts.into_iter().collect(),
        at: arguments.at,
        ..request
    };
    match arguments.config {
        Some(file) => Ok(question.explain(&super::check::load(&file)?.0, Clock::system().now())?),
        None => client::post(instance, "/v1/explain", &question).map_err(failure),
    }
}

fn recent(instance: &Instance, id: Option<&str>) -> Result<Explained, Failure> {
    let path = match id {
        Some(id) if may_be_request_id(id) => format!("/v1/explain/recent?id={id}"),
        Some(id) => {
            let why = anyhow::anyhow!("{id:?} is no request id; take it from the answer's lb-request-id header");
            return Err(why.into());
        }
        None => "/v1/explain/recent".to_owned(),
    };
    let kept: Vec<Explained> = client::get(instance, &path).map_err(failure)?;
    kept.into_iter().next().ok_or_else(|| {
        anyhow::anyhow!("no refused request is remembered{}", id.map_or(String::new(), |id| format!(" by id {id}")))
            .into()
    })
}

/// Anything else could not name a request, and must not end up in a path.
fn may_be_request_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

fn failure(error: AskError) -> Failure {
    let kind = if matches!(error, AskError::NotRunning { .. }) { ExitKind::NotRunning } else { ExitKind::Other };
    Failure::new(kind, error)
}

fn print(explained: &Explained) {
    let request = &explained.request;
    let user = request.user.as_deref().unwrap_or("nobody");
    say!("{} {}{} from {} by {user}", request.method, request.host, request.path, request.client);
    if let Some(id) = &request.id {
        say!("request     {id}");
    }
    if let Some(route) = &explained.route {
        let public = if route.public { ", public" } else { "" };
        let rewritten = route.rewritten.as_ref().map(|path| format!(", as {path}")).unwrap_or_default();
        say!("route       {} ({}{rewritten}{public})", route.route, route.leads_to);
    }
    let good = explained.decision.starts_with("allow");
    say!("decision    {}", paint(if good { Paint::Good } else { Paint::Bad }, &explained.decision));
    if !explained.methods.is_empty() {
        say!("would do    {}", explained.methods.join(" and "));
    }
    for rule in &explained.rules {
        say!("\nrule        {} ({})", paint(Paint::Bold, &rule.id), rule.matched);
        print_rule(rule);
    }
}

fn print_rule(rule: &Rule) {
    if let (Some(when), Some(result)) = (&rule.when, &rule.result) {
        say!("  when      {} is {result}", when.trim());
    }
    for fact in &rule.facts {
        say!("  fact      {} = {}", fact.name, fact.value.as_deref().unwrap_or("(missing)"));
    }
    if let Some(reason) = &rule.denied {
        say!("  denied    {reason}");
    }
    if let Some(follows) = &rule.follows {
        say!("  follows   {follows}");
    }
    if let Some(required) = &rule.required {
        say!("  required  {}", requirement(required));
        for fact in &required.shows {
            say!("  shows     {} = {}", fact.name, fact.value.as_deref().unwrap_or("(missing)"));
        }
        say!("  had       {}", had(required));
        say!("  met       {}", if required.met { paint(Paint::Good, "yes") } else { paint(Paint::Bad, "no") });
    }
}

fn requirement(required: &Required) -> String {
    let mut parts = Vec::new();
    if let Some(level) = required.level {
        parts.push(format!("level {level}"));
    }
    if !required.methods.is_empty() {
        parts.push(required.methods.join(" or "));
    }
    if let Some(seconds) = required.max_age_seconds {
        parts.push(format!("at most {seconds} s old"));
    }
    if required.per_action {
        parts.push("for this very request".to_owned());
    }
    parts.join(", ")
}

fn had(required: &Required) -> String {
    let factors: Vec<String> = required
        .had_factors
        .iter()
        .map(|factor| {
            let age = factor.age_seconds.map_or("from the future".to_owned(), |seconds| format!("{seconds} s ago"));
            let counts = if factor.counts { "" } else { ", does not count" };
            format!("{} ({age}{counts})", factor.method)
        })
        .collect();
    format!(
        "level {}: {}",
        required.had_level,
        if factors.is_empty() { "nothing".to_owned() } else { factors.join(", ") }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_as_answers_carry_it_is_taken_and_nothing_that_would_change_the_path() {
        for (text, taken) in
            [("7c11ed6bf760e3f5-2", true), ("", false), ("a&b=c", false), ("../status", false), ("a b", false)]
        {
            assert_eq!(may_be_request_id(text), taken, "{text:?}");
        }
    }
}
