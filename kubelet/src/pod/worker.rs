//! The worker of one pod: reads the news, decides with [`compute_pod_actions`], does it, reports.
//!
//! Level-triggered: every step looks at the whole state. What takes long (pulls, stopping, writing the status) runs in
//! the worker's own tasks, which end with it; guests do not.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;
use wherry_client::EventType;
use wherry_runtimes::{ContainerStatus, PodSandboxConfig, PodSandboxFilter};

use super::backoff::{Backoff, elapsed, go_duration};
use super::container_config::sandbox_config;
use super::launch::{Launch, Launched};
use super::observed::{ContainerPhase, PodObserved, Verdict, container_hash};
use super::plan::compute_pod_actions;
use super::sources::References;
use super::status::{NodeEnding, Waiting};
use super::stop::{Stop, StopReason};
use super::workers::Mailbox;
use crate::images::puller::{self, ImageError};
use crate::kubelet::{Kubelet, format_pod};
use crate::probes::{ProbeKind, ProbeTarget, Probes};
use crate::runtimes::{NodeRuntime, container_observed, sandbox_observed};
use crate::volumes::mount::VolumePaths;
use crate::volumes::tokens::PodTokens;

/// Where the definition of a pod comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The API server.
    Api,
    /// A manifest on this node.
    Static,
}

/// How far the pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is to run.
    Sync,
    /// Its containers are being stopped.
    Terminating,
    /// Nothing runs any more.
    Terminated,
    /// Nothing is left to do.
    Gone,
}

/// Ends of the worker's own tasks.
pub(super) enum Done {
    Stopped { ids: Vec<String>, statuses: Vec<(ContainerStatus, String)> },
    Pulled { container: String, result: Result<String, ImageError> },
    Written { sent: Value, result: Result<Box<Pod>, kube::Error> },
    Deleted(Result<(), kube::Error>),
}

/// An image that a container waits for.
pub(super) enum Image {
    Pulling,
    Here(String),
    Failed { error: ImageError, at: Timestamp, is_reported: bool },
}

/// One pod's worker.
pub(crate) struct Worker {
    pub(super) kubelet: Arc<Kubelet>,
    pub(super) uid: String,
    pub(super) pod: Arc<Pod>,
    pub(super) mirror: Option<Arc<Pod>>,
    pub(super) origin: Origin,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) observed: PodObserved,
    pub(super) runtime: Option<Arc<NodeRuntime>>,
    pub(super) references: References,
    pub(super) stage: Stage,
    pub(super) is_removed: bool,
    pub(super) ended: Option<NodeEnding>,
    pub(super) waiting: BTreeMap<String, Waiting>,
    pub(super) start_time: Timestamp,
    pub(super) backoff: Backoff,
    pub(super) image_backoff: Backoff,
    pub(super) images: HashMap<String, Image>,
    pub(super) retry_at: HashMap<String, (Instant, u32)>,
    pub(super) reported_backoff: HashSet<String>,
    pub(super) volumes: Option<VolumePaths>,
    pub(super) tokens: Arc<PodTokens>,
    pub(super) refresh_volumes: bool,
    pub(super) stopping: HashSet<String>,
    pub(super) stop_task: Option<(tokio::task::AbortHandle, Duration)>,
    pub(super) probes: Probes,
    pub(super) tasks: JoinSet<Done>,
    pub(super) last_sent: Option<Value>,
    pub(super) is_writing: bool,
    pub(super) write_failures: u32,
    pub(super) write_at: Option<Instant>,
    pub(super) is_deleting: bool,
    pub(super) wake_at: Option<Instant>,
}

impl Worker {
    pub(crate) fn new(kubelet: Arc<Kubelet>, pod: Arc<Pod>, origin: Origin, mailbox: Arc<Mailbox>) -> Self {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let (runtime, observed) = match kubelet.take_adopted(&uid) {
            Some(adopted) => (Some(adopted.runtime), adopted.observed),
            None => (None, PodObserved::default()),
        };
        let start_time = kubelet.now();
        Self {
            references: References::of(&pod),
            kubelet,
            uid,
            pod,
            mirror: None,
            origin,
            mailbox,
            observed,
            runtime,
            stage: Stage::Sync,
            is_removed: false,
            ended: None,
            waiting: BTreeMap::new(),
            start_time,
            backoff: Backoff::default(),
            image_backoff: Backoff::default(),
            images: HashMap::new(),
            retry_at: HashMap::new(),
            reported_backoff: HashSet::new(),
            volumes: None,
            tokens: Arc::default(),
            refresh_volumes: false,
            stopping: HashSet::new(),
            stop_task: None,
            probes: Probes::default(),
            tasks: JoinSet::new(),
            last_sent: None,
            is_writing: false,
            write_failures: 0,
            write_at: None,
            is_deleting: false,
            wake_at: None,
        }
    }

