//! Kubernetes quantities (`64Mi`, `200m`, `1.5Gi`, `1e3`) as numbers.
//!
//! A [`Parsed`] value is exact to a billionth, as far as Kubernetes itself goes; what is finer is
//! rounded away from zero and what is larger than an `i64` is held at its limit, as the API server
//! does. No crate in reach has both the API server's error texts (clients see them) and its
//! canonical form, so this is our own.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use thiserror::Error;

/// Billionths in one.
const NANO: i128 = 1_000_000_000;
/// The largest value that a quantity holds, in billionths.
const LIMIT: i128 = i64::MAX as i128 * NANO;

/// Why a text is no quantity. The texts are those of the API server.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum QuantityError {
    /// The text has not the shape of a number with a suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The number is well-formed but cannot be read, for example `1.2.3`.
    #[error("unable to parse numeric part of quantity")]
    Number,
    /// The suffix is none of those known, for example `64MK`.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// How a quantity was written, and so how it is written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notation {
    /// Powers of 1024: `Ki`, `Mi`, ...
    Binary,
    /// Powers of 1000: `m`, none, `k`, `M`, ...
    Decimal,
    /// A decimal exponent: `e3`.
    Exponent,
}

/// A quantity that was read.
#[derive(Debug, Clone, Copy)]
pub struct Parsed {
    nano: i128,
    notation: Notation,
}

impl PartialEq for Parsed {
    /// Equal by value: `1Gi` is `1024Mi`.
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl PartialOrd for Parsed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        self.nano.partial_cmp(&other.nano)
    }
}

/// Reads a quantity.
pub fn parse(quantity: &Quantity) -> Result<Parsed, QuantityError> {
    parse_text(&quantity.0)
}

/// Reads a quantity from its text.
pub fn parse_text(text: &str) -> Result<Parsed, QuantityError> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(digits);
    if number.is_empty() || !is_suffix_shape(suffix) {
        return Err(QuantityError::Format);
    }
    let (base, exponent, notation) = scale(suffix)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return Err(QuantityError::Number);
    }
    let nano = scaled(whole, fraction, base, exponent);
    Ok(Parsed { nano: if negative { -nano } else { nano }, notation })
}

/// Whether a suffix has the shape `[eEinumkKMGTP]*[-+]?[0-9]*`.
fn is_suffix_shape(suffix: &str) -> bool {
    let rest = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    rest.bytes().all(|b| b.is_ascii_digit())
}

/// The base, exponent and notation that a suffix stands for.
fn scale(suffix: &str) -> Result<(i128, i32, Notation), QuantityError> {
    use Notation::{Binary, Decimal, Exponent};
    Ok(match suffix {
        "Ki" => (1024, 1, Binary),
        "Mi" => (1024, 2, Binary),
        "Gi" => (1024, 3, Binary),
        "Ti" => (1024, 4, Binary),
        "Pi" => (1024, 5, Binary),
        "Ei" => (1024, 6, Binary),
        "n" => (10, -9, Decimal),
        "u" => (10, -6, Decimal),
        "m" => (10, -3, Decimal),
        "" => (10, 0, Decimal),
        "k" => (10, 3, Decimal),
        "M" => (10, 6, Decimal),
        "G" => (10, 9, Decimal),
        "T" => (10, 12, Decimal),
        "P" => (10, 15, Decimal),
        "E" => (10, 18, Decimal),
        other => {
            let exponent =
                other.strip_prefix(['e', 'E']).and_then(|digits| digits.parse().ok()).ok_or(QuantityError::Suffix)?;
            (10, exponent, Exponent)
        }
    })
}

/// `whole.fraction * base^exponent` in billionths, rounded up, at most [`LIMIT`].
fn scaled(whole: &str, fraction: &str, base: i128, exponent: i32) -> i128 {
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return 0;
    }
    // More than 28 digits can only matter below the billionth or above the limit.
    let kept = &digits[..digits.len().min(28)];
    let dropped = (digits.len() - kept.len()) as i32;
    let mut value: i128 = kept.parse().unwrap_or(LIMIT);
    let mut ten = 9 - fraction.len() as i32 + dropped;
    if base == 10 {
        ten = ten.saturating_add(exponent);
    } else {
        for _ in 0..exponent {
            value = value.saturating_mul(base);
        }
    }
    while ten > 0 && value < LIMIT {
        value = value.saturating_mul(10);
        ten -= 1;
    }
    while ten < 0 {
        let remainder = i128::from(value % 10 != 0);
        value = value / 10 + remainder;
        ten += 1;
        if value <= 1 {
            break;
        }
    }
    value.min(LIMIT)
}

impl Parsed {
    /// A whole number of bytes, written with a binary suffix.
    pub fn bytes(count: i64) -> Self {
        Self { nano: i128::from(count) * NANO, notation: Notation::Binary }
    }

