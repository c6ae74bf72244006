//! Roles and bindings as the authoriser reads them: in memory, found by subject.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use wherry_machinery::field::go_quote;

use super::rule::PolicyRule;
use crate::auth::attributes::{Attributes, Target};
use crate::identity::Identity;

/// The four kinds of RBAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `clusterroles`.
    ClusterRole,
    /// `clusterrolebindings`.
    ClusterRoleBinding,
    /// `roles`.
    Role,
    /// `rolebindings`.
    RoleBinding,
}

impl Kind {
    /// All four.
    pub const ALL: [Self; 4] = [Self::ClusterRole, Self::ClusterRoleBinding, Self::Role, Self::RoleBinding];

    /// The plural name.
    pub fn resource(self) -> &'static str {
        match self {
            Self::ClusterRole => "clusterroles",
            Self::ClusterRoleBinding => "clusterrolebindings",
            Self::Role => "roles",
            Self::RoleBinding => "rolebindings",
        }
    }
}

/// To what a binding refers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RoleRef {
    /// `Role` or `ClusterRole`.
    pub kind: String,
    /// The role's name.
    pub name: String,
}

/// Somebody to whom a binding gives a role.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub struct Subject {
    /// `User`, `Group` or `ServiceAccount`.
    pub kind: String,
    /// The name.
    pub name: String,
    /// The namespace of a service account.
    #[serde(default)]
    pub namespace: String,
}

impl Subject {
    /// The user or group that the subject stands for.
    fn key(&self, binding_namespace: &str) -> Option<SubjectKey> {
        match self.kind.as_str() {
            "User" => Some(SubjectKey::User(self.name.clone())),
            "Group" => Some(SubjectKey::Group(self.name.clone())),
            "ServiceAccount" => {
                let namespace = if self.namespace.is_empty() { binding_namespace } else { &self.namespace };
                if namespace.is_empty() {
                    return None;
                }
                Some(SubjectKey::User(format!("system:serviceaccount:{namespace}:{}", self.name)))
            }
            _ => None,
        }
    }

