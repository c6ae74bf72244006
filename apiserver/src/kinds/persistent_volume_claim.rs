//! PersistentVolumeClaim.

use k8s_openapi::api::core::v1::PersistentVolumeClaimSpec;
use serde_json::{Value, json};
use wherry_machinery::field::{Error, ErrorList, Path};
use wherry_machinery::names;

use super::fields::{dns_label, dns_subdomain, immutable, invalid_each, label_selector, s};
use super::json::{
    carry_over, default_value, default_zero, is_absent, list, map_at, remove, set, text, typed, within,
};
use super::persistent_volume::{
    VOLUME_MODES, access_modes, access_modes_text, class_of, fraction, or_unset, phase_cell,
};
use super::pod::{diff, internal_form, resources};
use super::storage_class::BETA_CLASS_ANNOTATION;
use super::table;
use crate::registry::strategy::{Part, RequestFacts, Resource, Scope, Strategy};

/// `persistentvolumeclaims`.
pub(crate) struct PersistentVolumeClaimStrategy;

impl Strategy for PersistentVolumeClaimStrategy {
    fn resource(&self) -> Resource {
        Resource {
            group: "",
            version: "v1",
            name: "persistentvolumeclaims",
            kind: "PersistentVolumeClaim",
            scope: Scope::Namespaced,
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
            for field in ["capacity", "allocatedResources"] {
                within(status, field, resources::canonicalize_list);
            }
        }
        if let Some(spec) = map_at(object, "spec") {
            default_spec(spec);
        }
    }

    fn prepare_for_create(&self, _facts: &RequestFacts, object: &mut Value) {
        set(object, "status", json!({"phase": "Pending"}));
        within(object, "spec", |spec| data_sources(spec, None));
    }

    fn prepare_for_update(&self, _facts: &RequestFacts, part: Part, object: &mut Value, old: &Value) {
        match part {
            Part::Main => {
                carry_over(object, "status", old);
                within(object, "spec", |spec| data_sources(spec, old.get("spec")));
            }
            Part::Status => carry_over(object, "spec", old),
        }
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let path = Path::new("spec");
        match typed::<PersistentVolumeClaimSpec>(object, &path) {
            Ok(spec) => validate_spec(&spec, &path),
            Err(errors) => errors,
        }
    }

    fn validate_update(&self, facts: &RequestFacts, part: Part, object: &Value, old: &Value) -> ErrorList {
        if part == Part::Status {
            return status(object);
        }
        let mut errors = self.validate(facts, object);
        errors.extend(changes(object, old));
        errors
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let path = Path::new("spec").child("resources").child("requests").key("storage");
        fraction(requested(object), &path).into_iter().collect()
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        let volume = text(object, "/spec/volumeName");
        let (capacity, modes) = if volume.is_empty() {
            (String::new(), String::new())
        } else {
            let capacity = match text(object, "/status/capacity/storage") {
                "" => "0",
                amount => amount,
            };
            (capacity.to_owned(), access_modes_text(list(object, "/status/accessModes")))
        };
        Some(vec![
            table::name(object),
            phase_cell(object),
            volume.into(),
            capacity.into(),
            modes.into(),
            class_of(object).into(),
            or_unset(text(object, "/spec/volumeAttributesClassName")),
            table::age(object, now_unix_seconds),
            or_unset(text(object, "/spec/volumeMode")),
        ])
    }
}

/// The defaults of a claim's spec wherever it stands.
pub(crate) fn default_spec(spec: &mut Value) {
    default_value(spec, "volumeMode", "Filesystem");
    default_value(spec, "resources", json!({}));
    within(spec, "resources", resources::canonicalize);
}

