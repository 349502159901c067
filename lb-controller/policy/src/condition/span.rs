//! Where a part of a condition stands in its text.

use cel::common::ast::{Expr, IdedExpr};

use super::parse::Syntax;
use crate::rule::Span;

impl Syntax<'_> {
    /// The text of a part, from its first to its last byte.
    ///
    /// The parser keeps one token a part (the dot of `a.b`, the bracket of `f(x)`), so a part spans that token, all its
    /// children, and the name or closing bracket that belongs to the token.
    pub(super) fn span(&self, part: &IdedExpr) -> Span {
        let (start, end) = self.range(part);
        Span { offset: start, length: end - start }
    }

    fn range(&self, part: &IdedExpr) -> (usize, usize) {
        let (mut start, mut end) = match self.positions.offset_for(part.id) {
            Some((first, last)) => (first as usize, last as usize + 1),
            None => return (0, self.text.len()),
        };
        let mut cover = |child: &IdedExpr| {
            let (child_start, child_end) = self.range(child);
            start = start.min(child_start);
            end = end.max(child_end);
        };
        match &part.expr {
            Expr::Select(select) => {
                cover(&select.operand);
                if !select.test {
                    end = self.after(end, &select.field);
                }
            }
            Expr::Call(call) => {
                call.target.iter().for_each(|target| cover(target));
                call.args.iter().for_each(&mut cover);
                match self.text.as_bytes().get(self.positions.offset_for(part.id).map_or(0, |range| range.0 as usize)) {
                    Some(b'(') => {
                        if call.target.is_none() {
                            start = self.before(start, &call.func_name);
                        }
                        end = self.after(end, ")");
                    }
                    Some(b'[') => end = self.after(end, "]"),
                    _ => {}
                }
            }
            Expr::Comprehension(comprehension) => {
                cover(&comprehension.iter_range);
                if let Expr::Call(step) = &comprehension.loop_step.expr {
                    step.args.iter().skip(1).for_each(&mut cover);
                }
                end = self.after(end, ")");
            }
            Expr::List(list) => {
                list.elements.iter().for_each(&mut cover);
                end = self.after(end, "]");
            }
            _ => {}
        }
        (start.min(self.text.len()), end.min(self.text.len()))
    }

    /// The end of `word` if nothing but spaces stands between it and `position`.
    fn after(&self, position: usize, word: &str) -> usize {
        let rest = self.text.get(position..).unwrap_or_default();
        let trimmed = rest.trim_start();
        if trimmed.starts_with(word) { position + (rest.len() - trimmed.len()) + word.len() } else { position }
    }

    /// The start of `word` if it ends right before `position`, spaces apart.
    fn before(&self, position: usize, word: &str) -> usize {
        let rest = self.text.get(..position).unwrap_or_default().trim_end();
        if rest.ends_with(word) { rest.len() - word.len() } else { position }
    }
}
