//! The schemas of types, with texts, for the documents.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value};

use super::Error;
use super::descriptions::{self, Descriptions};

const REFERENCE: &str = "#/components/schemas/";

/// The facts of all types, for as long as a document is being made.
pub(super) struct Types {
    schemas: Map<String, Value>,
    descriptions: Descriptions,
    /// By group, version and kind.
    names: HashMap<(String, String, String), String>,
}

impl Types {
    /// Reads the facts and the texts.
    pub(super) fn load() -> Result<Self, Error> {
        let json = wherry_machinery::schema::builtin_types_json()?;
        let schemas: Map<String, Value> = serde_json::from_slice(&json)?;
        let mut names = HashMap::new();
        for (name, schema) in &schemas {
            let kinds = schema.get("x-kubernetes-group-version-kind").and_then(Value::as_array);
            for kind in kinds.into_iter().flatten() {
                let text = |key: &str| kind.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
                names.insert((text("group"), text("version"), text("kind")), name.clone());
            }
        }
        Ok(Self { schemas, descriptions: descriptions::load()?, names })
    }

    /// The type's name of a kind.
    pub(super) fn name(&self, group: &str, version: &str, kind: &str) -> Option<&str> {
        self.names.get(&(group.to_owned(), version.to_owned(), kind.to_owned())).map(String::as_str)
    }

    /// The schemas of the named types and of all that they refer to, with texts.
    pub(super) fn closure<'a>(&self, roots: impl IntoIterator<Item = &'a str>) -> Map<String, Value> {
        let mut open: Vec<String> = roots.into_iter().map(str::to_owned).collect();
        let mut seen = BTreeSet::new();
        let mut out = Map::new();
        while let Some(name) = open.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            let Some(schema) = self.schemas.get(&name) else { continue };
            references(schema, &mut open);
            out.insert(name.clone(), self.described(&name, schema));
        }
        out
    }

    fn described(&self, name: &str, schema: &Value) -> Value {
        let mut schema = schema.clone();
        let Some(texts) = self.texts(name) else { return schema };
        if let Some(text) = texts.get("") {
            describe(&mut schema, text);
        }
        if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
            for (field, property) in properties {
                if let Some(text) = texts.get(field.as_str()) {
                    describe(property, text);
                }
            }
        }
        schema
    }

    /// The texts of a type; a list has those that all lists have.
    fn texts(&self, name: &str) -> Option<HashMap<&str, std::borrow::Cow<'_, str>>> {
        if let Some(texts) = self.descriptions.get(name) {
            return Some(texts.iter().map(|(field, text)| (field.as_str(), text.as_str().into())).collect());
        }
        let kind = name.rsplit('.').next()?.strip_suffix("List")?;
        let meta = self.descriptions.get("io.k8s.api.core.v1.Pod")?;
        let mut texts: HashMap<&str, std::borrow::Cow<'_, str>> = HashMap::from([
            ("", format!("{kind}List is a list of {kind} objects.").into()),
            ("items", format!("items is the list of {kind} objects.").into()),
            ("metadata", "Standard list metadata.".into()),
        ]);
        for field in ["apiVersion", "kind"] {
            if let Some(text) = meta.get(field) {
                texts.insert(field, text.as_str().into());
            }
        }
        Some(texts)
    }
}

/// Sets a text; a bare reference is wrapped first, because siblings of `$ref` are ignored.
fn describe(schema: &mut Value, text: &str) {
    if schema.get("$ref").is_some() {
        let reference = schema.take();
        *schema = serde_json::json!({"allOf": [reference]});
    }
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("description".to_owned(), text.into());
    }
}

/// The types that a schema refers to.
fn references(schema: &Value, into: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(reference) if key == "$ref" => {
                        into.extend(reference.strip_prefix(REFERENCE).map(str::to_owned));
                    }
                    other => references(other, into),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, into)),
        _ => {}
    }
}

/// A reference to a type.
pub(super) fn reference(name: &str) -> Value {
    serde_json::json!({"$ref": format!("{REFERENCE}{name}")})
}

/// The same schema in the second version of the language: references elsewhere, and not wrapped.
pub(super) fn in_version_2(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::Array(parts)) = fields.get("allOf")
                && let [Value::Object(only)] = parts.as_slice()
            {
                let only = only.clone();
                fields.remove("allOf");
                fields.extend(only);
            }
            if fields.get("format").and_then(Value::as_str) == Some("int-or-string")
                || fields.contains_key("oneOf")
            {
                fields.remove("oneOf");
                fields.insert("type".to_owned(), "string".into());
            }
            if let Some(Value::String(reference)) = fields.get_mut("$ref")
                && let Some(name) = reference.strip_prefix(REFERENCE)
            {
                *reference = format!("#/definitions/{name}");
            }
            fields.values_mut().for_each(in_version_2);
        }
        Value::Array(items) => items.iter_mut().for_each(in_version_2),
        _ => {}
    }
}
