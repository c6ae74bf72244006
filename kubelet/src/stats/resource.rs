//! `/metrics/resource`. Source: Kubernetes' `pkg/kubelet/metrics/collectors/resource_metrics.go`.

use super::exposition::{Family, Kind, number, seconds};
use super::model::Summary;

/// The metrics of a summary.
pub(crate) fn families(summary: &Summary) -> Vec<Family> {
    let mut node_cpu = Family::new(
        "node_cpu_usage_seconds",
        "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
        Kind::Counter,
    );
    let mut node_memory = Family::new(
        "node_memory_working_set_bytes",
        "[STABLE] Current working set of the node in bytes",
        Kind::Gauge,
    );
    let mut node_swap = Family::new(
        "node_swap_usage_bytes",
        "[ALPHA] Current swap usage of the node in bytes. Reported only on non-windows systems",
        Kind::Gauge,
    );
    let node = &summary.node;
    if let Some(used) = node.cpu.and_then(|cpu| cpu.usage_core_nano_seconds) {
        node_cpu.add(Vec::new(), seconds(used));
    }
    if let Some(bytes) = node.memory.and_then(|memory| memory.working_set_bytes) {
        node_memory.add(Vec::new(), number(bytes));
    }
    if let Some(bytes) = node.swap.and_then(|swap| swap.swap_usage_bytes) {
        node_swap.add(Vec::new(), number(bytes));
    }

    let mut container_cpu = Family::new(
        "container_cpu_usage_seconds",
        "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
        Kind::Counter,
    );
    let mut container_memory = Family::new(
        "container_memory_working_set_bytes",
        "[STABLE] Current working set of the container in bytes",
        Kind::Gauge,
    );
    let mut container_start = Family::new(
        "container_start_time_seconds",
        "[STABLE] Start time of the container since unix epoch in seconds",
        Kind::Gauge,
    );
    let mut container_swap = Family::new(
        "container_swap_usage_bytes",
        "[ALPHA] Current amount of the container swap usage in bytes. Reported only on non-windows systems",
        Kind::Gauge,
    );
    let mut pod_cpu = Family::new(
        "pod_cpu_usage_seconds",
        "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
        Kind::Counter,
    );
    let mut pod_memory = Family::new(
        "pod_memory_working_set_bytes",
        "[STABLE] Current working set of the pod in bytes",
        Kind::Gauge,
    );
    for pod in &summary.pods {
        let of_pod = || vec![("namespace", pod.pod_ref.namespace.clone()), ("pod", pod.pod_ref.name.clone())];
        if let Some(used) = pod.cpu.and_then(|cpu| cpu.usage_core_nano_seconds) {
            pod_cpu.add(of_pod(), seconds(used));
        }
        if let Some(bytes) = pod.memory.and_then(|memory| memory.working_set_bytes) {
            pod_memory.add(of_pod(), number(bytes));
        }
        for container in &pod.containers {
            let labels = || {
                let mut labels = vec![("container", container.name.clone())];
                labels.extend(of_pod());
                labels
            };
            if let Some(used) = container.cpu.and_then(|cpu| cpu.usage_core_nano_seconds) {
                container_cpu.add(labels(), seconds(used));
            }
            if let Some(bytes) = container.memory.and_then(|memory| memory.working_set_bytes) {
                container_memory.add(labels(), number(bytes));
            }
            if let Some(time) = container.start_time {
                let milliseconds = u64::try_from(time.as_millisecond()).unwrap_or(0);
                container_start.add(labels(), number(milliseconds) / 1e3);
            }
            if let Some(bytes) = container.swap.and_then(|swap| swap.swap_usage_bytes) {
                container_swap.add(labels(), number(bytes));
            }
        }
    }
    let mut error = Family::new(
        "resource_scrape_error",
        "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise",
        Kind::Gauge,
    );
    error.add(Vec::new(), 0.0);
    vec![
        container_cpu,
        container_memory,
        container_start,
        container_swap,
        node_cpu,
        node_memory,
        node_swap,
        pod_cpu,
        pod_memory,
        error,
    ]
}

#[cfg(test)]
mod tests {
    use super::super::exposition::text;
    use super::super::model::*;
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    #[test]
    fn pods_and_containers_are_told_by_kubernetes_names() {
        let cpu = CpuStats { usage_core_nano_seconds: Some(1_500_000_000), ..CpuStats::default() };
        let memory = MemoryStats { working_set_bytes: Some(1024), ..MemoryStats::default() };
        let summary = Summary {
            node: NodeStats { cpu: Some(cpu), memory: Some(memory), ..NodeStats::default() },
            pods: vec![PodStats {
                pod_ref: PodReference { name: "p".into(), namespace: "n".into(), uid: "u".into() },
                cpu: Some(cpu),
                memory: Some(memory),
                containers: vec![ContainerStats {
                    name: "c".into(),
                    cpu: Some(cpu),
                    memory: Some(memory),
                    start_time: Timestamp::from_millisecond(2_500).ok(),
                    ..ContainerStats::default()
                }],
                ..PodStats::default()
            }],
        };
        let text = text(families(&summary)).unwrap();
        for line in [
            "container_cpu_usage_seconds_total{container=\"c\",namespace=\"n\",pod=\"p\"} 1.5",
            "container_memory_working_set_bytes{container=\"c\",namespace=\"n\",pod=\"p\"} 1024.0",
            "container_start_time_seconds{container=\"c\",namespace=\"n\",pod=\"p\"} 2.5",
            "node_cpu_usage_seconds_total 1.5",
            "pod_memory_working_set_bytes{namespace=\"n\",pod=\"p\"} 1024.0",
            "resource_scrape_error 0.0",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} in {text}");
        }
    }
}
