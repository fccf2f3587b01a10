//! Kubernetes resource quantities ("250m", "1.5Gi", "2e3"), exact.
//!
//! A quantity is kept as a whole number of billionths in 128 bits, so that adding and comparing
//! never rounds. Reading and printing follow apimachinery's `resource.Quantity`: what is finer than
//! a billionth is rounded away from zero, what is larger than 2^63-1 is capped to that, and the
//! printed form is the canonical one of the notation that was read.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Add, Neg, Sub};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Billionths in one.
const NANOS: i128 = 1_000_000_000;
/// Largest magnitude, in billionths: apimachinery caps at 2^63-1.
const MAX: i128 = (i64::MAX as i128) * NANOS;
/// More characters than any quantity needs; longer texts are refused.
const MAX_TEXT: usize = 256;

/// The notation that a quantity was written in and is printed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Suffixes `n` to `E`, powers of 1000.
    #[default]
    DecimalSi,
    /// Suffixes `Ki` to `Ei`, powers of 1024.
    BinarySi,
    /// `e` and an exponent.
    DecimalExponent,
}

/// An exact amount with its notation. Equality and order are of the amount alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// There is no number, or something in it that is no digit.
    #[error("{0:?} is not a quantity (want a number with an optional suffix, as in \"250m\" or \"1.5Gi\")")]
    Syntax(String),
    /// The suffix is none of the known ones.
    #[error(
        "{text:?} has the unknown suffix {suffix:?} (want n, u, m, k, M, G, T, P, E, Ki to Ei, or an exponent)"
    )]
    Suffix {
        /// The whole text.
        text: String,
        /// The suffix in it.
        suffix: String,
    },
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// A whole amount.
    pub fn from_value(value: i64, format: Format) -> Self {
        Self { nanos: i128::from(value) * NANOS, format }.capped()
    }

    /// An amount in thousandths, as CPU is counted.
    pub fn from_milli(millis: i64) -> Self {
        Self { nanos: i128::from(millis) * (NANOS / 1000), format: Format::DecimalSi }
    }

    /// Reads a quantity: an optional sign, a decimal number, and a suffix or exponent.
    ///
    /// # Errors
    /// What is wrong with the text, which is named.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let syntax = || QuantityError::Syntax(text.chars().take(MAX_TEXT).collect());
        if text.len() > MAX_TEXT {
            return Err(syntax());
        }
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let number_len = unsigned.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (number, suffix) = unsigned.split_at(number_len);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(syntax());
        }
        let (format, scale) = scale_of(suffix)
            .ok_or_else(|| QuantityError::Suffix { text: text.to_owned(), suffix: suffix.to_owned() })?;
        let magnitude = magnitude(whole, fraction, scale);
        // A binary fraction of one is shown in decimal, which shows it exactly.
        let format = match format {
            Format::BinarySi if magnitude > 0 && magnitude < NANOS => Format::DecimalSi,
            format => format,
        };
        Ok(Self { nanos: if negative { -magnitude } else { magnitude }, format })
    }

    /// The amount as a whole number, rounded away from zero.
    pub fn value(self) -> i64 {
        saturate(divide_away(self.nanos, NANOS))
    }

    /// The amount in thousandths, rounded away from zero; saturates at the bounds of 64 bits.
    pub fn milli_value(self) -> i64 {
        saturate(divide_away(self.nanos, NANOS / 1000))
    }

    /// The amount in billionths, exact.
    pub fn nano_value(self) -> i128 {
        self.nanos
    }

    /// The notation it is printed in.
    pub fn format(self) -> Format {
        self.format
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether it has no fraction.
    pub fn is_whole(self) -> bool {
        self.nanos % NANOS == 0
    }

    fn capped(self) -> Self {
        Self { nanos: self.nanos.clamp(-MAX, MAX), ..self }
    }
}

/// A multiplier: a power of ten, or of two.
#[derive(Clone, Copy)]
enum Scale {
    Ten(i32),
    Two(u32),
}

fn scale_of(suffix: &str) -> Option<(Format, Scale)> {
    let decimal = |power| Some((Format::DecimalSi, Scale::Ten(power)));
    let binary = |power| Some((Format::BinarySi, Scale::Two(power)));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            let well_formed = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            let power = exponent.parse::<i32>().ok().filter(|_| well_formed)?;
            Some((Format::DecimalExponent, Scale::Ten(power)))
        }
    }
}

