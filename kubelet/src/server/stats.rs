//! `/stats/summary` and `/metrics`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use wherry_runtimes::{ContainerFilter, ContainerState, CpuUsage, MemoryUsage, PodSandboxStatsFilter};

use crate::kubelet::Kubelet;

fn time(nanoseconds: i64) -> Value {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).map_or(Value::Null, |time| json!(time.to_string()))
}

fn cpu(usage: Option<&CpuUsage>) -> Value {
    usage.map_or(Value::Null, |u| {
        json!({ "time": time(u.timestamp), "usageNanoCores": u.usage_nano_cores,
            "usageCoreNanoSeconds": u.usage_core_nano_seconds })
    })
}

fn memory(usage: Option<&MemoryUsage>) -> Value {
    usage.map_or(Value::Null, |u| {
        json!({ "time": time(u.timestamp), "availableBytes": u.available_bytes, "usageBytes": u.usage_bytes,
            "workingSetBytes": u.working_set_bytes, "rssBytes": u.rss_bytes, "pageFaults": u.page_faults,
            "majorPageFaults": u.major_page_faults })
    })
}

/// What pods and containers use, as the runtimes count it.
pub(super) async fn summary(State(kubelet): State<Arc<Kubelet>>) -> Response {
    let mut pods = Vec::new();
    for runtime in kubelet.runtimes.all() {
        let Ok(stats) = runtime.service.list_pod_sandbox_stats(&PodSandboxStatsFilter::default()).await
        else {
            continue;
        };
        for pod in stats {
            let metadata = &pod.attributes.metadata;
            let linux = pod.linux.unwrap_or_default();
            let containers: Vec<Value> = linux
                .containers
                .iter()
                .map(|c| {
                    json!({ "name": c.attributes.metadata.name, "cpu": cpu(c.cpu.as_ref()), "memory": memory(c.memory.as_ref()) })
                })
                .collect();
            pods.push(json!({
                "podRef": { "name": metadata.name, "namespace": metadata.namespace, "uid": metadata.uid },
                "containers": containers, "cpu": cpu(linux.cpu.as_ref()), "memory": memory(linux.memory.as_ref()),
            }));
        }
    }
    let summary = json!({ "node": { "nodeName": kubelet.config.node_name }, "pods": pods });
    ([(header::CONTENT_TYPE, "application/json")], summary.to_string()).into_response()
}

/// Counts, in the text format of Prometheus.
pub(super) async fn metrics(State(kubelet): State<Arc<Kubelet>>) -> Response {
    let mut containers: BTreeMap<&str, usize> = BTreeMap::new();
    for runtime in kubelet.runtimes.all() {
        let Ok(list) = runtime.service.list_containers(&ContainerFilter::default()).await else { continue };
        for container in list {
            let state = match container.state {
                ContainerState::Created => "created",
                ContainerState::Running => "running",
                ContainerState::Exited => "exited",
                ContainerState::Unknown => "unknown",
            };
            *containers.entry(state).or_default() += 1;
        }
    }
    let mut text = String::from("# TYPE kubelet_node_name gauge\n");
    let _ = writeln!(text, "kubelet_node_name{{node={:?}}} 1", kubelet.config.node_name);
    text.push_str("# TYPE kubelet_working_pods gauge\n");
    let _ = writeln!(text, "kubelet_working_pods {}", kubelet.workers.uids().len());
    text.push_str("# TYPE kubelet_running_containers gauge\n");
    for (state, count) in containers {
        let _ = writeln!(text, "kubelet_running_containers{{container_state={state:?}}} {count}");
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}
