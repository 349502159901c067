//! Facts of a request as people are shown them before they approve it.

use lb_policy::ShownFact;
use serde_json::{Map, Value};

use super::factor::approval::is_seen;
use crate::texts::Texts;

/// Nobody reads more, and what is cut off is not seen: a request with a longer value cannot be approved.
pub(super) const LONGEST_CHARS: usize = 256;

/// The first fact that is too long to be shown.
pub(super) fn too_long(facts: &[ShownFact]) -> Option<&ShownFact> {
    facts.iter().find(|fact| fact.value.as_ref().is_some_and(|value| value.chars().count() > LONGEST_CHARS))
}

/// `{"amount": "900.00", "payee": null}`: all values are texts, and those that are missing null.
pub(super) fn as_json(facts: &[ShownFact]) -> Value {
    let entry = |fact: &ShownFact| (fact.name.clone(), fact.value.clone().map_or(Value::Null, Value::from));
    Value::Object(facts.iter().map(entry).collect::<Map<_, _>>())
}

/// For mails and, in English, the audit trail, such as `amount=900.00, payee=Ann`; `None`: nothing is shown.
pub(super) fn in_words(texts: &Texts, facts: &[ShownFact]) -> Option<String> {
    let words = facts.iter().map(|fact| for_page(texts, fact)).map(|(name, value)| format!("{name}={value}"));
    (!facts.is_empty()).then(|| words.collect::<Vec<_>>().join(", "))
}

/// Name and value for a page. What would not be seen, or would turn the text around it, is written out: `\\u{202e}`.
pub(super) fn for_page<'f>(texts: &Texts, fact: &'f ShownFact) -> (&'f str, String) {
    let value = match fact.value.as_deref() {
        None => texts.not_given().to_string(),
        Some("") => texts.empty().to_string(),
        Some(value) => value.chars().fold(String::with_capacity(value.len()), |mut shown, character| {
            match is_seen(character) {
                true => shown.push(character),
                false => shown.extend(character.escape_unicode()),
            }
            shown
        }),
    };
    (&fact.name, value)
}

#[cfg(test)]
mod tests {
    use lb_policy::BodyFactKind;

    use super::*;
    use crate::texts::english;

    fn fact(value: Option<&str>) -> ShownFact {
        ShownFact { name: "payee".to_owned(), kind: BodyFactKind::Text, value: value.map(str::to_owned) }
    }

    #[test]
    fn a_value_is_shown_so_that_it_passes_for_no_other() {
        let rows = [
            (Some("Ann <b>"), "Ann <b>"),
            (Some("a\u{202e}b\nc"), "a\\u{202e}b\\u{a}c"),
            (Some(" "), " "),
            (Some(""), "empty"),
            (None, "not given"),
        ];
        for (value, shown) in rows {
            assert_eq!(for_page(english(), &fact(value)), ("payee", shown.to_owned()));
        }
    }

    #[test]
    fn what_is_longer_than_a_glance_is_found() {
        let facts = [fact(None), fact(Some(&"é".repeat(LONGEST_CHARS))), fact(Some(&"x".repeat(LONGEST_CHARS + 1)))];
        assert_eq!(too_long(&facts), Some(&facts[2]));
        assert_eq!(too_long(&facts[..2]), None);
    }
}