    /// The value, rounded up to a whole number.
    pub fn value(self) -> i64 {
        self.rounded_up(NANO)
    }

    /// The value in thousandths, rounded up; for a CPU, milli-CPUs.
    pub fn milli(self) -> i64 {
        self.rounded_up(NANO / 1000)
    }

    /// Whether the value is below zero.
    pub fn is_negative(self) -> bool {
        self.nano < 0
    }

    /// Whether the value is zero.
    pub fn is_zero(self) -> bool {
        self.nano == 0
    }

    /// The value times a whole number, at most what a quantity holds.
    pub fn times(self, factor: i64) -> Self {
        let nano = self.nano.saturating_mul(i128::from(factor));
        Self { nano: nano.clamp(-LIMIT, LIMIT), ..self }
    }

    fn rounded_up(self, unit: i128) -> i64 {
        let whole = self.nano.div_euclid(unit) + i128::from(self.nano.rem_euclid(unit) != 0);
        i64::try_from(whole).unwrap_or(if whole < 0 { i64::MIN } else { i64::MAX })
    }

    /// The canonical form: the largest suffix that loses nothing and leaves no fraction.
    pub fn canonical(self) -> Quantity {
        let whole = self.nano / NANO;
        let integer = self.nano % NANO == 0;
        if self.notation == Notation::Binary && integer && whole.abs() >= 1024 {
            return Quantity(with_suffix(whole, 1024, &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]));
        }
        if self.notation == Notation::Exponent {
            let (mut value, mut exponent) = (self.nano, -9);
            while value != 0 && value % 1000 == 0 {
                value /= 1000;
                exponent += 3;
            }
            return Quantity(match exponent {
                _ if value == 0 => "0".to_owned(),
                0 => value.to_string(),
                _ => format!("{value}e{exponent}"),
            });
        }
        let suffixes = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
        Quantity(with_suffix(self.nano, 1000, &suffixes))
    }
}

fn with_suffix(mut value: i128, base: i128, suffixes: &[&str]) -> String {
    if value == 0 {
        return "0".to_owned();
    }
    let mut index = 0;
    while value % base == 0 && index + 1 < suffixes.len() {
        value /= base;
        index += 1;
    }
    format!("{value}{}", suffixes[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Parsed {
        parse_text(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn values() {
        for (text, value, milli) in [
            ("0", 0, 0),
            ("128Mi", 134_217_728, 134_217_728_000),
            ("1.5Gi", 1_610_612_736, 1_610_612_736_000),
            ("200m", 1, 200),
            ("1500m", 2, 1500),
            ("-64Mi", -67_108_864, -67_108_864_000),
            ("+2k", 2000, 2_000_000),
            ("1e3", 1000, 1_000_000),
            ("12E-1", 2, 1200),
            ("2E", 2_000_000_000_000_000_000, i64::MAX),
            (".5", 1, 500),
            ("5.", 5, 5000),
            ("100n", 1, 1),
            ("0.0000000001", 1, 1),
            ("99999999999999999999999999999999", i64::MAX, i64::MAX),
            ("1e-40", 1, 1),
        ] {
            let parsed = read(text);
            assert_eq!((parsed.value(), parsed.milli()), (value, milli), "{text}");
        }
    }

    #[test]
    fn errors() {
        for text in ["64MB", "", "-", "Mi", " 1", "1 ", "0x10", "1_0"] {
            assert_eq!(parse_text(text).err(), Some(QuantityError::Format), "{text}");
        }
        for text in ["64MK", "1ki", "1i", "1e", "1m3"] {
            assert_eq!(parse_text(text).err(), Some(QuantityError::Suffix), "{text}");
        }
        for text in ["1.2.3", "."] {
            assert_eq!(parse_text(text).err(), Some(QuantityError::Number), "{text}");
        }
    }

    #[test]
    fn canonical_forms() {
        for (text, canonical) in [
            ("1024Mi", "1Gi"),
            ("0.5Gi", "512Mi"),
            ("512Ki", "512Ki"),
            ("1000Ki", "1000Ki"),
            ("1000m", "1"),
            ("1000000", "1M"),
            ("134217729", "134217729"),
            ("0Mi", "0"),
            ("1023", "1023"),
            ("0.5Ki", "512"),
            ("1500m", "1500m"),
            ("1e3", "1e3"),
            ("100e1", "1e3"),
            ("-1024Ki", "-1Mi"),
        ] {
            assert_eq!(read(text).canonical().0, canonical, "{text}");
            assert_eq!(read(text), read(canonical), "{text}");
        }
        assert_eq!(Parsed::bytes(310_640_640).canonical().0, "303360Ki");
    }

    #[test]
    fn order() {
        assert!(read("1Gi") == read("1024Mi"));
        assert!(read("200m") < read("1"));
        assert!(read("64Mi").times(4) == read("256Mi"));
    }
}
