//! The table of messages, read from the embedded data.

use std::collections::HashMap;

use serde_json::Value;

use super::Error;
use crate::schema::Schemas;

/// Per message, its fields; made by `data/pack.sh`.
const MESSAGES: &[u8] = include_bytes!("../../data/protobuf.json.zst");

/// All messages, and which kinds they are of. Built once.
#[derive(Debug)]
pub struct Messages {
    by_name: HashMap<String, Message>,
    /// By `apiVersion/kind`.
    roots: HashMap<String, String>,
}

/// One message.
#[derive(Debug)]
pub(super) struct Message {
    /// In order of their numbers.
    pub(super) fields: Vec<Field>,
    /// Whether it stands for a list of texts in JSON: its only field is `items`.
    pub(super) is_text_list: bool,
}

/// One field of a message.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u64,
    /// The name in JSON.
    pub(super) name: String,
    pub(super) label: Label,
    pub(super) kind: Kind,
    /// The fields of the message stand among the outer fields in JSON.
    pub(super) is_inline: bool,
}

/// How often a field occurs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    Optional,
    Repeated,
    Map,
}

/// What a field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Int32,
    Int64,
    Bool,
    Bytes,
    Double,
    Message(String),
}

/// `[number, name, label, type]` or `[number, name, label, type, extra]`.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Row {
    Plain(u64, String, String, String),
    Extra(u64, String, String, String, String),
}

impl Messages {
    /// The messages of the built-in kinds of Kubernetes 1.36; `schemas` tells which kinds they are of.
    ///
    /// # Errors
    /// [`Error`] if the embedded data is damaged.
    pub fn builtin(schemas: &Schemas) -> Result<Self, Error> {
        let json = zstd::decode_all(MESSAGES).map_err(Error::Decompress)?;
        let rows: HashMap<String, Vec<Row>> = serde_json::from_slice(&json).map_err(Error::Table)?;
        let by_name: HashMap<String, Message> =
            rows.into_iter().map(|(name, rows)| (name, message(rows))).collect();
        let mut roots = HashMap::new();
        for name in schemas.names() {
            let Some(schema) = schemas.named(name) else { continue };
            let message = name.replacen("io.k8s.", "k8s.io.", 1).replace('-', "_");
            if !by_name.contains_key(&message) {
                continue;
            }
            for kind in schema.kinds() {
                let group = if kind.group.is_empty() { String::new() } else { format!("{}/", kind.group) };
                roots.insert(format!("{group}{}/{}", kind.version, kind.kind), message.clone());
            }
        }
        // Kinds that no type of OpenAPI stands for.
        let meta = "k8s.io.apimachinery.pkg.apis.meta.v1";
        for kind in ["PartialObjectMetadata", "PartialObjectMetadataList", "TableOptions"] {
            roots.insert(format!("meta.k8s.io/v1/{kind}"), format!("{meta}.{kind}"));
        }
        for kind in ["CreateOptions", "UpdateOptions", "PatchOptions", "GetOptions", "ListOptions"] {
            roots.insert(format!("meta.k8s.io/v1/{kind}"), format!("{meta}.{kind}"));
        }
        roots.insert("v1/List".to_owned(), "k8s.io.api.core.v1.List".to_owned());
        roots.insert(
            "apidiscovery.k8s.io/v2/APIGroupDiscoveryList".to_owned(),
            "k8s.io.api.apidiscovery.v2.APIGroupDiscoveryList".to_owned(),
        );
        roots.insert(
            "admission.k8s.io/v1/AdmissionReview".to_owned(),
            "k8s.io.api.admission.v1.AdmissionReview".to_owned(),
        );
        roots.retain(|_, message| by_name.contains_key(message.as_str()));
        Ok(Self { by_name, roots })
    }

    pub(super) fn root(&self, api_version: &str, kind: &str) -> Result<&str, Error> {
        self.roots
            .get(&format!("{api_version}/{kind}"))
            .map(String::as_str)
            .ok_or_else(|| Error::NoMessage { api_version: api_version.to_owned(), kind: kind.to_owned() })
    }

    pub(super) fn get(&self, name: &str) -> Result<&Message, Error> {
        self.by_name
            .get(name)
            .ok_or_else(|| Error::Wire { message: name.to_owned(), problem: "unknown message" })
    }

    /// The names of all messages, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }
}

fn message(rows: Vec<Row>) -> Message {
    let mut fields: Vec<Field> = rows
        .into_iter()
        .map(|row| {
            let (number, name, label, kind, extra) = match row {
                Row::Plain(number, name, label, kind) => (number, name, label, kind, String::new()),
                Row::Extra(number, name, label, kind, extra) => (number, name, label, kind, extra),
            };
            Field {
                number,
                name: extra.strip_prefix("json:").map_or(name, str::to_owned),
                label: match label.as_str() {
                    "repeated" => Label::Repeated,
                    "map" => Label::Map,
                    _ => Label::Optional,
                },
                kind: match kind.as_str() {
                    "string" => Kind::Text,
                    "int32" => Kind::Int32,
                    "int64" => Kind::Int64,
                    "bool" => Kind::Bool,
                    "bytes" => Kind::Bytes,
                    "double" => Kind::Double,
                    _ => Kind::Message(kind),
                },
                is_inline: extra == "inline",
            }
        })
        .collect();
    fields.sort_by_key(|field| field.number);
    let is_text_list = matches!(fields.as_slice(), [field]
        if field.name == "items" && field.label == Label::Repeated && field.kind == Kind::Text);
    Message { fields, is_text_list }
}

impl Message {
    pub(super) fn field(&self, number: u64) -> Option<&Field> {
        self.fields.binary_search_by_key(&number, |field| field.number).ok().map(|at| &self.fields[at])
    }
}

/// What a JSON value is called in errors.
pub(super) fn kind_word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a bool",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
