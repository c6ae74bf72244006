//! What a worker hears: mail, ends of its own tasks, the runtime's answers.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use wherry_client::EventType;
use wherry_runtimes::ContainerStatus;

use super::ephemeral::ephemeral_containers;
use super::observed::{ContainerPhase, Verdict};
use super::sources::References;
use super::worker::{Done, Image, Worker};
use crate::kubelet::format_pod;
use crate::probes::ProbeKind;
use crate::runtimes::{container_observed, sandbox_observed};

impl Worker {
    /// A task of the worker broke: what it was to do is tried again.
    pub(super) fn lost_task(&mut self, error: &tokio::task::JoinError) {
        tracing::error!(%error, pod = %format_pod(&self.pod), "a task of the pod's worker broke");
        self.is_writing = false;
        self.is_deleting = false;
        self.stopping.clear();
        self.stop_task = None;
        self.images.retain(|_, image| !matches!(image, Image::Pulling));
    }

    pub(super) fn finished(&mut self, done: Done) {
        match done {
            Done::Stopped { ids, statuses } => {
                for id in &ids {
                    self.stopping.remove(id);
                }
                self.stop_task.take_if(|(task, _)| task.is_finished());
                for (status, sandbox_id) in statuses {
                    self.see_container(&status, &sandbox_id);
                }
            }
            Done::Pulled { container, result } => self.pulled(container, result),
            Done::Written { sent, result } => self.written(sent, result),
            Done::Deleted(result) => self.deleted(result),
        }
    }

    pub(super) async fn read_mail(&mut self) {
        let inbox = self.mailbox.take();
        if let Some(pod) = inbox.pod {
            self.take_pod(pod);
        }
        if let Some(mirror) = inbox.mirror {
            self.mirror = Some(mirror);
        }
        self.is_removed |= inbox.is_removed;
        for sandbox in inbox.sandboxes.values() {
            self.see_sandbox(sandbox);
        }
        for (status, sandbox_id) in inbox.containers.values() {
            self.see_container(status, sandbox_id);
        }
        for ((id, kind), verdict) in inbox.verdicts {
            if let Some(container) = self.observed.containers.iter_mut().find(|c| c.id == id) {
                match kind {
                    ProbeKind::Startup => container.verdicts.startup = verdict,
                    ProbeKind::Liveness => container.verdicts.liveness = verdict,
                    ProbeKind::Readiness => container.verdicts.readiness = verdict,
                }
            }
        }
        if inbox.sources_changed {
            self.refresh_volumes = true;
            self.retry_at.remove("volumes");
            let waiting_for_config: Vec<String> = self
                .waiting
                .iter()
                .filter(|(_, w)| w.reason == "CreateContainerConfigError")
                .map(|(name, _)| name.clone())
                .collect();
            for name in waiting_for_config {
                self.retry_at.remove(&name);
            }
        }
        if let Some(message) = inbox.eviction.filter(|_| self.ended.is_none()) {
            self.refuse("Evicted", &message);
        }
        if inbox.refresh {
            // The runtime may be back.
            self.retry_at.remove("runtime");
            self.refresh().await;
        }
    }

    /// Takes a newer definition. An older one (an echo of a write that has been answered since) changes nothing.
    pub(super) fn take_pod(&mut self, pod: Arc<Pod>) {
        if version(&pod) < version(&self.pod) {
            return;
        }
        let metadata_changed = pod.metadata.labels != self.pod.metadata.labels
            || pod.metadata.annotations != self.pod.metadata.annotations;
        if pod.spec != self.pod.spec {
            self.references = References::of(&pod);
            self.tell_resized(&pod);
            self.ephemeral = ephemeral_containers(&pod);
        }
        self.refresh_volumes |= metadata_changed;
        self.pod = pod;
    }

    pub(super) fn see_sandbox(&mut self, status: &wherry_runtimes::PodSandboxStatus) {
        let seen = sandbox_observed(status);
        let was_stopped = self.observed.sandboxes.iter().any(|s| s.id == seen.id && !s.is_ready);
        if !was_stopped {
            self.observed.put_sandbox(seen);
        }
    }

