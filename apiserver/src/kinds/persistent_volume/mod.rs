//! PersistentVolume.

mod sources;

use k8s_openapi::api::core::v1::PersistentVolumeSpec;
use serde_json::{Value, json};
use wherry_machinery::field::{Error, ErrorList, Path};
use wherry_machinery::names;

use super::fields::{immutable, invalid_each, s};
use super::json::{
    carry_over, default_value, default_zero, is_absent, list, map_at, remove, set, text, typed, within,
};
use super::node::deprecated_label;
use super::pod::{defaults, diff, internal_form, node_selector, resources};
use super::storage_class::BETA_CLASS_ANNOTATION;
use super::table;
use crate::registry::strategy::{Part, RequestFacts, Resource, Scope, Strategy};

/// How a volume can be mounted, sorted as errors list them.
pub(crate) const ACCESS_MODES: &[&str] =
    &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
/// A volume is a directory or a device.
pub(crate) const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];
const RECLAIM_POLICIES: &[&str] = &["Delete", "Recycle", "Retain"];
/// The fields of a spec that say what the volume is made of.
const SOURCES: &[&str] = &[
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "hostPath",
    "glusterfs",
    "nfs",
    "rbd",
    "quobyte",
    "iscsi",
    "flexVolume",
    "cinder",
    "cephfs",
    "fc",
    "flocker",
    "azureFile",
    "vsphereVolume",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];
/// Sources that are going or gone. Source: `k8s.io/kubernetes/pkg/api/persistentvolume/util.go`.
const DEPRECATED_SOURCES: &[(&str, &str, &str)] = &[
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
];

/// `persistentvolumes`.
pub(crate) struct PersistentVolumeStrategy;

impl Strategy for PersistentVolumeStrategy {
    fn resource(&self) -> Resource {
        Resource {
            group: "",
            version: "v1",
            name: "persistentvolumes",
            kind: "PersistentVolume",
            scope: Scope::Cluster,
        }
    }

    fn has_status(&self) -> bool {
        true
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Value) {
        if let Some(status) = map_at(object, "status") {
            default_zero(status, "phase", "Pending");
        }
        if let Some(spec) = map_at(object, "spec") {
            default_spec(spec);
        }
    }

    fn prepare_for_create(&self, facts: &RequestFacts, object: &mut Value) {
        let now = wherry_machinery::time::format_seconds(facts.now_unix_seconds);
        set(object, "status", json!({"phase": "Pending", "lastPhaseTransitionTime": now}));
    }

    fn prepare_for_update(&self, facts: &RequestFacts, part: Part, object: &mut Value, old: &Value) {
        match part {
            Part::Main => carry_over(object, "status", old),
            Part::Status => {
                carry_over(object, "spec", old);
                phase_time(facts, object, old);
            }
        }
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let path = Path::new("spec");
        match typed::<PersistentVolumeSpec>(object, &path) {
            Ok(spec) => validate_spec(&spec, text(object, "/metadata/name"), Place::Object, &path),
            Err(errors) => errors,
        }
    }

    fn validate_update(&self, facts: &RequestFacts, part: Part, object: &Value, old: &Value) -> ErrorList {
        if part == Part::Status {
            return ErrorList::new();
        }
        let mut errors = self.validate(facts, object);
        errors.extend(changes(&object["spec"], &old["spec"]));
        errors
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        warnings(object)
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        let claim = match object.pointer("/spec/claimRef").filter(|claim| !claim.is_null()) {
            Some(claim) => format!("{}/{}", text(claim, "/namespace"), text(claim, "/name")),
            None => String::new(),
        };
        Some(vec![
            table::name(object),
            text(object, "/spec/capacity/storage").into(),
            access_modes_text(list(object, "/spec/accessModes")).into(),
            text(object, "/spec/persistentVolumeReclaimPolicy").into(),
            phase_cell(object),
            claim.into(),
            class_of(object).into(),
            or_unset(text(object, "/spec/volumeAttributesClassName")),
            text(object, "/status/reason").into(),
            table::age(object, now_unix_seconds),
            or_unset(text(object, "/spec/volumeMode")),
        ])
    }
}

