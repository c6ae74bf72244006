//! StorageClass, and what it shares with VolumeAttributesClass.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::TopologySelectorTerm;
use serde_json::{Value, json};
use wherry_machinery::field::{Error, ErrorList, Path};

use super::fields::{immutable, label_key, qualified_name};
use super::json::{default_value, is_zero, list, text, typed};
use super::node::deprecated_label;
use super::table;
use crate::registry::strategy::{Part, RequestFacts, Resource, Scope, Strategy};

/// How a class was named before `storageClassName`.
pub(crate) const BETA_CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const DEFAULT_CLASS_ANNOTATIONS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const RECLAIM_POLICIES: &[&str] = &["Delete", "Retain"];
const BINDING_MODES: &[&str] = &["Immediate", "WaitForFirstConsumer"];

/// `storageclasses`.
pub(crate) struct StorageClassStrategy;

impl Strategy for StorageClassStrategy {
    fn resource(&self) -> Resource {
        Resource {
            group: "storage.k8s.io",
            version: "v1",
            name: "storageclasses",
            kind: "StorageClass",
            scope: Scope::Cluster,
        }
    }

    fn default(&self, object: &mut Value) {
        default_value(object, "reclaimPolicy", "Delete");
        default_value(object, "volumeBindingMode", "Immediate");
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let mut errors = provisioner(text(object, "/provisioner"), &Path::new("provisioner"));
        errors.extend(parameters(object.get("parameters"), &Path::new("parameters")));
        let policy = text(object, "/reclaimPolicy");
        if !policy.is_empty() && !RECLAIM_POLICIES.contains(&policy) {
            errors.push(Error::not_supported(&Path::new("reclaimPolicy"), policy, RECLAIM_POLICIES));
        }
        let mode = text(object, "/volumeBindingMode");
        if !BINDING_MODES.contains(&mode) {
            errors.push(Error::not_supported(&Path::new("volumeBindingMode"), mode, BINDING_MODES));
        }
        errors.extend(topologies(object));
        errors
    }

    fn validate_update(&self, facts: &RequestFacts, _part: Part, object: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(facts, object);
        for field in ["parameters", "provisioner", "reclaimPolicy"] {
            errors.extend(fixed(field, object, old));
        }
        errors.extend(immutable(
            object.get("volumeBindingMode"),
            old.get("volumeBindingMode"),
            &Path::new("volumeBindingMode"),
        ));
        errors
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        for (i, term) in list(object, "/allowedTopologies").iter().enumerate() {
            for (j, expression) in list(term, "/matchLabelExpressions").iter().enumerate() {
                let key = text(expression, "/key");
                if let Some(what) = deprecated_label(key) {
                    let path = Path::new("allowedTopologies").index(i);
                    let path = path.child("matchLabelExpressions").index(j).child("key");
                    warnings.push(format!("{path}: {key} is {what}"));
                }
            }
        }
        warnings
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        let policy = text(object, "/reclaimPolicy");
        let mode = text(object, "/volumeBindingMode");
        Some(vec![
            named_if_default(object, &DEFAULT_CLASS_ANNOTATIONS),
            text(object, "/provisioner").into(),
            if policy.is_empty() { "Delete" } else { policy }.into(),
            if mode.is_empty() { "Immediate" } else { mode }.into(),
            super::json::flag(object, "/allowVolumeExpansion").into(),
            table::age(object, now_unix_seconds),
        ])
    }
}

/// Whether claims without a class get this one.
pub(crate) fn is_default(class: &Value) -> bool {
    is_marked(class, &DEFAULT_CLASS_ANNOTATIONS)
}

fn is_marked(class: &Value, annotations: &[&str]) -> bool {
    let given = class.pointer("/metadata/annotations");
    annotations.iter().any(|key| given.and_then(|given| given.get(*key)).is_some_and(|value| value == "true"))
}

fn named_if_default(class: &Value, annotations: &[&str]) -> Value {
    let mark = if is_marked(class, annotations) { " (default)" } else { "" };
    format!("{}{mark}", text(class, "/metadata/name")).into()
}

