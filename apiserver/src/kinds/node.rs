//! Node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{NodeSpec, Taint};
use serde_json::{Value, json};
use wherry_machinery::field::{Error, ErrorList, Path};
use wherry_machinery::names;

use super::json::{carry_over, default_value, flag, is_absent, list, map_at, set, text, typed, within};
use super::pod::resources;
use super::{fields, table};
use crate::registry::strategy::{Part, RequestFacts, Resource, Scope, Strategy};

/// Labels of the beta days and what to use instead, with the words of the warning.
const DEPRECATED_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", r#"deprecated since v1.14; use "kubernetes.io/arch" instead"#),
    ("beta.kubernetes.io/os", r#"deprecated since v1.14; use "kubernetes.io/os" instead"#),
    (
        "failure-domain.beta.kubernetes.io/region",
        r#"deprecated since v1.17; use "topology.kubernetes.io/region" instead"#,
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        r#"deprecated since v1.17; use "topology.kubernetes.io/zone" instead"#,
    ),
    (
        "beta.kubernetes.io/instance-type",
        r#"deprecated since v1.17; use "node.kubernetes.io/instance-type" instead"#,
    ),
];

/// What to say about a deprecated label of nodes.
pub(crate) fn deprecated_label(key: &str) -> Option<&'static str> {
    DEPRECATED_LABELS.iter().find(|(label, _)| *label == key).map(|(_, text)| *text)
}

/// `nodes`.
pub(crate) struct NodeStrategy;

impl Strategy for NodeStrategy {
    fn resource(&self) -> Resource {
        Resource { group: "", version: "v1", name: "nodes", kind: "Node", scope: Scope::Cluster }
    }

    fn has_status(&self) -> bool {
        true
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn keeps_status_at_creation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        default_value(object, "spec", json!({}));
        let Some(status) = map_at(object, "status") else { return };
        for field in ["capacity", "allocatable"] {
            within(status, field, resources::canonicalize_list);
        }
        if is_absent(status.get("allocatable"))
            && let Some(capacity) = status.get("capacity").filter(|capacity| capacity.is_object()).cloned()
        {
            set(status, "allocatable", capacity);
        }
        if let Some(endpoints) = map_at(status, "daemonEndpoints")
            && let Some(kubelet) = map_at(endpoints, "kubeletEndpoint")
        {
            default_value(kubelet, "Port", 0);
        }
        if let Some(info) = map_at(status, "nodeInfo") {
            for field in [
                "machineID",
                "systemUUID",
                "bootID",
                "kernelVersion",
                "osImage",
                "containerRuntimeVersion",
                "kubeletVersion",
                "kubeProxyVersion",
                "operatingSystem",
                "architecture",
            ] {
                default_value(info, field, "");
            }
        }
        sync_pod_cidrs(object);
    }

    fn prepare_for_update(&self, _facts: &RequestFacts, part: Part, object: &mut Value, old: &Value) {
        match part {
            Part::Main => carry_over(object, "status", old),
            Part::Status => carry_over(object, "spec", old),
        }
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let spec: NodeSpec = match typed(object, &Path::new("spec")) {
            Ok(spec) => spec,
            Err(errors) => return errors,
        };
        let mut errors = taints(spec.taints.as_deref().unwrap_or_default());
        errors.extend(node_resources(object));
        errors.extend(pod_cidrs(spec.pod_cidrs.as_deref().unwrap_or_default()));
        errors
    }

