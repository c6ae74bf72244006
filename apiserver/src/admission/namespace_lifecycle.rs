//! NamespaceLifecycle: nothing is created in a namespace that is not there or is going away; the first namespaces stay.

use async_trait::async_trait;
use serde_json::Value;
use wherry_machinery::status::{Status, StatusCause};

use super::{Admission, Attributes, Operation};
use crate::registry::{Refusal, Registry, object};

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// The plugin.
pub(super) struct NamespaceLifecycle;

#[async_trait]
impl Admission for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    async fn admit(
        &self,
        registry: &Registry,
        of: &Attributes<'_>,
        _object: &mut Value,
    ) -> Result<(), Refusal> {
        if of.operation == Operation::Delete && of.is("", "namespaces") && IMMORTAL.contains(&of.name) {
            return Err(
                Status::forbidden("", "namespaces", of.name, "this namespace may not be deleted").into()
            );
        }
        if of.operation != Operation::Create
            || of.namespace.is_empty()
            || (of.resource.group.is_empty() && of.resource.name == "namespaces")
        {
            return Ok(());
        }
        let Some(namespace) = registry.lookup(("", "v1", "namespaces"), "", of.namespace).await? else {
            return Err(Status::not_found("", "namespaces", of.namespace).into());
        };
        if !object::is_deleting(&namespace) {
            return Ok(());
        }
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            of.namespace
        );
        let mut refusal = Status::forbidden(of.resource.group, of.resource.name, of.name, why);
        if let Some(details) = &mut refusal.details {
            details.causes.push(StatusCause {
                reason: "NamespaceTerminating".to_owned(),
                message: format!("namespace {} is being terminated", of.namespace),
                field: "metadata.namespace".to_owned(),
            });
        }
        Err(refusal.into())
    }
}
