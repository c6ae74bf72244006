//! `NodeMetrics` and `PodMetrics`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wherry_machinery::time::format_seconds;

use super::usage::{NodeUsage, PodUsage, Used};
use super::{GROUP, VERSION};

fn usage(used: Used) -> Value {
    json!({ "cpu": format!("{}n", used.cpu_nanocores), "memory": bytes(used.memory_bytes) })
}

/// As a quantity with binary suffixes is written.
fn bytes(bytes: u64) -> String {
    if bytes != 0 && bytes.is_multiple_of(1024) { format!("{}Ki", bytes / 1024) } else { bytes.to_string() }
}

/// `10.5s`, as Go writes durations.
fn window(nanoseconds: u64) -> String {
    let (seconds, rest) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000 / 1_000_000);
    if rest == 0 {
        return format!("{seconds}s");
    }
    format!("{seconds}.{}s", format!("{rest:03}").trim_end_matches('0'))
}

fn object(kind: &str, metadata: Value, seconds: i64, nanoseconds: u64) -> Value {
    let time = format_seconds(seconds);
    let mut object = json!({
        "kind": kind,
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "metadata": metadata,
        "timestamp": time,
        "window": window(nanoseconds),
    });
    object["metadata"]["creationTimestamp"] = time.into();
    object
}

fn with_labels(mut metadata: Value, labels: &BTreeMap<String, String>) -> Value {
    if !labels.is_empty() {
        metadata["labels"] = json!(labels);
    }
    metadata
}

/// A node; `None` when it has not told its own use.
pub(super) fn node_metrics(name: &str, labels: &BTreeMap<String, String>, node: &NodeUsage) -> Option<Value> {
    let metadata = with_labels(json!({"name": name}), labels);
    let mut object = object("NodeMetrics", metadata, node.at_seconds, node.window_nanoseconds);
    object["usage"] = usage(node.total?);
    Some(object)
}

/// A pod.
pub(super) fn pod_metrics(
    namespace: &str,
    name: &str,
    labels: &BTreeMap<String, String>,
    pod: &PodUsage,
) -> Value {
    let metadata = with_labels(json!({"name": name, "namespace": namespace}), labels);
    let mut object = object("PodMetrics", metadata, pod.at_seconds, pod.window_nanoseconds);
    object["containers"] =
        pod.containers.iter().map(|(name, used)| json!({"name": name, "usage": usage(*used)})).collect();
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_as_clients_read_them() {
        assert_eq!([0, 1, 2048].map(bytes), ["0", "1", "2Ki"]);
        assert_eq!([1_000_000_000, 1_250_000_000, 10_005_000_000].map(window), ["1s", "1.25s", "10.005s"]);
        let pod = PodUsage {
            at_seconds: 0,
            window_nanoseconds: 1_000_000_000,
            containers: [("c".to_owned(), Used { cpu_nanocores: 5, memory_bytes: 1024 })].into(),
        };
        let labels = [("app".to_owned(), "x".to_owned())].into();
        assert_eq!(
            pod_metrics("n", "p", &labels, &pod),
            json!({"kind": "PodMetrics", "apiVersion": "metrics.k8s.io/v1beta1",
                "metadata": {"name": "p", "namespace": "n", "labels": {"app": "x"}, "creationTimestamp": "1970-01-01T00:00:00Z"},
                "timestamp": "1970-01-01T00:00:00Z", "window": "1s",
                "containers": [{"name": "c", "usage": {"cpu": "5n", "memory": "1Ki"}}]})
        );
    }
}
