//! Hands out cluster IPs and node ports.
//!
//! What is in use is noted in memory: adopted from the stored Services when the server starts, reserved before a commit and
//! released after one. Guarantees: within one server no two Services ever have the same IP or node port, however many are
//! written at once. Source: `k8s.io/kubernetes/pkg/registry/core/service`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use ipnet::IpNet;
use rand::Rng;
use serde_json::{Value, json};
use wherry_machinery::field::{Error, Path};
use wherry_machinery::names;
use wherry_machinery::status::Status;

use super::range::{NumberRange, Refused, static_band};
use super::validation::is_v6;
use super::{HEADLESS, is_headless, needs_cluster_ip, needs_health_check, needs_node_ports};
use crate::kinds::json::{integer, is_zero, list, map_at, set, text};
use crate::registry::Refusal;
use crate::registry::context::Context;
use crate::registry::hooks::{Hooks, Reservation};

/// The ranges that Services draw from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRanges {
    /// The network of cluster IPs; its first address is that of the Service `kubernetes`.
    pub cluster_ips: IpNet,
    /// The ports that nodes open for Services.
    pub node_ports: Range<u16>,
}

impl Default for ServiceRanges {
    fn default() -> Self {
        let network = ipnet::Ipv4Net::new_assert(Ipv4Addr::new(127, 96, 0, 0), 16);
        Self { cluster_ips: IpNet::V4(network), node_ports: 30_000..32_768 }
    }
}

/// What is in use.
#[derive(Debug)]
struct Taken {
    cluster_ips: NumberRange,
    node_ports: NumberRange,
}

/// One thing that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Grant {
    ClusterIp(u64),
    NodePort(u64),
}

/// Hands out cluster IPs and node ports around the commits of Services.
#[derive(Debug)]
pub(crate) struct ServiceAllocator {
    ranges: ServiceRanges,
    /// The first address of the range, from which positions are counted.
    base: u128,
    taken: Arc<Mutex<Taken>>,
}

impl ServiceAllocator {
    /// Everything free but the addresses that are no Service's: the network's own and, with IPv4, the broadcast address.
    pub(crate) fn new(ranges: ServiceRanges) -> Self {
        /// Addresses that are handed out of a large network; enough for any cluster.
        const MAX_ADDRESSES: u64 = 1 << 20;
        let host_bits = u32::from(ranges.cluster_ips.max_prefix_len() - ranges.cluster_ips.prefix_len());
        let size = 1u64.checked_shl(host_bits).unwrap_or(MAX_ADDRESSES).min(MAX_ADDRESSES);
        let is_v4 = matches!(ranges.cluster_ips, IpNet::V4(_));
        let end = if is_v4 && size > 2 { size - 1 } else { size };
        let start = if size > 1 { 1 } else { 0 };
        let cluster_ips = NumberRange::new(start..end, static_band(end - start));
        let ports = u64::from(ranges.node_ports.start)..u64::from(ranges.node_ports.end);
        let port_band = static_band(ports.end - ports.start).min(128);
        let node_ports = NumberRange::new(ports, port_band);
        let base = number(ranges.cluster_ips.network());
        Self { ranges, base, taken: Arc::new(Mutex::new(Taken { cluster_ips, node_ports })) }
    }

    fn address(&self, position: u64) -> IpAddr {
        let number = self.base + u128::from(position);
        match self.ranges.cluster_ips {
            // The range is one of IPv4 addresses, so the number has 32 bits.
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
        }
    }

    fn position(&self, address: &str) -> Option<u64> {
        let address = names::parse_ip(address)?;
        if !self.ranges.cluster_ips.contains(&address) {
            return None;
        }
        u64::try_from(number(address) - self.base).ok()
    }

