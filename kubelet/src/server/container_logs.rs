//! `/containerLogs/{namespace}/{pod}/{container}`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::refusal;
use crate::kubelet::{Kubelet, path_part};
use crate::logs::{LogOptions, LogSource, stream};

/// Pieces of output that wait for a slow reader.
const WAITING_PIECES: usize = 16;

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Parameters {
    follow: Option<String>,
    previous: Option<String>,
    timestamps: Option<String>,
    tail_lines: Option<usize>,
    since_seconds: Option<u64>,
    since_time: Option<Timestamp>,
    limit_bytes: Option<usize>,
}

fn is_set(flag: Option<&String>) -> bool {
    flag.is_some_and(|value| value.is_empty() || value == "true" || value == "1")
}

pub(super) async fn get(
    State(kubelet): State<Arc<Kubelet>>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    Query(parameters): Query<Parameters>,
) -> Response {
    let Some(pod) = kubelet.pods.store().get(&namespace, &name) else {
        return refusal(StatusCode::NOT_FOUND, format!("pod {name:?} does not exist"));
    };
    let attempt = match attempt(&pod, &container, is_set(parameters.previous.as_ref())) {
        Ok(attempt) => attempt,
        Err(Refused::NotFound(text)) => return refusal(StatusCode::NOT_FOUND, text),
        Err(Refused::Waiting(text)) => match newest_log(&kubelet, &pod, &container) {
            // The file is there already, the status is on its way.
            Some(attempt) if !is_set(parameters.previous.as_ref()) => attempt,
            _ => return refusal(StatusCode::BAD_REQUEST, text),
        },
    };
    let since = parameters.since_time.or_else(|| {
        let seconds = parameters.since_seconds?;
        kubelet.now().checked_sub(Duration::from_secs(seconds)).ok()
    });
    let options = LogOptions {
        tail_lines: parameters.tail_lines,
        since,
        limit_bytes: parameters.limit_bytes,
        timestamps: is_set(parameters.timestamps.as_ref()),
        follow: is_set(parameters.follow.as_ref()),
    };
    let Ok(reader) = kubelet.log_readers.clone().try_acquire_owned() else {
        let text = "too many logs are being read on this node".to_owned();
        return refusal(StatusCode::TOO_MANY_REQUESTS, text);
    };
    let path = kubelet.log_dir(&log_owner(&pod)).join(path_part(&container)).join(format!("{attempt}.log"));
    let uid = pod.metadata.uid.clone();
    let watched = kubelet.clone();
    let has_ended = move || {
        if watched.shutdown.is_cancelled() {
            return true;
        }
        let pod = watched.pods.store().get(&namespace, &name).filter(|pod| pod.metadata.uid == uid);
        pod.is_none_or(|pod| match status_of(&pod, &container) {
            Some(status) => {
                let is_running = status.state.as_ref().is_some_and(|s| s.running.is_some());
                let is_same = u32::try_from(status.restart_count).unwrap_or(0) == attempt;
                let is_starting = status.container_id.is_none();
                !((is_same && is_running) || is_starting)
            }
            None => false,
        })
    };
    let source = LogSource { path, has_ended: Box::new(has_ended) };
    let (sender, receiver) = mpsc::channel(WAITING_PIECES);
    kubelet.tasks.spawn_blocking(move || {
        stream(&source, &options, sender);
        drop(reader);
    });
    let pieces = futures::stream::unfold(receiver, |mut receiver| async move {
        let piece = receiver.recv().await?;
        Some((piece, receiver))
    });
    ([(header::CONTENT_TYPE, "text/plain")], Body::from_stream(pieces)).into_response()
}

#[derive(Debug, PartialEq, Eq)]
enum Refused {
    NotFound(String),
    Waiting(String),
}

/// A static pod's logs are kept under its own uid, not its mirror's.
fn log_owner(pod: &Pod) -> Pod {
    let mirrored = crate::pod::mirrored_uid(pod);
    let mut owner = Pod { metadata: pod.metadata.clone(), ..Pod::default() };
    if let Some(uid) = mirrored {
        owner.metadata.uid = Some(uid);
    }
    owner
}

