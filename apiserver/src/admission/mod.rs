//! Admission: an ordered chain of plugins that may change or refuse a write after authorisation and before it is stored.
//!
//! Called by the registry's verbs. A plugin may read other objects through the registry. Every plugin first has its chance to
//! change the object ([`Admission::admit`]), then, after validation, to refuse it ([`Admission::validate`]).

mod claim_resize;
mod default_storage_class;
mod default_toleration_seconds;
mod namespace_lifecycle;
mod priority;
mod runtime_class;
mod service_account;
mod storage_object_in_use;
mod taint_nodes;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use crate::registry::context::Context;
use crate::registry::strategy::Resource;
use crate::registry::{Refusal, Registry};

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A new object, or a subresource that is posted to.
    Create,
    /// A change.
    Update,
    /// A deletion.
    Delete,
    /// A stream to the object (exec, proxy).
    Connect,
}

/// The facts of a write.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// What is being done.
    pub operation: Operation,
    /// To which resource.
    pub resource: Resource,
    /// To which subresource; empty for the object itself.
    pub subresource: &'a str,
    /// In which namespace; empty for cluster-scoped kinds.
    pub namespace: &'a str,
    /// Under which name (a generated one is known here).
    pub name: &'a str,
    /// Whose request it is.
    pub context: &'a Context,
    /// The present state, for updates and deletions.
    pub old: Option<&'a Value>,
}

impl Attributes<'_> {
    /// Whether it is this resource itself, in whatever version.
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.resource.group == group && self.resource.name == resource && self.subresource.is_empty()
    }
}

/// One plugin.
#[async_trait]
pub trait Admission: Send + Sync + 'static {
    /// Its name, as kube-apiserver's flags have it.
    fn name(&self) -> &'static str;

    /// May change the object (`Null` for deletions).
    async fn admit(
        &self,
        _registry: &Registry,
        _of: &Attributes<'_>,
        _object: &mut Value,
    ) -> Result<(), Refusal> {
        Ok(())
    }

    /// May refuse the object as it is to be stored.
    async fn validate(
        &self,
        _registry: &Registry,
        _of: &Attributes<'_>,
        _object: &Value,
    ) -> Result<(), Refusal> {
        Ok(())
    }
}

/// The plugins in their order. Source: kube-apiserver's `AllOrderedPlugins`.
pub fn plugins() -> Vec<Arc<dyn Admission>> {
    vec![
        Arc::new(namespace_lifecycle::NamespaceLifecycle),
        Arc::new(service_account::ServiceAccount),
        Arc::new(taint_nodes::TaintNodesByCondition),
        Arc::new(priority::Priority),
        Arc::new(default_toleration_seconds::DefaultTolerationSeconds),
        Arc::new(default_storage_class::DefaultStorageClass),
        Arc::new(storage_object_in_use::StorageObjectInUseProtection),
        Arc::new(claim_resize::PersistentVolumeClaimResize),
        Arc::new(runtime_class::RuntimeClass),
    ]
}
