//! What authorisation has to say about objects, not only about requests.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::attributes::{Attributes, ResourceTarget, Target};
use super::authorizer::{Authorizer, Decision, forbidden};
use super::node_volumes;
use super::rbac::{Kind, escalation};
use crate::admission::{self, Admission, Operation};
use crate::registry::{Refusal, Registry};

/// Refuses writes that hand out rights which the writer has not, and creations by who may only update.
#[derive(Debug)]
pub struct Authorization {
    authorizer: Arc<Authorizer>,
}

impl Authorization {
    /// Judges by `authorizer`.
    pub fn new(authorizer: Arc<Authorizer>) -> Self {
        Self { authorizer }
    }
}

#[async_trait]
impl Admission for Authorization {
    fn name(&self) -> &'static str {
        "Authorization"
    }

    async fn validate(
        &self,
        _registry: &Registry,
        of: &admission::Attributes<'_>,
        object: &Value,
    ) -> Result<(), Refusal> {
        node_volumes::check_change(of, object)?;
        if !of.subresource.is_empty() || !matches!(of.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        if of.operation == Operation::Create {
            // A PUT that creates was authorised as an update only.
            let target = ResourceTarget {
                group: of.resource.group,
                resource: of.resource.name,
                namespace: of.namespace,
                name: of.name,
                ..ResourceTarget::default()
            };
            let attributes = Attributes {
                identity: &of.context.identity,
                verb: "create",
                target: Target::Resource(target),
            };
            if let Decision::NoOpinion { reason } = self.authorizer.decide(&attributes) {
                return Err(forbidden(&attributes, &reason).into());
            }
        }
        if of.resource.group != "rbac.authorization.k8s.io" {
            return Ok(());
        }
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.resource() == of.resource.name) else {
            return Ok(());
        };
        let write = escalation::Write {
            kind,
            identity: &of.context.identity,
            namespace: of.namespace,
            object,
            old: of.old,
        };
        escalation::check(&self.authorizer, &write)
    }
}
