//! Starting containers: when, and what became of it.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::jiff::Timestamp;
use wherry_client::EventType;

use super::backoff::go_duration;
use super::ephemeral;
use super::launch::{Launch, Launched};
use super::observed::{ContainerPhase, container_hash};
use super::status::Waiting;
use super::worker::{Image, Worker};
use crate::kubelet::format_pod;
use crate::runtimes::NodeRuntime;

impl Worker {
    pub(super) async fn start_containers(&mut self, runtime: &Arc<NodeRuntime>, containers: Vec<Container>) {
        let now = self.kubelet.now();
        let mut launches = Vec::new();
        let attempt = self.observed.sandboxes.first().map_or(0, |s| s.attempt);
        // It was made once already.
        let Ok(config) = self.sandbox_config(runtime, attempt) else { return };
        let config = Arc::new(config);
        for container in containers {
            let name = container.name.clone();
            let current = self.observed.container(&name);
            if current.is_some_and(|c| c.phase == ContainerPhase::Running || self.stopping.contains(&c.id)) {
                continue;
            }
            if !self.is_past_backoff(&container, now) || !self.is_image_ready(&container, now) {
                continue;
            }
            if !self.may_retry(&name) {
                continue;
            }
            let Some(sandbox) = self.observed.ready_sandbox() else { return };
            let image_ref = match self.images.get(&name) {
                Some(Image::Here(reference, holder)) => Some((reference.clone(), holder.clone())),
                _ => None,
            };
            launches.push((
                name,
                Launch {
                    kubelet: self.kubelet.clone(),
                    runtime: runtime.clone(),
                    pod: self.pod.clone(),
                    sandbox_id: sandbox.id.clone(),
                    sandbox_config: config.clone(),
                    pod_ips: self.pod_ips(),
                    volumes: self.volumes.clone().unwrap_or_default(),
                    image_ref,
                    restart_count: self.next_restart_count(&container.name),
                    target_id: ephemeral::target_name(&self.pod, &container.name).map(|target| {
                        let running = self.observed.container(target);
                        running
                            .filter(|c| c.phase == ContainerPhase::Running)
                            .map(|c| c.id.clone())
                            .ok_or_else(|| format!("unable to find target container {target}"))
                    }),
                    references: self.references.clone(),
                    container,
                },
            ));
        }
        let outcomes = futures::future::join_all(
            launches
                .into_iter()
                .map(|(name, launch)| async move { (name, launch.container.clone(), launch.run().await) }),
        )
        .await;
        for (name, container, outcome) in outcomes {
            self.launched(&name, container, outcome);
        }
    }

    pub(super) fn launched(&mut self, name: &str, container: Container, outcome: Launched) {
        let now = self.kubelet.now();
        let key = backoff_key(&container);
        if !matches!(outcome, Launched::NeedsImage(_)) {
            self.images.remove(name);
        }
        match outcome {
            Launched::NeedsImage(holder) => self.pull(&holder, container),
            Launched::Waiting(waiting) => {
                // It may have been made by a call whose answer was lost.
                self.mailbox.post(|inbox| inbox.refresh |= waiting.reason == "CreateContainerError");
                self.waiting.insert(name.to_owned(), waiting);
                self.failed(name, Duration::from_secs(5));
            }
            Launched::Started(seen) => {
                let failed_at =
                    self.observed.last_exited(name).map(|c| c.finished_at.unwrap_or(c.created_at));
                if let Some(failed_at) = failed_at {
                    self.backoff.advance(&key, failed_at, now);
                }
                self.retry_at.remove(name);
                self.reported_backoff.remove(name);
                self.waiting.remove(name);
                self.observed.put_container(seen);
            }
            Launched::Failed(waiting, seen) => {
                let failed_at =
                    self.observed.last_exited(name).map_or(now, |c| c.finished_at.unwrap_or(c.created_at));
                self.backoff.advance(&key, failed_at, now);
                self.waiting.insert(name.to_owned(), waiting);
                if let Some(seen) = seen {
                    self.observed.put_container(seen);
                }
                self.failed(name, super::backoff::INITIAL_DELAY);
            }
        }
    }

    pub(super) fn is_past_backoff(&mut self, container: &Container, now: Timestamp) -> bool {
        let name = &container.name;
        let Some(last) = self.observed.container(name).filter(|c| c.phase == ContainerPhase::Exited) else {
            return true;
        };
        let failed_at = last.finished_at.unwrap_or(last.created_at);
        let Some(wait) = self.backoff.remaining(&backoff_key(container), failed_at, now) else { return true };
        let pod = format_pod(&self.pod);
        let message =
            format!("back-off {} restarting failed container={name} pod={pod}", go_duration(wait.delay));
        self.waiting.insert(name.clone(), Waiting { reason: "CrashLoopBackOff".to_owned(), message });
        if self.reported_backoff.insert(name.clone()) {
            let text = format!("Back-off restarting failed container {name} in pod {pod}");
            self.kubelet.container_event(&self.pod, name, EventType::Warning, "BackOff", text);
        }
        self.wake_in(wait.remaining);
        false
    }

    pub(super) fn next_restart_count(&self, name: &str) -> u32 {
        if let Some(seen) = self.observed.container(name) {
            return seen.restart_count + 1;
        }
        let status = self.pod.status.as_ref();
        let written = status
            .and_then(|s| s.container_statuses.as_ref())
            .into_iter()
            .chain(status.and_then(|s| s.init_container_statuses.as_ref()))
            .flatten()
            .find(|s| s.name == name && s.container_id.is_some());
        written.map_or(0, |s| u32::try_from(s.restart_count).unwrap_or(0) + 1)
    }
}

/// Back-off is per container and definition: a new image starts anew.
fn backoff_key(container: &Container) -> String {
    format!("{}/{}", container.name, container_hash(container))
}
