//! JSON as it was written: entries in order, duplicates kept, numbers as text.

use serde_json::{Map, Number, Value};

/// A JSON value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub enum Raw {
    /// `null`.
    Null,
    /// A truth value.
    Bool(bool),
    /// A number, as it was written.
    Number(String),
    /// A text.
    String(String),
    /// A list.
    Array(Vec<Raw>),
    /// An object: its entries in the order they were written, also those with the same key.
    Object(Vec<(String, Raw)>),
}

impl Raw {
    /// The last entry of this key.
    pub fn get(&self, key: &str) -> Option<&Raw> {
        match self {
            Self::Object(entries) => entries.iter().rev().find(|(k, _)| k == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// What Go calls a value of this kind in messages.
    pub(crate) fn kind_word(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }

    /// Without order and duplicates: the last entry of a key counts.
    pub fn into_value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(is_true) => Value::Bool(is_true),
            Self::Number(text) => number(&text),
            Self::String(text) => Value::String(text),
            Self::Array(elements) => Value::Array(elements.into_iter().map(Self::into_value).collect()),
            Self::Object(entries) => {
                let mut object = Map::new();
                for (key, value) in entries {
                    object.insert(key, value.into_value());
                }
                Value::Object(object)
            }
        }
    }
}

impl From<Value> for Raw {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(is_true) => Self::Bool(is_true),
            Value::Number(number) => Self::Number(number.to_string()),
            Value::String(text) => Self::String(text),
            Value::Array(elements) => Self::Array(elements.into_iter().map(Self::from).collect()),
            Value::Object(object) => {
                Self::Object(object.into_iter().map(|(key, value)| (key, Self::from(value))).collect())
            }
        }
    }
}

/// A number that was checked to be one: an integer where it fits, else the nearest float; `null` beyond the floats.
pub(crate) fn number(text: &str) -> Value {
    if let Ok(integer) = text.parse::<i64>() {
        return Value::from(integer);
    }
    if let Ok(integer) = text.parse::<u64>() {
        return Value::from(integer);
    }
    let float = text.parse::<f64>().unwrap_or_default();
    Number::from_f64(float).map_or(Value::Null, Value::Number)
}