    fn validate_update(&self, _facts: &RequestFacts, _part: Part, object: &Value, old: &Value) -> ErrorList {
        let path = Path::new("spec");
        let (spec, old_spec): (NodeSpec, NodeSpec) = match (typed(object, &path), typed(old, &path)) {
            (Ok(spec), Ok(old_spec)) => (spec, old_spec),
            (Err(errors), _) | (_, Err(errors)) => return errors,
        };
        let mut errors = node_resources(object);
        let mut seen = BTreeSet::new();
        for (i, address) in list(object, "/status/addresses").iter().enumerate() {
            if !seen.insert((text(address, "/type"), text(address, "/address"))) {
                let path = Path::new("status").child("addresses").index(i);
                let parts =
                    [("Type", text(address, "/type").into()), ("Address", text(address, "/address").into())];
                errors.push(fields::duplicate_printed(&path, &fields::go_struct(&parts)));
            }
        }
        let old_cidrs = old_spec.pod_cidrs.unwrap_or_default();
        let cidrs = spec.pod_cidrs.unwrap_or_default();
        let cidr_text = r#"node updates may not change podCIDR except from "" to valid"#;
        if !old_cidrs.is_empty() && old_cidrs != cidrs {
            errors.push(Error::forbidden(&path.child("podCIDRs"), cidr_text));
        }
        let old_id = fields::s(&old_spec.provider_id);
        if !old_id.is_empty() && old_id != fields::s(&spec.provider_id) {
            let detail = r#"node updates may not change providerID except from "" to valid"#;
            errors.push(Error::forbidden(&path.child("providerID"), detail));
        }
        errors.extend(taints(spec.taints.as_deref().unwrap_or_default()));
        if fields::s(&spec.external_id) != fields::s(&old_spec.external_id) {
            errors.push(Error::forbidden(&path.child("externalID"), "may not be updated"));
        }
        errors
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        if !is_absent(object.pointer("/spec/configSource")) {
            let text = "spec.configSource: deprecated in v1.22, support removal is planned in v1.23, support will be removed in v1.26";
            warnings.push(text.to_owned());
        }
        if !text(object, "/spec/externalID").is_empty() {
            warnings
                .push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
        }
        warnings
    }

    fn selectable_fields(&self, object: &Value) -> BTreeMap<&'static str, String> {
        BTreeMap::from([("spec.unschedulable", flag(object, "/spec/unschedulable").to_string())])
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        let info = |field: &str| {
            let value = text(object, &format!("/status/nodeInfo/{field}"));
            Value::from(if value.is_empty() { "<unknown>" } else { value })
        };
        let address = |kind: &str| {
            let found =
                list(object, "/status/addresses").iter().find(|address| text(address, "/type") == kind);
            Value::from(found.map_or(table::NONE, |address| text(address, "/address")))
        };
        Some(vec![
            table::name(object),
            status_cell(object).into(),
            roles_cell(object).into(),
            table::age(object, now_unix_seconds),
            text(object, "/status/nodeInfo/kubeletVersion").into(),
            address("InternalIP"),
            address("ExternalIP"),
            info("osImage"),
            info("kernelVersion"),
            info("containerRuntimeVersion"),
        ])
    }
}

/// `podCIDR` is the first of `podCIDRs`; a client may give either.
fn sync_pod_cidrs(object: &mut Value) {
    within(object, "spec", |spec| {
        let first = list(spec, "/podCIDRs").first().and_then(Value::as_str).unwrap_or_default().to_owned();
        let single = text(spec, "/podCIDR").to_owned();
        if !single.is_empty() && first != single {
            set(spec, "podCIDRs", json!([single]));
        } else if single.is_empty() && !first.is_empty() {
            set(spec, "podCIDR", first);
        }
    });
}

fn taints(taints: &[Taint]) -> ErrorList {
    // Kubernetes reports the path so.
    let path = Path::new("metadata").child("taints");
    let mut errors = ErrorList::new();
    let mut seen = BTreeSet::new();
    for (i, taint) in taints.iter().enumerate() {
        let path = path.index(i);
        errors.extend(fields::label_key(&taint.key, &path.child("key")));
        let value = fields::s(&taint.value);
        let problems = names::label_value(value);
        if !problems.is_empty() {
            errors.push(Error::invalid(&path.child("value"), value, &problems.join(";")));
        }
        errors.extend(taint_effect(&taint.effect, false, &path.child("effect")));
        if !seen.insert((taint.effect.as_str(), taint.key.as_str())) {
            let parts = [
                ("Key", json!(taint.key)),
                ("Value", json!(value)),
                ("Effect", json!(taint.effect)),
                ("TimeAdded", json!(taint.time_added)),
            ];
            let mut error = fields::duplicate_printed(&path, &fields::go_struct(&parts));
            error.body.push_str(": taints must be unique by key and effect pair");
            errors.push(error);
        }
    }
    errors
}