/// Everything wrong with a claim's spec wherever it stands.
pub(crate) fn validate_spec(spec: &PersistentVolumeClaimSpec, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    if modes.is_empty() {
        errors.push(Error::required(&path.child("accessModes"), "at least 1 access mode is required"));
    }
    errors.extend(label_selector(spec.selector.as_ref(), &path.child("selector")));
    errors.extend(access_modes(modes, path));
    let storage = spec
        .resources
        .as_ref()
        .and_then(|r| r.requests.as_ref())
        .and_then(|requests| requests.get("storage"));
    let storage_path = path.child("resources").key("storage");
    match storage {
        None => errors.push(Error::required(&storage_path, "")),
        Some(amount) => {
            let quantity = resources::parsed(&amount.0);
            if quantity.is_negative() || quantity.is_zero() {
                errors.push(Error::invalid(&storage_path, quantity.to_string(), "must be greater than zero"));
            }
        }
    }
    let class = |class: &Option<String>, field: &str| match class.as_deref() {
        Some(class) if !class.is_empty() => dns_subdomain(class, &path.child(field)),
        _ => ErrorList::new(),
    };
    errors.extend(class(&spec.storage_class_name, "storageClassName"));
    if let Some(mode) = spec.volume_mode.as_deref()
        && !VOLUME_MODES.contains(&mode)
    {
        errors.push(Error::not_supported(&path.child("volumeMode"), mode, VOLUME_MODES));
    }
    if let Some(source) = &spec.data_source {
        let path = path.child("dataSource");
        errors.extend(data_source(&source.name, &source.kind, s(&source.api_group), &path));
    }
    if let Some(source) = &spec.data_source_ref {
        let path = path.child("dataSourceRef");
        errors.extend(data_source(&source.name, &source.kind, s(&source.api_group), &path));
        if !s(&source.namespace).is_empty() {
            errors.extend(dns_label(s(&source.namespace), &path.child("namespace")));
        }
    }
    if let (Some(source), Some(reference)) = (&spec.data_source, &spec.data_source_ref) {
        let refuse = |detail: &str| Error::invalid(path, path.child("dataSource").as_str(), detail);
        if !s(&reference.namespace).is_empty() {
            errors.push(refuse("may not be specified when dataSourceRef.namespace is specified"));
        } else if (&source.name, &source.kind, s(&source.api_group))
            != (&reference.name, &reference.kind, s(&reference.api_group))
        {
            errors.push(refuse("must match dataSourceRef"));
        }
    }
    errors.extend(class(&spec.volume_attributes_class_name, "volumeAttributesClassName"));
    errors
}

fn data_source(name: &str, kind: &str, group: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if name.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    }
    if kind.is_empty() {
        errors.push(Error::required(&path.child("kind"), ""));
    }
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.push(Error::invalid(path, kind, detail));
    }
    if !group.is_empty() {
        errors.extend(invalid_each(&path.child("apiGroup"), group, names::dns1123_subdomain(group)));
    }
    errors
}

/// The old and the new way to name what a volume is filled from say the same. A source in another namespace, and an old-style
/// source that is neither a claim nor a snapshot, are dropped unless they were there already.
///
/// Source: `DropDisabledFields`, `EnforceDataSourceBackwardsCompatibility` and `NormalizeDataSources` of
/// `k8s.io/kubernetes/pkg/api/persistentvolumeclaim`.
fn data_sources(spec: &mut Value, old: Option<&Value>) {
    let in_use = |field: &str| old.is_some_and(|old| !is_absent(old.get(field)));
    let (old_source, old_reference) = (in_use("dataSource"), in_use("dataSourceRef"));
    if !text(spec, "/dataSourceRef/namespace").is_empty() && !old_reference {
        remove(spec, "dataSourceRef");
    }
    if !old_source && !old_reference && !is_absent(spec.get("dataSource")) {
        let named = (text(spec, "/dataSource/apiGroup"), text(spec, "/dataSource/kind"));
        if !matches!(named, ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")) {
            remove(spec, "dataSource");
        }
    }
    let has = |spec: &Value, field: &str| !is_absent(spec.get(field));
    if has(spec, "dataSource") && !has(spec, "dataSourceRef") {
        let source = spec["dataSource"].clone();
        set(spec, "dataSourceRef", source);
    } else if has(spec, "dataSourceRef")
        && !has(spec, "dataSource")
        && text(spec, "/dataSourceRef/namespace").is_empty()
    {
        let mut source = spec["dataSourceRef"].clone();
        remove(&mut source, "namespace");
        set(spec, "dataSource", source);
    }
}

/// The amount of storage that a claim asks for.
pub(crate) fn requested(claim: &Value) -> &str {
    text(claim, "/spec/resources/requests/storage")
}

