//! What is allowed in a pod and still worth a `Warning` header. Source: `k8s.io/kubernetes/pkg/api/pod/warnings.go`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use wherry_machinery::field::Path;

use super::resources::parsed;
use crate::kinds::json::{integer, is_absent, list, text};
use crate::kinds::node::deprecated_label;

/// Volume sources that are going or gone.
const DEPRECATED_VOLUMES: &[(&str, &str, &str)] = &[
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// Annotations that do nothing any more.
const DEPRECATED_ANNOTATIONS: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        r#"non-functional in v1.16+; use the "priorityClassName" field instead"#,
    ),
    ("security.alpha.kubernetes.io/sysctls", r#"non-functional in v1.11+; use the "sysctls" field instead"#),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        r#"non-functional in v1.11+; use the "sysctls" field instead"#,
    ),
];

/// Warnings about a pod. A pod being deleted, or one whose spec did not change, gives none.
pub(crate) fn of_pod(pod: &Value, old: Option<&Value>) -> Vec<String> {
    let deleted = !text(pod, "/metadata/deletionTimestamp").is_empty();
    let unchanged = old.is_some_and(|old| old.get("spec") == pod.get("spec"));
    if deleted || unchanged { Vec::new() } else { of_spec_and_metadata(pod, &Path::root()) }
}

/// Warnings about a template, whose path is given.
pub(crate) fn of_template(template: &Value, path: &Path) -> Vec<String> {
    of_spec_and_metadata(template, path)
}

fn of_spec_and_metadata(object: &Value, path: &Path) -> Vec<String> {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    let spec_path = path.child("spec");
    let mut warnings = Vec::new();
    node_labels(spec, &spec_path, &mut warnings);
    let annotations = object.pointer("/metadata/annotations").and_then(Value::as_object);
    for (key, what) in DEPRECATED_ANNOTATIONS {
        if annotations.is_some_and(|annotations| annotations.contains_key(*key)) {
            warnings.push(format!("{}: {what}", path.child("metadata").child("annotations").key(key)));
        }
    }
    volumes(spec, &spec_path, &mut warnings);
    repeated(spec, "hostAliases", "ip", &spec_path, &mut warnings);
    repeated(spec, "imagePullSecrets", "name", &spec_path, &mut warnings);
    for (i, secret) in list(spec, "/imagePullSecrets").iter().enumerate() {
        if text(secret, "/name").is_empty() {
            let path = spec_path.child("imagePullSecrets").index(i).child("name");
            warnings.push(format!("{path}: invalid empty name \"\""));
        }
    }
    fractions(spec.get("overhead"), &spec_path.child("overhead"), &mut warnings);
    for (container, path) in containers(spec, &spec_path) {
        for field in ["limits", "requests"] {
            let amounts = container.pointer(&format!("/resources/{field}"));
            fractions(amounts, &path.child("resources").child(field), &mut warnings);
        }
        hidden_variables(container, &path, &mut warnings);
    }
    ports(spec, &spec_path, &mut warnings);
    if integer(spec, "/terminationGracePeriodSeconds") < 0 {
        let path = spec_path.child("terminationGracePeriodSeconds");
        warnings.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    warnings
}

fn containers<'a>(spec: &'a Value, path: &Path) -> Vec<(&'a Value, Path)> {
    let of = |field: &'static str| {
        let path = path.child(field);
        list(spec, &format!("/{field}"))
            .iter()
            .enumerate()
            .map(move |(i, container)| (container, path.index(i)))
    };
    of("initContainers").chain(of("containers")).chain(of("ephemeralContainers")).collect()
}

fn node_labels(spec: &Value, path: &Path, warnings: &mut Vec<String>) {
    for key in spec.get("nodeSelector").and_then(Value::as_object).into_iter().flat_map(|map| map.keys()) {
        if let Some(what) = deprecated_label(key) {
            warnings.push(format!("{}: {what}", path.child("nodeSelector").key(key)));
        }
    }
    let affinity_path = path.child("affinity").child("nodeAffinity");
    let mut term = |term: &Value, path: Path| {
        for (i, expression) in list(term, "/matchExpressions").iter().enumerate() {
            let key = text(expression, "/key");
            if let Some(what) = deprecated_label(key) {
                warnings.push(format!(
                    "{}: {key} is {what}",
                    path.child("matchExpressions").index(i).child("key")
                ));
            }
        }
    };
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let terms = list(spec, &format!("/affinity/nodeAffinity/{required}/nodeSelectorTerms"));
    for (i, required_term) in terms.iter().enumerate() {
        term(required_term, affinity_path.child(required).child("nodeSelectorTerms").index(i));
    }
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    for (i, preference) in list(spec, &format!("/affinity/nodeAffinity/{preferred}")).iter().enumerate() {
        let own = preference.get("preference").unwrap_or(&Value::Null);
        term(own, affinity_path.child(preferred).index(i).child("preference"));
    }
    for (i, constraint) in list(spec, "/topologySpreadConstraints").iter().enumerate() {
        let path = path.child("topologySpreadConstraints").index(i);
        let key = text(constraint, "/topologyKey");
        if let Some(what) = deprecated_label(key) {
            warnings.push(format!("{}: {key} is {what}", path.child("topologyKey")));
        }
        if is_absent(constraint.get("labelSelector")) {
            warnings.push(format!(
                "{}: a null labelSelector results in matching no pod",
                path.child("labelSelector")
            ));
        }
    }
}

