//! The Service `kube-dns`, by which pods find the cluster's DNS.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::bootstrap::{create_missing, replace};
use crate::kinds::ServiceRanges;
use crate::registry::{Refusal, Registry};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-dns";
/// The port of DNS. Source: RFC 1035, 4.2.
const PORT: u16 = 53;
/// The Service has this address of the range, counted from its network's. Source: kubeadm, `GetDNSIP`.
const ADDRESS_NUMBER: usize = 10;

/// The address of cluster DNS in a range of Service addresses; `None` if the range is too small.
fn service_ip(services: &ServiceRanges) -> Option<IpAddr> {
    // The first host is the network's address and one.
    services.cluster_ips.hosts().nth(ADDRESS_NUMBER - 1)
}

/// Makes the Service, and points its endpoints to where the server is now. A cluster that has a Service `kube-dns` of its
/// own, which selects pods, keeps it; and no cluster fails for want of one.
pub(super) async fn publish(registry: &Registry, services: &ServiceRanges, endpoint: SocketAddr) {
    let Some(ip) = service_ip(services) else {
        tracing::warn!(range = %services.cluster_ips, "the range of Services is too small for one of cluster DNS");
        return;
    };
    if let Err(refusal) = try_publish(registry, ip, endpoint).await {
        tracing::warn!(%ip, reason = refusal.message, "there is no Service {NAMESPACE}/{NAME}");
    }
}

async fn try_publish(registry: &Registry, ip: IpAddr, endpoint: SocketAddr) -> Result<(), Refusal> {
    let services = ("", "v1", "services");
    create_missing(registry, services, vec![service(ip)]).await?;
    let Some(kind) = registry.kind(services.0, services.1, services.2) else { return Ok(()) };
    let current = registry.cached(kind, NAMESPACE, NAME).map(|entry| entry.value());
    if current.as_ref().is_some_and(selects_pods) {
        return Ok(());
    }
    let [endpoints, slice] = endpoints(endpoint);
    replace(registry, ("", "v1", "endpoints"), endpoints, &["subsets"]).await?;
    replace(registry, ("discovery.k8s.io", "v1", "endpointslices"), slice, &["endpoints", "ports"]).await
}

fn selects_pods(service: &Value) -> bool {
    service.pointer("/spec/selector").and_then(Value::as_object).is_some_and(|selector| !selector.is_empty())
}

fn service(ip: IpAddr) -> Value {
    let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
    json!({
        "metadata": {
            "name": NAME, "namespace": NAMESPACE,
            "labels": {
                "k8s-app": NAME, "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "Wherry",
            },
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip],
            "ipFamilies": [family], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
            "internalTrafficPolicy": "Cluster",
            "ports": [
                {"name": "dns", "protocol": "UDP", "port": PORT, "targetPort": PORT},
                {"name": "dns-tcp", "protocol": "TCP", "port": PORT, "targetPort": PORT},
            ],
        },
    })
}

fn endpoints(endpoint: SocketAddr) -> [Value; 2] {
    let (ip, port) = (endpoint.ip(), endpoint.port());
    let ports = json!([
        {"name": "dns", "protocol": "UDP", "port": port},
        {"name": "dns-tcp", "protocol": "TCP", "port": port},
    ]);
    let endpoints = json!({
        "metadata": {
            "name": NAME, "namespace": NAMESPACE, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{"addresses": [{"ip": ip}], "ports": ports}],
    });
    let slice = json!({
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": NAME}},
        "addressType": if ip.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [ip], "conditions": {"ready": true, "serving": true, "terminating": false}}],
        "ports": ports,
    });
    [endpoints, slice]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_has_the_tenth_address_of_the_range() {
        for (range, expected) in [
            ("10.96.0.0/12", Some("10.96.0.10")),
            ("127.96.0.0/16", Some("127.96.0.10")),
            ("10.0.0.16/28", Some("10.0.0.26")),
            ("10.0.0.0/30", None),
        ] {
            let ranges = ServiceRanges { cluster_ips: range.parse().unwrap(), ..ServiceRanges::default() };
            assert_eq!(service_ip(&ranges).map(|ip| ip.to_string()).as_deref(), expected, "{range}");
        }
    }

    #[test]
    fn a_service_that_selects_pods_is_somebody_elses() {
        assert!(!selects_pods(&service(IpAddr::from([10, 96, 0, 10]))));
        assert!(!selects_pods(&json!({"spec": {"selector": {}}})));
        assert!(selects_pods(&json!({"spec": {"selector": {"k8s-app": "kube-dns"}}})));
    }
}
