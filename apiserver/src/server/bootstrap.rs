//! The objects that a new cluster starts with, and those that every start brings up to date.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use futures::StreamExt;
use serde_json::{Value, json};
use wherry_machinery::metadata;
use wherry_machinery::status::Reason;

use crate::auth::bootstrap as rbac;
use crate::auth::rbac::{Kind as RbacKind, aggregation};
use crate::identity::Identity;
use crate::kinds::ServiceRanges;
use crate::registry::{Kind, ListVersion, Refusal, Registry, Target};

/// Creations at a time: they share the store's commits.
const CONCURRENT: usize = 64;
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];
/// The RuntimeClasses that choose the WebAssembly and the container runtime, and their handlers; every cluster has them.
const RUNTIME_CLASSES: [&str; 2] = ["runc", "wasmtime"];
const RBAC: &str = "rbac.authorization.k8s.io";

/// Makes what is missing and brings up to date what may be.
///
/// # Errors
/// When the store fails, or refuses what every cluster needs.
pub(super) async fn run(registry: &Registry, own: Option<&OwnService>) -> Result<(), Refusal> {
    registry.refresh().await?;
    let namespaces = NAMESPACES.iter().map(|name| json!({"metadata": {"name": name}})).collect();
    create_missing(registry, ("", "v1", "namespaces"), namespaces).await?;
    if let Some(own) = own {
        own.publish(registry).await?;
    }
    let classes = [
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ];
    let classes = classes
        .iter()
        .map(|(name, value, description)| {
            json!({
                "metadata": {"name": name},
                "value": value,
                "description": description,
                "preemptionPolicy": "PreemptLowerPriority",
            })
        })
        .collect();
    create_missing(registry, ("scheduling.k8s.io", "v1", "priorityclasses"), classes).await?;
    let runtimes = RUNTIME_CLASSES.iter().map(|name| json!({"metadata": {"name": name}, "handler": name}));
    create_missing(registry, ("node.k8s.io", "v1", "runtimeclasses"), runtimes.collect()).await?;
    storage_class(registry).await?;
    for kind in [RbacKind::ClusterRole, RbacKind::Role, RbacKind::ClusterRoleBinding, RbacKind::RoleBinding] {
        policies(registry, kind).await?;
    }
    aggregate(registry).await
}

/// A cluster without any class of storage gets one. Where an administrator made others and removed ours, it stays removed.
async fn storage_class(registry: &Registry) -> Result<(), Refusal> {
    let names = ("storage.k8s.io", "v1", "storageclasses");
    let Some(kind) = registry.kind(names.0, names.1, names.2) else { return Ok(()) };
    if kind.cacher.snapshot(None, 0).entries.is_empty() {
        create_missing(registry, names, vec![crate::kinds::storage_class::local_path()]).await?;
    }
    Ok(())
}

/// The Service `kubernetes`, by which pods find this server.
#[derive(Debug)]
pub(super) struct OwnService {
    cluster_ip: IpAddr,
    address: SocketAddr,
}

impl OwnService {
    /// The Service with the first address of the range; `None` for a server whose address is a name.
    pub(super) fn new(services: &ServiceRanges, external_address: &str) -> Option<Self> {
        Some(Self {
            cluster_ip: services.cluster_ips.hosts().next()?,
            address: external_address.parse().ok()?,
        })
    }

