//! Words that must not stand in the sources.

use std::path::Path;

use super::{Complaint, Source};

/// Promises instead of code. Spelt in two halves, or this file would be the first to break the rule.
const LOOSE_ENDS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("#[ig", "nore"),
];

pub(super) fn loose_ends(source: &Source) -> Vec<Complaint> {
    let words_of = |line: &str| LOOSE_ENDS.iter().copied().find(|&word| line.contains(word));
    let found = source.lines().filter_map(|(number, line)| Some((number, words_of(line)?)));
    found.map(|(number, word)| source.complain(number, format!("{word}: finish it, or write it in an issue"))).collect()
}

/// Maps have one writer, and it is lb-datapath. Cargo holds the dependency; this holds a dependency that creeps in.
pub(super) fn aya(source: &Source) -> Vec<Complaint> {
    let controller = source.path.starts_with("lb-controller/src") || source.path.starts_with("lb-controller/tests");
    if !controller && !source.path.starts_with(Path::new("lb-controller/policy")) {
        return Vec::new();
    }
    let named = source.lines().filter(|(_, line)| line.contains("aya::") || line.contains("use aya"));
    named.map(|(number, _)| source.complain(number, "aya is lb-datapath's business alone")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::complaints_about;
    use super::*;

    #[test]
    fn a_promise_is_found_where_it_stands() {
        let text = format!("fn a() {{\n    // {}: later\n}}\n", LOOSE_ENDS[0]);
        assert_eq!(complaints_about(loose_ends, "a.rs", &text).len(), 1);
        assert!(complaints_about(loose_ends, "a.rs", &text)[0].starts_with("2: "));
    }

    #[test]
    fn aya_may_be_named_in_the_datapath_and_nowhere_else_in_the_controller() {
        for (path, complaints) in [
            ("lb-controller/src/run.rs", 1),
            ("lb-controller/policy/src/lib.rs", 1),
            ("lb-controller/datapath/src/load.rs", 0),
            ("tests/src/program.rs", 0),
        ] {
            assert_eq!(complaints_about(aya, path, "use aya::Ebpf;\n").len(), complaints, "{path}");
        }
    }
}
