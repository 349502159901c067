//! Exact decimal numbers: money must not pass through binary floating point, where 0.1 + 0.2 is not 0.3.

use alloc::format;
use alloc::string::{String, ToString as _};
use core::fmt;

/// A decimal with up to 18 digits before the point and 18 after, exact.
///
/// Held as the value × 10¹⁸: every number in range fits an `i128` with room to spare, and comparing two numbers is
/// comparing two integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal(i128);

/// Why a text is not a number that every reader would take for the same value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecimalError {
    /// Not `-?digits(.digits)?`.
    NotANumber,
    /// `1e3`: readers differ on whether it is an integer.
    Exponent,
    /// `007`: octal to some readers.
    LeadingZero,
    /// `-0`: equal to zero for some readers and below it for others.
    NegativeZero,
    /// More than 18 digits before or after the point.
    TooManyDigits,
}

const DIGITS: usize = 18;
const ONE: i128 = 10_i128.pow(DIGITS as u32);

impl Decimal {
    /// Reads the plain notation that JSON and CEL share, without exponents.
    pub fn parse(text: &str) -> Result<Decimal, DecimalError> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if digits.bytes().any(|byte| matches!(byte, b'e' | b'E')) && digits.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(DecimalError::Exponent);
        }
        let (whole, fraction) = match digits.split_once('.') {
            Some((_, "")) => return Err(DecimalError::NotANumber),
            Some(parts) => parts,
            None => (digits, ""),
        };
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
            return Err(DecimalError::NotANumber);
        }
        if whole.len() > 1 && whole.starts_with('0') {
            return Err(DecimalError::LeadingZero);
        }
        if whole.len() > DIGITS || fraction.len() > DIGITS {
            return Err(DecimalError::TooManyDigits);
        }
        let number = |part: &str| part.bytes().fold(0_i128, |sum, byte| sum * 10 + i128::from(byte - b'0'));
        let scale = 10_i128.pow((DIGITS - fraction.len()) as u32);
        let magnitude = number(whole) * ONE + number(fraction) * scale;
        match (negative, magnitude) {
            (true, 0) => Err(DecimalError::NegativeZero),
            (true, _) => Ok(Decimal(-magnitude)),
            (false, _) => Ok(Decimal(magnitude)),
        }
    }

    /// What is counted, which stops short of the last half of its range.
    #[inline]
    pub(crate) fn count(count: u64) -> Decimal {
        const MOST: u64 = i64::MAX as u64;
        Decimal(i128::from(count.min(MOST)) * ONE)
    }

    /// The number, if it counts something and that is not too much.
    pub(crate) fn as_count(self) -> Option<u32> {
        if self.0 % ONE == 0 { u32::try_from(self.0 / ONE).ok() } else { None }
    }

    /// `count` thousandths.
    pub(crate) fn thousandths(count: i64) -> Decimal {
        Decimal(i128::from(count) * (ONE / 1000))
    }

    /// The number as money is written, with at least two digits after the point.
    pub(crate) fn with_two_fraction_digits(self) -> String {
        let text = self.to_string();
        match Decimal::fraction_digits(&text) {
            0 => format!("{text}.00"),
            1 => format!("{text}0"),
            _ => text,
        }
    }

    /// Digits written after the point in `text`, trailing zeros included.
    pub(crate) fn fraction_digits(text: &str) -> usize {
        text.split_once('.').map_or(0, |(_, fraction)| fraction.len())
    }
}

impl From<i64> for Decimal {
    fn from(value: i64) -> Decimal {
        Decimal(i128::from(value) * ONE)
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.unsigned_abs();
        let (whole, fraction) = (magnitude / ONE.unsigned_abs(), magnitude % ONE.unsigned_abs());
        let sign = if self.0 < 0 { "-" } else { "" };
        if fraction == 0 {
            return write!(f, "{sign}{whole}");
        }
        let digits = format!("{fraction:018}");
        write!(f, "{sign}{whole}.{}", digits.trim_end_matches('0'))
    }
}

impl fmt::Display for DecimalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DecimalError::NotANumber => "not a number",
            DecimalError::Exponent => "exponents are not read; write the number out",
            DecimalError::LeadingZero => "leading zeros are not read",
            DecimalError::NegativeZero => "negative zero is not read",
            DecimalError::TooManyDigits => "more than 18 digits before or after the point",
        })
    }
}

impl core::error::Error for DecimalError {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    #[test]
    fn a_number_is_read_exactly_or_not_at_all() {
        let rows: &[(&str, Result<&str, DecimalError>)] = &[
            ("0", Ok("0")),
            ("500", Ok("500")),
            ("500.00", Ok("500")),
            ("500.01", Ok("500.01")),
            ("-3.5", Ok("-3.5")),
            ("9007199254740993", Ok("9007199254740993")),
            ("0.000000000000000001", Ok("0.000000000000000001")),
            ("999999999999999999.999999999999999999", Ok("999999999999999999.999999999999999999")),
            ("1e3", Err(DecimalError::Exponent)),
            ("1E+3", Err(DecimalError::Exponent)),
            ("-0", Err(DecimalError::NegativeZero)),
            ("-0.00", Err(DecimalError::NegativeZero)),
            ("007", Err(DecimalError::LeadingZero)),
            ("1000000000000000000", Err(DecimalError::TooManyDigits)),
            ("0.0000000000000000001", Err(DecimalError::TooManyDigits)),
            ("", Err(DecimalError::NotANumber)),
            ("-", Err(DecimalError::NotANumber)),
            ("+1", Err(DecimalError::NotANumber)),
            (".5", Err(DecimalError::NotANumber)),
            ("5.", Err(DecimalError::NotANumber)),
            ("1.2.3", Err(DecimalError::NotANumber)),
            ("١", Err(DecimalError::NotANumber)),
            ("NaN", Err(DecimalError::NotANumber)),
            (" 1", Err(DecimalError::NotANumber)),
        ];
        for (text, expected) in rows {
            assert_eq!(
                Decimal::parse(text).map(|value| value.to_string()),
                expected.map(ToString::to_string),
                "{text:?}"
            );
        }
    }

    #[test]
    fn money_has_two_digits_after_the_point_or_as_many_as_it_takes() {
        for (text, shown) in [("900", "900.00"), ("0.5", "0.50"), ("-3.10", "-3.10"), ("1.005", "1.005")] {
            assert_eq!(Decimal::parse(text).unwrap().with_two_fraction_digits(), shown);
        }
    }

    proptest! {
        #[test]
        fn cents_compare_as_integers_do(left in -1_000_000_i64..1_000_000, right in -1_000_000_i64..1_000_000) {
            let money = |cents: i64| {
                let sign = if cents < 0 { "-" } else { "" };
                Decimal::parse(&format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100))
            };
            prop_assume!(left != 0 && right != 0);
            prop_assert_eq!(money(left).unwrap().cmp(&money(right).unwrap()), left.cmp(&right));
        }

        #[test]
        fn what_is_shown_reads_back_as_the_same_number(text in "-?(0|[1-9][0-9]{0,17})(\\.[0-9]{1,18})?") {
            if let Ok(value) = Decimal::parse(&text) {
                prop_assert_eq!(Decimal::parse(&value.to_string()), Ok(value));
            }
        }
    }
}
