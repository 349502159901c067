//! What a proof for one request approves: as a text that people read and developer keys sign, and as the hash that
//! passkeys sign.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use lb_policy::{ShownFact, UnixSeconds};

use super::super::random_id::hex;

/// Everything a proof for one request commits to.
#[derive(Clone, Debug)]
pub(crate) struct Approval<'a> {
    pub(crate) user: &'a str,
    pub(crate) authority: &'a str,
    pub(crate) method: &'a str,
    /// Path and query as they go on.
    pub(crate) target: &'a str,
    /// What rules show of the body.
    pub(crate) facts: &'a [ShownFact],
    /// Of the body; `None` when it was not read.
    pub(crate) body_sha256: Option<[u8; 32]>,
    pub(crate) nonce: [u8; 32],
    pub(crate) expires_at: UnixSeconds,
}

/// Both forms of one approval: each says all of it.
#[derive(Clone, Debug)]
pub(in crate::stepup) struct Approved {
    pub(in crate::stepup) text: String,
    pub(in crate::stepup) commitment: [u8; 32],
}

/// The first part of what is hashed: no hash made for anything else is one of ours.
const DOMAIN: &[u8] = b"lb-txn-v1";

impl Approval<'_> {
    pub(in crate::stepup) fn both_forms(&self) -> Approved {
        Approved { text: self.text(), commitment: self.commitment() }
    }

    /// One line a fact. Values are written as JSON strings, so that none can begin a line of its own.
    pub(crate) fn text(&self) -> String {
        let body = self.body_sha256.map_or("not read".to_owned(), |hash| hex(&hash));
        let mut text = String::from("lb step-up 1\n");
        for (name, value) in [
            ("user", quoted(self.user)),
            ("authority", quoted(self.authority)),
            ("method", quoted(self.method)),
            ("target", quoted(self.target)),
            ("body-sha256", body),
        ] {
            let _ = writeln!(text, "{name}: {value}");
        }
        for fact in self.facts {
            let value = fact.value.as_deref().map_or("missing".to_owned(), quoted);
            let _ = writeln!(text, "fact: {} = {value}", quoted(&fact.name));
        }
        let _ = writeln!(text, "expires: {}", self.expires_at);
        let _ = writeln!(text, "nonce: {}", hex(&self.nonce));
        text
    }

    /// SHA-256 over all parts in a fixed order, each behind its length (64 bits, big-endian), so that no two approvals
    /// are encoded alike.
    pub(crate) fn commitment(&self) -> [u8; 32] {
        let mut encoded = Vec::with_capacity(512);
        let mut put = |part: &[u8]| {
            encoded.extend_from_slice(&(part.len() as u64).to_be_bytes());
            encoded.extend_from_slice(part);
        };
        put(DOMAIN);
        put(&self.nonce);
        for part in [self.user, self.method, self.authority, self.target] {
            put(part.as_bytes());
        }
        put(&(self.facts.len() as u64).to_be_bytes());
        for fact in self.facts {
            put(fact.name.as_bytes());
            put(fact.kind.to_string().as_bytes());
            put(&[u8::from(fact.value.is_some())]);
            put(fact.value.as_deref().unwrap_or_default().as_bytes());
        }
        put(&[u8::from(self.body_sha256.is_some())]);
        put(&self.body_sha256.unwrap_or_default());
        put(&self.expires_at.to_be_bytes());
        digest(&SHA256, &encoded).as_ref().try_into().expect("SHA-256 gives 32 bytes")
    }
}

/// A JSON string, in which whatever would not be seen, or would turn the text around, is an escape.
fn quoted(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 2);
    for character in serde_json::Value::from(value).to_string().chars() {
        if character.is_ascii() || is_seen(character) {
            quoted.push(character);
        } else {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                let _ = write!(quoted, "\\u{unit:04x}");
            }
        }
    }
    quoted
}

/// It leaves a mark where it stands: no control, no mark of direction, no joiner, nothing unassigned.
pub(in crate::stepup) fn is_seen(character: char) -> bool {
    // Of a text, unlike of a character alone, marks that combine with the one before are not escaped.
    let pair: String = ['x', character].iter().collect();
    let escapes_nothing = pair.escape_debug().count() == 2 || matches!(character, '"' | '\'' | '\\');
    escapes_nothing && !is_blank(character)
}

