//! The Endpoints object of a Service: addresses grouped by the ports they have.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::pods;
use crate::service_ports::{
    HEADLESS, addresses, hostname, is_headless, ports, protocol, publishes_not_ready, target_port,
};

/// Who looks after the object.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// Whom it names.
const MANAGER: &str = "endpoint-controller";
/// Says that addresses were left out.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// How many addresses one object has at most.
const MAX_ADDRESSES: usize = 1000;

/// What is to be done about the object.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Plan {
    Nothing,
    Create(Endpoints),
    Update(Endpoints),
}

/// A port as part of a group's identity.
type PortKey = (String, String, i32, Option<String>);

/// Compares what there should be with what there is.
pub(super) fn plan(service: &Service, pods: &[Arc<Pod>], existing: Option<&Endpoints>) -> Plan {
    let (subsets, is_over_capacity) = truncated(subsets(service, pods));
    let subsets = Some(subsets).filter(|subsets| !subsets.is_empty());
    let labels = labels(service);
    let mut wanted = existing.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        subsets: None,
    });
    wanted.metadata.labels = Some(labels);
    wanted.subsets = subsets;
    if is_over_capacity {
        let annotations = wanted.metadata.annotations.get_or_insert_default();
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else if let Some(annotations) = &mut wanted.metadata.annotations {
        annotations.remove(OVER_CAPACITY);
    }
    match existing {
        None => Plan::Create(wanted),
        Some(existing) if is_same(existing, &wanted) => Plan::Nothing,
        Some(_) => Plan::Update(wanted),
    }
}

fn is_same(existing: &Endpoints, wanted: &Endpoints) -> bool {
    let annotations = |endpoints: &Endpoints| endpoints.metadata.annotations.clone().unwrap_or_default();
    existing.metadata.labels == wanted.metadata.labels
        && annotations(existing) == annotations(wanted)
        && existing.subsets.as_deref().unwrap_or_default() == wanted.subsets.as_deref().unwrap_or_default()
}

#[derive(Default)]
struct Addresses {
    ready: Vec<EndpointAddress>,
    not_ready: Vec<EndpointAddress>,
}

fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    let publishes_not_ready = publishes_not_ready(service);
    let is_ipv6 = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ip_families.as_ref()?.first())
        .is_some_and(|family| family == "IPv6");
    let mut groups: BTreeMap<Vec<PortKey>, Addresses> = BTreeMap::new();
    for pod in pods {
        if pods::is_terminal(pod) || (pods::is_terminating(pod) && !publishes_not_ready) {
            continue;
        }
        let found = addresses(pod);
        let Some(ip) = found.iter().find(|ip| ip.contains(':') == is_ipv6) else { continue };
        let mut resolved: Vec<PortKey> = ports(service)
            .iter()
            .filter_map(|port| {
                let name = port.name.clone().unwrap_or_default();
                Some((name, protocol(port).to_owned(), target_port(pod, port)?, port.app_protocol.clone()))
            })
            .collect();
        if resolved.is_empty() && !(ports(service).is_empty() && is_headless(service)) {
            continue;
        }
        resolved.sort();
        resolved.dedup();
        let group = groups.entry(resolved).or_default();
        let address = address(service, pod, ip);
        if publishes_not_ready || pods::is_ready(pod) {
            group.ready.push(address);
        } else {
            group.not_ready.push(address);
        }
    }
    groups.into_iter().map(|(ports, addresses)| subset(ports, addresses)).collect()
}

