//! The tasks that probe one pod's containers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use tokio::task::{AbortHandle, JoinSet};
use wherry_client::EventType;
use wherry_client::backoff::jitter;

use super::http::{authority, connect, http_request, resolve_port};
use super::{ProbeKind, Tally, Thresholds, grpc};
use crate::kubelet::Kubelet;
use crate::pod::observed::Verdict;
use crate::pod::workers::Mailbox;
use crate::runtimes::NodeRuntime;
use crate::stats::ProbeResult;

/// A readiness or startup probe is tried again this soon while the container has just started, so that a guest that
/// listens after some milliseconds is not found ready only a period later. Such tries count for nothing but success.
const EAGER_FIRST: Duration = Duration::from_millis(2);
/// For how long after the start of the probe tries are eager.
const EAGER_FOR: Duration = Duration::from_secs(2);

/// The container that is probed.
#[derive(Clone)]
pub(crate) struct ProbeTarget {
    pub(crate) kubelet: Arc<Kubelet>,
    pub(crate) runtime: Arc<NodeRuntime>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) container: Container,
    pub(crate) container_id: String,
    pub(crate) pod_ip: String,
    pub(crate) mailbox: Arc<Mailbox>,
    /// How long the container runs already.
    pub(crate) age: Duration,
}

/// The running probes of one pod. Dropping it ends them.
#[derive(Default)]
pub(crate) struct Probes {
    tasks: JoinSet<()>,
    running: HashMap<(String, ProbeKind), AbortHandle>,
}

impl Probes {
    pub(crate) fn is_running(&self, container_id: &str, kind: ProbeKind) -> bool {
        self.running.contains_key(&(container_id.to_owned(), kind))
    }

    pub(crate) fn start(&mut self, target: ProbeTarget, kind: ProbeKind, probe: Probe) {
        let key = (target.container_id.clone(), kind);
        if !self.running.contains_key(&key) {
            let handle = self.tasks.spawn(run(target, kind, probe));
            self.running.insert(key, handle);
        }
    }

    /// Ends the probes that do not satisfy `keep`.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&str, ProbeKind) -> bool) {
        self.running.retain(|(id, kind), handle| {
            let stays = keep(id, *kind);
            if !stays {
                handle.abort();
            }
            stays
        });
        while self.tasks.try_join_next().is_some() {}
    }
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default))
}

async fn run(target: ProbeTarget, kind: ProbeKind, probe: Probe) {
    let thresholds = Thresholds::of(&probe);
    let period = seconds(probe.period_seconds, 10);
    let initial =
        Duration::from_secs(probe.initial_delay_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(0));
    let wait = initial.saturating_sub(target.age);
    if target.age > period {
        // The kubelet was started again: probes of many pods must not all run at once.
        tokio::time::sleep(wait.max(jitter(period.min(Duration::from_secs(5))))).await;
    } else if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    let started = tokio::time::Instant::now();
    let is_eager = kind != ProbeKind::Liveness && probe.exec.is_none() && initial.is_zero();
    let mut pause = EAGER_FIRST;
    let mut tally = Tally::default();
    let mut standing = Verdict::Pending;
    loop {
        let outcome = probe_once(&target, &probe).await;
        let is_early = is_eager && standing == Verdict::Pending && started.elapsed() < EAGER_FOR.min(period);
        count(&target, kind, &outcome);
        if let Err(Failure::Unknown(error)) = &outcome {
            // Neither a success nor a failure: the container is not blamed for what the node could not find out.
            let message = format!("{} probe errored and resulted in unknown state: {error}", kind.as_str());
            target.kubelet.container_event(
                &target.pod,
                &target.container.name,
                EventType::Warning,
                "Unhealthy",
                message,
            );
            tokio::time::sleep(period).await;
            continue;
        }
        if is_early && outcome.is_err() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(250));
            continue;
        }
        if let Err(Failure::Said(output)) = &outcome {
            let message = format!("{} probe failed: {output}", kind.as_str());
            target.kubelet.container_event(
                &target.pod,
                &target.container.name,
                EventType::Warning,
                "Unhealthy",
                message,
            );
        }
        if let Some(verdict) = tally.count(outcome.is_ok(), thresholds)
            && verdict != standing
        {
            standing = verdict;
            let key = (target.container_id.clone(), kind);
            target.mailbox.post(|inbox| {
                inbox.verdicts.insert(key, verdict);
            });
            let is_over = match kind {
                ProbeKind::Startup => true,
                ProbeKind::Liveness => verdict == Verdict::Failure,
                ProbeKind::Readiness => false,
            };
            if is_over {
                return;
            }
        }
        tokio::time::sleep(period).await;
    }
}

fn count(target: &ProbeTarget, kind: ProbeKind, outcome: &Result<(), Failure>) {
    let metadata = &target.pod.metadata;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let subject =
        (text(&metadata.namespace), text(&metadata.name), text(&metadata.uid), target.container.name.clone());
    let result = match outcome {
        Ok(()) => ProbeResult::Successful,
        Err(Failure::Said(_)) => ProbeResult::Failed,
        Err(Failure::Unknown(_)) => ProbeResult::Unknown,
    };
    target.kubelet.probe_counts.count(subject, kind, result);
}

/// A probe that did not succeed.
enum Failure {
    /// It failed, with this output.
    Said(String),
    /// It could not be run.
    Unknown(String),
}

impl From<String> for Failure {
    fn from(output: String) -> Self {
        Self::Said(output)
    }
}

async fn probe_once(target: &ProbeTarget, probe: &Probe) -> Result<(), Failure> {
    let timeout = seconds(probe.timeout_seconds, 1);
    if let Some(action) = &probe.http_get {
        let request = http_request(action, &target.container, &target.pod_ip)?;
        let answer = target.kubelet.http.get(&request, timeout).await?;
        return match answer.status {
            200..400 => Ok(()),
            status => Err(format!("HTTP probe failed with statuscode: {status}").into()),
        };
    }
    if let Some(action) = &probe.tcp_socket {
        let port = resolve_port(&action.port, &target.container)?;
        let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(&target.pod_ip);
        return match tokio::time::timeout(timeout, connect(host, port)).await {
            Ok(connected) => Ok(connected.map(drop)?),
            Err(_) => Err(format!("dial tcp {}: i/o timeout", authority(host, port)).into()),
        };
    }
    if let Some(action) = &probe.grpc {
        let port = u16::try_from(action.port).map_err(|_| format!("invalid port number: {}", action.port))?;
        let service = action.service.as_deref().unwrap_or_default();
        return Ok(grpc::check(&target.pod_ip, port, service, timeout).await?);
    }
    if let Some(action) = &probe.exec {
        let command = action.command.clone().unwrap_or_default();
        let output =
            target.runtime.service.exec_sync(&target.container_id, &command, timeout).await.map_err(
                |error| match error {
                    wherry_runtimes::Error::DeadlineExceeded(_) => Failure::Said(format!(
                        "command timed out: {:?} timed out after {}s",
                        command.join(" "),
                        timeout.as_secs()
                    )),
                    error => Failure::Unknown(error.to_string()),
                },
            )?;
        return match output.exit_code {
            0 => Ok(()),
            _ => {
                let text = [output.stdout, output.stderr].concat();
                let text = String::from_utf8_lossy(&text[..text.len().min(10 * 1024)]).into_owned();
                Err(Failure::Said(text))
            }
        };
    }
    Err(Failure::Unknown("missing probe handler".to_owned()))
}
