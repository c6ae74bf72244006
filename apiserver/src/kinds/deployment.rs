//! Deployment.

use k8s_openapi::api::apps::v1::{DeploymentSpec, DeploymentStrategy as Strategies};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use wherry_machinery::field::{Error, ErrorList, Path};

use super::fields::{int_or_string, non_negative, non_negative_or_percent, percentage, s};
use super::json::{carry_over, default_value, default_zero, integer, is_absent, map_at, text, typed};
use super::{fields, table, workload};
use crate::registry::strategy::{Part, RequestFacts, Resource, Scope, Strategy};

/// `deployments`.
pub(crate) struct DeploymentStrategy;

impl Strategy for DeploymentStrategy {
    fn resource(&self) -> Resource {
        Resource {
            group: "apps",
            version: "v1",
            name: "deployments",
            kind: "Deployment",
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
        if let Some(strategy) = map_at(spec, "strategy") {
            default_zero(strategy, "type", "RollingUpdate");
            if text(strategy, "/type") == "RollingUpdate"
                && let Some(rolling) = map_at(strategy, "rollingUpdate")
            {
                default_value(rolling, "maxUnavailable", "25%");
                default_value(rolling, "maxSurge", "25%");
            }
        }
        default_value(spec, "revisionHistoryLimit", 10);
        default_value(spec, "progressDeadlineSeconds", 600);
        default_value(object, "status", json!({}));
    }

    fn prepare_for_update(&self, _facts: &RequestFacts, part: Part, object: &mut Value, old: &Value) {
        match part {
            Part::Main => carry_over(object, "status", old),
            Part::Status => {
                carry_over(object, "spec", old);
                // Unlike other kinds' status, a Deployment's leaves the labels alone.
                crate::registry::object::carry(object, old, "labels");
            }
        }
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let path = Path::new("spec");
        let spec: DeploymentSpec = match typed(object, &path) {
            Ok(spec) => spec,
            Err(errors) => return errors,
        };
        let mut errors = non_negative(i64::from(spec.replicas.unwrap_or_default()), &path.child("replicas"));
        // An absent selector decodes as an empty one.
        let selector = (!is_absent(object.pointer("/spec/selector"))).then_some(&spec.selector);
        errors.extend(workload::selector_and_template(selector, &spec.template, "Deployment", &path));
        errors.extend(strategy(spec.strategy.as_ref(), &path.child("strategy")));
        let min_ready = spec.min_ready_seconds.unwrap_or_default();
        errors.extend(non_negative(i64::from(min_ready), &path.child("minReadySeconds")));
        if let Some(limit) = spec.revision_history_limit {
            errors.extend(non_negative(i64::from(limit), &path.child("revisionHistoryLimit")));
        }
        if let Some(seconds) = spec.progress_deadline_seconds {
            let path = path.child("progressDeadlineSeconds");
            errors.extend(non_negative(i64::from(seconds), &path));
            if seconds <= min_ready {
                errors.push(Error::invalid(&path, seconds, "must be greater than minReadySeconds"));
            }
        }
        errors
    }

    fn validate_update(&self, facts: &RequestFacts, part: Part, object: &Value, old: &Value) -> ErrorList {
        if part == Part::Status {
            return validate_status(object, old);
        }
        let mut errors = self.validate(facts, object);
        let selector = |object: &Value| object.pointer("/spec/selector").cloned();
        let path = Path::new("spec").child("selector");
        errors.extend(fields::immutable(selector(object).as_ref(), selector(old).as_ref(), &path));
        errors
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        workload::template_warnings(object, old)
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        let ready = integer(object, "/status/readyReplicas");
        let (containers, images) = workload::template_cells(object);
        Some(vec![
            table::name(object),
            format!("{ready}/{}", integer(object, "/spec/replicas")).into(),
            integer(object, "/status/updatedReplicas").into(),
            integer(object, "/status/availableReplicas").into(),
            table::age(object, now_unix_seconds),
            containers,
            images,
            table::selector_text(object.pointer("/spec/selector")).into(),
        ])
    }
}

fn strategy(strategy: Option<&Strategies>, path: &Path) -> ErrorList {
    const TYPES: &[&str] = &["Recreate", "RollingUpdate"];
    let rolling_path = path.child("rollingUpdate");
    let Some(strategy) = strategy else { return ErrorList::new() };
    match s(&strategy.type_) {
        "Recreate" if strategy.rolling_update.is_some() => {
            vec![Error::forbidden(&rolling_path, "may not be specified when strategy `type` is 'Recreate'")]
        }
        "Recreate" => ErrorList::new(),
        "RollingUpdate" => {
            let Some(rolling) = &strategy.rolling_update else {
                return vec![Error::required(&rolling_path, "this should be defaulted and never be nil")];
            };
            let zero = IntOrString::Int(0);
            let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
            let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
            rolling_update(unavailable, surge, &rolling_path)
        }
        other => vec![Error::not_supported(path, other, TYPES)],
    }
}

/// How many pods may be missing, and how many too many, while pods are replaced.
fn rolling_update(unavailable: &IntOrString, surge: &IntOrString, path: &Path) -> ErrorList {
    let unavailable_path = path.child("maxUnavailable");
    let mut errors = non_negative_or_percent(unavailable, &unavailable_path);
    errors.extend(non_negative_or_percent(surge, &path.child("maxSurge")));
    if is_zero(unavailable) && is_zero(surge) {
        let detail = "may not be 0 when `maxSurge` is 0";
        errors.push(Error::invalid(&unavailable_path, int_or_string(unavailable), detail));
    }
    if percentage(unavailable).is_some_and(|percent| percent > 100) {
        errors.push(Error::invalid(
            &unavailable_path,
            int_or_string(unavailable),
            "must not be greater than 100%",
        ));
    }
    errors
}

/// Zero, as a number or as a percentage.
fn is_zero(value: &IntOrString) -> bool {
    match value {
        IntOrString::Int(number) => *number == 0,
        IntOrString::String(_) => percentage(value) == Some(0),
    }
}

fn validate_status(object: &Value, old: &Value) -> ErrorList {
    let counts = [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ];
    let bounded = ["updatedReplicas", "readyReplicas", "availableReplicas"];
    let mut errors = workload::status_counts(object, &counts, &bounded);
    let collisions = |object: &Value| object.pointer("/status/collisionCount").and_then(Value::as_i64);
    if let Some(before) = collisions(old)
        && collisions(object).unwrap_or_default() < before
    {
        let path = Path::new("status").child("collisionCount");
        let now = collisions(object).unwrap_or_default();
        errors.push(Error::invalid(&path, now, "cannot be decremented"));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, facts, messages};

    fn deployment(spec: Value) -> Value {
        let mut object = json!({"metadata": {"name": "d", "creationTimestamp": "2026-01-02T03:03:05Z"}, "spec": {
            "selector": {"matchLabels": {"app": "d"}},
            "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "web", "image": "reg.example/web:2"}]}},
        }});
        for (key, value) in spec.as_object().into_iter().flatten() {
            object["spec"][key] = value.clone();
        }
        DeploymentStrategy.default(&mut object);
        object
    }

    #[test]
    fn strategy_history_and_deadline_are_filled_in() {
        let object = deployment(json!({}));
        assert_eq!(
            object["spec"]["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
        );
        assert_eq!(
            (&object["spec"]["replicas"], &object["spec"]["revisionHistoryLimit"]),
            (&json!(1), &json!(10))
        );
        assert!(DeploymentStrategy.validate(&facts(), &object).is_empty());
        let pod = &object["spec"]["template"]["spec"];
        assert_eq!(pod.get("enableServiceLinks"), None);
        assert_eq!(pod["restartPolicy"], "Always");
    }

    #[test]
    fn the_strategy_must_make_progress() {
        let table = [
            (
                json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}},
                    "progressDeadlineSeconds": 5, "minReadySeconds": 9}),
                vec![
                    "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
                    "spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds",
                ],
            ),
            (
                json!({"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}}),
                vec![
                    "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
                ],
            ),
            (
                json!({"strategy": {"rollingUpdate": {"maxSurge": "abc%"}}}),
                vec![
                    r#"spec.strategy.rollingUpdate.maxSurge: Invalid value: "abc%": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"#,
                ],
            ),
        ];
        for (spec, expected) in table {
            assert_eq!(messages(&DeploymentStrategy.validate(&facts(), &deployment(spec))), expected);
        }
    }