/// Where a persistent volume's spec stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a PersistentVolume.
    Object,
    /// In a VolumeAttachment.
    Inline,
}

/// The defaults of a spec wherever it stands.
pub(crate) fn default_spec(spec: &mut Value) {
    default_zero(spec, "persistentVolumeReclaimPolicy", "Retain");
    default_value(spec, "volumeMode", "Filesystem");
    within(spec, "capacity", resources::canonicalize_list);
    defaults::volume_source(spec);
}

/// Everything wrong with a spec.
pub(crate) fn validate_spec(
    spec: &PersistentVolumeSpec,
    volume_name: &str,
    place: Place,
    path: &Path,
) -> ErrorList {
    let mut errors = ErrorList::new();
    let inline = place == Place::Inline;
    let not_inline = |field: &str| {
        Error::forbidden(&path.child(field), "may not be specified in the context of inline volumes")
    };
    let capacity = spec.capacity.clone().unwrap_or_default();
    if inline {
        if spec.claim_ref.is_some() {
            errors.push(not_inline("claimRef"));
        }
        if !capacity.is_empty() {
            errors.push(not_inline("capacity"));
        }
        if spec.csi.is_none() {
            let detail = "has to be specified in the context of inline volumes";
            errors.push(Error::required(&path.child("csi"), detail));
        }
    }
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    if modes.is_empty() {
        errors.push(Error::required(&path.child("accessModes"), ""));
    }
    errors.extend(access_modes(modes, path));
    if !inline {
        errors.extend(check_capacity(&capacity, &path.child("capacity")));
    }
    let policy = s(&spec.persistent_volume_reclaim_policy);
    let policy_path = path.child("persistentVolumeReclaimPolicy");
    if inline && !matches!(policy, "" | "Retain") {
        errors.push(Error::forbidden(&policy_path, "may only be Retain in the context of inline volumes"));
    } else if !policy.is_empty() && !RECLAIM_POLICIES.contains(&policy) {
        errors.push(Error::not_supported(&policy_path, policy, RECLAIM_POLICIES));
    }
    if let Some(affinity) = &spec.node_affinity {
        let path = path.child("nodeAffinity");
        match (&affinity.required, inline) {
            (_, true) => errors.push(not_inline("nodeAffinity")),
            (Some(required), false) => errors.extend(node_selector(required, &path.child("required"))),
            (None, false) => {
                errors
                    .push(Error::required(&path.child("required"), "must specify required node constraints"));
            }
        }
    }
    errors.extend(sources::check(spec, volume_name, spec.node_affinity.is_some() && !inline, path));
    let is_root = |host_path: &str| host_path.split('/').all(|part| matches!(part, "" | "."));
    if policy == "Recycle" && spec.host_path.as_ref().is_some_and(|source| is_root(&source.path)) {
        errors.push(Error::forbidden(&policy_path, "may not be 'recycle' for a hostPath mount of '/'"));
    }
    let class = s(&spec.storage_class_name);
    if !class.is_empty() {
        if inline {
            errors.push(not_inline("storageClassName"));
        } else {
            let path = path.child("storageClassName");
            errors.extend(invalid_each(&path, class, names::dns1123_subdomain(class)));
        }
    }
    if let Some(mode) = spec.volume_mode.as_deref() {
        if inline && mode != "Filesystem" {
            let detail = "may not specify volumeMode other than Filesystem in the context of inline volumes";
            errors.push(Error::forbidden(&path.child("volumeMode"), detail));
        } else if !inline && !VOLUME_MODES.contains(&mode) {
            errors.push(Error::not_supported(&path.child("volumeMode"), mode, VOLUME_MODES));
        }
    }
    if let Some(class) = spec.volume_attributes_class_name.as_deref() {
        let class_path = path.child("volumeAttributesClassName");
        if class.is_empty() {
            errors.push(Error::required(&class_path, "an empty string is disallowed"));
        } else {
            errors.extend(invalid_each(&class_path, class, names::dns1123_subdomain(class)));
        }
        if spec.csi.is_none() {
            let detail = "has to be specified when using volumeAttributesClassName";
            errors.push(Error::required(&path.child("csi"), detail));
        }
    }
    errors
}

