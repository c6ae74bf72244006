//! `/stats/summary` and the metrics.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::refusal;
use crate::kubelet::Kubelet;
use crate::stats::{self, Detail, Family, MachineFacts};

/// Source: OpenMetrics 1.0.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Parameters {
    only_cpu_and_memory: Option<String>,
}

/// What the node and its pods use.
pub(super) async fn summary(
    State(kubelet): State<Arc<Kubelet>>,
    Query(parameters): Query<Parameters>,
) -> Response {
    let is_short = parameters.only_cpu_and_memory.is_some_and(|value| value == "true" || value == "1");
    let detail = if is_short { Detail::CpuAndMemory } else { Detail::Full };
    let summary = stats::summary(&kubelet, detail).await;
    match serde_json::to_string(&summary) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn answer(families: Vec<Family>) -> Response {
    match stats::text(families) {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// The kubelet's own.
pub(super) async fn metrics(State(kubelet): State<Arc<Kubelet>>) -> Response {
    answer(stats::own_families(&kubelet).await)
}

/// CPU and memory of node, pods and containers.
pub(super) async fn resource(State(kubelet): State<Arc<Kubelet>>) -> Response {
    answer(stats::resource_families(&stats::summary(&kubelet, Detail::CpuAndMemory).await))
}

/// The same and more, by cAdvisor's names.
pub(super) async fn cadvisor(State(kubelet): State<Arc<Kubelet>>) -> Response {
    let machine = MachineFacts {
        cpu_millicores: kubelet.machine_millicores,
        memory_bytes: kubelet.node_facts.memory_bytes,
    };
    answer(stats::cadvisor_families(&stats::summary(&kubelet, Detail::CpuAndMemory).await, machine))
}

/// Probes by result.
pub(super) async fn probes(State(kubelet): State<Arc<Kubelet>>) -> Response {
    answer(kubelet.probe_counts.families())
}
