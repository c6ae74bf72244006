//! What is known of a pod's sandboxes and containers: the runtime's word and the probes' verdicts.

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::jiff::Timestamp;
use sha2::{Digest, Sha256};

/// A container's state, as CRI has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContainerPhase {
    /// Created, not started.
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
    /// The runtime does not know.
    #[default]
    Unknown,
}

/// A probe's standing verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verdict {
    /// The threshold of neither side has been reached.
    #[default]
    Pending,
    /// The success threshold has been reached.
    Success,
    /// The failure threshold has been reached.
    Failure,
}

/// Verdicts of a container's probes. Absent probes stay [`Verdict::Pending`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verdicts {
    /// Startup probe.
    pub startup: Verdict,
    /// Liveness probe.
    pub liveness: Verdict,
    /// Readiness probe.
    pub readiness: Verdict,
}

/// A sandbox, as last seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SandboxObserved {
    /// The runtime's id.
    pub id: String,
    /// How many sandboxes the pod had before.
    pub attempt: u32,
    /// Ready, as CRI has it.
    pub is_ready: bool,
    /// Creation time.
    pub created_at: Timestamp,
    /// Pod addresses; empty for the host's network.
    pub ips: Vec<String>,
}

/// A container, as last seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerObserved {
    /// The runtime's id.
    pub id: String,
    /// Name in the pod.
    pub name: String,
    /// The sandbox that it is in.
    pub sandbox_id: String,
    /// Restarts before this one.
    pub restart_count: u32,
    /// State.
    pub phase: ContainerPhase,
    /// Creation time.
    pub created_at: Timestamp,
    /// Start, when it was started.
    pub started_at: Option<Timestamp>,
    /// End, when it has ended.
    pub finished_at: Option<Timestamp>,
    /// Exit code, when it has ended.
    pub exit_code: i32,
    /// The runtime's reason (`OOMKilled`, `Error`, `Completed`, `StartError`, ...).
    pub reason: String,
    /// The runtime's message.
    pub message: String,
    /// Name of the runtime that has it; empty when it does not say so.
    pub runtime: String,
    /// Image as the runtime names it.
    pub image: String,
    /// Image reference with digest.
    pub image_id: String,
    /// [`container_hash`] of the definition that it was made from; empty when unknown.
    pub hash: String,
    /// Log file.
    pub log_path: String,
    /// Probes' verdicts.
    pub verdicts: Verdicts,
}

/// What the runtime and the probes say of one pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodObserved {
    /// Sandboxes, newest first.
    pub sandboxes: Vec<SandboxObserved>,
    /// Containers, newest first.
    pub containers: Vec<ContainerObserved>,
}

impl PodObserved {
    /// The newest container with a name.
    pub fn container(&self, name: &str) -> Option<&ContainerObserved> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// The newest ended container with a name, other than the newest of all when that one is not ended.
    pub fn last_exited(&self, name: &str) -> Option<&ContainerObserved> {
        self.containers.iter().find(|c| c.name == name && c.phase == ContainerPhase::Exited)
    }

    /// The ended container before the newest one with a name.
    pub fn previous(&self, name: &str) -> Option<&ContainerObserved> {
        self.containers.iter().filter(|c| c.name == name).skip(1).find(|c| c.phase == ContainerPhase::Exited)
    }

    /// The newest sandbox, when it is ready.
    pub fn ready_sandbox(&self) -> Option<&SandboxObserved> {
        self.sandboxes.first().filter(|s| s.is_ready)
    }

    /// Whether any container may still be running.
    pub fn has_running(&self) -> bool {
        self.containers.iter().any(|c| matches!(c.phase, ContainerPhase::Running | ContainerPhase::Unknown))
    }

    /// Puts sandboxes and containers in order, newest first.
    pub fn sort(&mut self) {
        self.sandboxes.sort_by_key(|s| std::cmp::Reverse((s.attempt, s.created_at)));
        self.containers.sort_by_key(|c| std::cmp::Reverse((c.created_at, c.restart_count)));
    }

    /// Adds or replaces a container by id.
    pub fn put_container(&mut self, container: ContainerObserved) {
        match self.containers.iter_mut().find(|c| c.id == container.id) {
            Some(known) => {
                let verdicts = known.verdicts;
                *known = ContainerObserved { verdicts, ..container };
            }
            None => self.containers.push(container),
        }
        self.sort();
    }

    /// Adds or replaces a sandbox by id.
    pub fn put_sandbox(&mut self, sandbox: SandboxObserved) {
        match self.sandboxes.iter_mut().find(|s| s.id == sandbox.id) {
            Some(known) => *known = sandbox,
            None => self.sandboxes.push(sandbox),
        }
        self.sort();
    }
}

/// The part of a container's definition that restarts it when it changes: its name and image.
pub fn container_hash(container: &Container) -> String {
    let mut hasher = Sha256::new();
    hasher.update(container.name.as_bytes());
    hasher.update([0]);
    hasher.update(container.image.as_deref().unwrap_or_default().as_bytes());
    hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether an init container keeps running beside the others (`restartPolicy: Always`).
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The pod's restart policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Whatever the exit code.
    Always,
    /// After exit codes other than 0.
    OnFailure,
    /// Not at all.
    Never,
}

impl RestartPolicy {
    /// Of a pod; absent means Always.
    pub fn of(pod: &Pod) -> Self {
        match pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()) {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }
}
