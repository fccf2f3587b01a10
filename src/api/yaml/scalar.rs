//! What a YAML scalar without quotes means.
//!
//! Kubernetes reads YAML by the 1.1 rules of Go's yaml.v2 and turns it into JSON without looking at
//! the target type: `yes` is a boolean, `0644` is octal, `2024-01-01` stays text. The same file
//! must mean the same here, so these are those rules and not the YAML 1.2 core schema.

use super::node::Value;

/// The value of a plain scalar, or of one with an explicit core tag.
///
/// # Errors
/// For infinities and NaN, which JSON (and so Kubernetes) cannot hold.
pub(super) fn resolve(text: &str) -> Result<Value, &'static str> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Ok(Value::Bool(true));
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Ok(Value::Bool(false));
        }
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Ok(Value::Str(text.to_owned()));
    }
    let unsigned = text.trim_start_matches(['+', '-']);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") {
        return Err("infinity and NaN have no form in JSON");
    }
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    if let Some(int) = integer(&plain) {
        return Ok(Value::Int(int));
    }
    if is_float(&plain)
        && let Ok(float) = plain.parse::<f64>()
        && float.is_finite()
    {
        return Ok(number(float));
    }
    Ok(Value::Str(text.to_owned()))
}

/// A finite number; a whole one in the notation of a fraction (`80.0`, `1e3`) is an integer, as it
/// is once Go has turned YAML into JSON.
pub(super) fn number(float: f64) -> Value {
    if float.fract() == 0.0 && float.abs() < 1e15 {
        #[expect(clippy::cast_possible_truncation, reason = "whole, and far below the limit")]
        return Value::Int(float as i128);
    }
    Value::Float(float)
}

/// Go's `ParseInt(text, 0, 64)` and `ParseUint`: a sign, then decimal, 0x, 0b, 0o or 0-octal.
pub fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let magnitude = i128::from(u64::from_str_radix(digits, radix).ok()?);
    let value = if negative { -magnitude } else { magnitude };
    (value >= i128::from(i64::MIN)).then_some(value)
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let body = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match body.split_once(['e', 'E']) {
        Some((m, e)) => (m, Some(e)),
        None => (body, None),
    };
    let mantissa_ok = match mantissa.split_once('.') {
        Some(("", fraction)) => digits(fraction),
        Some((whole, fraction)) => digits(whole) && (fraction.is_empty() || digits(fraction)),
        None => digits(mantissa),
    };
    mantissa_ok && exponent.is_none_or(|e| digits(e.strip_prefix(['+', '-']).unwrap_or(e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(s: &str) -> Value {
        Value::Str(s.to_owned())
    }

    #[test]
    fn scalars_mean_what_go_yaml_v2_makes_of_them() {
        for (input, want) in [
            ("", Value::Null),
            ("~", Value::Null),
            ("yes", Value::Bool(true)),
            ("Off", Value::Bool(false)),
            ("n", Value::Bool(false)),
            ("0644", Value::Int(420)),
            ("0o644", Value::Int(420)),
            ("0x1F", Value::Int(31)),
            ("0b11", Value::Int(3)),
            ("1_000", Value::Int(1000)),
            ("-5", Value::Int(-5)),
            ("+5", Value::Int(5)),
            ("0", Value::Int(0)),
            ("18446744073709551615", Value::Int(i128::from(u64::MAX))),
            ("0.5", Value::Float(0.5)),
            (".5", Value::Float(0.5)),
            ("1e3", Value::Int(1000)),
            ("80.0", Value::Int(80)),
            ("0999", Value::Int(999)),
            ("1.2.3", text("1.2.3")),
            ("10Mi", text("10Mi")),
            ("-", text("-")),
            ("--flag", text("--flag")),
            ("2024-01-01", text("2024-01-01")),
            ("127.0.0.1", text("127.0.0.1")),
            ("truer", text("truer")),
            (".", text(".")),
            ("...", text("...")),
            ("0x", text("0x")),
        ] {
            assert_eq!(resolve(input), Ok(want), "{input:?}");
        }
        for input in [".inf", "-.INF", ".nan"] {
            assert!(resolve(input).is_err(), "{input}");
        }
    }
}
