//! PodDisruptionBudget.

use k8s_openapi::api::policy::v1::PodDisruptionBudgetSpec;
use serde_json::{Value, json};
use wherry_machinery::field::{Error, ErrorList, Path};

use super::fields::{
    go_struct, int_or_string, invalid_printed, label_selector, non_negative, non_negative_or_percent,
    percentage, s,
};
use super::json::{integer, typed};
use super::table;
use crate::registry::strategy::{Part, RequestFacts, Resource, Scope, Strategy};

/// `poddisruptionbudgets`.
pub(crate) struct PodDisruptionBudgetStrategy;

impl Strategy for PodDisruptionBudgetStrategy {
    fn resource(&self) -> Resource {
        Resource {
            group: "policy",
            version: "v1",
            name: "poddisruptionbudgets",
            kind: "PodDisruptionBudget",
            scope: Scope::Namespaced,
        }
    }

    fn has_status(&self) -> bool {
        true
    }

    fn prepare_for_create(&self, _facts: &RequestFacts, object: &mut Value) {
        object["status"] =
            json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0});
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let path = Path::new("spec");
        let spec: PodDisruptionBudgetSpec = match typed(object, &path) {
            Ok(spec) => spec,
            Err(errors) => return errors,
        };
        let mut errors = ErrorList::new();
        if let (Some(least), Some(most)) = (&spec.min_available, &spec.max_unavailable) {
            let printed = go_struct(&[
                ("MinAvailable", int_or_string(least)),
                ("Selector", json!(spec.selector)),
                ("MaxUnavailable", int_or_string(most)),
                ("UnhealthyPodEvictionPolicy", json!(spec.unhealthy_pod_eviction_policy)),
            ]);
            let detail = "minAvailable and maxUnavailable cannot be both set";
            errors.push(invalid_printed(&path, &printed, detail));
        }
        for (value, name) in
            [(&spec.min_available, "minAvailable"), (&spec.max_unavailable, "maxUnavailable")]
        {
            let Some(value) = value else { continue };
            let path = path.child(name);
            errors.extend(non_negative_or_percent(value, &path));
            if percentage(value).is_some_and(|percent| percent > 100) {
                errors.push(Error::invalid(&path, int_or_string(value), "must not be greater than 100%"));
            }
        }
        errors.extend(label_selector(spec.selector.as_ref(), &path.child("selector")));
        let policy = s(&spec.unhealthy_pod_eviction_policy);
        if spec.unhealthy_pod_eviction_policy.is_some()
            && !matches!(policy, "AlwaysAllow" | "IfHealthyBudget")
        {
            let path = path.child("unhealthyPodEvictionPolicy");
            errors.push(Error::not_supported(&path, policy, &["AlwaysAllow", "IfHealthyBudget"]));
        }
        errors
    }

    fn validate_update(&self, facts: &RequestFacts, part: Part, object: &Value, _old: &Value) -> ErrorList {
        if part == Part::Main {
            return self.validate(facts, object);
        }
        let path = Path::new("status");
        let counts = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
        let of = |field: &str| integer(object, &format!("/status/{field}"));
        counts.iter().flat_map(|field| non_negative(of(field), &path.child(field))).collect()
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        let of = |field: &str| match &object["spec"][field] {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => "N/A".to_owned(),
        };
        Some(vec![
            table::name(object),
            of("minAvailable").into(),
            of("maxUnavailable").into(),
            integer(object, "/status/disruptionsAllowed").into(),
            table::age(object, now_unix_seconds),
        ])
    }
}
