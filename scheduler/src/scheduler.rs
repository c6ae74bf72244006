//! The loop: pods come in from informers, decisions go out as bindings.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Client;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use wherry_client::{Change, EventRecorder, Lifecycle, ObjectKey};

use crate::Config;
use crate::bind::{self, Failure};
use crate::cache::Cache;
use crate::cycle::{Decision, cycle};
use crate::framework::{ClusterEvent, Profile};
use crate::pod_info::{PodInfo, is_terminal};
use crate::queue::{Queue, Rejection};
use crate::report;
use crate::volumes::{VolumePlan, Volumes};

/// How long bindings that are under way may take when the scheduler is to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// How long a pod that has a node waits for its volumes. Source: kube-scheduler's `bindTimeoutSeconds`.
const VOLUMES_TIMEOUT: Duration = Duration::from_secs(600);

/// A profile and who speaks for it.
pub(crate) struct Speaker {
    pub(crate) profile: Profile,
    pub(crate) recorder: EventRecorder,
}

/// Shared by the informers' handlers, the loop and the bindings.
pub(crate) struct Scheduler {
    client: Client,
    speakers: Vec<Speaker>,
    state: Mutex<State>,
    wake: Notify,
    max_in_flight: usize,
}

struct State {
    cache: Cache,
    queue: Queue,
    /// Where the next cycle begins to look at nodes.
    start: usize,
    /// Pods that have a node and wait for their volumes.
    waiting: HashMap<ObjectKey, WaitingForVolumes>,
}

/// A decision that is carried out when the pod's volumes are there.
struct WaitingForVolumes {
    pod: Arc<PodInfo>,
    node: String,
    until: Instant,
    /// Whether claims and volumes were told already.
    is_told: bool,
}

/// What the loop does next.
enum Step {
    Bind { pod: Arc<PodInfo>, node: String },
    TellVolumes { pod: Arc<PodInfo>, plan: VolumePlan, node: String },
    Fail { pod: Arc<PodInfo>, failure: Failure },
    Report { pod: Arc<PodInfo>, message: String },
    Wait { until: Option<Instant> },
}

impl Scheduler {
    pub(crate) fn new(client: Client, config: &Config) -> Arc<Self> {
        let speaker = |name: &String| Speaker {
            profile: Profile::default_plugins(name.clone()),
            recorder: EventRecorder::new(client.clone(), name.clone(), ""),
        };
        let speakers = config.scheduler_names.iter().map(speaker).collect();
        let state = State {
            cache: Cache::default(),
            queue: Queue::new(config.delays),
            start: 0,
            waiting: HashMap::new(),
        };
        Arc::new(Self {
            client,
            speakers,
            state: Mutex::new(state),
            wake: Notify::new(),
            max_in_flight: config.max_in_flight.max(1),
        })
    }

    /// Decide one pod after another until shutdown, then wait for the bindings that are under way.
    pub(crate) async fn run(self: Arc<Self>, lifecycle: &Lifecycle) {
        let mut in_flight = JoinSet::new();
        while !lifecycle.shutdown.is_cancelled() {
            while in_flight.try_join_next().is_some() {}
            if in_flight.len() >= self.max_in_flight {
                in_flight.join_next().await;
                continue;
            }
            match self.step(Instant::now()) {
                Step::Bind { pod, node } => {
                    in_flight.spawn(Arc::clone(&self).bind(pod, node));
                }
                Step::TellVolumes { pod, plan, node } => {
                    in_flight.spawn(Arc::clone(&self).tell_volumes(pod, plan, node));
                }
                Step::Fail { pod, failure } => {
                    in_flight.spawn(Arc::clone(&self).failed(pod, failure));
                }
                Step::Report { pod, message } => {
                    in_flight.spawn(Arc::clone(&self).report(pod, Failure::Unschedulable { message }));
                }
                Step::Wait { until } => {
                    tokio::select! {
                        () = lifecycle.shutdown.cancelled() => {}
                        () = self.wake.notified() => {}
                        () = sleep_until(until) => {}
                    }
                }
            }
            // A cycle over many nodes takes as long as a request: others come in between.
            tokio::task::yield_now().await;
        }
        let drained = async { while in_flight.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!("bindings under way were given up");
        }
    }

