//! Single values: what each type takes, what becomes of it, and Go's words where it does not fit.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use serde_json::{Number, Value};

use super::raw::Raw;
use crate::quantity::Quantity;
use crate::schema::Scalar;
use crate::time;

/// Why a value does not fit.
pub(super) enum Mismatch {
    /// Of the wrong kind: what Go calls the value and the type. Decoding goes on; the field is named in the message.
    Kind {
        /// `string`, `number 1.5`.
        found: String,
    },
    /// Malformed, without a field's name; decoding goes on.
    Later(String),
    /// Malformed, said by the type's own decoder: decoding ends here.
    Now(String),
}

/// The value as it is stored.
pub(super) fn convert(scalar: Scalar, raw: &Raw) -> Result<Value, Mismatch> {
    match (scalar, raw) {
        (_, Raw::Null) => Ok(zero(scalar)),
        (Scalar::String, Raw::String(text)) => Ok(Value::String(text.clone())),
        (Scalar::Boolean, Raw::Bool(is_true)) => Ok(Value::Bool(*is_true)),
        (Scalar::Int32 | Scalar::Int64, Raw::Number(text)) => integer(scalar, text),
        (Scalar::Double, Raw::Number(text)) => float(text),
        (Scalar::Bytes, Raw::String(text)) => bytes(text),
        (Scalar::Quantity, raw) => quantity(raw),
        (Scalar::IntOrString, raw) => int_or_string(raw),
        (Scalar::Time, raw) => {
            let text = own_text(raw)?;
            let moment = time::parse(text).map_err(|error| Mismatch::Now(error.to_string()))?;
            Ok(Value::String(time::format_seconds(moment.unix_seconds())))
        }
        (Scalar::MicroTime, raw) => {
            let text = own_text(raw)?;
            let moment = time::parse_micro(text).map_err(Mismatch::Now)?;
            Ok(Value::String(time::format_micros(moment.unix_micros())))
        }
        (Scalar::Duration, raw) => Ok(Value::String(own_text(raw)?.to_owned())),
        (_, other) => Err(Mismatch::Kind { found: other.kind_word().to_owned() }),
    }
}

/// The zero value as Go writes it.
pub(super) fn zero(scalar: Scalar) -> Value {
    match scalar {
        Scalar::String | Scalar::Bytes => Value::from(""),
        Scalar::Boolean => Value::Bool(false),
        Scalar::Int32 | Scalar::Int64 | Scalar::IntOrString | Scalar::Double => Value::from(0),
        Scalar::Quantity => Value::from("0"),
        Scalar::Time | Scalar::MicroTime => Value::Null,
        Scalar::Duration => Value::from("0s"),
    }
}

/// A type whose decoder wants a text, and names no field when it gets something else.
fn own_text(raw: &Raw) -> Result<&str, Mismatch> {
    raw.as_str().ok_or_else(|| {
        Mismatch::Now(format!("json: cannot unmarshal {} into Go value of type string", raw.kind_word()))
    })
}

fn integer(scalar: Scalar, text: &str) -> Result<Value, Mismatch> {
    let parsed: Option<i64> = text.parse().ok();
    let fits = parsed.filter(|value| scalar == Scalar::Int64 || i32::try_from(*value).is_ok());
    fits.map(Value::from).ok_or_else(|| Mismatch::Kind { found: format!("number {text}") })
}

fn float(text: &str) -> Result<Value, Mismatch> {
    let wrong = || Mismatch::Kind { found: format!("number {text}") };
    let value: f64 = text.parse().map_err(|_| wrong())?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "only taken when the cast back gives the same number"
    )]
    let whole = value as i64;
    #[expect(clippy::cast_precision_loss, reason = "compared with the original")]
    if whole as f64 == value && value.abs() < 1e15 {
        // Go writes whole floats without a fraction.
        return Ok(Value::from(whole));
    }
    Number::from_f64(value).map(Value::Number).ok_or_else(wrong)
}

fn quantity(raw: &Raw) -> Result<Value, Mismatch> {
    let text = match raw {
        Raw::String(text) | Raw::Number(text) => text.as_str(),
        Raw::Bool(true) => "true",
        Raw::Bool(false) => "false",
        Raw::Array(_) => "[",
        Raw::Null | Raw::Object(_) => "{",
    };
    let quantity: Quantity =
        text.trim().parse().map_err(|error: crate::quantity::ParseError| Mismatch::Now(error.to_string()))?;
    Ok(Value::String(quantity.to_string()))
}

fn int_or_string(raw: &Raw) -> Result<Value, Mismatch> {
    let wrong =
        |found: &str| Mismatch::Now(format!("json: cannot unmarshal {found} into Go value of type int32"));
    match raw {
        Raw::String(text) => Ok(Value::String(text.clone())),
        Raw::Number(text) => {
            text.parse::<i32>().map(Value::from).map_err(|_| wrong(&format!("number {text}")))
        }
        other => Err(wrong(other.kind_word())),
    }
}

/// Base64 as Go reads it: line ends are skipped, loose bits at the end are ignored.
fn bytes(text: &str) -> Result<Value, Mismatch> {
    let lenient = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
    let engine = GeneralPurpose::new(&alphabet::STANDARD, lenient);
    let compact: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match engine.decode(&compact) {
        Ok(bytes) => Ok(Value::String(STANDARD.encode(bytes))),
        Err(error) => {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => {
                    compact.len() / 4 * 4
                }
            };
            Err(Mismatch::Later(format!("illegal base64 data at input byte {at}")))
        }
    }
}
