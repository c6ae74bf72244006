//! Policy rules: what each allows, and which rules cover which.
//!
//! Source: `k8s.io/kubernetes/pkg/apis/rbac/v1/evaluation_helpers.go` and `k8s.io/component-helpers/auth/rbac/validation`.

use serde::{Deserialize, Deserializer, Serialize};

use crate::auth::attributes::{Attributes, ResourceTarget, Target};

/// `rbac/v1.PolicyRule`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRule {
    /// What may be done; `*` is everything.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub verbs: Vec<String>,
    /// In which groups; `*` is all.
    #[serde(default, deserialize_with = "null_as_empty", skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    /// To what; `*` is everything, `*/scale` that subresource of everything.
    #[serde(default, deserialize_with = "null_as_empty", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// To which objects; empty is all.
    #[serde(default, deserialize_with = "null_as_empty", skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// On which paths; a final `*` is any rest.
    #[serde(
        default,
        rename = "nonResourceURLs",
        deserialize_with = "null_as_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub non_resource_urls: Vec<String>,
}

fn null_as_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default())
}

fn has(values: &[String], wanted: &str) -> bool {
    values.iter().any(|value| value == wanted)
}

fn has_or_all(values: &[String], wanted: &str) -> bool {
    values.iter().any(|value| value == "*" || value == wanted)
}

fn path_matches(pattern: &str, path: &str) -> bool {
    pattern == "*"
        || pattern == path
        || (pattern.ends_with('*') && path.starts_with(pattern.trim_end_matches('*')))
}

impl PolicyRule {
    /// Whether the rule allows the request.
    pub fn allows(&self, attributes: &Attributes<'_>) -> bool {
        has_or_all(&self.verbs, attributes.verb)
            && match &attributes.target {
                Target::Path(path) => {
                    self.non_resource_urls.iter().any(|pattern| path_matches(pattern, path))
                }
                Target::Resource(target) => {
                    has_or_all(&self.api_groups, target.group)
                        && self.allows_resource(target)
                        && (self.resource_names.is_empty() || has(&self.resource_names, target.name))
                }
            }
    }

    fn allows_resource(&self, target: &ResourceTarget<'_>) -> bool {
        let combined = target.combined();
        self.resources.iter().any(|resource| {
            resource == "*"
                || *resource == *combined
                || (!target.subresource.is_empty() && resource.strip_prefix("*/") == Some(target.subresource))
        })
    }

    /// The rule as many that each name one verb, one group, one resource, at most one name, or one path.
    fn broken_down(&self) -> Vec<Self> {
        let mut rules = Vec::new();
        for group in &self.api_groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let one = Self {
                        verbs: vec![verb.clone()],
                        api_groups: vec![group.clone()],
                        resources: vec![resource.clone()],
                        ..Self::default()
                    };
                    if self.resource_names.is_empty() {
                        rules.push(one);
                    } else {
                        rules.extend(
                            self.resource_names
                                .iter()
                                .map(|name| Self { resource_names: vec![name.clone()], ..one.clone() }),
                        );
                    }
                }
            }
        }
        for url in &self.non_resource_urls {
            for verb in &self.verbs {
                rules.push(Self {
                    verbs: vec![verb.clone()],
                    non_resource_urls: vec![url.clone()],
                    ..Self::default()
                });
            }
        }
        rules
    }

    /// Whether everything that the atomic rule `other` allows, this one allows too.
    fn covers(&self, other: &Self) -> bool {
        let all = |mine: &[String], theirs: &[String]| has(mine, "*") || theirs.iter().all(|t| has(mine, t));
        let resources = has(&self.resources, "*")
            || other.resources.iter().all(|resource| {
                has(&self.resources, resource)
                    || resource
                        .split_once('/')
                        .is_some_and(|(_, sub)| has(&self.resources, &format!("*/{sub}")))
            });
        let urls = other
            .non_resource_urls
            .iter()
            .all(|url| self.non_resource_urls.iter().any(|pattern| path_matches(pattern, url)));
        let names = self.resource_names.is_empty()
            || (!other.resource_names.is_empty()
                && other.resource_names.iter().all(|n| has(&self.resource_names, n)));
        all(&self.verbs, &other.verbs)
            && all(&self.api_groups, &other.api_groups)
            && resources
            && urls
            && names
    }

    /// The rule in one line, as messages show it.
    pub fn compact_string(&self) -> String {
        let parts = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let shown: Vec<String> = parts
            .iter()
            .filter(|(_, values)| !values.is_empty())
            .map(|(name, values)| format!("{name}:{}", go_quoted_list(values)))
            .collect();
        format!("{{{}}}", shown.join(", "))
    }
}

/// `["a" "b"]`, as Go's `%q` writes a slice of strings.
pub fn go_quoted_list(values: &[String]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| wherry_machinery::field::go_quote(value)).collect();
    format!("[{}]", quoted.join(" "))
}