    /// Decide the next pod. What was decided counts at once.
    fn step(&self, now: Instant) -> Step {
        let mut state = self.lock();
        if let Some(step) = state.next_waiting(now) {
            return step;
        }
        let due = state.waiting.values().map(|waiting| waiting.until).min();
        let State { cache, queue, start, waiting } = &mut *state;
        let Some(pod) = queue.pop(now) else {
            return Step::Wait { until: queue.next_due().into_iter().chain(due).min() };
        };
        let Some(speaker) = self.speaker(&pod) else {
            queue.remove(&pod.key);
            return Step::Wait { until: Some(now) };
        };
        match cycle(cache.snapshot(), &speaker.profile, &pod, *start) {
            Decision::Bind { node, evaluated } => {
                *start = start.wrapping_add(evaluated);
                let plan = cache.snapshot().node(&node).and_then(|info| {
                    cache.snapshot().volumes().plan(&pod, info).ok().filter(|plan| !plan.is_empty())
                });
                cache.assume(Arc::clone(&pod), &node);
                let Some(plan) = plan else { return Step::Bind { pod, node } };
                cache.volumes_mut().assume(&pod, &plan);
                let until = now + VOLUMES_TIMEOUT;
                let waits =
                    WaitingForVolumes { pod: Arc::clone(&pod), node: node.clone(), until, is_told: false };
                waiting.insert(pod.key.clone(), waits);
                Step::TellVolumes { pod, plan, node }
            }
            Decision::Unschedulable(diagnosis) => {
                let message = diagnosis.to_string();
                queue.set_unschedulable(&pod, Rejection { plugins: diagnosis.rejected_by }, now);
                Step::Report { pod, message }
            }
        }
    }

    async fn bind(self: Arc<Self>, pod: Arc<PodInfo>, node: String) {
        match bind::bind(&self.client, &pod, &node).await {
            Ok(()) => {
                tracing::debug!(pod = %pod.key, node, "bound");
                if let Some(speaker) = self.speaker(&pod) {
                    report::scheduled(&speaker.recorder, &pod, &node);
                }
                // The informer takes it out of the queue when it shows the pod's node; until then it counts as assumed.
            }
            Err(failure) => {
                tracing::warn!(pod = %pod.key, node, %failure, "binding failed");
                self.failed(pod, failure).await;
            }
        }
    }

    /// The decision for the pod does not stand.
    async fn failed(self: Arc<Self>, pod: Arc<PodInfo>, failure: Failure) {
        {
            let mut state = self.lock();
            state.waiting.remove(&pod.key);
            state.cache.forget(&pod);
            state.cache.volumes_mut().forget(&pod);
            match failure {
                Failure::Gone => state.queue.remove(&pod.key),
                _ => state.queue.set_failed(&pod, Instant::now()),
            }
            self.tell(&mut state, ClusterEvent::AssignedPodGone(&pod));
        }
        self.wake.notify_one();
        self.report(pod, failure).await;
    }

    /// Volumes and claims learn what was decided; who provisions and who binds does the rest.
    async fn tell_volumes(self: Arc<Self>, pod: Arc<PodInfo>, plan: VolumePlan, node: String) {
        match bind::tell_volumes(&self.client, &plan, &node).await {
            Ok(()) => {
                if let Some(waiting) = self.lock().waiting.get_mut(&pod.key) {
                    waiting.is_told = true;
                }
                self.wake.notify_one();
            }
            Err(failure) => {
                tracing::warn!(pod = %pod.key, node, %failure, "volumes were not told");
                self.failed(pod, failure).await;
            }
        }
    }

    /// A claim has come, changed or gone.
    pub(crate) fn on_claim(&self, change: Change<'_, PersistentVolumeClaim>) {
        self.on_storage(|volumes| match change {
            Change::Deleted(claim) => volumes.remove_claim(claim),
            Change::Added(claim) | Change::Updated { new: claim, .. } => volumes.set_claim(Arc::clone(claim)),
        });
    }

    /// A volume has come, changed or gone.
    pub(crate) fn on_volume(&self, change: Change<'_, PersistentVolume>) {
        self.on_storage(|volumes| match change {
            Change::Deleted(volume) => volumes.remove_volume(volume),
            Change::Added(volume) | Change::Updated { new: volume, .. } => {
                volumes.set_volume(Arc::clone(volume));
            }
        });
    }

    /// A class of storage has come, changed or gone.
    pub(crate) fn on_class(&self, change: Change<'_, StorageClass>) {
        self.on_storage(|volumes| match change {
            Change::Deleted(class) => volumes.remove_class(class),
            Change::Added(class) | Change::Updated { new: class, .. } => volumes.set_class(Arc::clone(class)),
        });
    }

    fn on_storage(&self, take_in: impl FnOnce(&mut Volumes)) {
        let mut state = self.lock();
        take_in(state.cache.volumes_mut());
        self.tell(&mut state, ClusterEvent::VolumesChanged);
        drop(state);
        self.wake.notify_one();
    }

