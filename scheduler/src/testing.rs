//! Nodes and pods for tests.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use crate::pod_info::PodInfo;

/// A node with so many cores, 8 GiB and room for 110 pods.
pub(crate) fn node(name: &str, cpu: &str) -> Arc<Node> {
    node_with(name, json!({ "status": { "allocatable": { "cpu": cpu, "memory": "8Gi", "pods": "110" } } }))
}

/// A node with whatever the parts say.
pub(crate) fn node_with(name: &str, parts: Value) -> Arc<Node> {
    let mut node = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
        "status": { "allocatable": { "cpu": "4", "memory": "8Gi", "pods": "110" } },
    });
    merge(&mut node, parts);
    Arc::new(serde_json::from_value(node).unwrap())
}

/// A pod that asks for so much CPU.
pub(crate) fn pod(name: &str, cpu: &str) -> Arc<PodInfo> {
    let resources = json!({ "requests": { "cpu": cpu } });
    pod_with(name, json!({ "containers": [{ "name": "main", "image": "a", "resources": resources }] }))
}

/// The same on a node.
pub(crate) fn pod_on(name: &str, cpu: &str, node: &str) -> Arc<PodInfo> {
    let mut pod = (*pod(name, cpu).pod).clone();
    pod.spec.as_mut().unwrap().node_name = Some(node.to_owned());
    Arc::new(PodInfo::new(Arc::new(pod)))
}

/// A pod with whatever the spec says.
pub(crate) fn pod_with(name: &str, spec: Value) -> Arc<PodInfo> {
    let mut pod = json!({
        "metadata": { "name": name, "namespace": "default", "uid": format!("uid-of-{name}") },
        "spec": { "containers": [{ "name": "main", "image": "a" }], "schedulerName": "default-scheduler" },
    });
    merge(&mut pod["spec"], spec);
    Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap())))
}

/// As a JSON merge patch, without deletion.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
