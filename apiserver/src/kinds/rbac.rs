//! Role, ClusterRole, RoleBinding, ClusterRoleBinding.

use k8s_openapi::api::rbac::v1::{AggregationRule, PolicyRule, RoleRef, Subject};
use serde_json::{Value, json};
use wherry_machinery::field::{Error, ErrorList, Path};
use wherry_machinery::names;

use super::fields::{dns_subdomain, go_struct, invalid_each, invalid_printed, label_selector, s};
use super::json::{default_zero, each, is_absent, list, text, typed, within};
use super::table;
use crate::registry::strategy::{Part, RequestFacts, Resource, Scope, Strategy};

/// The API group of all four.
const GROUP: &str = "rbac.authorization.k8s.io";

/// `roles` and `clusterroles`.
pub(crate) struct RoleStrategy(pub(crate) Scope);

/// `rolebindings` and `clusterrolebindings`.
pub(crate) struct RoleBindingStrategy(pub(crate) Scope);

impl Strategy for RoleStrategy {
    fn resource(&self) -> Resource {
        let (name, kind) = match self.0 {
            Scope::Namespaced => ("roles", "Role"),
            Scope::Cluster => ("clusterroles", "ClusterRole"),
        };
        Resource { group: GROUP, version: "v1", name, kind, scope: self.0 }
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        // Go serves a null list as such; clients of roles expect the field.
        if let Some(map) = object.as_object_mut() {
            map.entry("rules").or_insert(Value::Null);
        }
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::path_segment_name(name)
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let path = Path::new("rules");
        let rules: Vec<PolicyRule> = match typed(object, &path) {
            Ok(rules) => rules,
            Err(errors) => return errors,
        };
        let mut errors = ErrorList::new();
        for (i, rule) in rules.iter().enumerate() {
            errors.extend(validate_rule(rule, self.0, &path.index(i)));
        }
        if !is_absent(object.get("aggregationRule")) {
            errors.extend(aggregation(object));
        }
        errors
    }
}

fn aggregation(object: &Value) -> ErrorList {
    let path = Path::new("aggregationRule");
    let rule: AggregationRule = match typed(object, &path) {
        Ok(rule) => rule,
        Err(errors) => return errors,
    };
    let path = path.child("clusterRoleSelectors");
    let selectors = rule.cluster_role_selectors.unwrap_or_default();
    if selectors.is_empty() {
        return vec![Error::required(
            &path,
            "at least one clusterRoleSelector required if aggregationRule is non-nil",
        )];
    }
    selectors
        .iter()
        .enumerate()
        .flat_map(|(i, selector)| label_selector(Some(selector), &path.index(i)))
        .collect()
}

fn validate_rule(rule: &PolicyRule, scope: Scope, path: &Path) -> ErrorList {
    let is_empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
    let mut errors = ErrorList::new();
    if rule.verbs.is_empty() {
        errors.push(Error::required(&path.child("verbs"), "verbs must contain at least one value"));
    }
    if !is_empty(&rule.non_resource_urls) {
        let urls_path = path.child("nonResourceURLs");
        let urls = json!(rule.non_resource_urls);
        if scope == Scope::Namespaced {
            errors.push(Error::invalid(
                &urls_path,
                urls.clone(),
                "namespaced rules cannot apply to non-resource URLs",
            ));
        }
        if !is_empty(&rule.api_groups) || !is_empty(&rule.resources) || !is_empty(&rule.resource_names) {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(Error::invalid(&urls_path, urls, detail));
        }
        return errors;
    }
    if is_empty(&rule.api_groups) {
        errors.push(Error::required(
            &path.child("apiGroups"),
            "resource rules must supply at least one api group",
        ));
    }
    if is_empty(&rule.resources) {
        errors.push(Error::required(
            &path.child("resources"),
            "resource rules must supply at least one resource",
        ));
    }
    errors
}

impl Strategy for RoleBindingStrategy {
    fn resource(&self) -> Resource {
        let (name, kind) = match self.0 {
            Scope::Namespaced => ("rolebindings", "RoleBinding"),
            Scope::Cluster => ("clusterrolebindings", "ClusterRoleBinding"),
        };
        Resource { group: GROUP, version: "v1", name, kind, scope: self.0 }
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        within(object, "roleRef", |reference| default_zero(reference, "apiGroup", GROUP));
        each(object, "subjects", |subject| {
            if matches!(text(subject, "/kind"), "User" | "Group") {
                default_zero(subject, "apiGroup", GROUP);
            }
        });
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::path_segment_name(name)
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let path = Path::new("roleRef");
        let (reference, subjects) = match (typed(object, &path), typed(object, &Path::new("subjects"))) {
            (Ok(reference), Ok(subjects)) => (reference, subjects),
            (Err(errors), _) | (_, Err(errors)) => return errors,
        };
        let mut errors = role_reference(&reference, self.0, &path);
        let subjects: Vec<Subject> = subjects;
        for (i, subject) in subjects.iter().enumerate() {
            errors.extend(validate_subject(subject, self.0, &Path::new("subjects").index(i)));
        }
        errors
    }

