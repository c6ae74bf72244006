//! Patches, as the verbs use them.

use bytes::Bytes;
use serde_json::Value;
use wherry_machinery::decode::{SyntaxError, decode_yaml};
use wherry_machinery::patch::{self, PatchType};
use wherry_machinery::status::Status;

use super::Codec;
use crate::registry::Refusal;
use crate::registry::context::{Context, FieldValidation};
use crate::registry::ownership::Configuration;
use crate::registry::strategy::Resource;

/// A patch, as it was sent.
#[derive(Debug, Clone)]
pub struct Patch {
    /// In which language.
    pub patch_type: PatchType,
    /// The body.
    pub body: Bytes,
}

impl Codec {
    /// What becomes of an object by a patch, as if a client had sent it: of its type, without unknown fields.
    ///
    /// # Errors
    /// When the patch does not read or does not apply, or its result is no object of the type.
    pub fn patched(
        &self,
        resource: &Resource,
        context: &Context,
        patch: &Patch,
        old: &Value,
    ) -> Result<Value, Refusal> {
        let schema = self
            .schemas()
            .root(resource.group, resource.version, resource.kind)
            .ok_or_else(|| Box::new(Status::internal(format!("no schema for {}", resource.kind))))?;
        let patched = patch::apply(schema, patch.patch_type, old, &patch.body, &self.limits)?;
        match context.field_validation {
            FieldValidation::Strict => {
                if let Some(refusal) = patched.strict_error() {
                    return Err(refusal.into());
                }
            }
            FieldValidation::Warn => patched.strict.iter().for_each(|warning| context.warn(warning.clone())),
            FieldValidation::Ignore => {}
        }
        Ok(patched.object)
    }

    /// The configuration in a body, for server-side apply.
    ///
    /// # Errors
    /// 400, when it does not read or is of another kind.
    pub fn configuration(
        &self,
        resource: &Resource,
        context: &Context,
        body: &Bytes,
        force: bool,
    ) -> Result<Configuration, Refusal> {
        let document = decode_yaml(body, &self.limits).map_err(|error| {
            let text = match error {
                SyntaxError::TooLarge { .. } | SyntaxError::TooManyValues { .. } => error.to_string(),
                SyntaxError::Json(text) | SyntaxError::Yaml(text) => {
                    format!("error decoding YAML: error converting YAML to JSON: {text}")
                }
            };
            Box::new(Status::bad_request(text))
        })?;
        let duplicates = document.yaml_duplicates();
        match context.field_validation {
            FieldValidation::Strict if !duplicates.is_empty() => {
                let text = format!("error strict decoding YAML: {}", duplicates.join("\n"));
                return Err(Status::bad_request(text).into());
            }
            FieldValidation::Warn => duplicates.iter().for_each(|text| context.warn(text.clone())),
            FieldValidation::Strict | FieldValidation::Ignore => {}
        }
        Configuration::new(resource, document.into_value(), force)
    }
}
