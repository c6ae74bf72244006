//! The kinds that are served: one file each, listed in [`table`].

mod config_map;
mod controller_revision;
mod csi;
mod daemon_set;
mod deployment;
mod endpoint_slice;
mod endpoints;
mod event;
mod fields;
mod ingress;
mod job;
mod json;
mod lease;
mod namespace;
mod network_policy;
mod node;
pub(crate) mod persistent_volume;
pub(crate) mod persistent_volume_claim;
mod pod;
mod pod_disruption_budget;
mod pod_template;
mod priority_class;
mod quota;
mod rbac;
mod replica_set;
mod replication_controller;
mod runtime_class;
mod secret;
mod service;
mod service_account;
mod stateful_set;
pub(crate) mod storage_class;
pub(crate) mod table;
#[cfg(test)]
mod testing;
mod volume_attachment;
mod workload;

use std::sync::Arc;

use serde_json::Value;
use wherry_machinery::field::ErrorList;

use self::service::allocation::ServiceAllocator;
pub use self::service::allocation::ServiceRanges;
use crate::registry::hooks::Hooks;
use crate::registry::strategy::{Resource, Scope, Strategy};

/// A path below an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subresource {
    /// The status alone.
    Status,
    /// `autoscaling/v1.Scale`: the wanted and the present number of replicas.
    Scale,
    /// Assigns a pod to a node.
    Binding,
    /// Deletes a pod, if its disruption budgets allow.
    Eviction,
    /// Adds containers to a running pod.
    EphemeralContainers,
    /// Changes the resources of a running pod.
    Resize,
    /// Replaces a namespace's `spec.finalizers`.
    Finalize,
    /// Answered by the [`crate::http::Connector`]: logs, exec, tokens, proxies.
    Connect(&'static str),
}

impl Subresource {
    /// The name in the path.
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::EphemeralContainers => "ephemeralcontainers",
            Self::Resize => "resize",
            Self::Finalize => "finalize",
            Self::Connect(name) => name,
        }
    }
}

/// How a subresource changes its object, where that is not the strategy's way.
#[derive(Debug, Clone, Copy)]
pub struct Act {
    /// Takes from what a client sent no more than the subresource may change.
    pub prepare: fn(&mut Value, &Value),
    /// Everything wrong with the change, metadata excepted.
    pub validate: fn(&Value, &Value) -> ErrorList,
}

impl Subresource {
    /// How the subresource changes the object; `None` where the strategy says so itself or nothing is changed.
    pub fn act(self) -> Option<Act> {
        match self {
            Self::EphemeralContainers => Some(Act {
                prepare: pod::ephemeral_containers::prepare,
                validate: pod::validate_ephemeral_containers,
            }),
            Self::Resize => Some(Act { prepare: pod::resize::prepare, validate: pod::validate_resize }),
            Self::Finalize => Some(Act {
                prepare: namespace::prepare_for_finalize,
                validate: |object, _| namespace::validate_finalize(object),
            }),
            Self::Status | Self::Scale | Self::Binding | Self::Eviction | Self::Connect(_) => None,
        }
    }
}

/// A resource that shows what another resource stores (the two Event kinds).
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// The names under which, and the kind as which, objects are stored.
    pub stored: Resource,
    /// From the form served here to the stored one.
    pub to_stored: fn(&mut Value),
    /// From the stored form to the one served here.
    pub from_stored: fn(&mut Value),
}

/// A kind, as it is entered in the table.
pub struct Row {
    /// What distinguishes the kind.
    pub strategy: Arc<dyn Strategy>,
    /// Its subresources.
    pub subresources: &'static [Subresource],
    /// Whether a DELETE that removes the object answers with the object.
    pub returns_deleted: bool,
    /// What happens around its commits.
    pub hooks: Option<Arc<dyn Hooks>>,
    /// Whether it is stored in another form.
    pub view: Option<View>,
}

impl Row {
    /// A kind without subresources.
    pub fn new(strategy: impl Strategy) -> Self {
        Self {
            strategy: Arc::new(strategy),
            subresources: &[],
            returns_deleted: false,
            hooks: None,
            view: None,
        }
    }

    /// With subresources.
    #[must_use]
    pub fn with(mut self, subresources: &'static [Subresource]) -> Self {
        self.subresources = subresources;
        self
    }