    /// Whether the pod ran here before this kubelet started.
    pub(crate) fn has_history(&self) -> bool {
        !self.observed.sandboxes.is_empty()
    }

    /// The pod was refused by the node's admission.
    pub(crate) fn refuse(&mut self, reason: &str, message: &str) {
        self.kubelet.pod_event(&self.pod, EventType::Warning, reason, message);
        self.ended = Some(NodeEnding { reason: reason.to_owned(), message: message.to_owned() });
    }

    /// Works until the pod is gone or the kubelet stops. Guests keep running in the latter case.
    pub(crate) async fn run(mut self) {
        let shutdown = self.kubelet.shutdown.clone();
        self.restore_verdicts();
        if self.has_history() {
            // Something may have ended between the list and now.
            self.refresh().await;
        }
        loop {
            self.wake_at = None;
            if shutdown.run_until_cancelled(self.step()).await.is_none() {
                return;
            }
            if self.stage == Stage::Gone {
                break;
            }
            self.update_probes();
            self.publish();
            let wake_at = self.wake_at;
            let mailbox = self.mailbox.clone();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = mailbox.wait() => self.read_mail().await,
                Some(done) = self.tasks.join_next() => {
                    match done {
                        Ok(done) => self.finished(done),
                        Err(error) if error.is_panic() => self.lost_task(&error),
                        Err(_) => {}
                    }
                }
                () = async {
                    match wake_at {
                        Some(at) => tokio::time::sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                } => {}
            }
        }
        self.leave();
    }

    pub(super) fn wake_in(&mut self, delay: Duration) {
        let at = Instant::now() + delay;
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }

    async fn step(&mut self) {
        if self.stage == Stage::Sync {
            self.check_deadline();
            let phase = self.pod.status.as_ref().and_then(|s| s.phase.as_deref());
            let is_over = matches!(phase, Some("Failed" | "Succeeded")) || self.ended.is_some();
            if is_over || self.is_removed || self.pod.metadata.deletion_timestamp.is_some() {
                self.stage = Stage::Terminating;
            } else {
                self.sync().await;
            }
        }
        if self.stage == Stage::Terminating {
            self.terminate().await;
        }
        if self.stage == Stage::Terminated {
            self.terminated().await;
        }
    }

    fn check_deadline(&mut self) {
        let Some(deadline) = self.pod.spec.as_ref().and_then(|s| s.active_deadline_seconds) else { return };
        let deadline = Duration::from_secs(u64::try_from(deadline).unwrap_or(0));
        let started =
            self.pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map_or(self.start_time, |t| t.0);
        let passed = elapsed(started, self.kubelet.now());
        if passed < deadline {
            self.wake_in(deadline - passed);
        } else {
            let message = "Pod was active on the node longer than the specified deadline";
            self.kubelet.pod_event(&self.pod, EventType::Normal, "DeadlineExceeded", message);
            self.ended =
                Some(NodeEnding { reason: "DeadlineExceeded".to_owned(), message: message.to_owned() });
        }
    }

    /// One pass over the plan.
    async fn sync(&mut self) {
        let Some(runtime) = self.choose_runtime().await else { return };
        let actions = compute_pod_actions(&self.pod, &self.observed);
        if actions.kill_pod && !actions.create_sandbox && !self.observed.containers.is_empty() {
            self.stage = Stage::Terminating;
            return;
        }
        for (id, kill) in &actions.containers_to_kill {
            if self.stopping.contains(id) {
                continue;
            }
            let Some(container) = self.container(&kill.name).cloned() else { continue };
            self.kubelet.container_event(
                &self.pod,
                &kill.name,
                EventType::Normal,
                "Killing",
                kill.message.clone(),
            );
            self.stopping.insert(id.clone());
            let stop =
                Stop::new(self, &runtime, vec![(id.clone(), container)], StopReason::from(kill.reason));
            self.tasks.spawn(stop.run());
        }
        if actions.create_sandbox {
            if !self.may_retry("sandbox") {
                return;
            }
            if actions.kill_pod && !self.observed.sandboxes.is_empty() {
                self.clear_sandboxes(&runtime).await;
            }
            if !self.create_sandbox(&runtime, actions.attempt).await {
                return;
            }
        }
        if self.observed.ready_sandbox().is_none() {
            return;
        }
        if !self.set_up_volumes().await {
            return;
        }
        let spec = self.pod.spec.clone().unwrap_or_default();
        let init = spec.init_containers.unwrap_or_default();
        let mut to_start: Vec<Container> =
            actions.init_containers_to_start.iter().filter_map(|index| init.get(*index).cloned()).collect();
        to_start.extend(
            actions.containers_to_start.iter().filter_map(|index| spec.containers.get(*index).cloned()),
        );
        self.start_containers(&runtime, to_start).await;
    }

