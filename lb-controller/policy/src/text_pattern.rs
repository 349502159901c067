//! Patterns of text, compiled when a rule is read: `glob("/files/*.pdf")` and `matches("^[A-Z]{2}$")`.
//!
//! Both become one table-driven automaton. Matching is one step a byte, whatever the pattern and the text, and allocates
//! nothing; a pattern whose table would be large is refused.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use regex_automata::dfa::dense::{self, DFA};
use regex_automata::dfa::{Automaton, StartKind};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input};

/// Of one table. Ordinary patterns take a few KiB; this is room for a class of all letters of all languages.
const MOST_TABLE_BYTES: usize = 1024 * 1024;
/// Of what is needed while a table is made.
const MOST_BUILD_BYTES: usize = 4 * MOST_TABLE_BYTES;
const MOST_PATTERN_BYTES: usize = 512;

/// A compiled pattern.
pub(crate) struct TextPattern {
    source: Box<str>,
    automaton: DFA<Vec<u32>>,
    anchored: Anchored,
}

impl TextPattern {
    /// A regular expression in the syntax that RE2 and Rust share. It may match any part of a text, as in CEL, unless it
    /// says `^` and `$`. `Err` holds what is wrong.
    pub(crate) fn regex(source: &str) -> Result<TextPattern, String> {
        TextPattern::build(source, source, Anchored::No)
    }

    /// A pattern of file names, for the whole text: `*` is any run of characters without `/`, `**` any run at all, `?` one
    /// character that is no `/`.
    pub(crate) fn glob(source: &str) -> Result<TextPattern, String> {
        let mut regex = String::from(r"(?s)");
        let mut rest = source.chars().peekable();
        while let Some(char) = rest.next() {
            match char {
                '*' if rest.next_if_eq(&'*').is_some() => regex.push_str(".*"),
                '*' => regex.push_str("[^/]*"),
                '?' => regex.push_str("[^/]"),
                plain if plain.is_ascii_punctuation() => regex.extend(['\\', plain]),
                plain => regex.push(plain),
            }
        }
        regex.push_str(r"\z");
        TextPattern::build(source, &regex, Anchored::Yes)
    }

    fn build(source: &str, regex: &str, anchored: Anchored) -> Result<TextPattern, String> {
        if source.len() > MOST_PATTERN_BYTES {
            return Err(format!("the pattern has {} bytes; at most {MOST_PATTERN_BYTES} are read", source.len()));
        }
        let start = if anchored == Anchored::Yes { StartKind::Anchored } else { StartKind::Unanchored };
        let limits = dense::Config::new()
            .start_kind(start)
            .dfa_size_limit(Some(MOST_TABLE_BYTES))
            .determinize_size_limit(Some(MOST_BUILD_BYTES));
        let built = dense::Builder::new()
            .configure(limits)
            .syntax(syntax::Config::new().nest_limit(32))
            .thompson(thompson::Config::new().nfa_size_limit(Some(MOST_BUILD_BYTES)))
            .build(regex);
        match built {
            Ok(automaton) => Ok(TextPattern { source: source.into(), automaton, anchored }),
            Err(error) => Err(problem(regex, &error)),
        }
    }

    pub(crate) fn is_match(&self, text: &str) -> bool {
        let input = Input::new(text).anchored(self.anchored).earliest(true);
        // The automaton gives up on nothing: it has no quit bytes, and supports the one kind of start that is asked for.
        matches!(self.automaton.try_search_fwd(&input), Ok(Some(_)))
    }
}

fn problem(regex: &str, error: &dense::BuildError) -> String {
    const TOO_LARGE: &str = "the pattern is too complicated; it would take more than 1 MiB";
    if error.is_size_limit_exceeded() {
        return TOO_LARGE.into();
    }
    match regex_syntax::Parser::new().parse(regex) {
        Err(regex_syntax::Error::Parse(error)) => {
            format!("at byte {} of the pattern: {}", error.span().start.offset, error.kind())
        }
        Err(regex_syntax::Error::Translate(error)) => {
            format!("at byte {} of the pattern: {}", error.span().start.offset, error.kind())
        }
        Ok(_) if regex.contains("\\b") || regex.contains("\\B") => {
            "`\\b` is of ASCII words only here; write `(?-u:\\b)`".into()
        }
        // The first automaton, of which the table is made, has a limit too.
        Ok(_) => TOO_LARGE.into(),
        Err(_) => error.to_string(),
    }
}