    /// Limits that change while a container runs take effect at its next start: that is told.
    fn tell_resized(&self, pod: &Pod) {
        let resources = |pod: &Pod, name: &str| {
            let spec = pod.spec.as_ref()?;
            spec.containers.iter().find(|c| c.name == name)?.resources.clone()
        };
        for name in pod.spec.iter().flat_map(|spec| &spec.containers).map(|c| &c.name) {
            let is_running =
                self.observed.container(name).is_some_and(|c| c.phase == ContainerPhase::Running);
            if is_running && resources(pod, name) != resources(&self.pod, name) {
                let message = format!(
                    "Resize of container {name} is not done in place: it takes effect when the container starts again"
                );
                self.kubelet.container_event(pod, name, EventType::Warning, "ResizeInfeasible", message);
            }
        }
    }

    /// Takes a container's status; never one that is older than what is known.
    pub(super) fn see_container(&mut self, status: &ContainerStatus, sandbox_id: &str) {
        let mut seen = container_observed(status, sandbox_id);
        let rank = |phase| match phase {
            ContainerPhase::Unknown => 0,
            ContainerPhase::Created => 1,
            ContainerPhase::Running => 2,
            ContainerPhase::Exited => 3,
        };
        let known = self.observed.containers.iter().find(|c| c.id == seen.id);
        if known.is_some_and(|known| rank(known.phase) > rank(seen.phase)) {
            return;
        }
        let has_ended =
            known.is_none_or(|k| k.phase != ContainerPhase::Exited) && seen.phase == ContainerPhase::Exited;
        if let Some(known) = known.filter(|k| k.phase == ContainerPhase::Exited && seen.message.is_empty()) {
            seen.message.clone_from(&known.message);
        }
        if has_ended {
            self.read_last_words(&mut seen);
        }
        self.observed.put_container(seen);
    }

    /// Asks the runtime for everything that is known of this pod.
    pub(super) async fn refresh(&mut self) {
        let Some(runtime) = self.runtime.clone() else { return };
        for id in self.observed.sandboxes.iter().map(|s| s.id.clone()).collect::<Vec<_>>() {
            match runtime.service.pod_sandbox_status(&id).await {
                Ok(answer) => {
                    self.see_sandbox(&answer.status);
                    for status in &answer.containers_statuses {
                        self.see_container(status, &id);
                    }
                }
                Err(error) if error.is_not_found() => self.observed.sandboxes.retain(|s| s.id != id),
                Err(_) => {}
            }
        }
        let unended = |c: &&super::observed::ContainerObserved| c.phase != ContainerPhase::Exited;
        let ids: Vec<(String, String)> = self
            .observed
            .containers
            .iter()
            .filter(unended)
            .map(|c| (c.id.clone(), c.sandbox_id.clone()))
            .collect();
        for (id, sandbox_id) in ids {
            match runtime.service.container_status(&id).await {
                Ok(status) => self.see_container(&status, &sandbox_id),
                Err(error) if error.is_not_found() => {
                    if let Some(container) = self.observed.containers.iter_mut().find(|c| c.id == id) {
                        // It ended with its runtime; nobody knows how.
                        container.phase = ContainerPhase::Exited;
                        container.exit_code = 137;
                        container.reason = "ContainerStatusUnknown".to_owned();
                        container.message =
                            "The container could not be located when the pod was terminated".to_owned();
                        container.finished_at = Some(self.kubelet.now());
                    }
                }
                Err(_) => {}
            }
        }
    }

    /// Verdicts are not kept over a restart of the kubelet: what the API says stands until the probes speak.
    pub(super) fn restore_verdicts(&mut self) {
        let statuses = self.pod.status.clone().unwrap_or_default();
        let all = statuses
            .container_statuses
            .into_iter()
            .flatten()
            .chain(statuses.init_container_statuses.into_iter().flatten());
        for status in all {
            let id = status
                .container_id
                .as_deref()
                .and_then(|id| id.split_once("://"))
                .map(|(_, id)| id.to_owned());
            let Some(container) = self.observed.containers.iter_mut().find(|c| Some(&c.id) == id.as_ref())
            else {
                continue;
            };
            if status.started == Some(true) {
                container.verdicts.startup = Verdict::Success;
            }
            if status.ready {
                container.verdicts.readiness = Verdict::Success;
            }
        }
    }
}

pub(super) fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}
