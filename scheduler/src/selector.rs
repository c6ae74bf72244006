//! Selection of nodes by a pod: `nodeSelector` and node affinity, read once per pod. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

type Labels = BTreeMap<String, String>;

/// What a pod requires of its node's labels and name.
#[derive(Debug, Clone, Default)]
pub struct RequiredNodes {
    labels: Labels,
    /// One of these must match, if there are any to choose from.
    terms: Option<Vec<Term>>,
}

/// What a pod would rather have, with its weight.
#[derive(Debug, Clone)]
pub struct PreferredTerm {
    /// 1 to 100.
    pub weight: i64,
    /// Which nodes it is about.
    pub term: Term,
}

/// Requirements that must all hold. None at all match no node.
#[derive(Debug, Clone)]
pub struct Term {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

#[derive(Debug, Clone)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    GreaterThan(i64),
    LessThan(i64),
    /// Not one of Kubernetes' operators, or a bound that is no number: matches nothing.
    Never,
}

/// The only field of a node that can be selected by.
const NAME_FIELD: &str = "metadata.name";

impl RequiredNodes {
    /// The requirements of a pod.
    pub fn of(spec: &PodSpec) -> Self {
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required = affinity
            .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
        Self {
            labels: spec.node_selector.clone().unwrap_or_default(),
            terms: required.map(|required| required.node_selector_terms.iter().map(Term::new).collect()),
        }
    }

    /// The requirements of a selector, as volumes have one.
    pub fn of_selector(selector: &NodeSelector) -> Self {
        let terms = selector.node_selector_terms.iter().map(Term::new).collect();
        Self { labels: Labels::new(), terms: Some(terms) }
    }

    /// Whether a node with this name and these labels will do.
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.terms.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(name, labels)))
    }

    /// The only nodes that can match, if every term names nodes, as the pods of DaemonSets do.
    pub fn named_nodes(&self) -> Option<Vec<&str>> {
        let mut names = Vec::new();
        for term in self.terms.as_ref()? {
            names.extend(term.named_nodes()?);
        }
        names.sort_unstable();
        names.dedup();
        Some(names)
    }
}

impl PreferredTerm {
    /// The preferences of a pod.
    pub fn all_of(spec: &PodSpec) -> Vec<Self> {
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let preferred = affinity
            .and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_ref());
        preferred
            .into_iter()
            .flatten()
            .filter(|preferred| preferred.weight != 0)
            .map(|preferred| Self {
                weight: i64::from(preferred.weight),
                term: Term::new(&preferred.preference),
            })
            .collect()
    }
}

impl Term {
    fn new(term: &NodeSelectorTerm) -> Self {
        let requirements = |list: &Option<Vec<_>>| list.iter().flatten().map(Requirement::new).collect();
        Self { labels: requirements(&term.match_expressions), fields: requirements(&term.match_fields) }
    }

    /// Whether a node with this name and these labels matches.
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        if self.labels.is_empty() && self.fields.is_empty() {
            return false;
        }
        let field = |key: &str| (key == NAME_FIELD).then_some(name);
        self.labels
            .iter()
            .all(|requirement| requirement.matches(labels.get(&requirement.key).map(String::as_str)))
            && self.fields.iter().all(|requirement| requirement.matches(field(&requirement.key)))
    }

    fn named_nodes(&self) -> Option<Vec<&str>> {
        let mut found: Option<Vec<&str>> = None;
        for requirement in self.fields.iter().filter(|requirement| requirement.key == NAME_FIELD) {
            if let Test::In(names) = &requirement.test {
                let names = names.iter().map(String::as_str);
                found = Some(match found {
                    None => names.collect(),
                    Some(before) => names.filter(|name| before.contains(name)).collect(),
                });
            }
        }
        found
    }
}

impl Requirement {
    fn new(requirement: &NodeSelectorRequirement) -> Self {
        let values = requirement.values.clone().unwrap_or_default();
        let bound = || values.first().and_then(|value| value.parse().ok());
        let test = match requirement.operator.as_str() {
            "In" => Test::In(values),
            "NotIn" => Test::NotIn(values),
            "Exists" => Test::Exists,
            "DoesNotExist" => Test::DoesNotExist,
            "Gt" => bound().map_or(Test::Never, Test::GreaterThan),
            "Lt" => bound().map_or(Test::Never, Test::LessThan),
            _ => Test::Never,
        };
        Self { key: requirement.key.clone(), test }
    }

