//! The end of a pod: stop everything, clean up, and let the API server forget it.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use super::hooks::grace_period;
use super::launch::termination_message_file;
use super::observed::{ContainerObserved, ContainerPhase};
use super::stop::{Stop, StopReason};
use super::worker::{Done, Origin, Stage, Worker};
use crate::kubelet::path_part;
use crate::volumes::mount::tear_down;

/// Most bytes of a termination message. Source: Kubernetes.
const MAX_MESSAGE_BYTES: usize = 4096;
/// Most bytes of a termination message taken from the log. Source: Kubernetes.
const MAX_LOG_MESSAGE_BYTES: usize = 2048;
/// Most lines of a termination message taken from the log. Source: Kubernetes.
const MAX_LOG_MESSAGE_LINES: usize = 80;

impl Worker {
    /// Stops what runs; then the sandbox; then the pod is terminated.
    pub(super) async fn terminate(&mut self) {
        self.waiting.clear();
        let Some(runtime) = self.runtime.clone() else {
            self.stage = Stage::Terminated;
            return;
        };
        let running: Vec<(String, k8s_openapi::api::core::v1::Container)> = self
            .observed
            .containers
            .iter()
            .filter(|c| matches!(c.phase, ContainerPhase::Running | ContainerPhase::Unknown))
            .filter_map(|c| Some((c.id.clone(), self.container(&c.name)?.clone())))
            .collect();
        if !running.is_empty() {
            let grace = grace_period(&self.pod);
            match &self.stop_task {
                Some((task, known)) if grace < *known => task.abort(),
                Some(_) => return,
                None => {}
            }
            self.stopping.extend(running.iter().map(|(id, _)| id.clone()));
            let stop = Stop::new(self, &runtime, running, StopReason::PodEnds);
            let grace = stop.grace();
            self.stop_task = Some((self.tasks.spawn(stop.run()), grace));
            return;
        }
        for index in 0..self.observed.sandboxes.len() {
            let id = self.observed.sandboxes[index].id.clone();
            if !self.observed.sandboxes[index].is_ready {
                continue;
            }
            match runtime.service.stop_pod_sandbox(&id).await {
                Ok(()) => self.observed.sandboxes[index].is_ready = false,
                Err(error) => {
                    let message =
                        format!("error killing pod: failed to \"KillPodSandbox\" with error: {error}");
                    self.kubelet.pod_event(
                        &self.pod,
                        wherry_client::EventType::Warning,
                        "FailedKillPod",
                        message,
                    );
                    self.failed("stop", Duration::from_secs(1));
                    return;
                }
            }
        }
        self.stage = Stage::Terminated;
    }

    /// Cleans up what nobody reads any more; when the pod is deleted, everything, and then the object.
    pub(super) async fn terminated(&mut self) {
        if self.volumes.is_some() || self.refresh_volumes || !self.references.is_empty() {
            let namespace = self.pod.metadata.namespace.clone().unwrap_or_default();
            self.kubelet.objects.unregister(&self.uid, &namespace, &self.references);
            self.references = super::sources::References::default();
            self.volumes = None;
            self.refresh_volumes = false;
            // What is mounted out of the volumes first.
            for directory in ["volume-subpaths", "volumes"] {
                let path = self.kubelet.pod_dir(&self.uid).join(directory);
                if let Err(error) = tear_down(&path) {
                    tracing::warn!(%error, path = %path.display(), "volumes cannot be removed");
                }
            }
        }
        if !self.remove_cgroup().await {
            return;
        }
        self.kubelet.forget_admitted(&self.uid);
        let is_deleted = self.is_removed || self.pod.metadata.deletion_timestamp.is_some();
        if !is_deleted {
            return;
        }
        if !self.may_retry("cleanup") {
            return;
        }
        if let Err(error) = self.clean_up().await {
            tracing::warn!(%error, pod = %crate::kubelet::format_pod(&self.pod), "pod cannot be cleaned up");
            self.failed("cleanup", Duration::from_millis(500));
            return;
        }
        if self.is_removed || self.origin == Origin::Static {
            self.stage = Stage::Gone;
            return;
        }
        // The last status first: owners count how the pod ended.
        let is_reported = !self.is_writing && self.write_at.is_none() && self.is_published();
        if self.is_deleting || !is_reported || !self.may_retry("delete") {
            return;
        }
        self.is_deleting = true;
        let namespace = self.pod.metadata.namespace.clone().unwrap_or_default();
        let name = self.pod.metadata.name.clone().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.kubelet.client.clone(), &namespace);
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(self.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        self.tasks.spawn(async move { Done::Deleted(api.delete(&name, &params).await.map(|_| ())) });
    }

