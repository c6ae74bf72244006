//! From protobuf to JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};

use super::special::{self, Special};
use super::table::{Field, Kind, Label, Messages};
use super::wire::{Fields, Wire, failure};
use super::{Envelope, Error, PREFIX, UNKNOWN};
use crate::time::{format_micros, format_seconds};

/// Messages within messages: more than any object has, less than a stack holds.
const MAX_DEPTH: usize = 128;

/// The parts of `runtime.Unknown`.
pub(super) fn envelope(bytes: &[u8]) -> Result<Envelope, Error> {
    let mut envelope = Envelope { api_version: String::new(), kind: String::new(), raw: Vec::new() };
    for field in Fields::new(UNKNOWN, bytes) {
        let (number, value) = field?;
        match number {
            1 => {
                for field in Fields::new(UNKNOWN, value.bytes(UNKNOWN)?) {
                    let (number, value) = field?;
                    match number {
                        1 => envelope.api_version = value.text(UNKNOWN)?.to_owned(),
                        2 => envelope.kind = value.text(UNKNOWN)?.to_owned(),
                        _ => {}
                    }
                }
            }
            2 => envelope.raw = value.bytes(UNKNOWN)?.to_vec(),
            3 => {
                let encoding = value.text(UNKNOWN)?;
                if !encoding.is_empty() {
                    return Err(Error::ContentEncoding(encoding.to_owned()));
                }
            }
            _ => {}
        }
    }
    Ok(envelope)
}

/// The fields of a message, put into `object`.
pub(super) fn message(
    messages: &Messages,
    name: &str,
    bytes: &[u8],
    depth: usize,
    object: &mut Map<String, Value>,
) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(Error::TooDeep);
    }
    let table = messages.get(name)?;
    for field in Fields::new(name, bytes) {
        let (number, wire) = field?;
        let Some(field) = table.field(number) else { continue };
        if field.is_inline {
            if let Kind::Message(inner) = &field.kind {
                message(messages, inner, wire.bytes(name)?, depth + 1, object)?;
            }
            continue;
        }
        match field.label {
            Label::Optional => {
                let value = value(messages, name, field, wire, depth)?;
                object.insert(field.name.clone(), value);
            }
            Label::Repeated => repeated(messages, name, field, wire, depth, object)?,
            Label::Map => {
                let (key, value) = entry(messages, name, field, wire, depth)?;
                let map = object.entry(&field.name).or_insert_with(|| Value::Object(Map::new()));
                if let Some(map) = map.as_object_mut() {
                    map.insert(key, value);
                }
            }
        }
    }
    Ok(())
}

fn repeated(
    messages: &Messages,
    name: &str,
    field: &Field,
    wire: Wire<'_>,
    depth: usize,
    object: &mut Map<String, Value>,
) -> Result<(), Error> {
    let mut found = Vec::new();
    match (&field.kind, wire) {
        // Numbers may be packed into one field.
        (Kind::Int32 | Kind::Int64 | Kind::Bool, Wire::Bytes(packed)) => {
            let mut rest = packed;
            while !rest.is_empty() {
                let (number, after) = packed_varint(rest).ok_or_else(|| failure(name, "unexpected EOF"))?;
                found.push(value(messages, name, field, Wire::Varint(number), depth)?);
                rest = after;
            }
        }
        _ => found.push(value(messages, name, field, wire, depth)?),
    }
    let list = object.entry(&field.name).or_insert_with(|| Value::Array(Vec::new()));
    if let Some(list) = list.as_array_mut() {
        list.extend(found);
    }
    Ok(())
}

fn packed_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(index).ok()? * 7)?;
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

/// An entry of a map: a message of key and value.
fn entry(
    messages: &Messages,
    name: &str,
    field: &Field,
    wire: Wire<'_>,
    depth: usize,
) -> Result<(String, Value), Error> {
    let mut key = String::new();
    let mut found = None;
    for part in Fields::new(name, wire.bytes(name)?) {
        let (number, wire) = part?;
        match number {
            1 => key = wire.text(name)?.to_owned(),
            2 => found = Some(value(messages, name, field, wire, depth)?),
            _ => {}
        }
    }
    let found = match found {
        Some(found) => found,
        None => empty(messages, name, field, depth)?,
    };
    Ok((key, found))
}

/// The value of a map entry that leaves it out.
fn empty(messages: &Messages, name: &str, field: &Field, depth: usize) -> Result<Value, Error> {
    let wire = match field.kind {
        Kind::Int32 | Kind::Int64 | Kind::Bool => Wire::Varint(0),
        Kind::Double => Wire::Fixed64(0),
        Kind::Text | Kind::Bytes | Kind::Message(_) => Wire::Bytes(&[]),
    };
    value(messages, name, field, wire, depth)
}