fn volumes(spec: &Value, path: &Path, warnings: &mut Vec<String>) {
    for (i, volume) in list(spec, "/volumes").iter().enumerate() {
        for (field, name, what) in DEPRECATED_VOLUMES {
            if !is_absent(volume.get(*field)) {
                warnings.push(format!("{}: {what}", path.child("volumes").index(i).child(name)));
            }
        }
    }
}

fn repeated(spec: &Value, field: &str, key: &str, path: &Path, warnings: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (i, item) in list(spec, &format!("/{field}")).iter().enumerate() {
        let value = text(item, &format!("/{key}"));
        if !seen.insert(value) {
            warnings.push(format!("{}: duplicate {key} {value:?}", path.child(field).index(i).child(key)));
        }
    }
}

fn fractions(amounts: Option<&Value>, path: &Path, warnings: &mut Vec<String>) {
    for name in ["memory", "ephemeral-storage"] {
        let Some(amount) = amounts.and_then(|amounts| amounts.get(name)).and_then(Value::as_str) else {
            continue;
        };
        if parsed(amount).milli_value() % 1000 != 0 {
            let path = path.key(name);
            warnings.push(format!("{path}: fractional byte value {amount:?} is invalid, must be an integer"));
        }
    }
}

fn hidden_variables(container: &Value, path: &Path, warnings: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (i, variable) in list(container, "/env").iter().enumerate() {
        let (name, value) = (text(variable, "/name"), text(variable, "/value"));
        if seen.insert(name) {
            continue;
        }
        let own = format!("$({name})");
        if !is_absent(variable.get("valueFrom")) || value == own || !value.contains(&own) {
            let path = path.child("env").index(i);
            warnings.push(format!(
                "{path}: hides previous definition of {name:?}, which may be dropped when using apply"
            ));
        }
    }
}

fn ports(spec: &Value, path: &Path, warnings: &mut Vec<String>) {
    let mut taken: BTreeMap<String, Vec<(Path, &str, i64)>> = BTreeMap::new();
    for (container, path) in containers(spec, path) {
        for (i, port) in list(container, "/ports").iter().enumerate() {
            let path = path.child("ports").index(i);
            let (host_ip, host_port) = (text(port, "/hostIP"), integer(port, "/hostPort"));
            let key = format!("{}/{}", integer(port, "/containerPort"), text(port, "/protocol"));
            let others = taken.entry(key).or_default();
            for (other, other_ip, other_port) in others.iter() {
                if host_ip == *other_ip && host_port == *other_port {
                    warnings.push(format!("{path}: duplicate port definition with {other}"));
                } else if host_port == 0 || *other_port == 0 {
                    warnings.push(format!("{path}: overlapping port definition with {other}"));
                } else if host_port == *other_port && (host_ip.is_empty() || other_ip.is_empty()) {
                    warnings.push(format!("{path}: dangerously ambiguous port definition with {other}"));
                }
            }
            others.push((path, host_ip, host_port));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_allowed_and_likely_wrong_is_warned_about() {
        let pod = json!({"spec": {
            "nodeSelector": {"beta.kubernetes.io/os": "linux"},
            "volumes": [{"name": "g", "gitRepo": {"repository": "r"}}],
            "terminationGracePeriodSeconds": -1,
            "containers": [{"name": "c",
                "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}, {"name": "B", "value": "1"}, {"name": "B", "value": "$(B)2"}],
                "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "TCP", "name": "b"}]}],
        }});
        assert_eq!(
            of_pod(&pod, None),
            [
                r#"spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead"#,
                "spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
                r#"spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply"#,
                "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
                "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            ]
        );
        assert!(of_pod(&pod, Some(&pod)).is_empty());
    }
}