    fn description(&self) -> String {
        match self.kind.as_str() {
            "ServiceAccount" => {
                format!("ServiceAccount {}", go_quote(&format!("{}/{}", self.name, self.namespace)))
            }
            kind => format!("{kind} {}", go_quote(&self.name)),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum SubjectKey {
    User(String),
    Group(String),
}

#[derive(Debug)]
struct Binding {
    role: RoleRef,
    subjects: Vec<Subject>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BindingObject {
    role_ref: RoleRef,
    #[serde(default)]
    subjects: Option<Vec<Subject>>,
}

/// The bindings of one namespace (or of the cluster), found by subject.
#[derive(Debug, Default)]
struct Bindings {
    by_name: HashMap<String, Binding>,
    by_subject: HashMap<SubjectKey, BTreeSet<String>>,
}

impl Bindings {
    fn remove(&mut self, namespace: &str, name: &str) {
        let Some(old) = self.by_name.remove(name) else { return };
        for key in old.subjects.iter().filter_map(|subject| subject.key(namespace)) {
            if let Some(names) = self.by_subject.get_mut(&key) {
                names.remove(name);
                if names.is_empty() {
                    self.by_subject.remove(&key);
                }
            }
        }
    }

    fn put(&mut self, namespace: &str, name: &str, binding: Binding) {
        self.remove(namespace, name);
        for key in binding.subjects.iter().filter_map(|subject| subject.key(namespace)) {
            self.by_subject.entry(key).or_default().insert(name.to_owned());
        }
        self.by_name.insert(name.to_owned(), binding);
    }

    /// The bindings that name the user or one of the groups, with the subject that does.
    fn of<'a>(
        &'a self,
        namespace: &'a str,
        identity: &'a Identity,
    ) -> impl Iterator<Item = (&'a str, &'a Binding, &'a Subject)> {
        let keys = std::iter::once(SubjectKey::User(identity.user.clone()))
            .chain(identity.groups.iter().map(|group| SubjectKey::Group(group.clone())));
        keys.filter_map(|key| self.by_subject.get(&key).map(|names| (key, names))).flat_map(
            move |(key, names)| {
                names.iter().filter_map(move |name| {
                    let binding = self.by_name.get(name)?;
                    let subject = binding
                        .subjects
                        .iter()
                        .find(|subject| subject.key(namespace).as_ref() == Some(&key))?;
                    Some((name.as_str(), binding, subject))
                })
            },
        )
    }
}

/// Every role and binding.
#[derive(Debug, Default)]
pub struct Policies {
    cluster_roles: HashMap<String, Arc<[PolicyRule]>>,
    roles: HashMap<(String, String), Arc<[PolicyRule]>>,
    cluster_bindings: Bindings,
    bindings: HashMap<String, Bindings>,
}

/// A role that a binding refers to is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}.rbac.authorization.k8s.io {} not found", go_quote(.name))]
pub struct RoleNotFound {
    kind: String,
    name: String,
}

/// What a visitor of rules says: go on, or stop with an answer.
type Visit<'v, T> = &'v mut dyn FnMut(&PolicyRule, &dyn Fn() -> String) -> Option<T>;

impl Policies {
    /// Takes in an object as it is now; `None` if it was deleted. An object that does not decode counts as absent.
    pub fn apply(&mut self, kind: Kind, namespace: &str, name: &str, object: Option<&Value>) {
        let rules = || -> Option<Arc<[PolicyRule]>> {
            match object?.get("rules") {
                None | Some(Value::Null) => Some(Arc::default()),
                Some(rules) => Vec::<PolicyRule>::deserialize(rules).ok().map(Into::into),
            }
        };
        match kind {
            Kind::ClusterRole => set(&mut self.cluster_roles, name.to_owned(), rules()),
            Kind::Role => set(&mut self.roles, (namespace.to_owned(), name.to_owned()), rules()),
            Kind::ClusterRoleBinding | Kind::RoleBinding => {
                let binding =
                    object.and_then(|object| BindingObject::deserialize(object).ok()).map(|object| Binding {
                        role: object.role_ref,
                        subjects: object.subjects.unwrap_or_default(),
                    });
                let namespace = if kind == Kind::RoleBinding { namespace } else { "" };
                let bindings = if kind == Kind::RoleBinding {
                    self.bindings.entry(namespace.to_owned()).or_default()
                } else {
                    &mut self.cluster_bindings
                };
                match binding {
                    Some(binding) => bindings.put(namespace, name, binding),
                    None => bindings.remove(namespace, name),
                }
                if self.bindings.get(namespace).is_some_and(|bindings| bindings.by_name.is_empty()) {
                    self.bindings.remove(namespace);
                }
            }
        }
    }

    /// Forgets every object of a kind.
    pub fn clear(&mut self, kind: Kind) {
        match kind {
            Kind::ClusterRole => self.cluster_roles.clear(),
            Kind::Role => self.roles.clear(),
            Kind::ClusterRoleBinding => self.cluster_bindings = Bindings::default(),
            Kind::RoleBinding => self.bindings.clear(),
        }
    }

    /// The rules of the role that a binding in `namespace` refers to.
    ///
    /// # Errors
    /// [`RoleNotFound`].
    pub fn rules_of(&self, role: &RoleRef, namespace: &str) -> Result<Arc<[PolicyRule]>, RoleNotFound> {
        let found = match role.kind.as_str() {
            "Role" => self.roles.get(&(namespace.to_owned(), role.name.clone())),
            "ClusterRole" => self.cluster_roles.get(&role.name),
            _ => None,
        };
        found
            .cloned()
            .ok_or_else(|| RoleNotFound { kind: role.kind.to_ascii_lowercase(), name: role.name.clone() })
    }

    /// Shows every rule that the identity has in the namespace (and cluster-wide) until the visitor answers.
    fn visit<T>(
        &self,
        identity: &Identity,
        namespace: &str,
        visit: Visit<'_, T>,
    ) -> (Option<T>, Vec<RoleNotFound>) {
        let mut missing = Vec::new();
        let cluster = self.cluster_bindings.of("", identity).map(|found| ("", found));
        let local = (!namespace.is_empty())
            .then(|| self.bindings.get(namespace))
            .flatten()
            .into_iter()
            .flat_map(|bindings| bindings.of(namespace, identity))
            .map(|found| (namespace, found));
        for (namespace, (name, binding, subject)) in cluster.chain(local) {
            let rules = match self.rules_of(&binding.role, namespace) {
                Ok(rules) => rules,
                Err(error) => {
                    missing.push(error);
                    continue;
                }
            };
            let source = || {
                let (kind, name) = if namespace.is_empty() {
                    ("ClusterRoleBinding", name.to_owned())
                } else {
                    ("RoleBinding", format!("{name}/{namespace}"))
                };
                format!(
                    "RBAC: allowed by {kind} {} of {} {} to {}",
                    go_quote(&name),
                    binding.role.kind,
                    go_quote(&binding.role.name),
                    subject.description()
                )
            };
            for rule in rules.iter() {
                if let Some(answer) = visit(rule, &source) {
                    return (Some(answer), missing);
                }
            }
        }
        (None, missing)
    }

    /// Which binding allows the request (`Ok`), or why none could be asked (`Err`; empty if all could).
    ///
    /// # Errors
    /// The roles that bindings of the user refer to and that are not there.
    pub fn allows(&self, attributes: &Attributes<'_>) -> Result<String, Vec<RoleNotFound>> {
        let namespace = match &attributes.target {
            Target::Resource(target) => target.namespace,
            Target::Path(_) => "",
        };
        let (reason, missing) = self
            .visit(attributes.identity, namespace, &mut |rule, source| rule.allows(attributes).then(source));
        reason.ok_or(missing)
    }

    /// All rules that the identity has in the namespace (and cluster-wide), and the roles that are not there.
    pub fn rules_for(&self, identity: &Identity, namespace: &str) -> (Vec<PolicyRule>, Vec<RoleNotFound>) {
        let mut rules = Vec::new();
        let (_, missing) = self.visit::<()>(identity, namespace, &mut |rule, _| {
            rules.push(rule.clone());
            None
        });
        (rules, missing)
    }
}

fn set<K: std::hash::Hash + Eq, V>(map: &mut HashMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::attributes::ResourceTarget;

    fn get_pods<'a>(identity: &'a Identity, namespace: &'a str) -> Attributes<'a> {
        let target = ResourceTarget { resource: "pods", namespace, name: "p", ..ResourceTarget::default() };
        Attributes { identity, verb: "get", target: Target::Resource(target) }
    }

    #[test]
    fn a_binding_gives_its_role_to_its_subjects_where_it_is() {
        let mut policies = Policies::default();
        let role = json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
        policies.apply(Kind::ClusterRole, "", "reader", Some(&role));
        let binding = json!({
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
            "subjects": [
                {"kind": "User", "name": "ann"},
                {"kind": "Group", "name": "team"},
                {"kind": "ServiceAccount", "name": "bot", "namespace": "other"},
            ],
        });
        policies.apply(Kind::RoleBinding, "a", "b", Some(&binding));
        let ann = Identity::new("ann", ["x"]);
        let reason = r#"RBAC: allowed by RoleBinding "b/a" of ClusterRole "reader" to User "ann""#;
        assert_eq!(policies.allows(&get_pods(&ann, "a")), Ok(reason.to_owned()));
        assert_eq!(policies.allows(&get_pods(&ann, "c")), Err(vec![]));
        assert_eq!(policies.allows(&get_pods(&ann, "")), Err(vec![]));
        let bob = Identity::new("bob", ["team"]);
        assert!(policies.allows(&get_pods(&bob, "a")).unwrap().ends_with(r#"to Group "team""#));
        let bot = Identity::service_account("other", "bot");
        assert!(policies.allows(&get_pods(&bot, "a")).unwrap().ends_with(r#"to ServiceAccount "bot/other""#));
        assert!(policies.allows(&get_pods(&Identity::service_account("a", "bot"), "a")).is_err());

        policies.apply(Kind::ClusterRole, "", "reader", None);
        let missing = policies.allows(&get_pods(&ann, "a")).unwrap_err();
        assert_eq!(missing[0].to_string(), r#"clusterrole.rbac.authorization.k8s.io "reader" not found"#);
        policies.apply(Kind::ClusterRole, "", "reader", Some(&role));
        policies.apply(Kind::RoleBinding, "a", "b", None);
        assert_eq!(policies.allows(&get_pods(&bob, "a")), Err(vec![]));
        assert!(policies.bindings.is_empty());
    }
}
