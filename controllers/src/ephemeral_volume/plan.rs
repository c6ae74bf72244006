//! Which claims a pod's ephemeral volumes need. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use wherry_client::object_ref::{controller_of, controller_ref};
use wherry_client::volumes::ephemeral_claim_name;

use crate::pods;

/// What is to be done for one volume.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// The claim is missing.
    Make(Box<PersistentVolumeClaim>),
    /// A claim of that name is somebody else's; in Kubernetes' words.
    Refuse(String),
}

/// Decides. `present` looks a claim of the pod's namespace up.
pub(crate) fn plan_claims(
    pod: &Pod,
    present: impl Fn(&str) -> Option<Arc<PersistentVolumeClaim>>,
) -> Vec<Step> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let step = |volume: &k8s_openapi::api::core::v1::Volume| {
        let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
        let name = ephemeral_claim_name(pods::name(pod), &volume.name);
        if let Some(claim) = present(&name) {
            let is_own = controller_of(&*claim).is_some_and(|owner| owner.uid == pods::uid(pod));
            let why = || {
                let namespace = pods::namespace(pod);
                let pod = pods::name(pod);
                format!(
                    "ephemeral volume {}: PVC {namespace}/{name} was not created for pod {namespace}/{pod} (pod is not owner)",
                    volume.name
                )
            };
            return (!is_own).then(|| Step::Refuse(why()));
        }
        let metadata = template.metadata.clone().unwrap_or_default();
        Some(Step::Make(Box::new(PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: pod.metadata.namespace.clone(),
                labels: metadata.labels,
                annotations: metadata.annotations,
                owner_references: Some(vec![controller_ref(pod)]),
                ..ObjectMeta::default()
            },
            spec: Some(template.spec.clone()),
            status: None,
        })))
    };
    volumes.iter().filter_map(step).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_missing_claim_is_made_and_another_s_is_left_alone() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [], "volumes": [
                {"name": "plain", "emptyDir": {}},
                {"name": "v", "ephemeral": {"volumeClaimTemplate": {"metadata": {"labels": {"a": "b"}},
                    "spec": {"accessModes": ["ReadWriteOnce"]}}}},
            ]},
        }))
        .unwrap();
        let made = plan_claims(&pod, |_| None);
        let [Step::Make(claim)] = made.as_slice() else { panic!("one claim is made") };
        assert_eq!(claim.metadata.name.as_deref(), Some("p-v"));
        assert_eq!(controller_of(&**claim).map(|owner| owner.uid.as_str()), Some("u"));
        let own = Arc::new((**claim).clone());
        assert!(plan_claims(&pod, |_| Some(own.clone())).is_empty());
        let foreign = Arc::new(PersistentVolumeClaim::default());
        assert_eq!(
            plan_claims(&pod, |_| Some(foreign.clone())),
            [Step::Refuse(
                "ephemeral volume v: PVC n/p-v was not created for pod n/p (pod is not owner)".to_owned()
            )]
        );
    }
}