/// Letters and marks that fonts draw as nothing: Default_Ignorable_Code_Point of Unicode as far as it is not escaped anyway,
/// and the empty pattern of Braille.
fn is_blank(character: char) -> bool {
    matches!(character,
        '\u{34f}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{2800}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0100}'..='\u{e01ef}')
}

#[cfg(test)]
mod tests {
    use lb_policy::BodyFactKind;

    use super::*;

    #[test]
    fn what_nobody_would_see_is_written_out() {
        let rows = [
            ("Ann", r#""Ann""#),
            ("Zoë ✓ 日本", r#""Zoë ✓ 日本""#),
            ("e\u{301}", "\"e\u{301}\""),
            ("a\u{202e}b", r#""a\u202eb""#),
            ("a\u{200b}b\u{a0}", r#""a\u200bb\u00a0""#),
            ("\u{e0041}", r#""\udb40\udc41""#),
            ("A\u{3164}\u{2800}\u{34f}\u{fe0f}", r#""A\u3164\u2800\u034f\ufe0f""#),
            ("say \"no\"", r#""say \"no\"""#),
        ];
        for (value, written) in rows {
            assert_eq!(quoted(value), written);
            assert_eq!(serde_json::from_str::<String>(&quoted(value)).unwrap(), value);
        }
    }

    fn facts(facts: &[(&str, Option<&str>)]) -> Vec<ShownFact> {
        let fact = |(name, value): &(&str, Option<&str>)| ShownFact {
            name: (*name).to_owned(),
            kind: BodyFactKind::Text,
            value: value.map(str::to_owned),
        };
        facts.iter().map(fact).collect()
    }

    fn approval(facts: &[ShownFact]) -> Approval<'_> {
        Approval {
            user: "alice",
            authority: "shop.example",
            method: "POST",
            target: "/refunds",
            facts,
            body_sha256: Some([7; 32]),
            nonce: [9; 32],
            expires_at: 1000,
        }
    }

    #[test]
    fn every_part_changes_the_text_and_the_hash() {
        let shown = facts(&[("amount", Some("900.00"))]);
        let [other, missing, moved, more] = [
            facts(&[("amount", Some("900.01"))]),
            facts(&[("amount", None)]),
            facts(&[("amount9", Some("00.00"))]),
            facts(&[("amount", Some("900.00")), ("payee", Some("Ann"))]),
        ];
        let base = approval(&shown);
        let rows = [
            ("the user", Approval { user: "bob", ..base.clone() }),
            ("the host", Approval { authority: "blog.example", ..base.clone() }),
            ("the method", Approval { method: "PUT", ..base.clone() }),
            ("the target", Approval { target: "/refunds?to=me", ..base.clone() }),
            ("a fact", Approval { facts: &other, ..base.clone() }),
            ("a fact that is missing", Approval { facts: &missing, ..base.clone() }),
            ("the border of a name", Approval { facts: &moved, ..base.clone() }),
            ("one more fact", Approval { facts: &more, ..base.clone() }),
            ("no facts", Approval { facts: &[], ..base.clone() }),
            ("the body", Approval { body_sha256: Some([8; 32]), ..base.clone() }),
            ("no body", Approval { body_sha256: None, ..base.clone() }),
            ("the nonce", Approval { nonce: [1; 32], ..base.clone() }),
            ("the time", Approval { expires_at: 1001, ..base.clone() }),
        ];
        for (name, other) in rows {
            assert_ne!(other.text(), base.text(), "{name}");
            assert_ne!(other.commitment(), base.commitment(), "{name}");
        }
        assert_eq!((base.text(), base.commitment()), (base.clone().text(), base.clone().commitment()));
    }

    #[test]
    fn no_value_can_pass_for_a_line_of_its_own() {
        let shown = facts(&[("note", Some("x\nfact: \"amount\" = \"1.00\""))]);
        let text = approval(&shown).text();
        assert_eq!(text.lines().filter(|line| line.starts_with("fact: ")).count(), 1, "{text}");
    }
}
