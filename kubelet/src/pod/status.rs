//! A pod's status, computed from its specification, what is observed, and what the worker knows.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::ephemeral::ephemeral_containers;
use super::observed::{ContainerObserved, ContainerPhase, PodObserved, RestartPolicy, Verdict, is_sidecar};
use super::plan::should_restart;
use super::resources::qos_class;

/// Why a container waits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Waiting {
    /// `ErrImagePull`, `CrashLoopBackOff`, ...
    pub reason: String,
    /// For people.
    pub message: String,
}

/// The end of a pod decided by the node: eviction, deadline, refused admission.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeEnding {
    /// `DeadlineExceeded`, `Evicted`, `OutOfcpu`, ...
    pub reason: String,
    /// For people.
    pub message: String,
}

/// What the worker knows beside the runtime's word.
#[derive(Debug, Default)]
pub struct WorkerView<'a> {
    /// Waiting reasons by container name.
    pub waiting: BTreeMap<String, Waiting>,
    /// The node ended this pod.
    pub ended: Option<NodeEnding>,
    /// Nothing runs and nothing will be started again.
    pub is_terminal: bool,
    /// Address of the node.
    pub host_ip: &'a str,
    /// `containerd`, `wherry`, ...: prefix of container ids.
    pub runtime_name: &'a str,
    /// First sight of the pod by this node.
    pub start_time: Option<Timestamp>,
}

/// The whole status as it should be now. Conditions of others (readiness gates) are not in it.
pub fn generate_status(
    pod: &Pod,
    observed: &PodObserved,
    view: &WorkerView<'_>,
    now: Timestamp,
) -> PodStatus {
    let spec = pod.spec.clone().unwrap_or_default();
    let old = pod.status.as_ref();
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let has_init = !init.is_empty();
    let is_initialized = spec.containers.iter().any(|c| observed.container(&c.name).is_some());

    let old_of = |list: fn(&PodStatus) -> Option<&Vec<ContainerStatus>>, name: &str| {
        old.and_then(list).and_then(|statuses| statuses.iter().find(|s| s.name == name).cloned())
    };
    let make = |container: &Container, is_init: bool, default_reason: &str| {
        let previous = if is_init {
            old_of(|s| s.init_container_statuses.as_ref(), &container.name)
        } else {
            old_of(|s| s.container_statuses.as_ref(), &container.name)
        };
        container_status(&Made { pod, container, is_init, default_reason, previous }, observed, view)
    };
    let default_reason = if has_init && !is_initialized { "PodInitializing" } else { "ContainerCreating" };
    let init_statuses: Vec<ContainerStatus> = init.iter().map(|c| make(c, true, "PodInitializing")).collect();
    let statuses: Vec<ContainerStatus> =
        spec.containers.iter().map(|c| make(c, false, default_reason)).collect();

    let ephemeral_statuses: Vec<ContainerStatus> = ephemeral_containers(pod)
        .iter()
        .map(|container| {
            let previous = old_of(|s| s.ephemeral_container_statuses.as_ref(), &container.name);
            let default_reason = "ContainerCreating";
            // Like an init container: what the runtime has forgotten stays as it was written.
            container_status(
                &Made { pod, container, is_init: true, default_reason, previous },
                observed,
                view,
            )
        })
        .map(|status| ContainerStatus { ready: false, started: None, ..status })
        .collect();

    let old_phase = old.and_then(|s| s.phase.as_deref());
    let phase = match (&view.ended, old_phase) {
        (_, Some(terminal @ ("Failed" | "Succeeded"))) => terminal,
        (Some(_), _) => "Failed",
        (None, _) => phase(pod, &init_statuses, &statuses, view.is_terminal, is_initialized),
    };

    let sandbox = observed.sandboxes.first();
    let on_host = spec.host_network.unwrap_or(false);
    let mut ips: Vec<String> = match sandbox {
        Some(_) if on_host => vec![view.host_ip.to_owned()],
        Some(sandbox) => sandbox.ips.clone(),
        None => Vec::new(),
    };
    if ips.is_empty() {
        ips = old
            .and_then(|s| s.pod_ips.as_ref())
            .map(|ips| ips.iter().map(|p| p.ip.clone()).collect())
            .unwrap_or_default();
    }
    let (reason, message) = match &view.ended {
        Some(end) => (Some(end.reason.clone()), Some(end.message.clone())),
        None => match old_phase {
            Some("Failed" | "Succeeded") => {
                (old.and_then(|s| s.reason.clone()), old.and_then(|s| s.message.clone()))
            }
            _ => (None, None),
        },
    };
    let mut status = PodStatus {
        phase: Some(phase.to_owned()),
        reason: reason.filter(|r| !r.is_empty()),
        message: message.filter(|m| !m.is_empty()),
        host_ip: Some(view.host_ip.to_owned()),
        host_ips: Some(vec![HostIP { ip: view.host_ip.to_owned() }]),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: old
            .and_then(|s| s.start_time.clone())
            .or_else(|| Some(seconds(view.start_time.unwrap_or(now)))),
        qos_class: Some(old.and_then(|s| s.qos_class.clone()).unwrap_or_else(|| qos_class(&spec).to_owned())),
        observed_generation: pod.metadata.generation,
        init_container_statuses: has_init.then_some(init_statuses),
        container_statuses: Some(statuses),
        ephemeral_container_statuses: (!ephemeral_statuses.is_empty()).then_some(ephemeral_statuses),
        ..PodStatus::default()
    };
    status.conditions = Some(conditions(pod, observed, &status, now));
    let was_never_here = observed.sandboxes.is_empty() && observed.containers.is_empty();
    if view.ended.is_some() && was_never_here && old.is_none_or(|old| old.container_statuses.is_none()) {
        // The node refused it: there is nothing to say of its containers, as in Kubernetes.
        status.container_statuses = None;
        status.init_container_statuses = None;
        status.ephemeral_container_statuses = None;
    }
    status
}

