//! What can be done at which path, read off the facts of discovery.

use serde_json::{Value, json};

use crate::discovery::Fact;

/// One method of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Operation {
    /// Such as `/api/v1/namespaces/{namespace}/pods/{name}`.
    pub(super) path: String,
    /// `get`, `post`, `put`, `patch`, `delete`.
    pub(super) method: &'static str,
    /// Kubernetes' name of what is done: `list`, `post`, `deletecollection`.
    pub(super) action: &'static str,
    /// Such as `listCoreV1NamespacedPod`.
    pub(super) id: String,
    /// Such as `core_v1`.
    pub(super) tag: String,
    /// Group, version and kind.
    pub(super) kind: (String, String, String),
    /// The kind of the body; none for reads.
    pub(super) body: Option<Body>,
    /// Whether the answer is a list of the kind.
    pub(super) answers_list: bool,
    /// What may stand in the query, beside the path's own parameters.
    pub(super) query: Vec<Parameter>,
}

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// The object.
    Object,
    /// A patch.
    Patch,
    /// `DeleteOptions`.
    DeleteOptions,
}

/// A query parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) text: &'static str,
}

const fn parameter(name: &'static str, kind: &'static str, text: &'static str) -> Parameter {
    Parameter { name, kind, text }
}

const LIST: [Parameter; 10] = [
    parameter(
        "allowWatchBookmarks",
        "boolean",
        "allowWatchBookmarks requests watch events with type \"BOOKMARK\".",
    ),
    parameter(
        "continue",
        "string",
        "The continue option should be set when retrieving more results from the server.",
    ),
    parameter(
        "fieldSelector",
        "string",
        "A selector to restrict the list of returned objects by their fields. Defaults to everything.",
    ),
    parameter(
        "labelSelector",
        "string",
        "A selector to restrict the list of returned objects by their labels. Defaults to everything.",
    ),
    parameter("limit", "integer", "limit is a maximum number of responses to return for a list call."),
    parameter(
        "resourceVersion",
        "string",
        "resourceVersion sets a constraint on what resource versions a request may be served from.",
    ),
    parameter(
        "resourceVersionMatch",
        "string",
        "resourceVersionMatch determines how resourceVersion is applied to list calls.",
    ),
    parameter("sendInitialEvents", "boolean", "sendInitialEvents=true may be set together with watch=true."),
    parameter("timeoutSeconds", "integer", "Timeout for the list/watch call."),
    parameter(
        "watch",
        "boolean",
        "Watch for changes to the described resources and return them as a stream of add, update, and remove notifications.",
    ),
];
const WRITE: [Parameter; 3] = [
    parameter(
        "dryRun",
        "string",
        "When present, indicates that modifications should not be persisted. Valid values are: All.",
    ),
    parameter(
        "fieldManager",
        "string",
        "fieldManager is a name associated with the actor or entity that is making these changes.",
    ),
    parameter(
        "fieldValidation",
        "string",
        "fieldValidation instructs the server on how to handle objects in the request containing unknown or duplicate fields. Valid values are: Ignore, Warn, Strict.",
    ),
];
const FORCE: Parameter = parameter("force", "boolean", "Force is going to \"force\" Apply requests.");
const DELETE: [Parameter; 4] = [
    parameter(
        "dryRun",
        "string",
        "When present, indicates that modifications should not be persisted. Valid values are: All.",
    ),
    parameter(
        "gracePeriodSeconds",
        "integer",
        "The duration in seconds before the object should be deleted.",
    ),
    parameter("orphanDependents", "boolean", "Deprecated: please use the PropagationPolicy."),
    parameter("propagationPolicy", "string", "Whether and how garbage collection will be performed."),
];
const LOG: [Parameter; 9] = [
    parameter(
        "container",
        "string",
        "The container for which to stream logs. Defaults to only container if there is one container in the pod.",
    ),
    parameter("follow", "boolean", "Follow the log stream of the pod."),
    parameter(
        "insecureSkipTLSVerifyBackend",
        "boolean",
        "Not supported: the backend's certificate is always verified.",
    ),
    parameter(
        "limitBytes",
        "integer",
        "If set, the number of bytes to read from the server before terminating the log output.",
    ),
    parameter("previous", "boolean", "Return previous terminated container logs."),
    parameter(
        "sinceSeconds",
        "integer",
        "A relative time in seconds before the current time from which to show logs.",
    ),
    parameter("tailLines", "integer", "If set, the number of lines from the end of the logs to show."),
    parameter(
        "timestamps",
        "boolean",
        "If true, add an RFC3339 timestamp at the beginning of every line of log output.",
    ),
    parameter("sinceTime", "string", "A time from which to show logs."),
];

