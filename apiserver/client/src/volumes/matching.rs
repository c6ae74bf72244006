//! Which volume is best for a claim.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use wherry_machinery::quantity::Quantity;
use wherry_machinery::selector::Selector;

use super::{
    capacity, claim_of, class_of_claim, class_of_volume, is_bound_to, mode_of_claim, mode_of_volume,
    phase_of_volume, requested,
};

/// Among which volumes to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// All that are free, and those meant for the claim.
    Free,
    /// Only those that somebody meant for the claim: the claim waits for its first pod.
    Prebound,
}

/// Why a volume will not do for a claim that names it; `None` if it will.
pub fn unsatisfied(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    if capacity(volume) < requested(claim) {
        return Some("requested PV is too small");
    }
    let attributes = |name: Option<&String>| name.cloned().unwrap_or_default();
    let of_volume = attributes(volume.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_ref()));
    let of_claim = attributes(claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_ref()));
    if of_volume != of_claim {
        return Some("volumeAttributesClassName does not match");
    }
    if class_of_volume(volume) != class_of_claim(claim) {
        return Some("storageClassName does not match");
    }
    if mode_of_volume(volume) != mode_of_claim(claim) {
        return Some("incompatible volumeMode");
    }
    (!has_access_modes(volume, claim)).then_some("incompatible accessMode")
}

/// The best volume for a claim: one that is meant for it; else, of the free ones that satisfy it, one with the fewest access
/// modes and of these the smallest. `usable` may exclude volumes (of another node, or taken by a decision that is under way).
///
/// Source: `FindMatchingVolume` and `findBestMatchForClaim`.
pub fn best_match<'a>(
    volumes: impl IntoIterator<Item = &'a PersistentVolume>,
    claim: &PersistentVolumeClaim,
    search: Search,
    usable: impl Fn(&PersistentVolume) -> bool,
) -> Option<&'a PersistentVolume> {
    // A selector that is none selects nothing; creation refused such.
    let selector = match claim.spec.as_ref().and_then(|spec| spec.selector.as_ref()) {
        Some(selector) => {
            let value = serde_json::to_value(selector).unwrap_or_default();
            Some(Selector::from_label_selector(&value).ok()?)
        }
        None => None,
    };
    let no_labels = BTreeMap::new();
    let candidates = volumes.into_iter().filter(|volume| {
        volume.metadata.deletion_timestamp.is_none()
            && capacity(volume) >= requested(claim)
            && mode_of_volume(volume) == mode_of_claim(claim)
            && usable(volume)
    });
    let mut best: Option<&PersistentVolume> = None;
    for volume in candidates {
        if is_bound_to(volume, claim) {
            return Some(volume);
        }
        let is_free = search == Search::Free
            && claim_of(volume).is_none()
            && phase_of_volume(volume) == "Available"
            && unsatisfied(volume, claim).is_none()
            && selector
                .as_ref()
                .is_none_or(|s| s.matches(volume.metadata.labels.as_ref().unwrap_or(&no_labels)));
        if is_free && best.is_none_or(|best| order(volume) < order(best)) {
            best = Some(volume);
        }
    }
    best
}

fn order(volume: &PersistentVolume) -> (usize, Quantity, &str) {
    (modes(volume).len(), capacity(volume), volume.metadata.name.as_deref().unwrap_or_default())
}

fn modes(volume: &PersistentVolume) -> BTreeSet<&str> {
    let modes = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_ref());
    modes.into_iter().flatten().map(String::as_str).collect()
}

/// Whether the volume has every mode that the claim asks for.
fn has_access_modes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let present = modes(volume);
    let wanted = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_ref());
    wanted.into_iter().flatten().all(|mode| present.contains(mode.as_str()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn volume(name: &str, size: &str, edit: impl Fn(&mut Value)) -> Arc<PersistentVolume> {
        let mut volume = json!({"metadata": {"name": name, "labels": {"disk": name}}, "status": {"phase": "Available"},
            "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": "a"}});
        edit(&mut volume);
        Arc::new(serde_json::from_value(volume).unwrap())
    }

    fn claim(spec: Value) -> PersistentVolumeClaim {
        let mut claim = json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "a", "resources": {"requests": {"storage": "1Gi"}}}});
        for (key, value) in spec.as_object().unwrap() {
            claim["spec"][key] = value.clone();
        }
        serde_json::from_value(claim).unwrap()
    }

    fn found(
        volumes: &[Arc<PersistentVolume>],
        claim: &PersistentVolumeClaim,
        search: Search,
    ) -> Option<String> {
        best_match(volumes.iter().map(AsRef::as_ref), claim, search, |_| true)
            .and_then(|volume| volume.metadata.name.clone())
    }

    #[test]
    fn the_smallest_that_is_large_enough_is_taken() {
        let plain = |name: &str, size: &str| volume(name, size, |_| {});
        let volumes = [plain("huge", "10Gi"), plain("fits", "2Gi"), plain("small", "1Mi")];
        assert_eq!(found(&volumes, &claim(json!({})), Search::Free).as_deref(), Some("fits"));
        assert_eq!(found(&volumes, &claim(json!({})), Search::Prebound), None);
        let selected = claim(json!({"selector": {"matchLabels": {"disk": "huge"}}}));
        assert_eq!(found(&volumes, &selected, Search::Free).as_deref(), Some("huge"));
        let not_there = |volume: &PersistentVolume| volume.metadata.name.as_deref() != Some("fits");
        let other = best_match(volumes.iter().map(AsRef::as_ref), &claim(json!({})), Search::Free, not_there);
        assert_eq!(other.and_then(|volume| volume.metadata.name.as_deref()), Some("huge"));
    }

    #[test]
    fn what_does_not_satisfy_the_claim_is_passed_over() {
        type Change = fn(&mut Value);
        let table: [(&str, Change); 8] = [
            ("another class", |v| v["spec"]["storageClassName"] = "b".into()),
            ("another mode", |v| v["spec"]["accessModes"] = json!(["ReadOnlyMany"])),
            ("a device", |v| v["spec"]["volumeMode"] = "Block".into()),
            ("too small", |v| v["spec"]["capacity"]["storage"] = "1Mi".into()),
            ("taken", |v| v["spec"]["claimRef"] = json!({"name": "o", "namespace": "n"})),
            ("meant for a claim of that name that is gone", |v| {
                v["spec"]["claimRef"] = json!({"name": "c", "namespace": "n", "uid": "old"});
            }),
            ("not available", |v| v["status"]["phase"] = "Released".into()),
            ("going", |v| v["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into()),
        ];
        for (told, edit) in table {
            assert_eq!(found(&[volume("v", "1Gi", edit)], &claim(json!({})), Search::Free), None, "{told}");
        }
    }

    #[test]
    fn one_that_is_meant_for_the_claim_goes_first_and_few_modes_before_size() {
        let meant =
            volume("meant", "9Gi", |v| v["spec"]["claimRef"] = json!({"name": "c", "namespace": "n"}));
        let many =
            volume("many", "1Gi", |v| v["spec"]["accessModes"] = json!(["ReadWriteOnce", "ReadWriteMany"]));
        let one = volume("one", "5Gi", |_| {});
        let volumes = [many.clone(), one.clone(), meant];
        for search in [Search::Free, Search::Prebound] {
            assert_eq!(found(&volumes, &claim(json!({})), search).as_deref(), Some("meant"));
        }
        assert_eq!(found(&[many, one], &claim(json!({})), Search::Free).as_deref(), Some("one"));
    }
}