/// Known modes, and the one for a single pod only alone. `path` is the spec's.
pub(crate) fn access_modes(modes: &[String], path: &Path) -> ErrorList {
    let path = path.child("accessModes");
    let mut errors = ErrorList::new();
    for mode in modes {
        if !ACCESS_MODES.contains(&mode.as_str()) {
            errors.push(Error::not_supported(&path, mode.as_str(), ACCESS_MODES));
        }
    }
    let single = modes.iter().filter(|mode| *mode == "ReadWriteOncePod").count();
    if single > 0 && single < modes.len() {
        errors.push(Error::forbidden(&path, "may not use ReadWriteOncePod with other access modes"));
    }
    errors
}

fn check_capacity(capacity: &resources::Amounts, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if capacity.is_empty() {
        errors.push(Error::required(path, ""));
    }
    if capacity.len() != 1 || !capacity.contains_key("storage") {
        let given = if capacity.is_empty() { Value::Null } else { json!(capacity) };
        errors.push(Error::not_supported(path, given, &["storage"]));
    }
    for (resource, amount) in capacity {
        let path = path.key(resource);
        let quantity = resources::parsed(&amount.0);
        if quantity.is_negative() {
            errors.push(Error::invalid(&path, quantity.value(), "must be a valid resource quantity"));
        }
        if quantity.is_negative() || quantity.is_zero() {
            errors.push(Error::invalid(&path, quantity.to_string(), "must be greater than zero"));
        }
    }
    errors
}

/// What a volume is made of, alone.
fn source_of(spec: &Value) -> Value {
    let present = SOURCES.iter().filter(|field| !is_absent(spec.get(**field)));
    Value::Object(present.map(|field| ((*field).to_owned(), spec[*field].clone())).collect())
}

fn changes(spec: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let (mut source, old_source) = (source_of(spec), source_of(old));
    // A secret for growing the volume may come later.
    if let Some(old_csi) = old_source.get("csi")
        && is_absent(old_csi.get("controllerExpandSecretRef"))
    {
        within(&mut source, "csi", |csi| remove(csi, "controllerExpandSecretRef"));
    }
    let print = |source: &Value| internal_form::print_lines("PersistentVolumeSource", source);
    let (new_text, old_text) = (print(&source), print(&old_source));
    if new_text != old_text {
        let path = Path::new("spec").child("persistentvolumesource");
        let difference = diff::unified(&new_text, &old_text);
        let detail = format!("spec.persistentvolumesource is immutable after creation\n{difference}");
        errors.push(Error::forbidden(&path, &detail));
    }
    errors.extend(immutable(spec.get("volumeMode"), old.get("volumeMode"), &Path::new("volumeMode")));
    if !is_absent(old.get("nodeAffinity")) {
        errors.extend(immutable(
            spec.get("nodeAffinity"),
            old.get("nodeAffinity"),
            &Path::new("nodeAffinity"),
        ));
    }
    if !is_absent(old.get("volumeAttributesClassName")) && is_absent(spec.get("volumeAttributesClassName")) {
        let path = Path::new("spec").child("volumeAttributesClassName");
        errors.push(Error::forbidden(&path, "update from non-nil value to nil is forbidden"));
    }
    errors
}

/// The time of a change of phase, unless the client says it.
fn phase_time(facts: &RequestFacts, object: &mut Value, old: &Value) {
    let field = |object: &Value, field: &str| text(object, &format!("/status/{field}")).to_owned();
    let time = field(object, "lastPhaseTransitionTime");
    let old_time = field(old, "lastPhaseTransitionTime");
    let same_phase = field(object, "phase") == field(old, "phase");
    let Some(status) = map_at(object, "status") else { return };
    if same_phase && time.is_empty() && !old_time.is_empty() {
        set(status, "lastPhaseTransitionTime", old_time);
    } else if !same_phase && (time.is_empty() || time == old_time) {
        let now = wherry_machinery::time::format_seconds(facts.now_unix_seconds);
        set(status, "lastPhaseTransitionTime", now);
    }
}

