//! What is to be done with a claim. Source: `syncClaim` of `k8s.io/kubernetes/pkg/controller/volume/persistentvolume`.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use wherry_client::EventType;
use wherry_client::volumes::{
    BETA_STORAGE_PROVISIONER, BIND_COMPLETED, BOUND_BY_CONTROLLER, SELECTED_NODE, STORAGE_PROVISIONER,
    Search, best_match, claim_annotation, claim_of, class_of_claim, is_bound_to, is_fully_bound, unsatisfied,
    volume_name, waits_for_consumer,
};

/// An event about a claim or volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) kind: EventType,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Note {
    pub(crate) fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind: EventType::Normal, reason, message: message.into() }
    }

    pub(crate) fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind: EventType::Warning, reason, message: message.into() }
    }
}

/// What is known around a claim.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    /// All volumes.
    pub(crate) volumes: &'a [Arc<PersistentVolume>],
    /// The claim's class, if there is such a class.
    pub(crate) class: Option<&'a StorageClass>,
    /// The class for claims that name none.
    pub(crate) default_class: Option<&'a str>,
    /// Names of pods that use the claim and have no node yet.
    pub(crate) waiting_pods: &'a [String],
}

/// What is to be done with a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClaimStep {
    /// Nothing, but its owner may want to know why.
    Wait(Option<Note>),
    /// Both sides are told of each other, as far as they do not know yet.
    Bind { volume: String },
    /// What it was bound to is gone.
    Lose(Note),
    /// Somebody else makes the volume.
    Provision { provisioner: String, note: Note },
    /// It names no class, and there is a default one by now.
    UseClass(String),
}

/// Decides.
pub(crate) fn plan_claim(claim: &PersistentVolumeClaim, around: Surroundings<'_>) -> ClaimStep {
    let volume =
        around.volumes.iter().find(|volume| volume.metadata.name.as_deref() == Some(volume_name(claim)));
    if is_fully_bound(claim) || claim_annotation(claim, BIND_COMPLETED).is_some() {
        plan_bound(claim, volume.map(AsRef::as_ref))
    } else if claim.metadata.deletion_timestamp.is_some() {
        ClaimStep::Wait(None)
    } else if volume_name(claim).is_empty() {
        plan_unbound(claim, around)
    } else {
        plan_named(claim, volume.map(AsRef::as_ref))
    }
}

fn plan_bound(claim: &PersistentVolumeClaim, volume: Option<&PersistentVolume>) -> ClaimStep {
    let lost = |reason, message| ClaimStep::Lose(Note::warning(reason, message));
    if volume_name(claim).is_empty() {
        return lost(
            "ClaimLost",
            "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!",
        );
    }
    let Some(volume) = volume else {
        return lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
    };
    if claim_of(volume).is_none() || is_bound_to(volume, claim) {
        return ClaimStep::Bind { volume: volume_name(claim).to_owned() };
    }
    lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
}

/// A claim that names its volume, by whom ever.
fn plan_named(claim: &PersistentVolumeClaim, volume: Option<&PersistentVolume>) -> ClaimStep {
    let Some(volume) = volume else { return ClaimStep::Wait(None) };
    let name = volume_name(claim);
    match claim_of(volume) {
        None => match unsatisfied(volume, claim) {
            Some(why) => {
                let message = format!("Cannot bind to requested volume {name:?}: {why}");
                ClaimStep::Wait(Some(Note::warning("VolumeMismatch", message)))
            }
            None => ClaimStep::Bind { volume: name.to_owned() },
        },
        Some(_) if is_bound_to(volume, claim) => ClaimStep::Bind { volume: name.to_owned() },
        Some(other) => {
            let (namespace, other) =
                (other.namespace.as_deref().unwrap_or_default(), other.name.as_deref().unwrap_or_default());
            let message = format!("volume {name:?} already bound to a different claim.");
            tracing::debug!(volume = name, namespace, other, "volume of another claim is named");
            ClaimStep::Wait(Some(Note::warning("FailedBinding", message)))
        }
    }
}

