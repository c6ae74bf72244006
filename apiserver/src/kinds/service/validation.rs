//! What a Service may say. Source: `ValidateService` of `k8s.io/kubernetes/pkg/apis/core/validation`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use wherry_machinery::field::{Error, ErrorList, Path};
use wherry_machinery::names;

use super::{HEADLESS, is_externally_accessible, is_headless, needs_health_check};
use crate::kinds::fields::{
    PROTOCOLS, cidr, dns_label, dns_subdomain, duplicate_printed, go_struct, ip, labels, non_special_ip,
    port_number, port_number_or_name, qualified_name, s,
};
use crate::kinds::json::{list, text, typed};

/// Seconds a client may stick to an endpoint. Source: MaxClientIPServiceAffinitySeconds.
const MAX_AFFINITY_SECONDS: i32 = 86_400;
/// The annotation with the ranges that may use a load balancer, before there was a field.
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// Everything wrong with a Service.
pub(crate) fn validate(service: &Value) -> ErrorList {
    let path = Path::new("spec");
    let spec: ServiceSpec = match typed(service, &path) {
        Ok(spec) => spec,
        Err(errors) => return errors,
    };
    let raw = service.get("spec").unwrap_or(&Value::Null);
    let kind = s(&spec.type_);
    let ports = spec.ports.as_deref().unwrap_or_default();
    let mut errors = topology(service);
    if ports.is_empty() && !is_headless(raw) && kind != "ExternalName" {
        errors.push(Error::required(&path.child("ports"), ""));
    }
    errors.extend(by_type(&spec, raw, &path));
    errors.extend(all_ports(ports, &path.child("ports")));
    if let Some(selector) = &spec.selector {
        errors.extend(labels(selector, &path.child("selector")));
    }
    errors.extend(affinity(&spec, &path));
    errors.extend(cluster_ips(&spec, raw, &path));
    for (i, address) in spec.external_ips.iter().flatten().enumerate() {
        let path = path.child("externalIPs").index(i);
        let found = ip(address, &path);
        errors.extend(if found.is_empty() { non_special_ip(address, &path, false) } else { found });
    }
    errors.extend(one_of(
        kind,
        &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
        &path.child("type"),
    ));
    errors.extend(port_conflicts(ports, kind, &path.child("ports")));
    errors.extend(load_balancer(&spec, service, &path));
    errors.extend(traffic(&spec, raw, &path));
    errors
}

fn one_of(value: &str, supported: &[&str], path: &Path) -> ErrorList {
    match value {
        "" => vec![Error::required(path, "")],
        _ if supported.contains(&value) => ErrorList::new(),
        _ => vec![Error::not_supported(path, value, supported)],
    }
}

fn topology(service: &Value) -> ErrorList {
    const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
    const MODE: &str = "service.kubernetes.io/topology-mode";
    let annotation = |name: &str| service.pointer("/metadata/annotations")?.get(name)?.as_str();
    match (annotation(MODE), annotation(HINTS)) {
        (Some(mode), Some(hints)) if mode != hints => {
            let path = Path::new("metadata").child("annotations").key(MODE);
            vec![Error::invalid(
                &path,
                mode,
                &format!("must match annotations[{HINTS}] when both are specified"),
            )]
        }
        _ => ErrorList::new(),
    }
}

fn by_type(spec: &ServiceSpec, raw: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    match s(&spec.type_) {
        kind @ ("LoadBalancer" | "NodePort") if is_headless(raw) => {
            let detail = format!("may not be set to 'None' for {kind} services");
            errors.push(Error::invalid(&path.child("clusterIPs").index(0), HEADLESS, &detail));
        }
        "ExternalName" => {
            let given = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
            for (field, given) in [
                ("clusterIPs", given(&spec.cluster_ips)),
                ("ipFamilies", given(&spec.ip_families)),
                ("ipFamilyPolicy", spec.ip_family_policy.is_some()),
            ] {
                if given {
                    errors.push(Error::forbidden(
                        &path.child(field),
                        "may not be set for ExternalName services",
                    ));
                }
            }
            let name = s(&spec.external_name);
            let name = name.strip_suffix('.').unwrap_or(name);
            if name.is_empty() {
                errors.push(Error::required(&path.child("externalName"), ""));
            } else {
                errors.extend(dns_subdomain(name, &path.child("externalName")));
            }
        }
        _ => {}
    }
    errors
}

