//! Services and the pods behind them: which pods, which ports, which addresses.

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use wherry_client::{Change, Informer, ObjectKey, Store, WorkQueue};

use crate::pods;

/// The label of what belongs to a headless service.
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";

/// The selector of a service that has one: pods are found by it.
pub(crate) fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let Some(selector) = selector.filter(|selector| !selector.is_empty()) else { return false };
    let labels = pod.metadata.labels.as_ref();
    selector.iter().all(|(key, value)| labels.is_some_and(|labels| labels.get(key) == Some(value)))
}

/// Whether endpoints are made for the service at all.
pub(crate) fn has_selector(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    let selector = spec.and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| !selector.is_empty())
        && spec.and_then(|spec| spec.type_.as_deref()) != Some("ExternalName")
}

/// Whether the service has no address of its own.
pub(crate) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// Whether pods count before they are ready.
pub(crate) fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

/// The service's ports.
pub(crate) fn ports(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default()
}

/// The protocol of a service port.
pub(crate) fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

/// The number that a service port has on `pod`: a named target port is looked up in the pod's containers.
pub(crate) fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let named = |container: &Container| {
        container.ports.iter().flatten().find_map(|candidate| {
            let is_named = candidate.name.as_ref() == Some(name)
                && candidate.protocol.as_deref().unwrap_or("TCP") == protocol(port);
            is_named.then_some(candidate.container_port)
        })
    };
    spec.containers.iter().chain(sidecars).find_map(named)
}

/// The pod's addresses, the primary one first.
pub(crate) fn addresses(pod: &Pod) -> Vec<&str> {
    let Some(status) = &pod.status else { return Vec::new() };
    let mut addresses: Vec<&str> =
        status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).filter(|ip| !ip.is_empty()).collect();
    if let Some(primary) = status.pod_ip.as_deref().filter(|ip| !ip.is_empty())
        && !addresses.contains(&primary)
    {
        addresses.insert(0, primary);
    }
    addresses
}

/// The host name that the pod has under the service's DNS name.
pub(crate) fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let is_of_service = spec.subdomain.is_some()
        && spec.subdomain == service.metadata.name
        && pod.metadata.namespace == service.metadata.namespace;
    spec.hostname.clone().filter(|hostname| is_of_service && !hostname.is_empty())
}

/// Queues a service when it changes, and when a pod does that it selects in a way that endpoints show.
pub(crate) fn queue_services(
    services: &Informer<Service>,
    pods: &Informer<Pod>,
    queue: &WorkQueue<ObjectKey>,
) {
    let own = queue.clone();
    services.subscribe(move |change| {
        if let Change::Updated { old, new } = change
            && old.spec == new.spec
            && old.metadata.labels == new.metadata.labels
            && old.metadata.uid == new.metadata.uid
        {
            return;
        }
        own.add(ObjectKey::of(&**change.object()));
    });
    let (queue, services) = (queue.clone(), services.store().clone());
    pods.subscribe(move |change| match change {
        Change::Updated { old, new } => {
            if shows_differently(old, new) {
                queue_selecting(&services, &queue, new, Some(old));
            }
        }
        Change::Added(pod) | Change::Deleted(pod) => {
            if !addresses(pod).is_empty() {
                queue_selecting(&services, &queue, pod, None);
            }
        }
    });
}

fn queue_selecting(services: &Store<Service>, queue: &WorkQueue<ObjectKey>, pod: &Pod, old: Option<&Pod>) {
    for service in services.list_namespace(pods::namespace(pod)) {
        if selects(&service, pod) || old.is_some_and(|old| selects(&service, old)) {
            queue.add(ObjectKey::of(&*service));
        }
    }
}

/// Whether endpoints made of the two would differ.
fn shows_differently(old: &Pod, new: &Pod) -> bool {
    let hostname = |pod: &Pod| pod.spec.as_ref().map(|spec| (spec.hostname.clone(), spec.subdomain.clone()));
    old.metadata.labels != new.metadata.labels
        || pods::is_terminating(old) != pods::is_terminating(new)
        || pods::is_terminal(old) != pods::is_terminal(new)
        || pods::is_ready(old) != pods::is_ready(new)
        || addresses(old) != addresses(new)
        || pods::node_name(old) != pods::node_name(new)
        || hostname(old) != hostname(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn named_target_ports_are_found_in_containers_and_sidecars_of_the_same_protocol() {
        let pod: Pod = serde_json::from_value(json!({ "spec": {
            "containers": [{ "name": "c", "ports": [
                { "name": "dns", "containerPort": 53, "protocol": "UDP" }, { "name": "web", "containerPort": 8080 },
            ] }],
            "initContainers": [
                { "name": "once", "ports": [{ "name": "late", "containerPort": 1 }] },
                { "name": "proxy", "restartPolicy": "Always", "ports": [{ "name": "mesh", "containerPort": 15000 }] },
            ],
        } }))
        .expect("a pod");
        for (target, protocol, expected) in [
            (json!(null), "TCP", Some(80)),
            (json!(9), "TCP", Some(9)),
            (json!("web"), "TCP", Some(8080)),
            (json!("web"), "UDP", None),
            (json!("dns"), "UDP", Some(53)),
            (json!("mesh"), "TCP", Some(15000)),
            (json!("late"), "TCP", None),
        ] {
            let port =
                serde_json::from_value(json!({ "port": 80, "targetPort": target, "protocol": protocol }));
            assert_eq!(target_port(&pod, &port.expect("a port")), expected, "{target} {protocol}");
        }
    }
}
