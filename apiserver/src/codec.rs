//! Between bytes and objects: bodies in the three encodings, checked against the schema; patches; watch frames.

use bytes::Bytes;
use serde_json::Value;
use wherry_machinery::schema::Schemas;
use wherry_machinery::status::{Reason, Status};

use crate::http::negotiate::MediaType;
use crate::registry::Refusal;
use crate::registry::context::Context;
use crate::registry::strategy::Resource;

/// A patch, read.
#[derive(Debug)]
pub enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' own.
    Strategic(Value),
}

impl Patch {
    /// Reads a JSON patch.
    pub fn json(body: &[u8]) -> Result<Self, Refusal> {
        parse(body).map(Self::Json)
    }

    /// Reads a merge patch.
    pub fn merge(body: &[u8]) -> Result<Self, Refusal> {
        parse(body).map(Self::Merge)
    }

    /// Reads a strategic merge patch.
    pub fn strategic(body: &[u8]) -> Result<Self, Refusal> {
        parse(body).map(Self::Strategic)
    }
}

fn parse(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Box::new(Status::bad_request(format!("error decoding patch: {error}"))))
}

/// The object in a body, of the expected kind.
pub fn decode(
    _schemas: &Schemas,
    resource: &Resource,
    _context: &Context,
    media_type: MediaType,
    body: &Bytes,
) -> Result<Value, Refusal> {
    let mut value = match media_type {
        MediaType::Json => parse(body)?,
        _ => return Err(Status::failure(Reason::UnsupportedMediaType, "not yet").into()),
    };
    if value.is_null() {
        value = Value::Object(serde_json::Map::new());
    }
    value["kind"] = resource.kind.into();
    value["apiVersion"] = resource.api_version().into();
    Ok(value)
}

/// The result of a patch.
pub fn patched(
    _schemas: &Schemas,
    _resource: &Resource,
    _context: &Context,
    patch: &Patch,
    old: &Value,
) -> Result<Value, Refusal> {
    let mut new = old.clone();
    if let Patch::Merge(patch) = patch {
        merge(&mut new, patch);
    }
    Ok(new)
}

fn merge(target: &mut Value, patch: &Value) {
    match patch {
        Value::Object(fields) => {
            if !target.is_object() {
                *target = Value::Object(serde_json::Map::new());
            }
            for (key, value) in fields {
                if value.is_null() {
                    target.as_object_mut().map(|t| t.remove(key));
                } else {
                    merge(&mut target[key], value);
                }
            }
        }
        other => *target = other.clone(),
    }
}

/// `DeleteOptions` in a body.
pub fn decode_delete_options(_media_type: MediaType, body: &Bytes) -> Result<Value, Refusal> {
    parse(body)
}

/// An object as YAML.
pub fn encode_yaml(_value: &Value) -> Result<Vec<u8>, Refusal> {
    Err(Status::failure(Reason::NotAcceptable, "not yet").into())
}

/// An object as protobuf.
pub fn encode_protobuf(_value: &Value) -> Result<Vec<u8>, Refusal> {
    Err(Status::failure(Reason::NotAcceptable, "not yet").into())
}

/// A watch event as a frame of a protobuf stream.
pub fn watch_frame(_event_type: &str, _object: &Value) -> Result<Vec<u8>, Refusal> {
    Err(Status::failure(Reason::NotAcceptable, "not yet").into())
}