fn plan_unbound(claim: &PersistentVolumeClaim, around: Surroundings<'_>) -> ClaimStep {
    let names_class = claim.spec.as_ref().is_some_and(|spec| spec.storage_class_name.is_some());
    if !names_class
        && class_of_claim(claim).is_empty()
        && let Some(class) = around.default_class
    {
        return ClaimStep::UseClass(class.to_owned());
    }
    let waits = waits_for_consumer(around.class);
    let search = if waits { Search::Prebound } else { Search::Free };
    if let Some(volume) = best_match(around.volumes.iter().map(AsRef::as_ref), claim, search, |_| true) {
        let name = volume.metadata.name.clone().unwrap_or_default();
        // One that was meant for the claim by name need not fit.
        if let Some(why) = unsatisfied(volume, claim) {
            let message = format!("Cannot bind to requested volume {name:?}: {why}");
            return ClaimStep::Wait(Some(Note::warning("VolumeMismatch", message)));
        }
        return ClaimStep::Bind { volume: name };
    }
    if waits && claim_annotation(claim, SELECTED_NODE).is_none() {
        let (reason, message) = if around.waiting_pods.is_empty() {
            ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned())
        } else {
            let pods = around.waiting_pods.join(",");
            let noun = if around.waiting_pods.len() == 1 { "pod" } else { "pods" };
            ("WaitForPodScheduled", format!("waiting for {noun} {pods} to be scheduled"))
        };
        return ClaimStep::Wait(Some(Note::normal(reason, message)));
    }
    let class_name = class_of_claim(claim);
    if class_name.is_empty() {
        let message = "no persistent volumes available for this claim and no storage class is set";
        return ClaimStep::Wait(Some(Note::normal("FailedBinding", message)));
    }
    let Some(class) = around.class else {
        let message = format!("storageclass.storage.k8s.io {class_name:?} not found");
        return ClaimStep::Wait(Some(Note::warning("ProvisioningFailed", message)));
    };
    if class.provisioner == "kubernetes.io/no-provisioner" {
        let message = "no persistent volumes available for this claim and no storage class is set";
        return ClaimStep::Wait(Some(Note::normal("FailedBinding", message)));
    }
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{}' or manually by the system administrator. \
         If volume creation is delayed, please verify that the provisioner is running and correctly registered.",
        class.provisioner
    );
    ClaimStep::Provision {
        provisioner: class.provisioner.clone(),
        note: Note::normal("ExternalProvisioning", message),
    }
}

/// The volume as it is when it is the claim's; `None` if it is so already.
pub(crate) fn bound_volume(
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
) -> Option<PersistentVolume> {
    let mut bound = volume.clone();
    let spec = bound.spec.get_or_insert_default();
    if spec.claim_ref.is_none() {
        let annotations = bound.metadata.annotations.get_or_insert_default();
        annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
    }
    let has_uid = spec.claim_ref.as_ref().is_some_and(|reference| reference.uid == claim.metadata.uid);
    if !has_uid {
        let mut reference = wherry_client::object_ref(claim);
        // The version would be old at the next change of the claim.
        reference.resource_version.clone_from(&claim.metadata.resource_version);
        spec.claim_ref = Some(reference);
    }
    (bound != *volume).then_some(bound)
}

/// The claim as it is when the volume is its; `None` if it is so already.
pub(crate) fn bound_claim(claim: &PersistentVolumeClaim, volume: &str) -> Option<PersistentVolumeClaim> {
    let mut bound = claim.clone();
    let spec = bound.spec.get_or_insert_default();
    let annotations = bound.metadata.annotations.get_or_insert_default();
    if spec.volume_name.as_deref().unwrap_or_default() != volume {
        spec.volume_name = Some(volume.to_owned());
        annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
    }
    annotations.entry(BIND_COMPLETED.to_owned()).or_insert_with(|| "yes".to_owned());
    (bound != *claim).then_some(bound)
}

