//! Aggregated ClusterRoles: one whose `aggregationRule` selects others by label has their rules.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/clusterroleaggregation`.

use std::collections::BTreeMap;

use serde_json::Value;
use wherry_machinery::metadata;
use wherry_machinery::selector::Selector;

/// The rules that each aggregated role should have and has not, by name. Roles are visited in the order of their names, and an
/// aggregated role's rules come from the others as they are now: aggregates of aggregates settle with repeated calls.
pub fn stale_roles(roles: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    let mut stale = BTreeMap::new();
    for (name, role) in roles {
        let Some(selectors) = role.pointer("/aggregationRule/clusterRoleSelectors").and_then(Value::as_array)
        else {
            continue;
        };
        let selectors: Vec<Selector> =
            selectors.iter().filter_map(|selector| Selector::from_label_selector(selector).ok()).collect();
        let mut rules: Vec<&Value> = Vec::new();
        for selector in &selectors {
            for (other_name, other) in roles {
                if other_name == name || !selector.matches(&metadata::labels(other)) {
                    continue;
                }
                for rule in other.get("rules").and_then(Value::as_array).into_iter().flatten() {
                    if !rules.contains(&rule) {
                        rules.push(rule);
                    }
                }
            }
        }
        let wanted =
            if rules.is_empty() { Value::Null } else { Value::Array(rules.into_iter().cloned().collect()) };
        if role.get("rules").unwrap_or(&Value::Null) != &wanted {
            stale.insert(name.clone(), wanted);
        }
    }
    stale
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_aggregated_role_has_the_rules_of_those_it_selects() {
        let rule = |verb: &str| json!({"verbs": [verb], "apiGroups": [""], "resources": ["pods"]});
        let part =
            |label: &str, rules: Value| json!({"metadata": {"labels": {label: "true"}}, "rules": rules});
        let whole = |label: &str, to: &str| {
            json!({
                "metadata": {"labels": {to: "true"}},
                "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]},
                "rules": null,
            })
        };
        let mut roles = BTreeMap::from([
            ("view".to_owned(), whole("to-view", "to-edit")),
            ("edit".to_owned(), whole("to-edit", "none")),
            ("a".to_owned(), part("to-view", json!([rule("get"), rule("list")]))),
            ("b".to_owned(), part("to-edit", json!([rule("create"), rule("get")]))),
        ]);
        let mut rounds = 0;
        loop {
            let stale = stale_roles(&roles);
            if stale.is_empty() {
                break;
            }
            rounds += 1;
            for (name, rules) in stale {
                roles.get_mut(&name).unwrap()["rules"] = rules;
            }
        }
        assert_eq!(rounds, 2);
        assert_eq!(roles["view"]["rules"], json!([rule("get"), rule("list")]));
        assert_eq!(roles["edit"]["rules"], json!([rule("create"), rule("get"), rule("list")]));
    }
}
