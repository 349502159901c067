//! "Did you mean …?"

use alloc::vec::Vec;

/// The name among `known` that `written` most likely stands for; `None` when nothing is near.
pub fn closest_name<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters may be wrong: `sesion.user` finds `session.user`, `foo` finds nothing.
    let most_edits = (written.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|name| (edit_distance(&written.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(edits, _)| *edits <= most_edits)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `left` into `right`.
fn edit_distance(left: &str, right: &str) -> usize {
    // Longer names are never typed by hand; the table below must stay small whatever a file holds.
    const MOST_CHARS: usize = 64;
    let left: Vec<char> = left.chars().take(MOST_CHARS).collect();
    let right: Vec<char> = right.chars().take(MOST_CHARS).collect();
    let mut rows: Vec<Vec<usize>> = Vec::with_capacity(left.len() + 1);
    rows.push((0..=right.len()).collect());
    for (i, left_char) in left.iter().enumerate() {
        let mut row = Vec::with_capacity(right.len() + 1);
        row.push(i + 1);
        for (j, right_char) in right.iter().enumerate() {
            let replaced = rows[i][j] + usize::from(left_char != right_char);
            let mut edits = replaced.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && left[i - 1] == *right_char && left[i] == right[j - 1] {
                edits = edits.min(rows[i - 1][j - 1] + 1);
            }
            row.push(edits);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_a_stranger_finds_none() {
        let known = ["session.user", "session.groups", "request.path", "password", "totp"];
        let rows = [
            ("sesion.user", Some("session.user")),
            ("session.group", Some("session.groups")),
            ("Request.Path", Some("request.path")),
            ("toptp", Some("totp")),
            ("ttop", Some("totp")),
            ("passwrod", Some("password")),
            ("geo.country", None),
            ("", None),
        ];
        for (written, expected) in rows {
            assert_eq!(closest_name(written, known), expected, "{written}");
        }
    }
}