/// Source: `ValidatePersistentVolumeClaimUpdate`.
fn changes(claim: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("spec");
    let (mut spec, mut old_spec) = (claim["spec"].clone(), old["spec"].clone());
    // A claim is bound once.
    if text(&old_spec, "/volumeName").is_empty() {
        carry_over(&mut old_spec, "volumeName", &spec);
    }
    class_change(claim, old, &mut spec, &mut errors);
    if text(claim, "/status/phase") == "Bound" {
        if !is_absent(spec.pointer("/resources/requests")) {
            let amount = requested(old).to_owned();
            within(&mut spec, "resources", |resources| {
                within(resources, "requests", |requests| set(requests, "storage", amount));
            });
        }
        if !is_absent(spec.get("volumeAttributesClassName")) {
            carry_over(&mut spec, "volumeAttributesClassName", &old_spec);
        }
    }
    let print = |spec: &Value| internal_form::print_lines("PersistentVolumeClaimSpec", spec);
    let (new_text, old_text) = (print(&spec), print(&old_spec));
    if new_text != old_text {
        let difference = diff::unified(&new_text, &old_text);
        let detail = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{difference}"
        );
        errors.push(Error::forbidden(&path, &detail));
    }
    let size = resources::parsed(requested(claim));
    let present = resources::parsed(text(old, "/status/capacity/storage"));
    if size < resources::parsed(requested(old)) && size <= present {
        let path = path.child("resources").child("requests").child("storage");
        errors.push(Error::forbidden(&path, "field can not be less than status.capacity"));
    }
    let field = |object: &'static str, claim: &Value| claim["spec"].get(object).cloned();
    errors.extend(immutable(
        field("volumeMode", claim).as_ref(),
        field("volumeMode", old).as_ref(),
        &Path::new("volumeMode"),
    ));
    let class_path = path.child("volumeAttributesClassName");
    if !is_absent(field("volumeAttributesClassName", old).as_ref()) {
        match field("volumeAttributesClassName", claim) {
            None | Some(Value::Null) => {
                errors.push(Error::forbidden(&class_path, "update from non-nil value to nil is forbidden"));
            }
            Some(class) if class == "" => {
                let detail = "update from non-nil value to an empty string is forbidden";
                errors.push(Error::forbidden(&class_path, detail));
            }
            Some(_) => {}
        }
    }
    errors
}

/// The class may be added once (by the controller that gives a claim the default class), or move from the old annotation.
fn class_change(claim: &Value, old: &Value, spec: &mut Value, errors: &mut ErrorList) {
    let annotation = |claim: &Value| {
        let annotations = claim.pointer("/metadata/annotations");
        annotations.and_then(|annotations| annotations.get(BETA_CLASS_ANNOTATION)).cloned()
    };
    let (was, is) = (annotation(old), annotation(claim));
    let (old_class, class) =
        (old["spec"].get("storageClassName").cloned(), spec.get("storageClassName").cloned());
    let moved = was.is_some() && is.is_none() && is_absent(old_class.as_ref()) && class == was;
    if moved {
        remove(spec, "storageClassName");
        return;
    }
    if was != is {
        let path = Path::new("metadata").child("annotations").key(BETA_CLASS_ANNOTATION);
        let value = is.clone().unwrap_or_else(|| "".into());
        errors.push(Error::invalid(&path, value, super::fields::IMMUTABLE));
    }
    let given_later = is_absent(old_class.as_ref()) && was.is_none() && !is_absent(class.as_ref());
    if given_later {
        remove(spec, "storageClassName");
    }
}

