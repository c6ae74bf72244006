//! Patches, as the verbs use them.

use bytes::Bytes;
use serde_json::Value;
use wherry_machinery::patch::{self, PatchType};
use wherry_machinery::status::Status;

use super::Codec;
use crate::registry::Refusal;
use crate::registry::context::{Context, FieldValidation};
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
}
