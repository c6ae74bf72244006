//! What should be served where: a pure function of Services and EndpointSlices.
//!
//! Source: KEP-752 (EndpointSlice), KEP-1669 (terminating endpoints), KEP-2086 (internal traffic policy).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::{
        core::v1::{ObjectReference, Service, ServicePort},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::Config;

/// The transport of a Service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Where connections arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// The transport.
    pub protocol: Protocol,
    /// The Service's address and port, or the node's address and a node port.
    pub address: SocketAddr,
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "{protocol} {}", self.address)
    }
}

/// Where connections go.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// The Service, for events.
    pub service: ObjectReference,
    /// How long a client stays with its endpoint; `None` without session affinity.
    pub affinity: Option<Duration>,
    /// The endpoints, sorted, none twice, at least one.
    pub endpoints: Vec<SocketAddr>,
}

/// All rules of the node. A frontend without a rule is refused.
pub type Ruleset = BTreeMap<Frontend, Rule>;

/// The default of `sessionAffinityConfig.clientIP.timeoutSeconds`, seconds.
const DEFAULT_AFFINITY_SECONDS: u64 = 10_800;

/// The rules for these Services and slices, as seen from the node of `config`.
pub fn compute(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>], config: &Config) -> Ruleset {
    let mut slices_of: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices {
        let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
        let labels = slice.metadata.labels.as_ref();
        if let Some(service) = labels.and_then(|labels| labels.get("kubernetes.io/service-name")) {
            slices_of.entry((namespace, service)).or_default().push(slice);
        }
    }

    let mut ruleset = Ruleset::new();
    for service in services {
        let key = (
            service.metadata.namespace.as_deref().unwrap_or_default(),
            service.metadata.name.as_deref().unwrap_or_default(),
        );
        if let Some(slices) = slices_of.get(&key) {
            add_service(&mut ruleset, service, slices, config);
        }
    }
    ruleset
}

fn add_service(ruleset: &mut Ruleset, service: &Service, slices: &[&EndpointSlice], config: &Config) {
    let Some(spec) = &service.spec else { return };
    if spec.type_.as_deref() == Some("ExternalName") {
        return;
    }
    let cluster_ips: Vec<IpAddr> = match &spec.cluster_ips {
        Some(ips) if !ips.is_empty() => ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
        _ => spec.cluster_ip.iter().filter_map(|ip| ip.parse().ok()).collect(),
    };
    if cluster_ips.is_empty() {
        return;
    }
    let affinity = affinity(service);
    let node = config.node_name.as_str();
    for port in spec.ports.iter().flatten() {
        let protocol = match port.protocol.as_deref() {
            Some("UDP") => Protocol::Udp,
            Some("TCP") | None => Protocol::Tcp,
            // SCTP has no userspace form here; the field is valid, and simply not served.
            Some(_) => continue,
        };
        let Ok(number) = u16::try_from(port.port) else { continue };
        let all = endpoints(slices, port, None);
        let local = |only: bool| if only { endpoints(slices, port, Some(node)) } else { all.clone() };

        let internal = local(spec.internal_traffic_policy.as_deref() == Some("Local"));
        for ip in &cluster_ips {
            let address = SocketAddr::new(*ip, number);
            add_rule(ruleset, Frontend { protocol, address }, service, affinity, &internal);
        }
        let external = local(spec.external_traffic_policy.as_deref() == Some("Local"));
        if let Some(node_port) =
            port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0)
        {
            for ip in &config.node_port_addresses {
                let address = SocketAddr::new(*ip, node_port);
                add_rule(ruleset, Frontend { protocol, address }, service, affinity, &external);
            }
        }
    }
}

fn add_rule(
    ruleset: &mut Ruleset,
    frontend: Frontend,
    service: &Service,
    affinity: Option<Duration>,
    endpoints: &BTreeSet<SocketAddr>,
) {
    let endpoints: Vec<SocketAddr> = endpoints
        .iter()
        .filter(|endpoint| endpoint.is_ipv4() == frontend.address.is_ipv4())
        .copied()
        .collect();
    if !endpoints.is_empty() {
        let service = wherry_client::object_ref(service);
        ruleset.insert(frontend, Rule { service, affinity, endpoints });
    }
}

fn affinity(service: &Service) -> Option<Duration> {
    let spec = service.spec.as_ref()?;
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let configured = spec
        .session_affinity_config
        .as_ref()
        .and_then(|config| config.client_ip.as_ref())
        .and_then(|client_ip| client_ip.timeout_seconds)
        .and_then(|seconds| u64::try_from(seconds).ok());
    Some(Duration::from_secs(configured.unwrap_or(DEFAULT_AFFINITY_SECONDS)))
}

