//! Mistakes in a configuration file, each shown where it is.

use std::fmt;
use std::ops::Range;

/// All mistakes of one file. Displays as the file's lines with pointers at the culprits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    /// As the user named it.
    file: String,
    source: String,
    list: Vec<Diagnostic>,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The bytes of the file that are wrong; `None`: the file as a whole.
    pub place: Option<Range<usize>>,
    pub message: String,
    pub help: Option<String>,
}

/// A file with a thousand mistakes is the wrong file: the rest is counted.
const MOST_SHOWN: usize = 50;

/// Longer lines are cut around the culprit.
const MOST_LINE_CHARS: usize = 120;

/// Values of these keys never reach a terminal or a log.
const SECRET_KEYS: &[&str] = &["password_hash", "totp_secret", "client_secret", "hmac_key"];

impl Diagnostics {
    /// In the order of the file.
    pub(super) fn new(file: &str, source: &str, mut list: Vec<Diagnostic>) -> Diagnostics {
        list.sort_by_key(|diagnostic| diagnostic.place.as_ref().map(|place| place.start));
        Diagnostics { file: file.to_owned(), source: source.to_owned(), list }
    }

    /// For mistakes that show once a good file's own files are read.
    pub fn at_places(file: &str, source: &str, list: Vec<Diagnostic>) -> Diagnostics {
        Diagnostics::new(file, source, list)
    }

    /// For a file that could not be read at all.
    pub(super) fn of_whole_file(file: &str, message: String, help: &str) -> Diagnostics {
        let help = (!help.is_empty()).then(|| help.to_owned());
        Diagnostics::new(file, "", vec![Diagnostic { place: None, message, help }])
    }

    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.list.iter().take(MOST_SHOWN).enumerate() {
            let separator = if index == 0 { "" } else { "\n\n" };
            write!(f, "{separator}error: {}", diagnostic.message)?;
            let gutter = match &diagnostic.place {
                None => " ".to_owned(),
                Some(place) => " ".repeat(self.line_number(place).to_string().len()),
            };
            match &diagnostic.place {
                None => write!(f, "\n{gutter}--> {}", self.file)?,
                Some(place) => self.show_place(f, place, &gutter)?,
            }
            if let Some(help) = &diagnostic.help {
                write!(f, "\n{gutter} = help: {help}")?;
            }
        }
        match self.list.len().saturating_sub(MOST_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n\nand {more} more"),
        }
    }
}

impl std::error::Error for Diagnostics {}

impl Diagnostics {
    fn line_number(&self, place: &Range<usize>) -> usize {
        let start = floor_char_boundary(&self.source, place.start);
        self.source[..start].matches('\n').count() + 1
    }

