//! One step of a path through an object, as field ownership names it.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Map, Value};

/// A scalar that identifies an element of a list, or any JSON by its text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Literal {
    /// Nothing.
    Null,
    /// A truth value.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number, by its text.
    Number(String),
    /// Text.
    String(String),
    /// An object or a list, by its text.
    Other(String),
}

impl Literal {
    /// The value as JSON.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Boolean(value) => Value::Bool(*value),
            Self::Integer(value) => Value::from(*value),
            Self::String(text) => Value::String(text.clone()),
            // They were JSON when they were made.
            Self::Number(text) | Self::Other(text) => serde_json::from_str(text).unwrap_or_default(),
        }
    }
}

impl From<&Value> for Literal {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Boolean(*value),
            Value::Number(number) => {
                number.as_i64().map_or_else(|| Self::Number(number.to_string()), Self::Integer)
            }
            Value::String(text) => Self::String(text.clone()),
            other => Self::Other(other.to_string()),
        }
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Boolean(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::String(text) => f.write_str(&crate::field::go_quote(text)),
            Self::Number(text) | Self::Other(text) => f.write_str(text),
        }
    }
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathElement {
    /// A field of an object, or an entry of a map.
    Field(String),
    /// The element of a list whose key fields have these values; in order of their names.
    Key(Vec<(String, Literal)>),
    /// The element of a set that equals this.
    Value(Literal),
    /// The element at this place.
    Index(usize),
}

impl PathElement {
    /// A field.
    pub fn field(name: impl Into<String>) -> Self {
        Self::Field(name.into())
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Field(_) => 0,
            Self::Key(_) => 1,
            Self::Value(_) => 2,
            Self::Index(_) => 3,
        }
    }

    /// As a key of `fieldsV1`: `f:name`, `k:{"name":"a"}`, `v:"x"`, `i:0`.
    pub fn to_key(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(fields) => {
                let fields: Map<String, Value> =
                    fields.iter().map(|(name, value)| (name.clone(), value.to_value())).collect();
                format!("k:{}", Value::Object(fields))
            }
            Self::Value(value) => format!("v:{}", value.to_value()),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    /// From a key of `fieldsV1`; `None` if it is not one.
    pub fn from_key(key: &str) -> Option<Self> {
        let (kind, rest) = key.split_at_checked(2)?;
        match kind {
            "f:" => Some(Self::Field(rest.to_owned())),
            "k:" => {
                let Value::Object(fields) = serde_json::from_str(rest).ok()? else { return None };
                let mut fields: Vec<_> =
                    fields.iter().map(|(name, value)| (name.clone(), Literal::from(value))).collect();
                fields.sort();
                Some(Self::Key(fields))
            }
            "v:" => serde_json::from_str::<Value>(rest).ok().map(|value| Self::Value(Literal::from(&value))),
            "i:" => rest.parse().ok().map(Self::Index),
            _ => None,
        }
    }
}

impl Ord for PathElement {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Field(a), Self::Field(b)) => a.cmp(b),
            (Self::Key(a), Self::Key(b)) => a.cmp(b),
            (Self::Value(a), Self::Value(b)) => a.cmp(b),
            (Self::Index(a), Self::Index(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for PathElement {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// As in the messages of conflicts: `.spec`, `[name="a"]`, `[="x"]`, `[0]`.
impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(fields) => {
                f.write_str("[")?;
                for (index, (name, value)) in fields.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={value}")?;
                }
                f.write_str("]")
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// A path as in the messages of conflicts: `.spec.containers[name="a"].image`.
pub fn path_text(path: &[PathElement]) -> String {
    path.iter().map(ToString::to_string).collect()
}
