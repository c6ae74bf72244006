//! From JSON to protobuf. Fields are written in order of their numbers, so the bytes depend on the object alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::Error;
use super::special::{self, Special};
use super::table::{Field, Kind, Label, Messages, kind_word};
use super::wire::{put_bytes, put_double, put_integer};
use crate::time;

pub(super) fn message(messages: &Messages, name: &str, value: &Value) -> Result<Vec<u8>, Error> {
    let Some(object) = value.as_object() else {
        return Err(wrong(name, "", value));
    };
    let mut out = Vec::new();
    fields(messages, name, object, &mut out)?;
    Ok(out)
}

fn wrong(message: &str, field: &str, value: &Value) -> Error {
    Error::Value { message: message.to_owned(), field: field.to_owned(), found: kind_word(value) }
}

fn fields(
    messages: &Messages,
    name: &str,
    object: &Map<String, Value>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    for field in &messages.get(name)?.fields {
        if field.is_inline {
            if let Kind::Message(inner) = &field.kind {
                let mut bytes = Vec::new();
                fields(messages, inner, object, &mut bytes)?;
                put_bytes(out, field.number, &bytes);
            }
            continue;
        }
        let Some(found) = object.get(&field.name).filter(|value| !value.is_null()) else { continue };
        match field.label {
            Label::Optional => value(messages, name, field, field.number, found, out)?,
            Label::Repeated => {
                for element in found.as_array().ok_or_else(|| wrong(name, &field.name, found))? {
                    value(messages, name, field, field.number, element, out)?;
                }
            }
            Label::Map => {
                for (key, found) in found.as_object().ok_or_else(|| wrong(name, &field.name, found))? {
                    let mut entry = Vec::new();
                    put_bytes(&mut entry, 1, key.as_bytes());
                    value(messages, name, field, 2, found, &mut entry)?;
                    put_bytes(out, field.number, &entry);
                }
            }
        }
    }
    Ok(())
}

fn value(
    messages: &Messages,
    name: &str,
    field: &Field,
    number: u64,
    value: &Value,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let wrong = || wrong(name, &field.name, value);
    match &field.kind {
        Kind::Text => put_bytes(out, number, value.as_str().ok_or_else(wrong)?.as_bytes()),
        Kind::Bytes => {
            let text = value.as_str().ok_or_else(wrong)?;
            put_bytes(out, number, &STANDARD.decode(text).map_err(|_| wrong())?);
        }
        Kind::Bool => put_integer(out, number, i64::from(value.as_bool().ok_or_else(wrong)?)),
        Kind::Int32 | Kind::Int64 => put_integer(out, number, value.as_i64().ok_or_else(wrong)?),
        Kind::Double => put_double(out, number, value.as_f64().ok_or_else(wrong)?),
        Kind::Message(inner) => put_bytes(out, number, &nested(messages, inner, value)?),
    }
    Ok(())
}

fn nested(messages: &Messages, name: &str, value: &Value) -> Result<Vec<u8>, Error> {
    if let Some(special) = special::of(name) {
        return special_bytes(messages, special, name, value);
    }
    if messages.get(name)?.is_text_list {
        let mut out = Vec::new();
        for element in value.as_array().ok_or_else(|| wrong(name, "items", value))? {
            let text = element.as_str().ok_or_else(|| wrong(name, "items", element))?;
            put_bytes(&mut out, 1, text.as_bytes());
        }
        return Ok(out);
    }
    // An element that is null is an empty message.
    if value.is_null() {
        return Ok(Vec::new());
    }
    message(messages, name, value)
}

fn special_bytes(messages: &Messages, special: Special, name: &str, value: &Value) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    let wrong = || wrong(name, "", value);
    match special {
        Special::Quantity => {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return Err(wrong()),
            };
            put_bytes(&mut out, 1, text.as_bytes());
        }
        Special::IntOrString => match value {
            Value::String(text) => {
                put_integer(&mut out, 1, 1);
                put_integer(&mut out, 2, 0);
                put_bytes(&mut out, 3, text.as_bytes());
            }
            _ => {
                put_integer(&mut out, 1, 0);
                put_integer(&mut out, 2, value.as_i64().ok_or_else(wrong)?);
                put_bytes(&mut out, 3, b"");
            }
        },
        Special::Time | Special::MicroTime => {
            if value.is_null() {
                return Ok(out);
            }
            let moment = time::parse(value.as_str().ok_or_else(wrong)?).map_err(|_| wrong())?;
            put_integer(&mut out, 1, moment.unix_seconds());
            let nanos = moment.unix_micros().rem_euclid(1_000_000) * 1000;
            put_integer(&mut out, 2, if special == Special::Time { 0 } else { nanos });
        }
        Special::Duration => {
            let nanos = special::parse_duration(value.as_str().ok_or_else(wrong)?).ok_or_else(wrong)?;
            put_integer(&mut out, 1, nanos);
        }
        Special::Json | Special::RawExtension => {
            let raw = serde_json::to_vec(value).map_err(|_| wrong())?;
            put_bytes(&mut out, 1, &raw);
        }
        Special::SchemaOrArray | Special::SchemaOrBool | Special::SchemaOrTexts => {
            alternatives(messages, special, name, value, &mut out)?;
        }
    }
    Ok(out)
}

fn alternatives(
    messages: &Messages,
    special: Special,
    name: &str,
    value: &Value,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let schema = special::schema_message();
    match (special, value) {
        (Special::SchemaOrBool, Value::Bool(allows)) => put_integer(out, 1, i64::from(*allows)),
        (Special::SchemaOrBool, Value::Object(_)) => {
            put_integer(out, 1, 1);
            put_bytes(out, 2, &message(messages, &schema, value)?);
        }
        (_, Value::Object(_)) => put_bytes(out, 1, &message(messages, &schema, value)?),
        (Special::SchemaOrArray, Value::Array(elements)) => {
            for element in elements {
                put_bytes(out, 2, &message(messages, &schema, element)?);
            }
        }
        (Special::SchemaOrTexts, Value::Array(elements)) => {
            for element in elements {
                put_bytes(
                    out,
                    2,
                    element.as_str().ok_or_else(|| wrong(name, "property", element))?.as_bytes(),
                );
            }
        }
        _ => return Err(wrong(name, "", value)),
    }
    Ok(())
}