struct Made<'a> {
    pod: &'a Pod,
    container: &'a Container,
    is_init: bool,
    default_reason: &'a str,
    previous: Option<ContainerStatus>,
}

fn container_status(made: &Made<'_>, observed: &PodObserved, view: &WorkerView<'_>) -> ContainerStatus {
    let container = made.container;
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        started: Some(false),
        ..ContainerStatus::default()
    };
    let waiting = |reason: &str, message: &str| ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: (!message.is_empty()).then(|| message.to_owned()),
        }),
        ..ContainerState::default()
    };
    let current = observed.container(&container.name);
    match current {
        None => {
            if let Some(previous) = &made.previous {
                // What the runtime has forgotten (an init container that is done) stays as it was written.
                let was_terminated = previous.state.as_ref().is_some_and(|s| s.terminated.is_some());
                if was_terminated && (view.is_terminal || made.is_init || view.ended.is_some()) {
                    return previous.clone();
                }
                status.restart_count = previous.restart_count;
                status.last_state = previous.last_state.clone().filter(|s| s.terminated.is_some());
            }
            status.state = Some(waiting(made.default_reason, ""));
        }
        Some(seen) => {
            status.container_id = Some(container_id(seen, view.runtime_name));
            if !seen.image.is_empty() {
                status.image.clone_from(&seen.image);
            }
            status.image_id.clone_from(&seen.image_id);
            status.restart_count = i32::try_from(seen.restart_count).unwrap_or(i32::MAX);
            status.state = Some(match seen.phase {
                ContainerPhase::Created => waiting(made.default_reason, ""),
                ContainerPhase::Running => ContainerState {
                    running: Some(ContainerStateRunning { started_at: seen.started_at.map(seconds) }),
                    ..ContainerState::default()
                },
                ContainerPhase::Exited => terminated(seen, view.runtime_name),
                ContainerPhase::Unknown => ContainerState {
                    terminated: Some(ContainerStateTerminated {
                        exit_code: 137,
                        reason: Some("ContainerStatusUnknown".to_owned()),
                        message: Some(
                            "The container could not be located when the pod was terminated".to_owned(),
                        ),
                        container_id: Some(container_id(seen, view.runtime_name)),
                        ..ContainerStateTerminated::default()
                    }),
                    ..ContainerState::default()
                },
            });
            status.last_state = observed
                .previous(&container.name)
                .map(|previous| terminated(previous, view.runtime_name))
                .or_else(|| last_written_state(made.previous.as_ref(), seen, view.runtime_name));
            let is_running = seen.phase == ContainerPhase::Running;
            let is_started = is_running
                && (container.startup_probe.is_none() || seen.verdicts.startup == Verdict::Success);
            status.started = Some(is_started);
            status.ready = if made.is_init && !is_sidecar(container) {
                seen.phase == ContainerPhase::Exited && seen.exit_code == 0
            } else {
                is_started
                    && (container.readiness_probe.is_none() || seen.verdicts.readiness == Verdict::Success)
            };
        }
    }
    let will_restart = !view.is_terminal
        && view.ended.is_none()
        && current.is_none_or(|seen| seen.phase != ContainerPhase::Running)
        && (made.is_init || should_restart(container, made.pod, observed));
    if let Some(reason) = view.waiting.get(&container.name).filter(|_| will_restart) {
        if let Some(terminated) = status.state.take_if(|s| s.terminated.is_some()) {
            status.last_state = Some(terminated);
        }
        status.state = Some(waiting(&reason.reason, &reason.message));
        status.ready = false;
    }
    status.last_state.get_or_insert_default();
    status
}

