//! Resource quantities (`500m`, `1.5Gi`, `2e3`), far enough to check and compare them.

/// Units of one billionth in a whole; finer ones round up, as in the Kubernetes API.
const NANO: i128 = 1_000_000_000;

/// The value of a quantity in billionths, or `None` where the text is no quantity.
///
/// What does not fit saturates: such amounts only have to compare as "more than anything".
pub fn parse_nanos(text: &str) -> Option<i128> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let (binary, power) = scale(suffix)?;
    // digits × 10^-len(fraction) × unit, in billionths.
    let mut digits: i128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        digits = digits.saturating_mul(10).saturating_add(i128::from(digit - b'0'));
    }
    let fraction_len = i64::try_from(fraction.len()).unwrap_or(i64::MAX);
    let mut value = digits;
    if binary > 0 {
        value = value.saturating_mul(1_i128 << binary);
    }
    let exponent = power.saturating_add(9).saturating_sub(fraction_len);
    if exponent >= 0 {
        for _ in 0..exponent.min(60) {
            value = value.saturating_mul(10);
        }
    } else {
        for _ in 0..exponent.unsigned_abs().min(60) {
            // Round up at every step: the result is the same as rounding up once.
            value = value / 10 + i128::from(value % 10 != 0);
        }
    }
    Some(if negative { -value } else { value })
}

/// The power of two and of ten that a suffix stands for.
fn scale(suffix: &str) -> Option<(u32, i64)> {
    Some(match suffix {
        "" => (0, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            (0, i64::from(exponent.trim_start_matches('+').parse::<i32>().ok()?))
        }
    })
}

/// Whether the value has no fraction.
pub(super) fn is_whole(nanos: i128) -> bool {
    nanos % NANO == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_in_all_their_notations() {
        for (text, want) in [
            ("0", 0),
            ("1", NANO),
            ("+1", NANO),
            ("-1", -NANO),
            ("500m", NANO / 2),
            ("0.5", NANO / 2),
            (".5", NANO / 2),
            ("5.", 5 * NANO),
            ("1Ki", 1024 * NANO),
            ("1.5Gi", 3 * (1 << 29) * NANO),
            ("1k", 1000 * NANO),
            ("1e3", 1000 * NANO),
            ("1E-3", NANO / 1000),
            ("1E", 1_000_000_000_000_000_000 * NANO),
            ("100u", 100_000),
            ("1n", 1),
            ("0.1n", 1),
        ] {
            assert_eq!(parse_nanos(text), Some(want), "{text}");
        }
        assert_eq!(parse_nanos("0.1Ki"), Some(102 * NANO + 400_000_000));
        for text in ["", "m", "1K", "1 Gi", "1mi", "1.2.3", "abc", "--1", "1e", "1e+", "1ee3", "\u{661}"] {
            assert_eq!(parse_nanos(text), None, "{text:?}");
        }
        assert!(parse_nanos("9e999999").unwrap() > parse_nanos("1000Ei").unwrap());
        assert_eq!(parse_nanos("1e-999999"), Some(1));
    }
}
