//! The decision: what to do next for a pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::observed::{
    ContainerObserved, ContainerPhase, PodObserved, RestartPolicy, Verdict, container_hash, is_sidecar,
};

/// Why a container is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillReason {
    /// Its state is unknown and it must be gone before a new one starts.
    Unknown,
    /// Its definition changed.
    DefinitionChanged,
    /// Startup probe.
    StartupProbe,
    /// Liveness probe.
    LivenessProbe,
}

/// A container to kill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    /// Name in the pod.
    pub name: String,
    /// Text of the Killing event.
    pub message: String,
    /// Why.
    pub reason: KillReason,
}

/// The plan for one step of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodActions {
    /// Stop every container and the sandbox first.
    pub kill_pod: bool,
    /// Then make a new sandbox.
    pub create_sandbox: bool,
    /// Attempt number of the new sandbox.
    pub attempt: u32,
    /// The sandbox in use, when none is made.
    pub sandbox_id: Option<String>,
    /// Init containers to start, by index in the spec, in this order.
    pub init_containers_to_start: Vec<usize>,
    /// Containers to start, by index in the spec.
    pub containers_to_start: Vec<usize>,
    /// Ephemeral containers to start, by index in the spec. They wait for nothing and are never started again.
    pub ephemeral_containers_to_start: Vec<usize>,
    /// Containers to kill, by id.
    pub containers_to_kill: BTreeMap<String, Kill>,
}

/// Decides from the specification and what is observed.
///
/// Idempotent: the same state gives the same plan; a state that is as wanted gives an empty one.
pub fn compute_pod_actions(pod: &Pod, observed: &PodObserved) -> PodActions {
    let containers = containers(pod);
    let init_containers = init_containers(pod);
    let (create_sandbox, attempt, sandbox_id) = sandbox_changed(pod, observed);
    let mut actions =
        PodActions { kill_pod: create_sandbox, create_sandbox, attempt, sandbox_id, ..PodActions::default() };

    if create_sandbox {
        if RestartPolicy::of(pod) == RestartPolicy::Never && attempt != 0 && !observed.containers.is_empty() {
            actions.create_sandbox = false;
            return actions;
        }
        let to_start: Vec<usize> = (0..containers.len())
            .filter(|&index| {
                !(RestartPolicy::of(pod) == RestartPolicy::OnFailure
                    && has_succeeded(&containers[index], observed))
            })
            .collect();
        if to_start.is_empty() && containers.iter().any(|c| observed.container(&c.name).is_some()) {
            actions.create_sandbox = false;
            return actions;
        }
        if init_containers.is_empty() {
            actions.containers_to_start = to_start;
        } else {
            actions.init_containers_to_start = vec![0];
        }
        return actions;
    }

    let ephemeral = pod.spec.as_ref().and_then(|s| s.ephemeral_containers.as_deref()).unwrap_or_default();
    let is_new = |index: &usize| observed.container(&ephemeral[*index].name).is_none();
    actions.ephemeral_containers_to_start = (0..ephemeral.len()).filter(is_new).collect();

    let is_initialized = plan_init_containers(pod, observed, &mut actions);
    if actions.kill_pod || !is_initialized {
        return actions;
    }

    let mut kept = 0;
    for (index, container) in containers.iter().enumerate() {
        let status = observed.container(&container.name);
        let Some(status) = status.filter(|s| s.phase == ContainerPhase::Running) else {
            if should_restart(container, pod, observed) {
                actions.containers_to_start.push(index);
                if let Some(status) = status.filter(|s| s.phase == ContainerPhase::Unknown) {
                    let message =
                        "Container is in \"unknown\" state, try killing it before restart".to_owned();
                    kill(&mut actions, status, message, KillReason::Unknown);
                }
            }
            continue;
        };
        let mut restart = RestartPolicy::of(pod) != RestartPolicy::Never;
        let (mut message, reason) = if has_changed(container, status) {
            restart = true;
            (format!("Container {} definition changed", container.name), KillReason::DefinitionChanged)
        } else if status.verdicts.liveness == Verdict::Failure {
            (format!("Container {} failed liveness probe", container.name), KillReason::LivenessProbe)
        } else if status.verdicts.startup == Verdict::Failure {
            (format!("Container {} failed startup probe", container.name), KillReason::StartupProbe)
        } else {
            kept += 1;
            continue;
        };
        if restart {
            message.push_str(", will be restarted");
            actions.containers_to_start.push(index);
        }
        kill(&mut actions, status, message, reason);
    }

    if kept == 0 && actions.containers_to_start.is_empty() && actions.containers_to_kill.is_empty() {
        actions.kill_pod = true;
        actions.init_containers_to_start.clear();
    }
    actions
}

/// Whether a pod has nothing left to do by itself: all containers ended and none will be restarted.
pub fn is_finished(pod: &Pod, observed: &PodObserved) -> bool {
    let actions = compute_pod_actions(pod, observed);
    actions.kill_pod && !actions.create_sandbox && !observed.containers.is_empty()
}