    /// A DELETE that removes the object answers with the object.
    #[must_use]
    pub fn returning_deleted(mut self) -> Self {
        self.returns_deleted = true;
        self
    }

    /// With something to do around commits.
    #[must_use]
    pub fn hooked(mut self, hooks: impl Hooks) -> Self {
        self.hooks = Some(Arc::new(hooks));
        self
    }

    /// Stored in another form.
    #[must_use]
    pub fn viewing(mut self, view: View) -> Self {
        self.view = Some(view);
        self
    }
}

/// Every kind that is served, with Services in the default ranges.
pub fn table() -> Vec<Row> {
    table_with(&ServiceRanges::default())
}

/// Every kind that is served.
pub fn table_with(services: &ServiceRanges) -> Vec<Row> {
    use Subresource::{Binding, Connect, EphemeralContainers, Eviction, Finalize, Resize, Scale, Status};
    let events = View { stored: event::STORED, to_stored: event::to_stored, from_stored: event::from_stored };
    vec![
        Row::new(config_map::ConfigMapStrategy),
        Row::new(controller_revision::ControllerRevisionStrategy),
        Row::new(csi::CsiDriverStrategy).returning_deleted(),
        Row::new(csi::CsiNodeStrategy).returning_deleted(),
        Row::new(csi::CsiStorageCapacityStrategy),
        Row::new(daemon_set::DaemonSetStrategy).with(&[Status]),
        Row::new(deployment::DeploymentStrategy).with(&[Status, Scale]),
        Row::new(endpoint_slice::EndpointSliceStrategy),
        Row::new(endpoints::EndpointsStrategy),
        Row::new(event::EventStrategy(event::Form::Core)),
        Row::new(event::EventStrategy(event::Form::Events)).viewing(events),
        Row::new(ingress::IngressStrategy).with(&[Status]),
        Row::new(ingress::IngressClassStrategy),
        Row::new(job::JobStrategy).with(&[Status]),
        Row::new(lease::LeaseStrategy),
        Row::new(quota::LimitRangeStrategy),
        Row::new(namespace::NamespaceStrategy).with(&[Status, Finalize]).returning_deleted(),
        Row::new(network_policy::NetworkPolicyStrategy),
        Row::new(node::NodeStrategy).with(&[Status, Connect("proxy")]),
        Row::new(pod::PodStrategy)
            .with(&[
                Status,
                Binding,
                Eviction,
                EphemeralContainers,
                Resize,
                Connect("attach"),
                Connect("exec"),
                Connect("log"),
                Connect("portforward"),
                Connect("proxy"),
            ])
            .returning_deleted(),
        Row::new(persistent_volume::PersistentVolumeStrategy).with(&[Status]).returning_deleted(),
        Row::new(persistent_volume_claim::PersistentVolumeClaimStrategy).with(&[Status]).returning_deleted(),
        Row::new(pod_disruption_budget::PodDisruptionBudgetStrategy).with(&[Status]),
        Row::new(pod_template::PodTemplateStrategy).returning_deleted(),
        Row::new(priority_class::PriorityClassStrategy),
        Row::new(rbac::RoleBindingStrategy(Scope::Cluster)),
        Row::new(rbac::RoleBindingStrategy(Scope::Namespaced)),
        Row::new(rbac::RoleStrategy(Scope::Cluster)),
        Row::new(rbac::RoleStrategy(Scope::Namespaced)),
        Row::new(replica_set::ReplicaSetStrategy).with(&[Status, Scale]),
        Row::new(replication_controller::ReplicationControllerStrategy).with(&[Status, Scale]),
        Row::new(quota::ResourceQuotaStrategy).with(&[Status]).returning_deleted(),
        Row::new(runtime_class::RuntimeClassStrategy),
        Row::new(secret::SecretStrategy),
        Row::new(service::ServiceStrategy)
            .with(&[Status, Connect("proxy")])
            .hooked(ServiceAllocator::new(services.clone()))
            .returning_deleted(),
        Row::new(service_account::ServiceAccountStrategy).with(&[Connect("token")]).returning_deleted(),
        Row::new(stateful_set::StatefulSetStrategy).with(&[Status, Scale]),
        Row::new(storage_class::StorageClassStrategy).returning_deleted(),
        Row::new(storage_class::VolumeAttributesClassStrategy).returning_deleted(),
        Row::new(volume_attachment::VolumeAttachmentStrategy).with(&[Status]).returning_deleted(),
    ]
}