/// The ready endpoints of a port; where there are none, those that still serve while they terminate.
fn endpoints(slices: &[&EndpointSlice], port: &ServicePort, only_node: Option<&str>) -> BTreeSet<SocketAddr> {
    let mut ready = BTreeSet::new();
    let mut serving = BTreeSet::new();
    let wanted_name = port.name.as_deref().unwrap_or_default();
    for slice in slices {
        let Some(number) = slice_port(slice, wanted_name, port) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            if only_node.is_some_and(|node| endpoint.node_name.as_deref() != Some(node)) {
                continue;
            }
            let conditions = endpoint.conditions.as_ref();
            // Absent means true, except for `terminating`.
            let is_ready = conditions.and_then(|c| c.ready).unwrap_or(true);
            let is_serving = conditions.and_then(|c| c.serving).unwrap_or(is_ready);
            let addresses = endpoint.addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok());
            for address in addresses.map(|ip| SocketAddr::new(ip, number)) {
                if is_ready {
                    ready.insert(address);
                } else if is_serving {
                    serving.insert(address);
                }
            }
        }
    }
    if ready.is_empty() { serving } else { ready }
}

fn slice_port(slice: &EndpointSlice, wanted_name: &str, port: &ServicePort) -> Option<u16> {
    let wanted_protocol = port.protocol.as_deref().unwrap_or("TCP");
    let found = slice.ports.iter().flatten().find(|candidate| {
        candidate.name.as_deref().unwrap_or_default() == wanted_name
            && candidate.protocol.as_deref().unwrap_or("TCP") == wanted_protocol
    })?;
    let number = match (found.port, &port.target_port) {
        (Some(number), _) => number,
        (None, Some(IntOrString::Int(number))) => *number,
        (None, _) => port.port,
    };
    u16::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config { node_name: "n1".to_owned(), node_port_addresses: vec!["127.0.0.1".parse().unwrap()] }
    }

    fn service(spec: &str) -> Arc<Service> {
        let text = format!(r#"{{"metadata":{{"name":"s","namespace":"d"}},"spec":{spec}}}"#);
        Arc::new(serde_json::from_str(&text).unwrap())
    }

    fn slice(ports: &str, endpoints: &str) -> Arc<EndpointSlice> {
        let text = format!(
            r#"{{"addressType":"IPv4","metadata":{{"name":"s-1","namespace":"d","labels":{{"kubernetes.io/service-name":"s"}}}},
                "ports":{ports},"endpoints":{endpoints}}}"#
        );
        Arc::new(serde_json::from_str(&text).unwrap())
    }

    fn printed(ruleset: &Ruleset) -> Vec<String> {
        ruleset
            .iter()
            .map(|(frontend, rule)| {
                let endpoints: Vec<String> = rule.endpoints.iter().map(ToString::to_string).collect();
                format!("{frontend} -> {}", endpoints.join(","))
            })
            .collect()
    }

    #[test]
    fn a_service_is_served_at_its_address_by_its_ready_endpoints() {
        let http = r#"{"clusterIP":"127.96.0.9","clusterIPs":["127.96.0.9"],"ports":[{"port":80,"protocol":"TCP"}]}"#;
        let ports = r#"[{"name":"","port":8080,"protocol":"TCP"}]"#;
        let two = r#"[{"addresses":["127.64.0.2"],"conditions":{"ready":true}},
                      {"addresses":["127.64.0.3"],"conditions":{"ready":false,"serving":true,"terminating":true}}]"#;
        let terminating = r#"[{"addresses":["127.64.0.3"],"conditions":{"ready":false,"serving":true,"terminating":true}}]"#;
        let none = r#"[{"addresses":["127.64.0.3"],"conditions":{"ready":false,"serving":false}}]"#;
        let table: [(&str, &str, &str, &[&str]); 7] = [
            (http, ports, two, &["tcp 127.96.0.9:80 -> 127.64.0.2:8080"]),
            (http, ports, terminating, &["tcp 127.96.0.9:80 -> 127.64.0.3:8080"]),
            (http, ports, none, &[]),
            (http, r#"[{"name":"other","port":1,"protocol":"TCP"}]"#, two, &[]),
            (r#"{"clusterIP":"None","ports":[{"port":80}]}"#, ports, two, &[]),
            (r#"{"type":"ExternalName","externalName":"x.y","ports":[{"port":80}]}"#, ports, two, &[]),
            (
                r#"{"clusterIP":"127.96.0.9","type":"NodePort","ports":[{"port":80,"nodePort":30080,"protocol":"TCP"}]}"#,
                ports,
                two,
                &["tcp 127.0.0.1:30080 -> 127.64.0.2:8080", "tcp 127.96.0.9:80 -> 127.64.0.2:8080"],
            ),
        ];
        for (spec, ports, endpoints, want) in table {
            let got = compute(&[service(spec)], &[slice(ports, endpoints)], &config());
            assert_eq!(printed(&got), want, "{spec} {endpoints}");
        }
    }

    #[test]
    fn a_local_traffic_policy_keeps_to_the_node() {
        let spec = r#"{"clusterIP":"127.96.0.9","internalTrafficPolicy":"Local","ports":[{"port":80}]}"#;
        let endpoints =
            r#"[{"addresses":["127.64.0.2"],"nodeName":"n1"},{"addresses":["127.64.1.2"],"nodeName":"n2"}]"#;
        let got = compute(&[service(spec)], &[slice(r#"[{"port":8080}]"#, endpoints)], &config());
        assert_eq!(printed(&got), ["tcp 127.96.0.9:80 -> 127.64.0.2:8080"]);
    }
}
