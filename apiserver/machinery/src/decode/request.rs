//! The body of a create or update: decoding, with the refusals an API server gives.

use serde_json::Value;

use super::{Document, Limits, SyntaxError, decode_json, decode_yaml};
use crate::metadata::split_api_version;
use crate::protobuf;
use crate::schema::{GroupVersionKind, Schemas};
use crate::status::{Reason, Status};

/// In what form a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

/// An object that was decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The object, with `apiVersion` and `kind`.
    pub object: Value,
    /// What strict decoding finds: `unknown field "spec.foo"`, `duplicate field "data.k"`. Warnings, or with
    /// [`Decoded::strict_error`] a refusal.
    pub strict: Vec<String>,
    /// What the object is.
    pub kind: GroupVersionKind,
}

impl Decoded {
    /// The refusal of `fieldValidation=Strict`, if there is something to refuse.
    pub fn strict_error(&self, expected: &GroupVersionKind) -> Option<Status> {
        if self.strict.is_empty() {
            return None;
        }
        let cause = format!("strict decoding error: {}", self.strict.join(", "));
        Some(cannot_be_handled(&self.kind, &expected.kind, &cause))
    }
}

/// The start of a body as Kubernetes shows it: text if it looks like an object, else hexadecimal.
fn summary(body: &[u8]) -> String {
    const LENGTH: usize = 30;
    let dots = if body.len() > LENGTH { " ..." } else { "" };
    let start = &body[..body.len().min(LENGTH)];
    match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{dots}", String::from_utf8_lossy(start)),
        Some(_) => {
            let hex: String = start.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{hex}{dots}")
        }
    }
}

/// The refusal of a body that does not even say what it is.
pub fn unrecognized(expected_kind: &str, cause: &str, body: &[u8]) -> Status {
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {expected_kind}): {cause} ({})",
        summary(body)
    ))
}

/// The refusal of a body that says what it is, and is not that or not what is wanted.
pub fn cannot_be_handled(claimed: &GroupVersionKind, expected_kind: &str, cause: &str) -> Status {
    Status::bad_request(format!(
        "{} in version {} cannot be handled as a {expected_kind}: {cause}",
        claimed.kind,
        crate::field::go_quote(&claimed.version)
    ))
}

fn too_large(limit_bytes: usize) -> Status {
    Status::failure(
        Reason::RequestEntityTooLarge,
        format!("Request entity too large: limit is {limit_bytes}"),
    )
}

/// Decode a body that is to be an object of `expected`. `apiVersion` and `kind` may be left out; a body of another
/// version of the same kind is taken if `schemas` has the type, and told by [`Decoded::kind`].
///
/// # Errors
/// The 400 (or 413) that kube-apiserver gives, word for word where its words do not depend on Go's internals.
pub fn decode_object(
    schemas: &Schemas,
    protobuf: &protobuf::Messages,
    expected: &GroupVersionKind,
    media_type: MediaType,
    body: &[u8],
    limits: &Limits,
) -> Result<Decoded, Status> {
    if body.len() > limits.max_bytes {
        return Err(too_large(limits.max_bytes));
    }
    let document = match media_type {
        MediaType::Json => decode_json(body, limits).map_err(|error| match error {
            SyntaxError::TooLarge { limit_bytes } => too_large(limit_bytes),
            error => {
                let cause = format!("couldn't get version/kind; json parse error: {error}");
                unrecognized(&expected.kind, &cause, body)
            }
        })?,
        MediaType::Yaml => decode_yaml(body, limits)
            .map_err(|error| unrecognized(&expected.kind, &error.to_string(), body))?,
        MediaType::Protobuf => {
            let value = protobuf
                .decode_as(body, expected)
                .map_err(|error| unrecognized(&expected.kind, &error.to_string(), body))?;
            Document::from_value(value)
        }
    };
    let meta = document.type_meta().map_err(|error| {
        let cause = format!("couldn't get version/kind; json parse error: {error}");
        unrecognized(&expected.kind, &cause, body)
    })?;
    let (group, version) =
        split_api_version(&meta.api_version).map_err(|cause| unrecognized(&expected.kind, &cause, body))?;
    let claimed = if meta.api_version.is_empty() {
        let kind = if meta.kind.is_empty() { expected.kind.clone() } else { meta.kind.clone() };
        GroupVersionKind { kind, ..expected.clone() }
    } else {
        let kind = if meta.kind.is_empty() { &expected.kind } else { &meta.kind };
        GroupVersionKind { group: group.to_owned(), version: version.to_owned(), kind: kind.clone() }
    };
    let refuse = |cause: &str| cannot_be_handled(&claimed, &expected.kind, cause);
    let api_version = api_version(&claimed);
    let Some(schema) = schemas.root(&claimed.group, &claimed.version, &claimed.kind) else {
        return Err(refuse(&format!(
            "no kind {} is registered for version {} in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
            crate::field::go_quote(&claimed.kind),
            crate::field::go_quote(&api_version)
        )));
    };
    let (mut object, strict) = document.object(schema).map_err(|error| refuse(&error.to_string()))?;
    // Options are of one type in every group.
    let is_same_kind = claimed.kind == expected.kind && claimed.group == expected.group;
    if !is_same_kind && !schema.kinds().contains(expected) {
        return Err(refuse(&format!(
            "converting ({}.{}) to ({}.{}): unknown conversion",
            claimed.version,
            claimed.kind,
            internal_package(&expected.group),
            expected.kind
        )));
    }
    if let Some(object) = object.as_object_mut() {
        object.insert("apiVersion".to_owned(), Value::String(api_version));
        object.insert("kind".to_owned(), Value::String(claimed.kind.clone()));
    }
    Ok(Decoded { object, strict, kind: claimed })
}

fn api_version(kind: &GroupVersionKind) -> String {
    if kind.group.is_empty() { kind.version.clone() } else { format!("{}/{}", kind.group, kind.version) }
}

/// The Go package of a group's internal types.
fn internal_package(group: &str) -> &str {
    if group.is_empty() { "core" } else { group.split('.').next().unwrap_or(group) }
}
