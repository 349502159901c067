//! What people read, in their language: pages, e-mails, text messages. All of it stands in `assets/texts.yaml`; operators may
//! put texts, and languages, of their own over it.

mod keys;
mod languages;

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};
use std::sync::{Arc, LazyLock};

pub use keys::say;

use keys::KEYS;

/// Text of each key by language, as files have it.
pub type Source = BTreeMap<String, BTreeMap<String, String>>;

/// A key, and the names of what it is filled in with.
#[derive(Debug)]
struct Known {
    name: &'static str,
    places: &'static [&'static str],
}

/// All texts of one language.
#[derive(Debug)]
pub struct Texts {
    /// As in `lang` of HTML (BCP 47), lower-case.
    language: String,
    /// By number of the key.
    all: Vec<Text>,
}

/// One text, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Text(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Words(String),
    /// The value of this number.
    Place(usize),
}

/// A text with its values; as HTML it is escaped like any other.
pub struct Filled<'t> {
    text: &'t Text,
    values: Vec<String>,
}

/// HTML whose every word was escaped here.
pub struct Markup(String);

/// A text whose language is chosen when it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    Known {
        key: usize,
        values: Vec<String>,
    },
    /// The operator's own words.
    Literal(String),
}

/// All languages.
#[derive(Clone, Debug)]
pub struct Catalogue {
    /// The first is the default.
    languages: Vec<Arc<Texts>>,
}

const BUILT_IN: &str = include_str!("../assets/texts.yaml");

/// Whoever is told nothing of a language is told this one; programs always are.
pub const ENGLISH: &str = "en";

static BUILT_IN_SOURCE: LazyLock<Source> =
    LazyLock::new(|| read(BUILT_IN).expect("a test reads the texts that are built in"));

static BUILT_IN_CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
    Catalogue::compile(&BUILT_IN_SOURCE, ENGLISH).expect("a test compiles the texts that are built in")
});

/// English, as built in: for programs, which do not read it, and people who read logs.
pub fn english() -> &'static Texts {
    BUILT_IN_CATALOGUE.default_texts()
}