/// The claim with the status of one that is bound; `None` if it has it already.
pub(crate) fn with_bound_status(
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> Option<PersistentVolumeClaim> {
    let mut changed = claim.clone();
    let status = changed.status.get_or_insert_default();
    let was_bound = status.phase.as_deref() == Some("Bound");
    status.phase = Some("Bound".to_owned());
    status.access_modes = volume.spec.as_ref().and_then(|spec| spec.access_modes.clone());
    // Afterwards the capacity is what a resize says.
    if !was_bound || status.capacity.is_none() {
        status.capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.clone());
    }
    (changed != *claim).then_some(changed)
}

/// The claim with the status of one that has lost its volume; `None` if it has it already.
pub(crate) fn with_lost_status(claim: &PersistentVolumeClaim) -> Option<PersistentVolumeClaim> {
    let mut changed = claim.clone();
    let status = changed.status.get_or_insert_default();
    status.phase = Some("Lost".to_owned());
    status.access_modes = None;
    status.capacity = None;
    (changed != *claim).then_some(changed)
}

/// The claim with the name of who is to make its volume; `None` if it has it already.
pub(crate) fn with_provisioner(
    claim: &PersistentVolumeClaim,
    provisioner: &str,
) -> Option<PersistentVolumeClaim> {
    let mut changed = claim.clone();
    let annotations: &mut BTreeMap<_, _> = changed.metadata.annotations.get_or_insert_default();
    for key in [STORAGE_PROVISIONER, BETA_STORAGE_PROVISIONER] {
        annotations.insert(key.to_owned(), provisioner.to_owned());
    }
    (changed != *claim).then_some(changed)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(edit: impl Fn(&mut Value)) -> PersistentVolumeClaim {
        let mut claim = json!({"metadata": {"name": "c", "namespace": "n", "uid": "u", "annotations": {}}, "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "a", "resources": {"requests": {"storage": "1Gi"}}}});
        edit(&mut claim);
        serde_json::from_value(claim).unwrap()
    }

    fn volume(edit: impl Fn(&mut Value)) -> Arc<PersistentVolume> {
        let mut volume = json!({"metadata": {"name": "v"}, "status": {"phase": "Available"},
            "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "a"}});
        edit(&mut volume);
        Arc::new(serde_json::from_value(volume).unwrap())
    }

    fn class(mode: &str) -> StorageClass {
        serde_json::from_value(
            json!({"metadata": {"name": "a"}, "provisioner": "p.example", "volumeBindingMode": mode}),
        )
        .unwrap()
    }

    fn plan(
        claim: &PersistentVolumeClaim,
        volumes: &[Arc<PersistentVolume>],
        class: Option<&StorageClass>,
    ) -> ClaimStep {
        plan_claim(claim, Surroundings { volumes, class, default_class: None, waiting_pods: &[] })
    }

    fn reason(step: &ClaimStep) -> &'static str {
        match step {
            ClaimStep::Wait(Some(note)) | ClaimStep::Lose(note) | ClaimStep::Provision { note, .. } => {
                note.reason
            }
            _ => "",
        }
    }

    #[test]
    fn a_claim_takes_a_volume_that_fits_or_asks_for_one() {
        let (immediate, waiting) = (class("Immediate"), class("WaitForFirstConsumer"));
        let bind = ClaimStep::Bind { volume: "v".to_owned() };
        assert_eq!(plan(&claim(|_| {}), &[volume(|_| {})], Some(&immediate)), bind);
        assert_eq!(reason(&plan(&claim(|_| {}), &[], Some(&immediate))), "ExternalProvisioning");
        assert_eq!(reason(&plan(&claim(|_| {}), &[volume(|_| {})], Some(&waiting))), "WaitForFirstConsumer");
        let selected = claim(|c| c["metadata"]["annotations"][SELECTED_NODE] = "n1".into());
        assert_eq!(reason(&plan(&selected, &[volume(|_| {})], Some(&waiting))), "ExternalProvisioning");
        assert_eq!(reason(&plan(&claim(|_| {}), &[], None)), "ProvisioningFailed");
        let classless = claim(|c| c["spec"]["storageClassName"] = "".into());
        assert_eq!(reason(&plan(&classless, &[], None)), "FailedBinding");
    }

    #[test]
    fn the_scheduler_s_choice_is_carried_out() {
        let chosen = volume(|v| v["spec"]["claimRef"] = json!({"name": "c", "namespace": "n", "uid": "u"}));
        let step = plan(&claim(|_| {}), &[chosen], Some(&class("WaitForFirstConsumer")));
        assert_eq!(step, ClaimStep::Bind { volume: "v".to_owned() });
    }

    #[test]
    fn pods_that_wait_are_named() {
        let pods = ["p".to_owned()];
        let around = Surroundings {
            volumes: &[],
            class: Some(&class("WaitForFirstConsumer")),
            default_class: None,
            waiting_pods: &pods,
        };
        let ClaimStep::Wait(Some(note)) = plan_claim(&claim(|_| {}), around) else { panic!("it waits") };
        assert_eq!(
            (note.reason, note.message.as_str()),
            ("WaitForPodScheduled", "waiting for pod p to be scheduled")
        );
    }

    #[test]
    fn a_named_volume_must_fit_and_be_free() {
        let named = claim(|c| c["spec"]["volumeName"] = "v".into());
        let table: [(&str, Vec<Arc<PersistentVolume>>, ClaimStep); 3] = [
            ("not there yet", vec![], ClaimStep::Wait(None)),
            ("it fits", vec![volume(|_| {})], ClaimStep::Bind { volume: "v".to_owned() }),
            (
                "too small",
                vec![volume(|v| v["spec"]["capacity"]["storage"] = "1Mi".into())],
                ClaimStep::Wait(Some(Note::warning(
                    "VolumeMismatch",
                    r#"Cannot bind to requested volume "v": requested PV is too small"#,
                ))),
            ),
        ];
        for (told, volumes, expected) in table {
            assert_eq!(plan(&named, &volumes, None), expected, "{told}");
        }
        let taken = volume(|v| v["spec"]["claimRef"] = json!({"name": "o", "namespace": "n", "uid": "x"}));
        assert_eq!(reason(&plan(&named, &[taken], None)), "FailedBinding");
    }

    #[test]
    fn a_bound_claim_whose_volume_is_gone_or_another_s_is_lost() {
        let bound = claim(|c| {
            c["spec"]["volumeName"] = "v".into();
            c["metadata"]["annotations"][BIND_COMPLETED] = "yes".into();
        });
        assert_eq!(reason(&plan(&bound, &[], None)), "ClaimLost");
        let taken =
            volume(|v| v["spec"]["claimRef"] = json!({"name": "c", "namespace": "n", "uid": "another"}));
        assert_eq!(reason(&plan(&bound, &[taken], None)), "ClaimMisbound");
        let own = volume(|v| v["spec"]["claimRef"] = json!({"name": "c", "namespace": "n", "uid": "u"}));
        assert_eq!(plan(&bound, &[own], None), ClaimStep::Bind { volume: "v".to_owned() });
        assert_eq!(with_lost_status(&bound).and_then(|c| c.status?.phase).as_deref(), Some("Lost"));
    }

    #[test]
    fn a_claim_without_class_gets_the_default_later() {
        let unnamed = claim(|c| c["spec"]["storageClassName"] = Value::Null);
        let around = Surroundings { volumes: &[], class: None, default_class: Some("d"), waiting_pods: &[] };
        assert_eq!(plan_claim(&unnamed, around), ClaimStep::UseClass("d".to_owned()));
        let chosen = claim(|c| c["spec"]["storageClassName"] = "".into());
        assert_eq!(reason(&plan_claim(&chosen, around)), "FailedBinding");
    }

    #[test]
    fn both_sides_are_told_once() {
        let (claim, volume) = (claim(|_| {}), volume(|_| {}));
        let bound = bound_volume(&volume, &claim).unwrap();
        assert_eq!(bound.metadata.annotations.as_ref().unwrap()[BOUND_BY_CONTROLLER], "yes");
        assert!(is_bound_to(&bound, &claim));
        assert_eq!(bound_volume(&bound, &claim), None);
        let told = bound_claim(&claim, "v").unwrap();
        assert!(is_fully_bound(&told));
        assert_eq!(bound_claim(&told, "v"), None);
        let with_status = with_bound_status(&told, &bound).unwrap();
        assert_eq!(with_bound_status(&with_status, &bound), None);
    }
}
