//! Stopping containers: `preStop`, the signal, the grace period.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::time::Instant;
use wherry_client::EventType;

use super::hooks::{self, grace_period};
use super::observed::is_sidecar;
use super::plan::KillReason;
use super::worker::{Done, Worker};
use crate::kubelet::Kubelet;
use crate::runtimes::NodeRuntime;

/// Why containers are stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopReason {
    /// The whole pod ends.
    PodEnds,
    /// A plan said so.
    Plan(KillReason),
}

impl From<KillReason> for StopReason {
    fn from(reason: KillReason) -> Self {
        Self::Plan(reason)
    }
}

/// The stopping of some of a pod's containers.
pub(super) struct Stop {
    kubelet: Arc<Kubelet>,
    runtime: Arc<NodeRuntime>,
    pod: Arc<Pod>,
    pod_ip: Option<String>,
    containers: Vec<(String, Container)>,
    sandbox_id: String,
    reason: StopReason,
    grace: Duration,
}

impl Stop {
    pub(super) fn new(
        worker: &Worker,
        runtime: &Arc<NodeRuntime>,
        containers: Vec<(String, Container)>,
        reason: StopReason,
    ) -> Self {
        let of_probe = match (reason, containers.first()) {
            (StopReason::Plan(KillReason::LivenessProbe), Some((_, c))) => c.liveness_probe.as_ref(),
            (StopReason::Plan(KillReason::StartupProbe), Some((_, c))) => c.startup_probe.as_ref(),
            _ => None,
        }
        .and_then(|probe| probe.termination_grace_period_seconds)
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map(Duration::from_secs);
        Self {
            kubelet: worker.kubelet.clone(),
            runtime: runtime.clone(),
            pod: worker.pod.clone(),
            pod_ip: worker.pod_ips().into_iter().next(),
            sandbox_id: worker.observed.sandboxes.first().map(|s| s.id.clone()).unwrap_or_default(),
            grace: of_probe.unwrap_or_else(|| grace_period(&worker.pod)),
            containers,
            reason,
        }
    }

    pub(super) fn grace(&self) -> Duration {
        self.grace
    }

    /// Stops the ordinary containers together, then the sidecars, the last one first.
    ///
    /// Cancellation: safe; the containers' state tells how far it came.
    pub(super) async fn run(self) -> Done {
        let deadline = Instant::now() + self.grace;
        let (sidecars, ordinary): (Vec<_>, Vec<_>) = self.containers.iter().partition(|(_, c)| is_sidecar(c));
        futures::future::join_all(
            ordinary.iter().map(|(id, container)| self.stop_one(id, container, deadline)),
        )
        .await;
        for (id, container) in sidecars.iter().rev() {
            self.stop_one(id, container, deadline).await;
        }
        let mut statuses = Vec::new();
        for (id, _) in &self.containers {
            if let Ok(status) = self.runtime.service.container_status(id).await {
                statuses.push((status, self.sandbox_id.clone()));
            }
        }
        Done::Stopped { ids: self.containers.into_iter().map(|(id, _)| id).collect(), statuses }
    }

    async fn stop_one(&self, id: &str, container: &Container, deadline: Instant) {
        let name = &container.name;
        if self.reason == StopReason::PodEnds {
            let message = format!("Stopping container {name}");
            self.kubelet.container_event(&self.pod, name, EventType::Normal, "Killing", message);
        }
        let hook = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
        if let Some(hook) = hook.filter(|_| !self.grace.is_zero()) {
            let target = hooks::Target {
                kubelet: &self.kubelet,
                runtime: &self.runtime,
                container,
                container_id: id,
                pod_ip: self.pod_ip.as_deref(),
            };
            match tokio::time::timeout_at(deadline, hooks::run(&target, hook)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => {
                    let text = "PreStopHook failed";
                    self.kubelet.container_event(
                        &self.pod,
                        name,
                        EventType::Warning,
                        "FailedPreStopHook",
                        text,
                    );
                }
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        // A hook that took all the time leaves the guest a moment to end by itself.
        let left =
            if hook.is_some() && !self.grace.is_zero() { left.max(Duration::from_secs(2)) } else { left };
        if let Err(error) = self.runtime.service.stop_container(id, left).await {
            tracing::warn!(%error, container = %id, pod = %crate::kubelet::format_pod(&self.pod), "container cannot be stopped");
            // Not to be tried again at once.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
