//! `pods/exec`, `pods/attach`, `pods/portforward`: the way to the kubelet that serves them.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/core/pod/rest/subresources.go`, `../strategy.go` (`streamLocation`).

use axum::extract::Request;
use axum::response::Response;
use http::Method;
use http::header::{CONNECTION, UPGRADE};
use serde_json::Value;
use wherry_machinery::Status;
use wherry_machinery::field::go_quote;
use wherry_machinery::metadata;

use super::node_connection::NodeConnection;
use super::pod_log::{container_names, only_container};
use crate::auth::Authorizer;
use crate::auth::attributes::Attributes;
use crate::auth::authorizer::Decision;
use crate::http::method_not_allowed;
use crate::http::query::{Query, percent_encode};
use crate::http::request_info::RequestInfo;
use crate::identity::Identity;
use crate::registry::{ListVersion, Refusal, Registry};

/// Words of a command, and ports: more are refused before they go to a node.
const MAX_WORDS: usize = 4096;

/// Answers a request for a stream: the client's connection becomes one to the kubelet.
pub(super) async fn answer(
    nodes: &NodeConnection,
    authorizer: &Authorizer,
    registry: &Registry,
    identity: &Identity,
    info: &RequestInfo,
    request: Request,
) -> Result<Response, Refusal> {
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return Err(method_not_allowed());
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    ensure_may_create(authorizer, identity, info, &query)?;
    let kind = registry.kind("", "v1", "pods").ok_or_else(crate::http::no_such_resource)?;
    let pod = registry.get(kind, &info.namespace, &info.name, ListVersion::Latest).await?.value();
    let (node, path) = location(&pod, &info.subresource, &query)?;
    if !is_upgrade(&request) {
        return Err(Status::bad_request("Upgrade request required").into());
    }
    nodes.upgrade(registry, &node, &path, request).await
}

/// WebSocket begins with GET, which roles for reading allow: who opens a stream must be allowed to create one, whatever the
/// method. Source: `authorize.go` (`ensureAuthorizedForVerb`), on by default since 1.35.
pub(super) fn ensure_may_create(
    authorizer: &Authorizer,
    identity: &Identity,
    info: &RequestInfo,
    query: &Query,
) -> Result<(), Refusal> {
    if info.verb == "create" {
        return Ok(());
    }
    match authorizer.decide(&Attributes::of_request(identity, info, query).with_verb("create")) {
        Decision::Allow { .. } => Ok(()),
        Decision::NoOpinion { reason } => {
            Err(Status::forbidden(&info.api_group, &info.resource, &info.name, reason).into())
        }
    }
}

/// Whether the client asks for its connection to become something else.
pub(super) fn is_upgrade(request: &Request) -> bool {
    let asks = request.headers().get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    asks.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("upgrade"))
        && request.headers().contains_key(UPGRADE)
}

/// The node, and the path of its kubelet.
fn location(pod: &Value, subresource: &str, query: &Query) -> Result<(String, String), Refusal> {
    let (namespace, name) = (metadata::namespace(pod), metadata::name(pod));
    let (path, parameters) = if subresource == "portforward" {
        (format!("/portForward/{namespace}/{name}"), ports(query)?)
    } else {
        let container = container(pod, query.given("container").unwrap_or_default())?;
        (format!("/{subresource}/{namespace}/{name}/{container}"), command(subresource, query)?)
    };
    let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
    if node.is_empty() {
        let text = format!("pod {name} does not have a host assigned");
        return Err(Status::bad_request(text).into());
    }
    let path = if parameters.is_empty() { path } else { format!("{path}?{}", parameters.join("&")) };
    Ok((node.to_owned(), path))
}

/// The kubelet's parameters of a `PodExecOptions` or `PodAttachOptions`. Unlike a log's, their outputs default to true.
fn command(subresource: &str, query: &Query) -> Result<Vec<String>, Refusal> {
    let mut parameters = Vec::new();
    let is_set = |key: &str, default: bool| query.first(key).map_or(default, |_| query.flag(key));
    let is_attach = subresource == "attach";
    for (key, parameter, default) in [
        ("stdin", "input", false),
        ("stdout", "output", is_attach),
        ("stderr", "error", is_attach),
        ("tty", "tty", false),
    ] {
        if is_set(key, default) {
            parameters.push(format!("{parameter}=1"));
        }
    }
    if !is_attach {
        let words = query.all("command").map(|word| format!("command={}", percent_encode(word)));
        parameters.extend(words.take(MAX_WORDS + 1));
        if parameters.len() > MAX_WORDS {
            return Err(Status::bad_request("the command has too many words").into());
        }
    }
    Ok(parameters)
}

