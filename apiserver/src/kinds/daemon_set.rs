//! DaemonSet.

use k8s_openapi::api::apps::v1::{DaemonSetSpec, DaemonSetUpdateStrategy};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use wherry_machinery::field::{Error, ErrorList, Path};

use super::fields::{int_or_string, non_negative, non_negative_or_percent, percentage, s};
use super::json::{default_value, default_zero, integer, is_absent, map_at, text, typed};
use super::{fields, table, workload};
use crate::registry::strategy::{Part, RequestFacts, Resource, Scope, Strategy};

/// `daemonsets`.
pub(crate) struct DaemonSetStrategy;

impl Strategy for DaemonSetStrategy {
    fn resource(&self) -> Resource {
        Resource {
            group: "apps",
            version: "v1",
            name: "daemonsets",
            kind: "DaemonSet",
            scope: Scope::Namespaced,
        }
    }

    fn has_status(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let Some(spec) = map_at(object, "spec") else { return };
        workload::default_template(spec);
        if let Some(strategy) = map_at(spec, "updateStrategy") {
            default_zero(strategy, "type", "RollingUpdate");
            if text(strategy, "/type") == "RollingUpdate"
                && let Some(rolling) = map_at(strategy, "rollingUpdate")
            {
                default_value(rolling, "maxUnavailable", 1);
                default_value(rolling, "maxSurge", 0);
            }
        }
        default_value(spec, "revisionHistoryLimit", 10);
    }

    fn prepare_for_create(&self, _facts: &RequestFacts, object: &mut Value) {
        object["status"] = zero_status();
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let path = Path::new("spec");
        let spec: DaemonSetSpec = match typed(object, &path) {
            Ok(spec) => spec,
            Err(errors) => return errors,
        };
        let selector = (!is_absent(object.pointer("/spec/selector"))).then_some(&spec.selector);
        let mut errors = workload::selector_and_template(selector, &spec.template, "DaemonSet", &path);
        let seconds = i64::from(spec.min_ready_seconds.unwrap_or_default());
        errors.extend(non_negative(seconds, &path.child("minReadySeconds")));
        errors.extend(update_strategy(spec.update_strategy.as_ref(), &path.child("updateStrategy")));
        if let Some(limit) = spec.revision_history_limit {
            errors.extend(non_negative(i64::from(limit), &path.child("revisionHistoryLimit")));
        }
        errors
    }

    fn validate_update(&self, facts: &RequestFacts, part: Part, object: &Value, old: &Value) -> ErrorList {
        if part == Part::Status {
            return validate_status(object);
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
        let (containers, images) = workload::template_cells(object);
        let of = |field: &str| integer(object, &format!("/status/{field}"));
        Some(vec![
            table::name(object),
            of("desiredNumberScheduled").into(),
            of("currentNumberScheduled").into(),
            of("numberReady").into(),
            of("updatedNumberScheduled").into(),
            of("numberAvailable").into(),
            table::label_text(object.pointer("/spec/template/spec/nodeSelector")).into(),
            table::age(object, now_unix_seconds),
            containers,
            images,
            table::selector_text(object.pointer("/spec/selector")).into(),
        ])
    }
}

fn zero_status() -> Value {
    json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0})
}

fn update_strategy(strategy: Option<&DaemonSetUpdateStrategy>, path: &Path) -> ErrorList {
    let Some(strategy) = strategy else { return ErrorList::new() };
    match s(&strategy.type_) {
        "OnDelete" => ErrorList::new(),
        "RollingUpdate" => {
            let path = path.child("rollingUpdate");
            let Some(rolling) = &strategy.rolling_update else { return vec![Error::required(&path, "")] };
            let zero = IntOrString::Int(0);
            let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
            let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
            rolling_update(unavailable, surge, &path)
        }
        other => vec![Error::not_supported(path, other, &["OnDelete", "RollingUpdate"])],
    }
}

fn rolling_update(unavailable: &IntOrString, surge: &IntOrString, path: &Path) -> ErrorList {
    let has = |value: &IntOrString| match value {
        IntOrString::Int(number) => *number != 0,
        IntOrString::String(_) => percentage(value) != Some(0),
    };
    let unavailable_path = path.child("maxUnavailable");
    let mut errors = non_negative_or_percent(unavailable, &unavailable_path);
    errors.extend(non_negative_or_percent(surge, &path.child("maxSurge")));
    match (has(unavailable), has(surge)) {
        (false, false) => {
            let detail = "cannot be 0 when maxSurge is 0";
            errors.push(Error::invalid(&unavailable_path, int_or_string(unavailable), detail));
        }
        (true, true) => {
            let detail = "may not be set when maxUnavailable is non-zero";
            errors.push(Error::invalid(&path.child("maxSurge"), int_or_string(surge), detail));
        }
        _ => {}
    }
    for (value, name) in [(unavailable, "maxUnavailable"), (surge, "maxSurge")] {
        if percentage(value).is_some_and(|percent| percent > 100) {
            let detail = "must not be greater than 100%";
            errors.push(Error::invalid(&path.child(name), int_or_string(value), detail));
        }
    }
    errors
}

fn validate_status(object: &Value) -> ErrorList {
    let path = Path::new("status");
    let counts = [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
    ];
    let each = counts
        .iter()
        .flat_map(|field| non_negative(integer(object, &format!("/status/{field}")), &path.child(field)));
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{facts, messages};

    fn daemon_set(strategy: Value) -> Value {
        let mut object = json!({"metadata": {"name": "d"}, "spec": {"updateStrategy": strategy,
            "selector": {"matchLabels": {"app": "d"}},
            "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        DaemonSetStrategy.default(&mut object);
        object
    }

    #[test]
    fn an_update_goes_one_way_at_a_time() {
        assert_eq!(
            daemon_set(json!({}))["spec"]["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}})
        );
        for (rolling, expected) in [
            (json!({}), vec![]),
            (
                json!({"maxUnavailable": 0}),
                vec![
                    "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0 when maxSurge is 0",
                ],
            ),
            (
                json!({"maxSurge": 2}),
                vec![
                    "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 2: may not be set when maxUnavailable is non-zero",
                ],
            ),
        ] {
            let object = daemon_set(json!({"type": "RollingUpdate", "rollingUpdate": rolling}));
            assert_eq!(messages(&DaemonSetStrategy.validate(&facts(), &object)), expected);
        }
    }
}