fn all_ports(ports: &[ServicePort], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = s(&port.name);
        if name.is_empty() {
            if ports.len() > 1 {
                errors.push(Error::required(&path.child("name"), ""));
            }
        } else {
            errors.extend(dns_label(name, &path.child("name")));
            if !names.insert(name) {
                errors.push(Error::duplicate(&path.child("name"), name));
            }
        }
        errors.extend(port_number(i64::from(port.port), &path.child("port")));
        errors.extend(one_of(s(&port.protocol), PROTOCOLS, &path.child("protocol")));
        let target = port.target_port.clone().unwrap_or(IntOrString::Int(0));
        errors.extend(port_number_or_name(&target, &path.child("targetPort")));
        if let Some(protocol) = port.app_protocol.as_deref() {
            errors.extend(qualified_name(protocol, &path.child("appProtocol")));
        }
    }
    errors
}

fn port_conflicts(ports: &[ServicePort], kind: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let node_port = |port: &ServicePort| port.node_port.filter(|number| *number != 0);
    if kind == "ClusterIP" {
        for (i, _) in ports.iter().enumerate().filter(|(_, port)| node_port(port).is_some()) {
            let path = path.index(i).child("nodePort");
            errors.push(Error::forbidden(&path, "may not be used when `type` is 'ClusterIP'"));
        }
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        if let Some(number) = node_port(port)
            && !seen.insert((s(&port.protocol), number))
        {
            errors.push(Error::duplicate(&path.index(i).child("nodePort"), number));
        }
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        if !seen.insert((s(&port.protocol), port.port)) {
            let printed = go_struct(&[
                ("Name", json!("")),
                ("Protocol", json!(s(&port.protocol))),
                ("AppProtocol", Value::Null),
                ("Port", json!(port.port)),
                ("TargetPort", json!(0)),
                ("NodePort", json!(0)),
            ]);
            errors.push(duplicate_printed(&path.index(i), &printed));
        }
    }
    errors
}

fn affinity(spec: &ServiceSpec, path: &Path) -> ErrorList {
    let kind = s(&spec.session_affinity);
    let mut errors = one_of(kind, &["ClientIP", "None"], &path.child("sessionAffinity"));
    let path = path.child("sessionAffinityConfig");
    match kind {
        "ClientIP" => {
            let text = "when session affinity type is ClientIP";
            let client_path = path.child("clientIP");
            let seconds_path = client_path.child("timeoutSeconds");
            let config = spec.session_affinity_config.as_ref();
            match config.map(|config| config.client_ip.as_ref().map(|client| client.timeout_seconds)) {
                None => errors.push(Error::required(&path, text)),
                Some(None) => errors.push(Error::required(&client_path, text)),
                Some(Some(None)) => errors.push(Error::required(&seconds_path, text)),
                Some(Some(Some(seconds))) if !(1..=MAX_AFFINITY_SECONDS).contains(&seconds) => {
                    let detail = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
                    errors.push(Error::invalid(&seconds_path, seconds, &detail));
                }
                _ => {}
            }
        }
        "None" if spec.session_affinity_config.is_some() => {
            errors.push(Error::forbidden(&path, "must not be set when session affinity is None"));
        }
        _ => {}
    }
    errors
}

/// Whether an address is of version 6.
pub(super) fn is_v6(address: &str) -> bool {
    matches!(names::parse_ip(address), Some(IpAddr::V6(_)))
}