fn status_of<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all =
        [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    all.into_iter().flatten().flatten().find(|s| s.name == container)
}

/// Which attempt's log is meant.
fn attempt(pod: &Pod, container: &str, is_previous: bool) -> Result<u32, Refused> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let spec = pod.spec.as_ref();
    let mut known =
        spec.into_iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
    let is_ephemeral = crate::pod::ephemeral::is_ephemeral(pod, container);
    if !is_ephemeral && !known.any(|c| c.name == container) {
        return Err(Refused::NotFound(format!("container {container:?} not found in pod {name:?}")));
    }
    let not_available =
        || Refused::Waiting(format!("container {container:?} in pod {name:?} is not available"));
    let status = status_of(pod, container).ok_or_else(not_available)?;
    let count = u32::try_from(status.restart_count).unwrap_or(0);
    let has_last = status.last_state.as_ref().is_some_and(|s| s.terminated.is_some());
    let waiting = status.state.as_ref().and_then(|s| s.waiting.as_ref());
    match (is_previous, waiting) {
        (true, _) if !has_last => Err(Refused::Waiting(format!(
            "previous terminated container {container:?} in pod {name:?} not found"
        ))),
        // While it waits to be restarted, the last one is both.
        (_, Some(_)) if has_last => Ok(count),
        (true, None) => Ok(count.saturating_sub(1)),
        (_, Some(waiting)) => {
            let reason = waiting.reason.as_deref().unwrap_or_default();
            Err(Refused::Waiting(match reason {
                "ErrImagePull" | "ImagePullBackOff" => {
                    let why = if reason == "ErrImagePull" {
                        "image can't be pulled"
                    } else {
                        "trying and failing to pull image"
                    };
                    format!("container {container:?} in pod {name:?} is waiting to start: {why}")
                }
                reason => format!("container {container:?} in pod {name:?} is waiting to start: {reason}"),
            }))
        }
        (false, None) => Ok(count),
    }
}

fn newest_log(kubelet: &Kubelet, pod: &Pod, container: &str) -> Option<u32> {
    let directory = kubelet.log_dir(&log_owner(pod)).join(path_part(container));
    std::fs::read_dir(directory)
        .ok()?
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".log")?.parse().ok())
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn the_attempt_follows_from_the_status() {
        let running = json!({"running": {}});
        let ended = json!({"terminated": {"exitCode": 1}});
        let waits = |reason: &str| json!({"waiting": {"reason": reason}});
        let waiting = |reason: &str| {
            Err(Refused::Waiting(format!("container \"c\" in pod \"p\" is waiting to start: {reason}")))
        };
        let no_previous =
            || Err(Refused::Waiting("previous terminated container \"c\" in pod \"p\" not found".to_owned()));
        let cases: [(Value, Value, bool, Result<u32, Refused>); 7] = [
            (running.clone(), json!({}), false, Ok(2)),
            (running.clone(), ended.clone(), true, Ok(1)),
            (running, json!({}), true, no_previous()),
            (waits("CrashLoopBackOff"), ended.clone(), false, Ok(2)),
            (waits("CrashLoopBackOff"), ended, true, Ok(2)),
            (waits("ContainerCreating"), json!({}), false, waiting("ContainerCreating")),
            (waits("ImagePullBackOff"), json!({}), false, waiting("trying and failing to pull image")),
        ];
        for (state, last, is_previous, expected) in cases {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]},
                "status": {"containerStatuses": [{"name": "c", "restartCount": 2, "state": state, "lastState": last,
                    "ready": false, "image": "", "imageID": ""}]},
            }))
            .unwrap();
            assert_eq!(attempt(&pod, "c", is_previous), expected, "{state}");
            assert!(matches!(attempt(&pod, "d", false), Err(Refused::NotFound(_))));
        }
    }
}
