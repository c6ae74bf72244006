//! What a kubelet may do: read what its own pods refer to, and care for its own node.
//!
//! Source: `k8s.io/kubernetes/plugin/pkg/auth/authorizer/node`.

use std::collections::{BTreeSet, HashMap};
use std::sync::OnceLock;

use serde_json::Value;
use wherry_machinery::field::go_quote;

use super::attributes::{Attributes, ResourceTarget, Target};
use super::bootstrap;
use super::rbac::PolicyRule;

/// What pods refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Referent {
    Secret,
    ConfigMap,
    PersistentVolumeClaim,
    ServiceAccount,
}

/// The namespace is that of the pod.
type Reference = (Referent, String);

#[derive(Debug)]
struct PodReferences {
    node: String,
    references: BTreeSet<Reference>,
}

/// Which node runs which pods, and what these refer to.
#[derive(Debug, Default)]
pub struct NodeGraph {
    pods: HashMap<(String, String), PodReferences>,
    /// By node and namespace: how many pods refer to it.
    references: HashMap<(String, String), HashMap<Reference, usize>>,
    rules: OnceLock<Vec<PolicyRule>>,
}

impl NodeGraph {
    /// Takes in a pod as it is now; `None` if it was deleted.
    pub fn apply(&mut self, namespace: &str, name: &str, pod: Option<&Value>) {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(old) = self.pods.remove(&key) {
            let place = (old.node, namespace.to_owned());
            if let Some(counts) = self.references.get_mut(&place) {
                for reference in old.references {
                    if let Some(count) = counts.get_mut(&reference) {
                        *count -= 1;
                        if *count == 0 {
                            counts.remove(&reference);
                        }
                    }
                }
                if counts.is_empty() {
                    self.references.remove(&place);
                }
            }
        }
        let Some(pod) = pod else { return };
        let Some(node) =
            pod.pointer("/spec/nodeName").and_then(Value::as_str).filter(|node| !node.is_empty())
        else {
            return;
        };
        let references = references_of(pod);
        let counts = self.references.entry((node.to_owned(), namespace.to_owned())).or_default();
        for reference in &references {
            *counts.entry(reference.clone()).or_default() += 1;
        }
        self.pods.insert(key, PodReferences { node: node.to_owned(), references });
    }

    /// Whether the pod is bound to the node.
    pub fn has_pod(&self, node: &str, namespace: &str, name: &str) -> bool {
        self.pods.get(&(namespace.to_owned(), name.to_owned())).is_some_and(|pod| pod.node == node)
    }

    /// Whether a pod of the node uses the claim.
    pub(super) fn has_claim(&self, node: &str, namespace: &str, claim: &str) -> bool {
        self.refers(node, namespace, Referent::PersistentVolumeClaim, claim)
    }

    fn refers(&self, node: &str, namespace: &str, referent: Referent, name: &str) -> bool {
        self.references
            .get(&(node.to_owned(), namespace.to_owned()))
            .is_some_and(|counts| counts.contains_key(&(referent, name.to_owned())))
    }

    /// Whether the node's kubelet may make the request.
    ///
    /// # Errors
    /// Why not; empty if there is nothing to tell.
    pub fn decide(&self, node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
        let Target::Resource(target) = &attributes.target else { return self.by_rules(attributes) };
        match (target.group, target.resource, target.subresource) {
            ("", "secrets", _) => self.read_referent(node, Referent::Secret, attributes.verb, target),
            ("", "configmaps", _) => self.read_referent(node, Referent::ConfigMap, attributes.verb, target),
            ("", "persistentvolumeclaims", "") => {
                self.read_referent(node, Referent::PersistentVolumeClaim, attributes.verb, target)
            }
            ("", "serviceaccounts", "token") => self.create_token(node, attributes.verb, target),
            ("", "nodes", _) => self.own_node(node, attributes, target),
            ("", "pods", _) => self.own_pod(node, attributes, target),
            ("coordination.k8s.io", "leases", _) => own_lease(node, attributes.verb, target),
            _ => self.by_rules(attributes),
        }
    }

    fn read_referent(
        &self,
        node: &str,
        referent: Referent,
        verb: &str,
        target: &ResourceTarget<'_>,
    ) -> Result<(), String> {
        if !matches!(verb, "get" | "list" | "watch") {
            return Err("can only read resources of this type".to_owned());
        }
        if !target.subresource.is_empty() {
            return Err("cannot read subresource".to_owned());
        }
        if target.name.is_empty() {
            return Err("No Object name found".to_owned());
        }
        if self.refers(node, target.namespace, referent, target.name) {
            Ok(())
        } else {
            Err(no_relationship(node))
        }
    }