    fn matches(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.test {
            Test::In(values) => value.is_some_and(|value| values.iter().any(|one| one == value)),
            Test::NotIn(values) => value.is_none_or(|value| !values.iter().any(|one| one == value)),
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
            Test::GreaterThan(bound) => number().is_some_and(|number| number > *bound),
            Test::LessThan(bound) => number().is_some_and(|number| number < *bound),
            Test::Never => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn required(node_selector: Value, terms: Value) -> RequiredNodes {
        let mut spec = json!({ "containers": [], "nodeSelector": node_selector });
        if !terms.is_null() {
            spec["affinity"] = json!({ "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms },
            } });
        }
        RequiredNodes::of(&serde_json::from_value(spec).unwrap())
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
        json!({ "key": key, "operator": operator, "values": values })
    }

    #[test]
    fn nodes_are_selected_as_kubernetes_selects_them() {
        let labels: Labels = [("disk", "ssd"), ("cores", "8"), ("zone", "a")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        let none = json!({});
        let one = |expression: Value| json!([{ "matchExpressions": [expression] }]);
        for (told, selector, terms, expected) in [
            ("nothing asked", none.clone(), Value::Null, true),
            ("a label", json!({ "disk": "ssd" }), Value::Null, true),
            ("another value", json!({ "disk": "hdd" }), Value::Null, false),
            ("a label that is not there", json!({ "gpu": "" }), Value::Null, false),
            ("no terms", none.clone(), json!([]), false),
            ("an empty term", none.clone(), json!([{}]), false),
            ("In", none.clone(), one(expression("zone", "In", &["b", "a"])), true),
            ("NotIn", none.clone(), one(expression("zone", "NotIn", &["a"])), false),
            ("NotIn of what is not there", none.clone(), one(expression("gpu", "NotIn", &["a"])), true),
            ("Exists", none.clone(), one(expression("zone", "Exists", &[])), true),
            ("DoesNotExist", none.clone(), one(expression("zone", "DoesNotExist", &[])), false),
            ("Gt", none.clone(), one(expression("cores", "Gt", &["7"])), true),
            ("Gt equal", none.clone(), one(expression("cores", "Gt", &["8"])), false),
            ("Lt", none.clone(), one(expression("cores", "Lt", &["9"])), true),
            ("Lt of no number", none.clone(), one(expression("zone", "Lt", &["9"])), false),
            (
                "any term",
                none.clone(),
                json!([
                    { "matchExpressions": [expression("zone", "In", &["b"])] },
                    { "matchExpressions": [expression("disk", "In", &["ssd"])] },
                ]),
                true,
            ),
            (
                "all of a term",
                none.clone(),
                json!([{ "matchExpressions": [
                expression("zone", "In", &["b"]), expression("disk", "In", &["ssd"]),
            ] }]),
                false,
            ),
            ("selector and terms", json!({ "disk": "hdd" }), one(expression("zone", "In", &["a"])), false),
            (
                "by name",
                none.clone(),
                json!([{ "matchFields": [expression("metadata.name", "In", &["n1"])] }]),
                true,
            ),
            (
                "not by name",
                none.clone(),
                json!([{ "matchFields": [expression("metadata.name", "NotIn", &["n1"])] }]),
                false,
            ),
        ] {
            assert_eq!(required(selector, terms).matches("n1", &labels), expected, "{told}");
        }
    }

    #[test]
    fn nodes_are_named_only_if_every_term_names_them() {
        let name = |names: &[&str]| json!({ "matchFields": [expression("metadata.name", "In", names)] });
        let zone = json!({ "matchExpressions": [expression("zone", "Exists", &[])] });
        for (terms, expected) in [
            (Value::Null, None),
            (json!([name(&["b"]), name(&["a", "b"])]), Some(vec!["a", "b"])),
            (json!([name(&["a"]), zone]), None),
            (
                json!([{ "matchFields": [
                expression("metadata.name", "In", &["a", "b"]), expression("metadata.name", "In", &["b", "c"]),
            ] }]),
                Some(vec!["b"]),
            ),
        ] {
            assert_eq!(required(json!({}), terms.clone()).named_nodes(), expected, "{terms}");
        }
    }
}
