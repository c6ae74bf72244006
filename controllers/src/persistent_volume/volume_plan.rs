//! What is to be done with a volume. Source: `syncVolume` of `k8s.io/kubernetes/pkg/controller/volume/persistentvolume`.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use wherry_client::volumes::{
    BOUND_BY_CONTROLLER, PROVISIONED_BY, claim_of, mode_of_claim, mode_of_volume, phase_of_volume,
    reclaim_policy, volume_annotation, volume_name,
};

use super::claim_plan::Note;

/// What is to be done with a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct VolumePlan {
    /// The phase it is to have, if another than now.
    pub(crate) phase: Option<&'static str>,
    /// Why it failed, if it did.
    pub(crate) failure: Option<Note>,
    /// Something to tell.
    pub(crate) note: Option<Note>,
    /// Whether its claim is to be looked at.
    pub(crate) sync_claim: bool,
    /// The reference to the claim is to be taken back.
    pub(crate) unbind: Option<Unbind>,
}

/// How much of the reference to a claim is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unbind {
    /// All: the controller had chosen the claim.
    All,
    /// The uid: a user had named the claim.
    Uid,
}

/// Decides. `claim` is the one that the volume names, if it is there with that uid.
pub(crate) fn plan_volume(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> VolumePlan {
    let mut plan = VolumePlan::default();
    let phase = |plan: &mut VolumePlan, wanted: &'static str| {
        plan.phase = (phase_of_volume(volume) != wanted).then_some(wanted);
    };
    let Some(reference) = claim_of(volume) else {
        phase(&mut plan, "Available");
        return plan;
    };
    if reference.uid.as_deref().unwrap_or_default().is_empty() {
        // A user meant it for a claim.
        phase(&mut plan, "Available");
        plan.sync_claim = true;
        return plan;
    }
    let chosen_by_controller = volume_annotation(volume, BOUND_BY_CONTROLLER).is_some();
    let Some(claim) = claim else {
        if phase_of_volume(volume) != "Failed" {
            phase(&mut plan, "Released");
        }
        reclaim(volume, &mut plan);
        return plan;
    };
    if volume_name(claim).is_empty() {
        if mode_of_volume(volume) != mode_of_claim(claim) {
            let message =
                format!("Cannot bind to requested volume {:?}: incompatible volumeMode", name(volume));
            plan.note = Some(Note::warning("VolumeMismatch", message));
            return plan;
        }
        plan.sync_claim = true;
    } else if volume_name(claim) == name(volume) {
        phase(&mut plan, "Bound");
    } else if volume_annotation(volume, PROVISIONED_BY).is_some() && reclaim_policy(volume) == "Delete" {
        // Made for the claim, which took another in the meantime.
        if phase_of_volume(volume) != "Failed" {
            phase(&mut plan, "Released");
        }
        reclaim(volume, &mut plan);
    } else {
        plan.unbind = Some(if chosen_by_controller { Unbind::All } else { Unbind::Uid });
    }
    plan
}

fn name(volume: &PersistentVolume) -> &str {
    volume.metadata.name.as_deref().unwrap_or_default()
}

/// Volumes that a provisioner made are its to delete. Nobody here can empty or delete others.
fn reclaim(volume: &PersistentVolume, plan: &mut VolumePlan) {
    if phase_of_volume(volume) == "Failed" || volume.metadata.deletion_timestamp.is_some() {
        return;
    }
    let failure = match reclaim_policy(volume) {
        "Delete" if volume_annotation(volume, PROVISIONED_BY).is_none() => Note::warning(
            "VolumeFailedDelete",
            format!(
                "error getting deleter volume plugin for volume {:?}: no deletable volume plugin matched",
                name(volume)
            ),
        ),
        "Recycle" => Note::warning("VolumeFailedRecycle", "No recycler plugin found for the volume!"),
        _ => return,
    };
    plan.phase = Some("Failed");
    plan.failure = Some(failure);
}

