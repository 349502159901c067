//! Every page that people may see, filled with examples: for operators to look at, and for the tests of texts.

use askama::Template;
use lb_policy::Method;

use super::factor::{self, Factor, Shape, developer_key, totp};
use super::pages::{
    AddForm, AddPage, AnswerForm, ApprovePage, ChallengePage, CodesPage, DonePage, EnrolPage, FactorsPage, Frame,
    ListedFactor, LoginPage, MessagePage, ResumePage, SessionPage, WorkPage,
};
use super::self_service::ADDABLE;
use crate::config::PagesConfig;
use crate::texts::{Texts, say};

/// One page in one language.
pub(crate) struct Preview {
    /// Of a file: `login`, `challenge-totp`.
    pub(crate) name: String,
    pub(crate) language: String,
    pub(crate) html: String,
}

/// Examples, as likely as can be.
const USER: &str = "alice";
const HOST: &str = "shop.example";
const METHOD: &str = "POST";
const PATH: &str = "/orders/1042/refunds";
const ADDRESS: &str = "a…@shop.example";
const PROVIDER: &str = "Example ID";
const FACT: &str = "amount";
const OTHER_FACT: &str = "payee";
const FACTOR_NAME: &str = "my laptop";
/// Of what a developer's key signs, the beginning.
const SIGNED: &str = "method: \"POST\"\ntarget: \"/orders/1042/refunds\"\n…\n";
const CODE: &str = "1234-5678";
/// 400 seconds: a span of minutes.
const SPAN_SECONDS: u64 = 400;

/// All pages in all languages.
pub(crate) fn all(pages: &PagesConfig) -> Vec<Preview> {
    pages.texts.all().flat_map(|texts| in_language(pages, texts)).collect()
}

fn in_language(pages: &PagesConfig, texts: &Texts) -> Vec<Preview> {
    let frame = Frame { nonce: "0".to_owned(), host: HOST, texts, look: &pages.look };
    let mut all = Previews { frame: &frame, all: Vec::new() };
    all.login();
    for factor in factor::all() {
        let name = format!("challenge-{}", factor.method.name());
        if matches!(factor.input.shape, Shape::Sent(_)) {
            all.challenge(format!("{name}-send"), factor, form(factor, false), false);
        }
        all.challenge(name.clone(), factor, form(factor, true), false);
        all.challenge(format!("{name}-refused"), factor, form(factor, true), true);
    }
    all.after();
    all.own_factors();
    all.all
}

/// What is asked with an example; a code `is_out`, where codes are sent.
fn form(factor: &Factor, is_out: bool) -> AnswerForm<'static> {
    match factor.input.shape {
        Shape::Typed(field) => AnswerForm::Typed { field },
        Shape::Sent(field) => AnswerForm::Sent { field, to: ADDRESS, is_out },
        Shape::Passkey => AnswerForm::Passkey { options: "{}".to_owned(), call: "get" },
        Shape::Signature => AnswerForm::Signature { text: SIGNED, command: developer_key::NAMESPACE.to_owned() },
        Shape::Work => AnswerForm::Work { puzzle: "0", bits: 20, captcha: Some("/") },
    }
}

struct Previews<'a> {
    frame: &'a Frame<'a>,
    all: Vec<Preview>,
}

