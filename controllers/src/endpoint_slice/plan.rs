//! Which EndpointSlices a Service needs, changing as few as possible.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use wherry_client::object_ref::controller_ref;

use crate::pods;
use crate::service_ports::{
    HEADLESS, addresses, hostname, is_headless, ports, protocol, publishes_not_ready, target_port,
};

/// The label that names the slice's service.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that says who looks after a slice.
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Whom it names for the slices of this controller.
pub(super) const MANAGER: &str = "endpointslice-controller.k8s.io";
/// The annotation with the time of the change that the slices reflect.
const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// The label of a node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// What was observed of a service with a selector.
#[derive(Debug)]
pub(super) struct Observed<'a> {
    pub(super) service: &'a Service,
    /// The pods that the service selects.
    pub(super) pods: &'a [Arc<Pod>],
    /// The nodes of these pods, by name.
    pub(super) nodes: &'a HashMap<String, Arc<Node>>,
    /// The slices of the service that this controller manages.
    pub(super) slices: &'a [Arc<EndpointSlice>],
    pub(super) max_endpoints: usize,
}

/// What is to be done.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Plan {
    pub(super) create: Vec<EndpointSlice>,
    pub(super) update: Vec<EndpointSlice>,
    pub(super) delete: Vec<String>,
}

/// Slices are of one address family and one set of ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    family: &'static str,
    ports: Vec<PortKey>,
}

/// A port in an order that makes equal sets equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct PortKey {
    name: String,
    protocol: String,
    port: i32,
    app_protocol: Option<String>,
}

/// Compares the endpoints that there should be with the slices that there are.
pub(super) fn plan(observed: &Observed<'_>) -> Plan {
    let mut wanted: BTreeMap<Group, Vec<Endpoint>> = BTreeMap::new();
    for family in families(observed.service) {
        for pod in observed.pods.iter().filter(|pod| !pods::is_terminal(pod)) {
            let Some(endpoint) = endpoint(observed, pod, family) else { continue };
            if let Some(ports) = resolved_ports(observed.service, pod) {
                wanted.entry(Group { family, ports }).or_default().push(endpoint);
            }
        }
        // A service always has a slice, or nobody could tell "none" from "not yet".
        if !wanted.keys().any(|group| group.family == family) {
            wanted.insert(Group { family, ports: Vec::new() }, Vec::new());
        }
    }
    let mut existing: BTreeMap<Group, Vec<&Arc<EndpointSlice>>> = BTreeMap::new();
    let mut plan = Plan::default();
    for slice in observed.slices {
        match group_of(slice).filter(|group| wanted.contains_key(group)) {
            Some(group) => existing.entry(group).or_default().push(slice),
            None => plan.delete.push(slice.metadata.name.clone().unwrap_or_default()),
        }
    }
    for (group, endpoints) in wanted {
        let slices = existing.remove(&group).unwrap_or_default();
        reconcile(observed, &group, endpoints, &slices, &mut plan);
    }
    plan
}

/// One group: endpoints stay in the slice they are in, new ones fill slices that change anyway, then others, then new
/// slices; slices that become empty go.
fn reconcile(
    observed: &Observed<'_>,
    group: &Group,
    endpoints: Vec<Endpoint>,
    slices: &[&Arc<EndpointSlice>],
    plan: &mut Plan,
) {
    let is_placeholder = endpoints.is_empty();
    let mut missing: BTreeMap<EndpointKey, Endpoint> =
        endpoints.into_iter().map(|endpoint| (endpoint_key(&endpoint), endpoint)).collect();
    let mut kept: Vec<Kept<'_>> = Vec::new();
    for slice in slices {
        let mut kept_endpoints = Vec::new();
        let mut is_changed = false;
        for old in slice.endpoints.iter().flatten() {
            match missing.remove(&endpoint_key(old)) {
                Some(new) => {
                    is_changed |= !is_same_endpoint(old, &new);
                    kept_endpoints.push(new);
                }
                None => is_changed = true,
            }
        }
        kept.push(Kept { slice, endpoints: kept_endpoints, is_changed });
    }
    // First those that are written anyway, the fullest first: that leaves the fewest slices.
    let mut order: Vec<usize> = (0..kept.len()).collect();
    order.sort_by_key(|index| (!kept[*index].is_changed, std::cmp::Reverse(kept[*index].endpoints.len())));
    for index in order {
        let kept = &mut kept[index];
        while kept.endpoints.len() < observed.max_endpoints
            && let Some((_, endpoint)) = missing.pop_first()
        {
            kept.endpoints.push(endpoint);
            kept.is_changed = true;
        }
    }
    let labels = labels(observed.service);
    let mut kept_any = false;
    for kept in kept {
        let may_be_empty = is_placeholder && !kept_any;
        if kept.endpoints.is_empty() && !may_be_empty {
            plan.delete.push(kept.slice.metadata.name.clone().unwrap_or_default());
            continue;
        }
        kept_any = true;
        if kept.is_changed || kept.slice.metadata.labels.as_ref() != Some(&labels) {
            let mut slice = (**kept.slice).clone();
            slice.metadata.labels = Some(labels.clone());
            slice.endpoints = Some(kept.endpoints);
            note_change(observed, &mut slice);
            plan.update.push(slice);
        }
    }
    let mut missing: Vec<_> = missing.into_values().collect();
    while !missing.is_empty() || (is_placeholder && !kept_any) {
        kept_any = true;
        let rest = missing.split_off(missing.len().min(observed.max_endpoints.max(1)));
        plan.create.push(new_slice(observed, group, std::mem::replace(&mut missing, rest), &labels));
    }
}

