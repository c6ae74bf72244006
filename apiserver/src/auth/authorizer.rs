//! The chain of authorisers: `system:masters`, nodes, RBAC.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use super::attributes::{Attributes, Target};
use super::node::NodeGraph;
use super::node_volumes;
use super::rbac::{Kind, Policies, PolicyRule};
use crate::cacher::Cacher;
use crate::identity::{Identity, MASTERS};

/// Whether a request may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Allow {
        /// Which binding says so; empty if no reason is told.
        reason: String,
    },
    /// Nobody allows it.
    NoOpinion {
        /// What a person should know; often empty.
        reason: String,
    },
}

/// All rules that a user has in a namespace.
#[derive(Debug, Default)]
pub struct Rules {
    /// The rules.
    pub rules: Vec<PolicyRule>,
    /// Whether there may be more.
    pub incomplete: bool,
    /// Why, or which roles are missing.
    pub error: String,
}

/// Decides from roles, bindings and pods in memory; fed by [`super::feed`].
#[derive(Default)]
pub struct Authorizer {
    policies: RwLock<Policies>,
    nodes: RwLock<NodeGraph>,
    volumes: OnceLock<Arc<Cacher>>,
}

impl std::fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authorizer").finish_non_exhaustive()
    }
}

impl Authorizer {
    /// Decides.
    pub fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.identity.is_in(MASTERS) {
            return Decision::Allow { reason: String::new() };
        }
        let mut reasons = Vec::new();
        if let Some(node) = attributes.identity.node_name() {
            match self.decide_node(node, attributes) {
                Ok(()) => return Decision::Allow { reason: String::new() },
                Err(reason) => reasons.extend((!reason.is_empty()).then_some(reason)),
            }
        }
        match self.with_policies(|policies| policies.allows(attributes)) {
            Ok(reason) => Decision::Allow { reason },
            Err(missing) => {
                let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
                match missing.as_slice() {
                    [] => {}
                    [one] => reasons.push(format!("RBAC: {one}")),
                    many => reasons.push(format!("RBAC: [{}]", many.join(", "))),
                }
                Decision::NoOpinion { reason: reasons.join("\n") }
            }
        }
    }

    fn decide_node(&self, node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        match &attributes.target {
            Target::Resource(target) if (target.group, target.resource) == ("", "persistentvolumes") => {
                let volume = self.volumes.get().and_then(|volumes| volumes.get(target.name));
                let volume = volume.map(|entry| entry.value());
                let is_of_pod = |namespace: &str, claim: &str| nodes.has_claim(node, namespace, claim);
                node_volumes::decide(node, attributes.verb, target, volume.as_ref(), is_of_pod)
            }
            _ => nodes.decide(node, attributes),
        }
    }

    /// Where volumes are looked up; said once, at the start.
    pub(super) fn read_volumes_from(&self, volumes: Arc<Cacher>) {
        // A second time would be the same cache.
        let _ = self.volumes.set(volumes);
    }

    /// Whether it is allowed.
    pub fn allows(&self, attributes: &Attributes<'_>) -> bool {
        matches!(self.decide(attributes), Decision::Allow { .. })
    }

    /// Every rule of a user in a namespace.
    pub fn rules_for(&self, identity: &Identity, namespace: &str) -> Rules {
        let mut out = Rules::default();
        if identity.is_in(MASTERS) {
            let all = || vec!["*".to_owned()];
            out.rules.push(PolicyRule {
                verbs: all(),
                api_groups: all(),
                resources: all(),
                ..PolicyRule::default()
            });
            out.rules.push(PolicyRule { verbs: all(), non_resource_urls: all(), ..PolicyRule::default() });
        }
        let mut errors = Vec::new();
        if identity.node_name().is_some() {
            out.incomplete = true;
            errors.push("node authorizer does not support user rule resolution".to_owned());
        }
        let (rules, missing) = self.with_policies(|policies| policies.rules_for(identity, namespace));
        out.rules.extend(rules);
        errors.extend(missing.iter().map(ToString::to_string));
        out.incomplete |= !missing.is_empty();
        out.error = match errors.as_slice() {
            [] => String::new(),
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        out
    }

    /// Reads the roles and bindings; the function must not take long.
    pub fn with_policies<T>(&self, read: impl FnOnce(&Policies) -> T) -> T {
        read(&self.policies.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes in a role or binding as it is now.
    pub fn apply_policy(&self, kind: Kind, namespace: &str, name: &str, object: Option<&serde_json::Value>) {
        self.policies.write().unwrap_or_else(PoisonError::into_inner).apply(kind, namespace, name, object);
    }

    /// Replaces all roles and bindings.
    pub fn replace_policies(&self, policies: Policies) {
        *self.policies.write().unwrap_or_else(PoisonError::into_inner) = policies;
    }

    /// Replaces all objects of one kind: namespace, name and object of each.
    pub fn replace_kind(&self, kind: Kind, objects: &[(String, String, serde_json::Value)]) {
        let mut policies = self.policies.write().unwrap_or_else(PoisonError::into_inner);
        policies.clear(kind);
        for (namespace, name, object) in objects {
            policies.apply(kind, namespace, name, Some(object));
        }
    }

    /// Takes in a pod as it is now.
    pub fn apply_pod(&self, namespace: &str, name: &str, pod: Option<&serde_json::Value>) {
        self.nodes.write().unwrap_or_else(PoisonError::into_inner).apply(namespace, name, pod);
    }

    /// Replaces all pods.
    pub fn replace_pods(&self, nodes: NodeGraph) {
        *self.nodes.write().unwrap_or_else(PoisonError::into_inner) = nodes;
    }

    /// Whether the pod of a node is among those known; used by NodeRestriction.
    pub fn pod_is_on(&self, node: &str, namespace: &str, name: &str) -> bool {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).has_pod(node, namespace, name)
    }
}

impl Decision {
    /// Whether it may.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }
}

/// The 403 that answers a refused request.
pub fn forbidden(attributes: &Attributes<'_>, reason: &str) -> wherry_machinery::Status {
    use wherry_machinery::status::{Reason, Status, StatusDetails};
    let mut text = attributes.refusal();
    if !reason.is_empty() {
        text.push_str(": ");
        text.push_str(reason);
    }
    match &attributes.target {
        Target::Resource(target) => Status::forbidden(target.group, target.resource, target.name, text),
        Target::Path(_) => Status::failure(Reason::Forbidden, format!("forbidden: {text}"))
            .with_details(StatusDetails::default()),
    }
}
