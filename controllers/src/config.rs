//! What can be set about the controllers. The defaults are Kubernetes'.

use std::collections::BTreeSet;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

/// Settings of all controllers.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which controllers run.
    pub controllers: BTreeSet<Controller>,
    /// The certificate authority of the API server, PEM, for `kube-root-ca.crt`. Without it that controller does nothing.
    pub root_ca_pem: Option<String>,
    /// The range of all pods, of which each node gets a part. Without it nodes have to bring their own.
    pub cluster_cidr: Option<Ipv4Net>,
    /// The bits of each node's part.
    pub node_cidr_mask_size: u8,
    /// How many keys each controller works on at the same time.
    pub workers: usize,
    /// How long a node may be silent before it counts as unreachable.
    pub node_monitor_grace_period: Duration,
    /// How long a node must have been gone before its pods are.
    pub orphaned_pod_quarantine: Duration,
    /// How many terminated pods are kept.
    pub terminated_pod_threshold: usize,
    /// How many endpoints one EndpointSlice holds.
    pub max_endpoints_per_slice: usize,
    /// Where Services of type LoadBalancer get their addresses from. Without it they wait for somebody else.
    pub load_balancer_cidr: Option<IpNet>,
}

/// A controller's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Controller {
    /// Deployments to ReplicaSets.
    Deployment,
    /// ReplicaSets to Pods.
    ReplicaSet,
    /// Services and Pods to EndpointSlices.
    EndpointSlice,
    /// Services and Pods to Endpoints.
    Endpoints,
    /// Empties namespaces that are being deleted.
    Namespace,
    /// The `default` ServiceAccount of each namespace.
    ServiceAccount,
    /// The ConfigMap `kube-root-ca.crt` of each namespace.
    RootCa,
    /// Deletes what has lost its owners.
    GarbageCollector,
    /// Watches over nodes: conditions, taints, eviction.
    NodeLifecycle,
    /// Deletes pods that nobody will finish.
    PodGc,
    /// Gives each node a part of the pods' range.
    NodeIpam,
    /// Binds claims to volumes.
    PersistentVolume,
    /// Holds claims that pods use.
    ClaimProtection,
    /// Holds volumes that are bound.
    VolumeProtection,
    /// Holds attribute classes of volumes that are named.
    AttributesProtection,
    /// Makes the claims of pods' ephemeral volumes.
    EphemeralVolume,
    /// Makes volumes that are directories of nodes.
    LocalPath,
    /// How many pods each PodDisruptionBudget lets go.
    Disruption,
    /// Addresses for Services of type LoadBalancer.
    ServiceLoadBalancer,
}

impl Controller {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::ServiceAccount,
        Self::RootCa,
        Self::NodeIpam,
        Self::Deployment,
        Self::ReplicaSet,
        Self::EndpointSlice,
        Self::Endpoints,
        Self::Namespace,
        Self::GarbageCollector,
        Self::NodeLifecycle,
        Self::PodGc,
        Self::PersistentVolume,
        Self::ClaimProtection,
        Self::VolumeProtection,
        Self::AttributesProtection,
        Self::EphemeralVolume,
        Self::LocalPath,
        Self::Disruption,
        Self::ServiceLoadBalancer,
    ];

    /// The name that Kubernetes gives it (if it has one like it), as in `kube-controller-manager --controllers`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deployment => "deployment-controller",
            Self::ReplicaSet => "replicaset-controller",
            Self::EndpointSlice => "endpointslice-controller",
            Self::Endpoints => "endpoints-controller",
            Self::Namespace => "namespace-controller",
            Self::ServiceAccount => "serviceaccount-controller",
            Self::RootCa => "root-ca-certificate-publisher-controller",
            Self::GarbageCollector => "garbage-collector-controller",
            Self::NodeLifecycle => "node-lifecycle-controller",
            Self::NodeIpam => "node-ipam-controller",
            Self::PodGc => "pod-garbage-collector-controller",
            Self::PersistentVolume => "persistentvolume-binder-controller",
            Self::ClaimProtection => "persistentvolumeclaim-protection-controller",
            Self::VolumeProtection => "persistentvolume-protection-controller",
            Self::AttributesProtection => "volumeattributesclass-protection-controller",
            Self::EphemeralVolume => "ephemeral-volume-controller",
            Self::LocalPath => "local-path-provisioner",
            Self::Disruption => "disruption-controller",
            Self::ServiceLoadBalancer => "service-lb-controller",
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            controllers: Controller::ALL.into(),
            root_ca_pem: None,
            cluster_cidr: None,
            node_cidr_mask_size: 24,
            workers: 5,
            node_monitor_grace_period: Duration::from_secs(40),
            orphaned_pod_quarantine: Duration::from_secs(40),
            terminated_pod_threshold: 12_500,
            max_endpoints_per_slice: 100,
            load_balancer_cidr: None,
        }
    }
}
