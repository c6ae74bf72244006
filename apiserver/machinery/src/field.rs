//! Field paths and field errors, worded as Kubernetes words them.
//!
//! Source: `k8s.io/apimachinery/pkg/util/validation/field`.

use std::fmt;

use serde_json::Value;

/// Where in an object a value stands, such as `spec.containers[0].name`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path(String);

impl Path {
    /// The path of a top-level field.
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The empty path, of the object itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// The path of the field `name` of this value.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self::new(name) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// The path of the list element `index` of this value.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The path of the map entry `key` of this value.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Kubernetes prints a nil path so.
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

/// What is wrong with a field. The name is the `reason` of a `Status` cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorType {
    /// A value that should exist does not.
    NotFound,
    /// A value that must be given is missing.
    Required,
    /// A value that must be unique occurs twice.
    Duplicate,
    /// A value is malformed.
    Invalid,
    /// A value is not one of an enumeration.
    NotSupported,
    /// A value is not permitted here.
    Forbidden,
    /// A value is longer than allowed.
    TooLong,
    /// A list has more elements than allowed.
    TooMany,
    /// The server failed to check the value.
    Internal,
    /// A value is of the wrong type.
    TypeInvalid,
}

impl ErrorType {
    /// The `reason` of the cause in a `Status`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }
}

/// One thing wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Where.
    pub path: Path,
    /// What kind of error.
    pub error_type: ErrorType,
    /// Everything after the path, as Kubernetes prints it: `Invalid value: "x": must be ...`.
    pub body: String,
}

/// All that is wrong with an object.
pub type ErrorList = Vec<Error>;

impl Error {
    fn build(path: &Path, error_type: ErrorType, value: Option<&Value>, detail: &str) -> Self {
        let mut body = error_type.words().to_owned();
        if let Some(value) = value {
            body.push_str(": ");
            body.push_str(&render(value));
        }
        if !detail.is_empty() {
            body.push_str(": ");
            body.push_str(detail);
        }
        Self { path: path.clone(), error_type, body }
    }

    /// A value that was looked for is not there.
    pub fn not_found(path: &Path, value: impl Into<Value>) -> Self {
        Self::build(path, ErrorType::NotFound, Some(&value.into()), "")
    }

    /// A required value is missing.
    pub fn required(path: &Path, detail: &str) -> Self {
        Self::build(path, ErrorType::Required, None, detail)
    }

    /// A value occurs twice.
    pub fn duplicate(path: &Path, value: impl Into<Value>) -> Self {
        Self::build(path, ErrorType::Duplicate, Some(&value.into()), "")
    }

    /// A value is malformed.
    pub fn invalid(path: &Path, value: impl Into<Value>, detail: &str) -> Self {
        Self::build(path, ErrorType::Invalid, Some(&value.into()), detail)
    }

    /// A value is malformed; `rendered` is the value as it stands in the message. For values whose JSON has an order of
    /// fields that a [`Value`] does not keep.
    pub fn invalid_rendered(path: &Path, rendered: &str, detail: &str) -> Self {
        let mut error = Self::build(path, ErrorType::Invalid, None, detail);
        error.body = format!("{}: {rendered}", ErrorType::Invalid.words());
        if !detail.is_empty() {
            error.body.push_str(": ");
            error.body.push_str(detail);
        }
        error
    }

    /// A value is of the wrong type.
    pub fn type_invalid(path: &Path, value: impl Into<Value>, detail: &str) -> Self {
        Self::build(path, ErrorType::TypeInvalid, Some(&value.into()), detail)
    }

    /// A value is not one of `supported`; Kubernetes lists those quoted, in sorted order where `supported` is sorted.
    pub fn not_supported(path: &Path, value: impl Into<Value>, supported: &[&str]) -> Self {
        let detail = if supported.is_empty() {
            String::new()
        } else {
            let quoted: Vec<String> = supported.iter().map(|v| format!("{v:?}")).collect();
            format!("supported values: {}", quoted.join(", "))
        };
        Self::build(path, ErrorType::NotSupported, Some(&value.into()), &detail)
    }

    /// A value is not permitted here.
    pub fn forbidden(path: &Path, detail: &str) -> Self {
        Self::build(path, ErrorType::Forbidden, None, detail)
    }

    /// A text is longer than `max_bytes`.
    pub fn too_long(path: &Path, max_bytes: usize) -> Self {
        let unit = if max_bytes == 1 { "byte" } else { "bytes" };
        Self::build(path, ErrorType::TooLong, None, &format!("may not be more than {max_bytes} {unit}"))
    }

    /// A list has `actual` elements, more than `max`.
    pub fn too_many(path: &Path, actual: usize, max: usize) -> Self {
        let unit = if max == 1 { "item" } else { "items" };
        Self::build(
            path,
            ErrorType::TooMany,
            Some(&actual.into()),
            &format!("must have at most {max} {unit}"),
        )
    }

    /// The server could not check the value.
    pub fn internal(path: &Path, detail: &str) -> Self {
        Self::build(path, ErrorType::Internal, None, detail)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body)
    }
}

/// A value as it stands in an error: text quoted as Go's `%q` quotes it, everything else as JSON.
fn render(value: &Value) -> String {
    match value {
        Value::String(text) => go_quote(text),
        Value::Null => "null".to_owned(),
        other => other.to_string(),
    }
}

/// `text` quoted as Go's `strconv.Quote` quotes it.
pub fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_worded_as_kubernetes_words_them() {
        let path = Path::new("spec").child("containers").index(0).child("name");
        let table = [
            (Error::required(&path, ""), "spec.containers[0].name: Required value"),
            (Error::required(&path, "must be set"), "spec.containers[0].name: Required value: must be set"),
            (Error::invalid(&path, "A\n", "bad"), r#"spec.containers[0].name: Invalid value: "A\n": bad"#),
            (
                Error::invalid(&path, -1, "must be positive"),
                "spec.containers[0].name: Invalid value: -1: must be positive",
            ),
            (Error::duplicate(&path, "a"), r#"spec.containers[0].name: Duplicate value: "a""#),
            (
                Error::not_supported(&path, "x", &["A", "B"]),
                r#"spec.containers[0].name: Unsupported value: "x": supported values: "A", "B""#,
            ),
            (Error::too_long(&path, 63), "spec.containers[0].name: Too long: may not be more than 63 bytes"),
            (Error::too_many(&path, 3, 2), "spec.containers[0].name: Too many: 3: must have at most 2 items"),
            (Error::forbidden(&Path::root(), "no"), "<nil>: Forbidden: no"),
        ];
        for (error, want) in table {
            assert_eq!(error.to_string(), want);
        }
    }
}