    /// Line and column count from 1, in characters, as editors do.
    fn show_place(&self, f: &mut fmt::Formatter<'_>, place: &Range<usize>, gutter: &str) -> fmt::Result {
        let start = floor_char_boundary(&self.source, place.start);
        let line_start = self.source[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_number = self.line_number(place);
        let line = self.source[line_start..].lines().next().unwrap_or_default();
        let column = self.source[line_start..start].chars().count();
        // A place may reach over several lines; the pointer stays on its first.
        let line_end = line_start + line.len();
        let end = floor_char_boundary(&self.source, place.end).clamp(start, line_end.max(start));
        let width = self.source[start..end].trim_end().chars().count().max(1);

        let is_secret = secret_goes_on(&self.source[..line_start], line);
        let line = if is_secret { starred(line) } else { without_secrets(line) };
        let (shown, pointer_column) = window(&line, column);
        let width = width.min(shown.chars().count().saturating_sub(pointer_column)).max(1);
        write!(f, "\n{gutter}--> {}:{line_number}:{}", self.file, column + 1)?;
        write!(f, "\n{gutter} |\n{line_number} | {shown}")?;
        write!(f, "\n{gutter} | {}{}", " ".repeat(pointer_column), "^".repeat(width))
    }
}

fn floor_char_boundary(text: &str, offset: usize) -> usize {
    (0..=offset.min(text.len())).rev().find(|index| text.is_char_boundary(*index)).unwrap_or(0)
}

/// Tabs become single spaces so that pointers stand right; of long lines the part around `column` is left.
fn window(line: &str, column: usize) -> (String, usize) {
    let line: Vec<char> = line.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    if line.len() <= MOST_LINE_CHARS {
        return (line.into_iter().collect(), column);
    }
    let first = column.saturating_sub(MOST_LINE_CHARS / 2);
    let last = (first + MOST_LINE_CHARS).min(line.len());
    let before = if first > 0 { "…" } else { "" };
    let after = if last < line.len() { "…" } else { "" };
    let middle: String = line[first..last].iter().collect();
    (format!("{before}{middle}{after}"), column - first + before.chars().count())
}

/// The line with secrets starred out, as wide as before.
fn without_secrets(line: &str) -> String {
    let mut shown = without_lookalikes(line);
    for key in SECRET_KEYS {
        let mut from = 0;
        while let Some(found) = shown[from..].find(key) {
            let after_key = from + found + key.len();
            let value_start = shown[after_key..].find(':').map_or(shown.len(), |colon| after_key + colon + 1);
            // A hash holds commas itself, so only a comma with a space after it ends a value.
            let value = &shown[value_start..];
            let value_end = end_of_quoted(value)
                .unwrap_or_else(|| [", ", "}"].iter().filter_map(|end| value.find(end)).min().unwrap_or(value.len()));
            let stars = starred(&value[..value_end]);
            from = value_start + stars.len();
            shown.replace_range(value_start..value_start + value_end, &stars);
        }
    }
    shown
}

/// Where a value in quotes ends at the latest: a quote within may be what is wrong with the line. `None`: no quotes.
fn end_of_quoted(value: &str) -> Option<usize> {
    let quote = value.trim_start().chars().next().filter(|char| matches!(char, '\'' | '"'))?;
    let (first, last) = (value.find(quote)?, value.rfind(quote)?);
    Some(if last > first { last + 1 } else { value.len() })
}

/// A secret that does not stand beside its key (it is on the next line, or the key is misspelt) is known by its looks: a
/// password hash, or Base32 as long as a TOTP secret.
fn without_lookalikes(line: &str) -> String {
    const SHORTEST_SECRET_CHARS: usize = 16;
    let is_base32 = |word: &str| word.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7' | b'=' | b','));
    let is_secret = |word: &str| word.starts_with("$argon2") || word.len() >= SHORTEST_SECRET_CHARS && is_base32(word);
    let ends_word = |char: char| char.is_whitespace() || "\"'{}[]".contains(char);
    let mask = |piece: &str| {
        let word = piece.trim_end_matches(ends_word);
        if is_secret(word) { "*".repeat(word.chars().count()) + &piece[word.len()..] } else { piece.to_owned() }
    };
    line.split_inclusive(ends_word).map(mask).collect()
}

fn starred(text: &str) -> String {
    text.chars().map(|char| if char == ' ' { ' ' } else { '*' }).collect()
}

/// Whether `line` goes on with the value of a secret key that stands in a line `above` it: YAML lets a value begin, or
/// continue, on lines that are indented more than their key.
fn secret_goes_on(above: &str, line: &str) -> bool {
    let indent = |line: &str| line.len() - line.trim_start().len();
    // The column that the lines of an unfinished secret are right of.
    let mut open: Option<usize> = None;
    for line in above.lines().filter(|line| !line.trim().is_empty()) {
        if open.is_some_and(|column| indent(line) > column) {
            continue;
        }
        let last = SECRET_KEYS.iter().filter_map(|key| Some((line.rfind(key)?, key.len()))).max();
        open = last.and_then(|(at, key_length)| {
            let in_braces = line[..at].contains('{');
            let is_finished = in_braces && line[at + key_length..].contains([',', '}']);
            (!is_finished).then_some(if in_braces { indent(line) } else { at })
        });
    }
    open.is_some_and(|column| indent(line) > column)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(source: &str, place: Range<usize>, help: Option<&str>) -> String {
        let diagnostic = Diagnostic { place: Some(place), message: "no".into(), help: help.map(Into::into) };
        Diagnostics::new("lb.yaml", source, vec![diagnostic]).to_string()
    }

    #[test]
    fn a_pointer_stands_under_its_culprit() {
        let source = "a: 1\nbüro:\tx y\n";
        let expected = "error: no\n --> lb.yaml:2:7\n  |\n2 | büro: x y\n  |       ^^^\n  = help: yes";
        assert_eq!(shown(source, 12..15, Some("yes")), expected);
    }

    #[test]
    fn places_at_the_edges_are_shown_too() {
        let rows = [
            ("", 0..0, "error: no\n --> lb.yaml:1:1\n  |\n1 | \n  | ^"),
            ("a\n", 9..99, "error: no\n --> lb.yaml:2:1\n  |\n2 | \n  | ^"),
            ("ab\ncd\n", 1..5, "error: no\n --> lb.yaml:1:2\n  |\n1 | ab\n  |  ^"),
            ("é", 1..1, "error: no\n --> lb.yaml:1:1\n  |\n1 | é\n  | ^"),
        ];
        for (source, place, expected) in rows {
            assert_eq!(shown(source, place.clone(), None), expected, "{source:?} {place:?}");
        }
    }

    #[test]
    fn a_long_line_is_cut_around_the_culprit() {
        let source = format!("{}culprit{}", "a".repeat(500), "b".repeat(500));
        let shown = shown(&source, 500..507, None);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[1], " --> lb.yaml:1:501");
        let at = lines[4].find('^').unwrap();
        assert_eq!(lines[4].matches('^').count(), 7);
        assert_eq!(lines[3].chars().skip(at).take(7).collect::<String>(), "culprit");
        assert!(lines[3].chars().count() < 130);
    }