    /// Removes the pod's cgroup once; says whether it is gone.
    async fn remove_cgroup(&mut self) -> bool {
        let Some(cgroups) = self.runtime.as_ref().and_then(|runtime| self.cgroups(runtime)).cloned() else {
            return true;
        };
        if self.is_cgroup_removed {
            return true;
        }
        if !self.may_retry("cgroup") {
            return false;
        }
        let uid = self.uid.clone();
        let removed = match tokio::task::spawn_blocking(move || cgroups.remove(&uid)).await {
            Ok(removed) => removed.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match removed {
            Ok(()) => self.is_cgroup_removed = true,
            Err(error) => {
                tracing::debug!(%error, pod = %crate::kubelet::format_pod(&self.pod), "cgroup cannot be removed yet");
                self.failed("cgroup", Duration::from_millis(50));
            }
        }
        self.is_cgroup_removed
    }

    pub(super) fn deleted(&mut self, result: Result<(), kube::Error>) {
        match result {
            // The informer tells when it is gone; leaving before would bring the worker back with an old event.
            Ok(()) => {}
            // Somebody else deleted it, or made a new one of the same name: ours is gone.
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
            Err(error) => {
                self.is_deleting = false;
                tracing::warn!(%error, pod = %crate::kubelet::format_pod(&self.pod), "pod cannot be deleted");
                self.failed("delete", Duration::from_millis(500));
            }
        }
    }

    async fn clean_up(&mut self) -> Result<(), String> {
        if let Some(runtime) = self.runtime.clone() {
            for sandbox in std::mem::take(&mut self.observed.sandboxes) {
                if let Err(error) = runtime.service.remove_pod_sandbox(&sandbox.id).await {
                    self.observed.sandboxes.push(sandbox);
                    return Err(error.to_string());
                }
            }
        }
        let (pod_dir, log_dir) = (self.kubelet.pod_dir(&self.uid), self.kubelet.log_dir(&self.pod));
        tear_down(&pod_dir).map_err(|error| format!("{}: {error}", pod_dir.display()))?;
        tear_down(&log_dir).map_err(|error| format!("{}: {error}", log_dir.display()))
    }

    /// The worker ends: nobody finds it any more.
    pub(super) fn leave(&mut self) {
        self.kubelet.workers.remove(&self.uid);
        self.kubelet.probe_counts.forget(&self.uid);
        self.kubelet.forget_admitted(&self.uid);
    }

    /// A container that has ended: its termination message.
    pub(super) fn read_last_words(&self, seen: &mut ContainerObserved) {
        if !seen.message.is_empty() {
            return;
        }
        let file = termination_message_file(&self.kubelet, &self.uid, &seen.name, seen.restart_count);
        seen.message = read_bounded(&file, MAX_MESSAGE_BYTES).unwrap_or_default();
        let policy = self.container(&seen.name).and_then(|c| c.termination_message_policy.as_deref());
        if seen.message.is_empty() && seen.exit_code != 0 && policy == Some("FallbackToLogsOnError") {
            let file = self
                .kubelet
                .log_dir(&self.pod)
                .join(path_part(&seen.name))
                .join(format!("{}.log", seen.restart_count));
            seen.message = crate::logs::last_lines(&file, MAX_LOG_MESSAGE_LINES, MAX_LOG_MESSAGE_BYTES);
        }
    }
}

fn read_bounded(path: &std::path::Path, limit: usize) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    wherry_runtimes::files::open_file(path)?
        .take(u64::try_from(limit).unwrap_or(u64::MAX))
        .read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
