//! The text that says what is approved. Passkeys commit to its hash, developer keys sign it, and people read it first.

use std::fmt::Write as _;

use lb_policy::UnixSeconds;

use super::super::random_id::hex;

/// Everything a proof for one request commits to.
#[derive(Clone, Debug)]
pub(crate) struct Approval<'a> {
    pub(crate) user: &'a str,
    pub(crate) authority: &'a str,
    pub(crate) method: &'a str,
    /// Path and query as they go on.
    pub(crate) target: &'a str,
    /// Names and values that rules show.
    pub(crate) facts: &'a [(String, String)],
    /// Of the body; `None` when it was not read.
    pub(crate) body_sha256: Option<[u8; 32]>,
    pub(crate) nonce: [u8; 32],
    pub(crate) expires_at: UnixSeconds,
}

impl Approval<'_> {
    /// One line a fact. Values are written as JSON strings, so that none can begin a line of its own.
    pub(crate) fn text(&self) -> String {
        let body = self.body_sha256.map_or("not read".to_owned(), |hash| hex(&hash));
        let quoted = |value: &str| serde_json::Value::from(value).to_string();
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
        for (name, value) in self.facts {
            let _ = writeln!(text, "fact: {} = {}", quoted(name), quoted(value));
        }
        let _ = writeln!(text, "expires: {}", self.expires_at);
        let _ = writeln!(text, "nonce: {}", hex(&self.nonce));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn approval(facts: &[(String, String)]) -> Approval<'_> {
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
    fn every_part_changes_the_text() {
        let facts = [("amount".to_owned(), "900.00".to_owned())];
        let other_facts = [("amount".to_owned(), "900.01".to_owned())];
        let base = approval(&facts);
        let rows = [
            ("the user", Approval { user: "bob", ..base.clone() }),
            ("the host", Approval { authority: "blog.example", ..base.clone() }),
            ("the method", Approval { method: "PUT", ..base.clone() }),
            ("the target", Approval { target: "/refunds?to=me", ..base.clone() }),
            ("a fact", Approval { facts: &other_facts, ..base.clone() }),
            ("no facts", Approval { facts: &[], ..base.clone() }),
            ("the body", Approval { body_sha256: Some([8; 32]), ..base.clone() }),
            ("no body", Approval { body_sha256: None, ..base.clone() }),
            ("the nonce", Approval { nonce: [1; 32], ..base.clone() }),
            ("the time", Approval { expires_at: 1001, ..base.clone() }),
        ];
        for (name, other) in rows {
            assert_ne!(other.text(), base.text(), "{name}");
        }
        assert_eq!(base.clone().text(), base.text());
    }

    #[test]
    fn no_value_can_pass_for_a_line_of_its_own() {
        let facts = [("note".to_owned(), "x\nfact: \"amount\" = \"1.00\"".to_owned())];
        let text = approval(&facts).text();
        assert_eq!(text.lines().filter(|line| line.starts_with("fact: ")).count(), 1, "{text}");
    }
}
