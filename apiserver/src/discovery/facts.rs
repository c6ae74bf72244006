//! What Kubernetes says of its resources: names, verbs, short names.
//!
//! Source: `data/discovery.json`, read off a kube-apiserver 1.36.

use serde::{Deserialize, Serialize};

const DATA: &str = include_str!("../../data/discovery.json");

/// A resource or subresource, in the shape of `meta/v1.APIResource`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fact {
    /// `apps/v1`, or `v1`; stands once above the list when served.
    #[serde(skip_serializing)]
    pub group_version: String,
    /// `pods` or `pods/status`.
    pub name: String,
    /// `pod`; empty for subresources.
    pub singular_name: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// The group of the kind, where it is another than the resource's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The version of the kind, where it is another than the resource's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// The kind.
    pub kind: String,
    /// What can be done.
    pub verbs: Vec<String>,
    /// Such as `po`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub short_names: Vec<String>,
    /// Such as `all`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
}

impl Fact {
    /// The group and version under which the resource is served.
    pub fn group_and_version(&self) -> (&str, &str) {
        self.group_version.split_once('/').unwrap_or(("", &self.group_version))
    }

    /// The resource and the subresource (empty if none).
    pub fn parts(&self) -> (&str, &str) {
        self.name.split_once('/').unwrap_or((&self.name, ""))
    }

    /// The group, version and kind of what is sent and answered.
    pub fn response_kind(&self) -> (&str, &str, &str) {
        let (group, version) = self.group_and_version();
        if self.version.is_empty() {
            (group, version, &self.kind)
        } else {
            (&self.group, &self.version, &self.kind)
        }
    }
}

/// What kube-apiserver itself does not serve: metrics-server's resources. Source: metrics-server 0.8.
const METRICS: &str = r#"[
    {"groupVersion": "metrics.k8s.io/v1beta1", "name": "nodes", "singularName": "", "namespaced": false,
        "kind": "NodeMetrics", "verbs": ["get", "list"]},
    {"groupVersion": "metrics.k8s.io/v1beta1", "name": "pods", "singularName": "", "namespaced": true,
        "kind": "PodMetrics", "verbs": ["get", "list"]}
]"#;

/// Every fact, in the order in which Kubernetes lists groups and resources.
pub fn facts() -> Vec<Fact> {
    let read = |data| serde_json::from_str::<Vec<Fact>>(data).unwrap_or_default();
    let mut facts = read(DATA);
    facts.extend(read(METRICS));
    facts
}
