//! Text to syntax tree, with bounds and errors in our words.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use cel::common::ast::{Expr, IdedExpr, SourceInfo};
use cel::parser::{ParseError, Parser};

use super::ConditionError;
use crate::rule::Span;

/// Longer conditions are refused. The parser has no limit of its own on width, and 20,000 terms take it 250 ms.
const MAX_BYTES: usize = 2048;

/// Deeper brackets are refused before the parser sees them: it needs up to 200 KiB of stack a level when built without
/// optimisation, so twelve levels end a thread with the usual 2 MiB.
const MAX_NESTING: usize = 8;

/// Deeper trees are refused, since the checker calls itself once a level. Long chains of `&&` or `||` come as balanced
/// trees, so only chains of other operators get there without brackets.
const MAX_DEPTH: usize = 48;

/// A parsed condition and where its parts stand in the text.
pub(super) struct Syntax<'a> {
    pub(super) text: &'a str,
    pub(super) root: IdedExpr,
    pub(super) positions: SourceInfo,
}

pub(super) fn parse(text: &str) -> Result<Syntax<'_>, Vec<ConditionError>> {
    let whole = Span { offset: 0, length: text.len() };
    let refuse = |message: String, help: &str| {
        Err(vec![ConditionError { span: whole, message, help: (!help.is_empty()).then(|| help.to_owned()) }])
    };
    if text.trim().is_empty() {
        return refuse("the condition is empty".into(), "leave `when` out to apply the rule to every matching request");
    }
    if text.len() > MAX_BYTES {
        let message = format!("the condition has {} bytes; at most {MAX_BYTES} are read", text.len());
        return refuse(message, "split it into several rules: all rules that match apply");
    }
    if let Some(span) = too_deep(text) {
        let message = format!("brackets more than {MAX_NESTING} deep");
        let help = Some("split the condition into several rules: all rules that match apply".into());
        return Err(vec![ConditionError { span, message, help }]);
    }
    match Parser::new().parse_with_source_info(text) {
        Ok((root, _)) if is_deeper_than(MAX_DEPTH, &root) => {
            refuse("too many operators in a row".into(), "`&&` and `||` may be chained; nothing else needs to be")
        }
        Ok((root, positions)) => Ok(Syntax { text, root, positions }),
        // The parser guesses on after a syntax error, and what it says then is noise: the first one is told.
        Err(errors) => Err(errors.errors.first().map(|error| vec![in_our_words(text, error)]).unwrap_or_default()),
    }
}

fn in_our_words(text: &str, error: &ParseError) -> ConditionError {
    let span = span_at(text, error.pos);
    let found = text.get(span.offset..span.offset + span.length).unwrap_or_default();
    let (message, help) = if error.msg.contains("Recursion limit") {
        ("nested too deeply".into(), None)
    } else if error.msg.contains("has()") {
        (
            "`has(…)` takes a fact, such as `has(body.amount)`".into(),
            Some("for a header, write `\"x-name\" in request.headers`".into()),
        )
    } else if let Some(problem) = error.msg.strip_prefix("Syntax error: ") {
        if found.is_empty() || problem.contains("'<EOF>'") {
            ("the condition ends too early".into(), None)
        } else if problem.starts_with("token recognition error") {
            (
                format!("`{found}` begins no word, number, text or operator"),
                quote_help(found).or_else(|| operator_help(found)),
            )
        } else {
            (format!("did not expect `{found}` here"), operator_help(found))
        }
    } else {
        (error.msg.clone(), None)
    };
    ConditionError { span, message, help }
}

fn quote_help(found: &str) -> Option<String> {
    found.starts_with(['"', '\'']).then(|| "the text has no closing quote".into())
}

fn operator_help(found: &str) -> Option<String> {
    let meant = match found {
        "=" => "==",
        "&" | "and" => "&&",
        "|" | "or" => "||",
        "not" => "!",
        _ => return None,
    };
    Some(format!("write `{meant}`"))
}

/// Goes no deeper than `levels`, whatever the tree is.
fn is_deeper_than(levels: usize, part: &IdedExpr) -> bool {
    let Some(levels) = levels.checked_sub(1) else {
        return true;
    };
    match &part.expr {
        Expr::Call(call) => {
            call.target.iter().any(|target| is_deeper_than(levels, target))
                || call.args.iter().any(|argument| is_deeper_than(levels, argument))
        }
        Expr::Select(select) => is_deeper_than(levels, &select.operand),
        Expr::List(list) => list.elements.iter().any(|element| is_deeper_than(levels, element)),
        Expr::Comprehension(comprehension) => {
            is_deeper_than(levels, &comprehension.iter_range) || is_deeper_than(levels, &comprehension.loop_step)
        }
        // Everything else is refused without being looked into.
        _ => false,
    }
}

/// The first bracket beyond the permitted depth. Brackets in texts and comments do not count.
fn too_deep(text: &str) -> Option<Span> {
    let mut depth = 0_usize;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let raw = rest.starts_with(['r', 'R']) && rest[1..].starts_with(['"', '\'']);
        rest = match first {
            _ if raw => after_quoted(&rest[1..], true),
            '"' | '\'' => after_quoted(rest, false),
            '/' if rest.starts_with("//") => rest.split_once('\n').map_or("", |(_, after)| after),
            _ => {
                match first {
                    '(' | '[' | '{' => depth += 1,
                    ')' | ']' | '}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                if depth > MAX_NESTING {
                    return Some(Span { offset: text.len() - rest.len(), length: 1 });
                }
                &rest[first.len_utf8()..]
            }
        };
    }
    None
}

/// What follows the quoted text that `rest` begins with; nothing when it does not end.
fn after_quoted(rest: &str, raw: bool) -> &str {
    let quote_length = if rest.starts_with("\"\"\"") || rest.starts_with("'''") { 3 } else { 1 };
    let (quote, mut inside) = rest.split_at(quote_length);
    while !inside.starts_with(quote) {
        let mut chars = inside.chars();
        let escaped = chars.next() == Some('\\') && !raw;
        if escaped {
            chars.next();
        }
        inside = chars.as_str();
        if inside.is_empty() {
            return "";
        }
    }
    &inside[quote_length..]
}

/// The word at a line and column, both from 1.
fn span_at(text: &str, (line, column): (isize, isize)) -> Span {
    let line_index = usize::try_from(line - 1).unwrap_or(0);
    let column_index = usize::try_from(column - 1).unwrap_or(0);
    let line_start: usize = text.split_inclusive('\n').take(line_index).map(str::len).sum();
    let rest = &text[line_start..];
    let offset = line_start + rest.char_indices().nth(column_index).map_or(rest.len(), |(index, _)| index);
    let rest = &text[offset..];
    let is_word = |char: char| char.is_alphanumeric() || char == '_';
    let word = rest.find(|char| !is_word(char)).unwrap_or(rest.len());
    let length = if word > 0 { word } else { rest.chars().next().map_or(0, char::len_utf8) };
    Span { offset, length }
}
