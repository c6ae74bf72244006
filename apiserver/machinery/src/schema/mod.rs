//! The model of types: which fields there are, how lists and maps merge, what stands in a field that is left out.
//!
//! One model serves the built-in kinds (read from `data/types.json.zst`), and is made for CustomResourceDefinitions and
//! typed walking by list keys as well: shapes carry list keys, atomicity, defaults, `nullable` and preserved unknown fields.
//!
//! [`Schemas`] owns all types and is built once by the API server; a [`Schema`] is a cursor into it, as cheap to copy as a
//! reference. References between types are indices, so recursive types are no special case.

mod builtin;
mod go;

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

pub use builtin::{LoadError, builtin_types_json};

/// The index of a node in [`Schemas`].
type NodeId = usize;

/// A set of types that refer to each other.
#[derive(Debug)]
pub struct Schemas {
    nodes: Vec<Node>,
    by_name: HashMap<String, NodeId>,
    /// By `group/version/kind`.
    roots: HashMap<String, NodeId>,
}

/// One type.
#[derive(Debug)]
struct Node {
    /// The full name, if the type has one: `io.k8s.api.core.v1.Pod`.
    name: Option<Box<str>>,
    shape: NodeShape,
    /// The groups, versions and kinds that objects of this type have.
    kinds: Vec<GroupVersionKind>,
}

#[derive(Debug)]
enum NodeShape {
    Object { fields: BTreeMap<Box<str>, FieldNode>, is_atomic: bool, preserves_unknown: bool },
    Map { values: NodeId, is_atomic: bool },
    List { items: NodeId, kind: ListKind },
    Scalar(Scalar),
    Either { object: NodeId, other: NodeId },
    Any,
}

/// A field of an object type.
#[derive(Debug)]
struct FieldNode {
    target: NodeId,
    default: Option<Value>,
    enumeration: Vec<Value>,
    is_required: bool,
    presence: Presence,
    patch: PatchStrategy,
}

/// Group, version and kind of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupVersionKind {
    /// The group; empty for core.
    pub group: String,
    /// The version.
    pub version: String,
    /// The kind.
    pub kind: String,
}

/// The type of a value that is neither object nor list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scalar {
    /// Text.
    String,
    /// Bytes, in JSON as base64.
    Bytes,
    /// A truth value.
    Boolean,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// A floating-point number.
    Double,
    /// A quantity, in JSON as text (or, from clients, as a number).
    Quantity,
    /// An integer or a text.
    IntOrString,
    /// A time to the second.
    Time,
    /// A time to the microsecond.
    MicroTime,
    /// A duration in Go's notation.
    Duration,
}

/// What identifies the elements of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListKind {
    /// Nothing: the list is one value.
    Atomic,
    /// The element itself, a scalar.
    Set,
    /// These fields of the element.
    Map(Vec<String>),
    /// Kubernetes says nothing, which means atomic to server-side apply.
    Unspecified,
}

/// What a strategic merge patch does with a field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// Elements of the list are merged (a list otherwise replaces).
    pub merges: bool,
    /// The object replaces instead of being merged.
    pub replaces: bool,
    /// Fields that the patch's `$retainKeys` does not list are dropped.
    pub retains_keys: bool,
    /// The field by which elements are matched; without it the elements are scalars.
    pub merge_key: Option<String>,
}

/// What a field that is absent, null or zero looks like in an answer. Kubernetes' decoder goes through Go structs, and
/// what comes out depends on how the struct holds the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Presence {
    /// Held by pointer, or a list or map: absent stays absent, zero stays; an empty list or map is left out.
    Pointer,
    /// Held by value, left out when zero.
    OmitZero,
    /// Always there: absent becomes zero (an empty object, for objects).
    Always,
    /// Always there: absent becomes null.
    Null,
}

/// A type, as a place in [`Schemas`].
#[derive(Debug, Clone, Copy)]
pub struct Schema<'a> {
    all: &'a Schemas,
    node: &'a Node,
}

/// What a type is made of.
#[derive(Debug, Clone, Copy)]
pub enum Shape<'a> {
    /// An object with known fields; see [`Schema::field`] and [`Schema::fields`].
    Object {
        /// Whether it is one value to server-side apply.
        is_atomic: bool,
        /// Whether fields that are not known stay.
        preserves_unknown: bool,
    },
    /// An object with any keys and values of one type.
    Map {
        /// The type of the values.
        values: Schema<'a>,
        /// Whether it is one value to server-side apply.
        is_atomic: bool,
    },
    /// A list of elements of one type.
    List {
        /// The type of the elements.
        items: Schema<'a>,
        /// What identifies the elements.
        kind: &'a ListKind,
    },
    /// A single value.
    Scalar(Scalar),
    /// An object of one type, or a value of another.
    Either {
        /// The type of objects.
        object: Schema<'a>,
        /// The type of everything else.
        other: Schema<'a>,
    },
    /// Any JSON.
    Any,
}

