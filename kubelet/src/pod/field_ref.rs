//! Fields of a pod and resources of its containers as text, for the environment and downward API volumes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use wherry_machinery::quantity::Quantity;

use super::resources::Amounts;

/// A reference that cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// No such field.
    #[error("unsupported fieldPath: {0}")]
    UnsupportedField(String),
    /// No such resource.
    #[error("unsupported container resource : {0}")]
    UnsupportedResource(String),
    /// No such container.
    #[error("container {0} not found")]
    NoContainer(String),
}

/// Facts that a pod's object may not have yet.
#[derive(Debug, Clone, Default)]
pub struct PodFacts {
    /// The node's address.
    pub host_ip: String,
    /// The pod's addresses.
    pub pod_ips: Vec<String>,
    /// What the node has for pods: stands in for limits that are not set.
    pub allocatable: Amounts,
}

/// The text of a field.
pub fn field_value(pod: &Pod, facts: &PodFacts, path: &str) -> Result<String, FieldError> {
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    if let Some((map, key)) = subscript(path) {
        let entries = match map {
            "metadata.labels" => metadata.labels.as_ref(),
            "metadata.annotations" => metadata.annotations.as_ref(),
            _ => return Err(FieldError::UnsupportedField(path.to_owned())),
        };
        return Ok(entries.and_then(|entries| entries.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => metadata.name.clone().unwrap_or_default(),
        "metadata.namespace" => metadata.namespace.clone().unwrap_or_default(),
        "metadata.uid" => metadata.uid.clone().unwrap_or_default(),
        "metadata.labels" => format_map(metadata.labels.as_ref()),
        "metadata.annotations" => format_map(metadata.annotations.as_ref()),
        "spec.nodeName" => spec.and_then(|s| s.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec.and_then(|s| s.service_account_name.clone()).unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.clone(),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => facts.pod_ips.join(","),
        _ => return Err(FieldError::UnsupportedField(path.to_owned())),
    })
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// Lines of `key="value"`, sorted, values quoted as Go quotes them.
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let mut text = String::new();
    for (index, (key, value)) in map.into_iter().flatten().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        let _ = write!(text, "{key}={}", go_quote(value));
    }
    text
}

fn go_quote(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('"');
    for c in value.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if u32::from(c) < 0x20 || u32::from(c) == 0x7f => {
                let _ = write!(quoted, "\\x{:02x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// The text of a resource field: a whole number of divisors, rounded up.
pub fn resource_value(
    pod: &Pod,
    container: Option<&Container>,
    facts: &PodFacts,
    selector: &ResourceFieldSelector,
) -> Result<String, FieldError> {
    let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
    let container = match named {
        Some(name) => pod
            .spec
            .as_ref()
            .and_then(|s| {
                s.containers.iter().chain(s.init_containers.iter().flatten()).find(|c| c.name == name)
            })
            .ok_or_else(|| FieldError::NoContainer(name.to_owned()))?,
        None => container.ok_or_else(|| FieldError::NoContainer(String::new()))?,
    };
    let unsupported = || FieldError::UnsupportedResource(selector.resource.clone());
    let (kind, name) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    if !(matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-")) {
        return Err(unsupported());
    }
    let resources = container.resources.as_ref();
    let set = match kind {
        "limits" => resources.and_then(|r| r.limits.as_ref()),
        "requests" => resources.and_then(|r| r.requests.as_ref()),
        _ => return Err(unsupported()),
    };
    let amount = set
        .and_then(|quantities| quantities.get(name))
        .and_then(|quantity| super::resources::amount(name, quantity))
        .or_else(|| (kind == "limits").then(|| facts.allocatable.get(name).copied()).flatten())
        .unwrap_or(0);
    let divisor = selector
        .divisor
        .as_ref()
        .and_then(|d| d.0.parse::<Quantity>().ok())
        .map(|q| if name == "cpu" { q.milli_value() } else { q.value() })
        .filter(|d| *d > 0)
        .unwrap_or(if name == "cpu" { 1000 } else { 1 });
    Ok((amount / divisor + i64::from(amount % divisor > 0)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"b": "2", "a": "x\"y\n"},
                         "annotations": {"k": "v"}},
            "spec": {"nodeName": "node", "serviceAccountName": "sa", "containers": [
                {"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "1Mi"}}}]},
        }))
        .unwrap()
    }

    #[test]
    fn fields_read_as_in_kubernetes() {
        let facts = PodFacts {
            host_ip: "1.2.3.4".into(),
            pod_ips: vec!["5.6.7.8".into(), "::1".into()],
            ..PodFacts::default()
        };
        for (path, expected) in [
            ("metadata.name", Ok("p")),
            ("metadata.labels", Ok("a=\"x\\\"y\\n\"\nb=\"2\"")),
            ("metadata.labels['b']", Ok("2")),
            ("metadata.annotations['k']", Ok("v")),
            ("metadata.annotations['none']", Ok("")),
            ("spec.serviceAccountName", Ok("sa")),
            ("status.podIP", Ok("5.6.7.8")),
            ("status.podIPs", Ok("5.6.7.8,::1")),
            ("status.hostIP", Ok("1.2.3.4")),
            ("spec.nope", Err(FieldError::UnsupportedField("spec.nope".into()))),
        ] {
            assert_eq!(field_value(&pod(), &facts, path), expected.map(str::to_owned), "{path}");
        }
    }

    #[test]
    fn resources_are_rounded_up_and_fall_back_to_the_node() {
        let facts = PodFacts {
            allocatable: [("ephemeral-storage".to_owned(), 77), ("cpu".to_owned(), 4000)].into(),
            ..PodFacts::default()
        };
        let pod = pod();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        for (resource, divisor, expected) in [
            ("limits.cpu", None, "2"),
            ("limits.cpu", Some("1m"), "1500"),
            ("limits.memory", Some("1Ki"), "1024"),
            ("limits.memory", None, "1048576"),
            ("limits.ephemeral-storage", None, "77"),
            ("requests.cpu", None, "0"),
        ] {
            let selector: ResourceFieldSelector =
                serde_json::from_value(serde_json::json!({"resource": resource, "divisor": divisor}))
                    .unwrap();
            assert_eq!(
                resource_value(&pod, Some(container), &facts, &selector).unwrap(),
                expected,
                "{resource}"
            );
        }
    }
}
