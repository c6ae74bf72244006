//! StatefulSet.

use k8s_openapi::api::apps::v1::{StatefulSetSpec, StatefulSetUpdateStrategy};
use serde_json::{Value, json};
use wherry_machinery::field::{Error, ErrorList, Path};

use super::fields::{non_negative, s};
use super::json::{default_value, default_zero, each, integer, is_absent, map_at, text, typed};
use super::{persistent_volume_claim, table, workload};
use crate::registry::strategy::{Part, RequestFacts, Resource, Scope, Strategy};

/// `statefulsets`.
pub(crate) struct StatefulSetStrategy;

/// The fields of `spec` that may change.
const MUTABLE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

impl Strategy for StatefulSetStrategy {
    fn resource(&self) -> Resource {
        Resource {
            group: "apps",
            version: "v1",
            name: "statefulsets",
            kind: "StatefulSet",
            scope: Scope::Namespaced,
        }
    }

    fn has_status(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let Some(spec) = map_at(object, "spec") else { return };
        default_value(spec, "replicas", 1);
        workload::default_template(spec);
        each(spec, "volumeClaimTemplates", |claim| {
            default_value(claim, "kind", "PersistentVolumeClaim");
            default_value(claim, "apiVersion", "v1");
            persistent_volume_claim::PersistentVolumeClaimStrategy.default(claim);
        });
        default_zero(spec, "podManagementPolicy", "OrderedReady");
        if let Some(strategy) = map_at(spec, "updateStrategy") {
            default_zero(strategy, "type", "RollingUpdate");
            if text(strategy, "/type") == "RollingUpdate"
                && let Some(rolling) = map_at(strategy, "rollingUpdate")
            {
                default_value(rolling, "partition", 0);
            }
        }
        if let Some(policy) = map_at(spec, "persistentVolumeClaimRetentionPolicy") {
            default_zero(policy, "whenDeleted", "Retain");
            default_zero(policy, "whenScaled", "Retain");
        }
        default_value(spec, "revisionHistoryLimit", 10);
    }

    fn prepare_for_create(&self, _facts: &RequestFacts, object: &mut Value) {
        object["status"] = json!({"replicas": 0, "availableReplicas": 0});
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let path = Path::new("spec");
        let spec: StatefulSetSpec = match typed(object, &path) {
            Ok(spec) => spec,
            Err(errors) => return errors,
        };
        let mut errors = ErrorList::new();
        let policies = ["OrderedReady", "Parallel"];
        match s(&spec.pod_management_policy) {
            "" => errors.push(Error::required(&path.child("podManagementPolicy"), "")),
            policy if policies.contains(&policy) => {}
            other => {
                let detail = format!("must be '{}' or '{}'", policies[0], policies[1]);
                errors.push(Error::invalid(&path.child("podManagementPolicy"), other, &detail));
            }
        }
        errors.extend(update_strategy(spec.update_strategy.as_ref(), &path.child("updateStrategy")));
        if let Some(policy) = &spec.persistent_volume_claim_retention_policy {
            let path = path.child("persistentVolumeClaimRetentionPolicy");
            for (value, name) in [(&policy.when_deleted, "whenDeleted"), (&policy.when_scaled, "whenScaled")]
            {
                if !matches!(s(value), "Retain" | "Delete") {
                    errors.push(Error::not_supported(&path.child(name), s(value), &["Delete", "Retain"]));
                }
            }
        }
        errors.extend(non_negative(i64::from(spec.replicas.unwrap_or_default()), &path.child("replicas")));
        let seconds = i64::from(spec.min_ready_seconds.unwrap_or_default());
        errors.extend(non_negative(seconds, &path.child("minReadySeconds")));
        if let Some(start) = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start) {
            errors.extend(non_negative(i64::from(start), &path.child("ordinals").child("start")));
        }
        let selector = (!is_absent(object.pointer("/spec/selector"))).then_some(&spec.selector);
        errors.extend(workload::selector_and_partial_template(
            selector,
            &spec.template,
            "StatefulSet",
            &path,
        ));
        if let Some(limit) = spec.revision_history_limit {
            errors.extend(non_negative(i64::from(limit), &path.child("revisionHistoryLimit")));
        }
        errors
    }

    fn validate_update(&self, facts: &RequestFacts, part: Part, object: &Value, old: &Value) -> ErrorList {
        if part == Part::Status {
            let counts =
                ["replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "observedGeneration"];
            let bounded = ["readyReplicas", "currentReplicas", "updatedReplicas"];
            return workload::status_counts(object, &counts, &bounded);
        }
        let mut errors = self.validate(facts, object);
        let fixed = |object: &Value| {
            let mut spec = object["spec"].clone();
            if let Some(spec) = spec.as_object_mut() {
                spec.retain(|name, _| !MUTABLE.contains(&name.as_str()));
            }
            spec
        };
        if fixed(object) != fixed(old) {
            let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                          'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                          'minReadySeconds' are forbidden";
            errors.push(Error::forbidden(&Path::new("spec"), detail));
        }
        errors
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        workload::template_warnings(object, old)
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        let (containers, images) = workload::template_cells(object);
        let ready = integer(object, "/status/readyReplicas");
        Some(vec![
            table::name(object),
            format!("{ready}/{}", integer(object, "/spec/replicas")).into(),
            table::age(object, now_unix_seconds),
            containers,
            images,
        ])
    }
}