    /// The runtime of the pod; chosen once, by RuntimeClass or else by image.
    async fn choose_runtime(&mut self) -> Option<Arc<NodeRuntime>> {
        if let Some(runtime) = &self.runtime {
            return Some(runtime.clone());
        }
        let spec = self.pod.spec.clone().unwrap_or_default();
        let found = match spec.runtime_class_name.filter(|name| !name.is_empty()) {
            None => {
                let image = spec.containers.first().and_then(|c| c.image.clone()).unwrap_or_default();
                Ok(self.kubelet.runtimes.by_image(&image).await)
            }
            Some(name) => match self.kubelet.runtime_classes.store().get("", &name) {
                Some(class) => self
                    .kubelet
                    .runtimes
                    .by_handler(&class.handler)
                    .ok_or_else(|| format!("no runtime for {:?} is configured", class.handler)),
                None => {
                    Err(format!("failed to get sandbox runtime: runtimeclass.node.k8s.io {name:?} not found"))
                }
            },
        };
        match found {
            Ok(runtime) => {
                self.runtime = Some(runtime.clone());
                Some(runtime)
            }
            Err(message) => {
                if self.may_retry("runtime") {
                    let text = format!("Failed to create pod sandbox: {message}");
                    self.kubelet.pod_event(&self.pod, EventType::Warning, "FailedCreatePodSandBox", text);
                    self.failed("runtime", Duration::from_secs(1));
                }
                None
            }
        }
    }

    /// Whether the time to try `what` again has come; otherwise the worker wakes then.
    pub(super) fn may_retry(&mut self, what: &str) -> bool {
        match self.retry_at.get(what).map(|(at, _)| *at) {
            Some(at) if at > Instant::now() => {
                self.wake_in(at - Instant::now());
                false
            }
            _ => true,
        }
    }

    /// Notes a failure of `what`: tried again after `first`, twice as long each time, at most 2 min.
    pub(super) fn failed(&mut self, what: &str, first: Duration) {
        let failures = self.retry_at.get(what).map_or(0, |(_, failures)| *failures);
        let delay = (first * 2_u32.saturating_pow(failures.min(16))).min(Duration::from_secs(120));
        self.retry_at.insert(what.to_owned(), (Instant::now() + delay, failures + 1));
        self.wake_in(delay);
    }

