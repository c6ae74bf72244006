//! `metadata.managedFields`: who owns which fields.
//!
//! Source: KEP-555; `k8s.io/apimachinery/pkg/util/managedfields`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::set::FieldSet;

/// How a manager came to own fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// By applying them.
    Apply,
    /// By any other write.
    Update,
}

impl Operation {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// Who owns fields: what makes two entries the same one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Manager {
    /// The name that the client gave itself.
    pub name: String,
    /// How.
    pub operation: Operation,
    /// The version that its fields are of. One that applies may change it and stays the same manager: empty then.
    api_version: String,
    /// The subresource that was written; empty for the object itself.
    pub subresource: String,
}

impl Manager {
    /// A manager.
    pub fn new(name: &str, operation: Operation, api_version: &str, subresource: &str) -> Self {
        let api_version = if operation == Operation::Apply { "" } else { api_version };
        Self {
            name: name.to_owned(),
            operation,
            api_version: api_version.to_owned(),
            subresource: subresource.to_owned(),
        }
    }
}

/// What a manager owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// The fields.
    pub fields: FieldSet,
    /// The version that they are of.
    pub api_version: String,
    /// When it last took fields, as in JSON.
    pub time: Option<String>,
}

/// All managers of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Managed(pub(super) BTreeMap<Manager, Owned>);

/// A list that cannot be `managedFields`, in Kubernetes' words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotManaged(String);

impl Managed {
    /// Whether nobody owns anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The managers and what they own.
    pub fn iter(&self) -> impl Iterator<Item = (&Manager, &Owned)> {
        self.0.iter()
    }

    /// Reads `metadata.managedFields`; absent is empty.
    ///
    /// # Errors
    /// [`NotManaged`].
    pub fn decode(list: Option<&Value>) -> Result<Self, NotManaged> {
        let entries = match list {
            None | Some(Value::Null) => return Ok(Self::default()),
            Some(Value::Array(entries)) => entries,
            Some(_) => return Err(NotManaged("managedFields is not a list".to_owned())),
        };
        let mut managed = BTreeMap::new();
        for (index, entry) in entries.iter().enumerate() {
            let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
            let operation = match text("operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return Err(NotManaged("operation must be `Apply` or `Update`".to_owned())),
            };
            let api_version = text("apiVersion");
            if api_version.is_empty() {
                return Err(NotManaged("apiVersion must not be empty".to_owned()));
            }
            match text("fieldsType") {
                "FieldsV1" => {}
                "" => return Err(NotManaged(format!("missing fieldsType in managed fields entry {index}"))),
                other => {
                    let other = crate::field::go_quote(other);
                    return Err(NotManaged(format!(
                        "invalid fieldsType {other} in managed fields entry {index}"
                    )));
                }
            }
            let fields = match entry.get("fieldsV1") {
                None | Some(Value::Null) => FieldSet::default(),
                Some(fields) => {
                    FieldSet::from_fields_v1(fields).map_err(|error| NotManaged(error.to_string()))?
                }
            };
            let manager = Manager::new(text("manager"), operation, api_version, text("subresource"));
            let time = entry.get("time").and_then(Value::as_str).map(str::to_owned);
            managed.insert(manager, Owned { fields, api_version: api_version.to_owned(), time });
        }
        Ok(Self(managed))
    }

    /// As `metadata.managedFields`: first who applies, then by time and name.
    pub fn encode(&self) -> Value {
        let mut entries: Vec<_> = self.0.iter().collect();
        entries.sort_by(|(a, of_a), (b, of_b)| {
            let key = |manager: &'_ Manager, owned: &'_ Owned| {
                (
                    manager.operation,
                    owned.time.clone(),
                    manager.name.clone(),
                    owned.api_version.clone(),
                    manager.subresource.clone(),
                )
            };
            key(a, of_a).cmp(&key(b, of_b))
        });
        let entries = entries.into_iter().map(|(manager, owned)| {
            let mut entry = Map::new();
            let mut set = |name: &str, value: &str| {
                if !value.is_empty() {
                    entry.insert(name.to_owned(), Value::from(value));
                }
            };
            set("manager", &manager.name);
            set("operation", manager.operation.as_str());
            set("apiVersion", &owned.api_version);
            set("time", owned.time.as_deref().unwrap_or_default());
            set("fieldsType", "FieldsV1");
            set("subresource", &manager.subresource);
            entry.insert("fieldsV1".to_owned(), owned.fields.to_fields_v1());
            Value::Object(entry)
        });
        Value::Array(entries.collect())
    }
}
