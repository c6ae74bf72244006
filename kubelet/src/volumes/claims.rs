//! The volumes that a pod's claims are bound to, asked of the API server.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use kube::{Api, Client};
use wherry_client::volumes::{ephemeral_claim_name, is_bound_to, is_fully_bound, volume_name};

/// Whether the pod has its volumes already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// They are set up for the first time.
    First,
    /// They are brought up to date: a claim may be on its way out.
    Again,
}

/// Persistent volumes by the names of a pod's volumes.
pub type ClaimedVolumes = BTreeMap<String, Arc<PersistentVolume>>;

/// Looks up every claim of a pod and its volume.
///
/// # Errors
/// The text of the event `FailedMount`, as the kubelet words it.
pub async fn claimed_volumes(
    client: &Client,
    pod: &Pod,
    occasion: Occasion,
) -> Result<ClaimedVolumes, String> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let claims = volumes.iter().filter_map(|volume| Some((volume.name.clone(), claim_name(pod, volume)?)));
    let found = join_all(claims.map(|(volume, claim)| async move {
        let looked_up = look_up(client, pod, volumes, &volume, &claim, occasion).await;
        (volume, claim, looked_up)
    }))
    .await;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut claimed = ClaimedVolumes::new();
    for (volume, claim, looked_up) in found {
        match looked_up {
            Ok(persistent) => drop(claimed.insert(volume, persistent)),
            Err(why) => {
                return Err(format!(
                    "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached volumes=[], \
                     failed to process volumes=[{volume}]: error processing PVC {namespace}/{claim}: {why}"
                ));
            }
        }
    }
    Ok(claimed)
}

fn claim_name(pod: &Pod, volume: &Volume) -> Option<String> {
    match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone()),
        (None, Some(_)) => {
            Some(ephemeral_claim_name(pod.metadata.name.as_deref().unwrap_or_default(), &volume.name))
        }
        (None, None) => None,
    }
}

async fn look_up(
    client: &Client,
    pod: &Pod,
    volumes: &[Volume],
    volume: &str,
    claim: &str,
    occasion: Occasion,
) -> Result<Arc<PersistentVolume>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let found = claims
        .get(claim)
        .await
        .map_err(|error| format!("failed to fetch PVC from API server: {}", told(&error)))?;
    let is_ephemeral = volumes.iter().any(|v| v.name == volume && v.ephemeral.is_some());
    check_claim(&found, pod, is_ephemeral, occasion)?;
    let name = volume_name(&found);
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let persistent = volumes
        .get(name)
        .await
        .map_err(|error| format!("failed to fetch PV {name} from API server: {}", told(&error)))?;
    if !is_bound_to(&persistent, &found) {
        return Err(format!("PV {name} is not bound to this PVC"));
    }
    Ok(Arc::new(persistent))
}

fn told(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

fn check_claim(
    claim: &PersistentVolumeClaim,
    pod: &Pod,
    is_ephemeral: bool,
    occasion: Occasion,
) -> Result<(), String> {
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let owner = wherry_client::object_ref::controller_of(claim).map(|owner| owner.uid.as_str());
    if is_ephemeral && owner != pod.metadata.uid.as_deref() {
        return Err(format!("PVC {name:?} was not created for the pod"));
    }
    // A claim that is being deleted is not given to a pod that did not have it before.
    if occasion == Occasion::First && claim.metadata.deletion_timestamp.is_some() {
        return Err("PVC is being deleted".to_owned());
    }
    if is_fully_bound(claim) { Ok(()) } else { Err("PVC is not bound".to_owned()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_must_be_bound_and_stay() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}})).unwrap();
        let claim = |bound: bool, deleted: bool| -> PersistentVolumeClaim {
            let mut claim = json!({"metadata": {"name": "c"}, "spec": {"volumeName": "v"}});
            if bound {
                claim["metadata"]["annotations"] = json!({"pv.kubernetes.io/bind-completed": "yes"});
            }
            if deleted {
                claim["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            }
            serde_json::from_value(claim).unwrap()
        };
        let table = [
            (claim(true, false), Occasion::First, Ok(())),
            (claim(false, false), Occasion::First, Err("PVC is not bound".to_owned())),
            (claim(true, true), Occasion::First, Err("PVC is being deleted".to_owned())),
            (claim(true, true), Occasion::Again, Ok(())),
        ];
        for (claim, occasion, expected) in table {
            assert_eq!(check_claim(&claim, &pod, false, occasion), expected);
        }
        let foreign = check_claim(&claim(true, false), &pod, true, Occasion::First);
        assert_eq!(foreign, Err("PVC \"c\" was not created for the pod".to_owned()));
    }
}