    fn validate_update(&self, facts: &RequestFacts, _part: Part, object: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(facts, object);
        let of = |object: &Value, field: &str| text(object, &format!("/roleRef/{field}")).to_owned();
        if ["apiGroup", "kind", "name"].iter().any(|field| of(object, field) != of(old, field)) {
            let printed = go_struct(&[
                ("APIGroup", of(object, "apiGroup").into()),
                ("Kind", of(object, "kind").into()),
                ("Name", of(object, "name").into()),
            ]);
            errors.push(invalid_printed(&Path::new("roleRef"), &printed, "cannot change roleRef"));
        }
        errors
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        let of = |kind: &str| {
            let name = |subject: &Value| match kind {
                "ServiceAccount" if !text(subject, "/namespace").is_empty() => {
                    format!("{}/{}", text(subject, "/namespace"), text(subject, "/name"))
                }
                _ => text(subject, "/name").to_owned(),
            };
            let subjects = list(object, "/subjects").iter().filter(|subject| text(subject, "/kind") == kind);
            Value::from(subjects.map(name).collect::<Vec<_>>().join(", "))
        };
        Some(vec![
            table::name(object),
            format!("{}/{}", text(object, "/roleRef/kind"), text(object, "/roleRef/name")).into(),
            table::age(object, now_unix_seconds),
            of("User"),
            of("Group"),
            of("ServiceAccount"),
        ])
    }
}

fn role_reference(reference: &RoleRef, scope: Scope, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if reference.api_group.as_deref() != Some(GROUP) {
        let group = reference.api_group.as_deref().unwrap_or_default();
        errors.push(Error::not_supported(&path.child("apiGroup"), group, &[GROUP]));
    }
    let kinds: &[&str] = match scope {
        Scope::Namespaced => &["Role", "ClusterRole"],
        Scope::Cluster => &["ClusterRole"],
    };
    if !kinds.contains(&reference.kind.as_str()) {
        errors.push(Error::not_supported(&path.child("kind"), reference.kind.as_str(), kinds));
    }
    let name_path = path.child("name");
    if reference.name.is_empty() {
        errors.push(Error::required(&name_path, ""));
    } else {
        errors.extend(invalid_each(&name_path, &reference.name, names::path_segment_name(&reference.name)));
    }
    errors
}

fn validate_subject(subject: &Subject, scope: Scope, path: &Path) -> ErrorList {
    const KINDS: &[&str] = &["ServiceAccount", "User", "Group"];
    let mut errors = ErrorList::new();
    let group = s(&subject.api_group);
    if subject.name.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    }
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if !subject.name.is_empty() {
                errors.extend(dns_subdomain(&subject.name, &path.child("name")));
            }
            if !group.is_empty() {
                errors.push(Error::not_supported(&path.child("apiGroup"), group, &[""]));
            }
            // In a namespace, an account without one is of that namespace.
            if scope == Scope::Cluster && s(&subject.namespace).is_empty() {
                errors.push(Error::required(&path.child("namespace"), ""));
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                errors.push(Error::not_supported(&path.child("apiGroup"), group, &[GROUP]));
            }
        }
        other => errors.push(Error::not_supported(&path.child("kind"), other, KINDS)),
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, facts, messages};

    #[test]
    fn rules_need_verbs_groups_and_resources() {
        let role = json!({"rules": [{"resources": ["pods"]}, {"verbs": ["get"], "apiGroups": [""]},
            {"verbs": ["get"], "nonResourceURLs": ["/x"]}]});
        assert_eq!(
            messages(&RoleStrategy(Scope::Namespaced).validate(&facts(), &role)),
            [
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[1].resources: Required value: resource rules must supply at least one resource",
                r#"rules[2].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs"#,
            ]
        );
    }

    #[test]
    fn bindings_name_a_role_and_known_subjects() {
        let strategy = RoleBindingStrategy(Scope::Namespaced);
        let mut binding = json!({"roleRef": {"kind": "Node", "name": "", "apiGroup": "x"},
            "subjects": [{"kind": "Robot", "name": ""}, {"kind": "ServiceAccount", "name": "x"}]});
        strategy.default(&mut binding);
        assert_eq!(
            messages(&strategy.validate(&facts(), &binding)),
            [
                r#"roleRef.apiGroup: Unsupported value: "x": supported values: "rbac.authorization.k8s.io""#,
                r#"roleRef.kind: Unsupported value: "Node": supported values: "Role", "ClusterRole""#,
                "roleRef.name: Required value",
                "subjects[0].name: Required value",
                r#"subjects[0].kind: Unsupported value: "Robot": supported values: "ServiceAccount", "User", "Group""#,
            ]
        );
    }

    #[test]
    fn the_role_of_a_binding_is_fixed() {
        let binding = |name: &str| json!({"roleRef": {"kind": "Role", "name": name, "apiGroup": GROUP}});
        let strategy = RoleBindingStrategy(Scope::Namespaced);
        let errors = strategy.validate_update(&facts(), Part::Main, &binding("b"), &binding("a"));
        assert_eq!(
            messages(&errors),
            [
                r#"roleRef: Invalid value: {"APIGroup":"rbac.authorization.k8s.io","Kind":"Role","Name":"b"}: cannot change roleRef"#
            ]
        );
    }

    #[test]
    fn the_row_tells_role_and_subjects() {
        let binding = json!({"metadata": {"name": "r", "creationTimestamp": "2026-01-02T03:03:05Z"}, "roleRef": {"kind": "Role", "name": "x"},
            "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]});
        let cells = RoleBindingStrategy(Scope::Namespaced).table_cells(&binding, NOW).unwrap();
        assert_eq!(Value::from(cells), json!(["r", "Role/x", "60s", "u", "", "n/s"]));
    }
}
