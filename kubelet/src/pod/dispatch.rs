//! Bringing pods to their workers.

use std::sync::{Arc, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use wherry_client::Change;

use super::admission::{NodeView, admit};
use super::labels;
use super::worker::{Origin, Worker};
use crate::kubelet::Kubelet;

impl Kubelet {
    /// Takes a change of the pods bound to this node.
    pub(crate) fn pod_changed(self: &Arc<Self>, change: Change<'_, Pod>) {
        match change {
            Change::Deleted(pod) => self.pod_removed(pod),
            Change::Added(pod) => self.pod_seen(pod),
            Change::Updated { old, new } => {
                if old.metadata.uid != new.metadata.uid {
                    self.pod_removed(old);
                }
                self.pod_seen(new);
            }
        }
    }

    fn pod_seen(self: &Arc<Self>, pod: &Arc<Pod>) {
        if let Some(uid) = mirrored_uid(pod) {
            self.static_pods.mirror_seen(pod);
            if let Some(mailbox) = self.workers.get(&uid) {
                let pod = pod.clone();
                mailbox.post(|inbox| inbox.mirror = Some(pod));
            }
            return;
        }
        self.dispatch(pod, Origin::Api);
    }

    fn pod_removed(self: &Arc<Self>, pod: &Arc<Pod>) {
        if mirrored_uid(pod).is_some() {
            self.static_pods.mirror_gone(pod);
            return;
        }
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if let Some(mailbox) = self.workers.get(uid) {
            let pod = pod.clone();
            mailbox.post(|inbox| {
                inbox.pod = Some(pod);
                inbox.is_removed = true;
            });
        }
    }

    /// Gives a definition to the pod's worker; a new pod is checked and gets one.
    pub(crate) fn dispatch(self: &Arc<Self>, pod: &Arc<Pod>, origin: Origin) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if uid.is_empty() {
            return;
        }
        let (mailbox, is_new) = self.workers.get_or_insert(&uid);
        if !is_new {
            let pod = pod.clone();
            mailbox.post(|inbox| inbox.pod = Some(pod));
            return;
        }
        let mut worker = Worker::new(self.clone(), pod.clone(), origin, mailbox);
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        let is_over =
            matches!(phase, Some("Failed" | "Succeeded")) || pod.metadata.deletion_timestamp.is_some();
        if !is_over {
            let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
            // What ran here before this kubelet started was admitted then.
            let refusal =
                if worker.has_history() { None } else { admit(&self.node_view(), &admitted, pod).err() };
            match refusal {
                Some(refusal) => worker.refuse(&refusal.reason, &refusal.message),
                None => admitted.add(&uid, pod),
            }
        }
        self.tasks.spawn(worker.run());
    }

    /// The pod uses nothing of the node any more.
    pub(crate) fn forget_admitted(&self, uid: &str) {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    fn node_view(&self) -> NodeView {
        let node = self.own_node.store().get("", &self.config.node_name);
        let labels = node.as_ref().and_then(|n| n.metadata.labels.clone());
        NodeView {
            name: self.config.node_name.clone(),
            labels: labels.unwrap_or_else(|| crate::node::labels(&self.config)),
            taints: node.and_then(|n| n.spec.as_ref().and_then(|s| s.taints.clone())).unwrap_or_default(),
            allocatable: self.allocatable.clone(),
        }
    }
}

/// The uid of the static pod that a mirror pod shows. Whoever may write a pod can annotate it: what no kubelet would have
/// written counts for nothing.
pub(crate) fn mirrored_uid(pod: &Pod) -> Option<String> {
    let uid = pod.metadata.annotations.as_ref()?.get(labels::CONFIG_MIRROR)?;
    let is_hash = uid.len() == 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then(|| uid.clone())
}