fn cluster_ips(spec: &ServiceSpec, raw: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if s(&spec.type_) == "ExternalName" {
        return errors;
    }
    let ips = spec.cluster_ips.as_deref().unwrap_or_default();
    let families = spec.ip_families.as_deref().unwrap_or_default();
    let first = s(&spec.cluster_ip);
    let (ips_path, families_path) = (path.child("clusterIPs"), path.child("ipFamilies"));
    if first.is_empty() {
        if !ips.is_empty() {
            let detail = "must be empty when `clusterIP` is not specified";
            errors.push(Error::invalid(&ips_path, json!(ips), detail));
        }
    } else if ips.is_empty() {
        errors.push(Error::required(&ips_path, ""));
    } else if ips[0] != first {
        errors.push(Error::invalid(&ips_path, json!(ips), "first value must match `clusterIP`"));
    }
    let mut seen = BTreeSet::new();
    for (i, family) in families.iter().enumerate() {
        errors.extend(match one_of(family, &["IPv4", "IPv6"], &families_path.index(i)) {
            found if family.is_empty() && !found.is_empty() => {
                vec![Error::not_supported(&families_path.index(i), "", &["IPv4", "IPv6"])]
            }
            found => found,
        });
        if !seen.insert(family) {
            errors.push(Error::duplicate(&families_path.index(i), family.as_str()));
        }
    }
    if let Some(policy) = spec.ip_family_policy.as_deref() {
        let supported = ["PreferDualStack", "RequireDualStack", "SingleStack"];
        if !supported.contains(&policy) {
            errors.push(Error::not_supported(&path.child("ipFamilyPolicy"), policy, &supported));
        }
    }
    let mut has_invalid = false;
    for (i, address) in ips.iter().enumerate() {
        if i == 0 && address == HEADLESS {
            if ips.len() > 1 {
                has_invalid = true;
                errors.push(Error::invalid(&ips_path, json!(ips), "'None' must be the first and only value"));
            }
            continue;
        }
        let found = ip(address, &ips_path.index(i));
        has_invalid |= !found.is_empty();
        errors.extend(found);
    }
    if ips.len() > 2 {
        errors.push(Error::invalid(&ips_path, json!(ips), "may only hold up to 2 values"));
    }
    if has_invalid {
        return errors;
    }
    if ips.len() > 1 && ips.iter().map(|address| is_v6(address)).collect::<BTreeSet<_>>().len() < 2 {
        errors.push(Error::invalid(
            &ips_path,
            json!(ips),
            "may specify no more than one IP for each IP family",
        ));
    }
    if !is_headless(raw) {
        for (i, (address, family)) in ips.iter().zip(families).enumerate() {
            let expected = if is_v6(address) { "IPv6" } else { "IPv4" };
            if family != expected && matches!(family.as_str(), "IPv4" | "IPv6") {
                let detail = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
                errors.push(Error::invalid(&ips_path.index(i), address.as_str(), &detail));
            }
        }
    }
    errors
}

fn load_balancer(spec: &ServiceSpec, service: &Value, path: &Path) -> ErrorList {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    let mut errors = ErrorList::new();
    let is_load_balancer = s(&spec.type_) == "LoadBalancer";
    let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    let annotation =
        service.pointer("/metadata/annotations").and_then(|a| a.get(SOURCE_RANGES)).and_then(Value::as_str);
    if !ranges.is_empty() {
        let path = path.child("LoadBalancerSourceRanges");
        if !is_load_balancer {
            errors.push(Error::forbidden(&path, ONLY));
        }
        for (i, range) in ranges.iter().enumerate() {
            errors.extend(cidr(range.trim(), &path.index(i)));
        }
    } else if let Some(text) = annotation {
        let path = Path::new("metadata").child("annotations").key(SOURCE_RANGES);
        if !is_load_balancer {
            errors.push(Error::forbidden(&path, ONLY));
        }
        for range in text.trim().split(',').filter(|_| !text.trim().is_empty()) {
            errors.extend(cidr(range.trim(), &path));
        }
    }
    if !is_load_balancer && spec.allocate_load_balancer_node_ports.is_some() {
        errors.push(Error::forbidden(&path.child("allocateLoadBalancerNodePorts"), ONLY));
    }
    if is_load_balancer && spec.allocate_load_balancer_node_ports.is_none() {
        errors.push(Error::required(&Path::new("allocateLoadBalancerNodePorts"), ""));
    }
    if let Some(class) = spec.load_balancer_class.as_deref() {
        let path = path.child("loadBalancerClass");
        if is_load_balancer {
            errors.extend(qualified_name(class, &path));
        } else {
            errors.push(Error::forbidden(&path, ONLY));
        }
    }
    errors
}

fn traffic(spec: &ServiceSpec, raw: &Value, path: &Path) -> ErrorList {
    const POLICIES: &[&str] = &["Cluster", "Local"];
    const DISTRIBUTIONS: &[&str] = &["PreferClose", "PreferSameNode", "PreferSameZone"];
    let mut errors = ErrorList::new();
    let external = s(&spec.external_traffic_policy);
    let external_path = path.child("externalTrafficPolicy");
    if is_externally_accessible(raw) {
        errors.extend(one_of(external, POLICIES, &external_path));
    } else if !external.is_empty() {
        errors.push(Error::invalid(
            &external_path,
            external,
            "may only be set for externally-accessible services",
        ));
    }
    let health_path = path.child("healthCheckNodePort");
    if let Some(port) = spec.health_check_node_port.filter(|port| *port != 0) {
        if needs_health_check(raw) {
            errors.extend(port_number(i64::from(port), &health_path));
        } else {
            let detail =
                "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(Error::invalid(&health_path, port, detail));
        }
    }
    let internal_path = path.child("internalTrafficPolicy");
    match spec.internal_traffic_policy.as_deref() {
        Some(policy) if !POLICIES.contains(&policy) => {
            errors.push(Error::not_supported(&internal_path, policy, POLICIES));
        }
        None if matches!(s(&spec.type_), "NodePort" | "LoadBalancer" | "ClusterIP") => {
            errors.push(Error::required(&internal_path, ""));
        }
        _ => {}
    }
    if let Some(distribution) = spec.traffic_distribution.as_deref()
        && !DISTRIBUTIONS.contains(&distribution)
    {
        errors.push(Error::not_supported(&path.child("trafficDistribution"), distribution, DISTRIBUTIONS));
    }
    errors
}

