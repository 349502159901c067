//! What kind of device a client says it is: a hint for rules, never a proof.

use lb_policy::HeaderLookup;

/// By client hints (`Sec-CH-UA-Mobile`, `Sec-CH-UA-Platform`), and where there are none by `User-Agent`.
///
/// `desktop`, `mobile`, `tablet` or `script`; `None` when nothing is said.
pub(super) fn of(headers: &dyn HeaderLookup) -> Option<&'static str> {
    let user_agent = headers.header("user-agent").unwrap_or_default();
    let has = |word: &str| user_agent.contains(word);
    let platform = headers.header("sec-ch-ua-platform").map(|platform| platform.trim_matches('"'));
    match (headers.header("sec-ch-ua-mobile"), platform) {
        (Some("?1"), _) => return Some("mobile"),
        (Some("?0"), Some("Android" | "iOS")) => return Some("tablet"),
        (Some("?0"), _) => return Some("desktop"),
        _ => {}
    }
    if user_agent.is_empty() {
        return None;
    }
    if has("iPad") || has("Tablet") || (has("Android") && !has("Mobile")) {
        Some("tablet")
    } else if has("Mobile") || has("iPhone") {
        Some("mobile")
    } else if user_agent.starts_with("Mozilla/") {
        Some("desktop")
    } else {
        Some("script")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Headers(&'static [(&'static str, &'static str)]);

    impl HeaderLookup for Headers {
        fn header(&self, name: &str) -> Option<&str> {
            self.0.iter().find(|row| row.0 == name).map(|row| row.1)
        }

        fn has(&self, name: &str) -> bool {
            self.header(name).is_some()
        }
    }

    #[test]
    fn a_device_is_what_it_says_it_is() {
        const UA: &str = "user-agent";
        type Row = (&'static str, &'static [(&'static str, &'static str)], Option<&'static str>);
        let rows: &[Row] = &[
            (
                "hints of a phone",
                &[("sec-ch-ua-mobile", "?1"), (UA, "Mozilla/5.0 (X11; Linux x86_64)")],
                Some("mobile"),
            ),
            ("hints of a desktop", &[("sec-ch-ua-mobile", "?0"), ("sec-ch-ua-platform", "\"Linux\"")], Some("desktop")),
            ("hints of a tablet", &[("sec-ch-ua-mobile", "?0"), ("sec-ch-ua-platform", "\"Android\"")], Some("tablet")),
            ("hints that are none", &[("sec-ch-ua-mobile", "yes"), (UA, "curl/8.0")], Some("script")),
            (
                "Firefox",
                &[(UA, "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")],
                Some("desktop"),
            ),
            (
                "an iPhone",
                &[(UA, "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Mobile/15E148")],
                Some("mobile"),
            ),
            ("an iPad", &[(UA, "Mozilla/5.0 (iPad; CPU OS 17_0 like Mac OS X) Mobile/15E148")], Some("tablet")),
            ("an Android tablet", &[(UA, "Mozilla/5.0 (Linux; Android 14; SM-X710) Safari/537.36")], Some("tablet")),
            ("curl", &[(UA, "curl/8.14.1")], Some("script")),
            ("nothing", &[], None),
        ];
        for (name, headers, expected) in rows {
            assert_eq!(of(&Headers(headers)), *expected, "{name}");
        }
    }
}