/// Billionths of `whole.fraction` times the scale, rounded up and capped.
fn magnitude(whole: &str, fraction: &str, scale: Scale) -> i128 {
    let (power, factor) = match scale {
        Scale::Ten(power) => (i64::from(power), 1),
        Scale::Two(power) => (0, 1_i128 << power),
    };
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).skip_while(|digit| *digit == b'0').collect();
    if digits.iter().all(|digit| *digit == b'0') {
        return 0;
    }
    // The amount is `digits` x 10^shift x factor billionths. Lengths are at most MAX_TEXT.
    let length = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let shift = power - length(fraction.len()) + 9;
    if length(digits.len()) + shift > 38 {
        return MAX; // at least 10^38, and the cap is below 10^28
    }
    let cut = usize::try_from(-shift).unwrap_or(0);
    if cut > digits.len() + 20 {
        return 1; // not nothing, and less than a billionth even of an exbi
    }
    let (kept, below) = digits.split_at(digits.len().saturating_sub(cut));
    let whole = kept.iter().fold(0_i128, |sum, digit| sum * 10 + i128::from(digit - b'0'));
    let tens = 10_i128.pow(u32::try_from(shift).unwrap_or(0));
    // Long division by ten, digit by digit from the right, keeps the part below a billionth exact.
    let (mut carry, mut exact) = (0_i128, true);
    for at in 0..cut {
        let digit = below.len().checked_sub(at + 1).map_or(0, |index| i128::from(below[index] - b'0'));
        let sum = digit * factor + carry;
        exact &= sum % 10 == 0;
        carry = sum / 10;
    }
    whole
        .checked_mul(tens)
        .and_then(|amount| amount.checked_mul(factor))
        .and_then(|amount| amount.checked_add(carry + i128::from(!exact)))
        .map_or(MAX, |amount| amount.min(MAX))
}

fn divide_away(amount: i128, by: i128) -> i128 {
    let (quotient, remainder) = (amount / by, amount % by);
    quotient + remainder.signum()
}

fn saturate(amount: i128) -> i64 {
    i64::try_from(amount).unwrap_or(if amount < 0 { i64::MIN } else { i64::MAX })
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Hash for Quantity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nanos.hash(state);
    }
}

/// The sum, capped, in the notation of the left one unless that is nothing.
impl Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: self.nanos + other.nanos, format }.capped()
    }
}