/// The operations of a resource or subresource.
pub(super) fn operations(fact: &Fact) -> Vec<Operation> {
    let (group, version) = fact.group_and_version();
    let (resource, subresource) = fact.parts();
    let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    let scope = if fact.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{root}{scope}/{resource}");
    let item = if subresource.is_empty() {
        format!("{collection}/{{name}}")
    } else {
        format!("{collection}/{{name}}/{subresource}")
    };
    let mut out = Vec::new();
    for verb in &fact.verbs {
        let named = |path: &str, method, action, body, query: &[Parameter]| Operation {
            path: path.to_owned(),
            method,
            action,
            id: operation_id(fact, verb),
            tag: tag(group, version),
            kind: owned(fact.response_kind()),
            body,
            answers_list: action == "list",
            query: query.to_vec(),
        };
        let is_log = subresource == "log";
        match verb.as_str() {
            "get" => out.push(named(&item, "get", "get", None, if is_log { &LOG } else { &[] })),
            "list" => {
                out.push(named(&collection, "get", "list", None, &LIST));
                if fact.namespaced {
                    let mut everywhere = named(&format!("{root}/{resource}"), "get", "list", None, &LIST);
                    everywhere.id = format!("{}ForAllNamespaces", everywhere.id.replace("Namespaced", ""));
                    out.push(everywhere);
                }
            }
            "create" if subresource.is_empty() => {
                out.push(named(&collection, "post", "post", Some(Body::Object), &WRITE));
            }
            "create" => out.push(named(&item, "post", "post", Some(Body::Object), &WRITE)),
            "update" => out.push(named(&item, "put", "put", Some(Body::Object), &WRITE)),
            "patch" => {
                let mut query = WRITE.to_vec();
                query.push(FORCE);
                out.push(named(&item, "patch", "patch", Some(Body::Patch), &query));
            }
            "delete" => out.push(named(&item, "delete", "delete", Some(Body::DeleteOptions), &DELETE)),
            "deletecollection" => {
                let mut query = LIST[1..].to_vec();
                query.retain(|parameter| parameter.name != "watch");
                query.extend(DELETE);
                out.push(named(&collection, "delete", "deletecollection", Some(Body::DeleteOptions), &query));
            }
            _ => {}
        }
    }
    out
}

fn owned((group, version, kind): (&str, &str, &str)) -> (String, String, String) {
    (group.to_owned(), version.to_owned(), kind.to_owned())
}

/// The tag by which client generators group operations.
pub(super) fn tag(group: &str, version: &str) -> String {
    let name = group.trim_end_matches(".k8s.io").replace(['.', '-'], "");
    let name = if group.is_empty() { "core" } else { name.split('.').next().unwrap_or_default() };
    format!("{}_{version}", camel_first(name))
}

fn camel_first(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_lowercase().chain(characters).collect()).unwrap_or_default()
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

/// Such as `patchAppsV1NamespacedDeploymentStatus`.
fn operation_id(fact: &Fact, verb: &str) -> String {
    let (group, version) = fact.group_and_version();
    let (resource, subresource) = fact.parts();
    let group = if group.is_empty() { "core" } else { group.trim_end_matches(".k8s.io") };
    let group: String = group.split(['.', '-']).map(capitalized).collect();
    let verb = match verb {
        "get" => "read",
        "update" => "replace",
        "deletecollection" => "deleteCollection",
        other => other,
    };
    let scope = if fact.namespaced { "Namespaced" } else { "" };
    // A subresource has a kind of its own; its operations are named after the resource.
    let noun = if subresource.is_empty() { fact.kind.clone() } else { singular(resource) };
    format!("{verb}{group}{}{scope}{noun}{}", capitalized(version), capitalized(subresource))
}

/// The kind's name as well as it can be told from the plural.
fn singular(resource: &str) -> String {
    crate::discovery::facts()
        .iter()
        .find(|fact| fact.name == resource)
        .map_or_else(|| capitalized(resource), |fact| fact.kind.clone())
}

/// The parameters that stand in a path.
pub(super) fn path_parameters(path: &str) -> Vec<(&'static str, &'static str)> {
    let known = [
        ("name", "name of the object"),
        ("namespace", "object name and auth scope, such as for teams and projects"),
    ];
    known.into_iter().filter(|(name, _)| path.contains(&format!("{{{name}}}"))).collect()
}

/// `x-kubernetes-group-version-kind`.
pub(super) fn group_version_kind((group, version, kind): &(String, String, String)) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(name: &str, group_version: &str) -> Fact {
        crate::discovery::facts()
            .into_iter()
            .find(|f| f.name == name && f.group_version == group_version)
            .unwrap()
    }

    #[test]
    fn operations_stand_at_their_paths_under_their_names() {
        let named = |name: &str, group_version: &str| -> Vec<(String, &'static str, String)> {
            operations(&fact(name, group_version)).into_iter().map(|o| (o.path, o.method, o.id)).collect()
        };
        let pods = named("pods", "v1");
        for expected in [
            ("/api/v1/namespaces/{namespace}/pods", "get", "listCoreV1NamespacedPod"),
            ("/api/v1/pods", "get", "listCoreV1PodForAllNamespaces"),
            ("/api/v1/namespaces/{namespace}/pods", "post", "createCoreV1NamespacedPod"),
            ("/api/v1/namespaces/{namespace}/pods/{name}", "patch", "patchCoreV1NamespacedPod"),
            ("/api/v1/namespaces/{namespace}/pods", "delete", "deleteCollectionCoreV1NamespacedPod"),
        ] {
            assert!(
                pods.iter().any(|(p, m, i)| (p.as_str(), *m, i.as_str()) == expected),
                "{expected:?} {pods:?}"
            );
        }
        let scale = named("deployments/scale", "apps/v1");
        assert!(scale.iter().any(|(path, _, id)| path.ends_with("/deployments/{name}/scale")
            && id == "readAppsV1NamespacedDeploymentScale"));
        assert_eq!(
            named("roles", "rbac.authorization.k8s.io/v1")[0].2,
            "createRbacAuthorizationV1NamespacedRole"
        );
    }
}