/// The rights in `wanted` that `held` does not give, one verb, resource or path each.
pub fn missing_rights(held: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    wanted
        .iter()
        .flat_map(PolicyRule::broken_down)
        .filter(|rule| !held.iter().any(|owned| owned.covers(rule)))
        .collect()
}

/// Rules for the same resource become one with all their verbs.
pub fn compacted(rules: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut out: Vec<PolicyRule> = Vec::new();
    for rule in rules {
        let simple = rule.api_groups.len() == 1
            && rule.resources.len() == 1
            && rule.resource_names.len() <= 1
            && rule.non_resource_urls.is_empty();
        let same = |other: &PolicyRule| {
            other.api_groups == rule.api_groups
                && other.resources == rule.resources
                && other.resource_names == rule.resource_names
                && other.non_resource_urls.is_empty()
        };
        match out.iter_mut().find(|other| simple && same(other)) {
            Some(other) => {
                for verb in rule.verbs {
                    if !other.verbs.contains(&verb) {
                        other.verbs.push(verb);
                    }
                }
            }
            None => out.push(rule),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    fn rule(verbs: &str, groups: &str, resources: &str, names: &str, urls: &str) -> PolicyRule {
        let list = |text: &str| text.split_whitespace().map(|s| s.trim_matches('\'').to_owned()).collect();
        PolicyRule {
            verbs: list(verbs),
            api_groups: list(groups),
            resources: list(resources),
            resource_names: list(names),
            non_resource_urls: list(urls),
        }
    }

    #[test]
    fn a_rule_allows_what_it_names_and_nothing_else() {
        let identity = Identity::new("ann", [""; 0]);
        let target = |resource, subresource, name| {
            Target::Resource(ResourceTarget { resource, subresource, name, ..ResourceTarget::default() })
        };
        #[rustfmt::skip]
        let table = [
            (rule("get", "''", "pods", "", ""), "get", target("pods", "", "a"), true),
            (rule("get", "''", "pods", "", ""), "list", target("pods", "", ""), false),
            (rule("get", "''", "pods", "", ""), "get", target("pods", "log", "a"), false),
            (rule("get", "''", "pods/log", "", ""), "get", target("pods", "log", "a"), true),
            (rule("get", "''", "*/log", "", ""), "get", target("pods", "log", "a"), true),
            (rule("get", "''", "*/log", "", ""), "get", target("pods", "", "a"), false),
            (rule("get", "apps", "pods", "", ""), "get", target("pods", "", "a"), false),
            (rule("*", "*", "*", "", ""), "get", target("pods", "log", "a"), true),
            (rule("get", "''", "pods", "a", ""), "get", target("pods", "", "a"), true),
            (rule("list", "''", "pods", "a", ""), "list", target("pods", "", ""), false),
            (rule("get", "", "", "", "/healthz /api/*"), "get", Target::Path("/api/v1"), true),
            (rule("get", "", "", "", "/healthz /api/*"), "get", Target::Path("/api"), false),
            (rule("get", "", "", "", "*"), "get", target("pods", "", "a"), false),
        ];
        for (rule, verb, target, allowed) in table {
            let attributes = Attributes { identity: &identity, verb, target };
            assert_eq!(rule.allows(&attributes), allowed, "{rule:?} {verb} {target:?}");
        }
    }

    #[test]
    fn rights_that_are_not_held_are_named_together() {
        let held = [
            rule("get", "''", "pods */scale", "", ""),
            rule("get", "''", "secrets", "a", ""),
            rule("get", "", "", "", "/x/*"),
        ];
        #[rustfmt::skip]
        let table = [
            (rule("get", "''", "pods", "", ""), ""),
            (rule("get", "''", "pods", "z", ""), ""),
            (rule("get", "''", "deployments/scale", "", ""), ""),
            (rule("get", "''", "secrets", "a", ""), ""),
            (rule("get", "''", "secrets", "", ""), r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}"#),
            (rule("get list", "''", "secrets", "a", ""), r#"{APIGroups:[""], Resources:["secrets"], ResourceNames:["a"], Verbs:["list"]}"#),
            (rule("watch list", "''", "pods", "", ""), r#"{APIGroups:[""], Resources:["pods"], Verbs:["watch" "list"]}"#),
            (rule("get", "", "", "", "/x/y"), ""),
            (rule("get", "", "", "", "/metrics"), r#"{NonResourceURLs:["/metrics"], Verbs:["get"]}"#),
        ];
        for (wanted, missing) in table {
            let got: Vec<String> = compacted(missing_rights(&held, std::slice::from_ref(&wanted)))
                .iter()
                .map(PolicyRule::compact_string)
                .collect();
            assert_eq!(got.join("\n"), missing, "{wanted:?}");
        }
    }
}
