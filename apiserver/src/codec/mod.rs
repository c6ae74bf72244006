//! Between bytes and objects: bodies in the three encodings, checked against the schema; patches; watch frames.

mod patch;
mod yaml;

use bytes::Bytes;
use serde_json::Value;
use wherry_machinery::decode::{self, Limits, decode_json, decode_object, decode_yaml};
use wherry_machinery::protobuf::{self, Messages};
use wherry_machinery::schema::{GroupVersionKind, LoadError, Schemas};
use wherry_machinery::status::{Reason, Status, StatusDetails};

pub use self::patch::Patch;
use crate::http::negotiate::MediaType;
use crate::registry::Refusal;
use crate::registry::context::{Context, FieldValidation};
use crate::registry::strategy::Resource;

/// The model of the built-in types, and what is encoded and decoded by it.
#[derive(Debug)]
pub struct Codec {
    schemas: Schemas,
    messages: Messages,
    limits: Limits,
}

/// The data that is built in does not read.
#[derive(Debug, thiserror::Error)]
pub enum BuiltinError {
    /// The types.
    #[error("the built-in types cannot be read")]
    Types(#[from] LoadError),
    /// The protobuf messages.
    #[error("the built-in protobuf messages cannot be read")]
    Messages(#[from] protobuf::Error),
}

impl Codec {
    /// The built-in types.
    ///
    /// # Errors
    /// When the data that is built in does not read.
    pub fn builtin() -> Result<Self, BuiltinError> {
        let schemas = Schemas::builtin()?;
        let messages = Messages::builtin(&schemas)?;
        Ok(Self { schemas, messages, limits: Limits::default() })
    }

    /// The model of the types.
    pub fn schemas(&self) -> &Schemas {
        &self.schemas
    }

    /// The protobuf messages of the types.
    pub fn messages(&self) -> &Messages {
        &self.messages
    }

    /// The object in a body, of the expected kind; unknown fields are treated as the request wants.
    ///
    /// # Errors
    /// 400 or 413, as kube-apiserver words them.
    pub fn decode(
        &self,
        resource: &Resource,
        context: &Context,
        media_type: MediaType,
        body: &Bytes,
    ) -> Result<Value, Refusal> {
        let expected = kind_of(resource);
        let media_type = match media_type {
            MediaType::Json => decode::MediaType::Json,
            MediaType::Yaml => decode::MediaType::Yaml,
            MediaType::Protobuf => decode::MediaType::Protobuf,
        };
        let decoded =
            decode_object(&self.schemas, &self.messages, &expected, media_type, body, &self.limits)?;
        match context.field_validation {
            FieldValidation::Strict => {
                if let Some(refusal) = decoded.strict_error(&expected) {
                    return Err(refusal.into());
                }
            }
            FieldValidation::Warn => decoded.strict.iter().for_each(|warning| context.warn(warning.clone())),
            FieldValidation::Ignore => {}
        }
        let mut object = decoded.object;
        object["apiVersion"] = resource.api_version().into();
        Ok(object)
    }

    /// `DeleteOptions` in a body.
    ///
    /// # Errors
    /// 400, as kube-apiserver words it.
    pub fn decode_delete_options(&self, media_type: MediaType, body: &Bytes) -> Result<Value, Refusal> {
        let bad = |error: &dyn std::fmt::Display| Box::new(Status::bad_request(error.to_string()));
        let options = match media_type {
            MediaType::Json => decode_json(body, &self.limits).map_err(|error| bad(&error))?.into_value(),
            MediaType::Yaml => decode_yaml(body, &self.limits).map_err(|error| bad(&error))?.into_value(),
            MediaType::Protobuf => {
                let expected = GroupVersionKind {
                    group: String::new(),
                    version: "v1".to_owned(),
                    kind: "DeleteOptions".to_owned(),
                };
                self.messages.decode_as(body, &expected).map_err(|error| bad(&error))?
            }
        };
        let kind = options["kind"].as_str().unwrap_or_default();
        if kind.is_empty() || kind == "DeleteOptions" {
            return Ok(options);
        }
        let version = options["apiVersion"].as_str().unwrap_or_default();
        Err(Status::bad_request(format!(
            "no kind {kind:?} is registered for version {version:?} in scheme \
             \"pkg/apis/meta/internalversion/scheme/register.go:27\""
        ))
        .into())
    }

    /// An object in protobuf.
    ///
    /// # Errors
    /// 406, when the kind has no message.
    pub fn encode_protobuf(&self, object: &Value) -> Result<Vec<u8>, Refusal> {
        self.messages.encode(object).map_err(|error| {
            let status =
                Status::failure(Reason::NotAcceptable, format!("the object cannot be encoded: {error}"));
            Box::new(status.with_details(StatusDetails::default()))
        })
    }

    /// A watch event as a frame of a protobuf stream: four bytes of length, then `WatchEvent`.
    ///
    /// # Errors
    /// 406, when the kind has no message.
    pub fn watch_frame(&self, event_type: &str, object: &Value) -> Result<Vec<u8>, Refusal> {
        let event = Messages::encode_watch_event(event_type, &self.encode_protobuf(object)?);
        let length = u32::try_from(event.len()).map_err(|error| Box::new(Status::internal(error)))?;
        Ok([&length.to_be_bytes()[..], &event].concat())
    }
}

/// An object as YAML, keys in order.
pub fn encode_yaml(value: &Value) -> Vec<u8> {
    yaml::encode(value).into_bytes()
}

fn kind_of(resource: &Resource) -> GroupVersionKind {
    GroupVersionKind {
        group: resource.group.to_owned(),
        version: resource.version.to_owned(),
        kind: resource.kind.to_owned(),
    }
}