impl Previews<'_> {
    fn add(&mut self, name: impl Into<String>, page: &impl Template) {
        let html = page.render().expect("templates write to memory and call nothing that fails");
        self.all.push(Preview { name: name.into(), language: self.frame.texts.language().to_owned(), html });
    }

    fn login(&mut self) {
        let (frame, texts) = (self.frame, self.frame.texts);
        let providers = [(PROVIDER, "/".to_owned())];
        let page = LoginPage { frame, action: "/", user: "", error: None, providers: &providers };
        self.add("login", &page);
        let error = Some(texts.login_wrong().to_string());
        self.add("login-refused", &LoginPage { user: USER, error, ..page });
    }

    fn challenge(&mut self, name: String, factor: &Factor, form: AnswerForm<'_>, is_refused: bool) {
        let texts = self.frame.texts;
        let others =
            [Method::Totp, Method::IdentityProvider].map(|other| (other.name(), texts.put(&factor::label(other))));
        let facts = [(FACT, "900.00".to_owned()), (OTHER_FACT, texts.not_given().to_string())];
        let page = ChallengePage {
            frame: self.frame,
            user: USER,
            method: METHOD,
            path: PATH,
            facts: if is_refused { &[] } else { &facts },
            why: texts.why_for(texts.span(SPAN_SECONDS)).to_string(),
            action: "/",
            name: factor.method.name(),
            field: factor.input.name,
            label: texts.put(&(factor.input.label)()),
            hint: texts.put(&(factor.input.hint)()),
            form,
            others: &others,
            step: 1,
            steps: if is_refused { 2 } else { 1 },
            error: is_refused.then(|| texts.put(&(factor.input.refused)())),
            tries: is_refused.then(|| texts.tries_left(3).to_string()),
            onward: texts.onward_parked().to_string(),
            at_provider: is_refused.then_some("/"),
        };
        self.add(name, &page);
    }

    fn after(&mut self) {
        let (frame, texts) = (self.frame, self.frame.texts);
        let (method, path) = (METHOD, PATH);
        let (facts, why) = ([(OTHER_FACT, texts.empty().to_string())], texts.why_each_time().to_string());
        let page = ApprovePage { frame, user: USER, method, path, facts: &facts, why, action: "/" };
        self.add("approve", &page);
        let (hint, error) = (texts.work_hint().to_string(), Some(texts.work_refused().to_string()));
        let (puzzle, login) = ("0", Some("/"));
        let page = WorkPage {
            frame,
            method,
            path,
            action: "/",
            field: "f",
            hint,
            puzzle,
            bits: 20,
            captcha: Some("/"),
            login,
            error: None,
        };
        self.add("work", &page);
        self.add("work-refused", &WorkPage { captcha: None, error, ..page });
        let page = ResumePage { frame, method, path, target: "/", field: "f", transaction: "0" };
        self.add("resume", &page);
        self.add("done", &DonePage { frame, method, path });
        let ago = texts.ago(texts.span(SPAN_SECONDS)).to_string();
        let proofs = [(texts.password_label().to_string(), ago)];
        self.add("session", &SessionPage { frame, user: USER, proofs: &proofs, ends_in: texts.span(43_200) });
        let (heading, text) = (texts.put(&say::denied()), texts.put(&say::denied_about()));
        self.add("message", &MessagePage { frame, heading, text, request: Some((method, path)) });
    }

    fn own_factors(&mut self) {
        let (frame, texts) = (self.frame, self.frame.texts);
        let ago = texts.ago(texts.span(SPAN_SECONDS)).to_string();
        let kind = texts.passkey_label().to_string();
        let listed = |id: &str, name: &str, used: String| ListedFactor {
            id: id.to_owned(),
            kind: kind.clone(),
            name: name.to_owned(),
            added: ago.clone(),
            used,
        };
        let factors = [listed("1", "", ago.clone()), listed("2", FACTOR_NAME, texts.never().to_string())];
        let addable = ADDABLE.map(|method| (method.name(), texts.put(&factor::label(method))));
        let page = FactorsPage {
            frame,
            user: USER,
            action: "/",
            factors: &factors,
            addable: &addable,
            must_add: true,
            error: Some(texts.bad_name().to_string()),
        };
        self.add("factors", &page);
        self.add("factors-none", &FactorsPage { factors: &[], must_add: false, error: None, ..page });
        for method in ADDABLE {
            let label = texts.put(&factor::label(method));
            let page = AddPage { frame, user: USER, action: "/", label, form: add_form(method), error: None };
            self.add(format!("add-{}", method.name()), &page);
        }
        let codes = vec![CODE.to_owned(); 10];
        self.add("recovery-codes", &CodesPage { frame, user: USER, codes: &codes });
        let error = Some(texts.enrolment_token_wrong().to_string());
        self.add("enrol", &EnrolPage { frame, user: USER, action: "/", error: None });
        self.add("enrol-refused", &EnrolPage { frame, user: USER, action: "/", error });
    }
}

