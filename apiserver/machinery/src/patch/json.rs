//! JSON patch, as the library that Kubernetes uses applies it, which is not quite RFC 6902: replacing a missing member of
//! an object adds it, and copying from a missing member copies null.

use serde_json::Value;

/// What copies may add together, in bytes; Kubernetes' own limit.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// How deep a document may become: as deep as one that is decoded, see [`crate::decode::Limits`].
const MAX_DEPTH: usize = 256;

/// Why a JSON patch cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonPatchError {
    /// The patch is no list of operations.
    #[error("a JSON patch is a list of operations")]
    NotAList,
    /// There is no such operation.
    #[error("unexpected kind: {0}")]
    Operation(String),
    /// A path is missing or does not start with `/`.
    #[error("operation {operation} has no usable {member}")]
    Pointer {
        /// The operation.
        operation: String,
        /// `path` or `from`.
        member: &'static str,
    },
    /// There is nothing at the path.
    #[error("{operation} operation does not apply: doc is missing path: {path}")]
    Missing {
        /// The operation.
        operation: String,
        /// The path.
        path: String,
    },
    /// An index is no number, or outside the list.
    #[error("invalid index referenced: {0}")]
    Index(String),
    /// The value is another.
    #[error("testing value {0} failed")]
    Test(String),
    /// The result would be nested too deeply.
    #[error("the value at {0} is nested too deeply")]
    TooDeep(String),
    /// Copies add too much.
    #[error("the accumulated size increase of copy exceeds the limit {MAX_COPIED_BYTES}")]
    CopyLimit,
}

/// Apply a list of operations in order.
///
/// # Errors
/// [`JsonPatchError`] of the first operation that fails; nothing is changed then.
pub fn json_patch(mut document: Value, patch: &Value) -> Result<Value, JsonPatchError> {
    let operations = match patch {
        Value::Array(operations) => operations.as_slice(),
        Value::Null => &[],
        _ => return Err(JsonPatchError::NotAList),
    };
    let mut copied_bytes = 0usize;
    for operation in operations {
        apply(&mut document, operation, &mut copied_bytes)?;
    }
    Ok(document)
}

fn apply(document: &mut Value, operation: &Value, copied_bytes: &mut usize) -> Result<(), JsonPatchError> {
    let name = operation.get("op").and_then(Value::as_str).unwrap_or_default();
    let pointer = |member: &'static str| {
        operation
            .get(member)
            .and_then(Value::as_str)
            .filter(|path| path.is_empty() || path.starts_with('/'))
            .ok_or_else(|| JsonPatchError::Pointer { operation: name.to_owned(), member })
    };
    let value = || operation.get("value").cloned().unwrap_or(Value::Null);
    match name {
        "add" => add(document, pointer("path")?, value(), name),
        "remove" => remove(document, pointer("path")?, name).map(drop),
        "replace" => replace(document, pointer("path")?, value()),
        "move" => {
            let moved = remove(document, pointer("from")?, name)?;
            add(document, pointer("path")?, moved, name)
        }
        "copy" => {
            let copied = get(document, pointer("from")?, name)?.cloned().unwrap_or(Value::Null);
            *copied_bytes = copied_bytes.saturating_add(copied.to_string().len());
            if *copied_bytes > MAX_COPIED_BYTES {
                return Err(JsonPatchError::CopyLimit);
            }
            add(document, pointer("path")?, copied, name)
        }
        "test" => {
            let path = pointer("path")?;
            let found = get(document, path, name)?.unwrap_or(&Value::Null);
            let wanted = operation.get("value").unwrap_or(&Value::Null);
            if is_equal(found, wanted) { Ok(()) } else { Err(JsonPatchError::Test(path.to_owned())) }
        }
        other => Err(JsonPatchError::Operation(other.to_owned())),
    }
}

/// Equal as JSON: 1 and 1.0 are one number.
fn is_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| is_equal(a, b)))
        }
        _ => a == b,
    }
}

fn unescape(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

fn missing(operation: &str, path: &str) -> JsonPatchError {
    JsonPatchError::Missing { operation: operation.to_owned(), path: path.to_owned() }
}

fn index(token: &str) -> Result<usize, JsonPatchError> {
    token.parse().map_err(|_| JsonPatchError::Index(token.to_owned()))
}

/// The parent of the place and the last token.
fn parent<'a>(
    document: &'a mut Value,
    path: &str,
    operation: &str,
) -> Result<(&'a mut Value, String), JsonPatchError> {
    let (container, last) = path.rsplit_once('/').ok_or_else(|| missing(operation, path))?;
    let container = document.pointer_mut(container).ok_or_else(|| missing(operation, path))?;
    Ok((container, unescape(last)))
}

/// The value at the path; `None` if it is a member that an object does not have.
fn get<'a>(document: &'a Value, path: &str, operation: &str) -> Result<Option<&'a Value>, JsonPatchError> {
    if path.is_empty() {
        return Ok(Some(document));
    }
    let (container, last) = path.rsplit_once('/').ok_or_else(|| missing(operation, path))?;
    let container = document.pointer(container).ok_or_else(|| missing(operation, path))?;
    match container {
        Value::Object(object) => Ok(object.get(&unescape(last))),
        Value::Array(elements) => {
            let index = index(last)?;
            elements.get(index).map(Some).ok_or_else(|| JsonPatchError::Index(last.to_owned()))
        }
        _ => Err(missing(operation, path)),
    }
}

/// How many lists and objects are around the innermost value.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(elements) => 1 + elements.iter().map(depth).max().unwrap_or(0),
        Value::Object(object) => 1 + object.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn check_depth(path: &str, value: &Value) -> Result<(), JsonPatchError> {
    if path.matches('/').count() + depth(value) > MAX_DEPTH {
        return Err(JsonPatchError::TooDeep(path.to_owned()));
    }
    Ok(())
}

fn add(document: &mut Value, path: &str, value: Value, operation: &str) -> Result<(), JsonPatchError> {
    check_depth(path, &value)?;
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    let (container, last) = parent(document, path, operation)?;
    match container {
        Value::Object(object) => {
            object.insert(last, value);
            Ok(())
        }
        Value::Array(elements) if last == "-" => {
            elements.push(value);
            Ok(())
        }
        Value::Array(elements) => {
            let index = index(&last)?;
            if index > elements.len() {
                return Err(JsonPatchError::Index(last));
            }
            elements.insert(index, value);
            Ok(())
        }
        _ => Err(missing(operation, path)),
    }
}

fn remove(document: &mut Value, path: &str, operation: &str) -> Result<Value, JsonPatchError> {
    let (container, last) = parent(document, path, operation)?;
    match container {
        Value::Object(object) => object.remove(&last).ok_or_else(|| missing(operation, path)),
        Value::Array(elements) => {
            let index = index(&last)?;
            if index >= elements.len() {
                return Err(JsonPatchError::Index(last));
            }
            Ok(elements.remove(index))
        }
        _ => Err(missing(operation, path)),
    }
}

fn replace(document: &mut Value, path: &str, value: Value) -> Result<(), JsonPatchError> {
    check_depth(path, &value)?;
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    let (container, last) = parent(document, path, "replace")?;
    match container {
        Value::Object(object) => {
            object.insert(last, value);
            Ok(())
        }
        Value::Array(elements) => {
            let index = index(&last)?;
            let element = elements.get_mut(index).ok_or(JsonPatchError::Index(last))?;
            *element = value;
            Ok(())
        }
        _ => Err(missing("replace", path)),
    }
}