/// The name of who makes volumes.
pub(crate) fn provisioner(name: &str, path: &Path) -> ErrorList {
    if name.is_empty() { vec![Error::required(path, "")] } else { qualified_name(&name.to_lowercase(), path) }
}

/// What the provisioner is told.
pub(crate) fn parameters(parameters: Option<&Value>, path: &Path) -> ErrorList {
    /// Source: `maxProvisionerParameterLen` and `maxProvisionerParameterSize` (bytes).
    const MAX_COUNT: usize = 512;
    const MAX_TOTAL_BYTES: usize = 256 * 1024;
    let mut errors = ErrorList::new();
    let Some(parameters) = parameters.and_then(Value::as_object) else { return errors };
    if parameters.len() > MAX_COUNT {
        errors.push(Error::too_long(path, MAX_COUNT));
        return errors;
    }
    let mut total = 0;
    for (key, value) in parameters {
        if key.is_empty() {
            errors.push(Error::invalid(path, "", "field can not be empty."));
        }
        total += key.len() + value.as_str().unwrap_or_default().len();
    }
    if total > MAX_TOTAL_BYTES {
        errors.push(Error::too_long(path, MAX_TOTAL_BYTES));
    }
    errors
}

/// A field that no update may change.
pub(crate) fn fixed(field: &str, object: &Value, old: &Value) -> Option<Error> {
    let (new, old) = (object.get(field), old.get(field));
    let same = new == old || (is_zero(new) && is_zero(old));
    (!same).then(|| Error::forbidden(&Path::new(field), &format!("updates to {field} are forbidden.")))
}

fn topologies(object: &Value) -> ErrorList {
    let path = Path::new("allowedTopologies");
    let terms: Vec<TopologySelectorTerm> = match typed(object, &path) {
        Ok(terms) => terms,
        Err(errors) => return errors,
    };
    let mut errors = ErrorList::new();
    let mut seen: Vec<BTreeMap<String, BTreeSet<String>>> = Vec::new();
    for (i, term) in terms.iter().enumerate() {
        let path = path.index(i).child("matchLabelExpressions");
        let mut values_by_key: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (j, requirement) in term.match_label_expressions.iter().flatten().enumerate() {
            let path = path.index(j);
            let mut own = ErrorList::new();
            if requirement.values.is_empty() {
                own.push(Error::required(&path.child("values"), ""));
            }
            let mut values = BTreeSet::new();
            for (k, value) in requirement.values.iter().enumerate() {
                if !values.insert(value.clone()) {
                    own.push(Error::duplicate(&path.child("values").index(k), value.as_str()));
                }
            }
            own.extend(label_key(&requirement.key, &path.child("key")));
            if values_by_key.insert(requirement.key.clone(), values).is_some() {
                errors.push(Error::duplicate(&path.child("key"), requirement.key.as_str()));
            }
            errors.extend(own);
        }
        if values_by_key.is_empty() || seen.contains(&values_by_key) {
            errors.push(Error::duplicate(&path, ""));
        }
        seen.push(values_by_key);
    }
    errors
}

/// The class for claims that name none: of those marked so, the youngest.
///
/// Source: `GetDefaultClass` of `k8s.io/kubernetes/pkg/volume/util`.
pub(crate) fn default_of(classes: impl Iterator<Item = Value>) -> Option<Value> {
    let created = |class: &Value| text(class, "/metadata/creationTimestamp").to_owned();
    let name = |class: &Value| text(class, "/metadata/name").to_owned();
    classes.filter(is_default).max_by(|a, b| (created(a), name(b)).cmp(&(created(b), name(a))))
}

/// The class that every cluster starts with: directories on the node that the first pod runs on.
pub(crate) fn local_path() -> Value {
    json!({
        "metadata": {"name": "local-path", "annotations": {DEFAULT_CLASS_ANNOTATIONS[0]: "true"}},
        "provisioner": "wherry.dev/local-path",
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    })
}

/// `volumeattributesclasses`.
pub(crate) struct VolumeAttributesClassStrategy;

