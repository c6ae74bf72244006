//! Making a pod's sandbox, and clearing away what is left of earlier ones.

use std::sync::Arc;
use std::time::Duration;

use wherry_client::EventType;
use wherry_runtimes::{PodSandboxConfig, PodSandboxFilter};

use super::container_config::{SandboxInput, sandbox_config};
use super::dns_config::pod_dns;
use super::observed::ContainerPhase;
use super::worker::Worker;
use crate::cgroups::PodCgroups;
use crate::kubelet::format_pod;
use crate::mixed::without_reserved;
use crate::runtimes::{NodeRuntime, RuntimeKind, sandbox_observed};

impl Worker {
    pub(super) async fn clear_sandboxes(&mut self, runtime: &Arc<NodeRuntime>) {
        let event = "Pod sandbox changed, it will be killed and re-created.";
        self.kubelet.pod_event(&self.pod, EventType::Normal, "SandboxChanged", event);
        for container in &mut self.observed.containers {
            if container.phase == ContainerPhase::Running {
                let _ = runtime.service.stop_container(&container.id, Duration::ZERO).await;
            }
        }
        for sandbox in &mut self.observed.sandboxes {
            if runtime.service.stop_pod_sandbox(&sandbox.id).await.is_ok() {
                sandbox.is_ready = false;
            }
        }
        self.refresh().await;
    }

    pub(super) async fn create_sandbox(&mut self, runtime: &Arc<NodeRuntime>, attempt: u32) -> bool {
        let log_dir = self.kubelet.log_dir(&self.pod);
        if let Err(error) = std::fs::create_dir_all(&log_dir).and_then(|()| {
            crate::volumes::atomic_writer::chown(&log_dir, self.kubelet.config.runtime_owner_uid)
        }) {
            tracing::warn!(%error, path = %log_dir.display(), "log directory cannot be made");
        }
        let config = match self.prepare_sandbox(runtime, attempt).await {
            Ok(config) => config,
            Err((reason, message)) => {
                self.kubelet.pod_event(&self.pod, EventType::Warning, reason, message);
                self.failed("sandbox", Duration::from_secs(1));
                return false;
            }
        };
        let by_class = self.pod.spec.as_ref().and_then(|s| s.runtime_class_name.as_deref()).is_some();
        let is_default = Arc::ptr_eq(runtime, self.kubelet.runtimes.default_runtime());
        let is_own_default = is_default || self.kubelet.runtimes.is_mixed(runtime);
        let handler = if by_class || !is_own_default { runtime.handler.clone() } else { String::new() };
        let service = runtime.service.clone();
        let made = async move {
            let id = service.run_pod_sandbox(&config, &handler).await?;
            let status = service.pod_sandbox_status(&id).await?;
            Ok::<_, wherry_runtimes::Error>(status.status)
        };
        let kubelet = self.kubelet.clone();
        let mount = self.mount_volumes();
        let (made, mounted) = futures::join!(made, mount);
        self.note_volumes(mounted);
        match made {
            Ok(status) => {
                self.retry_at.remove("sandbox");
                self.observed.put_sandbox(sandbox_observed(&status));
                true
            }
            Err(error) => {
                let message = format!("Failed to create pod sandbox: {error}");
                kubelet.pod_event(&self.pod, EventType::Warning, "FailedCreatePodSandBox", message);
                self.find_strays(runtime, &error).await;
                self.failed("sandbox", Duration::from_secs(1));
                false
            }
        }
    }

    /// The sandbox's configuration with the cgroup that it names, and the events that tell of it; else reason and
    /// message of one.
    async fn prepare_sandbox(
        &self,
        runtime: &NodeRuntime,
        attempt: u32,
    ) -> Result<PodSandboxConfig, (&'static str, String)> {
        let config = self
            .sandbox_config(runtime, attempt)
            .map_err(|error| ("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {error}")))?;
        if let Some(cgroups) = self.cgroups(runtime) {
            let (cgroups, pod) = (cgroups.clone(), self.pod.clone());
            let made = match tokio::task::spawn_blocking(move || cgroups.ensure(&pod)).await {
                Ok(made) => made.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            made.map_err(|error| {
                let message = format!(
                    "unable to ensure pod container exists: failed to create container for {}: {error}",
                    config.linux.as_ref().map(|l| l.cgroup_parent.as_str()).unwrap_or_default()
                );
                ("FailedCreatePodContainer", message)
            })?;
        }
        let spec = self.pod.spec.clone().unwrap_or_default();
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
        let dns = pod_dns(&spec, namespace, &format_pod(&self.pod), &self.kubelet.node_facts);
        for (reason, message) in dns.warnings {
            self.kubelet.pod_event(&self.pod, EventType::Warning, reason, message);
        }
        Ok(config)
    }

    /// The cgroups that the pod has one of, when its runtime has any.
    pub(super) fn cgroups(&self, runtime: &NodeRuntime) -> Option<&Arc<PodCgroups>> {
        self.kubelet.cgroups.as_ref().filter(|_| runtime.kind() == RuntimeKind::Linux)
    }

    /// The sandbox's configuration.
    ///
    /// # Errors
    /// A name that is too long; for people.
    pub(super) fn sandbox_config(
        &self,
        runtime: &NodeRuntime,
        attempt: u32,
    ) -> Result<PodSandboxConfig, String> {
        sandbox_config(SandboxInput {
            pod: &self.pod,
            attempt,
            log_directory: &self.kubelet.log_dir(&self.pod),
            cgroup_parent: &self
                .cgroups(runtime)
                .map(|cgroups| cgroups.parent(&self.pod))
                .unwrap_or_default(),
            node: &self.kubelet.node_facts,
        })
        .map(without_reserved)
    }

    /// A sandbox that exists although nobody here knows it was made by a call whose answer was lost: it is the pod's.
    pub(super) async fn find_strays(&mut self, runtime: &Arc<NodeRuntime>, error: &wherry_runtimes::Error) {
        if matches!(error, wherry_runtimes::Error::AlreadyExists(_)) {
            self.take_strays(runtime).await;
        }
    }

    /// Takes whatever the runtime has of this pod.
    pub(super) async fn take_strays(&mut self, runtime: &Arc<NodeRuntime>) {
        let filter = PodSandboxFilter {
            label_selector: [(super::labels::POD_UID.to_owned(), self.uid.clone())].into(),
            ..PodSandboxFilter::default()
        };
        for sandbox in runtime.service.list_pod_sandbox(&filter).await.unwrap_or_default() {
            if let Ok(answer) = runtime.service.pod_sandbox_status(&sandbox.id).await {
                self.see_sandbox(&answer.status);
                for status in &answer.containers_statuses {
                    self.see_container(status, &sandbox.id);
                }
            }
        }
    }
}
