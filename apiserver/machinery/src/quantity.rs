//! Quantities of resources: exact decimal numbers with a suffix, such as `100m`, `1.5Gi` and `12e6`.
//!
//! Guarantees: what was written in canonical form comes back letter by letter; everything else comes back canonical, in
//! the family of suffixes that it was written in. Up to 37 significant digits are exact; digits beyond, and anything
//! finer than a nano, are rounded up (away from zero), as Kubernetes does.
//!
//! Source: `k8s.io/apimachinery/pkg/api/resource`.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// Which family of suffixes a quantity is written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// `n u m k M G T P E`.
    DecimalSi,
    /// `Ki Mi Gi Ti Pi Ei`.
    BinarySi,
    /// `e3`, `E-3`.
    DecimalExponent,
}

/// A text that is no quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The text has another shape.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    FormatWrong,
    /// The number cannot be read.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// The suffix is not one of the three families.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// A quantity: `mantissa` times ten to the `exponent`. Two quantities are equal when their numbers are.
#[derive(Debug, Clone)]
pub struct Quantity {
    mantissa: i128,
    exponent: i32,
    format: Format,
    /// The text it was parsed from, if that is to come back as it was.
    text: Option<Box<str>>,
}

/// How many significant digits a mantissa keeps: one more power of ten still fits an `i128`.
const MAX_DIGITS: u32 = 37;
/// Exponents beyond this are cut off, so that no text grows without bound.
const MAX_EXPONENT: i32 = 10_000;
/// The finest unit: nano.
const NANO: i32 = -9;
/// Digits that Kubernetes' fast path takes (an `int64` holds any number of 18 digits).
const INT64_DIGITS: usize = 18;

fn ten_to(power: u32) -> Option<i128> {
    10i128.checked_pow(power)
}

fn digits(mantissa: i128) -> u32 {
    mantissa.unsigned_abs().checked_ilog10().map_or(0, |log| log + 1)
}

/// `mantissa / 10^power`, away from zero where it does not come out even; and whether it did.
fn divide_up(mantissa: i128, power: u32) -> (i128, bool) {
    let Some(divisor) = ten_to(power) else {
        return (mantissa.signum(), mantissa == 0);
    };
    let (quotient, rest) = (mantissa / divisor, mantissa % divisor);
    if rest == 0 { (quotient, true) } else { (quotient + mantissa.signum(), false) }
}

impl Quantity {
    fn new(mantissa: i128, exponent: i32, format: Format) -> Self {
        let mut quantity = Self { mantissa, exponent, format, text: None };
        let excess = digits(mantissa).saturating_sub(MAX_DIGITS);
        if excess > 0 {
            quantity.mantissa = divide_up(mantissa, excess).0;
            quantity.exponent = exponent.saturating_add(excess.cast_signed());
        }
        quantity.exponent = quantity.exponent.clamp(-MAX_EXPONENT, MAX_EXPONENT);
        quantity
    }

    /// Nothing, in decimal suffixes.
    pub fn zero() -> Self {
        Self::new(0, 0, Format::DecimalSi)
    }

    /// A whole number.
    pub fn from_value(value: i64, format: Format) -> Self {
        Self::new(i128::from(value), 0, format)
    }

    /// A number of thousandths, in decimal suffixes (CPU).
    pub fn from_milli(milli: i64) -> Self {
        Self::new(i128::from(milli), -3, Format::DecimalSi)
    }

    /// The family of suffixes it is written with.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether it is below zero.
    pub fn is_negative(&self) -> bool {
        self.mantissa < 0
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.mantissa == 0
    }

    /// The number in units of ten to the `scale`, rounded up (away from zero), capped to `i64`.
    pub fn scaled_value(&self, scale: i32) -> i64 {
        let shift = self.exponent.saturating_sub(scale);
        let scaled = if shift >= 0 {
            let exact = ten_to(shift.unsigned_abs()).and_then(|factor| self.mantissa.checked_mul(factor));
            exact.unwrap_or(match self.mantissa.signum() {
                0 => 0,
                1 => i128::MAX,
                _ => i128::MIN,
            })
        } else {
            divide_up(self.mantissa, shift.unsigned_abs()).0
        };
        i64::try_from(scaled).unwrap_or(if scaled < 0 { i64::MIN } else { i64::MAX })
    }

