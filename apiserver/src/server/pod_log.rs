//! `pods/log`.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/core/pod/strategy.go` (`LogLocation`).

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde_json::Value;
use wherry_machinery::Status;
use wherry_machinery::field::{Error as FieldError, Path};
use wherry_machinery::metadata;

use super::node_connection::NodeConnection;
use crate::http::query::Query;
use crate::registry::{ListVersion, Refusal, Registry};

/// Answers a request for a container's log.
pub(super) async fn answer(
    nodes: &NodeConnection,
    registry: &Registry,
    namespace: &str,
    name: &str,
    query: &Query,
) -> Result<Response, Refusal> {
    let kind = registry.kind("", "v1", "pods").ok_or_else(crate::http::no_such_resource)?;
    let pod = registry.get(kind, namespace, name, ListVersion::Latest).await?.value();
    let Some(location) = location(&pod, query)? else {
        let mut empty = Response::new(Body::empty());
        *empty.status_mut() = StatusCode::NO_CONTENT;
        return Ok(empty);
    };
    let mut response = Response::new(nodes.get(registry, &location.node, &location.path).await?);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// Where a log is to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Location {
    node: String,
    /// With its query.
    path: String,
}

/// Where the log is; `None` for a pod that has no node yet.
fn location(pod: &Value, query: &Query) -> Result<Option<Location>, Refusal> {
    let parameters = parameters(pod, query)?;
    let container = container(pod, query.given("container").unwrap_or_default())?;
    let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
    if node.is_empty() {
        return Ok(None);
    }
    let path = format!("/containerLogs/{}/{}/{container}", metadata::namespace(pod), metadata::name(pod));
    let path = if parameters.is_empty() { path } else { format!("{path}?{}", parameters.join("&")) };
    Ok(Some(Location { node: node.to_owned(), path }))
}

/// The options that the kubelet is told, checked.
fn parameters(pod: &Value, query: &Query) -> Result<Vec<String>, Refusal> {
    let mut parameters = Vec::new();
    let mut errors = Vec::new();
    for flag in ["follow", "previous", "timestamps"] {
        if query.flag(flag) {
            parameters.push(format!("{flag}=true"));
        }
    }
    let limits = [
        ("sinceSeconds", 1, "must be greater than 0"),
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
    ];
    for (key, least, detail) in limits {
        let Some(text) = query.given(key) else { continue };
        let Ok(number) = text.parse::<i64>() else {
            let message = format!(
                "strconv.ParseInt: parsing {}: invalid syntax",
                wherry_machinery::field::go_quote(text)
            );
            return Err(Status::bad_request(message).into());
        };
        if number < least {
            errors.push(FieldError::invalid(&Path::new(key), number, detail));
        }
        parameters.push(format!("{key}={number}"));
    }
    if let Some(text) = query.given("sinceTime") {
        let time = wherry_machinery::time::parse(text).map_err(|_| {
            let quoted = wherry_machinery::field::go_quote(text);
            Box::new(Status::bad_request(format!("unable to decode time {quoted} as RFC 3339")))
        })?;
        if query.given("sinceSeconds").is_some() {
            let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            errors.push(FieldError::forbidden(&Path::root(), detail));
        }
        parameters.push(format!("sinceTime={}", wherry_machinery::time::format_seconds(time.unix_seconds())));
    }
    if errors.is_empty() {
        Ok(parameters)
    } else {
        Err(Status::invalid("", "PodLogOptions", metadata::name(pod), &errors).into())
    }
}

fn names<'a>(pod: &'a Value, list: &str) -> Vec<&'a str> {
    let containers = pod.pointer(list).and_then(Value::as_array).into_iter().flatten();
    containers.filter_map(|container| container.get("name")?.as_str()).collect()
}

/// The names of all containers, in the order in which Kubernetes visits them.
pub(super) fn container_names(pod: &Value) -> Vec<&str> {
    ["/spec/initContainers", "/spec/containers", "/spec/ephemeralContainers"]
        .into_iter()
        .flat_map(|list| names(pod, list))
        .collect()
}

/// The one container of a pod, init containers not counted; else the names to choose from.
pub(super) fn only_container(pod: &Value) -> Result<&str, Vec<&str>> {
    match names(pod, "/spec/containers").as_slice() {
        [one] => Ok(one),
        [] => Err(Vec::new()),
        _ => Err(container_names(pod)),
    }
}

/// The container meant.
fn container<'a>(pod: &'a Value, wanted: &str) -> Result<&'a str, Refusal> {
    let pod_name = metadata::name(pod);
    let containers = names(pod, "/spec/containers");
    let init = names(pod, "/spec/initContainers");
    if wanted.is_empty() {
        return match containers.as_slice() {
            [one] => Ok(one),
            many => {
                let mut text = format!("a container name must be specified for pod {pod_name}");
                if !many.is_empty() {
                    text.push_str(&format!(", choose one of: [{}]", many.join(" ")));
                }
                if !many.is_empty() && !init.is_empty() {
                    text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
                }
                Err(Status::bad_request(text).into())
            }
        };
    }
    let ephemeral = names(pod, "/spec/ephemeralContainers");
    [containers, init, ephemeral].into_iter().flatten().find(|name| *name == wanted).ok_or_else(|| {
        Box::new(Status::bad_request(format!("container {wanted} is not valid for pod {pod_name}")))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(containers: &[&str], init: &[&str], node: &str) -> Value {
        let list = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
        json!({
            "metadata": {"name": "p", "namespace": "ns"},
            "spec": {"nodeName": node, "containers": list(containers), "initContainers": list(init)},
        })
    }

    #[test]
    fn a_container_is_found_or_asked_for_in_kubernetes_words() {
        #[rustfmt::skip]
        let table = [
            (pod(&["a"], &[], "n"), "", Ok("a")),
            (pod(&["a", "b"], &[], "n"), "b", Ok("b")),
            (pod(&["a"], &["i"], "n"), "i", Ok("i")),
            (pod(&["a", "b"], &[], "n"), "", Err("a container name must be specified for pod p, choose one of: [a b]")),
            (pod(&["a", "b"], &["i"], "n"), "", Err("a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]")),
            (pod(&["a"], &[], "n"), "zz", Err("container zz is not valid for pod p")),
        ];
        for (pod, wanted, expected) in table {
            let got = container(&pod, wanted);
            assert_eq!(got.as_deref().map_err(|refusal| refusal.message.as_str()), expected);
        }
    }

    #[test]
    fn the_kubelet_is_told_the_options() {
        let query =
            Query::parse("follow=true&tailLines=5&timestamps&previous=false&limitBytes=10&container=a");
        let at = location(&pod(&["a"], &[], "n1"), &query).unwrap().unwrap();
        assert_eq!(at.node, "n1");
        assert_eq!(at.path, "/containerLogs/ns/p/a?follow=true&timestamps=true&tailLines=5&limitBytes=10");
        assert_eq!(location(&pod(&["a"], &[], ""), &Query::default()), Ok(None));
        let bad = location(&pod(&["a"], &[], "n1"), &Query::parse("tailLines=-1")).unwrap_err();
        assert_eq!(
            bad.message,
            r#"PodLogOptions "p" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0"#
        );
    }
}