/// The difference, capped, in the notation of the left one unless that is nothing.
impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { nanos: -self.nanos, format: self.format }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        // Small and fractional amounts have no exact binary form.
        let binary =
            self.format == Format::BinarySi && self.nanos.abs() >= 1024 * NANOS && self.nanos % NANOS == 0;
        if binary {
            let (mut amount, mut power) = (self.nanos / NANOS, 0);
            while amount % 1024 == 0 && power < 6 {
                amount /= 1024;
                power += 1;
            }
            return write!(f, "{amount}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
        }
        let (mut amount, mut exponent) = (self.nanos, -9_i32);
        while amount % 1000 == 0 && exponent < 18 {
            amount /= 1000;
            exponent += 3;
        }
        if self.format == Format::DecimalExponent {
            return if exponent == 0 { write!(f, "{amount}") } else { write!(f, "{amount}e{exponent}") };
        }
        let suffix = match exponent {
            -9 => "n",
            -6 => "u",
            -3 => "m",
            0 => "",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            _ => "E",
        };
        write!(f, "{amount}{suffix}")
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quantity(text: &str) -> Quantity {
        Quantity::parse(text).unwrap()
    }

    #[test]
    fn reads_amounts_exactly() {
        for (text, nanos) in [
            ("0", 0),
            ("-0", 0),
            ("1", NANOS),
            ("+1", NANOS),
            ("-1.5", -3 * NANOS / 2),
            ("250m", NANOS / 4),
            ("0.25", NANOS / 4),
            (".25", NANOS / 4),
            ("5.", 5 * NANOS),
            ("1Ki", 1024 * NANOS),
            ("0.1Ki", 102 * NANOS + 400_000_000),
            ("1.5Gi", 3 * 512 * 1024 * 1024 * NANOS),
            ("1e3", 1000 * NANOS),
            ("1E3", 1000 * NANOS),
            ("1e-3", NANOS / 1000),
            ("1E", 1_000_000_000_000_000_000 * NANOS),
            ("1n", 1),
            ("0.1n", 1),
            ("-0.1n", -1),
            ("1.0000000001", NANOS + 1),
            ("1e-400", 1),
            ("0e400", 0),
            ("9223372036854775807", MAX),
            ("9223372036854775808", MAX),
            ("-9223372036854775808", -MAX),
            ("8Ei", MAX),
            ("7Ei", 7 * (1_i128 << 60) * NANOS),
            ("1e400", MAX),
            ("0.0000000000000000001Ei", 115_292_151),
        ] {
            assert_eq!(quantity(text).nano_value(), nanos, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_quantity() {
        for text in [
            "", "-", ".", "m", "Ki", "1.2.3", "--1", "1 Gi", " 1", "1e", "1e+", "1e1.5", "1K", "1ki", "1mi",
            "1Gib",
        ] {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
        assert!(Quantity::parse(&"1".repeat(300)).is_err());
    }

    #[test]
    fn prints_canonically() {
        for (text, canonical) in [
            ("0", "0"),
            ("0Gi", "0"),
            ("1024Mi", "1Gi"),
            ("1500Mi", "1500Mi"),
            ("0.5Gi", "512Mi"),
            ("1023", "1023"),
            ("512Ki", "512Ki"),
            ("0.5Ki", "512"),
            ("0.1Ki", "102400m"),
            ("1.0005Ki", "1024512m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("0.25", "250m"),
            ("100000", "100k"),
            ("1e3", "1e3"),
            ("1e4", "10e3"),
            ("12e-1", "1200e-3"),
            ("-2Gi", "-2Gi"),
            ("1n", "1n"),
        ] {
            assert_eq!(quantity(text).to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn whole_and_milli_values_round_away_from_zero() {
        for (text, value, milli) in [
            ("1.1", 2, 1100),
            ("-1.1", -2, -1100),
            ("1n", 1, 1),
            ("100m", 1, 100),
            ("10E", i64::MAX, i64::MAX),
        ] {
            assert_eq!((quantity(text).value(), quantity(text).milli_value()), (value, milli), "{text}");
        }
    }

    #[test]
    fn order_and_equality_look_at_the_amount() {
        assert_eq!(quantity("1Gi"), quantity("1073741824"));
        assert!(quantity("1G") < quantity("1Gi"));
        assert_eq!((quantity("1Gi") - quantity("512Mi")).to_string(), "512Mi");
        assert_eq!((Quantity::ZERO + quantity("1Gi")).to_string(), "1Gi");
    }

    proptest! {
        #[test]
        fn printing_and_reading_keeps_the_amount(nanos in -MAX..=MAX, shift in 0u32..9, format in 0..3) {
            let format = [Format::DecimalSi, Format::BinarySi, Format::DecimalExponent][usize::try_from(format).unwrap()];
            let nanos = nanos / 10_i128.pow(shift) * 10_i128.pow(shift);
            let quantity = Quantity { nanos, format };
            let again = Quantity::parse(&quantity.to_string()).unwrap();
            prop_assert_eq!(again, quantity);
            prop_assert_eq!(again.to_string(), quantity.to_string());
        }

        #[test]
        fn a_decimal_with_a_binary_suffix_is_exact(whole in 0u32..1000, fraction in 0u32..1_000_000, power in 1usize..4) {
            let suffix = ["", "Ki", "Mi", "Gi"][power];
            let text = format!("{whole}.{fraction:06}{suffix}");
            let exact = (i128::from(whole) * 1_000_000 + i128::from(fraction)) * 1000 * 1024_i128.pow(u32::try_from(power).unwrap());
            prop_assert_eq!(Quantity::parse(&text).unwrap().nano_value(), exact);
        }

        #[test]
        fn adding_and_taking_away_gives_the_same(left in -MAX / 2..MAX / 2, right in -MAX / 2..MAX / 2) {
            let quantity = |nanos| Quantity { nanos, format: Format::DecimalSi };
            prop_assert_eq!(quantity(left) + quantity(right) - quantity(right), quantity(left));
        }

        #[test]
        fn no_text_makes_it_fail_other_than_by_an_error(text in "\\PC{0,40}") {
            drop(Quantity::parse(&text));
        }
    }
}