    /// Makes the Service, and points its endpoints to where this server is now.
    async fn publish(&self, registry: &Registry) -> Result<(), Refusal> {
        let (ip, port) = (self.address.ip(), self.address.port());
        let family = if self.cluster_ip.is_ipv4() { "IPv4" } else { "IPv6" };
        let service = json!({
            "metadata": {
                "name": "kubernetes", "namespace": "default",
                "labels": {"component": "apiserver", "provider": "kubernetes"},
            },
            "spec": {
                "type": "ClusterIP", "clusterIP": self.cluster_ip, "clusterIPs": [self.cluster_ip],
                "ipFamilies": [family], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
                "internalTrafficPolicy": "Cluster",
                "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}],
            },
        });
        create_missing(registry, ("", "v1", "services"), vec![service]).await?;
        let ports = json!([{"name": "https", "protocol": "TCP", "port": port}]);
        let endpoints = json!({
            "metadata": {
                "name": "kubernetes", "namespace": "default",
                "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
            },
            "subsets": [{"addresses": [{"ip": ip}], "ports": ports}],
        });
        let slice = json!({
            "metadata": {
                "name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": if ip.is_ipv4() { "IPv4" } else { "IPv6" },
            "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}],
            "ports": ports,
        });
        replace(registry, ("", "v1", "endpoints"), endpoints, &["subsets"]).await?;
        replace(registry, ("discovery.k8s.io", "v1", "endpointslices"), slice, &["endpoints", "ports"]).await
    }
}

/// Creates an object, or gives it these fields.
pub(super) async fn replace(
    registry: &Registry,
    (group, version, resource): (&str, &str, &str),
    object: Value,
    fields: &[&str],
) -> Result<(), Refusal> {
    let Some(kind) = registry.kind(group, version, resource) else { return Ok(()) };
    let (namespace, name) = (metadata::namespace(&object).to_owned(), metadata::name(&object).to_owned());
    if registry.cached(kind, &namespace, &name).is_none() {
        return create(registry, kind, object).await;
    }
    let transform = |old: &Value| {
        let mut new = old.clone();
        for &field in fields {
            new[field] = object[field].clone();
        }
        Ok(new)
    };
    registry
        .update(kind, &registry.context(identity()), Target::object(&namespace, &name), &transform)
        .await?;
    Ok(())
}

fn identity() -> Identity {
    Identity::admin("system:apiserver")
}

/// Creates those objects of a kind that are not there; nothing if the kind is not served.
pub(super) async fn create_missing(
    registry: &Registry,
    (group, version, resource): (&str, &str, &str),
    objects: Vec<Value>,
) -> Result<(), Refusal> {
    let Some(kind) = registry.kind(group, version, resource) else { return Ok(()) };
    let missing: Vec<Value> = objects
        .into_iter()
        .filter(|object| registry.cached(kind, metadata::namespace(object), metadata::name(object)).is_none())
        .collect();
    let results: Vec<Result<(), Refusal>> = futures::stream::iter(missing)
        .map(|object| create(registry, kind, object))
        .buffer_unordered(CONCURRENT)
        .collect()
        .await;
    results.into_iter().collect()
}

async fn create(registry: &Registry, kind: &Kind, mut object: Value) -> Result<(), Refusal> {
    object["kind"] = kind.resource.kind.into();
    object["apiVersion"] = kind.resource.api_version().into();
    let namespace = metadata::namespace(&object).to_owned();
    match registry.create(kind, &registry.context(identity()), &namespace, object).await {
        Err(refusal) if refusal.reason != Reason::AlreadyExists.as_str() => Err(refusal),
        _ => Ok(()),
    }
}

/// Roles or bindings: missing ones are made, those that an older release made get what is new.
async fn policies(registry: &Registry, kind: RbacKind) -> Result<(), Refusal> {
    let names = (RBAC, "v1", kind.resource());
    let Some(served) = registry.kind(names.0, names.1, names.2) else { return Ok(()) };
    let wanted = rbac::objects(kind);
    for object in &wanted {
        let (namespace, name) = (metadata::namespace(object), metadata::name(object));
        let Some(entry) = registry.cached(served, namespace, name) else { continue };
        if rbac::reconciled(object, &entry.value()).is_none() {
            continue;
        }
        let transform = |old: &Value| Ok(rbac::reconciled(object, old).unwrap_or_else(|| old.clone()));
        registry
            .update(served, &registry.context(identity()), Target::object(namespace, name), &transform)
            .await?;
    }
    create_missing(registry, names, wanted).await
}

/// Gives aggregated roles the rules of those they select, until nothing changes.
///
/// # Errors
/// When the store fails.
pub(super) async fn aggregate(registry: &Registry) -> Result<(), Refusal> {
    let Some(kind) = registry.kind(RBAC, "v1", RbacKind::ClusterRole.resource()) else { return Ok(()) };
    // Aggregates of aggregates settle level by level; a cycle would never grow beyond the union of its rules.
    const MAX_LEVELS: usize = 16;
    for _ in 0..MAX_LEVELS {
        let snapshot = registry.snapshot(kind, None, ListVersion::Latest).await?;
        let roles: BTreeMap<String, Value> =
            snapshot.entries.iter().map(|entry| (entry.name().to_owned(), entry.value())).collect();
        let stale = aggregation::stale_roles(&roles);
        if stale.is_empty() {
            return Ok(());
        }
        for (name, rules) in stale {
            let transform = |old: &Value| {
                let mut new = old.clone();
                new["rules"] = rules.clone();
                Ok(new)
            };
            let context = registry.context(identity());
            match registry.update(kind, &context, Target::object("", &name), &transform).await {
                Err(refusal) if refusal.reason == Reason::NotFound.as_str() => {}
                done => {
                    done?;
                }
            }
        }
    }
    Ok(())
}