    /// The number in units, rounded up (away from zero), capped to `i64`.
    pub fn value(&self) -> i64 {
        self.scaled_value(0)
    }

    /// The number in thousandths, rounded up (away from zero), capped to `i64`.
    pub fn milli_value(&self) -> i64 {
        self.scaled_value(-3)
    }

    /// The number as a float, for reports.
    pub fn approximate(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "the approximation is what is asked for")]
        let mantissa = self.mantissa as f64;
        mantissa * 10f64.powi(self.exponent)
    }

    /// The sum. Zero takes over the other's format.
    #[must_use]
    pub fn saturating_add(&self, other: &Self) -> Self {
        self.combine(other, i128::saturating_add)
    }

    /// The difference. Zero takes over the other's format.
    #[must_use]
    pub fn saturating_sub(&self, other: &Self) -> Self {
        self.combine(other, i128::saturating_sub)
    }

    /// The number times `factor`.
    #[must_use]
    pub fn saturating_mul(&self, factor: i64) -> Self {
        let exact = self.mantissa.checked_mul(i128::from(factor));
        match exact {
            Some(mantissa) => Self::new(mantissa, self.exponent, self.format),
            None => {
                // At most 37 and 19 digits: half of the digits of the mantissa are enough room.
                let (mantissa, _) = divide_up(self.mantissa, 19);
                Self::new(
                    mantissa.saturating_mul(i128::from(factor)),
                    self.exponent.saturating_add(19),
                    self.format,
                )
            }
        }
    }

    fn combine(&self, other: &Self, operation: fn(i128, i128) -> i128) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        let mut low = self.exponent.min(other.exponent);
        // A zero has no digits worth keeping.
        if self.is_zero() {
            low = other.exponent;
        } else if other.is_zero() {
            low = self.exponent;
        }
        loop {
            if let (Some(a), Some(b)) = (self.at_exponent(low), other.at_exponent(low)) {
                return Self::new(operation(a, b), low, format);
            }
            low = low.saturating_add(1);
            if low > MAX_EXPONENT {
                return self.clone();
            }
        }
    }

    /// The mantissa for another exponent, rounded up where it is coarser; `None` if it does not fit.
    fn at_exponent(&self, exponent: i32) -> Option<i128> {
        if self.mantissa == 0 {
            return Some(0);
        }
        let shift = self.exponent.saturating_sub(exponent);
        if shift < 0 {
            return Some(divide_up(self.mantissa, shift.unsigned_abs()).0);
        }
        let mantissa = self.mantissa.checked_mul(ten_to(shift.unsigned_abs())?)?;
        (digits(mantissa) <= MAX_DIGITS).then_some(mantissa)
    }

    /// The whole number, if it is one that fits.
    fn whole(&self) -> Option<i128> {
        if self.exponent >= 0 {
            return ten_to(self.exponent.unsigned_abs()).and_then(|factor| self.mantissa.checked_mul(factor));
        }
        match divide_up(self.mantissa, self.exponent.unsigned_abs()) {
            (whole, true) => Some(whole),
            _ => None,
        }
    }

    fn canonical(&self) -> String {
        if self.is_zero() {
            return "0".to_owned();
        }
        if self.format == Format::BinarySi
            && let Some(mut whole) = self.whole()
            && whole.unsigned_abs() >= 1024
        {
            let suffixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
            let mut suffix = 0;
            while whole % 1024 == 0 && suffix + 1 < suffixes.len() {
                whole /= 1024;
                suffix += 1;
            }
            return format!("{whole}{}", suffixes[suffix]);
        }
        let (mut mantissa, mut exponent) = (self.mantissa, self.exponent);
        while mantissa % 10 == 0 {
            mantissa /= 10;
            exponent += 1;
        }
        let is_exponent = self.format == Format::DecimalExponent;
        // The suffixes stop at exa; whatever is larger is written out.
        let aligned = exponent - exponent.rem_euclid(3);
        let target = if is_exponent { aligned } else { aligned.min(18) };
        let zeros = usize::try_from(exponent - target).unwrap_or(0);
        let number = format!("{mantissa}{}", "0".repeat(zeros));
        if is_exponent {
            return if target == 0 { number } else { format!("{number}e{target}") };
        }
        let suffix = match target {
            -9 => "n",
            -6 => "u",
            -3 => "m",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            18 => "E",
            _ => "",
        };
        format!("{number}{suffix}")
    }
}

