//! The types of the built-in kinds, read from the embedded data.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value};

use super::{
    FieldNode, GroupVersionKind, ListKind, Node, NodeId, NodeShape, PatchStrategy, Presence, Scalar, Schemas,
    root_key,
};

/// One OpenAPI v3 schema per type, by name; made by `data/pack.sh`.
const TYPES: &[u8] = include_bytes!("../../data/types.json.zst");
/// How Go's structs hold fields, where the schema alone does not tell: `omitZero` lists numbers, truth values and
/// objects held by value and left out when zero, `pointer` lists texts and times held by pointer, `always` lists what is never left out.
const PRESENCE: &str = include_str!("../../data/presence.json");

const REFERENCE: &str = "#/components/schemas/";

/// The embedded data is damaged.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be decompressed.
    #[error("the embedded types cannot be decompressed")]
    Decompress(#[source] std::io::Error),
    /// It is not JSON.
    #[error("the embedded types are not JSON")]
    Json(#[source] serde_json::Error),
    /// A type refers to one that is not there.
    #[error("the embedded types refer to {0}, which is not there")]
    Reference(String),
}

/// The OpenAPI v3 schemas of all built-in types as JSON, one member per type, for publishing.
///
/// # Errors
/// [`LoadError`] if the embedded data is damaged.
pub fn builtin_types_json() -> Result<Vec<u8>, LoadError> {
    zstd::decode_all(TYPES).map_err(LoadError::Decompress)
}

type FieldNames = HashMap<String, Vec<String>>;

/// What `presence.json` says.
struct Presences {
    omit_zero: FieldNames,
    pointer: FieldNames,
    always: FieldNames,
}

struct Loader {
    presences: Presences,
    nodes: Vec<Node>,
    by_name: HashMap<String, NodeId>,
    scalars: HashMap<Scalar, NodeId>,
    any: Option<NodeId>,
}

pub(super) fn load() -> Result<Schemas, LoadError> {
    let json = builtin_types_json()?;
    let source: Map<String, Value> = serde_json::from_slice(&json).map_err(LoadError::Json)?;
    let mut presences: HashMap<String, FieldNames> =
        serde_json::from_str(PRESENCE).map_err(LoadError::Json)?;
    let mut take = |name: &str| presences.remove(name).unwrap_or_default();
    let presences =
        Presences { omit_zero: take("omitZero"), pointer: take("pointer"), always: take("always") };
    let mut loader = Loader {
        presences,
        nodes: Vec::with_capacity(source.len() * 2),
        by_name: HashMap::with_capacity(source.len()),
        scalars: HashMap::new(),
        any: None,
    };
    // Places first, so that types can refer to each other in any order.
    for name in source.keys() {
        let id = loader.push(Some(name), NodeShape::Any);
        loader.by_name.insert(name.clone(), id);
    }
    let versions: BTreeSet<(String, String)> =
        source.values().flat_map(kinds).map(|kind| (kind.group, kind.version)).collect();
    let mut roots = HashMap::new();
    for (name, schema) in &source {
        let shape = loader.named_shape(name, schema)?;
        let id = loader.by_name[name];
        let mut kinds = kinds(schema);
        if let Some(kind) = name.strip_prefix(META).filter(|kind| EVERYWHERE.contains(kind)) {
            kinds.extend(in_every_version(kind, &versions));
        }
        for kind in &kinds {
            roots.insert(root_key(&kind.group, &kind.version, &kind.kind), id);
        }
        loader.nodes[id].shape = shape;
        loader.nodes[id].kinds = kinds;
    }
    Ok(Schemas { nodes: loader.nodes, by_name: loader.by_name, roots })
}

/// Kinds that Kubernetes registers in the version of every group; the schemas name only one.
const EVERYWHERE: [&str; 2] = ["DeleteOptions", "WatchEvent"];
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

fn in_every_version(kind: &str, versions: &BTreeSet<(String, String)>) -> Vec<GroupVersionKind> {
    let meta = ("meta.k8s.io".to_owned(), "v1".to_owned());
    let all = versions.iter().chain([&meta]);
    let kinds = all.map(|(group, version)| GroupVersionKind {
        group: group.clone(),
        version: version.clone(),
        kind: kind.to_owned(),
    });
    kinds.filter(|kind| !kind.group.is_empty()).collect()
}

fn kinds(schema: &Value) -> Vec<GroupVersionKind> {
    let listed =
        schema.get("x-kubernetes-group-version-kind").and_then(Value::as_array).into_iter().flatten();
    listed
        .map(|kind| {
            let part = |name: &str| kind.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            GroupVersionKind { group: part("group"), version: part("version"), kind: part("kind") }
        })
        .collect()
}

/// The name of the type that a schema refers to, itself or as its only `allOf`.
fn reference(schema: &Value) -> Option<&str> {
    let own = schema.get("$ref");
    let inner = || schema.get("allOf").and_then(|all| all.get(0)).and_then(|first| first.get("$ref"));
    own.or_else(inner).and_then(Value::as_str).and_then(|text| text.strip_prefix(REFERENCE))
}

fn text<'a>(schema: &'a Value, name: &str) -> &'a str {
    schema.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Types whose JSON is not what their schema says.
