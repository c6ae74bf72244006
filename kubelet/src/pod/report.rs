//! Writing a pod's status, and setting up its volumes: the worker's other duties.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::Value;
use tokio::time::Instant;
use wherry_client::EventType;

use super::field_ref::PodFacts;
use super::status::{WorkerView, generate_status};
use super::status_patch::status_patch;
use super::worker::{Done, Origin, Stage, Worker};
use crate::volumes::claims::{Occasion, claimed_volumes};
use crate::volumes::mount::{Place, VolumePaths, set_up};
use crate::volumes::payload::PayloadInput;

impl Worker {
    fn desired_status(&self) -> Value {
        let view = WorkerView {
            waiting: self.waiting.clone(),
            ended: self.ended.clone(),
            is_terminal: self.stage == Stage::Terminated,
            host_ip: &self.kubelet.host_ip,
            runtime_name: self.runtime.as_ref().map_or("", |r| r.name()),
            start_time: Some(self.start_time),
        };
        let subject = self.subject();
        let status = generate_status(&subject, &self.observed, &view, self.kubelet.now());
        serde_json::to_value(status).unwrap_or_default()
    }

    /// The object whose status is written, with this pod's definition: a static pod's mirror, else the pod.
    fn subject(&self) -> Arc<Pod> {
        match (&self.mirror, self.origin) {
            (Some(mirror), Origin::Static) => {
                let mut pod = Pod::clone(&self.pod);
                pod.status.clone_from(&mirror.status);
                pod.metadata.generation = mirror.metadata.generation;
                Arc::new(pod)
            }
            _ => self.pod.clone(),
        }
    }

    /// Whether the API server has been told the present status.
    pub(super) fn is_published(&self) -> bool {
        self.last_sent.as_ref() == Some(&self.desired_status())
    }

    /// Writes the status when it changed; at most one write is under way.
    pub(super) fn publish(&mut self) {
        if self.is_writing || self.stage == Stage::Gone {
            return;
        }
        let target = match (self.origin, &self.mirror) {
            (Origin::Api, _) => self.pod.clone(),
            (Origin::Static, Some(mirror)) => mirror.clone(),
            (Origin::Static, None) => return,
        };
        if let Some(at) = self.write_at {
            if at > Instant::now() {
                self.wake_in(at - Instant::now());
                return;
            }
            self.write_at = None;
        }
        let desired = self.desired_status();
        if self.last_sent.as_ref() == Some(&desired) {
            return;
        }
        let known = serde_json::to_value(&target.status).unwrap_or_default();
        let uid = target.metadata.uid.clone().unwrap_or_default();
        let Some(patch) = status_patch(&uid, &known, &desired) else {
            self.last_sent = Some(desired);
            return;
        };
        self.is_writing = true;
        let namespace = target.metadata.namespace.clone().unwrap_or_default();
        let name = target.metadata.name.clone().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.kubelet.client.clone(), &namespace);
        self.tasks.spawn(async move {
            let result = api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(&patch)).await;
            Done::Written { sent: desired, result: result.map(Box::new) }
        });
    }

    pub(super) fn written(&mut self, sent: Value, result: Result<Box<Pod>, kube::Error>) {
        self.is_writing = false;
        match result {
            Ok(pod) => {
                self.write_failures = 0;
                self.last_sent = Some(sent);
                match self.origin {
                    Origin::Api => self.take_pod(Arc::from(pod)),
                    Origin::Static => self.mirror = Some(Arc::from(pod)),
                }
            }
            Err(kube::Error::Api(status)) if status.code == 404 => match self.origin {
                // The informer tells that the pod is gone; nothing is to be written until then.
                Origin::Api => self.last_sent = Some(sent),
                Origin::Static => self.mirror = None,
            },
            Err(kube::Error::Api(status)) if status.code == 409 && self.origin == Origin::Api => {
                // Another pod of the same name: ours is gone.
                self.last_sent = Some(sent);
            }
            Err(error) => {
                let delay = Duration::from_millis(100) * 2_u32.saturating_pow(self.write_failures.min(8));
                self.write_failures = self.write_failures.saturating_add(1);
                self.write_at = Some(Instant::now() + delay.min(Duration::from_secs(10)));
                tracing::debug!(%error, pod = %crate::kubelet::format_pod(&self.pod), "status cannot be written");
            }
        }
    }

    /// Sets the pod's volumes up when they are not, or when what they show changed.
    pub(super) async fn set_up_volumes(&mut self) -> bool {
        let now = self.kubelet.now();
        if let Some(renewal) = self.tokens.next_renewal() {
            if renewal <= now {
                self.refresh_volumes = true;
            } else {
                self.wake_in(super::backoff::elapsed(now, renewal));
            }
        }
        if self.volumes.is_some() && !self.refresh_volumes {
            return true;
        }
        if !self.may_retry("volumes") {
            return self.volumes.is_some();
        }
        let mounted = self.mount_volumes().await;
        self.note_volumes(mounted);
        self.volumes.is_some()
    }

    /// Everything that mounting needs, as a future of its own.
    pub(super) fn mount_volumes(&self) -> impl Future<Output = Result<VolumePaths, String>> + Send + use<> {
        let (kubelet, pod, tokens) = (self.kubelet.clone(), self.pod.clone(), self.tokens.clone());
        let (uid, references) = (self.uid.clone(), self.references.clone());
        let pod_ips = self.pod_ips();
        // What ran before this kubelet had its volumes too.
        let has_volumes = self.volumes.is_some() || !self.observed.containers.is_empty();
        let occasion = if has_volumes { Occasion::Again } else { Occasion::First };
        async move {
            if pod.spec.as_ref().and_then(|s| s.volumes.as_ref()).is_none_or(Vec::is_empty) {
                return Ok(VolumePaths::new());
            }
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let now = kubelet.now();
            let gather = kubelet.objects.gather(&uid, namespace, &references);
            let claims = claimed_volumes(&kubelet.client, &pod, occasion);
            let (sources, tokens, claimed) =
                futures::join!(gather, tokens.current(&kubelet.client, &pod, now), claims);
            let sources = sources.map_err(|error| error.to_string())?;
            let claimed = claimed?;
            let work = kubelet.clone();
            let mounting = tokio::task::spawn_blocking(move || {
                let facts = PodFacts {
                    host_ip: work.host_ip.clone(),
                    pod_ips,
                    allocatable: work.allocatable.clone(),
                };
                let input = PayloadInput { pod: &pod, sources: &sources, facts: &facts, tokens: &tokens };
                let pod_dir = work.pod_dir(&uid);
                let place = Place { pod_dir: &pod_dir, claimed: &claimed, rules: &work.volume_rules };
                set_up(place, input, now)
            });
            match mounting.await {
                Ok(Ok(paths)) => Ok(paths),
                Ok(Err(failed)) => {
                    Err(format!("MountVolume.SetUp failed for volume {:?} : {}", failed.name, failed.error))
                }
                Err(error) => Err(error.to_string()),
            }
        }
    }

    pub(super) fn note_volumes(&mut self, mounted: Result<VolumePaths, String>) {
        match mounted {
            Ok(paths) => {
                self.volumes = Some(paths);
                self.refresh_volumes = false;
                self.retry_at.remove("volumes");
            }
            Err(message) => {
                self.kubelet.pod_event(&self.pod, EventType::Warning, "FailedMount", message);
                self.failed("volumes", Duration::from_millis(500));
            }
        }
    }
}