    #[test]
    fn secrets_are_never_shown() {
        let rows = [
            ("    totp_secret: JBSWY3DP", "    totp_secret: ********"),
            ("{totp_secret: JBSWY3DP, x: 1}", "{totp_secret: ********, x: 1}"),
            (
                "- {password_hash: '$argon2id$v=19$m=1,t=2$a$b', totp_secret: AB}",
                "- {password_hash: ****************************, totp_secret: **}",
            ),
            ("client_secret: 'it's, so: open'", "client_secret: ****** *** *****"),
            ("client_secret: 'open, ended", "client_secret: ****** *****"),
            ("totp_secret", "totp_secret"),
            ("      JBSWY3DPEHPK3PXP", "      ****************"),
            ("{totp-secret: 'JBSWY3DPEHPK3PXP', x: 1}", "{totp-secret: '****************', x: 1}"),
            ("  '$argon2id$v=19$m=1,t=2$a$b'", "  '**************************'"),
            (
                "path: /UPPER/CASE, method: DELETE, DEEPLYNESTEDKEY1: x",
                "path: /UPPER/CASE, method: DELETE, DEEPLYNESTEDKEY1: x",
            ),
        ];
        for (line, expected) in rows {
            assert_eq!(without_secrets(line), expected);
        }
    }

    #[test]
    fn a_secret_on_lines_of_its_own_is_not_shown_either() {
        let rows = [
            ("- name: a\n  totp_secret:\n    ABC\n", "ABC", "***"),
            ("- totp_secret: >-\n    XYZ\n\n    ABC\n", "ABC", "***"),
            ("- totp_secret: \"XYZ\n    ABC\"\n", "ABC", "****"),
            ("- {totp_secret:\n   ABC}\n", "ABC", "****"),
            ("- \"password_hash\":\n    ABC\n", "ABC", "***"),
            ("- totp_secret: XYZ\n  name: ABC\n", "ABC", "name: ABC"),
            ("- {totp_secret: XYZ,\n   name: ABC}\n", "ABC", "name: ABC}"),
            ("- totp_secret:\n    XYZ\n- name: ABC\n", "ABC", "- name: ABC"),
        ];
        for (source, culprit, expected) in rows {
            let at = source.find(culprit).unwrap();
            let shown = shown(source, at..at + 1, None);
            let line = shown.lines().nth(3).and_then(|line| line.split_once(" | ")).unwrap().1;
            assert_eq!(line.trim_start(), expected, "{source}");
        }
    }

    #[test]
    fn too_many_mistakes_are_counted() {
        let one = Diagnostic { place: None, message: "no".into(), help: None };
        let text = Diagnostics::new("lb.yaml", "", vec![one; 60]).to_string();
        assert_eq!(text.matches("error: no").count(), 50);
        assert!(text.ends_with("\n\nand 10 more"));
    }
}
