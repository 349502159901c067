//! Attacks on factors, codes and sessions, each against the running program.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::{Context, Result, ensure};
use lb_tests::authenticator::{Authenticator, PRESENT, Said, VERIFIED};
use lb_tests::edge::{PASSWORD, USER, totp_code};
use lb_tests::mail_sink::MailSink;
use lb_tests::prover::{PIN, Prover};
use lb_tests::site::{DOMAIN, Plan, Site};
use lb_tests::visitor::{Answer, Visitor};
use serde_json::{Value, json};

const BOB: &str = "  - name: bob\n    password_hash: {password_hash}\n";
const REFUND: &str = r#"{"amount": 900}"#;

/// Each refund takes one of `methods`.
fn plan(methods: &str, more: &str) -> Plan {
    Plan::of(&format!(
        "{more}\nrules: [{{id: refund, match: {{methods: [POST], paths: [/refunds]}}, require: {{methods: [{methods}], per_action: true}}}}]\n"
    ))
}

async fn refund(site: &Site, visitor: &mut Visitor) -> Result<Answer> {
    site.send_json(visitor, "POST", "/refunds", REFUND).await
}

/// A login of alice's whose refund waits for a proof, and where to give it.
async fn challenged(site: &Site) -> Result<(Visitor, String)> {
    let mut alice = site.alice().await?;
    let challenge = site.challenge_url(&refund(site, &mut alice).await?)?;
    Ok((alice, challenge))
}

