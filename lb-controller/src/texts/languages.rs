//! `Accept-Language` (RFC 9110 §12.5.4), matched by lookup (RFC 4647 §3.4).

/// Ranges beyond these are not looked at: browsers send a handful.
const MOST_RANGES: usize = 16;

/// Which of `tags` suits best; `None`: none is asked for. Of two that are wanted as much, the one named first.
pub(super) fn choose(accept_language: &str, tags: &[&str]) -> Option<usize> {
    let ranges = accept_language.split(',').take(MOST_RANGES).filter_map(range);
    let mut best: Option<(u16, usize)> = None;
    for (wanted, weight) in ranges {
        let Some(index) = lookup(wanted, tags) else { continue };
        if weight > best.map_or(0, |(weight, _)| weight) {
            best = Some((weight, index));
        }
    }
    best.map(|(_, index)| index)
}

/// A range and its weight in thousandths; `None`: it is none.
fn range(text: &str) -> Option<(&str, u16)> {
    let (range, parameter) = text.split_once(';').unwrap_or((text, "q=1"));
    let weight = parameter.trim().strip_prefix(['q', 'Q'])?.strip_prefix('=')?;
    let weight: f32 = weight.parse().ok().filter(|weight| (0.0..=1.0).contains(weight))?;
    // Rounded, and within 0 to 1000.
    Some((range.trim(), (weight * 1000.0).round() as u16))
}

/// The tag that is the range, or else its beginning: `de` for `de-CH`.
fn lookup(range: &str, tags: &[&str]) -> Option<usize> {
    if range == "*" {
        return (!tags.is_empty()).then_some(0);
    }
    let mut range = range;
    loop {
        if let Some(index) = tags.iter().position(|tag| tag.eq_ignore_ascii_case(range)) {
            return Some(index);
        }
        (range, _) = range.rsplit_once('-')?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_language_that_is_wanted_most_is_chosen() {
        let many_others = format!("{}de", "xx,".repeat(MOST_RANGES));
        let rows: &[(&str, Option<&str>)] = &[
            ("de", Some("de")),
            ("de-CH, fr;q=0.8", Some("de")),
            ("fr;q=0.5, de;q=0.9", Some("de")),
            ("fr, de", Some("fr")),
            ("FR-ca", Some("fr")),
            ("it, fr;q=0.1", Some("fr")),
            ("de;q=0", None),
            ("de;q=0, fr;q=0.2", Some("fr")),
            ("*", Some("en")),
            ("it, *;q=0.5", Some("en")),
            ("it", None),
            ("", None),
            ("de;q=2, fr;q=x, en;q=-1", None),
            ("de;q=NaN, fr;q=inf", None),
            ("pt-br, pt", Some("pt-br")),
            ("pt", None),
            (&many_others, None),
        ];
        let tags = ["en", "de", "fr", "pt-br"];
        for (accepted, language) in rows {
            assert_eq!(choose(accepted, &tags).map(|index| tags[index]), *language, "{accepted}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read(text in "\\PC{0,80}", header in "[a-z,;=q.0-9* -]{0,80}") {
            let tags = ["en", "de"];
            for accepted in [text, header] {
                prop_assert!(choose(&accepted, &tags).is_none_or(|index| index < tags.len()));
            }
        }
    }
}
