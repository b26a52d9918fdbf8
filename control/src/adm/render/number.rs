//! Numbers in the columns of `--stats` and `--rate`: nine wide, from 10^8 on in thousands, millions, and so on, cut off.

/// A number's column.
pub(super) fn column(number: u64, exact: bool) -> String {
    let (unit, letter) = match number {
        _ if exact => (1, ' '),
        0..=99_999_999 => (1, ' '),
        100_000_000..=999_999_999 => (1_000, 'K'),
        1_000_000_000..=99_999_999_999 => (1_000_000, 'M'),
        100_000_000_000..=99_999_999_999_999 => (1_000_000_000, 'G'),
        _ => (1_000_000_000_000, 'T'),
    };
    if unit == 1 { format!(" {number:>8}") } else { format!("{:>8}{letter}", number / unit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_cut_to_five_digits_or_more_and_a_letter() {
        for (number, expected) in [
            (0, "        0"),
            (99_999_999, " 99999999"),
            (100_000_999, "  100000K"),
            (999_999_999, "  999999K"),
            (1_000_000_000, "    1000M"),
            (99_999_999_999, "   99999M"),
            (100_000_000_000, "     100G"),
            (99_999_999_999_999, "   99999G"),
            (100_000_000_000_000, "     100T"),
            (u64::MAX, "18446744T"),
        ] {
            assert_eq!(column(number, false), expected);
        }
        assert_eq!(column(12_173_200_000, true), " 12173200000");
    }
}