/// Sends all of these at once: visitor, address, field, answer.
async fn all_at_once(posts: Vec<(Visitor, String, &'static str, String)>) -> Result<Vec<Answer>> {
    let mut racers = tokio::task::JoinSet::new();
    for (mut visitor, url, field, answer) in posts {
        racers.spawn(async move { visitor.post(&url, &[], &[(field, &answer)]).await });
    }
    racers.join_all().await.into_iter().collect()
}

fn accepted(answers: &[Answer]) -> usize {
    answers.iter().filter(|answer| answer.status == 200).count()
}

/// `None`, said aloud, where there is no mail server; in CI that is a failure.
async fn mail_sink() -> Result<Option<MailSink>> {
    if let Some(lacking) = MailSink::lacking() {
        ensure!(std::env::var_os("CI").is_none(), "in CI nothing may be skipped: {lacking}");
        writeln!(std::io::stderr(), "SKIPPED: {lacking}")?;
        return Ok(None);
    }
    Ok(Some(tokio::task::spawn_blocking(MailSink::start).await??))
}

fn mail_of(mails: &MailSink) -> String {
    format!("factors: {{mail: {{server: \"{}\", tls: none, from: Shop <no-reply@shop.test>}}}}", mails.address)
}

#[tokio::test]
async fn a_cookie_that_was_stolen_after_a_step_up_opens_nothing_from_another_device_or_place() -> Result<()> {
    let plan = Plan::of(
        "trusted_proxies: [127.0.0.0/8]
sets: {office: [192.0.2.0/24]}
rules:
  - {id: records, match: {paths: [/records/**]}, require: {level: 2, max_age: 5m}}
  - {id: other-device, match: {paths: [/records/**]}, when: '!client.device_known', require: {methods: [totp], per_action: true}}
  - {id: other-place, match: {paths: [/payroll/**]}, when: '!(client.address in sets.office)', require: {methods: [totp], per_action: true}}
",
    );
    let Some(site) = Site::start(plan).await? else { return Ok(()) };
    let office = ("x-forwarded-for", "192.0.2.7");
    let (records, payroll) = (site.url("/records/7"), site.url("/payroll/7"));
    let mut alice = site.alice().await?;
    let challenge = site.challenge_url(&alice.get(&records, &[office]).await?)?;
    let code = totp_code(0)?;
    ensure!(alice.post(&challenge, &[office], &[("code", &code)]).await?.status == 200);
    for url in [&records, &payroll] {
        ensure!(alice.get(url, &[office]).await?.status == 200, "her own browser");
    }
    let mut thief = Visitor::default();
    let stolen = site.jar(&mut alice)["__Host-lb"].clone();
    site.jar(&mut thief).insert("__Host-lb".to_owned(), stolen);
    let elsewhere = ("x-forwarded-for", "198.51.100.7");
    for (name, url, from) in [
        ("another device", &records, office),
        ("another device elsewhere", &records, elsewhere),
        ("another place", &payroll, elsewhere),
    ] {
        let answer = thief.get(url, &[from]).await?;
        ensure!(answer.problem() == "step-up", "{name}: {} {}", answer.status, answer.text());
    }
    ensure!(site.origin.received().len() == 2, "the thief reached the origin");
    Ok(())
}

#[tokio::test]
async fn a_code_of_the_app_counts_once_whoever_has_it_and_an_older_one_not_at_all() -> Result<()> {
    let Some(site) = Site::start(plan("totp", "")).await? else { return Ok(()) };
    // Alice's app shows it; whoever looks over her shoulder has logins of their own.
    let (code, mut posts) = (totp_code(0)?, Vec::new());
    for _ in 0..6 {
        let (visitor, challenge) = challenged(&site).await?;
        posts.push((visitor, challenge, "code", code.clone()));
    }
    let (mut late, late_challenge) = challenged(&site).await?;
    let answers = all_at_once(posts).await?;
    ensure!(accepted(&answers) == 1, "{answers:?}");
    let replayed = site.post_in_turn(&mut late, &late_challenge, &[("code", &code)]).await?;
    ensure!(replayed.status == 401, "a replay: {}", replayed.text());
    let older = site.post_in_turn(&mut late, &late_challenge, &[("code", &totp_code(-1)?)]).await?;
    ensure!(older.status == 401, "the code before it: {}", older.text());
    ensure!(site.audited(&["event=verify", "result=replayed"]) >= 2, "{}", site.edge.log());
    ensure!(site.audited(&["event=verify", "result=ok", "factor=totp"]) == 1, "{}", site.edge.log());
    Ok(())
}

#[tokio::test]
async fn new_logins_give_whoever_guesses_codes_no_new_tries() -> Result<()> {
    let Some(site) = Site::start(plan("totp", "")).await? else { return Ok(()) };
    let mut outcomes = Vec::new();
    for _ in 0..8 {
        let (mut visitor, challenge) = challenged(&site).await?;
        let answer = visitor.post(&challenge, &[], &[("code", "000000")]).await?;
        ensure!(answer.status != 429 || !answer.header("retry-after").is_empty(), "{:?}", answer.headers);
        outcomes.push(answer.status.as_u16());
    }
    ensure!(outcomes.iter().all(|status| [401, 429].contains(status)), "{outcomes:?}");
    let refused = outcomes.iter().filter(|status| **status == 429).count();
    ensure!(refused >= 3, "eight logins had {} guesses: {outcomes:?}", 8 - refused);
    ensure!(site.audited(&["event=verify", "result=throttled"]) == refused, "{}", site.edge.log());
    Ok(())
}

#[tokio::test]
async fn a_code_by_mail_works_in_its_own_browser_the_last_one_only_and_mails_are_few() -> Result<()> {
    let Some(mails) = mail_sink().await? else { return Ok(()) };
    let mut plan = plan("email", &mail_of(&mails));
    plan.of_alice = "    email: alice@shop.test\n".to_owned();
    let Some(site) = Site::start(plan).await? else { return Ok(()) };
    let mut seen = BTreeSet::new();
    let mut send = async |visitor: &mut Visitor, url: &str| -> Result<String> {
        let answer = visitor.post(url, &[], &[("send", "email")]).await?;
        ensure!(answer.status == 202, "{}: {}", answer.status, answer.text());
        new_code(&mails, &mut seen).await
    };
    let (mut alice, challenge) = challenged(&site).await?;
    let (mut thief, thiefs_challenge) = challenged(&site).await?;
    let first = send(&mut alice, &challenge).await?;
    let elsewhere = site.post_in_turn(&mut thief, &thiefs_challenge, &[("email", &first)]).await?;
    ensure!(elsewhere.status == 401, "in another browser: {}", elsewhere.text());
    let second = send(&mut alice, &challenge).await?;
    let old = site.post_in_turn(&mut alice, &challenge, &[("email", &first)]).await?;
    ensure!(old.status == 401, "the one before: {}", old.text());
    let as_typed = format!(" {} ", second.to_lowercase().replace('-', " "));
    let right = site.post_in_turn(&mut alice, &challenge, &[("email", &as_typed)]).await?;
    ensure!(right.status == 200, "in small letters: {}", right.text());
    let again = site.post_in_turn(&mut alice, &challenge, &[("email", &second)]).await?;
    ensure!(again.status == 410, "a second time: {} {}", again.status, again.text());
    send(&mut thief, &thiefs_challenge).await?;
    let flood = thief.post(&thiefs_challenge, &[], &[("send", "email")]).await?;
    ensure!(flood.status == 429 && !flood.header("retry-after").is_empty(), "a fourth mail: {}", flood.text());
    ensure!(site.audited(&["event=send", "result=throttled"]) == 1, "{}", site.edge.log());
    Ok(())
}

/// The code of a mail that was not seen before.
async fn new_code(mails: &MailSink, seen: &mut BTreeSet<String>) -> Result<String> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let mail = mails.mail_with("Your code for").await?;
        let is_code = |line: &&str| line.len() == 9 && line.as_bytes()[4] == b'-' && !line.contains(' ');
        let code = mail.lines().map(str::trim).find(is_code).with_context(|| format!("no code in {mail}"))?;
        if seen.insert(code.to_owned()) {
            return Ok(code.to_owned());
        }
        ensure!(std::time::Instant::now() < deadline, "no new mail came");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn of_a_hundred_uses_of_one_recovery_code_at_once_one_counts() -> Result<()> {
    let Some(site) = Site::start(plan("recovery", "")).await? else { return Ok(()) };
    let mut alice = site.alice().await?;
    let prover = Prover::enrol(&site, &mut alice, &["recovery"]).await?;
    let code = prover.answer(&json!({"method": "recovery"}), true)?;
    let mut posts = Vec::new();
    for _ in 0..20 {
        let (visitor, challenge) = challenged(&site).await?;
        posts.extend((0..5).map(|_| (visitor.clone(), challenge.clone(), "recovery", code.clone())));
    }
    // Begun before: once a code was used, nobody is offered another until a new factor was added.
    let (mut late, challenge) = challenged(&site).await?;
    let answers = all_at_once(posts).await?;
    ensure!(answers.len() == 100 && accepted(&answers) == 1, "{} of {}", accepted(&answers), answers.len());
    ensure!(site.audited(&["event=verify", "result=ok", "factor=recovery"]) == 1, "{}", site.edge.log());
    let replayed = site.post_in_turn(&mut late, &challenge, &[("recovery", &code)]).await?;
    ensure!(replayed.status == 401, "once more: {}", replayed.text());
    Ok(())
}

/// What the edge has to refuse, and the audit trail's word for it.
struct Lie {
    name: &'static str,
    result: &'static str,
    tell: fn(&Truth<'_>) -> Result<String>,
}

/// What lies are made of.
struct Truth<'a> {
    alices: &'a Authenticator,
    bobs: &'a Authenticator,
    said: Said,
    /// Of a challenge that is over, and of one that is about another refund.
    old_challenge: &'a str,
    other_challenge: &'a str,
}

impl Truth<'_> {
    fn but(&self, change: impl FnOnce(&mut Said)) -> Result<String> {
        let mut said = self.said.clone();
        change(&mut said);
        self.alices.get(&said)
    }
}

#[rustfmt::skip]
const LIES: &[Lie] = &[
    Lie { name: "another site", result: "wrong-origin", tell: |truth| truth.but(|said| said.origin = "https://evil.test".to_owned()) },
    Lie { name: "a site whose name begins alike", result: "wrong-origin", tell: |truth| truth.but(|said| said.origin += ".evil.test") },
    Lie { name: "another relying party", result: "wrong-relying-party", tell: |truth| truth.but(|said| said.relying_party = "evil.test".to_owned()) },
    Lie { name: "a registration", result: "wrong-ceremony", tell: |truth| truth.but(|said| said.kind = "webauthn.create") },
    Lie { name: "inside another site's page", result: "cross-origin", tell: |truth| truth.but(|said| said.is_cross_origin = true) },
    Lie { name: "a challenge that is over", result: "wrong-challenge", tell: |truth| truth.but(|said| said.challenge = truth.old_challenge.to_owned()) },
    Lie { name: "the approval of another refund", result: "wrong-challenge", tell: |truth| truth.but(|said| said.challenge = truth.other_challenge.to_owned()) },
    Lie { name: "nobody verified", result: "user-not-verified", tell: |truth| truth.but(|said| said.flags = PRESENT) },
    Lie { name: "nobody there", result: "user-not-present", tell: |truth| truth.but(|said| said.flags = VERIFIED) },
    Lie { name: "another user's handle", result: "other-user", tell: |truth| truth.but(|said| said.user_handle = Some(b"bob".to_vec())) },
    Lie { name: "another user's passkey", result: "unknown-credential", tell: |truth| truth.bobs.get(&truth.said) },
    Lie { name: "another key under her passkey's name", result: "wrong-signature", tell: |truth| {
        truth.bobs.get(&Said { id: Some(truth.alices.id().to_vec()), ..truth.said.clone() })
    } },
    Lie { name: "a copy that counts from the start", result: "signature-counter-went-back", tell: |truth| truth.but(|said| said.sign_count = 1) },
];

#[tokio::test]
async fn a_passkeys_lies_are_refused_and_named_in_the_audit_trail() -> Result<()> {
    let factors = format!("factors: {{passkey: {{id: {DOMAIN}, origins: [\"https://{DOMAIN}:{{port}}\"]}}}}");
    let mut plan = plan("webauthn", &factors);
    plan.of_alice = BOB.to_owned();
    let Some(site) = Site::start(plan).await? else { return Ok(()) };
    let (mut alice, mut bob) = (site.alice().await?, site.log_in("bob").await?);
    let (alices, bobs) = (site.enrol_passkey(&mut alice).await?, site.enrol_passkey(&mut bob).await?);
    let mut old_challenge = "A".repeat(43);
    for (count, lie) in LIES.iter().enumerate() {
        let mut alice = site.alice().await?;
        let challenge = site.challenge_url(&refund(&site, &mut alice).await?)?;
        let other = site.send_json(&mut alice, "POST", "/refunds", r#"{"amount": 5}"#).await?;
        let other = site.ask(&mut alice, &site.challenge_url(&other)?, "webauthn").await?;
        let other_challenge = text(&other["publicKey"]["challenge"])?;
        let ask = site.ask(&mut alice, &challenge, "webauthn").await?;
        let said = alices.truth(&ask["publicKey"])?;
        let (old, other) = (old_challenge.as_str(), other_challenge.as_str());
        let truth = Truth { alices: &alices, bobs: &bobs, said, old_challenge: old, other_challenge: other };
        let told = (lie.tell)(&truth)?;
        let refused = alice.post(&challenge, &[], &[("passkey", &told)]).await?;
        ensure!(refused.status == 401, "{}: {} {}", lie.name, refused.status, refused.text());
        let result = format!("result={}", lie.result);
        ensure!(site.audited(&["event=verify", "factor=webauthn", &result]) >= 1, "{}: {}", lie.name, site.edge.log());
        ensure!(site.origin.refunds() == count as u64, "{}: the refund went through", lie.name);

        let ask = site.ask(&mut alice, &challenge, "webauthn").await?;
        old_challenge = text(&ask["publicKey"]["challenge"])?;
        let honest = alices.get(&alices.truth(&ask["publicKey"])?)?;
        let taken = alice.post(&challenge, &[], &[("passkey", &honest)]).await?;
        ensure!(taken.status == 200, "{}, then the truth: {} {}", lie.name, taken.status, taken.text());
        ensure!(refund(&site, &mut alice).await?.status == 201, "{}: and the refund", lie.name);
    }
    Ok(())
}

fn text(value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).with_context(|| format!("no text: {value}"))
}

#[tokio::test]
async fn a_password_alone_adds_no_factor_removes_none_and_news_of_changes_go_by_mail() -> Result<()> {
    let Some(mails) = mail_sink().await? else { return Ok(()) };
    let mut plan = plan("pin", &mail_of(&mails));
    plan.of_alice = format!("    email: alice@shop.test\n{BOB}");
    let Some(site) = Site::start(plan).await? else { return Ok(()) };
    let mut alice = site.alice().await?;
    site.enrol(&mut alice, "pin", &[("answer", PIN), ("again", PIN)]).await?;
    let mail = mails.mail_with("A factor was added").await?;
    ensure!(mail.contains("alice@shop.test"), "{mail}");
    let enrolled = || -> Result<Value> { Ok(serde_json::from_str(&site.edge.command(&["factors", USER, "--json"])?)?) };
    let before = enrolled()?;
    let id = text(&before[0]["id"])?;

    let mut thief = site.alice().await?;
    let (list, add) = (site.url("/.lb/factors"), site.url("/.lb/factors/add/pin"));
    let thiefs_pin = [("answer", "314159"), ("again", "314159")];
    let adds = thief.post(&add, &[], &thiefs_pin).await?;
    ensure!(adds.problem() == "step-up", "adding: {} {}", adds.status, adds.text());
    let removes = thief.post(&list, &[], &[("remove", &id)]).await?;
    ensure!(removes.problem() == "step-up", "removing: {} {}", removes.status, removes.text());
    ensure!(thief.get(&list, &[]).await?.problem() == "step-up", "looking");
    ensure!(enrolled()? == before, "{}", enrolled()?);

    // Bob has no second factor: only an operator's token opens the door, his own, and once.
    let mut bob = site.log_in("bob").await?;
    let adds = bob.post(&add, &[], &thiefs_pin).await?;
    ensure!(adds.status == 403 && adds.problem() == "enrolment-token-needed", "{} {}", adds.status, adds.text());
    let (alices, bobs) = (site.edge.command(&["enrol-token", USER])?, site.edge.command(&["enrol-token", "bob"])?);
    let enrol = site.url("/.lb/enrol");
    for (name, token) in [("a guess", "AAAA-AAAA-AAAA-AAAA"), ("alice's", alices.trim())] {
        let refused = site.post_in_turn(&mut bob, &enrol, &[("token", token)]).await?;
        ensure!(refused.problem() == "enrolment-token-refused", "{name}: {} {}", refused.status, refused.text());
    }
    let taken = site.post_in_turn(&mut bob, &enrol, &[("token", bobs.trim())]).await?;
    ensure!(taken.status == 204, "{}", taken.text());
    let mut other = site.log_in("bob").await?;
    let again = site.post_in_turn(&mut other, &enrol, &[("token", bobs.trim())]).await?;
    ensure!(again.problem() == "enrolment-token-refused", "twice: {} {}", again.status, again.text());
    ensure!(bob.post(&add, &[], &thiefs_pin).await?.status == 201, "with the token");
    ensure!(site.audited(&["event=factor", "result=added"]) == 2, "{}", site.edge.log());
    Ok(())
}

#[tokio::test]
async fn whoever_guesses_from_everywhere_locks_out_strangers_and_not_the_owners_known_device() -> Result<()> {
    const MOST_GUESSES: u32 = 130;
    let Some(site) = Site::start(Plan::of("trusted_proxies: [127.0.0.0/8]\n")).await? else { return Ok(()) };
    let login = site.url("/.lb/login");
    let mut home = site.alice().await?;
    home.post(&site.url("/.lb/logout"), &[], &[]).await?;
    ensure!(site.jar(&mut home).contains_key("__Host-lb-device"), "the browser is known by nothing");
    let mut guesses = 0;
    loop {
        let address = format!("198.51.{}.{}", 100 + guesses / 250, 1 + guesses % 250);
        let from = [("x-forwarded-for", address.as_str())];
        let guess = Visitor::default().post(&login, &from, &[("user", USER), ("password", "guess")]).await?;
        if guess.status == 429 {
            break;
        }
        ensure!(guess.status == 401, "guess {guesses}: {} {}", guess.status, guess.text());
        guesses += 1;
        ensure!(guesses < MOST_GUESSES, "{MOST_GUESSES} guesses from as many addresses, and more to come");
    }
    let right = [("user", USER), ("password", PASSWORD)];
    let stranger = Visitor::default().post(&login, &[("x-forwarded-for", "203.0.113.7")], &right).await?;
    ensure!(stranger.status == 429, "a device that nobody knows: {} {}", stranger.status, stranger.text());
    let owner = home.post(&login, &[("x-forwarded-for", "203.0.113.8")], &right).await?;
    ensure!(owner.status == 200, "the owner's own browser: {} {}", owner.status, owner.text());
    Ok(())
}
