//! The roles and bindings that every cluster starts with.
//!
//! Source: `data/rbac-bootstrap.json`, read off a kube-apiserver 1.36.

use serde::Deserialize;
use serde_json::{Value, json};
use wherry_machinery::metadata;

use super::rbac::{Kind, PolicyRule};

const DATA: &str = include_str!("../../data/rbac-bootstrap.json");

/// Set to `false` on a bootstrap object that an administrator changed and wants kept.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// All controllers run in one component under one name, which therefore needs the rights of each.
const CONTROLLERS: &str = "system:kube-controller-manager";

/// What cluster DNS may do, and who it is. Its role as Kubernetes has it, `system:kube-dns`, is of the time before
/// EndpointSlices; CoreDNS brings one of its own too.
const CLUSTER_DNS: &str = "wherry:cluster-dns";
const CLUSTER_DNS_USER: &str = "system:kube-dns";

/// The bootstrap objects of a kind, as they are to be created.
pub fn objects(kind: Kind) -> Vec<Value> {
    let mut data: Value = serde_json::from_str(DATA).unwrap_or_default();
    let Some(Value::Array(mut objects)) = data.get_mut(kind.resource()).map(Value::take) else {
        return Vec::new();
    };
    objects.extend(of_cluster_dns(kind));
    for object in &mut objects {
        if !matches!(kind, Kind::ClusterRoleBinding | Kind::RoleBinding) {
            continue;
        }
        let is_controller = metadata::name(object).starts_with("system:controller:");
        if is_controller && let Some(subjects) = object.get_mut("subjects").and_then(Value::as_array_mut) {
            subjects
                .push(json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": CONTROLLERS}));
        }
    }
    if kind == Kind::ClusterRole {
        objects.push(metrics_reader());
    }
    objects
}

fn of_cluster_dns(kind: Kind) -> Option<Value> {
    let metadata = json!({
        "name": CLUSTER_DNS, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}, "annotations": {AUTOUPDATE: "true"},
    });
    match kind {
        Kind::ClusterRole => Some(json!({"metadata": metadata, "rules": [
            {"verbs": ["list", "watch"], "apiGroups": [""], "resources": ["namespaces", "services"]},
            {"verbs": ["list", "watch"], "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"]},
        ]})),
        Kind::ClusterRoleBinding => Some(json!({
            "metadata": metadata,
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": CLUSTER_DNS_USER}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": CLUSTER_DNS},
        })),
        Kind::Role | Kind::RoleBinding => None,
    }
}

/// The rules of ClusterRole `system:node`.
pub(super) fn node_rules() -> Vec<PolicyRule> {
    objects(Kind::ClusterRole)
        .iter()
        .find(|role| metadata::name(role) == "system:node")
        .and_then(|role| Vec::<PolicyRule>::deserialize(role.get("rules")?).ok())
        .unwrap_or_default()
}

/// What a bootstrap object that is there already should become; `None` if it is well. Rights that an administrator added stay.
pub fn reconciled(wanted: &Value, current: &Value) -> Option<Value> {
    if current.pointer("/metadata/annotations").and_then(|a| a.get(AUTOUPDATE)).and_then(Value::as_str)
        != Some("true")
    {
        return None;
    }
    let mut changed = current.clone();
    let aggregated = wanted.get("aggregationRule").is_some_and(|rule| !rule.is_null());
    let fields: &[&str] = if aggregated { &["aggregationRule"] } else { &["rules", "subjects"] };
    for &field in fields {
        let Some(value) = wanted.get(field).filter(|value| !value.is_null()) else { continue };
        match (value.as_array(), changed.get_mut(field)) {
            (Some(wanted), Some(Value::Array(items))) => {
                for item in wanted {
                    if !items.contains(item) {
                        items.push(item.clone());
                    }
                }
            }
            _ => changed[field] = value.clone(),
        }
    }
    (changed != *current).then_some(changed)
}

/// Who may look at things may look at what they use. Source: metrics-server's `system:aggregated-metrics-reader`.
fn metrics_reader() -> Value {
    json!({
        "metadata": {
            "name": "system:aggregated-metrics-reader",
            "labels": {
                "kubernetes.io/bootstrapping": "rbac-defaults",
                "rbac.authorization.k8s.io/aggregate-to-admin": "true",
                "rbac.authorization.k8s.io/aggregate-to-edit": "true",
                "rbac.authorization.k8s.io/aggregate-to-view": "true",
            },
            "annotations": {AUTOUPDATE: "true"},
        },
        "rules": [{"apiGroups": ["metrics.k8s.io"], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_has_the_roles_that_clusters_start_with() {
        let names: Vec<String> =
            objects(Kind::ClusterRole).iter().map(|role| metadata::name(role).to_owned()).collect();
        for name in ["cluster-admin", "admin", "edit", "view", "system:node", "system:public-info-viewer"] {
            assert!(names.iter().any(|n| n == name), "{name}");
        }
        assert!(!objects(Kind::RoleBinding).is_empty() && !objects(Kind::Role).is_empty());
        assert!(node_rules().iter().any(|rule| rule.resources == ["nodes/status"]));
    }

    #[test]
    fn reconciling_adds_what_is_missing_and_keeps_what_was_added() {
        let meta = json!({"annotations": {AUTOUPDATE: "true"}});
        let wanted = json!({"metadata": meta, "rules": [{"verbs": ["get"]}, {"verbs": ["list"]}]});
        let current = json!({"metadata": meta, "rules": [{"verbs": ["watch"]}, {"verbs": ["get"]}]});
        let changed = reconciled(&wanted, &current).unwrap();
        assert_eq!(changed["rules"], json!([{"verbs": ["watch"]}, {"verbs": ["get"]}, {"verbs": ["list"]}]));
        assert_eq!(reconciled(&wanted, &changed), None);
        let mut kept = current;
        kept["metadata"]["annotations"][AUTOUPDATE] = json!("false");
        assert_eq!(reconciled(&wanted, &kept), None);
    }
}