/// Reads a file of texts. Errors: what is wrong with it, and where.
pub fn read(text: &str) -> Result<Source, String> {
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

impl Default for Catalogue {
    fn default() -> Catalogue {
        BUILT_IN_CATALOGUE.clone()
    }
}

impl Catalogue {
    /// The built-in texts with `own` ones over them. A language that is not built in must have every key.
    ///
    /// Errors: each thing that is wrong, for people.
    pub fn with(own: &Source, default_language: &str) -> Result<Catalogue, Vec<String>> {
        let mut source = BUILT_IN_SOURCE.clone();
        for (key, texts) in own {
            let entry = source.entry(key.clone()).or_default();
            entry.extend(texts.iter().map(|(language, text)| (language.to_ascii_lowercase(), text.clone())));
        }
        Catalogue::compile(&source, default_language)
    }

    fn compile(source: &Source, default_language: &str) -> Result<Catalogue, Vec<String>> {
        let unknown = source.keys().filter(|key| !KEYS.iter().any(|known| known.name == **key));
        let mut problems: Vec<String> = unknown.map(|key| unknown_key(key)).collect();
        let mut tags: Vec<&str> = source.values().flat_map(|texts| texts.keys().map(String::as_str)).collect();
        tags.sort_by_key(|tag| (*tag != default_language, *tag));
        tags.dedup();
        if tags.first() != Some(&default_language) {
            problems.push(format!("there are no texts in `{default_language}`; there are: {}", tags.join(", ")));
        }
        problems.extend(
            tags.iter().filter(|tag| !is_tag(tag)).map(|tag| format!("`{tag}` is no language tag, as `pt-br` is")),
        );
        let mut languages = Vec::new();
        for tag in tags {
            let all = KEYS.iter().map(|known| text_of(source, known, tag).map_err(|problem| problems.push(problem)));
            let all: Vec<_> = all.filter_map(Result::ok).collect();
            languages.push(Arc::new(Texts { language: tag.to_owned(), all }));
        }
        if problems.is_empty() { Ok(Catalogue { languages }) } else { Err(problems) }
    }

    /// One language, whose texts are their keys in brackets.
    #[cfg(test)]
    pub(crate) fn of_marks() -> Catalogue {
        let mark = |known: &Known| {
            let places = (0..known.places.len()).map(Part::Place);
            Text(std::iter::once(Part::Words(format!("⟦{}⟧", known.name))).chain(places).collect())
        };
        let texts = Texts { language: "xx".to_owned(), all: KEYS.iter().map(mark).collect() };
        Catalogue { languages: vec![Arc::new(texts)] }
    }

    pub fn default_texts(&self) -> &Texts {
        &self.languages[0]
    }

    /// Every language, the default first.
    pub fn all(&self) -> impl Iterator<Item = &Texts> {
        self.languages.iter().map(|texts| &**texts)
    }

    /// The texts that suit an `Accept-Language` best (RFC 9110 §12.5.4).
    pub fn best_for(&self, accept_language: Option<&str>) -> &Texts {
        let tags: Vec<&str> = self.languages.iter().map(|texts| texts.language.as_str()).collect();
        let chosen = accept_language.and_then(|accepted| languages::choose(accepted, &tags));
        &self.languages[chosen.unwrap_or(0)]
    }
}

/// A tag of BCP 47, as far as it matters: letters and digits, in groups.
fn is_tag(text: &str) -> bool {
    let is_group =
        |group: &str| (1..=8).contains(&group.len()) && group.bytes().all(|byte| byte.is_ascii_alphanumeric());
    text.len() <= 35 && text.split('-').all(is_group)
}

fn unknown_key(key: &str) -> String {
    match lb_policy::closest_name(key, KEYS.iter().map(|known| known.name)) {
        Some(close) => format!("there is no text `{key}`; did you mean `{close}`?"),
        None => format!("there is no text `{key}`"),
    }
}

fn text_of(source: &Source, known: &Known, language: &str) -> Result<Text, String> {
    let name = known.name;
    let text = source.get(name).and_then(|texts| texts.get(language));
    let text = text.ok_or_else(|| format!("`{name}` has no text in `{language}`"))?;
    Text::parse(text, known.places).map_err(|problem| format!("`{name}` in `{language}`: {problem}"))
}

impl Text {
    /// Takes a text apart at `{place}`. Every place must be there, and no other.
    fn parse(text: &str, places: &[&str]) -> Result<Text, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, behind) = after.split_once('}').ok_or("a `{` without its `}`")?;
            let place = places.iter().position(|place| *place == name);
            let known = || places.iter().map(|place| format!("{{{place}}}")).collect::<Vec<_>>().join(", ");
            let place = place.ok_or_else(|| match places {
                [] => format!("`{{{name}}}` is not filled in: there is nothing to fill in here"),
                _ => format!("`{{{name}}}` is not filled in; what is: {}", known()),
            })?;
            parts.extend([Part::Words(before.to_owned()), Part::Place(place)]);
            rest = behind;
        }
        parts.push(Part::Words(rest.to_owned()));
        let missing = (0..places.len()).find(|place| !parts.contains(&Part::Place(*place)));
        match missing {
            Some(place) => Err(format!("`{{{}}}` is missing", places[place])),
            None => Ok(Text(parts)),
        }
    }
}

impl Texts {
    pub fn language(&self) -> &str {
        &self.language
    }

    fn filled(&self, key: usize, values: Vec<String>) -> Filled<'_> {
        Filled { text: &self.all[key], values }
    }

    /// A message in this language.
    pub fn put(&self, message: &Message) -> String {
        match message {
            Message::Known { key, values } => self.filled(*key, values.clone()).to_string(),
            Message::Literal(words) => words.clone(),
        }
    }

    /// A span of time as people say it: `90 seconds`, `5 minutes`, `12 hours`.
    pub fn span(&self, seconds: u64) -> String {
        let said = match seconds {
            1 => self.one_second(),
            0..120 => self.seconds(seconds),
            120..7200 => self.minutes(seconds / 60),
            _ => self.hours(seconds / 3600),
        };
        said.to_string()
    }
}

impl Display for Filled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.0.iter().try_for_each(|part| match part {
            Part::Words(words) => f.write_str(words),
            Part::Place(place) => f.write_str(&self.values[*place]),
        })
    }
}