fn special(name: &str) -> Option<Scalar> {
    Some(match name {
        "io.k8s.apimachinery.pkg.api.resource.Quantity" => Scalar::Quantity,
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => Scalar::IntOrString,
        "io.k8s.apimachinery.pkg.apis.meta.v1.Time" => Scalar::Time,
        "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime" => Scalar::MicroTime,
        "io.k8s.apimachinery.pkg.apis.meta.v1.Duration" => Scalar::Duration,
        _ => return None,
    })
}

fn scalar(schema: &Value) -> Option<Scalar> {
    Some(match (text(schema, "type"), text(schema, "format")) {
        ("string", "byte") => Scalar::Bytes,
        ("string", _) => Scalar::String,
        ("boolean", _) => Scalar::Boolean,
        ("integer", "int32") => Scalar::Int32,
        ("integer", _) => Scalar::Int64,
        ("number", _) => Scalar::Double,
        _ => return None,
    })
}

fn list_kind(schema: &Value) -> ListKind {
    match text(schema, "x-kubernetes-list-type") {
        "atomic" => ListKind::Atomic,
        "set" => ListKind::Set,
        "map" => ListKind::Map(crate::metadata::string_list(schema.get("x-kubernetes-list-map-keys"))),
        _ => ListKind::Unspecified,
    }
}

fn is_atomic(schema: &Value) -> bool {
    text(schema, "x-kubernetes-map-type") == "atomic"
}

fn patch_strategy(schema: &Value) -> PatchStrategy {
    let strategies = text(schema, "x-kubernetes-patch-strategy");
    let has = |name: &str| strategies.split(',').any(|strategy| strategy == name);
    PatchStrategy {
        merges: has("merge"),
        replaces: has("replace"),
        retains_keys: has("retainKeys"),
        merge_key: schema.get("x-kubernetes-patch-merge-key").and_then(Value::as_str).map(str::to_owned),
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(is_true) => !is_true,
        Value::Object(object) => object.is_empty(),
        Value::Null | Value::Array(_) => false,
    }
}

impl Loader {
    fn push(&mut self, name: Option<&str>, shape: NodeShape) -> NodeId {
        self.nodes.push(Node { name: name.map(Into::into), shape, kinds: Vec::new() });
        self.nodes.len() - 1
    }

    fn scalar(&mut self, scalar: Scalar) -> NodeId {
        if let Some(id) = self.scalars.get(&scalar) {
            return *id;
        }
        let id = self.push(None, NodeShape::Scalar(scalar));
        self.scalars.insert(scalar, id);
        id
    }

    fn any(&mut self) -> NodeId {
        if let Some(id) = self.any {
            return id;
        }
        let id = self.push(None, NodeShape::Any);
        self.any = Some(id);
        id
    }

    fn lookup(&self, name: &str) -> Result<NodeId, LoadError> {
        self.by_name.get(name).copied().ok_or_else(|| LoadError::Reference(name.to_owned()))
    }

    fn named_shape(&mut self, name: &str, schema: &Value) -> Result<NodeShape, LoadError> {
        if let Some(scalar) = special(name) {
            return Ok(NodeShape::Scalar(scalar));
        }
        let extensions = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.";
        match name.strip_prefix(extensions) {
            Some("JSON") => return Ok(NodeShape::Any),
            Some(
                union @ ("JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrStringArray"),
            ) => {
                let object = self.lookup(&format!("{extensions}JSONSchemaProps"))?;
                let items = match union {
                    "JSONSchemaPropsOrArray" => object,
                    "JSONSchemaPropsOrBool" => {
                        return Ok(NodeShape::Either { object, other: self.scalar(Scalar::Boolean) });
                    }
                    _ => self.scalar(Scalar::String),
                };
                let other = self.push(None, NodeShape::List { items, kind: ListKind::Atomic });
                return Ok(NodeShape::Either { object, other });
            }
            _ => {}
        }
        match name {
            "io.k8s.apimachinery.pkg.runtime.RawExtension"
            | "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1" => Ok(NodeShape::Any),
            _ => self.shape(Some(name), schema),
        }
    }

