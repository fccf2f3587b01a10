//! Durations as Go writes them ("1m30s"), which is how every duration in a kubelet configuration is
//! written.
//!
//! The grammar and the printed form are those of Go's `time.ParseDuration` and `Duration.String`, so
//! that a value goes through nodectl and comes out as kubelet would print it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const MICRO: i64 = 1_000;
const MILLI: i64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// A signed duration in nanoseconds, in Go's notation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoDuration(i64);

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// The text has no number or a character that is no digit, point or unit.
    #[error("{0:?} is not a duration (want a number and a unit, as in \"1m30s\")")]
    Syntax(String),
    /// A number without a unit behind it.
    #[error("{0:?} has no unit (want ns, us, ms, s, m or h, as in \"1m30s\")")]
    MissingUnit(String),
    /// A unit that Go does not know.
    #[error("{text:?} has the unknown unit {unit:?} (want ns, us, ms, s, m or h)")]
    UnknownUnit {
        /// The whole text.
        text: String,
        /// The unit in it.
        unit: String,
    },
    /// More nanoseconds than 64 bits hold, about 292 years.
    #[error("{0:?} is out of range (at most about 292 years)")]
    OutOfRange(String),
}

impl GoDuration {
    /// No time.
    pub const ZERO: Self = Self(0);

    /// A duration of `nanos` nanoseconds.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// A duration of `millis` milliseconds; saturates at about 292 years.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(MILLI))
    }

    /// A duration of `secs` seconds; saturates at about 292 years.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(SECOND))
    }

    /// The duration in nanoseconds.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Whether this is no time at all.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The duration as the standard library has it; a negative one is no time.
    pub fn to_std(self) -> Duration {
        u64::try_from(self.0).map_or(Duration::ZERO, Duration::from_nanos)
    }

    /// Reads Go's notation: an optional sign, then numbers each with a unit (`ns`, `us`, `ms`, `s`,
    /// `m`, `h`). A bare `0` is allowed, any other bare number is not.
    ///
    /// # Errors
    /// What is wrong with the text, which is named.
    pub fn parse(text: &str) -> Result<Self, DurationError> {
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(Self::ZERO);
        }
        if rest.is_empty() {
            return Err(DurationError::Syntax(text.to_owned()));
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let number_len = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
            let (number, tail) = rest.split_at(number_len);
            let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
            if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
                return Err(DurationError::Syntax(text.to_owned()));
            }
            let unit_len = tail.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, next) = tail.split_at(unit_len);
            let scale = match unit {
                "" => return Err(DurationError::MissingUnit(text.to_owned())),
                "ns" => 1,
                "us" | "\u{b5}s" | "\u{3bc}s" => MICRO,
                "ms" => MILLI,
                "s" => SECOND,
                "m" => MINUTE,
                "h" => HOUR,
                other => {
                    return Err(DurationError::UnknownUnit { text: text.to_owned(), unit: other.to_owned() });
                }
            };
            total = part_nanos(whole, fraction, scale)
                .and_then(|part| total.checked_add(part))
                .ok_or_else(|| DurationError::OutOfRange(text.to_owned()))?;
            rest = next;
        }
        let signed = if negative { -total } else { total };
        i64::try_from(signed).map(Self).map_err(|_out_of_range| DurationError::OutOfRange(text.to_owned()))
    }
}

/// Nanoseconds of one number with its unit; what is finer than a nanosecond is cut off, as in Go.
fn part_nanos(whole: &str, fraction: &str, scale: i64) -> Option<i128> {
    let scale = i128::from(scale);
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = whole.checked_mul(scale)?;
    // Eighteen digits are finer than a nanosecond even of an hour, and always fit.
    let digits = &fraction[..fraction.len().min(18)];
    if !digits.is_empty() {
        let numerator: i128 = digits.parse().ok()?;
        let denominator = 10_i128.pow(u32::try_from(digits.len()).ok()?);
        nanos = nanos.checked_add(numerator * scale / denominator)?;
    }
    (nanos <= i128::from(i64::MAX) + 1).then_some(nanos)
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let nanos = self.0.unsigned_abs();
        if nanos < SECOND.unsigned_abs() {
            let (scale, unit) = match nanos {
                0..1_000 => (1, "ns"),
                1_000..1_000_000 => (MICRO, "\u{b5}s"),
                _ => (MILLI, "ms"),
            };
            return write_decimal(f, nanos, scale.unsigned_abs(), unit);
        }
        let hours = nanos / HOUR.unsigned_abs();
        let minutes = nanos / MINUTE.unsigned_abs() % 60;
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        write_decimal(f, nanos % MINUTE.unsigned_abs(), SECOND.unsigned_abs(), "s")
    }
}

/// Writes `nanos / scale` with as many decimals as it has and no more.
fn write_decimal(f: &mut fmt::Formatter<'_>, nanos: u64, scale: u64, unit: &str) -> fmt::Result {
    let (whole, fraction) = (nanos / scale, nanos % scale);
    if fraction == 0 {
        return write!(f, "{whole}{unit}");
    }
    let width = scale.ilog10() as usize;
    let digits = format!("{fraction:0width$}");
    write!(f, "{whole}.{}{unit}", digits.trim_end_matches('0'))
}

impl FromStr for GoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_go_reads() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("1h", HOUR),
            ("1m30s", 90 * SECOND),
            ("2h45m", 2 * HOUR + 45 * MINUTE),
            ("1.5h", HOUR + 30 * MINUTE),
            (".5s", SECOND / 2),
            ("5.s", 5 * SECOND),
            ("300ms", 300 * MILLI),
            ("1us", MICRO),
            ("1\u{b5}s", MICRO),
            ("1\u{3bc}s", MICRO),
            ("-1m", -MINUTE),
            ("+1m", MINUTE),
            ("0.1ns", 0),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
        ] {
            assert_eq!(GoDuration::parse(text), Ok(GoDuration(nanos)), "{text}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        for text in
            ["", "-", "1", "20", "s", ".", ".s", "1d", "1 s", "1.2.3s", "1s 1m", "9223372036854775808ns"]
        {
            assert!(GoDuration::parse(text).is_err(), "{text}");
        }
        let err = GoDuration::parse("20").unwrap_err();
        assert_eq!(err.to_string(), "\"20\" has no unit (want ns, us, ms, s, m or h, as in \"1m30s\")");
    }

    #[test]
    fn prints_as_go_prints() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1\u{b5}s"),
            (2_200_000, "2.2ms"),
            (3_300_000_000, "3.3s"),
            (4 * MINUTE + 5 * SECOND, "4m5s"),
            (HOUR, "1h0m0s"),
            (MINUTE, "1m0s"),
            (5 * HOUR + 6 * MINUTE + 7 * SECOND + MILLI, "5h6m7.001s"),
            (i64::MAX, "2562047h47m16.854775807s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(GoDuration(nanos).to_string(), text);
        }
    }

    #[test]
    fn a_number_is_no_duration() {
        assert!(serde_json::from_str::<GoDuration>("20").is_err());
        assert_eq!(serde_json::from_str::<GoDuration>("\"20s\"").unwrap(), GoDuration::from_secs(20));
    }

    proptest! {
        #[test]
        fn printing_and_reading_gives_the_same(nanos in any::<i64>()) {
            let duration = GoDuration(nanos);
            prop_assert_eq!(GoDuration::parse(&duration.to_string()), Ok(duration));
        }
    }
}
