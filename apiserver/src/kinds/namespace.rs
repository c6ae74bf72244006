//! Namespace.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wherry_machinery::field::{Error, ErrorList, Path};
use wherry_machinery::names;

use super::json::{carry_over, default_value, list, map_at, remove, set, text};
use super::{fields, table};
use crate::registry::strategy::{Part, RequestFacts, Resource, Scope, Strategy};

/// The finalizer that the namespace controller removes when a namespace is empty.
const KUBERNETES: &str = "kubernetes";
/// The label that carries a namespace's own name, so that selectors can pick it.
const METADATA_NAME: &str = "kubernetes.io/metadata.name";

/// `namespaces`.
pub(crate) struct NamespaceStrategy;

impl Strategy for NamespaceStrategy {
    fn resource(&self) -> Resource {
        Resource { group: "", version: "v1", name: "namespaces", kind: "Namespace", scope: Scope::Cluster }
    }

    fn has_status(&self) -> bool {
        true
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn is_finalized_by_spec(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let name = text(object, "/metadata/name").to_owned();
        if !name.is_empty()
            && let Some(labels) = map_at(object, "metadata").and_then(|metadata| map_at(metadata, "labels"))
        {
            set(labels, METADATA_NAME, name);
        }
        default_value(object, "spec", json!({}));
        if let Some(status) = map_at(object, "status") {
            super::json::default_zero(status, "phase", "Active");
        }
    }

    fn prepare_for_create(&self, _facts: &RequestFacts, object: &mut Value) {
        // A name made from generateName is known only now.
        set(object, "status", json!({"phase": "Active"}));
        self.default(object);
        let has_own = list(object, "/spec/finalizers").iter().any(|f| f == KUBERNETES);
        if !has_own && let Some(spec) = map_at(object, "spec") {
            let mut finalizers = list(spec, "/finalizers").to_vec();
            finalizers.push(KUBERNETES.into());
            set(spec, "finalizers", finalizers);
        }
    }

    fn prepare_for_update(&self, _facts: &RequestFacts, part: Part, object: &mut Value, old: &Value) {
        // Spec holds only the finalizers, which have a subresource of their own.
        carry_over(object, "spec", old);
        if part == Part::Main {
            carry_over(object, "status", old);
        }
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_label(name)
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let path = Path::new("spec").child("finalizers");
        finalizer_names(object).flat_map(|finalizer| finalizer_name(finalizer, &path)).collect()
    }

    fn validate_update(&self, _facts: &RequestFacts, part: Part, object: &Value, _old: &Value) -> ErrorList {
        if part == Part::Main {
            return ErrorList::new();
        }
        let deleted = !text(object, "/metadata/deletionTimestamp").is_empty();
        let phase = text(object, "/status/phase");
        let (wanted, detail) = if deleted {
            ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty")
        } else {
            ("Active", "may only be 'Active' if `deletionTimestamp` is empty")
        };
        if phase == wanted {
            ErrorList::new()
        } else {
            vec![Error::invalid(&Path::new("status").child("Phase"), phase, detail)]
        }
    }

    fn selectable_fields(&self, object: &Value) -> BTreeMap<&'static str, String> {
        let name = text(object, "/metadata/name").to_owned();
        BTreeMap::from([("status.phase", text(object, "/status/phase").to_owned()), ("name", name)])
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["name", "status.phase"]
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        let age = table::age(object, now_unix_seconds);
        Some(vec![table::name(object), text(object, "/status/phase").into(), age])
    }
}

/// What a PUT to `finalize` may change: the finalizers of the spec and nothing else.
pub(crate) fn prepare_for_finalize(object: &mut Value, old: &Value) {
    carry_over(object, "status", old);
    default_value(object, "spec", json!({}));
    if list(object, "/spec/finalizers").is_empty()
        && let Some(spec) = map_at(object, "spec")
    {
        remove(spec, "finalizers");
    }
}

/// What is wrong with a namespace that is put to `finalize`.
pub(crate) fn validate_finalize(object: &Value) -> ErrorList {
    let path = Path::new("spec").child("finalizers");
    finalizer_names(object)
        .enumerate()
        .flat_map(|(i, finalizer)| finalizer_name(finalizer, &path.index(i)))
        .collect()
}

fn finalizer_names(object: &Value) -> impl Iterator<Item = &str> {
    list(object, "/spec/finalizers").iter().filter_map(Value::as_str)
}

fn finalizer_name(name: &str, path: &Path) -> ErrorList {
    let mut errors = fields::qualified_name(name, path);
    if !name.contains('/') && !matches!(name, KUBERNETES | "orphan" | "foregroundDeletion") {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(Error::invalid(path, name, detail));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{facts, messages};

    #[test]
    fn a_new_namespace_is_active_with_its_finalizer_and_its_name_as_label() {
        let mut namespace = json!({"metadata": {"name": "n"}});
        NamespaceStrategy.default(&mut namespace);
        NamespaceStrategy.prepare_for_create(&facts(), &mut namespace);
        assert_eq!(
            namespace,
            json!({
                "metadata": {"name": "n", "labels": {"kubernetes.io/metadata.name": "n"}},
                "spec": {"finalizers": ["kubernetes"]},
                "status": {"phase": "Active"},
            })
        );
    }

    #[test]
    fn finalize_changes_the_finalizers_alone() {
        let old = json!({"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Terminating"}});
        let mut finalized = json!({"metadata": {"name": "n"}, "spec": {"finalizers": []}});
        prepare_for_finalize(&mut finalized, &old);
        assert_eq!(
            finalized,
            json!({"metadata": {"name": "n"}, "spec": {}, "status": {"phase": "Terminating"}})
        );
    }

    #[test]
    fn finalizers_are_standard_or_fully_qualified() {
        let namespace = json!({"spec": {"finalizers": ["kubernetes", "e.org/x", "own"]}});
        assert_eq!(
            messages(&validate_finalize(&namespace)),
            [
                r#"spec.finalizers[2]: Invalid value: "own": name is neither a standard finalizer name nor is it fully qualified"#
            ]
        );
    }

    #[test]
    fn the_phase_follows_the_deletion_timestamp() {
        let namespace = json!({"metadata": {}, "status": {"phase": "Terminating"}});
        let errors = NamespaceStrategy.validate_update(&facts(), Part::Status, &namespace, &json!({}));
        assert_eq!(
            messages(&errors),
            [
                r#"status.Phase: Invalid value: "Terminating": may only be 'Active' if `deletionTimestamp` is empty"#
            ]
        );
    }
}