impl Filled<'_> {
    /// As HTML, its values emphasised.
    pub fn strong(&self) -> Markup {
        self.marked("strong")
    }

    /// As HTML, its values as something typed.
    pub fn code(&self) -> Markup {
        self.marked("code")
    }

    fn marked(&self, element: &str) -> Markup {
        let mut html = String::new();
        for part in &self.text.0 {
            match part {
                Part::Words(words) => escape(&mut html, words),
                Part::Place(place) => {
                    // Writing to a String cannot fail.
                    let _ = write!(html, "<{element}>");
                    escape(&mut html, &self.values[*place]);
                    let _ = write!(html, "</{element}>");
                }
            }
        }
        Markup(html)
    }
}

fn escape(html: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
}

impl Display for Markup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Templates put it in as it is.
impl askama::filters::HtmlSafe for Markup {}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        read(text).unwrap()
    }

    #[test]
    fn every_key_has_a_text_in_every_language_and_is_filled_in_alike() {
        let built_in = read(BUILT_IN).unwrap();
        let catalogue = Catalogue::compile(&built_in, ENGLISH).unwrap_or_else(|problems| panic!("{problems:#?}"));
        let languages: Vec<_> = catalogue.all().map(Texts::language).collect();
        assert_eq!(languages, ["en", "de", "fr"]);
        for (key, texts) in &built_in {
            assert!(texts.values().all(|text| !text.trim().is_empty()), "{key} has an empty text");
        }
    }

    #[test]
    fn a_translation_is_not_the_english_text_again() {
        // Words that are the same in both languages.
        let same = ["name", "minutes", "pin_label", "external_label"];
        for (key, texts) in read(BUILT_IN).unwrap() {
            for language in ["de", "fr"] {
                assert!(texts[language] != texts[ENGLISH] || same.contains(&&*key), "{key} in {language}");
            }
        }
    }

    #[test]
    fn mistakes_in_texts_of_ones_own_are_told_apart() {
        let rows = [
            ("logn: {en: x}", "en", "there is no text `logn`; did you mean `login`?"),
            (
                "login: {en: 'Hi {user}'}",
                "en",
                "`login` in `en`: `{user}` is not filled in: there is nothing to fill in here",
            ),
            (
                "logged_in_as: {de: 'Hallo {usr}'}",
                "en",
                "`logged_in_as` in `de`: `{usr}` is not filled in; what is: {user}",
            ),
            ("logged_in_as: {de: Hallo}", "en", "`logged_in_as` in `de`: `{user}` is missing"),
            ("login: {de: 'Hallo {'}", "en", "`login` in `de`: a `{` without its `}`"),
            ("login: {en: x}", "it", "there are no texts in `it`; there are: de, en, fr"),
        ];
        for (text, default, problem) in rows {
            assert_eq!(Catalogue::with(&source(text), default).unwrap_err(), [problem], "{text}");
        }
        let problems = Catalogue::with(&source("login: {nl: Inloggen}"), "en").unwrap_err();
        assert_eq!(problems.len(), KEYS.len() - 1, "a new language needs every key");
        assert!(read("login: [en]").is_err() && read("login: {en: a, en: b}").is_err());
    }

    #[test]
    fn texts_of_ones_own_stand_over_those_that_are_built_in() {
        let own = Catalogue::with(&source("login: {de: Willkommen}"), "de").unwrap();
        assert_eq!(own.default_texts().login().to_string(), "Willkommen");
        assert_eq!(own.best_for(Some("en-GB")).login().to_string(), english().login().to_string());
    }

    #[test]
    fn values_are_escaped_wherever_they_go() {
        let text = english().logged_in_as("<b>&\"'");
        assert_eq!(text.to_string(), "You are logged in as <b>&\"'.");
        assert_eq!(text.strong().to_string(), "You are logged in as <strong>&lt;b&gt;&amp;&quot;&#39;</strong>.");
        assert_eq!(english().put(&say::login()), "Log in");
    }

    #[test]
    fn spans_of_time_read_as_people_say_them() {
        let rows = [
            (0, "0 seconds"),
            (1, "1 second"),
            (119, "119 seconds"),
            (120, "2 minutes"),
            (300, "5 minutes"),
            (7199, "119 minutes"),
            (7200, "2 hours"),
            (43_200, "12 hours"),
        ];
        for (seconds, words) in rows {
            assert_eq!(english().span(seconds), words);
        }
    }
}