fn add_form(method: Method) -> AddForm {
    match method {
        Method::Totp => AddForm::Totp {
            secret: "2222 3333".to_owned(),
            qr: totp::qr_code(&[0; 20], USER, HOST).unwrap_or_default(),
        },
        Method::Webauthn => AddForm::Passkey { options: "{}".to_owned(), call: "create" },
        Method::Pin => AddForm::Pin,
        Method::DeveloperKey => AddForm::DeveloperKey,
        _ => AddForm::RecoveryCodes,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::texts::Catalogue;

    /// The page without what only machines read: tags and their attributes, except those that are spoken or shown.
    fn words(html: &str) -> String {
        let body = html.split_once("</style>").map_or(html, |(_, body)| body);
        let body = body.split_once("<script").map_or(body, |(body, _)| body);
        let title =
            html.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>")).map_or("", |(title, _)| title);
        let mut words = title.to_owned();
        for part in body.split('<') {
            let (tag, text) = part.split_once('>').unwrap_or(("", part));
            for spoken in ["aria-label", "placeholder", "alt", "data-failed", "data-known"] {
                let value = tag.split_once(&format!("{spoken}=\"")).and_then(|(_, rest)| rest.split_once('"'));
                words.push_str(value.map_or("", |(value, _)| value));
                words.push(' ');
            }
            words.push_str(text);
            words.push('\n');
        }
        words
    }

    fn html_text(text: &str) -> String {
        text.replace('"', "&#34;")
    }

    #[test]
    fn every_word_on_every_page_is_a_text_that_can_be_translated() {
        let pages = PagesConfig { texts: Catalogue::of_marks(), ..PagesConfig::default() };
        let previews = all(&pages);
        assert!(previews.len() > 30, "{} pages", previews.len());
        let examples =
            [SIGNED, PATH, ADDRESS, HOST, METHOD, USER, PROVIDER, FACT, OTHER_FACT, FACTOR_NAME].map(html_text);
        let own = examples.iter().map(String::as_str).chain(["ssh", "AAAA", developer_key::NAMESPACE]);
        let own: Vec<&str> = own.collect();
        for preview in previews {
            let mut left = words(&preview.html);
            own.iter().for_each(|word| left = left.replace(word, ""));
            // A mark is a text's key in brackets.
            let outside =
                left.split('⟦').flat_map(|part| part.split_once('⟧').or(Some(("", part)))).map(|(_, outside)| outside);
            let untranslated: BTreeSet<&str> = outside
                .flat_map(|text| text.split(|letter: char| !letter.is_alphabetic()))
                .filter(|word| word.chars().count() > 2)
                .collect();
            assert!(untranslated.is_empty(), "{} says {untranslated:?}:\n{left}", preview.name);
        }
    }

    #[test]
    fn every_page_has_its_language_one_heading_and_no_more_than_30_kib() {
        let previews = all(&PagesConfig::default());
        for Preview { name, language, html } in &previews {
            assert!(html.contains(&format!("<html lang=\"{language}\">")), "{name} in {language}");
            assert_eq!(html.matches("<h1").count(), 1, "{name} in {language}");
            assert!(html.len() <= 30 * 1024, "{name} in {language} has {} bytes", html.len());
            assert!(!html.contains("//") || !html.contains("src=\"http"), "{name} loads something");
        }
        let english = previews.iter().filter(|preview| preview.language == "en").count();
        assert_eq!(previews.len(), 3 * english, "each page in each language");
    }
}