    fn create_token(&self, node: &str, verb: &str, target: &ResourceTarget<'_>) -> Result<(), String> {
        if verb != "create" || target.name.is_empty() {
            return Err("can only create tokens for individual service accounts".to_owned());
        }
        if self.refers(node, target.namespace, Referent::ServiceAccount, target.name) {
            Ok(())
        } else {
            Err(no_relationship(node))
        }
    }

    fn own_node(
        &self,
        node: &str,
        attributes: &Attributes<'_>,
        target: &ResourceTarget<'_>,
    ) -> Result<(), String> {
        let reads = matches!(attributes.verb, "get" | "list" | "watch");
        if reads && target.subresource.is_empty() && target.name != node {
            return Err(format!(
                "node {} cannot read {}, only its own Node object",
                quoted(node),
                quoted(target.name)
            ));
        }
        self.by_rules(attributes)
    }

    fn own_pod(
        &self,
        node: &str,
        attributes: &Attributes<'_>,
        target: &ResourceTarget<'_>,
    ) -> Result<(), String> {
        match attributes.verb {
            "get" if target.subresource.is_empty() => {
                if self.has_pod(node, target.namespace, target.name) {
                    Ok(())
                } else {
                    Err(no_relationship(node))
                }
            }
            "list" | "watch" if target.subresource.is_empty() => {
                let wanted = format!("spec.nodeName={node}");
                let own = target.field_selector.is_some_and(|selector| {
                    selector.split(',').any(|term| term == wanted || term.replacen("==", "=", 1) == wanted)
                });
                let known = !target.name.is_empty() && self.has_pod(node, target.namespace, target.name);
                if own || known {
                    Ok(())
                } else {
                    Err("can only list/watch pods with spec.nodeName field selector".to_owned())
                }
            }
            _ => self.by_rules(attributes),
        }
    }

    /// The rules of ClusterRole `system:node` as Kubernetes ships it: what no graph limits.
    fn by_rules(&self, attributes: &Attributes<'_>) -> Result<(), String> {
        let rules = self.rules.get_or_init(bootstrap::node_rules);
        if rules.iter().any(|rule| rule.allows(attributes)) { Ok(()) } else { Err(String::new()) }
    }
}

fn own_lease(node: &str, verb: &str, target: &ResourceTarget<'_>) -> Result<(), String> {
    if !matches!(verb, "get" | "create" | "update" | "patch" | "delete") {
        return Err("can only get, create, update, patch, or delete a node lease".to_owned());
    }
    if target.namespace != "kube-node-lease" {
        return Err(format!(
            "can only access leases in the {} system namespace",
            go_quote("kube-node-lease")
        ));
    }
    // A create names its object in the body; NodeRestriction looks there.
    if verb != "create" && target.name != node {
        return Err("can only access node lease with the same name as the requesting node".to_owned());
    }
    Ok(())
}

fn quoted(name: &str) -> String {
    format!("'{name}'")
}

fn no_relationship(node: &str) -> String {
    format!("no relationship found between node {} and this object", quoted(node))
}

