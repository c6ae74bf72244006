//! Pods that must leave a tainted node.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use wherry_client::{EventType, ObjectKey, is_conflict, is_not_found, object_ref};

use super::NodeLifecycle;
use super::plan::{Eviction, eviction};
use crate::error::Error;
use crate::pods;

impl NodeLifecycle {
    /// Deletes the pod if its node's taints leave it no more time, or looks again when they will.
    pub(super) async fn evict_if_due(&self, key: &ObjectKey) -> Result<(), Error> {
        let Some(pod) = self.pods.store().get(&key.namespace, &key.name) else { return Ok(()) };
        if pods::is_terminating(&pod) {
            return Ok(());
        }
        let Some(node) = self.nodes.store().get("", pods::node_name(&pod)) else { return Ok(()) };
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        match eviction(&pod, taints, Timestamp::now()) {
            Eviction::Never => Ok(()),
            Eviction::After(left) => {
                self.evictions.add_after(key.clone(), left);
                Ok(())
            }
            Eviction::Now => self.evict(&pod).await,
        }
    }

    async fn evict(&self, pod: &Pod) -> Result<(), Error> {
        let message = format!("Marking for deletion Pod {}/{}", pods::namespace(pod), pods::name(pod));
        self.events.event(&object_ref(pod), EventType::Normal, "TaintManagerEviction", message);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), pods::namespace(pod));
        let patch = json!({ "metadata": { "uid": pod.metadata.uid }, "status": { "conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": Time(Timestamp::now()),
        }] } });
        match api.patch_status(pods::name(pod), &PatchParams::default(), &Patch::Strategic(patch)).await {
            Err(error) if is_not_found(&error) || is_conflict(&error) => return Ok(()),
            outcome => drop(outcome.map_err(Error::api("marking a pod for eviction"))?),
        }
        let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        match api.delete(pods::name(pod), &params).await {
            Err(error) if !(is_not_found(&error) || is_conflict(&error)) => {
                Err(Error::api("evicting a pod")(error))
            }
            _ => Ok(()),
        }
    }
}
