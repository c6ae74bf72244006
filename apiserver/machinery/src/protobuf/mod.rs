//! `application/vnd.kubernetes.protobuf`: objects between JSON and protobuf, driven by a table of messages.
//!
//! The wire form is `k8s\0` and a `runtime.Unknown` that holds the object's message. Decoding gives everything that is on
//! the wire, zeroes included: Go's encoder writes every field that it holds by value. [`crate::decode`] takes them out
//! again where JSON has none.
//!
//! Guarantees: depth is bounded, nothing is allocated that the bytes do not hold, unknown fields are skipped.

mod decoder;
mod encoder;
mod special;
mod table;
mod wire;

use serde_json::{Map, Value};

pub use table::Messages;

use crate::metadata;
use crate::schema::GroupVersionKind;

/// The first bytes of every object.
pub const PREFIX: &[u8; 4] = b"k8s\0";

const UNKNOWN: &str = "k8s.io.apimachinery.pkg.runtime.Unknown";
const WATCH_EVENT: &str = "k8s.io.apimachinery.pkg.apis.meta.v1.WatchEvent";

/// Why bytes or an object cannot be turned into the other.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The embedded table is damaged.
    #[error("the embedded messages cannot be decompressed")]
    Decompress(#[source] std::io::Error),
    /// The embedded table is damaged.
    #[error("the embedded messages are not in the form expected")]
    Table(#[source] serde_json::Error),
    /// The first bytes are others.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoPrefix,
    /// The bytes end in the middle of something, or hold what cannot be.
    #[error("proto: {message}: {problem}")]
    Wire {
        /// The message.
        message: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Messages within messages beyond what any object has.
    #[error("proto: exceeded max depth")]
    TooDeep,
    /// There is no message for the kind.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    NoMessage {
        /// The version.
        api_version: String,
        /// The kind.
        kind: String,
    },
    /// A value in the object is not what its field takes.
    #[error("proto: {message}.{field}: cannot encode {found}")]
    Value {
        /// The message.
        message: String,
        /// The field.
        field: String,
        /// What was found.
        found: &'static str,
    },
    /// The body is packed in a way that is not known.
    #[error("content encoding {0:?} is not supported")]
    ContentEncoding(String),
}

/// The envelope.
struct Envelope {
    api_version: String,
    kind: String,
    raw: Vec<u8>,
}

impl Messages {
    /// The object in these bytes, with `apiVersion` and `kind`.
    ///
    /// # Errors
    /// [`Error`] when the bytes are malformed or the kind is not known.
    pub fn decode(&self, bytes: &[u8]) -> Result<Value, Error> {
        self.decode_envelope(bytes, None, 0)
    }

    /// The object in these bytes; where they do not say what it is, it is `expected`.
    ///
    /// # Errors
    /// As for [`Messages::decode`].
    pub fn decode_as(&self, bytes: &[u8], expected: &GroupVersionKind) -> Result<Value, Error> {
        self.decode_envelope(bytes, Some(expected), 0)
    }

    fn decode_envelope(
        &self,
        bytes: &[u8],
        expected: Option<&GroupVersionKind>,
        depth: usize,
    ) -> Result<Value, Error> {
        let bytes = bytes.strip_prefix(PREFIX.as_slice()).ok_or(Error::NoPrefix)?;
        let envelope = decoder::envelope(bytes)?;
        let (mut api_version, mut kind) = (envelope.api_version, envelope.kind);
        if let Some(expected) = expected {
            if api_version.is_empty() {
                api_version = if expected.group.is_empty() {
                    expected.version.clone()
                } else {
                    format!("{}/{}", expected.group, expected.version)
                };
            }
            if kind.is_empty() {
                kind.clone_from(&expected.kind);
            }
        }
        let name = self.root(&api_version, &kind)?;
        let mut object = Map::new();
        decoder::message(self, name, &envelope.raw, depth, &mut object)?;
        object.insert("apiVersion".to_owned(), Value::String(api_version));
        object.insert("kind".to_owned(), Value::String(kind));
        Ok(Value::Object(object))
    }

    /// The bytes of an object, which says what it is in `apiVersion` and `kind`.
    ///
    /// # Errors
    /// [`Error`] when the kind is not known or a value does not fit its field.
    pub fn encode(&self, object: &Value) -> Result<Vec<u8>, Error> {
        let (api_version, kind) = (metadata::api_version(object), metadata::kind(object));
        let name = self.root(api_version, kind)?;
        let raw = encoder::message(self, name, object)?;
        Ok(seal(api_version, kind, &raw))
    }

    /// Whether there is a message for this kind: custom kinds have none.
    pub fn knows(&self, api_version: &str, kind: &str) -> bool {
        self.root(api_version, kind).is_ok()
    }

    /// The bytes of one event of a watch, without envelope and length: `object` is what [`Messages::encode`] gave.
    pub fn encode_watch_event(event_type: &str, object: &[u8]) -> Vec<u8> {
        let mut raw = Vec::with_capacity(object.len() + 8);
        wire::put_bytes(&mut raw, 1, object);
        let mut event = Vec::with_capacity(raw.len() + event_type.len() + 8);
        wire::put_bytes(&mut event, 1, event_type.as_bytes());
        wire::put_bytes(&mut event, 2, &raw);
        event
    }

    /// The event of a watch in these bytes: its type and the bytes of its object.
    ///
    /// # Errors
    /// [`Error::Wire`] when the bytes are malformed.
    pub fn decode_watch_event(bytes: &[u8]) -> Result<(String, Vec<u8>), Error> {
        let mut event_type = String::new();
        let mut object = Vec::new();
        for field in wire::Fields::new(WATCH_EVENT, bytes) {
            let (number, value) = field?;
            match number {
                1 => event_type = value.text(WATCH_EVENT)?.to_owned(),
                2 => {
                    for inner in wire::Fields::new(WATCH_EVENT, value.bytes(WATCH_EVENT)?) {
                        let (number, value) = inner?;
                        if number == 1 {
                            object = value.bytes(WATCH_EVENT)?.to_vec();
                        }
                    }
                }
                _ => {}
            }
        }
        Ok((event_type, object))
    }
}

/// Prefix, type and message.
fn seal(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut type_meta = Vec::new();
    wire::put_bytes(&mut type_meta, 1, api_version.as_bytes());
    wire::put_bytes(&mut type_meta, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(raw.len() + type_meta.len() + 32);
    out.extend_from_slice(PREFIX);
    wire::put_bytes(&mut out, 1, &type_meta);
    wire::put_bytes(&mut out, 2, raw);
    // Kubernetes writes both, empty.
    wire::put_bytes(&mut out, 3, b"");
    wire::put_bytes(&mut out, 4, b"");
    out
}

#[cfg(test)]
mod tests;