fn value(
    messages: &Messages,
    name: &str,
    field: &Field,
    wire: Wire<'_>,
    depth: usize,
) -> Result<Value, Error> {
    Ok(match &field.kind {
        Kind::Text => Value::String(wire.text(name)?.to_owned()),
        Kind::Bytes => Value::String(STANDARD.encode(wire.bytes(name)?)),
        Kind::Bool => Value::Bool(wire.varint(name)? != 0),
        Kind::Int64 => Value::from(wire.varint(name)?.cast_signed()),
        #[expect(clippy::cast_possible_truncation, reason = "protobuf takes the low 32 bits")]
        Kind::Int32 => Value::from(wire.varint(name)? as i32),
        Kind::Double => match wire {
            Wire::Fixed64(bits) => Number::from_f64(f64::from_bits(bits)).map_or(Value::Null, Value::Number),
            _ => return Err(failure(name, "wrong wire type")),
        },
        Kind::Message(inner) => nested(messages, inner, wire.bytes(name)?, depth + 1)?,
    })
}

fn nested(messages: &Messages, name: &str, bytes: &[u8], depth: usize) -> Result<Value, Error> {
    if let Some(special) = special::of(name) {
        return special_value(messages, special, name, bytes, depth);
    }
    let mut object = Map::new();
    message(messages, name, bytes, depth, &mut object)?;
    if messages.get(name)?.is_text_list {
        return Ok(object.remove("items").unwrap_or_else(|| Value::Array(Vec::new())));
    }
    Ok(Value::Object(object))
}

fn special_value(
    messages: &Messages,
    special: Special,
    name: &str,
    bytes: &[u8],
    depth: usize,
) -> Result<Value, Error> {
    if depth > MAX_DEPTH {
        return Err(Error::TooDeep);
    }
    let mut fields = Vec::new();
    for field in Fields::new(name, bytes) {
        fields.push(field?);
    }
    let last = |number: u64| fields.iter().rev().find(|(n, _)| *n == number).map(|(_, wire)| *wire);
    let integer = |number: u64| last(number).map_or(Ok(0), |wire| wire.varint(name)).map(u64::cast_signed);
    let text = |number: u64| last(number).map_or(Ok(""), |wire| wire.text(name));
    let raw = || last(1).map_or(Ok(&[] as &[u8]), |wire| wire.bytes(name));
    Ok(match special {
        Special::Quantity => match text(1)? {
            "" => Value::from("0"),
            text => Value::from(text),
        },
        Special::IntOrString => {
            if integer(1)? == 1 {
                Value::from(text(3)?)
            } else {
                Value::from(integer(2)?)
            }
        }
        Special::Time | Special::MicroTime => {
            let (seconds, nanos) = (integer(1)?, integer(2)?);
            match special {
                _ if seconds == 0 && nanos == 0 => Value::Null,
                Special::Time => Value::String(format_seconds(seconds)),
                _ => Value::String(format_micros(
                    seconds.saturating_mul(1_000_000).saturating_add(nanos / 1000),
                )),
            }
        }
        Special::Duration => Value::String(special::format_duration(integer(1)?)),
        Special::Json => json(name, raw()?)?,
        Special::RawExtension => {
            let raw = raw()?;
            if raw.starts_with(PREFIX) {
                messages.decode_envelope(raw, None, depth + 1)?
            } else {
                json(name, raw)?
            }
        }
        Special::SchemaOrArray | Special::SchemaOrBool | Special::SchemaOrTexts => {
            alternatives(messages, special, name, &fields, depth)?
        }
    })
}

fn alternatives(
    messages: &Messages,
    special: Special,
    name: &str,
    fields: &[(u64, Wire<'_>)],
    depth: usize,
) -> Result<Value, Error> {
    let schema = special::schema_message();
    let nested = |wire: Wire<'_>| nested(messages, &schema, wire.bytes(name)?, depth + 1);
    let schema_number = if special == Special::SchemaOrBool { 2 } else { 1 };
    if let Some((_, wire)) = fields.iter().rev().find(|(number, _)| *number == schema_number) {
        return nested(*wire);
    }
    let mut others = fields.iter().filter(|(number, _)| *number != schema_number);
    match special {
        Special::SchemaOrBool => {
            let allows = others.next_back().map_or(Ok(0), |(_, wire)| wire.varint(name))?;
            Ok(Value::Bool(allows != 0))
        }
        Special::SchemaOrTexts => {
            let texts: Result<Vec<Value>, Error> =
                others.map(|(_, wire)| wire.text(name).map(Value::from)).collect();
            Ok(Value::Array(texts?))
        }
        _ => {
            let schemas: Result<Vec<Value>, Error> = others.map(|(_, wire)| nested(*wire)).collect();
            Ok(Value::Array(schemas?))
        }
    }
}

fn json(name: &str, raw: &[u8]) -> Result<Value, Error> {
    if raw.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(raw).map_err(|_| failure(name, "raw bytes are not JSON"))
}