fn status(claim: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    if list(claim, "/spec/accessModes").is_empty() {
        errors.push(Error::required(&Path::new("Spec").child("accessModes"), ""));
    }
    for field in ["capacity", "allocatedResources"] {
        let amounts = claim.pointer(&format!("/status/{field}")).and_then(Value::as_object);
        for (resource, amount) in amounts.into_iter().flatten() {
            let quantity = resources::parsed(amount.as_str().unwrap_or_default());
            if quantity.is_negative() {
                let path = Path::new("status").child(field).key(resource);
                errors.push(Error::invalid(&path, quantity.value(), "must be a valid resource quantity"));
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, facts, messages};

    fn claim(spec: Value) -> Value {
        let mut claim = json!({"metadata": {"name": "c"}, "spec": spec});
        PersistentVolumeClaimStrategy.default(&mut claim);
        PersistentVolumeClaimStrategy.prepare_for_create(&facts(), &mut claim);
        claim
    }

    fn plain() -> Value {
        claim(
            json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "a"}),
        )
    }

    #[test]
    fn a_claim_needs_modes_and_a_size() {
        let table = [
            (plain(), vec![]),
            (
                claim(json!({})),
                vec![
                    "spec.accessModes: Required value: at least 1 access mode is required",
                    "spec.resources[storage]: Required value",
                ],
            ),
            (
                claim(
                    json!({"accessModes": ["Odd"], "resources": {"requests": {"storage": "0"}}, "volumeMode": "Tape",
                    "dataSource": {"kind": "VolumeSnapshot", "name": ""}}),
                ),
                vec![
                    r#"spec.accessModes: Unsupported value: "Odd": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod""#,
                    r#"spec.resources[storage]: Invalid value: "0": must be greater than zero"#,
                    r#"spec.volumeMode: Unsupported value: "Tape": supported values: "Block", "Filesystem""#,
                ],
            ),
        ];
        for (claim, expected) in table {
            assert_eq!(messages(&PersistentVolumeClaimStrategy.validate(&facts(), &claim)), expected);
        }
    }

    #[test]
    fn both_ways_to_name_a_source_say_the_same() {
        let source = json!({"kind": "PersistentVolumeClaim", "name": "from"});
        let old_way = claim(json!({"dataSource": source}));
        assert_eq!(old_way["spec"]["dataSourceRef"], source);
        let new_way = claim(json!({"dataSourceRef": source}));
        assert_eq!(new_way["spec"]["dataSource"], source);
        let foreign = claim(json!({"dataSource": {"kind": "Other", "name": "x", "apiGroup": "g.example"}}));
        assert!(foreign["spec"].get("dataSource").is_none());
    }

    #[test]
    fn of_a_bound_claim_only_the_size_may_grow() {
        let change = |phase: &str, edit: fn(&mut Value)| {
            let mut old = plain();
            old["status"] = json!({"phase": phase, "capacity": {"storage": "1Gi"}});
            old["spec"]["volumeName"] = "pv".into();
            let mut new = old.clone();
            edit(&mut new);
            let errors = PersistentVolumeClaimStrategy.validate_update(&facts(), Part::Main, &new, &old);
            messages(&errors).iter().map(|error| error.lines().next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let fixed = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        let size = "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity";
        assert!(
            change("Bound", |new| new["spec"]["resources"]["requests"]["storage"] = "2Gi".into()).is_empty()
        );
        assert_eq!(
            change("Pending", |new| new["spec"]["resources"]["requests"]["storage"] = "2Gi".into()),
            [fixed]
        );
        assert_eq!(
            change("Bound", |new| new["spec"]["resources"]["requests"]["storage"] = "1Mi".into()),
            [size]
        );
        assert_eq!(change("Bound", |new| new["spec"]["volumeName"] = "other".into()), [fixed]);
        assert_eq!(change("Bound", |new| new["spec"]["storageClassName"] = "b".into()), [fixed]);
    }

    #[test]
    fn the_controller_may_bind_a_claim_and_give_it_a_class_once() {
        let mut old = plain();
        remove(&mut old["spec"], "storageClassName");
        let mut new = old.clone();
        new["spec"]["storageClassName"] = "default".into();
        new["spec"]["volumeName"] = "pv".into();
        let update = |new: &Value, old: &Value| {
            messages(&PersistentVolumeClaimStrategy.validate_update(&facts(), Part::Main, new, old))
        };
        assert!(update(&new, &old).is_empty());
        assert!(!update(&old, &new).is_empty());
    }

    #[test]
    fn the_row_shows_what_is_bound() {
        let mut bound = plain();
        bound["metadata"]["creationTimestamp"] = "2026-01-02T03:03:05Z".into();
        let row = |claim: &Value| Value::from(PersistentVolumeClaimStrategy.table_cells(claim, NOW).unwrap());
        assert_eq!(row(&bound), json!(["c", "Pending", "", "", "", "a", "<unset>", "60s", "Filesystem"]));
        bound["spec"]["volumeName"] = "pv".into();
        bound["status"] = json!({"phase": "Bound", "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"]});
        assert_eq!(
            row(&bound),
            json!(["c", "Bound", "pv", "2Gi", "RWO,RWX", "a", "<unset>", "60s", "Filesystem"])
        );
    }
}