fn update_strategy(strategy: Option<&StatefulSetUpdateStrategy>, path: &Path) -> ErrorList {
    let Some(strategy) = strategy else { return ErrorList::new() };
    match s(&strategy.type_) {
        "" => vec![Error::required(path, "")],
        "OnDelete" if strategy.rolling_update.is_some() => {
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            vec![Error::invalid(&path.child("rollingUpdate"), json!(strategy.rolling_update), detail)]
        }
        "OnDelete" => ErrorList::new(),
        "RollingUpdate" => {
            let partition = strategy.rolling_update.as_ref().and_then(|rolling| rolling.partition);
            let path = path.child("rollingUpdate").child("partition");
            non_negative(i64::from(partition.unwrap_or_default()), &path)
        }
        other => {
            vec![Error::invalid(path, json!({"type": other}), "must be 'RollingUpdate' or 'OnDelete'")]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{facts, messages};

    fn stateful_set(spec: Value) -> Value {
        let mut object = json!({"metadata": {"name": "s"}, "spec": {
            "selector": {"matchLabels": {"app": "s"}}, "serviceName": "peers",
            "template": {"metadata": {"labels": {"app": "s"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        for (key, value) in spec.as_object().into_iter().flatten() {
            object["spec"][key] = value.clone();
        }
        StatefulSetStrategy.default(&mut object);
        object
    }

    #[test]
    fn policies_and_counts_are_checked() {
        assert!(StatefulSetStrategy.validate(&facts(), &stateful_set(json!({}))).is_empty());
        let object = stateful_set(
            json!({"replicas": -1, "podManagementPolicy": "Odd", "updateStrategy": {"rollingUpdate": {"partition": -1}},
            "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Odd"}}),
        );
        assert_eq!(
            messages(&StatefulSetStrategy.validate(&facts(), &object)),
            [
                "spec.podManagementPolicy: Invalid value: \"Odd\": must be 'OrderedReady' or 'Parallel'",
                "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
                "spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: \"Odd\": supported values: \"Delete\", \"Retain\"",
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            ]
        );
    }

    #[test]
    fn little_of_the_specification_may_change() {
        let old = stateful_set(json!({}));
        let change = |spec: Value| {
            messages(&StatefulSetStrategy.validate_update(&facts(), Part::Main, &stateful_set(spec), &old))
                .len()
        };
        assert_eq!(change(json!({"replicas": 3, "minReadySeconds": 5})), 0);
        assert_eq!(change(json!({"serviceName": "others"})), 1);
    }
}