fn address(service: &Service, pod: &Pod, ip: &str) -> EndpointAddress {
    EndpointAddress {
        ip: ip.to_owned(),
        hostname: hostname(pod, service),
        node_name: Some(pods::node_name(pod).to_owned()).filter(|name| !name.is_empty()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
    }
}

fn subset(ports: Vec<PortKey>, addresses: Addresses) -> EndpointSubset {
    let sorted = |mut addresses: Vec<EndpointAddress>| {
        addresses.sort_by(|a, b| a.ip.cmp(&b.ip));
        Some(addresses).filter(|addresses| !addresses.is_empty())
    };
    let ports: Vec<_> = ports
        .into_iter()
        .map(|(name, protocol, port, app_protocol)| EndpointPort {
            name: Some(name).filter(|name| !name.is_empty()),
            protocol: Some(protocol),
            port,
            app_protocol,
        })
        .collect();
    EndpointSubset {
        addresses: sorted(addresses.ready),
        not_ready_addresses: sorted(addresses.not_ready),
        ports: Some(ports).filter(|ports| !ports.is_empty()),
    }
}

/// Leaves out what is too much, not-ready addresses first.
fn truncated(mut subsets: Vec<EndpointSubset>) -> (Vec<EndpointSubset>, bool) {
    let count = |addresses: &Option<Vec<EndpointAddress>>| addresses.as_ref().map_or(0, Vec::len);
    let ready: usize = subsets.iter().map(|subset| count(&subset.addresses)).sum();
    let all: usize = ready + subsets.iter().map(|subset| count(&subset.not_ready_addresses)).sum::<usize>();
    if all <= MAX_ADDRESSES {
        return (subsets, false);
    }
    let (mut room_ready, mut room_other) = (MAX_ADDRESSES, MAX_ADDRESSES.saturating_sub(ready));
    for subset in &mut subsets {
        for (addresses, room) in
            [(&mut subset.addresses, &mut room_ready), (&mut subset.not_ready_addresses, &mut room_other)]
        {
            if let Some(addresses) = addresses {
                addresses.truncate(*room);
                *room -= addresses.len();
            }
        }
        subset.addresses = subset.addresses.take().filter(|addresses| !addresses.is_empty());
        subset.not_ready_addresses =
            subset.not_ready_addresses.take().filter(|addresses| !addresses.is_empty());
    }
    subsets.retain(|subset| subset.addresses.is_some() || subset.not_ready_addresses.is_some());
    (subsets, true)
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(number: usize, port: i32, ready: &str) -> Arc<Pod> {
        let pod = json!({
            "metadata": { "name": format!("p{number}"), "namespace": "shop", "uid": format!("u{number}") },
            "spec": { "nodeName": "n", "containers": [{ "name": "c", "ports": [{ "name": "web", "containerPort": port }] }] },
            "status": { "phase": "Running", "podIP": format!("10.0.{}.{}", number / 250, number % 250),
                "conditions": [{ "type": "Ready", "status": ready }] },
        });
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    fn service() -> Service {
        serde_json::from_value(json!({
            "metadata": { "name": "web", "namespace": "shop" },
            "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": "web" }] },
        }))
        .expect("a service")
    }

    #[test]
    fn addresses_are_grouped_by_ports_and_readiness() {
        let pods = [pod(2, 8080, "True"), pod(1, 8080, "True"), pod(3, 8080, "False"), pod(4, 9090, "True")];
        let Plan::Create(endpoints) = plan(&service(), &pods, None) else { panic!("it is created") };
        let ips = |addresses: &Option<Vec<EndpointAddress>>| {
            addresses.iter().flatten().map(|address| address.ip.clone()).collect::<Vec<_>>()
        };
        let subsets = endpoints.subsets.clone().expect("subsets");
        assert_eq!(ips(&subsets[0].addresses), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(ips(&subsets[0].not_ready_addresses), ["10.0.0.3"]);
        assert_eq!(ips(&subsets[1].addresses), ["10.0.0.4"]);
        assert_eq!(json!(subsets[1].ports), json!([{ "port": 9090, "protocol": "TCP" }]));
        assert_eq!(plan(&service(), &pods, Some(&endpoints)), Plan::Nothing);
        assert!(matches!(plan(&service(), &pods[..1], Some(&endpoints)), Plan::Update(_)));
    }

    #[test]
    fn a_service_without_pods_has_empty_endpoints() {
        let Plan::Create(endpoints) = plan(&service(), &[], None) else { panic!("it is created") };
        assert_eq!(endpoints.subsets, None);
    }

    #[test]
    fn too_many_addresses_are_cut_and_marked() {
        let pods: Vec<_> =
            (0..1200).map(|number| pod(number, 8080, if number < 900 { "True" } else { "False" })).collect();
        let Plan::Create(endpoints) = plan(&service(), &pods, None) else { panic!("it is created") };
        let subset = &endpoints.subsets.as_ref().expect("subsets")[0];
        let counts =
            (subset.addresses.as_ref().map(Vec::len), subset.not_ready_addresses.as_ref().map(Vec::len));
        assert_eq!(counts, (Some(900), Some(100)));
        let annotation = endpoints.metadata.annotations.as_ref().and_then(|all| all.get(OVER_CAPACITY));
        assert_eq!(annotation.map(String::as_str), Some("truncated"));
    }
}
