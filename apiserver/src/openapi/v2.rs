//! OpenAPI 2: everything in one document, for older clients.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Error;
use super::components::{Types, in_version_2, reference};
use super::operations::{Body, Operation, group_version_kind, operations, path_parameters};
use super::v3::description;
use crate::discovery::Fact;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const PRODUCED: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// The document.
pub(super) fn document(types: &Types, facts: &[Fact], version: &str) -> Result<Value, Error> {
    let mut paths = Map::new();
    let mut used = BTreeSet::new();
    for fact in facts {
        for operation in operations(fact) {
            add(types, &mut paths, &mut used, &operation);
        }
    }
    let mut definitions = Value::Object(types.closure(used.iter().map(String::as_str)));
    in_version_2(&mut definitions);
    let mut paths = Value::Object(paths);
    in_version_2(&mut paths);
    Ok(json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": paths,
        "definitions": definitions,
        "securityDefinitions": {"BearerToken": {
            "type": "apiKey", "name": "authorization", "in": "header", "description": "Bearer Token authentication",
        }},
        "security": [{"BearerToken": []}],
    }))
}

fn add(types: &Types, paths: &mut Map<String, Value>, used: &mut BTreeSet<String>, operation: &Operation) {
    let (group, version, kind) = &operation.kind;
    let Some(type_name) = types.name(group, version, kind) else { return };
    let answered = if operation.answers_list {
        types.name(group, version, &format!("{kind}List")).unwrap_or(type_name).to_owned()
    } else if operation.body == Some(Body::DeleteOptions) {
        format!("{META}.Status")
    } else {
        type_name.to_owned()
    };
    let mut parameters: Vec<Value> = Vec::new();
    let mut body = |name: &str, required: bool| {
        parameters
            .push(json!({"name": "body", "in": "body", "required": required, "schema": reference(name)}));
        used.insert(name.to_owned());
    };
    match operation.body {
        None => {}
        Some(Body::Object) => body(type_name, true),
        Some(Body::Patch) => body(&format!("{META}.Patch"), true),
        Some(Body::DeleteOptions) => body(&format!("{META}.DeleteOptions"), false),
    }
    parameters.extend(operation.query.iter().map(|p| {
        json!({"name": p.name, "in": "query", "description": p.text, "type": p.kind, "uniqueItems": true})
    }));
    let schema = if operation.id.ends_with("Log") { json!({"type": "string"}) } else { reference(&answered) };
    let ok = |text: &str| json!({"description": text, "schema": schema});
    let mut responses = json!({"200": ok("OK"), "401": {"description": "Unauthorized"}});
    if matches!(operation.method, "post" | "put" | "patch") {
        responses["201"] = ok("Created");
    }
    if matches!(operation.method, "post" | "delete") {
        responses["202"] = ok("Accepted");
    }
    let consumes: &[&str] = if operation.body == Some(Body::Patch) { &PATCHES } else { &["*/*"] };
    let value = json!({
        "description": description(operation),
        "operationId": operation.id,
        "tags": [operation.tag],
        "schemes": ["https"],
        "consumes": consumes,
        "produces": PRODUCED,
        "parameters": parameters,
        "responses": responses,
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": group_version_kind(&operation.kind),
    });
    used.insert(type_name.to_owned());
    used.insert(answered);
    let at = paths.entry(operation.path.clone()).or_insert_with(|| {
        let mut parameters: Vec<Value> = path_parameters(&operation.path)
            .into_iter()
            .map(|(name, text)| {
                json!({"name": name, "in": "path", "required": true, "description": text, "type": "string", "uniqueItems": true})
            })
            .collect();
        parameters.push(json!({"name": "pretty", "in": "query", "type": "string", "uniqueItems": true,
                               "description": "If 'true', then the output is pretty printed."}));
        json!({"parameters": parameters})
    });
    at[operation.method] = value;
}