/// The volume without its reference to a claim, or without that claim's uid.
pub(crate) fn unbound(volume: &PersistentVolume, how: Unbind) -> PersistentVolume {
    let mut changed = volume.clone();
    let spec = changed.spec.get_or_insert_default();
    match (how, spec.claim_ref.as_mut()) {
        (Unbind::Uid, Some(reference)) => {
            reference.uid = None;
            reference.resource_version = None;
        }
        _ => spec.claim_ref = None,
    }
    if let Some(annotations) = &mut changed.metadata.annotations {
        annotations.remove(BOUND_BY_CONTROLLER);
    }
    changed
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn volume(edit: impl Fn(&mut Value)) -> PersistentVolume {
        let mut volume = json!({"metadata": {"name": "v", "annotations": {}}, "status": {"phase": "Bound"}, "spec": {
            "claimRef": {"name": "c", "namespace": "n", "uid": "u"}, "persistentVolumeReclaimPolicy": "Retain"}});
        edit(&mut volume);
        serde_json::from_value(volume).unwrap()
    }

    fn claim(volume: &str) -> PersistentVolumeClaim {
        serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"},
            "spec": {"volumeName": volume}}))
        .unwrap()
    }

    #[test]
    fn the_phase_follows_the_claim() {
        let none = VolumePlan::default();
        let phase = |phase| VolumePlan { phase: Some(phase), ..VolumePlan::default() };
        let look = VolumePlan { sync_claim: true, ..VolumePlan::default() };
        let free = volume(|v| v["spec"]["claimRef"] = Value::Null);
        let meant = volume(|v| v["spec"]["claimRef"] = json!({"name": "c", "namespace": "n"}));
        let table = [
            ("no claim", plan_volume(&free, None), phase("Available")),
            (
                "meant for one",
                plan_volume(&meant, None),
                VolumePlan { sync_claim: true, ..phase("Available") },
            ),
            ("bound", plan_volume(&volume(|_| {}), Some(&claim("v"))), none.clone()),
            ("half bound", plan_volume(&volume(|_| {}), Some(&claim(""))), look),
            ("the claim is gone", plan_volume(&volume(|_| {}), None), phase("Released")),
            (
                "released already",
                plan_volume(&volume(|v| v["status"]["phase"] = "Released".into()), None),
                none,
            ),
        ];
        for (told, plan, expected) in table {
            assert_eq!(plan, expected, "{told}");
        }
    }

    #[test]
    fn what_the_claim_did_not_take_is_free_again_or_goes() {
        let other = claim("other");
        let by_user = plan_volume(&volume(|_| {}), Some(&other));
        assert_eq!(by_user.unbind, Some(Unbind::Uid));
        let by_controller = volume(|v| v["metadata"]["annotations"][BOUND_BY_CONTROLLER] = "yes".into());
        assert_eq!(plan_volume(&by_controller, Some(&other)).unbind, Some(Unbind::All));
        assert_eq!(claim_of(&unbound(&by_controller, Unbind::All)), None);
        let kept = unbound(&volume(|_| {}), Unbind::Uid);
        assert_eq!(
            claim_of(&kept).map(|reference| (reference.name.as_deref(), reference.uid.as_deref())),
            Some((Some("c"), None))
        );
        let made = volume(|v| {
            v["metadata"]["annotations"][PROVISIONED_BY] = "p".into();
            v["spec"]["persistentVolumeReclaimPolicy"] = "Delete".into();
        });
        assert_eq!(plan_volume(&made, Some(&other)).phase, Some("Released"));
    }

    #[test]
    fn what_nobody_can_reclaim_fails_and_a_provisioner_s_is_left_to_it() {
        let policy = |policy: &'static str| {
            move |v: &mut Value| v["spec"]["persistentVolumeReclaimPolicy"] = policy.into()
        };
        let reason = |plan: VolumePlan| (plan.phase, plan.failure.map(|note| note.reason));
        assert_eq!(
            reason(plan_volume(&volume(policy("Recycle")), None)),
            (Some("Failed"), Some("VolumeFailedRecycle"))
        );
        assert_eq!(
            reason(plan_volume(&volume(policy("Delete")), None)),
            (Some("Failed"), Some("VolumeFailedDelete"))
        );
        let made = volume(|v| {
            v["metadata"]["annotations"][PROVISIONED_BY] = "p".into();
            v["spec"]["persistentVolumeReclaimPolicy"] = "Delete".into();
        });
        assert_eq!(reason(plan_volume(&made, None)), (Some("Released"), None));
        let failed = volume(|v| v["status"]["phase"] = "Failed".into());
        assert_eq!(reason(plan_volume(&failed, None)), (None, None));
    }
}
