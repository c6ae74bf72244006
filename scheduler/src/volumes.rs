//! What is known of storage, and what a pod's claims need on a node. Pure.
//!
//! Source: `k8s.io/kubernetes/pkg/scheduler/framework/plugins/volumebinding`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use wherry_client::ObjectKey;
use wherry_client::volumes::{
    SELECTED_NODE, Search, best_match, claim_annotation, class_of_claim, is_bound_to, is_fully_bound,
    requested, volume_name, waits_for_consumer,
};
use wherry_machinery::quantity::Quantity;

use crate::framework::Reason;
use crate::pod_info::PodInfo;
use crate::selector::RequiredNodes;
use crate::snapshot::NodeInfo;

/// A class whose volumes are all made by hand.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// A volume of the pod is for other nodes.
const NODE_CONFLICT: &str = "node(s) had volume node affinity conflict";
/// No volume for a claim, and none can be made there.
const BIND_CONFLICT: &str = "node(s) didn't find available persistent volumes to bind";
/// A claim's volume is gone.
const VOLUME_GONE: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";

/// Claims, volumes and classes, with what was decided about them and is not seen there yet.
#[derive(Debug, Clone, Default)]
pub struct Volumes {
    claims: HashMap<ObjectKey, Arc<PersistentVolumeClaim>>,
    volumes: BTreeMap<String, Arc<PersistentVolume>>,
    classes: HashMap<String, Arc<StorageClass>>,
    /// Volumes that were chosen for the claims of a pod, with that pod's uid.
    assumed: HashMap<String, String>,
    /// How many pods that have a node use a claim.
    users: HashMap<ObjectKey, usize>,
}

/// What a decision for a node means for claims that had waited for one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VolumePlan {
    /// Volumes that are there, and the claims that get them.
    pub bind: Vec<(Arc<PersistentVolume>, Arc<PersistentVolumeClaim>)>,
    /// Claims for which a volume is to be made on the node.
    pub provision: Vec<Arc<PersistentVolumeClaim>>,
    /// Whether there is also a claim that has its volume and was not told so yet.
    pub is_under_way: bool,
}

impl VolumePlan {
    /// Whether nothing is to be told to anybody, or waited for.
    pub fn is_empty(&self) -> bool {
        self.bind.is_empty() && self.provision.is_empty() && !self.is_under_way
    }
}

impl Volumes {
    pub(crate) fn set_claim(&mut self, claim: Arc<PersistentVolumeClaim>) {
        self.claims.insert(ObjectKey::of(&*claim), claim);
    }

    pub(crate) fn remove_claim(&mut self, claim: &PersistentVolumeClaim) {
        self.claims.remove(&ObjectKey::of(claim));
    }

    pub(crate) fn set_volume(&mut self, volume: Arc<PersistentVolume>) {
        self.volumes.insert(volume.metadata.name.clone().unwrap_or_default(), volume);
    }

    pub(crate) fn remove_volume(&mut self, volume: &PersistentVolume) {
        self.volumes.remove(volume.metadata.name.as_deref().unwrap_or_default());
    }

    pub(crate) fn set_class(&mut self, class: Arc<StorageClass>) {
        self.classes.insert(class.metadata.name.clone().unwrap_or_default(), class);
    }

    pub(crate) fn remove_class(&mut self, class: &StorageClass) {
        self.classes.remove(class.metadata.name.as_deref().unwrap_or_default());
    }

    pub(crate) fn add_user(&mut self, pod: &PodInfo) {
        for claim in &pod.claims {
            *self.users.entry(claim.key.clone()).or_default() += 1;
        }
    }

