//! From the bytes of a request to an object as Kubernetes would store it.
//!
//! # Flow
//! [`decode_json`] or [`decode_yaml`] reads a [`Document`]; [`Document::type_meta`] tells what it claims to be;
//! [`Document::object`] turns it into an object of a type, with what strict decoding finds on the way. [`decode_object`]
//! does all of it and words the refusals as an API server does.
//!
//! # Guarantees
//! Bytes, depth and number of values are bounded before anything else is done. The object is what Kubernetes' own decoder
//! would make of the document: fields that are not known are gone, nulls are absent, quantities and times are in their
//! canonical form, and what Go leaves out or always writes is left out or there (see [`crate::schema::Presence`]).

mod convert;
mod defaults;
mod json;
mod raw;
mod request;
mod scalar;
mod yaml;

use serde_json::Value;

pub use convert::{normalize, prune, zero_value};
pub use defaults::apply_defaults;
pub use raw::Raw;
pub use request::{Decoded, MediaType, cannot_be_handled, decode_object, unrecognized};
pub(crate) use yaml::is_plain_yaml_text;

use crate::schema::Schema;

/// How large a document may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The document itself.
    pub max_bytes: usize,
    /// Nested lists and objects.
    pub max_depth: usize,
    /// Values, after the aliases of YAML are expanded.
    pub max_nodes: usize,
}

impl Default for Limits {
    /// 3 MiB, as kube-apiserver; 256 levels (it allows 10,000, which no real object comes near and a stack of 2 MiB does
    /// not hold); one value per byte or so, which only aliases can exceed.
    fn default() -> Self {
        Self { max_bytes: 3 * 1024 * 1024, max_depth: 256, max_nodes: 4 * 1024 * 1024 }
    }
}

/// A document that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// Not JSON, in Go's words.
    #[error("{0}")]
    Json(String),
    /// Not YAML, in Go's words.
    #[error("{0}")]
    Yaml(String),
    /// Too many bytes.
    #[error("limit is {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// Too many values.
    #[error("yaml: document contains excessive aliasing, more than {limit} values")]
    TooManyValues {
        /// The limit.
        limit: usize,
    },
}

/// A value that does not fit its field, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TypeError(pub String);

/// A document that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    root: Raw,
    /// Keys that stand twice in a YAML map, in Go's words.
    yaml_duplicates: Vec<String>,
}

/// What a document claims to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeMeta {
    /// `apiVersion`, empty if it is not there.
    pub api_version: String,
    /// `kind`, empty if it is not there.
    pub kind: String,
}

/// Read JSON.
///
/// # Errors
/// [`SyntaxError`], in Go's words.
pub fn decode_json(bytes: &[u8], limits: &Limits) -> Result<Document, SyntaxError> {
    json::parse(bytes, limits).map(Document::new)
}

/// Read one document of YAML 1.1, as `sigs.k8s.io/yaml` does. Several documents are refused.
///
/// # Errors
/// [`SyntaxError`], in Go's words where they are known.
pub fn decode_yaml(bytes: &[u8], limits: &Limits) -> Result<Document, SyntaxError> {
    let parsed = yaml::parse(bytes, limits)?;
    Ok(Document { root: parsed.root, yaml_duplicates: parsed.duplicates })
}

/// What strict decoding finds wrong with a document of this type: `unknown field "spec.foo"`, `duplicate field "data.k"`,
/// in the order of the document.
///
/// # Errors
/// [`TypeError`] when a value does not fit its field; Kubernetes looks no further then.
pub fn check_fields(schema: Schema<'_>, document: &Document) -> Result<Vec<String>, TypeError> {
    document.object(schema).map(|(_, strict)| strict)
}

impl Document {
    fn new(root: Raw) -> Self {
        Self { root, yaml_duplicates: Vec::new() }
    }

    /// From JSON that is already in memory, such as the result of a patch.
    pub fn from_value(value: Value) -> Self {
        Self::new(Raw::from(value))
    }

    /// The document as it was written.
    pub fn root(&self) -> &Raw {
        &self.root
    }

    /// The keys that stand twice in a map of YAML, in Go's words.
    pub fn yaml_duplicates(&self) -> &[String] {
        &self.yaml_duplicates
    }

    /// The document without order and duplicates, and without regard to any type.
    pub fn into_value(self) -> Value {
        self.root.into_value()
    }

    /// What the document claims to be.
    ///
    /// # Errors
    /// [`TypeError`] when it is no object, or the fields are no texts.
    pub fn type_meta(&self) -> Result<TypeMeta, TypeError> {
        const TARGET: &str = "struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }";
        let mut found = TypeMeta::default();
        let entries = match &self.root {
            Raw::Object(entries) => entries,
            Raw::Null => return Ok(found),
            other => {
                return Err(TypeError(format!(
                    "json: cannot unmarshal {} into Go value of type {TARGET}",
                    other.kind_word()
                )));
            }
        };
        for (key, value) in entries {
            let place = match key.as_str() {
                "apiVersion" => &mut found.api_version,
                "kind" => &mut found.kind,
                _ => continue,
            };
            match value {
                Raw::String(text) => place.clone_from(text),
                Raw::Null => {}
                other => {
                    return Err(TypeError(format!(
                        "json: cannot unmarshal {} into Go struct field .{key} of type string",
                        other.kind_word()
                    )));
                }
            }
        }
        Ok(found)
    }

    /// The object of this type, and what strict decoding finds wrong: unknown and duplicate fields.
    ///
    /// # Errors
    /// [`TypeError`] when a value does not fit its field.
    pub fn object(&self, schema: Schema<'_>) -> Result<(Value, Vec<String>), TypeError> {
        let (value, mut strict) = convert::convert(schema, &self.root)?;
        if !self.yaml_duplicates.is_empty() {
            strict.insert(0, format!("yaml: unmarshal errors:\n  {}", self.yaml_duplicates.join("\n  ")));
        }
        Ok((value, strict))
    }
}

#[cfg(test)]
mod tests;