/// What a taint does, or a toleration tolerates.
pub(crate) fn taint_effect(effect: &str, may_be_empty: bool, path: &Path) -> ErrorList {
    const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
    if effect.is_empty() {
        return if may_be_empty { ErrorList::new() } else { vec![Error::required(path, "")] };
    }
    if EFFECTS.contains(&effect) {
        ErrorList::new()
    } else {
        vec![Error::not_supported(path, effect, EFFECTS)]
    }
}

fn node_resources(object: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    for field in ["capacity", "allocatable"] {
        let amounts = object.pointer(&format!("/status/{field}")).and_then(Value::as_object);
        for (resource, amount) in amounts.into_iter().flatten() {
            let path = Path::new("status").child(field).child(resource);
            errors.extend(resources::quantity_value(resource, amount.as_str().unwrap_or_default(), &path));
        }
    }
    errors
}

fn pod_cidrs(cidrs: &[String]) -> ErrorList {
    let path = Path::new("spec").child("podCIDRs");
    let mut errors = ErrorList::new();
    for (i, cidr) in cidrs.iter().enumerate() {
        errors.extend(fields::cidr(cidr, &path.index(i)));
    }
    if cidrs.len() > 1 {
        let is_v4 =
            |cidr: &String| names::parse_cidr(cidr).map(|(address, _)| matches!(address, IpAddr::V4(_)));
        let families: BTreeSet<_> = cidrs.iter().filter_map(is_v4).collect();
        if families.len() < 2 || cidrs.len() > 2 {
            errors.push(Error::invalid(
                &path,
                json!(cidrs),
                "may specify no more than one CIDR for each IP family",
            ));
        }
        let mut seen = BTreeSet::new();
        for (i, cidr) in cidrs.iter().enumerate() {
            if !seen.insert(cidr) {
                errors.push(Error::duplicate(&path.index(i), cidr.as_str()));
            }
        }
    }
    errors
}

fn status_cell(object: &Value) -> String {
    let ready =
        list(object, "/status/conditions").iter().rfind(|condition| text(condition, "/type") == "Ready");
    let mut status = match ready.map(|condition| text(condition, "/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if flag(object, "/spec/unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn roles_cell(object: &Value) -> String {
    let mut roles = BTreeSet::new();
    for (key, value) in object.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten() {
        let role = match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => role,
            None if key == "kubernetes.io/role" => value.as_str().unwrap_or_default(),
            None => continue,
        };
        if !role.is_empty() {
            roles.insert(role);
        }
    }
    if roles.is_empty() { table::NONE.to_owned() } else { roles.into_iter().collect::<Vec<_>>().join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, facts, messages};

    #[test]
    fn allocatable_is_capacity_and_the_node_info_is_complete() {
        let mut node = json!({"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "4"}}});
        NodeStrategy.default(&mut node);
        assert_eq!(node["status"]["allocatable"], json!({"cpu": "4"}));
        assert_eq!(node["status"]["daemonEndpoints"], json!({"kubeletEndpoint": {"Port": 0}}));
        assert_eq!(node["status"]["nodeInfo"]["kubeletVersion"], "");
    }

    #[test]
    fn taints_are_unique_by_key_and_effect() {
        let node = json!({"spec": {"taints": [
            {"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule", "value": "x"}, {"key": "b", "effect": "Odd"},
        ]}});
        assert_eq!(
            messages(&NodeStrategy.validate(&facts(), &node)),
            [
                r#"metadata.taints[1]: Duplicate value: {"Key":"a","Value":"x","Effect":"NoSchedule","TimeAdded":null}: taints must be unique by key and effect pair"#,
                r#"metadata.taints[2].effect: Unsupported value: "Odd": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute""#,
            ]
        );
    }

    #[test]
    fn the_row_tells_status_roles_and_addresses() {
        let node = json!({
            "metadata": {"name": "n", "creationTimestamp": "2026-01-02T03:03:05Z",
                "labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""}},
            "spec": {"unschedulable": true},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian"},
            },
        });
        let cells = NodeStrategy.table_cells(&node, NOW).unwrap();
        assert_eq!(
            Value::from(cells),
            json!([
                "n",
                "Ready,SchedulingDisabled",
                "control-plane,worker",
                "60s",
                "v1.36.0",
                "127.0.0.1",
                "<none>",
                "Debian",
                "<unknown>",
                "<unknown>"
            ])
        );
    }
}
