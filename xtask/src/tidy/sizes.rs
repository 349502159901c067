//! A file is one room, a function one thought.

use super::{Complaint, Source};

const FILE_LINES_AT_MOST: usize = 500;
const FUNCTION_LINES_AT_MOST: usize = 80;

pub(super) fn files(source: &Source) -> Vec<Complaint> {
    let lines = source.text.lines().count();
    if lines <= FILE_LINES_AT_MOST {
        return Vec::new();
    }
    vec![source.complain(1, format!("{lines} lines; more than {FILE_LINES_AT_MOST} are more than one thing"))]
}

/// Tests may be longer: a table of rows is long by being complete.
///
/// rustfmt closes a function with a brace at the column where the function began; that is all the parsing it needs.
pub(super) fn functions(source: &Source) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    let mut open: Option<(usize, usize, &str)> = None;
    let mut is_test = false;
    for (number, line) in source.lines() {
        let indent = line.len() - line.trim_start().len();
        match open {
            None if begins_function(line.trim_start()) && !line.trim_end().ends_with([';', '}']) => {
                open = Some((number, indent, name(line)));
            }
            Some((start, column, name)) if indent == column && line.trim_start().starts_with('}') => {
                let lines = number + 1 - start;
                if lines > FUNCTION_LINES_AT_MOST && !is_test {
                    complaints.push(source.complain(start, format!("function {name} has {lines} lines, not ≤80")));
                }
                (open, is_test) = (None, false);
            }
            None if line.trim_end().ends_with("test]") => is_test = true,
            None if begins_function(line.trim_start()) => is_test = false,
            // A declaration without a body, spread over lines.
            Some((_, column, _)) if indent == column && line.trim_end().ends_with(';') => open = None,
            _ => {}
        }
    }
    complaints
}

fn begins_function(line: &str) -> bool {
    let mut words = line.split(' ').skip_while(|word| {
        matches!(*word, "pub" | "async" | "unsafe" | "const" | "extern" | "\"C\"") || word.starts_with("pub(")
    });
    words.next() == Some("fn")
}

fn name(line: &str) -> &str {
    let rest = line.split_once("fn ").map_or("", |(_, rest)| rest);
    rest.split(['(', '<']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::complaints_about;
    use super::*;

    #[test]
    fn a_long_function_is_named_and_a_short_one_is_not() {
        let body = "        let x = if y { 1 } else { 2 };\n".repeat(79);
        let long = format!("impl A {{\n    pub(crate) async fn long<T>(\n        a: T,\n    ) {{\n{body}    }}\n}}\n");
        let found = complaints_about(functions, "a.rs", &long);
        assert_eq!(found, ["2: function long has 83 lines, not ≤80"]);
        assert_eq!(complaints_about(functions, "a.rs", &long.replace("    pub", "    #[test]\n    pub")), [""; 0]);
        let short = "trait T {\n    fn declared(\n        a: u8,\n    );\n    fn short() {\n    }\n}\n";
        assert_eq!(complaints_about(functions, "a.rs", short), Vec::<String>::new());
    }

    #[test]
    fn a_file_may_have_500_lines() {
        assert_eq!(complaints_about(files, "a.rs", &"\n".repeat(500)), Vec::<String>::new());
        assert_eq!(complaints_about(files, "a.rs", &"\n".repeat(501)).len(), 1);
    }
}