    pub(crate) fn remove_user(&mut self, pod: &PodInfo) {
        for claim in &pod.claims {
            if let Some(count) = self.users.get_mut(&claim.key) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.users.remove(&claim.key);
                }
            }
        }
    }

    /// The plan's volumes are no other pod's any more.
    pub(crate) fn assume(&mut self, pod: &PodInfo, plan: &VolumePlan) {
        for (volume, _) in &plan.bind {
            self.assumed.insert(volume.metadata.name.clone().unwrap_or_default(), pod.uid.clone());
        }
    }

    /// Nothing is decided any more, or it is seen in the objects.
    pub(crate) fn forget(&mut self, pod: &PodInfo) {
        self.assumed.retain(|_, uid| *uid != pod.uid);
    }

    /// Whether every claim of the pod has its volume.
    pub fn are_bound(&self, pod: &PodInfo) -> bool {
        pod.claims.iter().all(|claim| self.claims.get(&claim.key).is_some_and(|claim| is_fully_bound(claim)))
    }

    /// The volumes that the pod's claims are bound to, as far as both are there.
    pub fn bound_volumes(&self, pod: &PodInfo) -> impl Iterator<Item = &PersistentVolume> {
        pod.claims.iter().filter_map(|claim| {
            let claim = self.claims.get(&claim.key).filter(|claim| is_fully_bound(claim))?;
            self.volumes.get(volume_name(claim)).map(AsRef::as_ref)
        })
    }

    /// Whether a pod that has a node uses a claim of this pod that is for one pod alone.
    pub fn is_taken_by_another(&self, pod: &PodInfo) -> bool {
        pod.claims.iter().any(|claim| {
            let modes = self
                .claims
                .get(&claim.key)
                .and_then(|claim| claim.spec.as_ref()?.access_modes.as_deref())
                .unwrap_or_default();
            modes.iter().any(|mode| mode == "ReadWriteOncePod") && self.users.contains_key(&claim.key)
        })
    }

    /// Why the pod cannot run anywhere for now; in Kubernetes' words.
    pub fn obstacle(&self, pod: &PodInfo) -> Option<String> {
        for claim_use in &pod.claims {
            let name = &claim_use.key.name;
            let Some(claim) = self.claims.get(&claim_use.key) else {
                return Some(if claim_use.is_ephemeral {
                    format!(
                        "waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"
                    )
                } else {
                    format!("persistentvolumeclaim {name:?} not found")
                });
            };
            if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost") {
                let volume = volume_name(claim);
                return Some(format!(
                    "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
                ));
            }
            if claim.metadata.deletion_timestamp.is_some() {
                return Some(format!("persistentvolumeclaim {name:?} is being deleted"));
            }
        }
        let is_immediate = |claim: &PersistentVolumeClaim| {
            let class = self.classes.get(class_of_claim(claim)).map(AsRef::as_ref);
            let is_later = volume_name(claim).is_empty() && waits_for_consumer(class);
            !(is_fully_bound(claim) || is_later)
        };
        let waits =
            pod.claims.iter().filter_map(|claim| self.claims.get(&claim.key)).any(|c| is_immediate(c));
        waits.then(|| "pod has unbound immediate PersistentVolumeClaims".to_owned())
    }

    /// What the pod's claims need on a node.
    ///
    /// # Errors
    /// Why the node will not do.
    pub fn plan(&self, pod: &PodInfo, node: &NodeInfo) -> Result<VolumePlan, Vec<Reason>> {
        let mut unbound = Vec::new();
        let mut reasons: Vec<Reason> = Vec::new();
        for claim_use in &pod.claims {
            let Some(claim) = self.claims.get(&claim_use.key) else { continue };
            if !is_fully_bound(claim) {
                unbound.push(claim);
                continue;
            }
            let reason = match self.volumes.get(volume_name(claim)) {
                None => VOLUME_GONE,
                Some(volume) if !is_for(volume, node) => NODE_CONFLICT,
                Some(_) => continue,
            };
            if !reasons.iter().any(|given| given == reason) {
                reasons.push(reason.into());
            }
        }
        match self.plan_unbound(pod, node, unbound) {
            Some(plan) if reasons.is_empty() => Ok(plan),
            Some(_) => Err(reasons),
            None => {
                reasons.push(BIND_CONFLICT.into());
                Err(reasons)
            }
        }
    }

    /// The smallest claims choose first; `None` if one finds nothing.
    fn plan_unbound(
        &self,
        pod: &PodInfo,
        node: &NodeInfo,
        mut unbound: Vec<&Arc<PersistentVolumeClaim>>,
    ) -> Option<VolumePlan> {
        unbound.sort_by_key(|claim| -> Quantity { requested(claim) });
        let mut plan = VolumePlan::default();
        for claim in unbound {
            if let Some(selected) = claim_annotation(claim, SELECTED_NODE) {
                // It is being made there already.
                if selected != node.name {
                    return None;
                }
                plan.provision.push(Arc::clone(claim));
                continue;
            }
            let is_usable = |volume: &PersistentVolume| {
                let name = volume.metadata.name.as_deref().unwrap_or_default();
                let is_assumed = self.assumed.get(name).is_some_and(|uid| *uid != pod.uid);
                let is_chosen =
                    plan.bind.iter().any(|(chosen, _)| chosen.metadata.name == volume.metadata.name);
                !is_assumed && !is_chosen && is_for(volume, node)
            };
            let volumes = self.volumes.values().map(AsRef::as_ref);
            let found = best_match(volumes, claim, Search::Free, is_usable);
            match found.and_then(|volume| self.volumes.get(volume.metadata.name.as_deref()?)) {
                Some(volume) if is_bound_to(volume, claim) && has_uid(volume) => plan.is_under_way = true,
                Some(volume) => plan.bind.push((Arc::clone(volume), Arc::clone(claim))),
                None if self.can_provision(claim, node) => plan.provision.push(Arc::clone(claim)),
                None => return None,
            }
        }
        Some(plan)
    }

    fn can_provision(&self, claim: &PersistentVolumeClaim, node: &NodeInfo) -> bool {
        let Some(class) = self.classes.get(class_of_claim(claim)) else { return false };
        if class.provisioner.is_empty() || class.provisioner == NO_PROVISIONER {
            return false;
        }
        let labels = node.node.metadata.labels.as_ref();
        let topologies = class.allowed_topologies.as_deref().unwrap_or_default();
        topologies.is_empty()
            || topologies.iter().any(|term| {
                term.match_label_expressions.iter().flatten().all(|requirement| {
                    labels
                        .and_then(|labels| labels.get(&requirement.key))
                        .is_some_and(|value| requirement.values.contains(value))
                })
            })
    }
}