/// `containerd://<id>`: the runtime that says that it has the container, or the pod's.
fn container_id(seen: &ContainerObserved, runtime_name: &str) -> String {
    let name = if seen.runtime.is_empty() { runtime_name } else { &seen.runtime };
    format!("{name}://{}", seen.id)
}

/// The last termination, from the status written before, when the runtime has only the newest container left.
fn last_written_state(
    previous: Option<&ContainerStatus>,
    seen: &ContainerObserved,
    runtime_name: &str,
) -> Option<ContainerState> {
    let previous = previous?;
    let id = container_id(seen, runtime_name);
    let is_older = |state: &Option<ContainerState>| {
        state
            .as_ref()
            .and_then(|s| s.terminated.as_ref())
            .is_some_and(|t| t.container_id.as_deref() != Some(id.as_str()))
    };
    if is_older(&previous.state) {
        previous.state.clone()
    } else if is_older(&previous.last_state) {
        previous.last_state.clone()
    } else {
        None
    }
}

fn terminated(seen: &ContainerObserved, runtime_name: &str) -> ContainerState {
    let reason = match (seen.reason.as_str(), seen.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: seen.exit_code,
            reason: Some(reason.to_owned()),
            message: (!seen.message.is_empty()).then(|| seen.message.clone()),
            started_at: Some(seconds(seen.started_at.unwrap_or(Timestamp::UNIX_EPOCH))),
            finished_at: seen.finished_at.map(seconds),
            container_id: Some(format!("{runtime_name}://{}", seen.id)),
            signal: None,
        }),
        ..ContainerState::default()
    }
}

/// A time as the API writes it: whole seconds.
fn seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

fn is_terminated(status: &ContainerStatus) -> Option<i32> {
    status.state.as_ref()?.terminated.as_ref().map(|t| t.exit_code)
}

fn last_exit_code(status: &ContainerStatus) -> Option<i32> {
    status.last_state.as_ref()?.terminated.as_ref().map(|t| t.exit_code)
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|s| s.running.is_some())
}

fn is_waiting(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|s| s.waiting.is_some())
}

fn phase(
    pod: &Pod,
    init_statuses: &[ContainerStatus],
    statuses: &[ContainerStatus],
    is_terminal: bool,
    is_initialized: bool,
) -> &'static str {
    let policy = RestartPolicy::of(pod);
    let init = pod.spec.as_ref().and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
    let (mut pending_init, mut failed_init) = (0, 0);
    let (mut pending_sidecars, mut running, mut waiting, mut stopped, mut succeeded) = (0, 0, 0, 0, 0);
    for (container, status) in init.iter().zip(init_statuses) {
        if is_sidecar(container) {
            if is_running(status) {
                running += 1;
                if status.started != Some(true) {
                    pending_sidecars += 1;
                }
            } else if is_waiting(status) && last_exit_code(status).is_none() {
                pending_sidecars += 1;
                waiting += 1;
            }
        } else if let Some(code) = is_terminated(status) {
            failed_init += usize::from(code != 0);
        } else if is_waiting(status)
            && let Some(code) = last_exit_code(status)
        {
            failed_init += usize::from(code != 0);
        } else {
            pending_init += 1;
        }
    }
    for status in statuses {
        if is_running(status) {
            running += 1;
        } else if let Some(code) = is_terminated(status) {
            stopped += 1;
            succeeded += usize::from(code == 0);
        } else if last_exit_code(status).is_some() {
            stopped += 1;
        } else {
            waiting += 1;
        }
    }
    if failed_init > 0 && policy == RestartPolicy::Never {
        return "Failed";
    }
    if is_terminal && failed_init > 0 {
        return "Failed";
    }
    if !is_terminal && !is_initialized && (pending_init > 0 || pending_sidecars > 0 || failed_init > 0) {
        return "Pending";
    }
    if is_terminal && running == 0 {
        // The pod was ended before it ran: what never started did not succeed.
        return if stopped > 0 && stopped == succeeded && waiting == 0 { "Succeeded" } else { "Failed" };
    }
    if waiting > 0 {
        return "Pending";
    }
    if statuses.iter().any(is_running) || (running > 0 && stopped == 0) {
        return "Running";
    }
    if stopped > 0 {
        return match policy {
            RestartPolicy::Always => "Running",
            _ if stopped == succeeded => "Succeeded",
            RestartPolicy::Never => "Failed",
            RestartPolicy::OnFailure => "Running",
        };
    }
    "Pending"
}

