//! The rules of one Service, and the memory that spares computing those that did not change.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use k8s_openapi::api::{
    core::v1::{Service, ServicePort, ServiceSpec},
    discovery::v1::EndpointSlice,
};

use super::{
    Family, HealthCheck, NodeInfo, PortName, PortRule, Protocol, Ruleset, TrafficPolicy,
    endpoints::{self, local_ready_count},
};

/// The default of `sessionAffinityConfig.clientIP.timeoutSeconds`, seconds.
const DEFAULT_AFFINITY_SECONDS: u64 = 10_800;

/// Namespace and name.
type Key = (Arc<str>, Arc<str>);

/// What a Service contributes to the ruleset.
#[derive(Debug, Clone, Default)]
struct Plan {
    ports: Vec<(PortName, Arc<PortRule>)>,
    health_check: Option<(u16, HealthCheck)>,
}

/// What a plan was computed from; objects that are the same pointers are the same objects.
struct Remembered {
    service: Arc<Service>,
    slices: Vec<Arc<EndpointSlice>>,
    plan: Plan,
}

/// Computes rulesets; remembers the last, so that only Services which changed are computed again. The result is that of
/// [`super::compute`], whatever came before.
#[derive(Default)]
pub struct Planner {
    node: NodeInfo,
    remembered: HashMap<Key, Remembered>,
}

impl Planner {
    /// The rules for these Services and slices, as seen from `node`.
    pub fn plan(
        &mut self,
        services: &[Arc<Service>],
        slices: &[Arc<EndpointSlice>],
        node: &NodeInfo,
    ) -> Ruleset {
        if self.node != *node {
            self.remembered.clear();
            self.node = node.clone();
        }
        let mut slices_of: HashMap<(&str, &str), Vec<&Arc<EndpointSlice>>> = HashMap::new();
        for slice in slices {
            let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
            let labels = slice.metadata.labels.as_ref();
            if let Some(service) = labels.and_then(|labels| labels.get("kubernetes.io/service-name")) {
                slices_of.entry((namespace, service)).or_default().push(slice);
            }
        }

        let mut ruleset = Ruleset::default();
        let mut remembered = HashMap::with_capacity(services.len());
        for service in services {
            let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
            let name = service.metadata.name.as_deref().unwrap_or_default();
            let mut slices = slices_of.remove(&(namespace, name)).unwrap_or_default();
            slices.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
            let key: Key = (namespace.into(), name.into());
            let known = self.remembered.remove(&key).filter(|known| {
                Arc::ptr_eq(&known.service, service)
                    && known.slices.len() == slices.len()
                    && known.slices.iter().zip(&slices).all(|(old, new)| Arc::ptr_eq(old, new))
            });
            let entry = known.unwrap_or_else(|| {
                let refs: Vec<&EndpointSlice> = slices.iter().map(|slice| slice.as_ref()).collect();
                Remembered {
                    service: Arc::clone(service),
                    plan: plan_service(&key, service, &refs, node),
                    slices: slices.into_iter().cloned().collect(),
                }
            });
            ruleset.ports.extend(entry.plan.ports.iter().cloned());
            ruleset.health_checks.extend(entry.plan.health_check.clone());
            remembered.insert(key, entry);
        }
        self.remembered = remembered;
        ruleset
    }
}

fn plan_service(key: &Key, service: &Service, slices: &[&EndpointSlice], node: &NodeInfo) -> Plan {
    let Some(spec) = &service.spec else { return Plan::default() };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Plan::default();
    }
    let mut cluster_ips: BTreeMap<Family, IpAddr> = BTreeMap::new();
    let listed = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    for ip in listed.filter_map(|ip| ip.parse::<IpAddr>().ok()) {
        cluster_ips.entry(Family::of(ip)).or_insert(ip);
    }
    let mut plan = Plan::default();
    for port in spec.ports.iter().flatten() {
        for (family, cluster_ip) in &cluster_ips {
            let planned = plan_port(key, service, spec, port, *cluster_ip, slices, node, *family);
            plan.ports.extend(planned.map(|(name, rule)| (name, Arc::new(rule))));
        }
    }
    if !plan.ports.is_empty()
        && spec.type_.as_deref() == Some("LoadBalancer")
        && policy(spec.external_traffic_policy.as_deref()) == TrafficPolicy::Local
        && let Some(port) = spec.health_check_node_port.and_then(node_port)
    {
        let (namespace, service) = key.clone();
        let local_endpoints = local_ready_count(slices, node);
        plan.health_check = Some((port, HealthCheck { namespace, service, local_endpoints }));
    }
    plan
}

#[expect(clippy::too_many_arguments, reason = "one call, from the loop over ports and families")]
fn plan_port(
    key: &Key,
    service: &Service,
    spec: &ServiceSpec,
    port: &ServicePort,
    cluster_ip: IpAddr,
    slices: &[&EndpointSlice],
    node: &NodeInfo,
    family: Family,
) -> Option<(PortName, PortRule)> {
    let protocol = match port.protocol.as_deref() {
        Some("UDP") => Protocol::Udp,
        Some("TCP") | None => Protocol::Tcp,
        // SCTP: the field is valid, and simply not served.
        Some(_) => return None,
    };
    let number = u16::try_from(port.port).ok()?;
    let of_family = |ips: &mut dyn Iterator<Item = &String>| -> BTreeSet<IpAddr> {
        ips.filter_map(|ip| ip.parse().ok()).filter(|ip| Family::of(*ip) == family).collect()
    };
    let is_load_balancer = spec.type_.as_deref() == Some("LoadBalancer");
    let ingress = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let mut ingress = ingress
        .iter()
        .flat_map(|balancer| balancer.ingress.iter().flatten())
        .filter(|point| is_load_balancer && point.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|point| point.ip.as_ref());
    let source_ranges: Vec<IpNet> = spec
        .load_balancer_source_ranges
        .iter()
        .flatten()
        .filter_map(|range| range.trim().parse().ok())
        .collect();
    let source_ranges =
        spec.load_balancer_source_ranges.as_ref().filter(|ranges| !ranges.is_empty()).map(|_| {
            source_ranges.into_iter().filter(|range| Family::of(range.addr()) == family).collect::<Vec<_>>()
        });
    let endpoints = endpoints::of_port(slices, port, family, node);
    let rule = PortRule {
        service: wherry_client::object_ref(service),
        port: number,
        cluster_ip,
        external_ips: of_family(&mut spec.external_ips.iter().flatten()),
        load_balancer_ips: of_family(&mut ingress),
        source_ranges,
        node_port: port.node_port.and_then(node_port),
        affinity: affinity(spec),
        internal: policy(spec.internal_traffic_policy.as_deref()),
        external: policy(spec.external_traffic_policy.as_deref()),
        cluster_endpoints: endpoints.cluster,
        local_endpoints: endpoints.local,
        has_endpoints: endpoints.has_any,
    };
    let (namespace, service) = key.clone();
    let port = port.name.as_deref().unwrap_or_default().into();
    Some((PortName { namespace, service, port, protocol, family }, rule))
}

fn node_port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number != 0)
}

fn policy(text: Option<&str>) -> TrafficPolicy {
    if text == Some("Local") { TrafficPolicy::Local } else { TrafficPolicy::Cluster }
}

fn affinity(spec: &ServiceSpec) -> Option<Duration> {
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