/// The kubelet's parameter of a `PodPortForwardOptions`.
fn ports(query: &Query) -> Result<Vec<String>, Refusal> {
    let mut ports = Vec::new();
    for text in query.all("ports").flat_map(|list| list.split(',')).filter(|text| !text.is_empty()) {
        let port = text.parse::<i32>().ok().filter(|_| ports.len() < MAX_WORDS);
        let port = port.ok_or_else(|| {
            let text = format!("strconv.ParseInt: parsing {}: invalid syntax", go_quote(text));
            Box::new(Status::bad_request(text))
        })?;
        ports.push(port.to_string());
    }
    if ports.is_empty() { Ok(Vec::new()) } else { Ok(vec![format!("port={}", ports.join(","))]) }
}

/// The container meant.
fn container<'a>(pod: &'a Value, wanted: &str) -> Result<&'a str, Refusal> {
    let name = metadata::name(pod);
    if wanted.is_empty() {
        return only_container(pod).map_err(|all| {
            let mut text = format!("a container name must be specified for pod {name}");
            if !all.is_empty() {
                text.push_str(&format!(", choose one of: [{}]", all.join(" ")));
            }
            Box::new(Status::bad_request(text))
        });
    }
    container_names(pod).into_iter().find(|container| *container == wanted).ok_or_else(|| {
        Box::new(Status::bad_request(format!("container {wanted} is not valid for pod {name}")))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(containers: &[&str], node: &str) -> Value {
        let list: Vec<Value> = containers.iter().map(|name| json!({"name": name})).collect();
        json!({"metadata": {"name": "p", "namespace": "ns"},
            "spec": {"nodeName": node, "containers": list, "initContainers": [{"name": "i"}]}})
    }

    fn at(pod: &Value, subresource: &str, query: &str) -> Result<String, String> {
        let at = location(pod, subresource, &Query::parse(query));
        at.map(|(node, path)| format!("{node} {path}")).map_err(|refusal| refusal.message.clone())
    }

    #[test]
    fn the_kubelet_is_asked_for_what_the_client_wants() {
        let one = pod(&["a"], "n1");
        for (subresource, query, expected) in [
            (
                "exec",
                "command=sh&command=-c&command=echo%20a%26b&stdin=true&stdout=true&stderr=1&tty=false",
                "n1 /exec/ns/p/a?input=1&output=1&error=1&command=sh&command=-c&command=echo%20a%26b",
            ),
            ("exec", "container=i&command=x", "n1 /exec/ns/p/i?command=x"),
            ("attach", "", "n1 /attach/ns/p/a?output=1&error=1"),
            ("attach", "stdin=true&stderr=false&tty=true", "n1 /attach/ns/p/a?input=1&output=1&tty=1"),
            ("portforward", "", "n1 /portForward/ns/p"),
            ("portforward", "ports=80&ports=8080,90", "n1 /portForward/ns/p?port=80,8080,90"),
        ] {
            assert_eq!(at(&one, subresource, query).unwrap(), expected);
        }
    }

    #[test]
    fn what_cannot_be_is_refused_in_kubernetes_words() {
        for (pod, subresource, query, expected) in [
            (pod(&["a"], ""), "exec", "", "pod p does not have a host assigned"),
            (pod(&["a"], ""), "portforward", "", "pod p does not have a host assigned"),
            (pod(&["a"], "n"), "exec", "container=zz", "container zz is not valid for pod p"),
            (
                pod(&["a", "b"], "n"),
                "attach",
                "",
                "a container name must be specified for pod p, choose one of: [i a b]",
            ),
            (
                pod(&["a"], "n"),
                "portforward",
                "ports=http",
                r#"strconv.ParseInt: parsing "http": invalid syntax"#,
            ),
        ] {
            assert_eq!(at(&pod, subresource, query).unwrap_err(), expected);
        }
    }
}