/// The parts of a text: sign, digits before and after the point, suffix.
struct Parts<'a> {
    is_negative: bool,
    number: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

fn split(text: &str) -> Result<Parts<'_>, ParseError> {
    let (is_negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (number, rest) = split_digits(rest);
    let number = number.trim_start_matches('0');
    let number = if number.is_empty() { "0" } else { number };
    let (fraction, suffix) = rest.strip_prefix('.').map_or(("", rest), split_digits);
    let letters = suffix.bytes().take_while(|b| b"eEinumkKMGTP".contains(b)).count();
    let tail = &suffix[letters..];
    let tail = tail.strip_prefix(['-', '+']).unwrap_or(tail);
    if tail.bytes().any(|b| !b.is_ascii_digit()) {
        return Err(ParseError::FormatWrong);
    }
    Ok(Parts { is_negative, number, fraction, suffix })
}

/// The base's power and the family of a suffix.
fn interpret(suffix: &str) -> Result<(i32, Format), ParseError> {
    use Format::{BinarySi, DecimalExponent, DecimalSi};
    Ok(match suffix {
        "n" => (-9, DecimalSi),
        "u" => (-6, DecimalSi),
        "m" => (-3, DecimalSi),
        "" => (0, DecimalSi),
        "k" => (3, DecimalSi),
        "M" => (6, DecimalSi),
        "G" => (9, DecimalSi),
        "T" => (12, DecimalSi),
        "P" => (15, DecimalSi),
        "E" => (18, DecimalSi),
        "Ki" => (10, BinarySi),
        "Mi" => (20, BinarySi),
        "Gi" => (30, BinarySi),
        "Ti" => (40, BinarySi),
        "Pi" => (50, BinarySi),
        "Ei" => (60, BinarySi),
        _ => {
            let power = suffix.strip_prefix(['e', 'E']).ok_or(ParseError::Suffix)?;
            let power: i64 = power.parse().map_err(|_| ParseError::Suffix)?;
            let bound = i64::from(MAX_EXPONENT);
            let power = i32::try_from(power.clamp(-bound, bound)).map_err(|_| ParseError::Suffix)?;
            (power, DecimalExponent)
        }
    })
}

/// A mantissa of at most [`MAX_DIGITS`] digits, and how many powers of ten were cut off (rounding up).
fn read_digits(number: &str, fraction: &str) -> (i128, i32) {
    let mut mantissa: i128 = 0;
    let mut cut: i32 = 0;
    let mut is_exact = true;
    for digit in number.bytes().chain(fraction.bytes()) {
        let digit = i128::from(digit - b'0');
        if digits(mantissa) < MAX_DIGITS {
            mantissa = mantissa * 10 + digit;
        } else {
            cut = cut.saturating_add(1);
            is_exact &= digit == 0;
        }
    }
    if !is_exact {
        mantissa += 1;
    }
    (mantissa, cut)
}

