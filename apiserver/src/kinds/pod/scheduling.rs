//! Where a pod may run: affinity, tolerations, topology spread, gates.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm,
    PodSchedulingGate, Toleration, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use wherry_machinery::field::{Error, ErrorList, Path};
use wherry_machinery::names;

use crate::kinds::fields::{NOT_POSITIVE, invalid_each, label_key, label_selector, qualified_name, s};
use crate::kinds::node::taint_effect;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Which label values of nodes are refused: none in a preference, which may simply not be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    Checked,
    Free,
}

/// What a pod wants of nodes and of other pods.
pub(crate) fn affinity(affinity: &Affinity, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(node) = &affinity.node_affinity {
        errors.extend(node_affinity(node, &path.child("nodeAffinity")));
    }
    let of_pods = affinity.pod_affinity.as_ref().map(|pods| {
        let required = &pods.required_during_scheduling_ignored_during_execution;
        ("podAffinity", required, &pods.preferred_during_scheduling_ignored_during_execution)
    });
    let against_pods = affinity.pod_anti_affinity.as_ref().map(|pods| {
        let required = &pods.required_during_scheduling_ignored_during_execution;
        ("podAntiAffinity", required, &pods.preferred_during_scheduling_ignored_during_execution)
    });
    for (field, required, preferred) in of_pods.into_iter().chain(against_pods) {
        let path = path.child(field);
        for (i, term) in required.iter().flatten().enumerate() {
            errors.extend(pod_term(term, &path.child(REQUIRED).index(i)));
        }
        for (i, WeightedPodAffinityTerm { pod_affinity_term, weight }) in
            preferred.iter().flatten().enumerate()
        {
            let path = path.child(PREFERRED).index(i);
            errors.extend(weight_range(*weight, &path.child("weight")));
            errors.extend(pod_term(pod_affinity_term, &path.child("podAffinityTerm")));
        }
    }
    errors
}

fn weight_range(weight: i32, path: &Path) -> ErrorList {
    if (1..=100).contains(&weight) {
        ErrorList::new()
    } else {
        vec![Error::invalid(path, weight, "must be in the range 1-100")]
    }
}

fn node_affinity(affinity: &NodeAffinity, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(selector) = &affinity.required_during_scheduling_ignored_during_execution {
        errors.extend(node_selector(selector, &path.child(REQUIRED)));
    }
    let preferred = affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
    for (i, term) in preferred.enumerate() {
        let path = path.child(PREFERRED).index(i);
        errors.extend(weight_range(term.weight, &path.child("weight")));
        errors.extend(node_term(&term.preference, Values::Free, &path.child("preference")));
    }
    errors
}

/// Which nodes.
pub(crate) fn node_selector(selector: &NodeSelector, path: &Path) -> ErrorList {
    let path = path.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        return vec![Error::required(&path, "must have at least one node selector term")];
    }
    let terms = selector.node_selector_terms.iter().enumerate();
    terms.flat_map(|(i, term)| node_term(term, Values::Checked, &path.index(i))).collect()
}

fn node_term(term: &NodeSelectorTerm, values: Values, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (i, requirement) in term.match_expressions.iter().flatten().enumerate() {
        errors.extend(node_requirement(requirement, values, &path.child("matchExpressions").index(i)));
    }
    for (i, requirement) in term.match_fields.iter().flatten().enumerate() {
        errors.extend(node_field(requirement, &path.child("matchFields").index(i)));
    }
    errors
}

fn node_requirement(requirement: &NodeSelectorRequirement, check: Values, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let values = requirement.values.as_deref().unwrap_or_default();
    let values_path = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            errors
                .push(Error::required(&values_path, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(Error::forbidden(&values_path, detail));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            errors.push(Error::required(
                &values_path,
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            ));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(Error::invalid(&path.child("operator"), other, "not a valid selector operator")),
    }
    errors.extend(label_key(&requirement.key, &path.child("key")));
    if check == Values::Checked {
        for (i, value) in values.iter().enumerate() {
            errors.extend(invalid_each(&values_path.index(i), value, names::label_value(value)));
        }
    }
    errors
}

fn node_field(requirement: &NodeSelectorRequirement, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let values = requirement.values.as_deref().unwrap_or_default();
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.len() != 1 => {
            let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.push(Error::required(&path.child("values"), detail));
        }
        "In" | "NotIn" => {}
        other => errors.push(Error::invalid(&path.child("operator"), other, "not a valid selector operator")),
    }
    if requirement.key == "metadata.name" {
        for (i, value) in values.iter().enumerate() {
            errors.extend(invalid_each(
                &path.child("values").index(i),
                value,
                names::dns1123_subdomain(value),
            ));
        }
    } else {
        let detail = "not a valid field selector key";
        errors.push(Error::invalid(&path.child("key"), requirement.key.as_str(), detail));
    }
    errors
}