    fn shape(&mut self, name: Option<&str>, schema: &Value) -> Result<NodeShape, LoadError> {
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            let required = crate::metadata::string_list(schema.get("required"));
            let mut fields = BTreeMap::new();
            for (field, property) in properties {
                let is_required = required.contains(field);
                fields.insert(field.as_str().into(), self.field(name, field, property, is_required)?);
            }
            return Ok(NodeShape::Object { fields, is_atomic: is_atomic(schema), preserves_unknown: false });
        }
        if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
            return Ok(NodeShape::Map { values: self.target(values)?, is_atomic: is_atomic(schema) });
        }
        if let Some(items) = schema.get("items") {
            return Ok(NodeShape::List { items: self.target(items)?, kind: list_kind(schema) });
        }
        if let Some(scalar) = scalar(schema) {
            return Ok(NodeShape::Scalar(scalar));
        }
        if text(schema, "type") == "object" && name.is_some() {
            return Ok(NodeShape::Object {
                fields: BTreeMap::new(),
                is_atomic: is_atomic(schema),
                preserves_unknown: false,
            });
        }
        Ok(NodeShape::Any)
    }

    /// The place of a schema that stands inside another.
    fn target(&mut self, schema: &Value) -> Result<NodeId, LoadError> {
        if let Some(name) = reference(schema) {
            return self.lookup(name);
        }
        match self.shape(None, schema)? {
            NodeShape::Scalar(scalar) => Ok(self.scalar(scalar)),
            NodeShape::Any => Ok(self.any()),
            shape => Ok(self.push(None, shape)),
        }
    }

    fn field(
        &mut self,
        owner: Option<&str>,
        name: &str,
        schema: &Value,
        is_required: bool,
    ) -> Result<FieldNode, LoadError> {
        let target = self.target(schema)?;
        let default = schema.get("default").cloned();
        let presence = self.presence(owner, name, schema, target, is_required);
        let enumeration = schema.get("enum").and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(FieldNode { target, default, enumeration, is_required, presence, patch: patch_strategy(schema) })
    }

    fn presence(
        &self,
        owner: Option<&str>,
        name: &str,
        schema: &Value,
        target: NodeId,
        is_required: bool,
    ) -> Presence {
        let lists = |names: &FieldNames| {
            owner
                .and_then(|owner| names.get(owner))
                .is_some_and(|fields| fields.iter().any(|field| field == name))
        };
        // The schema of the target is known by name only, as its shape may not be read yet.
        let referred = reference(schema);
        let known = referred.and_then(special).or_else(|| match &self.nodes[target].shape {
            NodeShape::Scalar(scalar) if referred.is_none() => Some(*scalar),
            _ => None,
        });
        let is_by_pointer = lists(&self.presences.pointer);
        let is_always = lists(&self.presences.always);
        match known {
            Some(Scalar::Time | Scalar::MicroTime) if is_by_pointer => Presence::Pointer,
            Some(Scalar::Time | Scalar::MicroTime) => Presence::Null,
            Some(Scalar::Quantity | Scalar::IntOrString | Scalar::Duration) => {
                if is_required || is_always {
                    Presence::Always
                } else {
                    Presence::Pointer
                }
            }
            Some(Scalar::String | Scalar::Bytes) if is_by_pointer => Presence::Pointer,
            Some(_) if lists(&self.presences.omit_zero) => Presence::OmitZero,
            Some(_) if !is_by_pointer && schema.get("default").is_some_and(is_zero) => Presence::Always,
            Some(Scalar::String | Scalar::Bytes) => Presence::OmitZero,
            Some(_) => Presence::Pointer,
            None if lists(&self.presences.omit_zero) => Presence::OmitZero,
            None if schema.get("default").is_some_and(is_zero) => Presence::Always,
            None if is_required || is_always => Presence::Null,
            None => Presence::Pointer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_names_of_presence_are_names_of_types_and_fields() {
        let types: Map<String, Value> = serde_json::from_slice(&builtin_types_json().unwrap()).unwrap();
        let presences: HashMap<String, FieldNames> = serde_json::from_str(PRESENCE).unwrap();
        assert_eq!(presences.len(), 3);
        for (owner, fields) in presences.values().flatten() {
            for field in fields {
                assert!(types[owner]["properties"].get(field).is_some(), "{owner}.{field}");
            }
        }
    }
}