/// A field of an object type.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    name: &'a str,
    all: &'a Schemas,
    node: &'a FieldNode,
}

impl Schemas {
    /// The types of the built-in kinds of Kubernetes 1.36.
    ///
    /// # Errors
    /// [`LoadError`] if the embedded data is damaged.
    pub fn builtin() -> Result<Self, LoadError> {
        builtin::load()
    }

    /// The type of a kind; the core group is empty.
    pub fn root(&self, group: &str, version: &str, kind: &str) -> Option<Schema<'_>> {
        self.roots.get(&root_key(group, version, kind)).map(|id| self.at(*id))
    }

    /// The type of a kind, by `apiVersion` and `kind`.
    pub fn root_of(&self, api_version: &str, kind: &str) -> Option<Schema<'_>> {
        let (group, version) = crate::metadata::split_api_version(api_version).ok()?;
        self.root(group, version, kind)
    }

    /// The type of this name, such as `io.k8s.api.core.v1.PodSpec`.
    pub fn named(&self, name: &str) -> Option<Schema<'_>> {
        self.by_name.get(name).map(|id| self.at(*id))
    }

    /// The names of all types, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    fn at(&self, id: NodeId) -> Schema<'_> {
        Schema { all: self, node: &self.nodes[id] }
    }
}

fn root_key(group: &str, version: &str, kind: &str) -> String {
    format!("{group}/{version}/{kind}")
}

impl<'a> Schema<'a> {
    /// The full name, if the type has one.
    pub fn name(self) -> Option<&'a str> {
        self.node.name.as_deref()
    }

    /// The last part of the name: `PodSpec`.
    pub fn short_name(self) -> Option<&'a str> {
        self.name().and_then(|name| name.rsplit('.').next())
    }

    /// The groups, versions and kinds of objects of this type.
    pub fn kinds(self) -> &'a [GroupVersionKind] {
        &self.node.kinds
    }

    /// What it is made of.
    pub fn shape(self) -> Shape<'a> {
        match &self.node.shape {
            NodeShape::Object { is_atomic, preserves_unknown, .. } => {
                Shape::Object { is_atomic: *is_atomic, preserves_unknown: *preserves_unknown }
            }
            NodeShape::Map { values, is_atomic } => {
                Shape::Map { values: self.all.at(*values), is_atomic: *is_atomic }
            }
            NodeShape::List { items, kind } => Shape::List { items: self.all.at(*items), kind },
            NodeShape::Scalar(scalar) => Shape::Scalar(*scalar),
            NodeShape::Either { object, other } => {
                Shape::Either { object: self.all.at(*object), other: self.all.at(*other) }
            }
            NodeShape::Any => Shape::Any,
        }
    }

    /// The field of this name, if the type is an object with such a field.
    pub fn field(self, name: &str) -> Option<Field<'a>> {
        let NodeShape::Object { fields, .. } = &self.node.shape else {
            return None;
        };
        fields.get_key_value(name).map(|(name, node)| Field { name, all: self.all, node })
    }

    /// The type of what is at this name: of a field of an object, or of the entries of a map.
    pub fn at_field(self, name: &str) -> Option<Schema<'a>> {
        match self.shape() {
            Shape::Map { values, .. } => Some(values),
            _ => self.field(name).map(Field::schema),
        }
    }

    /// The fields of an object type, in order of their names; none for other types.
    pub fn fields(self) -> impl Iterator<Item = Field<'a>> {
        let fields = match &self.node.shape {
            NodeShape::Object { fields, .. } => Some(fields),
            _ => None,
        };
        fields.into_iter().flatten().map(move |(name, node)| Field { name, all: self.all, node })
    }

    /// The type that a value stands for: the alternative that fits, for a type with two.
    #[must_use]
    pub fn for_value(self, value: &Value) -> Self {
        match self.shape() {
            Shape::Either { object, other } => {
                if value.is_object() {
                    object
                } else {
                    other
                }
            }
            _ => self,
        }
    }

    /// The type as Go names it in messages: `[]v1.Container`, `map[string]string`, `int32`.
    pub fn go_type(self) -> String {
        go::type_name(self)
    }
}

impl<'a> Field<'a> {
    /// The name in JSON.
    pub fn name(self) -> &'a str {
        self.name
    }

    /// The type.
    pub fn schema(self) -> Schema<'a> {
        self.all.at(self.node.target)
    }

    /// The default that the schema states.
    pub fn default(self) -> Option<&'a Value> {
        self.node.default.as_ref()
    }

    /// The only values allowed; empty if the schema states none.
    pub fn enumeration(self) -> &'a [Value] {
        &self.node.enumeration
    }

    /// Whether the schema requires it.
    pub fn is_required(self) -> bool {
        self.node.is_required
    }

    /// What it looks like when absent or zero.
    pub fn presence(self) -> Presence {
        self.node.presence
    }

    /// What a strategic merge patch does with it.
    pub fn patch(self) -> &'a PatchStrategy {
        &self.node.patch
    }
}

#[cfg(test)]
mod tests;
