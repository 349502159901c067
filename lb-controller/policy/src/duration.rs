//! Spans of time as conditions write them: `duration("8h")`.

use crate::decimal::Decimal;

/// The units, the longest first; each may come once, in this order. CEL knows all but days.
const UNITS: &[(&str, i64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Seconds, to the millisecond. `None` for anything but whole numbers with units, such as `90s`, `1h30m` or `7d`.
pub(crate) fn parse(text: &str) -> Option<Decimal> {
    let (mut rest, mut units, mut milliseconds) = (text, UNITS, 0_i64);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let unit_length = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(unit_length);
        let place = units.iter().position(|row| row.0 == unit)?;
        let number: i64 = number.parse().ok()?;
        milliseconds = milliseconds.checked_add(number.checked_mul(units[place].1)?)?;
        (rest, units) = (after, &units[place + 1..]);
    }
    (!text.is_empty()).then(|| Decimal::thousandths(milliseconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_span_is_whole_numbers_with_units_the_longest_first() {
        let rows = [
            ("8h", Some("28800")),
            ("1h30m", Some("5400")),
            ("90s", Some("90")),
            ("250ms", Some("0.25")),
            ("1s250ms", Some("1.25")),
            ("7d", Some("604800")),
            ("0s", Some("0")),
            ("", None),
            ("8", None),
            ("h", None),
            ("-1h", None),
            ("1.5h", None),
            ("30m1h", None),
            ("1h1h", None),
            ("8 h", None),
            ("8H", None),
            ("9223372036854775807d", None),
            ("99999999999999999999s", None),
        ];
        for (text, expected) in rows {
            assert_eq!(parse(text).map(|seconds| seconds.to_string()).as_deref(), expected, "{text}");
        }
    }
}