/// Whether Kubernetes keeps the text as it is instead of rewriting it.
fn is_kept(parts: &Parts<'_>, power: i32, format: Format, mantissa: i128) -> bool {
    let (number, fraction) = (parts.number.len(), parts.fraction.len());
    if number + fraction > INT64_DIGITS {
        return false;
    }
    if format == Format::BinarySi {
        let binary_digits = usize::try_from(power * 3 / 10).unwrap_or(usize::MAX);
        return fraction == 0 && number + binary_digits < 15 && mantissa & 7 != 0;
    }
    let scale = power.saturating_sub(i32::try_from(fraction).unwrap_or(i32::MAX));
    let last_zeros = mantissa % 1000 == 0;
    // A leading zero before the fraction means that the text can be shorter.
    scale >= NANO && scale % 3 == 0 && !last_zeros && parts.number != "0"
}

impl FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() {
            return Err(ParseError::FormatWrong);
        }
        let parts = split(text)?;
        let (power, format) = interpret(parts.suffix)?;
        let (mantissa, cut) = read_digits(parts.number, parts.fraction);
        let fraction = i32::try_from(parts.fraction.len()).map_err(|_| ParseError::Numeric)?;
        let exponent = cut.saturating_sub(fraction);
        let signed = if parts.is_negative { -mantissa } else { mantissa };

        let mut quantity = if format == Format::BinarySi {
            binary(signed, exponent, power.unsigned_abs())
        } else {
            Self::new(signed, exponent.saturating_add(power), format)
        };
        if quantity.exponent < NANO {
            let shift = (NANO - quantity.exponent).unsigned_abs();
            quantity.mantissa = divide_up(quantity.mantissa, shift).0;
            quantity.exponent = NANO;
        }
        if is_kept(&parts, power, format, mantissa) {
            quantity.text = Some(text.into());
        }
        Ok(quantity)
    }
}

/// `mantissa * 10^exponent * 2^power`, capped at the largest `i64`.
fn binary(mut mantissa: i128, mut exponent: i32, power: u32) -> Quantity {
    let limit = Quantity::from_value(i64::MAX, Format::BinarySi);
    let product = loop {
        if let Some(product) = mantissa.checked_mul(1i128 << power) {
            break product;
        }
        mantissa = divide_up(mantissa, 1).0;
        exponent = exponent.saturating_add(1);
    };
    let quantity = Quantity::new(product, exponent, Format::BinarySi);
    let magnitude = Quantity { mantissa: quantity.mantissa.saturating_abs(), ..quantity.clone() };
    if magnitude > limit {
        return Quantity { mantissa: limit.mantissa * quantity.mantissa.signum(), ..limit };
    }
    let one = Quantity::from_value(1, Format::BinarySi);
    let format = if !magnitude.is_zero() && magnitude < one { Format::DecimalSi } else { Format::BinarySi };
    Quantity { format, ..quantity }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => f.write_str(text),
            None => f.write_str(&self.canonical()),
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
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
        let sign = self.mantissa.signum().cmp(&other.mantissa.signum());
        if sign != Ordering::Equal || self.is_zero() {
            return sign;
        }
        let magnitude = |q: &Self| i64::from(digits(q.mantissa)) + i64::from(q.exponent);
        let by_magnitude = magnitude(self).cmp(&magnitude(other));
        if by_magnitude != Ordering::Equal {
            return if self.is_negative() { by_magnitude.reverse() } else { by_magnitude };
        }
        // Of the same magnitude, so aligning to the finer one adds digits only up to the finer one's count.
        let low = self.exponent.min(other.exponent);
        self.at_exponent(low).cmp(&other.at_exponent(low))
    }
}

impl Default for Quantity {
    fn default() -> Self {
        Self::zero()
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrNumber;

        impl Visitor<'_> for TextOrNumber {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                text.trim().parse().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Quantity, E> {
                Ok(Quantity::from_value(value, Format::DecimalSi))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Quantity, E> {
                Ok(Quantity::new(i128::from(value), 0, Format::DecimalSi))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Quantity, E> {
                value.to_string().parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(TextOrNumber)
    }
}

#[cfg(test)]
#[path = "quantity_tests.rs"]
mod tests;