    async fn clear_sandboxes(&mut self, runtime: &Arc<NodeRuntime>) {
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

    async fn create_sandbox(&mut self, runtime: &Arc<NodeRuntime>, attempt: u32) -> bool {
        let log_dir = self.kubelet.log_dir(&self.pod);
        if let Err(error) = std::fs::create_dir_all(&log_dir).and_then(|()| {
            crate::volumes::atomic_writer::chown(&log_dir, self.kubelet.config.runtime_owner_uid)
        }) {
            tracing::warn!(%error, path = %log_dir.display(), "log directory cannot be made");
        }
        let config = sandbox_config(&self.pod, attempt, &log_dir, &self.kubelet.node_facts);
        let by_class = self.pod.spec.as_ref().and_then(|s| s.runtime_class_name.as_deref()).is_some();
        let is_default = Arc::ptr_eq(runtime, self.kubelet.runtimes.default_runtime());
        let handler = if by_class || !is_default { runtime.handler.clone() } else { String::new() };
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

    /// The sandbox's configuration, as CreateContainer wants it again.
    fn sandbox_config(&self) -> PodSandboxConfig {
        let attempt = self.observed.sandboxes.first().map_or(0, |s| s.attempt);
        sandbox_config(&self.pod, attempt, &self.kubelet.log_dir(&self.pod), &self.kubelet.node_facts)
    }

    async fn start_containers(&mut self, runtime: &Arc<NodeRuntime>, containers: Vec<Container>) {
        let now = self.kubelet.now();
        let mut launches = Vec::new();
        let config = Arc::new(self.sandbox_config());
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
                Some(Image::Here(reference)) => Some(reference.clone()),
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
            self.launched(runtime, &name, container, outcome);
        }
    }

    fn launched(&mut self, runtime: &Arc<NodeRuntime>, name: &str, container: Container, outcome: Launched) {
        let now = self.kubelet.now();
        let key = backoff_key(&container);
        if !matches!(outcome, Launched::NeedsImage) {
            self.images.remove(name);
        }
        match outcome {
            Launched::NeedsImage => self.pull(runtime, container),
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

    fn is_past_backoff(&mut self, container: &Container, now: Timestamp) -> bool {
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

    fn is_image_ready(&mut self, container: &Container, now: Timestamp) -> bool {
        let name = &container.name;
        let (error, at, is_reported) = match self.images.get(name) {
            None | Some(Image::Here(_)) => return true,
            Some(Image::Pulling) => return false,
            Some(Image::Failed { error, at, is_reported }) => (error.clone(), *at, *is_reported),
        };
        let image = container.image.clone().unwrap_or_default();
        match self.image_backoff.remaining(&image, at, now) {
            None => {
                self.image_backoff.advance(&image, at, now);
                // Looked for again first: it may have been loaded on this node meanwhile.
                self.images.remove(name);
                return true;
            }
            Some(wait) => {
                // ErrImagePull is shown for a moment, then the back-off.
                let shown = elapsed(at, now);
                let moment = Duration::from_secs(1);
                if shown >= moment && !is_reported {
                    let message = format!("Back-off pulling image {image:?}");
                    self.kubelet.container_event(
                        &self.pod,
                        name,
                        EventType::Normal,
                        "BackOff",
                        message.clone(),
                    );
                    let text = "Error: ImagePullBackOff";
                    self.kubelet.container_event(&self.pod, name, EventType::Warning, "Failed", text);
                    let message = format!("{message}: ErrImagePull: {}", error.message);
                    self.waiting
                        .insert(name.clone(), Waiting { reason: "ImagePullBackOff".to_owned(), message });
                    self.images.insert(name.clone(), Image::Failed { error, at, is_reported: true });
                }
                let next = if shown < moment { moment - shown } else { wait.remaining };
                self.wake_in(next.min(wait.remaining));
            }
        }
        false
    }

    fn pull(&mut self, runtime: &Arc<NodeRuntime>, container: Container) {
        self.images.insert(container.name.clone(), Image::Pulling);
        let (kubelet, runtime, pod) = (self.kubelet.clone(), runtime.clone(), self.pod.clone());
        let (uid, references) = (self.uid.clone(), self.references.clone());
        self.tasks.spawn(async move {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let names: Vec<String> = pod
                .spec
                .iter()
                .flat_map(|s| s.image_pull_secrets.iter().flatten())
                .map(|secret| secret.name.clone())
                .collect();
            let secrets = if names.is_empty() {
                Vec::new()
            } else {
                let sources = kubelet.objects.gather(&uid, namespace, &references).await.unwrap_or_default();
                names.iter().filter_map(|name| sources.secrets.get(name).cloned()).collect()
            };
            let result = puller::pull(&kubelet, &runtime, &pod, &container, &secrets).await;
            Done::Pulled { container: container.name, result }
        });
    }

    /// A task of the worker broke: what it was to do is tried again.
    fn lost_task(&mut self, error: &tokio::task::JoinError) {
        tracing::error!(%error, pod = %format_pod(&self.pod), "a task of the pod's worker broke");
        self.is_writing = false;
        self.is_deleting = false;
        self.stopping.clear();
        self.stop_task = None;
        self.images.retain(|_, image| !matches!(image, Image::Pulling));
    }

    fn finished(&mut self, done: Done) {
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
            Done::Pulled { container, result } => {
                let now = self.kubelet.now();
                let image = self.container(&container).and_then(|c| c.image.clone()).unwrap_or_default();
                match result {
                    Ok(reference) => {
                        self.image_backoff.forget(&image);
                        self.waiting.remove(&container);
                        self.images.insert(container, Image::Here(reference));
                    }
                    Err(error) => {
                        let text = format!("Error: {}", error.reason);
                        self.kubelet.container_event(
                            &self.pod,
                            &container,
                            EventType::Warning,
                            "Failed",
                            text,
                        );
                        if self.image_backoff.remaining(&image, now, now).is_none() {
                            self.image_backoff.advance(&image, now, now);
                        }
                        let waiting =
                            Waiting { reason: error.reason.to_owned(), message: error.message.clone() };
                        self.waiting.insert(container.clone(), waiting);
                        self.images.insert(container, Image::Failed { error, at: now, is_reported: false });
                    }
                }
            }
            Done::Written { sent, result } => self.written(sent, result),
            Done::Deleted(result) => self.deleted(result),
        }
    }

    async fn read_mail(&mut self) {
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
        if inbox.refresh {
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
        }
        self.refresh_volumes |= metadata_changed;
        self.pod = pod;
    }

    fn see_sandbox(&mut self, status: &wherry_runtimes::PodSandboxStatus) {
        let seen = sandbox_observed(status);
        let was_stopped = self.observed.sandboxes.iter().any(|s| s.id == seen.id && !s.is_ready);
        if !was_stopped {
            self.observed.put_sandbox(seen);
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
    async fn refresh(&mut self) {
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

    /// A sandbox that exists although nobody here knows it was made by a call whose answer was lost: it is the pod's.
    async fn find_strays(&mut self, runtime: &Arc<NodeRuntime>, error: &wherry_runtimes::Error) {
        if !matches!(error, wherry_runtimes::Error::AlreadyExists(_)) {
            return;
        }
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

    /// Verdicts are not kept over a restart of the kubelet: what the API says stands until the probes speak.
    fn restore_verdicts(&mut self) {
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

    fn update_probes(&mut self) {
        let running: HashSet<String> = self
            .observed
            .containers
            .iter()
            .filter(|c| c.phase == ContainerPhase::Running)
            .map(|c| c.id.clone())
            .collect();
        let (stage, stopping) = (self.stage, &self.stopping);
        self.probes.retain(|id, kind| {
            running.contains(id)
                && (kind == ProbeKind::Readiness || (stage == Stage::Sync && !stopping.contains(id)))
        });
        if self.stage != Stage::Sync {
            return;
        }
        let Some(runtime) = self.runtime.clone() else { return };
        let now = self.kubelet.now();
        let seen: Vec<_> =
            self.observed.containers.iter().filter(|c| c.phase == ContainerPhase::Running).cloned().collect();
        for seen in seen {
            let Some(container) = self.container(&seen.name).cloned() else { continue };
            let is_started = container.startup_probe.is_none() || seen.verdicts.startup == Verdict::Success;
            let startup_runs = !is_started && seen.verdicts.startup == Verdict::Pending;
            let wanted = [
                (ProbeKind::Startup, container.startup_probe.clone().filter(|_| startup_runs)),
                (ProbeKind::Liveness, container.liveness_probe.clone().filter(|_| is_started)),
                (ProbeKind::Readiness, container.readiness_probe.clone().filter(|_| is_started)),
            ];
            for (kind, probe) in wanted {
                let Some(probe) = probe.filter(|_| !self.probes.is_running(&seen.id, kind)) else { continue };
                let target = ProbeTarget {
                    kubelet: self.kubelet.clone(),
                    runtime: runtime.clone(),
                    pod: self.pod.clone(),
                    container: container.clone(),
                    container_id: seen.id.clone(),
                    pod_ip: self.pod_ips().into_iter().next().unwrap_or_default(),
                    mailbox: self.mailbox.clone(),
                    age: elapsed(seen.started_at.unwrap_or(now), now),
                };
                self.probes.start(target, kind, probe);
            }
        }
    }

    pub(super) fn container(&self, name: &str) -> Option<&Container> {
        let spec = self.pod.spec.as_ref()?;
        spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|c| c.name == name)
    }

    pub(super) fn pod_ips(&self) -> Vec<String> {
        if self.pod.spec.as_ref().and_then(|s| s.host_network) == Some(true) {
            return vec![self.kubelet.host_ip.clone()];
        }
        self.observed.ready_sandbox().map(|s| s.ips.clone()).unwrap_or_default()
    }

    fn next_restart_count(&self, name: &str) -> u32 {
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

pub(super) fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}
