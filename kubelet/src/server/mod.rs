//! The node's HTTPS API: logs, streams, pods, health, statistics.
//!
//! Callers show a certificate of the cluster's authority or a bearer token; who is not trusted by name is asked about at
//! the API server (TokenReview, SubjectAccessReview).

mod auth;
mod container_logs;
mod listener;
mod stats;
mod streaming;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use crate::error::Error;
use crate::kubelet::Kubelet;

/// Starts the API when there are certificates; answers the port, 0 without.
pub(crate) async fn start(kubelet: &Arc<Kubelet>) -> Result<u16, Error> {
    match &kubelet.config.tls {
        Some(tls) => listener::listen(kubelet, tls, router(kubelet.clone())).await,
        None => Ok(0),
    }
}

fn router(kubelet: Arc<Kubelet>) -> Router {
    let auth = Arc::new(auth::Authority::new(kubelet.clone()));
    Router::new()
        .route("/containerLogs/{namespace}/{pod}/{container}", get(container_logs::get))
        .route("/pods", get(pods))
        .route("/runningpods", get(pods))
        .route("/runningpods/", get(pods))
        .route("/stats/summary", get(stats::summary))
        .route("/metrics", get(stats::metrics))
        .route("/metrics/resource", get(stats::resource))
        .route("/metrics/cadvisor", get(stats::cadvisor))
        .route("/metrics/probes", get(stats::probes))
        .route("/healthz", get(|| async { "ok" }))
        .route("/healthz/ping", get(|| async { "ok" }))
        .merge(streaming::routes())
        .layer(axum::middleware::from_fn_with_state(auth, auth::check))
        .with_state(kubelet)
}

async fn pods(State(kubelet): State<Arc<Kubelet>>) -> Response {
    let pods: Vec<_> = kubelet.pods.store().list();
    let items: Vec<&k8s_openapi::api::core::v1::Pod> = pods.iter().map(std::convert::AsRef::as_ref).collect();
    let list = json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items });
    ([(header::CONTENT_TYPE, "application/json")], list.to_string()).into_response()
}

/// A refusal as plain text, as the kubelet's API answers.
fn refusal(code: StatusCode, text: String) -> Response {
    (code, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text + "\n").into_response()
}