/// Whether a container that is not running is to be started (again).
pub fn should_restart(container: &Container, pod: &Pod, observed: &PodObserved) -> bool {
    if pod.metadata.deletion_timestamp.is_some() {
        return false;
    }
    let Some(status) = observed.container(&container.name) else { return true };
    match status.phase {
        ContainerPhase::Running => false,
        ContainerPhase::Unknown | ContainerPhase::Created => true,
        ContainerPhase::Exited => match RestartPolicy::of(pod) {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => status.exit_code != 0,
            RestartPolicy::Never => false,
        },
    }
}

fn containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().map_or(&[], |spec| spec.containers.as_slice())
}

fn init_containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default()
}

fn sandbox_changed(pod: &Pod, observed: &PodObserved) -> (bool, u32, Option<String>) {
    let Some(latest) = observed.sandboxes.first() else { return (true, 0, None) };
    let ready = observed.sandboxes.iter().filter(|s| s.is_ready).count();
    let on_host_network = pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false);
    let changed = ready > 1 || !latest.is_ready || (!on_host_network && latest.ips.is_empty());
    let attempt = if changed { latest.attempt + 1 } else { latest.attempt };
    (changed, attempt, Some(latest.id.clone()))
}

fn has_succeeded(container: &Container, observed: &PodObserved) -> bool {
    observed.container(&container.name).is_some_and(|s| s.phase == ContainerPhase::Exited && s.exit_code == 0)
}

fn has_changed(container: &Container, status: &ContainerObserved) -> bool {
    !status.hash.is_empty() && status.hash != container_hash(container)
}

fn has_failed(status: &ContainerObserved) -> bool {
    match status.phase {
        ContainerPhase::Exited => status.exit_code != 0,
        ContainerPhase::Unknown => true,
        _ => false,
    }
}

fn kill(actions: &mut PodActions, status: &ContainerObserved, message: String, reason: KillReason) {
    actions.containers_to_kill.insert(status.id.clone(), Kill { name: status.name.clone(), message, reason });
}

/// Plans the init containers; says whether the ordinary containers may run.
///
/// Walks backwards: init containers that are done may have been removed from the runtime, so the last one with a
/// status tells how far the pod is.
fn plan_init_containers(pod: &Pod, observed: &PodObserved, actions: &mut PodActions) -> bool {
    let init = init_containers(pod);
    if init.is_empty() {
        return true;
    }
    let may_restart = RestartPolicy::of(pod) != RestartPolicy::Never;
    let mut is_initialized = containers(pod).iter().any(|c| {
        observed
            .container(&c.name)
            .is_some_and(|s| matches!(s.phase, ContainerPhase::Running | ContainerPhase::Exited))
    });
    let mut is_past = is_initialized;
    for (index, container) in init.iter().enumerate().rev() {
        let sidecar = is_sidecar(container);
        let Some(status) = observed.container(&container.name) else {
            if is_past && sidecar {
                actions.init_containers_to_start.push(index);
            }
            continue;
        };
        if is_past && !sidecar {
            continue;
        }
        let is_last = index + 1 == init.len();
        match status.phase {
            ContainerPhase::Created => actions.init_containers_to_start.push(index),
            ContainerPhase::Running if !sidecar => {}
            ContainerPhase::Running => {
                if container.startup_probe.is_some() && status.verdicts.startup != Verdict::Success {
                    if status.verdicts.startup == Verdict::Failure {
                        let message = format!("Init container {} failed startup probe", container.name);
                        kill(actions, status, message, KillReason::StartupProbe);
                        actions.init_containers_to_start.push(index);
                    }
                } else {
                    if is_last {
                        is_initialized = true;
                    } else if !is_past {
                        actions.init_containers_to_start.push(index + 1);
                    }
                    if has_changed(container, status) {
                        let message = format!("Init container {} definition changed", container.name);
                        kill(actions, status, message, KillReason::DefinitionChanged);
                        actions.init_containers_to_start.push(index);
                    } else if status.verdicts.liveness == Verdict::Failure {
                        let message = format!("Init container {} failed liveness probe", container.name);
                        kill(actions, status, message, KillReason::LivenessProbe);
                        actions.init_containers_to_start.push(index);
                    }
                }
            }
            ContainerPhase::Exited if sidecar => actions.init_containers_to_start.push(index),
            ContainerPhase::Exited => {
                if has_failed(status) {
                    if !may_restart {
                        actions.kill_pod = true;
                        actions.init_containers_to_start.clear();
                        return false;
                    }
                    actions.init_containers_to_start.push(index);
                } else if is_last {
                    is_initialized = true;
                } else {
                    actions.init_containers_to_start.push(index + 1);
                }
            }
            ContainerPhase::Unknown => {
                if !sidecar && !may_restart {
                    actions.kill_pod = true;
                    actions.init_containers_to_start.clear();
                    return false;
                }
                let message =
                    "Init container is in \"unknown\" state, try killing it before restart".to_owned();
                kill(actions, status, message, KillReason::Unknown);
                actions.init_containers_to_start.push(index);
            }
        }
        is_past = true;
    }
    if !is_past {
        actions.init_containers_to_start.push(0);
    }
    is_initialized
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