impl Strategy for VolumeAttributesClassStrategy {
    fn resource(&self) -> Resource {
        Resource {
            group: "storage.k8s.io",
            version: "v1",
            name: "volumeattributesclasses",
            kind: "VolumeAttributesClass",
            scope: Scope::Cluster,
        }
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let mut errors = provisioner(text(object, "/driverName"), &Path::new("driverName"));
        let path = Path::new("parameters");
        if is_zero(object.get("parameters")) {
            errors.push(Error::required(&path, "must contain at least one key/value pair"));
        }
        errors.extend(parameters(object.get("parameters"), &path));
        errors
    }

    fn validate_update(&self, facts: &RequestFacts, _part: Part, object: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(facts, object);
        for field in ["driverName", "parameters"] {
            errors.extend(fixed(field, object, old));
        }
        errors
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        Some(vec![
            table::name(object),
            text(object, "/driverName").into(),
            table::age(object, now_unix_seconds),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, facts, messages};

    #[test]
    fn a_class_is_checked_and_never_changes() {
        let mut class = json!({"provisioner": "a.b", "parameters": {"kind": "ssd"}});
        StorageClassStrategy.default(&mut class);
        assert!(StorageClassStrategy.validate(&facts(), &class).is_empty());
        let bad = json!({"provisioner": "", "reclaimPolicy": "Burn", "volumeBindingMode": "Soon",
            "allowedTopologies": [{"matchLabelExpressions": [{"key": "zone", "values": ["a", "a"]}]}, {}]});
        assert_eq!(
            messages(&StorageClassStrategy.validate(&facts(), &bad)),
            [
                "provisioner: Required value",
                r#"reclaimPolicy: Unsupported value: "Burn": supported values: "Delete", "Retain""#,
                r#"volumeBindingMode: Unsupported value: "Soon": supported values: "Immediate", "WaitForFirstConsumer""#,
                r#"allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: "a""#,
                r#"allowedTopologies[1].matchLabelExpressions: Duplicate value: """#,
            ]
        );
        let mut changed = class.clone();
        changed["parameters"]["kind"] = "hdd".into();
        changed["volumeBindingMode"] = "WaitForFirstConsumer".into();
        assert_eq!(
            messages(&StorageClassStrategy.validate_update(&facts(), Part::Main, &changed, &class)),
            [
                "parameters: Forbidden: updates to parameters are forbidden.",
                r#"volumeBindingMode: Invalid value: "WaitForFirstConsumer": field is immutable"#,
            ]
        );
    }

    #[test]
    fn the_youngest_default_class_counts() {
        let class = |name: &str, created: &str, default: &str| {
            json!({"metadata": {"name": name, "creationTimestamp": created,
                "annotations": {"storageclass.kubernetes.io/is-default-class": default}}})
        };
        let classes = [
            class("old", "2026-01-01T00:00:00Z", "true"),
            class("b", "2026-01-02T00:00:00Z", "true"),
            class("a", "2026-01-02T00:00:00Z", "true"),
            class("no", "2026-01-03T00:00:00Z", "false"),
        ];
        assert_eq!(default_of(classes.into_iter()).unwrap()["metadata"]["name"], "a");
        assert!(default_of(std::iter::empty()).is_none());
    }

    #[test]
    fn the_row_marks_the_default() {
        let mut class = local_path();
        class["metadata"]["creationTimestamp"] = "2026-01-02T03:03:05Z".into();
        assert_eq!(
            Value::from(StorageClassStrategy.table_cells(&class, NOW).unwrap()),
            json!([
                "local-path (default)",
                "wherry.dev/local-path",
                "Delete",
                "WaitForFirstConsumer",
                false,
                "60s"
            ])
        );
    }

    #[test]
    fn attributes_need_a_driver_and_parameters() {
        let errors = VolumeAttributesClassStrategy.validate(&facts(), &json!({}));
        assert_eq!(
            messages(&errors),
            [
                "driverName: Required value",
                "parameters: Required value: must contain at least one key/value pair"
            ]
        );
    }
}