fn has_uid(volume: &PersistentVolume) -> bool {
    wherry_client::volumes::claim_of(volume).is_some_and(|claim| claim.uid.is_some())
}

/// Whether the volume can be had on the node.
fn is_for(volume: &PersistentVolume, node: &NodeInfo) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref()?.required.as_ref());
    let none = BTreeMap::new();
    affinity.is_none_or(|selector| {
        let labels = node.node.metadata.labels.as_ref().unwrap_or(&none);
        RequiredNodes::of_selector(selector).matches(&node.name, labels)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{node, pod_with};

    fn info(name: &str) -> NodeInfo {
        NodeInfo::new(node(name, "4"))
    }

    fn pod(claims: &[&str]) -> Arc<PodInfo> {
        let volumes: Vec<Value> = claims
            .iter()
            .map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}))
            .collect();
        pod_with("p", json!({"volumes": volumes}))
    }

    fn claim(name: &str, size: &str, edit: impl Fn(&mut Value)) -> Arc<PersistentVolumeClaim> {
        let mut claim = json!({"metadata": {"name": name, "namespace": "default", "uid": name, "annotations": {}},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "wait", "resources": {"requests": {"storage": size}}}});
        edit(&mut claim);
        Arc::new(serde_json::from_value(claim).unwrap())
    }

    fn bound(name: &str, volume: &str) -> Arc<PersistentVolumeClaim> {
        claim(name, "1Gi", |c| {
            c["spec"]["volumeName"] = volume.into();
            c["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] = "yes".into();
        })
    }

    fn volume(name: &str, size: &str, node: &str) -> Arc<PersistentVolume> {
        Arc::new(
            serde_json::from_value(
                json!({"metadata": {"name": name}, "status": {"phase": "Available"}, "spec": {
                "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": "wait",
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]}}}}),
            )
            .unwrap(),
        )
    }

    fn storage(provisioner: &str) -> Volumes {
        let mut volumes = Volumes::default();
        for (name, mode) in [("wait", "WaitForFirstConsumer"), ("now", "Immediate")] {
            let class =
                json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode});
            volumes.set_class(Arc::new(serde_json::from_value(class).unwrap()));
        }
        volumes
    }

    #[test]
    fn obstacles_are_told_in_kubernetes_words() {
        let with = |claim: Arc<PersistentVolumeClaim>| {
            let mut volumes = storage("p");
            volumes.set_claim(claim);
            volumes.obstacle(&pod(&["c"]))
        };
        let text = |text: &str| Some(text.to_owned());
        let table = [
            (storage("p").obstacle(&pod(&["c"])), text("persistentvolumeclaim \"c\" not found")),
            (with(claim("c", "1Gi", |_| {})), None),
            (with(bound("c", "v")), None),
            (
                with(claim("c", "1Gi", |c| c["spec"]["storageClassName"] = "now".into())),
                text("pod has unbound immediate PersistentVolumeClaims"),
            ),
            (
                with(claim("c", "1Gi", |c| {
                    c["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into()
                })),
                text("persistentvolumeclaim \"c\" is being deleted"),
            ),
            (
                with(claim("c", "1Gi", |c| {
                    c["spec"]["volumeName"] = "gone".into();
                    c["status"] = json!({"phase": "Lost"});
                })),
                text("persistentvolumeclaim \"c\" bound to non-existent persistentvolume \"gone\""),
            ),
        ];
        for (seen, expected) in table {
            assert_eq!(seen, expected);
        }
        let ephemeral = pod_with(
            "p",
            json!({"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]}),
        );
        assert_eq!(
            storage("p").obstacle(&ephemeral),
            text("waiting for ephemeral volume controller to create the persistentvolumeclaim \"p-v\"")
        );
    }

    #[test]
    fn a_bound_volume_ties_the_pod_to_its_node() {
        let mut volumes = storage("p");
        volumes.set_claim(bound("c", "v"));
        assert_eq!(volumes.plan(&pod(&["c"]), &info("n1")), Err(vec![VOLUME_GONE.into()]));
        volumes.set_volume(volume("v", "1Gi", "n1"));
        assert_eq!(volumes.plan(&pod(&["c"]), &info("n1")), Ok(VolumePlan::default()));
        assert_eq!(volumes.plan(&pod(&["c"]), &info("n2")), Err(vec![NODE_CONFLICT.into()]));
        assert!(volumes.are_bound(&pod(&["c"])));
    }

    #[test]
    fn claims_that_waited_get_volumes_of_the_node_or_new_ones() {
        let names = |plan: Result<VolumePlan, Vec<Reason>>| {
            plan.map(|plan| {
                let name = |name: &Option<String>| name.clone().unwrap_or_default();
                let bind: Vec<_> = plan
                    .bind
                    .iter()
                    .map(|(volume, claim)| {
                        format!("{}={}", name(&claim.metadata.name), name(&volume.metadata.name))
                    })
                    .collect();
                let provision: Vec<_> =
                    plan.provision.iter().map(|claim| name(&claim.metadata.name)).collect();
                (bind, provision)
            })
        };
        for (provisioner, expected) in [
            ("p", Ok((vec!["small=v1".to_owned()], vec!["large".to_owned()]))),
            (NO_PROVISIONER, Err(vec![Reason::from(BIND_CONFLICT)])),
        ] {
            let mut volumes = storage(provisioner);
            volumes.set_claim(claim("large", "5Gi", |_| {}));
            volumes.set_claim(claim("small", "1Gi", |_| {}));
            volumes.set_volume(volume("v1", "2Gi", "n1"));
            volumes.set_volume(volume("v2", "9Gi", "n2"));
            assert_eq!(names(volumes.plan(&pod(&["large", "small"]), &info("n1"))), expected);
        }
    }

    #[test]
    fn what_was_decided_for_one_pod_is_not_given_to_another() {
        let mut volumes = storage(NO_PROVISIONER);
        volumes.set_claim(claim("a", "1Gi", |_| {}));
        volumes.set_claim(claim("b", "1Gi", |_| {}));
        volumes.set_volume(volume("v", "1Gi", "n1"));
        let (first, second) = (
            pod(&["a"]),
            pod_with("q", json!({"volumes": [{"name": "b", "persistentVolumeClaim": {"claimName": "b"}}]})),
        );
        let plan = volumes.plan(&first, &info("n1")).unwrap();
        volumes.assume(&first, &plan);
        assert_eq!(volumes.plan(&second, &info("n1")), Err(vec![BIND_CONFLICT.into()]));
        volumes.forget(&first);
        assert!(volumes.plan(&second, &info("n1")).is_ok());
    }

    #[test]
    fn a_claim_that_is_provisioned_keeps_its_node() {
        let mut volumes = storage("p");
        volumes.set_claim(claim("c", "1Gi", |c| c["metadata"]["annotations"][SELECTED_NODE] = "n1".into()));
        assert_eq!(volumes.plan(&pod(&["c"]), &info("n2")), Err(vec![BIND_CONFLICT.into()]));
        assert_eq!(volumes.plan(&pod(&["c"]), &info("n1")).unwrap().provision.len(), 1);
    }

    #[test]
    fn a_claim_for_one_pod_is_taken_by_its_first() {
        let mut volumes = storage("p");
        volumes.set_claim(claim("c", "1Gi", |c| c["spec"]["accessModes"] = json!(["ReadWriteOncePod"])));
        assert!(!volumes.is_taken_by_another(&pod(&["c"])));
        volumes.add_user(&pod(&["c"]));
        assert!(volumes.is_taken_by_another(&pod(&["c"])));
        volumes.remove_user(&pod(&["c"]));
        assert!(!volumes.is_taken_by_another(&pod(&["c"])));
    }
}