fn pod_term(term: &PodAffinityTerm, path: &Path) -> ErrorList {
    let mut errors = label_selector(term.label_selector.as_ref(), &path.child("labelSelector"));
    errors.extend(label_selector(term.namespace_selector.as_ref(), &path.child("namespaceSelector")));
    for namespace in term.namespaces.iter().flatten() {
        errors.extend(invalid_each(&path.child("namespace"), namespace, names::dns1123_label(namespace)));
    }
    errors.extend(label_keys(term, path));
    if term.topology_key.is_empty() {
        errors.push(Error::required(&path.child("topologyKey"), "can not be empty"));
    }
    errors.extend(label_key(&term.topology_key, &path.child("topologyKey")));
    errors
}

fn label_keys(term: &PodAffinityTerm, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let matched = term.match_label_keys.as_deref().unwrap_or_default();
    let mismatched = term.mismatch_label_keys.as_deref().unwrap_or_default();
    for (field, keys) in [("matchLabelKeys", matched), ("mismatchLabelKeys", mismatched)] {
        let path = path.child(field);
        if keys.is_empty() {
            continue;
        }
        if term.label_selector.is_none() {
            errors.push(Error::forbidden(&path, "must not be specified when labelSelector is not set"));
            continue;
        }
        for (i, key) in keys.iter().enumerate() {
            errors.extend(label_key(key, &path.index(i)));
        }
    }
    if let Some(selector) = &term.label_selector {
        let mut seen: BTreeSet<&String> =
            selector.match_labels.iter().flat_map(|labels| labels.keys()).collect();
        for expression in selector.match_expressions.iter().flatten() {
            let at = matched.iter().rposition(|key| *key == expression.key);
            if let Some(i) = at.filter(|_| seen.contains(&expression.key)) {
                let detail = "exists in both matchLabelKeys and labelSelector";
                errors.push(Error::invalid(&path.index(i), expression.key.as_str(), detail));
            }
            seen.insert(&expression.key);
        }
    }
    for (i, key) in matched.iter().enumerate().filter(|(_, key)| mismatched.contains(key)) {
        let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.push(Error::invalid(&path.child("matchLabelKeys").index(i), key.as_str(), detail));
    }
    errors
}

/// Which taints a pod puts up with.
pub(crate) fn tolerations(tolerations: &[Toleration], path: &Path) -> ErrorList {
    const OPERATORS: &[&str] = &["Equal", "Exists"];
    let mut errors = ErrorList::new();
    for (i, toleration) in tolerations.iter().enumerate() {
        let path = path.index(i);
        let (key, operator) = (s(&toleration.key), s(&toleration.operator));
        let (value, effect) = (s(&toleration.value), s(&toleration.effect));
        let operator_path = path.child("operator");
        if key.is_empty() {
            if operator != "Exists" {
                let detail = r#"operator must be Exists when `key` is empty, which means "match all values and all keys""#;
                errors.push(Error::invalid(&operator_path, operator, detail));
            }
        } else {
            errors.extend(label_key(key, &path.child("key")));
        }
        if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(Error::invalid(&path.child("effect"), effect, detail));
        }
        match operator {
            "Equal" | "" => {
                let problems = names::label_value(value);
                if !problems.is_empty() {
                    errors.push(Error::invalid(&operator_path, value, &problems.join(";")));
                }
            }
            "Exists" if !value.is_empty() => {
                errors.push(Error::invalid(
                    &operator_path,
                    value,
                    "value must be empty when `operator` is 'Exists'",
                ));
            }
            "Exists" => {}
            other => errors.push(Error::not_supported(&operator_path, other, OPERATORS)),
        }
        errors.extend(taint_effect(effect, true, &path.child("effect")));
    }
    errors
}

/// What must be lifted before a pod is scheduled.
pub(crate) fn gates(gates: &[PodSchedulingGate], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen = BTreeSet::new();
    for (i, gate) in gates.iter().enumerate() {
        errors.extend(qualified_name(&gate.name, &path.index(i)));
        if !seen.insert(&gate.name) {
            errors.push(Error::duplicate(&path.index(i), gate.name.as_str()));
        }
    }
    errors
}

