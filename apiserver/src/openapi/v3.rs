//! OpenAPI 3: one document per group version.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Error;
use super::components::{Types, reference};
use super::operations::{Body, Operation, group_version_kind, operations, path_parameters, tag};
use crate::discovery::Fact;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const JSON: &str = "application/json";
/// What answers can be encoded as.
const TYPES: [&str; 3] = [JSON, "application/yaml", "application/vnd.kubernetes.protobuf"];
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// The documents' paths: `api/v1`, `apis/apps/v1`, and those of the indexes.
pub(super) fn paths(facts: &[Fact]) -> BTreeSet<String> {
    let mut paths: BTreeSet<String> = ["api", "apis", "version"].map(str::to_owned).into();
    for fact in facts {
        let (group, version) = fact.group_and_version();
        if group.is_empty() {
            paths.insert(format!("api/{version}"));
        } else {
            paths.insert(format!("apis/{group}"));
            paths.insert(format!("apis/{group}/{version}"));
        }
    }
    paths
}

/// The document at a path.
pub(super) fn document(types: &Types, facts: &[Fact], path: &str, version: &str) -> Result<Value, Error> {
    let group_version =
        path.strip_prefix("api/").or_else(|| path.strip_prefix("apis/").filter(|r| r.contains('/')));
    let mut paths = Map::new();
    let mut used = BTreeSet::new();
    let index = match group_version {
        Some(_) => "APIResourceList",
        None if path == "api" => "APIVersions",
        None if path == "apis" => "APIGroupList",
        None => "APIGroup",
    };
    if path == "version" {
        used.insert("io.k8s.apimachinery.pkg.version.Info".to_owned());
        paths.insert(
            "/version/".to_owned(),
            index_path("io.k8s.apimachinery.pkg.version.Info", "getCodeVersion", "version"),
        );
    } else {
        let name = format!("{META}.{index}");
        let tag = group_version.map_or_else(|| path.replace(['/', '.'], "_"), |_| group_tag(path));
        paths.insert(format!("/{path}/"), index_path(&name, &format!("get{}", operation_name(path)), &tag));
        used.insert(name);
    }
    for fact in facts.iter().filter(|fact| Some(fact.group_version.as_str()) == group_version) {
        for operation in operations(fact) {
            add(types, &mut paths, &mut used, &operation);
        }
    }
    Ok(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": paths,
        "components": {
            "schemas": types.closure(used.iter().map(String::as_str)),
            "securitySchemes": {"BearerToken": {
                "type": "apiKey", "name": "authorization", "in": "header", "description": "Bearer Token authentication",
            }},
        },
        "security": [{"BearerToken": []}],
    }))
}

fn group_tag(path: &str) -> String {
    let mut segments = path.trim_start_matches("apis/").trim_start_matches("api/").rsplit('/');
    let version = segments.next().unwrap_or_default();
    tag(segments.next().unwrap_or_default(), version)
}

fn operation_name(path: &str) -> String {
    path.split(['/', '.'])
        .map(|part| {
            part.chars().next().map(|c| c.to_uppercase().chain(part.chars().skip(1)).collect::<String>())
        })
        .map(Option::unwrap_or_default)
        .collect()
}

fn index_path(type_name: &str, id: &str, tag: &str) -> Value {
    json!({"get": {
        "description": "get available resources",
        "operationId": id,
        "tags": [tag],
        "responses": {
            "200": {"description": "OK", "content": {JSON: {"schema": reference(type_name)}}},
            "401": {"description": "Unauthorized"},
        },
    }})
}

/// Adds an operation, and the types that it names.
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
    let mut value = json!({
        "description": description(operation),
        "operationId": operation.id,
        "tags": [operation.tag],
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": group_version_kind(&operation.kind),
        "parameters": operation.query.iter().map(|p| {
            json!({"name": p.name, "in": "query", "description": p.text, "schema": {"type": p.kind, "uniqueItems": true}})
        }).collect::<Vec<_>>(),
    });
    match operation.body {
        None => {}
        Some(Body::Object) => {
            value["requestBody"] =
                json!({"content": {"*/*": {"schema": reference(type_name)}}, "required": true});
        }
        Some(Body::Patch) => {
            let patch = format!("{META}.Patch");
            let content: Map<String, Value> = PATCHES
                .iter()
                .map(|media| ((*media).to_owned(), json!({"schema": reference(&patch)})))
                .collect();
            value["requestBody"] = json!({"content": content, "required": true});
            used.insert(patch);
        }
        Some(Body::DeleteOptions) => {
            let options = format!("{META}.DeleteOptions");
            value["requestBody"] = json!({"content": {"*/*": {"schema": reference(&options)}}});
            used.insert(options);
        }
    }
    let is_text = operation.id.ends_with("Log");
    let content: Map<String, Value> = if is_text {
        Map::from_iter([("text/plain".to_owned(), json!({"schema": {"type": "string"}}))])
    } else {
        TYPES.iter().map(|media| ((*media).to_owned(), json!({"schema": reference(&answered)}))).collect()
    };
    let ok = json!({"description": "OK", "content": content});
    let mut responses = json!({"200": ok, "401": {"description": "Unauthorized"}});
    if matches!(operation.method, "post" | "put" | "patch") {
        let mut created = ok.clone();
        created["description"] = "Created".into();
        responses["201"] = created;
    }
    if matches!(operation.method, "post" | "delete") {
        let mut accepted = ok;
        accepted["description"] = "Accepted".into();
        responses["202"] = accepted;
    }
    value["responses"] = responses;
    used.insert(type_name.to_owned());
    used.insert(answered);
    let at = paths.entry(operation.path.clone()).or_insert_with(|| {
        let mut parameters: Vec<Value> = path_parameters(&operation.path)
            .into_iter()
            .map(|(name, text)| {
                json!({"name": name, "in": "path", "required": true, "description": text,
                       "schema": {"type": "string", "uniqueItems": true}})
            })
            .collect();
        parameters.push(json!({"name": "pretty", "in": "query", "description": "If 'true', then the output is pretty printed.",
                               "schema": {"type": "string", "uniqueItems": true}}));
        json!({"parameters": parameters})
    });
    at[operation.method] = value;
}

/// What the operation does, in words.
pub(super) fn description(operation: &Operation) -> String {
    let kind = &operation.kind.2;
    match operation.action {
        "list" => format!("list or watch objects of kind {kind}"),
        "get" => format!("read the specified {kind}"),
        "post" => format!("create a {kind}"),
        "put" => format!("replace the specified {kind}"),
        "patch" => format!("partially update the specified {kind}"),
        "deletecollection" => format!("delete collection of {kind}"),
        _ => format!("delete a {kind}"),
    }
}