    #[test]
    fn selector_and_template_must_fit() {
        let object =
            deployment(json!({"replicas": -1, "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "c"}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}}}));
        assert_eq!(
            messages(&DeploymentStrategy.validate(&facts(), &object)),
            [
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`",
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            ]
        );
        let mut empty = json!({"metadata": {"name": "d"}, "spec": {}});
        DeploymentStrategy.default(&mut empty);
        assert_eq!(
            messages(&DeploymentStrategy.validate(&facts(), &empty)),
            [
                "spec.selector: Required value",
                "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`",
                "spec.template.spec.containers: Required value",
            ]
        );
    }

    #[test]
    fn the_selector_is_fixed() {
        let labels = |app: &str| {
            json!({"selector": {"matchLabels": {"app": app}}, "template": {"metadata": {"labels": {"app": app}},
            "spec": {"containers": [{"name": "web", "image": "reg.example/web:2"}]}}})
        };
        let errors = DeploymentStrategy.validate_update(
            &facts(),
            Part::Main,
            &deployment(labels("e")),
            &deployment(labels("d")),
        );
        assert_eq!(
            messages(&errors),
            [r#"spec.selector: Invalid value: {"matchLabels":{"app":"e"}}: field is immutable"#]
        );
    }

    #[test]
    fn status_numbers_make_sense() {
        let status = |status: Value| json!({"status": status});
        let errors = DeploymentStrategy.validate_update(
            &facts(),
            Part::Status,
            &status(json!({"replicas": 1, "updatedReplicas": 2, "readyReplicas": 3, "availableReplicas": 4, "observedGeneration": -1})),
            &status(json!({})),
        );
        assert_eq!(
            messages(&errors),
            [
                "status.observedGeneration: Invalid value: -1: must be greater than or equal to 0",
                "status.updatedReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.readyReplicas: Invalid value: 3: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 4: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 4: cannot be greater than readyReplicas",
            ]
        );
        let errors = DeploymentStrategy.validate_update(
            &facts(),
            Part::Status,
            &status(json!({})),
            &status(json!({"collisionCount": 1})),
        );
        assert_eq!(messages(&errors), ["status.collisionCount: Invalid value: 0: cannot be decremented"]);
    }

    #[test]
    fn the_row_has_kubernetes_columns() {
        let cells = DeploymentStrategy.table_cells(&deployment(json!({"replicas": 3})), NOW).unwrap();
        assert_eq!(Value::from(cells), json!(["d", "0/3", 0, 0, "60s", "web", "reg.example/web:2", "app=d"]));
    }
}