/// Everything wrong with a Service's status.
pub(crate) fn validate_status(service: &Value) -> ErrorList {
    const MODES: &[&str] = &["Proxy", "VIP"];
    let path = Path::new("status").child("loadBalancer").child("ingress");
    let ingress = list(service, "/status/loadBalancer/ingress");
    if !ingress.is_empty() && text(service, "/spec/type") != "LoadBalancer" {
        return vec![Error::forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'")];
    }
    let mut errors = ErrorList::new();
    for (i, entry) in ingress.iter().enumerate() {
        let path = path.index(i);
        let (address, host) = (text(entry, "/ip"), text(entry, "/hostname"));
        let mode_path = path.child("ipMode");
        if !address.is_empty() {
            errors.extend(ip(address, &path.child("ip")));
        }
        match entry.get("ipMode").and_then(Value::as_str) {
            None if !address.is_empty() => {
                errors.push(Error::required(&mode_path, "must be specified when `ip` is set"));
            }
            Some(_) if address.is_empty() => {
                errors.push(Error::forbidden(&mode_path, "may not be specified when `ip` is not set"));
            }
            Some(mode) if !MODES.contains(&mode) => {
                errors.push(Error::not_supported(&mode_path, mode, MODES))
            }
            _ => {}
        }
        if !host.is_empty() {
            let path = path.child("hostname");
            errors.extend(dns_subdomain(host, &path));
            if names::parse_ip(host).is_some() {
                errors.push(Error::invalid(&path, host, "must be a DNS name, not an IP address"));
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::service::ServiceStrategy;
    use crate::kinds::testing::messages;
    use crate::registry::strategy::Strategy;

    fn check(spec: Value) -> Vec<String> {
        let mut service = json!({"metadata": {"name": "s"}, "spec": spec});
        ServiceStrategy.default(&mut service);
        ServiceStrategy.prepare_for_create(&crate::kinds::testing::facts(), &mut service);
        messages(&validate(&service))
    }

    #[test]
    fn services_need_ports_or_a_name() {
        assert_eq!(check(json!({"selector": {"a": "b"}})), ["spec.ports: Required value"]);
        assert_eq!(check(json!({"type": "ExternalName"})), ["spec.externalName: Required value"]);
        assert!(check(json!({"clusterIP": "None"})).is_empty());
    }

    #[test]
    fn ports_are_checked_one_by_one_and_together() {
        let found = check(json!({"ports": [
            {"port": 0}, {"port": 80, "name": "A_b"}, {"port": 80, "name": "x", "protocol": "HTTP"}, {"port": 80, "name": "x"}]}));
        let short: Vec<&str> =
            found.iter().map(|text| text.split(": a lowercase").next().unwrap_or(text)).collect();
        assert_eq!(
            short,
            [
                "spec.ports[0].name: Required value",
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[1].name: Invalid value: \"A_b\"",
                "spec.ports[2].protocol: Unsupported value: \"HTTP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                "spec.ports[3].name: Duplicate value: \"x\"",
                "spec.ports[3]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":80,\"TargetPort\":0,\"NodePort\":0}",
            ]
        );
    }

    #[test]
    fn enumerations_list_what_is_allowed() {
        assert_eq!(
            check(json!({"type": "Wrong", "sessionAffinity": "No", "ports": [{"port": 1}]})),
            [
                r#"spec.sessionAffinity: Unsupported value: "No": supported values: "ClientIP", "None""#,
                r#"spec.type: Unsupported value: "Wrong": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort""#,
            ]
        );
    }

    #[test]
    fn a_balancers_address_is_for_balancers() {
        let service = json!({"spec": {"type": "ClusterIP"}, "status": {"loadBalancer": {"ingress": [{"hostname": "h.example"}]}}});
        assert_eq!(
            messages(&validate_status(&service)),
            ["status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'"]
        );
    }
}