/// How evenly pods are spread.
pub(crate) fn topology_spread(constraints: &[TopologySpreadConstraint], path: &Path) -> ErrorList {
    const ACTIONS: &[&str] = &["DoNotSchedule", "ScheduleAnyway"];
    const POLICIES: &[&str] = &["Honor", "Ignore"];
    let mut errors = ErrorList::new();
    for (i, constraint) in constraints.iter().enumerate() {
        let path = path.index(i);
        let (key, action) = (constraint.topology_key.as_str(), constraint.when_unsatisfiable.as_str());
        if constraint.max_skew <= 0 {
            errors.push(Error::invalid(&path.child("maxSkew"), constraint.max_skew, NOT_POSITIVE));
        }
        if key.is_empty() {
            errors.push(Error::required(&path.child("topologyKey"), "can not be empty"));
        }
        if !ACTIONS.contains(&action) {
            errors.push(Error::not_supported(&path.child("whenUnsatisfiable"), action, ACTIONS));
        }
        let repeated = constraints[i + 1..]
            .iter()
            .any(|other| other.topology_key == key && other.when_unsatisfiable == action);
        if repeated {
            let path = path.child("{topologyKey, whenUnsatisfiable}");
            errors.push(Error::duplicate(&path, format!("{{{key}, {action}}}")));
        }
        if let Some(domains) = constraint.min_domains {
            let path = path.child("minDomains");
            if domains <= 0 {
                errors.push(Error::invalid(&path, domains, NOT_POSITIVE));
            }
            if action != "DoNotSchedule" {
                let detail =
                    format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.push(Error::invalid(&path, domains, &detail));
            }
        }
        for (field, policy) in [
            ("nodeAffinityPolicy", &constraint.node_affinity_policy),
            ("nodeTaintsPolicy", &constraint.node_taints_policy),
        ] {
            if let Some(policy) = policy.as_deref().filter(|policy| !POLICIES.contains(policy)) {
                errors.push(Error::not_supported(&path.child(field), policy, POLICIES));
            }
        }
        let keys = constraint.match_label_keys.as_deref().unwrap_or_default();
        errors.extend(spread_label_keys(
            keys,
            constraint.label_selector.as_ref(),
            &path.child("matchLabelKeys"),
        ));
        errors.extend(label_selector(constraint.label_selector.as_ref(), &path.child("labelSelector")));
    }
    errors
}

fn spread_label_keys(keys: &[String], selector: Option<&LabelSelector>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if keys.is_empty() {
        return errors;
    }
    let selected: BTreeSet<&String> = match selector {
        Some(selector) => {
            let labels = selector.match_labels.iter().flat_map(|labels| labels.keys());
            labels
                .chain(selector.match_expressions.iter().flatten().map(|expression| &expression.key))
                .collect()
        }
        None => {
            errors.push(Error::forbidden(path, "must not be specified when labelSelector is not set"));
            BTreeSet::new()
        }
    };
    for (i, key) in keys.iter().enumerate() {
        errors.extend(label_key(key, &path.index(i)));
        if selected.contains(key) {
            let detail = "exists in both matchLabelKeys and labelSelector";
            errors.push(Error::invalid(&path.index(i), key.as_str(), detail));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::messages;

    #[test]
    fn tolerations_are_checked_by_operator() {
        let table = [
            (
                json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3}),
                vec![],
            ),
            (
                json!({"operator": "Equal"}),
                vec![
                    r#"t[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty, which means "match all values and all keys""#,
                ],
            ),
            (
                json!({"key": "a", "operator": "Exists", "value": "x", "tolerationSeconds": 3}),
                vec![
                    r#"t[0].effect: Invalid value: "": effect must be 'NoExecute' when `tolerationSeconds` is set"#,
                    r#"t[0].operator: Invalid value: "x": value must be empty when `operator` is 'Exists'"#,
                ],
            ),
        ];
        for (toleration, expected) in table {
            let list: Vec<Toleration> = vec![serde_json::from_value(toleration).unwrap()];
            assert_eq!(messages(&tolerations(&list, &Path::new("t"))), expected);
        }
    }

    #[test]
    fn required_terms_are_checked_to_their_values_and_preferences_are_not() {
        let bad = json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["-"]}]});
        let value: Affinity = serde_json::from_value(json!({"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [bad]},
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "preference": bad}],
        }}))
        .unwrap();
        let found = messages(&affinity(&value, &Path::new("a")));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with(
            "a.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values[0]: Invalid value: \"-\""
        ));
        assert_eq!(
            found[1],
            "a.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100"
        );
    }

    #[test]
    fn spread_constraints_may_not_repeat() {
        let one = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}});
        let list: Vec<TopologySpreadConstraint> = serde_json::from_value(json!([one, one])).unwrap();
        assert_eq!(
            messages(&topology_spread(&list, &Path::new("t"))),
            [r#"t[0].{topologyKey, whenUnsatisfiable}: Duplicate value: "{zone, DoNotSchedule}""#]
        );
    }
}