impl fmt::Debug for TextPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TextPattern({:?})", self.source)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_glob_is_about_the_whole_text_and_a_regex_about_any_part() {
        let rows = [
            ("glob", "/files/*.pdf", "/files/a.pdf", true),
            ("glob", "/files/*.pdf", "/files/a/b.pdf", false),
            ("glob", "/files/**.pdf", "/files/a/b.pdf", true),
            ("glob", "/files/*.pdf", "/files/a.pdf.exe", false),
            ("glob", "/files/*.pdf", "x/files/a.pdf", false),
            ("glob", "a?c", "abc", true),
            ("glob", "a?c", "aéc", true),
            ("glob", "a?c", "a/c", false),
            ("glob", "", "", true),
            ("glob", "", "a", false),
            ("glob", "a[b]{c}(d)|+^$\\", "a[b]{c}(d)|+^$\\", true),
            ("glob", "*", "a\nb", true),
            ("glob", "é*", "éa", true),
            ("regex", "^[A-Z]{2}$", "DE", true),
            ("regex", "^[A-Z]{2}$", "DEU", false),
            ("regex", "b+", "abbc", true),
            ("regex", "^b", "abbc", false),
            ("regex", "", "anything", true),
            ("regex", "(?i)straße", "STRAßE", true),
            ("regex", r"\d{4}", "x2026", true),
            ("regex", r"(?-u:\b)cat(?-u:\b)", "a cat.", true),
            ("regex", "a.c", "a\nc", false),
        ];
        for (kind, source, text, expected) in rows {
            let compile = if kind == "glob" { TextPattern::glob } else { TextPattern::regex };
            assert_eq!(compile(source).unwrap().is_match(text), expected, "{kind} {source} on {text:?}");
        }
    }

    #[test]
    fn a_pattern_that_is_wrong_or_too_large_is_refused_quickly() {
        let long = "a".repeat(513);
        let rows = [
            ("a(b", "at byte 1 of the pattern: unclosed group"),
            ("[z-a]", "at byte 1 of the pattern: invalid character class range, the start must be <= the end"),
            (r"(a)\1", "at byte 3 of the pattern: backreferences are not supported"),
            ("(?=a)", "at byte 0 of the pattern: look-around, including look-ahead and look-behind, is not supported"),
            (r"\bcat", "`\\b` is of ASCII words only here; write `(?-u:\\b)`"),
            ("(a|b)*a(a|b){20}", "the pattern is too complicated; it would take more than 1 MiB"),
            (r"(\w{1,50}){1,50}", "the pattern is too complicated; it would take more than 1 MiB"),
            ("((((a{100}){100}){100}){100})", "the pattern is too complicated; it would take more than 1 MiB"),
            (long.as_str(), "the pattern has 513 bytes; at most 512 are read"),
        ];
        for (source, expected) in rows {
            let started = Instant::now();
            assert_eq!(TextPattern::regex(source).expect_err(source), expected);
            assert!(started.elapsed() < Duration::from_secs(5), "{source} took {:?}", started.elapsed());
        }
    }

    #[test]
    fn no_text_makes_matching_slow() {
        let text = "a".repeat(100_000);
        for source in ["(a+)+$", "(a|a)*b", "a*a*a*a*b", "(.*)(.*)(.*)[^a]"] {
            let pattern = TextPattern::regex(source).unwrap();
            let started = Instant::now();
            pattern.is_match(&text);
            assert!(started.elapsed() < Duration::from_secs(1), "{source} took {:?}", started.elapsed());
        }
    }

    /// By trying every split, as one would write it without thinking of time.
    fn glob_by_trying(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            (['*', '*', rest @ ..], _) => (0..=text.len()).any(|skipped| glob_by_trying(rest, &text[skipped..])),
            (['*', rest @ ..], _) => {
                let run = text.iter().take_while(|char| **char != '/').count();
                (0..=run).any(|skipped| glob_by_trying(rest, &text[skipped..]))
            }
            (['?', rest @ ..], [char, more @ ..]) => *char != '/' && glob_by_trying(rest, more),
            ([plain, rest @ ..], [char, more @ ..]) => plain == char && glob_by_trying(rest, more),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_glob_means_what_trying_every_split_says(pattern in "[ab/.*?é]{0,8}", text in "[ab/.é\n]{0,8}") {
            let (pattern_chars, chars): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
            let glob = TextPattern::glob(&pattern).unwrap();
            prop_assert_eq!(glob.is_match(&text), glob_by_trying(&pattern_chars, &chars), "{} on {:?}", pattern, text);
        }
    }
}