struct Kept<'a> {
    slice: &'a Arc<EndpointSlice>,
    endpoints: Vec<Endpoint>,
    is_changed: bool,
}

/// What makes an endpoint the same one: its pod and address.
type EndpointKey = (Vec<String>, String);

fn endpoint_key(endpoint: &Endpoint) -> EndpointKey {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone()).unwrap_or_default();
    (endpoint.addresses.clone(), uid)
}

fn is_same_endpoint(old: &Endpoint, new: &Endpoint) -> bool {
    let target = |endpoint: &Endpoint| {
        let target = endpoint.target_ref.clone().unwrap_or_default();
        (target.kind, target.namespace, target.name, target.uid)
    };
    old.conditions == new.conditions
        && old.hostname == new.hostname
        && old.node_name == new.node_name
        && old.zone == new.zone
        && target(old) == target(new)
}

fn families(service: &Service) -> Vec<&'static str> {
    let declared = service.spec.as_ref().and_then(|spec| spec.ip_families.as_deref()).unwrap_or_default();
    let mut families: Vec<_> =
        ["IPv4", "IPv6"].into_iter().filter(|family| declared.iter().any(|d| d == family)).collect();
    if families.is_empty() {
        families.push("IPv4");
    }
    families
}

fn endpoint(observed: &Observed<'_>, pod: &Pod, family: &str) -> Option<Endpoint> {
    let is_of_family = |address: &&&str| address.contains(':') == (family == "IPv6");
    let addresses = addresses(pod);
    let address = addresses.iter().find(is_of_family)?;
    let (serving, terminating) = (pods::is_ready(pod), pods::is_terminating(pod));
    let ready = publishes_not_ready(observed.service) || (serving && !terminating);
    let node_name = Some(pods::node_name(pod)).filter(|name| !name.is_empty());
    let node = node_name.and_then(|name| observed.nodes.get(name));
    Some(Endpoint {
        addresses: vec![(*address).to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(pod, observed.service),
        node_name: node_name.map(str::to_owned),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        zone: node.and_then(|node| node.metadata.labels.as_ref()?.get(ZONE).cloned()),
        ..Endpoint::default()
    })
}

/// The ports that the service has on `pod`. One whose name the pod does not know is left out; when that leaves none, the
/// pod is no endpoint.
fn resolved_ports(service: &Service, pod: &Pod) -> Option<Vec<PortKey>> {
    let mut resolved: Vec<_> = ports(service)
        .iter()
        .filter_map(|port| {
            Some(PortKey {
                name: port.name.clone().unwrap_or_default(),
                protocol: protocol(port).to_owned(),
                port: target_port(pod, port)?,
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    resolved.sort();
    resolved.dedup();
    // A headless service may have no ports at all.
    (!resolved.is_empty() || ports(service).is_empty()).then_some(resolved)
}

fn group_of(slice: &EndpointSlice) -> Option<Group> {
    let family = match slice.address_type.as_str() {
        "IPv4" => "IPv4",
        "IPv6" => "IPv6",
        _ => return None,
    };
    let mut ports: Vec<_> = slice
        .ports
        .iter()
        .flatten()
        .map(|port| PortKey {
            name: port.name.clone().unwrap_or_default(),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            port: port.port.unwrap_or_default(),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    ports.sort();
    Some(Group { family, ports })
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<_, _> = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

fn new_slice(
    observed: &Observed<'_>,
    group: &Group,
    endpoints: Vec<Endpoint>,
    labels: &BTreeMap<String, String>,
) -> EndpointSlice {
    let service = observed.service;
    let ports = group.ports.iter().map(|port| EndpointPort {
        name: Some(port.name.clone()),
        protocol: Some(port.protocol.clone()),
        port: Some(port.port),
        app_protocol: port.app_protocol.clone(),
    });
    let mut slice = EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.metadata.name.as_deref().unwrap_or_default())),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels.clone()),
            owner_references: Some(vec![controller_ref(service)]),
            ..ObjectMeta::default()
        },
        address_type: group.family.to_owned(),
        endpoints: Some(endpoints),
        ports: Some(ports.collect()),
    };
    note_change(observed, &mut slice);
    slice
}

/// Notes when what the slice shows last changed: the youngest readiness among its pods, or the service's creation.
fn note_change(observed: &Observed<'_>, slice: &mut EndpointSlice) {
    let changed = observed.pods.iter().filter_map(|pod| {
        pods::condition(pod, "Ready").and_then(|ready| ready.last_transition_time.as_ref()).map(|time| time.0)
    });
    let created = observed.service.metadata.creation_timestamp.as_ref().map(|time| time.0);
    if let Some(at) = changed.chain(created).max() {
        let annotations = slice.metadata.annotations.get_or_insert_default();
        annotations.insert(LAST_CHANGE.to_owned(), at.to_string());
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
