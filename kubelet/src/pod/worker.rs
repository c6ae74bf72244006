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
use wherry_runtimes::ContainerStatus;

use super::backoff::{Backoff, elapsed};
use super::ephemeral::ephemeral_containers;
use super::observed::PodObserved;
use super::plan::compute_pod_actions;
use super::sources::References;
use super::status::{NodeEnding, Waiting};
use super::stop::{Stop, StopReason};
use super::unsupported::{self, Abilities, findings, wants_strict_groups};
use super::workers::Mailbox;
use crate::images::puller::ImageError;
use crate::kubelet::Kubelet;
use crate::probes::Probes;
use crate::runtimes::NodeRuntime;
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
    Pulled { container: String, result: Result<(String, Arc<NodeRuntime>), ImageError> },
    Written { sent: Value, result: Result<Box<Pod>, kube::Error> },
    Deleted(Result<(), kube::Error>),
}

/// An image that a container waits for.
pub(super) enum Image {
    Pulling,
    Here(String, Arc<NodeRuntime>),
    Failed { error: ImageError, at: Timestamp, is_reported: bool },
}

/// One pod's worker.
pub(crate) struct Worker {
    pub(super) kubelet: Arc<Kubelet>,
    pub(super) uid: String,
    pub(super) pod: Arc<Pod>,
    /// The pod's ephemeral containers, as containers.
    pub(super) ephemeral: Vec<Container>,
    /// The pod's fields have been looked through.
    pub(super) is_examined: bool,
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
    pub(super) is_cgroup_removed: bool,
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
            ephemeral: ephemeral_containers(&pod),
            is_examined: !observed.sandboxes.is_empty(),
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
            is_cgroup_removed: false,
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
        self.examine(&runtime).await;
        if self.ended.is_some() {
            self.stage = Stage::Terminating;
            return;
        }
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
        to_start.extend(
            actions
                .ephemeral_containers_to_start
                .iter()
                .filter_map(|index| self.ephemeral.get(*index).cloned()),
        );
        self.start_containers(&runtime, to_start).await;
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

    /// Once for each pod: what its runtime or this node cannot give is refused or told.
    async fn examine(&mut self, runtime: &NodeRuntime) {
        if std::mem::replace(&mut self.is_examined, true) {
            return;
        }
        let has_strict_groups = match self.pod.spec.as_ref().is_some_and(wants_strict_groups) {
            true => {
                let status = runtime.service.status().await.ok();
                status.and_then(|s| s.features).is_some_and(|features| features.supplemental_groups_policy)
            }
            false => false,
        };
        let abilities = Abilities { kind: runtime.kind(), has_strict_groups };
        let found = findings(&self.pod, abilities, self.kubelet.kernel);
        if let Some(refusal) = found.refusal {
            self.refuse(&refusal.reason, &refusal.message);
        } else if !found.without_effect.is_empty() {
            let message = format!("Fields without effect here: {}", found.without_effect.join(", "));
            self.kubelet.pod_event(&self.pod, EventType::Warning, unsupported::REASON, message);
        }
    }

    /// A container of the pod: ordinary, init or ephemeral.
    pub(super) fn container(&self, name: &str) -> Option<&Container> {
        let spec = self.pod.spec.as_ref()?;
        let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        all.chain(&self.ephemeral).find(|c| c.name == name)
    }

    pub(super) fn pod_ips(&self) -> Vec<String> {
        if self.pod.spec.as_ref().and_then(|s| s.host_network) == Some(true) {
            return vec![self.kubelet.host_ip.clone()];
        }
        self.observed.ready_sandbox().map(|s| s.ips.clone()).unwrap_or_default()
    }
}