/// Everything that the node needs to run the pod.
fn references_of(pod: &Value) -> BTreeSet<Reference> {
    let mut references = BTreeSet::new();
    let mut add = |referent, name: Option<&Value>| {
        if let Some(name) = name.and_then(Value::as_str).filter(|name| !name.is_empty()) {
            references.insert((referent, name.to_owned()));
        }
    };
    let Some(spec) = pod.get("spec") else { return references };
    add(Referent::ServiceAccount, spec.get("serviceAccountName"));
    for secret in list(spec, "/imagePullSecrets") {
        add(Referent::Secret, secret.get("name"));
    }
    for containers in ["/containers", "/initContainers", "/ephemeralContainers"] {
        for container in list(spec, containers) {
            for source in list(container, "/envFrom") {
                add(Referent::ConfigMap, source.pointer("/configMapRef/name"));
                add(Referent::Secret, source.pointer("/secretRef/name"));
            }
            for variable in list(container, "/env") {
                add(Referent::ConfigMap, variable.pointer("/valueFrom/configMapKeyRef/name"));
                add(Referent::Secret, variable.pointer("/valueFrom/secretKeyRef/name"));
            }
        }
    }
    for volume in list(spec, "/volumes") {
        add(Referent::Secret, volume.pointer("/secret/secretName"));
        add(Referent::ConfigMap, volume.pointer("/configMap/name"));
        add(Referent::PersistentVolumeClaim, volume.pointer("/persistentVolumeClaim/claimName"));
        if volume.get("ephemeral").is_some_and(Value::is_object) {
            let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
            let claim = format!("{}-{}", text(pod.pointer("/metadata/name")), text(volume.get("name")));
            add(Referent::PersistentVolumeClaim, Some(&claim.into()));
        }
        for source in list(volume, "/projected/sources") {
            add(Referent::Secret, source.pointer("/secret/name"));
            add(Referent::ConfigMap, source.pointer("/configMap/name"));
        }
        for secret in [
            "azureFile/secretName",
            "cephfs/secretRef/name",
            "csi/nodePublishSecretRef/name",
            "flexVolume/secretRef/name",
        ] {
            add(Referent::Secret, volume.pointer(&format!("/{secret}")));
        }
    }
    references
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::identity::Identity;

    fn graph() -> NodeGraph {
        let mut graph = NodeGraph::default();
        let pod = |node: &str| {
            json!({"spec": {
                "nodeName": node, "serviceAccountName": "bot",
                "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "key"}}}]}],
                "volumes": [{"configMap": {"name": "conf"}}, {"projected": {"sources": [{"configMap": {"name": "root"}}]}}],
            }})
        };
        graph.apply("ns", "a", Some(&pod("n1")));
        graph.apply("ns", "b", Some(&pod("n2")));
        graph
    }

    #[test]
    fn a_node_reads_what_its_pods_refer_to_and_nothing_else() {
        let identity = Identity::node("n1");
        let mut graph = graph();
        graph.apply(
            "other",
            "c",
            Some(&json!({"spec": {"nodeName": "n2", "volumes": [{"secret": {"secretName": "s2"}}]}})),
        );
        let no = Err("no relationship found between node 'n1' and this object".to_owned());
        #[rustfmt::skip]
        let table = [
            ("get", "secrets", "", "ns", "key", Ok(())),
            ("watch", "configmaps", "", "ns", "root", Ok(())),
            ("get", "configmaps", "", "ns", "none", no.clone()),
            ("get", "secrets", "", "other", "s2", no.clone()),
            ("list", "secrets", "", "ns", "", Err("No Object name found".to_owned())),
            ("update", "secrets", "", "ns", "key", Err("can only read resources of this type".to_owned())),
            ("create", "serviceaccounts", "token", "ns", "bot", Ok(())),
            ("create", "serviceaccounts", "token", "ns", "default", no.clone()),
            ("get", "pods", "", "ns", "a", Ok(())),
            ("get", "pods", "", "ns", "b", no.clone()),
            ("patch", "pods", "status", "ns", "a", Ok(())),
            ("get", "nodes", "", "", "n1", Ok(())),
            ("get", "nodes", "", "", "n2", Err("node 'n1' cannot read 'n2', only its own Node object".to_owned())),
            ("create", "nodes", "", "", "", Ok(())),
            ("create", "events", "", "ns", "", Ok(())),
            ("delete", "services", "", "ns", "x", Err(String::new())),
        ];
        for (verb, resource, subresource, namespace, name, expected) in table {
            let target =
                ResourceTarget { resource, subresource, namespace, name, ..ResourceTarget::default() };
            let attributes = Attributes { identity: &identity, verb, target: Target::Resource(target) };
            assert_eq!(
                graph.decide("n1", &attributes),
                expected,
                "{verb} {resource}/{subresource} {namespace}/{name}"
            );
        }
    }

    #[test]
    fn pods_are_listed_by_node_only() {
        let identity = Identity::node("n1");
        let graph = graph();
        for (selector, allowed) in
            [(None, false), (Some("spec.nodeName=n1"), true), (Some("spec.nodeName=n2"), false)]
        {
            let target =
                ResourceTarget { resource: "pods", field_selector: selector, ..ResourceTarget::default() };
            let attributes =
                Attributes { identity: &identity, verb: "watch", target: Target::Resource(target) };
            assert_eq!(graph.decide("n1", &attributes).is_ok(), allowed, "{selector:?}");
        }
    }

    #[test]
    fn a_reference_ends_with_its_last_pod() {
        let mut graph = graph();
        assert!(graph.refers("n1", "ns", Referent::Secret, "key"));
        graph.apply("ns", "a", None);
        assert!(!graph.refers("n1", "ns", Referent::Secret, "key"));
        assert!(graph.refers("n2", "ns", Referent::Secret, "key"));
        graph.apply("ns", "b", None);
        assert!(graph.references.is_empty() && graph.pods.is_empty());
    }
}
