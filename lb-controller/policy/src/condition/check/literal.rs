//! Values that stand in the text itself.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use cel::common::ast::{Expr, IdedExpr, LiteralValue};

use super::{Checked, Checker, Decimal, MAX_LIST, Network, Networks, NumberTerm, Test, TextTerm};

impl Checker<'_> {
    pub(super) fn literal(&mut self, part: &IdedExpr, value: &LiteralValue) -> Option<Checked> {
        match value {
            LiteralValue::Boolean(value) => Some(Checked::Test(Test::Constant(*value.inner()))),
            LiteralValue::String(text) => Some(Checked::Text(TextTerm::Literal(text.inner().into()))),
            LiteralValue::Int(number) => self.number(part, Ok(Decimal::from(*number.inner()))),
            LiteralValue::Double(number) => {
                // The parser has rounded it to binary; the digits in the text are what was meant.
                let span = self.syntax.span(part);
                let digits = self.syntax.text.get(span.offset..span.offset + span.length).unwrap_or_default();
                let sign = if number.inner().is_sign_negative() { "-" } else { "" };
                self.number(part, Decimal::parse(&format!("{sign}{digits}")))
            }
            LiteralValue::UInt(_) => self.complain(part, "write the number without `u`".into(), None),
            LiteralValue::Bytes(_) => self.complain(part, "byte texts are not available".into(), None),
            LiteralValue::Null => {
                let help = "to ask whether a fact is there, write `has(…)`";
                self.complain(part, "`null` is not available".into(), Some(help.into()))
            }
        }
    }

    fn number(&mut self, part: &IdedExpr, number: Result<Decimal, crate::decimal::DecimalError>) -> Option<Checked> {
        match number {
            Ok(number) => Some(Checked::Number(NumberTerm::Literal(number))),
            Err(error) => self.complain(part, format!("{error}"), None),
        }
    }

    /// A list of literals of one kind.
    pub(super) fn list(&mut self, part: &IdedExpr, elements: &[IdedExpr]) -> Option<Checked> {
        if elements.len() > MAX_LIST {
            return self.complain(part, format!("{} entries; at most {MAX_LIST} are read", elements.len()), None);
        }
        let errors_before = self.errors.len();
        let (mut numbers, mut texts, mut networks) = (Vec::new(), Vec::<Box<str>>::new(), Networks::default());
        for element in elements {
            match self.checked(element) {
                Some(Checked::Number(NumberTerm::Literal(number))) => numbers.push(number),
                Some(Checked::Text(TextTerm::Literal(text))) => texts.push(text),
                Some(Checked::Networks(more)) if !matches!(element.expr, Expr::List(_)) => {
                    networks.blocks.extend(more.blocks);
                    networks.sets.extend(more.sets);
                }
                Some(_) => {
                    self.complain(element, "a list holds numbers, texts, `cidr(…)` or `sets.…` only".into(), None)?
                }
                None => {}
            }
        }
        if self.errors.len() > errors_before {
            return None;
        }
        let no_networks = networks.blocks.is_empty() && networks.sets.is_empty();
        match (numbers.is_empty(), texts.is_empty(), no_networks) {
            (true, true, true) => Some(Checked::EmptyList),
            (false, true, true) => Some(Checked::Numbers(numbers)),
            (true, false, true) => Some(Checked::Texts(texts)),
            (true, true, false) => Some(Checked::Networks(networks)),
            _ => self.complain(part, "a list holds values of one kind".into(), None),
        }
    }

    /// The argument of `cidr(…)`.
    pub(super) fn network(&mut self, part: &IdedExpr) -> Option<Checked> {
        let Expr::Literal(LiteralValue::String(text)) = &part.expr else {
            return self.complain(part, "`cidr` takes a literal text, such as `cidr(\"10.0.0.0/8\")`".into(), None);
        };
        match Network::parse(text.inner()) {
            Ok(network) => Some(Checked::Networks(Networks { blocks: vec![network], sets: Vec::new() })),
            Err(error) => self.complain(part, format!("{error}"), None),
        }
    }
}
