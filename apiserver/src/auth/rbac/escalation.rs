//! Nobody may write a role, or bind one, that gives more than he has himself.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/rbac/{role,rolebinding,clusterrole,clusterrolebinding}/policybased`.

use serde::Deserialize;
use serde_json::Value;
use wherry_machinery::Status;
use wherry_machinery::field::go_quote;
use wherry_machinery::metadata;

use super::policies::{Kind, Policies, RoleRef};
use super::rule::{PolicyRule, compacted, go_quoted_list, missing_rights};
use crate::auth::attributes::{Attributes, ResourceTarget, Target};
use crate::auth::authorizer::{Authorizer, Decision};
use crate::identity::{Identity, MASTERS};
use crate::registry::Refusal;

const GROUP: &str = "rbac.authorization.k8s.io";

/// A write to one of RBAC's kinds.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    /// Of which kind.
    pub kind: Kind,
    /// Who writes.
    pub identity: &'a Identity,
    /// The namespace; empty for cluster-wide kinds.
    pub namespace: &'a str,
    /// The object as it will be.
    pub object: &'a Value,
    /// The object as it is, for an update.
    pub old: Option<&'a Value>,
}

/// Refuses a write that would give away rights which the writer has not.
///
/// # Errors
/// 403 that names the rights; 404 for a binding to a role that is not there.
pub fn check(authorizer: &Authorizer, write: &Write<'_>) -> Result<(), Refusal> {
    if write.identity.is_in(MASTERS)
        || write.old.is_some_and(|old| only_garbage_collection_fields_differ(write.object, old))
    {
        return Ok(());
    }
    let name = metadata::name(write.object);
    let may = |verb: &str, resource: &str, namespace: &str, name: &str| {
        let target = ResourceTarget { group: GROUP, resource, namespace, name, ..ResourceTarget::default() };
        let attributes = Attributes { identity: write.identity, verb, target: Target::Resource(target) };
        matches!(authorizer.decide(&attributes), Decision::Allow { .. })
    };
    let forbidden = |text: String| Box::new(Status::forbidden(GROUP, write.kind.resource(), name, text));
    let unreadable = |error: serde_json::Error| Box::new(Status::internal(error));
    match write.kind {
        Kind::Role | Kind::ClusterRole => {
            if may("escalate", write.kind.resource(), write.namespace, name) {
                return Ok(());
            }
            let rules = match write.object.get("rules") {
                None | Some(Value::Null) => Vec::new(),
                Some(rules) => Vec::<PolicyRule>::deserialize(rules).map_err(unreadable)?,
            };
            authorizer.with_policies(|policies| confirm(policies, write, &rules)).map_err(forbidden)?;
            if write.object.get("aggregationRule").is_some_and(|rule| !rule.is_null()) {
                let everything = [full_authority(), full_authority_over_paths()];
                authorizer.with_policies(|policies| confirm(policies, write, &everything)).map_err(|_| {
                    forbidden("must have cluster-admin privileges to use the aggregationRule".to_owned())
                })?;
            }
            Ok(())
        }
        Kind::RoleBinding | Kind::ClusterRoleBinding => {
            let role = RoleRef::deserialize(write.object.get("roleRef").unwrap_or(&Value::Null))
                .map_err(unreadable)?;
            let (resource, namespace) = if role.kind == "Role" {
                ("roles", write.namespace)
            } else {
                ("clusterroles", write.namespace)
            };
            if may("bind", resource, namespace, &role.name) {
                return Ok(());
            }
            authorizer.with_policies(|policies| {
                let rules = policies
                    .rules_of(&role, write.namespace)
                    .map_err(|_| Box::new(Status::not_found(GROUP, write.kind.resource(), &role.name)))?;
                confirm(policies, write, &rules).map_err(forbidden)
            })
        }
    }
}

fn full_authority() -> PolicyRule {
    let all = || vec!["*".to_owned()];
    PolicyRule { verbs: all(), api_groups: all(), resources: all(), ..PolicyRule::default() }
}

fn full_authority_over_paths() -> PolicyRule {
    let all = || vec!["*".to_owned()];
    PolicyRule { verbs: all(), non_resource_urls: all(), ..PolicyRule::default() }
}

fn confirm(policies: &Policies, write: &Write<'_>, rules: &[PolicyRule]) -> Result<(), String> {
    let (held, errors) = policies.rules_for(write.identity, write.namespace);
    let missing = missing_rights(&held, rules);
    if missing.is_empty() {
        return Ok(());
    }
    let mut described: Vec<String> = compacted(missing).iter().map(PolicyRule::compact_string).collect();
    described.sort();
    described.dedup();
    let mut text = format!(
        "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        go_quote(&write.identity.user),
        go_quoted_list(&write.identity.groups),
        described.join("\n")
    );
    if !errors.is_empty() {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        text.push_str(&format!("; resolution errors: [{}]", errors.join(" ")));
    }
    Err(text)
}

/// Whether only owner references and finalizers differ (what the garbage collector writes).
fn only_garbage_collection_fields_differ(object: &Value, old: &Value) -> bool {
    let stripped = |value: &Value| {
        let mut value = value.clone();
        if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion", "generation"] {
                meta.remove(field);
            }
        }
        value
    };
    stripped(object) == stripped(old)
}