fn warnings(object: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    let annotations = object.pointer("/metadata/annotations").and_then(Value::as_object);
    for (key, what) in [
        (BETA_CLASS_ANNOTATION, r#"deprecated since v1.8; use "storageClassName" attribute instead"#),
        (
            "volume.beta.kubernetes.io/mount-options",
            r#"deprecated since v1.31; use "mountOptions" attribute instead"#,
        ),
    ] {
        if annotations.is_some_and(|annotations| annotations.contains_key(key)) {
            warnings.push(format!("{}: {what}", Path::new("metadata").child("annotations").key(key)));
        }
    }
    let path = Path::new("spec");
    if text(object, "/spec/persistentVolumeReclaimPolicy") == "Recycle" {
        let path = path.child("persistentVolumeReclaimPolicy");
        warnings.push(format!(
            "{path}: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning."
        ));
    }
    let terms = list(object, "/spec/nodeAffinity/required/nodeSelectorTerms");
    let terms_path = path.child("nodeAffinity").child("required").child("nodeSelectorTerms");
    for (i, term) in terms.iter().enumerate() {
        for (j, expression) in list(term, "/matchExpressions").iter().enumerate() {
            let key = text(expression, "/key");
            if let Some(what) = deprecated_label(key) {
                let path = terms_path.index(i).child("matchExpressions").index(j).child("key");
                warnings.push(format!("{path}: {key} is {what}"));
            }
        }
    }
    for (field, name, what) in DEPRECATED_SOURCES {
        if !is_absent(object["spec"].get(*field)) {
            warnings.push(format!("{}: {what}", path.child(name)));
        }
    }
    warnings.extend(fraction(text(object, "/spec/capacity/storage"), &path.child("capacity").key("storage")));
    warnings
}

/// A warning about an amount of bytes that is none.
pub(crate) fn fraction(amount: &str, path: &Path) -> Option<String> {
    let is_whole = resources::parsed(amount).milli_value() % 1000 == 0;
    (!is_whole).then(|| format!("{path}: fractional byte value {amount:?} is invalid, must be an integer"))
}

/// The class of a volume or claim; an old annotation goes before the field.
pub(crate) fn class_of(object: &Value) -> &str {
    let annotations = object.pointer("/metadata/annotations");
    annotations
        .and_then(|annotations| annotations.get(BETA_CLASS_ANNOTATION))
        .and_then(Value::as_str)
        .unwrap_or_else(|| text(object, "/spec/storageClassName"))
}

/// Access modes in short, in kubectl's order.
pub(crate) fn access_modes_text(modes: &[Value]) -> String {
    const SHORT: [(&str, &str); 4] = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let present = SHORT.iter().filter(|(mode, _)| modes.iter().any(|given| given == mode));
    present.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

/// The phase, or that the object is going.
pub(crate) fn phase_cell(object: &Value) -> Value {
    if text(object, "/metadata/deletionTimestamp").is_empty() {
        text(object, "/status/phase").into()
    } else {
        "Terminating".into()
    }
}

/// A cell of an optional field.
pub(crate) fn or_unset(value: &str) -> Value {
    if value.is_empty() { "<unset>".into() } else { value.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, facts, messages};

    fn local(path: &str) -> Value {
        json!({"metadata": {"name": "pv"}, "spec": {
            "capacity": {"storage": "1024Mi"}, "accessModes": ["ReadWriteOnce"], "local": {"path": path},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n"]}]}]}},
        }})
    }

    #[test]
    fn a_volume_is_retained_and_a_file_system_unless_it_says_otherwise() {
        let mut volume = local("/data");
        PersistentVolumeStrategy.default(&mut volume);
        assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Retain");
        assert_eq!(volume["spec"]["volumeMode"], "Filesystem");
        assert_eq!(volume["spec"]["capacity"]["storage"], "1Gi");
        assert!(PersistentVolumeStrategy.validate(&facts(), &volume).is_empty());
    }

    #[test]
    fn what_is_wrong_with_a_volume_is_said_in_kubernetes_words() {
        let mut no_affinity = local("/a/../b");
        no_affinity["spec"]["nodeAffinity"] = Value::Null;
        let table = [
            (
                no_affinity,
                vec![
                    "spec.local.path: Invalid value: \"/a/../b\": must not contain '..'",
                    "spec.nodeAffinity: Required value: Local volume requires node affinity",
                ],
            ),
            (
                json!({"spec": {"capacity": {"storage": "-1"}, "accessModes": ["Odd"], "hostPath": {"path": "/"},
                    "nfs": {"server": "a", "path": "/b"}, "persistentVolumeReclaimPolicy": "Recycle"}}),
                vec![
                    r#"spec.accessModes: Unsupported value: "Odd": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod""#,
                    "spec.capacity[storage]: Invalid value: -1: must be a valid resource quantity",
                    r#"spec.capacity[storage]: Invalid value: "-1": must be greater than zero"#,
                    "spec.nfs: Forbidden: may not specify more than 1 volume type",
                    "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'",
                ],
            ),
            (
                json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOncePod", "ReadWriteOnce"],
                    "csi": {"driver": "d", "volumeHandle": "", "nodePublishSecretRef": {"name": "s"}}}}),
                vec![
                    "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
                    "spec.csi.volumeHandle: Required value",
                    "spec.csi.nodePublishSecretRef.namespace: Required value",
                ],
            ),
        ];
        for (volume, expected) in table {
            assert_eq!(messages(&PersistentVolumeStrategy.validate(&facts(), &volume)), expected);
        }
    }

    #[test]
    fn what_a_volume_is_made_of_does_not_change() {
        let (mut old, mut new) = (local("/a"), local("/b"));
        PersistentVolumeStrategy.default(&mut old);
        PersistentVolumeStrategy.default(&mut new);
        let errors = PersistentVolumeStrategy.validate_update(&facts(), Part::Main, &new, &old);
        let [error] = messages(&errors).try_into().unwrap();
        let error: String = error;
        assert!(error.starts_with("spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation\n@@ "), "{error}");
        assert!(error.contains("-  \"Path\": \"/b\",\n+  \"Path\": \"/a\","), "{error}");
        new["spec"]["local"]["path"] = "/a".into();
        new["spec"]["claimRef"] = json!({"name": "c", "namespace": "n"});
        assert!(PersistentVolumeStrategy.validate_update(&facts(), Part::Main, &new, &old).is_empty());
    }

    #[test]
    fn a_change_of_phase_is_timed() {
        let old = json!({"status": {"phase": "Pending", "lastPhaseTransitionTime": "2020-01-01T00:00:00Z"}});
        let mut new =
            json!({"status": {"phase": "Bound", "lastPhaseTransitionTime": "2020-01-01T00:00:00Z"}});
        PersistentVolumeStrategy.prepare_for_update(&facts(), Part::Status, &mut new, &old);
        assert_eq!(new["status"]["lastPhaseTransitionTime"], "2026-01-02T03:04:05Z");
        let mut same = json!({"status": {"phase": "Pending"}});
        PersistentVolumeStrategy.prepare_for_update(&facts(), Part::Status, &mut same, &old);
        assert_eq!(same["status"]["lastPhaseTransitionTime"], "2020-01-01T00:00:00Z");
    }

    #[test]
    fn the_row_tells_claim_and_modes() {
        let mut volume = local("/a");
        volume["metadata"]["creationTimestamp"] = "2026-01-02T03:03:05Z".into();
        PersistentVolumeStrategy.default(&mut volume);
        volume["spec"]["claimRef"] = json!({"namespace": "ns", "name": "c"});
        volume["spec"]["storageClassName"] = "fast".into();
        volume["status"] = json!({"phase": "Bound"});
        assert_eq!(
            Value::from(PersistentVolumeStrategy.table_cells(&volume, NOW).unwrap()),
            json!([
                "pv",
                "1Gi",
                "RWO",
                "Retain",
                "Bound",
                "ns/c",
                "fast",
                "<unset>",
                "",
                "60s",
                "Filesystem"
            ])
        );
    }
}
