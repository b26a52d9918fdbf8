//! Decimal numbers as C's `strtol` with base 10 reads them: white space and a sign may stand before the digits, nothing
//! after them, and leading zeros mean nothing.

use std::ops::RangeInclusive;

/// Parses a number within bounds.
pub(super) fn number<N: TryFrom<i64>>(text: &str, bounds: RangeInclusive<i64>) -> Option<N> {
    let digits = text.trim_start_matches([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']);
    // What i64 can't hold is beyond all bounds.
    let number: i64 = digits.parse().ok()?;
    bounds.contains(&number).then(|| N::try_from(number).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_strtol_within_bounds() {
        for (text, expected) in [
            ("5", Some(5_u16)),
            (" +5", Some(5)),
            ("010", Some(10)),
            ("-0", Some(0)),
            ("-1", None),
            ("65536", None),
            ("99999999999999999999", None),
            ("", None),
            ("+", None),
            ("0x10", None),
            ("5 ", None),
        ] {
            assert_eq!(number(text, 0..=65535), expected, "{text:?}");
        }
    }
}