    async fn report(self: Arc<Self>, pod: Arc<PodInfo>, failure: Failure) {
        if let Some(speaker) = self.speaker(&pod) {
            report::failed(&self.client, &speaker.recorder, &pod, &failure).await;
        }
    }

    /// A node has come, changed or gone.
    pub(crate) fn on_node(&self, change: Change<'_, Node>) {
        let node = change.object();
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let mut state = self.lock();
        match change {
            Change::Deleted(_) => state.cache.remove_node(name),
            Change::Added(_) | Change::Updated { .. } => {
                state.cache.set_node(Arc::clone(node));
                let matters = change.old().is_none_or(|old| is_different_node(old, node));
                if let Some(info) = state.cache.snapshot().node(name).filter(|_| matters).cloned() {
                    let event = match change {
                        Change::Updated { .. } => ClusterEvent::NodeUpdated(&info),
                        _ => ClusterEvent::NodeAdded(&info),
                    };
                    self.tell(&mut state, event);
                }
            }
        }
        drop(state);
        self.wake.notify_one();
    }

    /// A pod has come, changed, ended or gone.
    pub(crate) fn on_pod(&self, change: Change<'_, Pod>) {
        let pod = Arc::new(PodInfo::new(Arc::clone(change.object())));
        let is_gone = matches!(change, Change::Deleted(_)) || is_terminal(&pod.pod);
        let mut state = self.lock();
        if is_gone || pod.pod.metadata.deletion_timestamp.is_some() {
            let is_same = |waiting: &WaitingForVolumes| waiting.pod.uid == pod.uid;
            if state.waiting.get(&pod.key).is_some_and(is_same) {
                state.waiting.remove(&pod.key);
                state.cache.forget(&pod);
                state.cache.volumes_mut().forget(&pod);
            }
        }
        if is_gone {
            state.queue.remove(&pod.key);
            if state.cache.is_placed(&pod) {
                state.cache.remove_pod(&pod);
                self.tell(&mut state, ClusterEvent::AssignedPodGone(&pod));
            }
        } else if pod.node_name().is_some() {
            state.queue.remove(&pod.key);
            state.cache.set_pod(pod);
        } else if pod.pod.metadata.deletion_timestamp.is_some() {
            state.queue.remove(&pod.key);
        } else if let Some(speaker) = self.speaker(&pod) {
            let is_gated = speaker.profile.gate(&pod).is_some();
            state.queue.set(pod, is_gated, Instant::now());
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Try again those pods that the event may help.
    fn tell(&self, state: &mut State, event: ClusterEvent<'_>) {
        state.queue.retry_if(Instant::now(), |pod, rejection| {
            let Some(speaker) = self.speaker(pod) else { return false };
            rejection.plugins.is_empty()
                || speaker
                    .profile
                    .filters
                    .iter()
                    .any(|filter| rejection.plugins.contains(filter.name()) && filter.may_help(pod, event))
        });
    }

    fn speaker(&self, pod: &PodInfo) -> Option<&Speaker> {
        let name = pod.pod.spec.as_ref()?.scheduler_name.as_deref().unwrap_or(crate::DEFAULT_SCHEDULER_NAME);
        self.speakers.iter().find(|speaker| speaker.profile.scheduler_name == name)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The next pod whose volumes are there, or are not there in time.
    fn next_waiting(&mut self, now: Instant) -> Option<Step> {
        let volumes = self.cache.snapshot().volumes();
        let is_due = |waiting: &WaitingForVolumes| {
            (waiting.is_told && volumes.are_bound(&waiting.pod)) || waiting.until <= now
        };
        let key = self.waiting.iter().find(|(_, waiting)| is_due(waiting))?.0.clone();
        let WaitingForVolumes { pod, node, .. } = self.waiting.remove(&key)?;
        if self.cache.snapshot().volumes().are_bound(&pod) {
            self.cache.volumes_mut().forget(&pod);
            Some(Step::Bind { pod, node })
        } else {
            Some(Step::Fail { pod, failure: Failure::VolumesLate })
        }
    }
}

/// Whether a pod could be judged otherwise than before. Heartbeats change nothing of it.
fn is_different_node(old: &Node, new: &Node) -> bool {
    let spec = |node: &Node| node.spec.as_ref().map(|spec| (spec.unschedulable, spec.taints.clone()));
    let allocatable = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
    old.metadata.labels != new.metadata.labels
        || spec(old) != spec(new)
        || allocatable(old) != allocatable(new)
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}
