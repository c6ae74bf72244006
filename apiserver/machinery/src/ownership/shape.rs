//! How a value divides into parts that can be owned, as its type says.

use serde_json::Value;

use super::element::{Literal, PathElement};
use crate::schema::{ListKind, Schema, Shape};

/// What a value is to field ownership.
pub(super) enum Parts<'a> {
    /// One thing, whatever is in it.
    Leaf,
    /// Fields or entries.
    Map,
    /// Elements with an identity.
    List { items: Schema<'a>, identity: Identity<'a> },
}

/// What identifies an element of a list.
#[derive(Debug, Clone, Copy)]
pub(super) enum Identity<'a> {
    /// Itself.
    Itself,
    /// These fields.
    Keys(&'a [String]),
}

/// The parts of values of a type; the value tells which of two alternatives it is.
pub(super) fn parts<'a>(schema: Schema<'a>, value: &Value) -> Parts<'a> {
    match schema.for_value(value).shape() {
        Shape::Object { is_atomic: false, .. } | Shape::Map { is_atomic: false, .. } => Parts::Map,
        Shape::List { items, kind } => match kind {
            ListKind::Set => Parts::List { items, identity: Identity::Itself },
            ListKind::Map(keys) => Parts::List { items, identity: Identity::Keys(keys) },
            ListKind::Atomic | ListKind::Unspecified => Parts::Leaf,
        },
        Shape::Either { .. } | Shape::Object { .. } | Shape::Map { .. } | Shape::Scalar(_) | Shape::Any => {
            Parts::Leaf
        }
    }
}

/// The element of a path that leads to an element of a list.
pub(super) fn element_of(
    items: Schema<'_>,
    identity: Identity<'_>,
    item: &Value,
) -> Result<PathElement, String> {
    match identity {
        Identity::Itself => match item {
            Value::Null => {
                Err("associative list without keys has an element that's an explicit null".to_owned())
            }
            Value::Object(_) => {
                Err("associative list without keys has an element that's a map type".to_owned())
            }
            Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
            scalar => Ok(PathElement::Value(Literal::from(scalar))),
        },
        Identity::Keys(keys) => {
            let fields = match item {
                Value::Object(fields) => fields,
                Value::Null => {
                    return Err("associative list with keys may not have a null element".to_owned());
                }
                _ => return Err("associative list with keys may not have non-map elements".to_owned()),
            };
            let mut found: Vec<(String, Literal)> = keys
                .iter()
                .filter_map(|key| {
                    let value =
                        fields.get(key).or_else(|| items.field(key).and_then(|field| field.default()))?;
                    Some((key.clone(), Literal::from(value)))
                })
                .collect();
            if found.is_empty() {
                let names: Vec<_> = keys.iter().map(|key| crate::field::go_quote(key)).collect();
                return Err(format!(
                    "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                    names.join(" ")
                ));
            }
            found.sort();
            Ok(PathElement::Key(found))
        }
    }
}