fn conditions(pod: &Pod, observed: &PodObserved, status: &PodStatus, now: Timestamp) -> Vec<PodCondition> {
    let phase = status.phase.as_deref().unwrap_or_default();
    let old = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let condition = |type_: &str, is_true: bool, reason: &str, message: String| {
        let value = if is_true { "True" } else { "False" };
        let known = old.iter().find(|c| c.type_ == type_);
        let transition = known
            .filter(|c| c.status == value)
            .and_then(|c| c.last_transition_time.clone())
            .unwrap_or(seconds(now));
        PodCondition {
            type_: type_.to_owned(),
            status: value.to_owned(),
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
            message: (!message.is_empty()).then_some(message),
            last_transition_time: Some(transition),
            last_probe_time: None,
            observed_generation: pod.metadata.generation,
        }
    };
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
    let init_statuses = status.init_container_statuses.as_deref().unwrap_or_default();
    let statuses = status.container_statuses.as_deref().unwrap_or_default();
    let on_host = spec.and_then(|s| s.host_network).unwrap_or(false);
    let has_sandbox = observed.ready_sandbox().is_some_and(|s| on_host || !s.ips.is_empty());

    let started: BTreeSet<&str> = statuses
        .iter()
        .filter(|s| is_running(s) || is_terminated(s).is_some())
        .map(|s| s.name.as_str())
        .collect();
    let incomplete: Vec<&str> = init
        .iter()
        .zip(init_statuses)
        .filter(
            |(container, status)| {
                if is_sidecar(container) { status.started != Some(true) } else { !status.ready }
            },
        )
        .map(|(container, _)| container.name.as_str())
        .collect();
    let initialized = if phase == "Succeeded" {
        condition("Initialized", true, "PodCompleted", String::new())
    } else if incomplete.is_empty() || (!started.is_empty() && phase != "Failed") {
        condition("Initialized", true, "", String::new())
    } else {
        let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
        condition("Initialized", false, "ContainersNotInitialized", message)
    };

    let mut unready: Vec<&str> = init
        .iter()
        .zip(init_statuses)
        .filter(|(container, status)| is_sidecar(container) && !status.ready)
        .map(|(container, _)| container.name.as_str())
        .collect();
    unready.extend(statuses.iter().filter(|s| !s.ready).map(|s| s.name.as_str()));
    let unready_message = format!("containers with unready status: [{}]", unready.join(" "));
    let (are_ready, reason, message) = match phase {
        "Succeeded" => (false, "PodCompleted", String::new()),
        "Failed" => (false, "PodFailed", String::new()),
        _ if !unready.is_empty() => (false, "ContainersNotReady", unready_message),
        _ => (true, "", String::new()),
    };
    let gates: Vec<String> = spec
        .and_then(|s| s.readiness_gates.as_deref())
        .unwrap_or_default()
        .iter()
        .filter_map(|gate| {
            let name = &gate.condition_type;
            match old.iter().find(|c| &c.type_ == name) {
                None => {
                    Some(format!("corresponding condition of pod readiness gate {name:?} does not exist."))
                }
                Some(c) if c.status != "True" => Some(format!(
                    "the status of pod readiness gate {name:?} is not \"True\", but {}",
                    c.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    let ready = if are_ready && !gates.is_empty() {
        condition("Ready", false, "ReadinessGatesNotReady", gates.join(", "))
    } else {
        condition("Ready", are_ready, reason, message.clone())
    };
    vec![
        condition("PodReadyToStartContainers", has_sandbox, "", String::new()),
        initialized,
        ready,
        condition("ContainersReady", are_ready, reason, message),
        condition("PodScheduled", true, "", String::new()),
    ]
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