    fn family(&self) -> &'static str {
        if matches!(self.ranges.cluster_ips, IpNet::V4(_)) { "IPv4" } else { "IPv6" }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Taken) -> T) -> T {
        change(&mut self.taken.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What a Service holds.
    fn holdings(&self, spec: &Value) -> BTreeSet<Grant> {
        let ips =
            list(spec, "/clusterIPs").iter().filter_map(Value::as_str).filter_map(|ip| self.position(ip));
        let ports = list(spec, "/ports").iter().map(|port| integer(port, "/nodePort"));
        let health = std::iter::once(integer(spec, "/healthCheckNodePort"));
        let ports = ports.chain(health).filter_map(|port| u64::try_from(port).ok()).filter(|port| *port != 0);
        ips.map(Grant::ClusterIp).chain(ports.map(Grant::NodePort)).collect()
    }

    fn release(&self, grants: impl IntoIterator<Item = Grant>) {
        self.with(|taken| release(taken, grants));
    }

    /// Completes a Service's spec; what was newly taken for it. After an error nothing stays taken.
    fn allocate(&self, service: &mut Value, old: Option<&Value>) -> Result<Vec<Grant>, Refusal> {
        let name = text(service, "/metadata/name").to_owned();
        let held = old.and_then(|old| old.get("spec")).map(|spec| self.holdings(spec)).unwrap_or_default();
        let Some(spec) = map_at(service, "spec") else { return Ok(Vec::new()) };
        if let Some(error) = self.default_families(spec) {
            return Err(invalid(&name, error));
        }
        let start: u64 = rand::rng().random();
        self.with(|taken| {
            let mut work = Work { ranges: &self.ranges, taken, held: &held, grants: Vec::new(), start };
            let done = self
                .take_ip(spec, &mut work)
                .and_then(|()| work.ports(spec))
                .and_then(|()| work.health(spec));
            let grants = std::mem::take(&mut work.grants);
            match done {
                Ok(()) => Ok(grants),
                Err(failure) => {
                    release(work.taken, grants);
                    Err(match failure {
                        Failure::Field(error) => invalid(&name, error),
                        Failure::Exhausted(what) => Box::new(Status::internal(what)),
                    })
                }
            }
        })
    }

    fn take_ip(&self, spec: &mut Value, work: &mut Work<'_>) -> Result<(), Failure> {
        if !needs_cluster_ip(spec) || is_headless(spec) {
            return Ok(());
        }
        let ips: Vec<String> =
            list(spec, "/clusterIPs").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        if ips.is_empty() {
            let full = || Failure::Exhausted("failed to allocate a serviceIP: range is full");
            let position = work.taken.cluster_ips.take_any(work.start).ok_or_else(full)?;
            work.grants.push(Grant::ClusterIp(position));
            let address = self.address(position).to_string();
            set(spec, "clusterIP", address.clone());
            set(spec, "clusterIPs", json!([address]));
            return Ok(());
        }
        for ip in &ips {
            let position = self.position(ip);
            if position.is_some_and(|position| work.held.contains(&Grant::ClusterIp(position))) {
                continue;
            }
            let problem = match position.map(|position| (position, work.taken.cluster_ips.take(position))) {
                Some((position, Ok(()))) => {
                    work.grants.push(Grant::ClusterIp(position));
                    continue;
                }
                Some((_, Err(Refused::Taken))) => "provided IP is already allocated".to_owned(),
                _ => format!(
                    "the provided IP ({ip}) is not in the valid range. The range of valid IPs is {}",
                    self.ranges.cluster_ips
                ),
            };
            let path = Path::new("spec").child("clusterIPs");
            let detail = format!("failed to allocate IP {ip}: {problem}");
            return Err(Failure::Field(Error::invalid(&path, json!(ips), &detail)));
        }
        Ok(())
    }

    /// Fill in the families and their policy; what is wrong with those given.
    fn default_families(&self, spec: &mut Value) -> Option<Error> {
        if !needs_cluster_ip(spec) {
            return None;
        }
        let own = self.family();
        let mut families: Vec<String> =
            list(spec, "/ipFamilies").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let ips: Vec<String> =
            list(spec, "/clusterIPs").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        // A headless Service without selector may have endpoints of any family.
        if is_headless(spec) && is_zero(spec.get("selector")) {
            if is_zero(spec.get("ipFamilyPolicy")) {
                set(spec, "ipFamilyPolicy", "RequireDualStack");
            }
            if families.is_empty() {
                families.push(own.to_owned());
            }
            if families.len() < 2 && text(spec, "/ipFamilyPolicy") != "SingleStack" {
                families.push(if families[0] == "IPv4" { "IPv6" } else { "IPv4" }.to_owned());
            }
            set(spec, "ipFamilies", families);
            return None;
        }
        for ip in ips.iter().filter(|ip| *ip != HEADLESS).skip(families.len()) {
            families.push(if is_v6(ip) { "IPv6" } else { "IPv4" }.to_owned());
        }
        if families.is_empty() {
            families.push(own.to_owned());
        }
        let policy = text(spec, "/ipFamilyPolicy").to_owned();
        if policy.is_empty() {
            let dual = families.len() > 1 || ips.len() > 1;
            set(spec, "ipFamilyPolicy", if dual { "RequireDualStack" } else { "SingleStack" });
        }
        let path = Path::new("spec");
        if text(spec, "/ipFamilyPolicy") == "RequireDualStack" {
            let detail = "this cluster is not configured for dual-stack services";
            return Some(Error::invalid(&path.child("ipFamilyPolicy"), "RequireDualStack", detail));
        }
        if policy == "SingleStack" && families.len() > 1 {
            let detail =
                "may be RequireDualStack or PreferDualStack when multiple `ipFamilies` are specified";
            return Some(Error::invalid(&path.child("ipFamilyPolicy"), policy, detail));
        }
        if let Some(i) = families.iter().position(|family| family != own) {
            let detail = "not configured on this cluster";
            return Some(Error::invalid(&path.child("ipFamilies").index(i), families[i].as_str(), detail));
        }
        set(spec, "ipFamilies", families);
        None
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn release(taken: &mut Taken, grants: impl IntoIterator<Item = Grant>) {
    for grant in grants {
        match grant {
            Grant::ClusterIp(position) => taken.cluster_ips.release(position),
            Grant::NodePort(port) => taken.node_ports.release(port),
        }
    }
}

fn invalid(name: &str, error: Error) -> Refusal {
    Box::new(Status::invalid("", "Service", name, &[error]))
}

/// Why a Service cannot have what it needs.
enum Failure {
    Field(Error),
    Exhausted(&'static str),
}

/// One allocation under way.
struct Work<'a> {
    ranges: &'a ServiceRanges,
    taken: &'a mut Taken,
    /// What the Service holds already.
    held: &'a BTreeSet<Grant>,
    grants: Vec<Grant>,
    /// Where in a range to look first.
    start: u64,
}

impl Work<'_> {
    fn ports(&mut self, spec: &mut Value) -> Result<(), Failure> {
        let allocates = needs_node_ports(spec);
        if !matches!(text(spec, "/type"), "NodePort" | "LoadBalancer") {
            return Ok(());
        }
        // Ports that differ in protocol alone share a node port.
        let mut wished: BTreeMap<i64, i64> = BTreeMap::new();
        for port in list(spec, "/ports") {
            let node_port = integer(port, "/nodePort");
            if node_port != 0 {
                wished.entry(integer(port, "/port")).or_insert(node_port);
            }
        }
        let mut own = BTreeSet::new();
        for (i, port) in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten().enumerate()
        {
            let service_port = integer(port, "/port");
            let mut node_port = integer(port, "/nodePort");
            if node_port == 0 && allocates {
                node_port = wished.get(&service_port).copied().unwrap_or_default();
            }
            if node_port == 0 {
                if allocates {
                    let taken = self.any_port()?;
                    let taken = i64::try_from(taken).unwrap_or(i64::MAX);
                    own.insert(taken);
                    wished.insert(service_port, taken);
                    set(port, "nodePort", taken);
                }
                continue;
            }
            if own.insert(node_port) {
                let path = Path::new("spec").child("ports").index(i).child("nodePort");
                self.port(node_port, &path)?;
            }
            set(port, "nodePort", node_port);
        }
        Ok(())
    }

    fn health(&mut self, spec: &mut Value) -> Result<(), Failure> {
        if !needs_health_check(spec) {
            return Ok(());
        }
        match integer(spec, "/healthCheckNodePort") {
            0 => {
                let port = self.any_port()?;
                set(spec, "healthCheckNodePort", port);
                Ok(())
            }
            port => self.port(port, &Path::new("spec").child("healthCheckNodePort")),
        }
    }

    fn any_port(&mut self) -> Result<u64, Failure> {
        let full = || Failure::Exhausted("failed to allocate a nodePort: range is full");
        let port = self.taken.node_ports.take_any(self.start).ok_or_else(full)?;
        self.grants.push(Grant::NodePort(port));
        Ok(port)
    }

    fn port(&mut self, port: i64, path: &Path) -> Result<(), Failure> {
        let number = u64::try_from(port).unwrap_or_default();
        if self.held.contains(&Grant::NodePort(number)) {
            return Ok(());
        }
        let problem = match self.taken.node_ports.take(number) {
            Ok(()) => {
                self.grants.push(Grant::NodePort(number));
                return Ok(());
            }
            Err(Refused::Taken) => "provided port is already allocated".to_owned(),
            Err(Refused::OutOfRange) => format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                self.ranges.node_ports.start,
                self.ranges.node_ports.end.saturating_sub(1)
            ),
        };
        Err(Failure::Field(Error::invalid(path, port, &problem)))
    }
}

#[async_trait]
impl Hooks for ServiceAllocator {
    fn adopt(&self, object: &Value) {
        let Some(spec) = object.get("spec") else { return };
        let holdings = self.holdings(spec);
        self.with(|taken| {
            for grant in holdings {
                match grant {
                    Grant::ClusterIp(position) => taken.cluster_ips.adopt(position),
                    Grant::NodePort(port) => taken.node_ports.adopt(port),
                }
            }
        });
    }

    async fn before_commit(
        &self,
        _context: &Context,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<Reservation, Refusal> {
        let grants = self.allocate(object, old)?;
        if grants.is_empty() {
            return Ok(Reservation::none());
        }
        let taken = Arc::clone(&self.taken);
        Ok(Reservation::new(move || {
            release(&mut taken.lock().unwrap_or_else(PoisonError::into_inner), grants);
        }))
    }

    fn after_update(&self, object: &Value, old: &Value) {
        let holdings =
            |object: &Value| object.get("spec").map(|spec| self.holdings(spec)).unwrap_or_default();
        let kept = holdings(object);
        self.release(holdings(old).into_iter().filter(|grant| !kept.contains(grant)));
    }

    fn after_delete(&self, object: &Value) {
        if let Some(spec) = object.get("spec") {
            self.release(self.holdings(spec));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocator() -> ServiceAllocator {
        let cluster_ips = "10.96.0.0/24".parse().unwrap();
        ServiceAllocator::new(ServiceRanges { cluster_ips, node_ports: 30_000..30_010 })
    }

    fn service(spec: Value) -> Value {
        json!({"metadata": {"name": "s"}, "spec": spec})
    }

    fn refused(allocator: &ServiceAllocator, spec: Value) -> String {
        allocator.allocate(&mut service(spec), None).unwrap_err().message
    }

    #[test]
    fn a_service_gets_an_ip_of_the_range_with_family_and_policy() {
        let allocator = allocator();
        let mut object = service(json!({"type": "ClusterIP", "ports": [{"port": 1}]}));
        assert_eq!(allocator.allocate(&mut object, None).unwrap().len(), 1);
        let ip: IpAddr = text(&object, "/spec/clusterIP").parse().unwrap();
        assert!(allocator.ranges.cluster_ips.contains(&ip));
        assert_eq!(object["spec"]["clusterIPs"], json!([ip.to_string()]));
        assert_eq!(object["spec"]["ipFamilies"], json!(["IPv4"]));
        assert_eq!(object["spec"]["ipFamilyPolicy"], "SingleStack");
    }

    #[test]
    fn a_wished_ip_must_be_free_and_in_range() {
        let allocator = allocator();
        let wish = |ip: &str| json!({"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip]});
        allocator.allocate(&mut service(wish("10.96.0.9")), None).unwrap();
        assert_eq!(
            refused(&allocator, wish("10.96.0.9")),
            r#"Service "s" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.9"]: failed to allocate IP 10.96.0.9: provided IP is already allocated"#
        );
        assert_eq!(
            refused(&allocator, wish("10.97.0.9")),
            r#"Service "s" is invalid: spec.clusterIPs: Invalid value: ["10.97.0.9"]: failed to allocate IP 10.97.0.9: the provided IP (10.97.0.9) is not in the valid range. The range of valid IPs is 10.96.0.0/24"#
        );
    }

    #[test]
    fn node_ports_are_shared_by_protocols_of_one_port() {
        let allocator = allocator();
        let mut object = service(json!({"type": "NodePort", "ports": [
            {"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}, {"port": 80, "protocol": "TCP"}]}));
        allocator.allocate(&mut object, None).unwrap();
        let ports: Vec<i64> =
            list(&object, "/spec/ports").iter().map(|port| integer(port, "/nodePort")).collect();
        assert_eq!(ports[0], ports[1]);
        assert_ne!(ports[0], ports[2]);
        assert!(ports.iter().all(|port| (30_000..30_010).contains(port)));
    }

    #[test]
    fn a_wished_node_port_must_be_free_and_in_range_and_a_refusal_takes_nothing() {
        let allocator = allocator();
        let wish = |port: i64| json!({"type": "NodePort", "ports": [{"port": 1, "protocol": "TCP", "nodePort": port}]});
        allocator.allocate(&mut service(wish(30_001)), None).unwrap();
        let free = allocator.with(|taken| taken.cluster_ips.free());
        assert_eq!(
            refused(&allocator, wish(30_001)),
            r#"Service "s" is invalid: spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated"#
        );
        assert_eq!(
            refused(&allocator, wish(80)),
            r#"Service "s" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-30009"#
        );
        assert_eq!(allocator.with(|taken| taken.cluster_ips.free()), free);
    }

    #[test]
    fn what_a_service_gives_up_is_free_again() {
        let allocator = allocator();
        let mut object = service(json!({"type": "NodePort", "ports": [{"port": 1, "protocol": "TCP"}]}));
        let free = |allocator: &ServiceAllocator| {
            allocator.with(|taken| (taken.cluster_ips.free(), taken.node_ports.free()))
        };
        let before = free(&allocator);
        allocator.allocate(&mut object, None).unwrap();
        let mut changed = object.clone();
        changed["spec"]["type"] = "ClusterIP".into();
        changed["spec"]["ports"][0].as_object_mut().unwrap().remove("nodePort");
        assert!(allocator.allocate(&mut changed, Some(&object)).unwrap().is_empty());
        allocator.after_update(&changed, &object);
        assert_eq!(free(&allocator), (before.0 - 1, before.1));
        allocator.after_delete(&changed);
        assert_eq!(free(&allocator), before);
    }

    #[test]
    fn many_writers_never_get_the_same_ip() {
        let allocator = Arc::new(allocator());
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let allocator = Arc::clone(&allocator);
                std::thread::spawn(move || {
                    (0..50)
                        .map(|_| {
                            let mut object = service(json!({"type": "ClusterIP"}));
                            allocator.allocate(&mut object, None).unwrap();
                            text(&object, "/spec/clusterIP").to_owned()
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let all: Vec<String> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 200);
    }

    #[test]
    fn one_family_is_served() {
        let allocator = allocator();
        assert_eq!(
            refused(&allocator, json!({"type": "ClusterIP", "ipFamilyPolicy": "RequireDualStack"})),
            r#"Service "s" is invalid: spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services"#
        );
        assert_eq!(
            refused(&allocator, json!({"type": "ClusterIP", "ipFamilies": ["IPv6"]})),
            r#"Service "s" is invalid: spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster"#
        );
    }
}
