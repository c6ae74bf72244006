//! What may change in a Service, and what an update keeps that its author left out.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/core/service` and `pkg/apis/core/validation`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use wherry_machinery::field::{Error, ErrorList, Path};

use super::{is_externally_accessible, is_headless, needs_cluster_ip, needs_health_check, needs_node_ports};
use crate::kinds::json::{carry_over, each, integer, is_zero, list, remove, set, text};

/// Keep allocated values, hold `clusterIP` and `clusterIPs` together, drop what belongs to the old type.
pub(super) fn prepare(spec: &mut Value, old: &Value) {
    keep_allocated(spec, old);
    match_cluster_ips(spec, old);
    drop_other_types(spec, old);
}

fn keep_allocated(spec: &mut Value, old: &Value) {
    if needs_cluster_ip(old) && needs_cluster_ip(spec) {
        if text(spec, "/clusterIP").is_empty() {
            carry_over(spec, "clusterIP", old);
        }
        if list(spec, "/clusterIPs").is_empty() && text(spec, "/clusterIP") == text(old, "/clusterIP") {
            carry_over(spec, "clusterIPs", old);
        }
        // These follow from the IPs.
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if is_zero(spec.get(field)) {
                carry_over(spec, field, old);
            }
        }
    }
    if needs_node_ports(old) && needs_node_ports(spec) {
        let used = |spec: &Value| -> BTreeSet<i64> {
            list(spec, "/ports")
                .iter()
                .map(|port| integer(port, "/nodePort"))
                .filter(|number| *number != 0)
                .collect()
        };
        let both: BTreeSet<i64> = used(old).intersection(&used(spec)).copied().collect();
        let by_name: BTreeMap<String, i64> = list(old, "/ports")
            .iter()
            .map(|port| (text(port, "/name").to_owned(), integer(port, "/nodePort")))
            .collect();
        each(spec, "ports", |port| {
            if integer(port, "/nodePort") == 0
                && let Some(number) =
                    by_name.get(text(port, "/name")).filter(|number| **number != 0 && !both.contains(number))
            {
                set(port, "nodePort", *number);
            }
        });
    }
    if needs_health_check(old) && needs_health_check(spec) && integer(spec, "/healthCheckNodePort") == 0 {
        carry_over(spec, "healthCheckNodePort", old);
    }
}

fn match_cluster_ips(spec: &mut Value, old: &Value) {
    let (ip, old_ip) = (text(spec, "/clusterIP").to_owned(), text(old, "/clusterIP").to_owned());
    let same_list = spec.get("clusterIPs") == old.get("clusterIPs");
    if ip.is_empty() {
        if !old_ip.is_empty() && same_list {
            remove(spec, "clusterIPs");
        }
        remove(spec, "clusterIP");
    } else if ip != old_ip && (same_list || list(spec, "/clusterIPs").is_empty()) {
        set(spec, "clusterIPs", json!([ip]));
    }
}

fn drop_other_types(spec: &mut Value, old: &Value) {
    if needs_cluster_ip(old) && !needs_cluster_ip(spec) && spec.get("clusterIPs") == old.get("clusterIPs") {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            remove(spec, field);
        }
    }
    let node_ports = |spec: &Value| -> Vec<i64> {
        list(spec, "/ports")
            .iter()
            .map(|port| integer(port, "/nodePort"))
            .filter(|number| *number != 0)
            .collect()
    };
    if needs_node_ports(old) && !needs_node_ports(spec) {
        let before = node_ports(old);
        let unchanged = node_ports(spec).iter().all(|number| before.contains(number));
        // Balancers keep given ports even where none are allocated.
        if unchanged && text(spec, "/type") != "LoadBalancer" {
            each(spec, "ports", |port| remove(port, "nodePort"));
        }
    }
    let is_balancer = |spec: &Value| text(spec, "/type") == "LoadBalancer";
    for (field, had, has) in [
        ("healthCheckNodePort", needs_health_check(old), needs_health_check(spec)),
        ("allocateLoadBalancerNodePorts", is_balancer(old), is_balancer(spec)),
        ("loadBalancerClass", is_balancer(old), is_balancer(spec)),
        ("externalTrafficPolicy", is_externally_accessible(old), is_externally_accessible(spec)),
    ] {
        if had && !has && spec.get(field) == old.get(field) {
            remove(spec, field);
        }
    }
}

/// Everything wrong with a change of a Service, beside what is wrong with the Service itself.
pub(super) fn validate(service: &Value, old: &Value) -> ErrorList {
    let nothing = Value::Null;
    let (spec, old) = (service.get("spec").unwrap_or(&nothing), old.get("spec").unwrap_or(&nothing));
    let path = Path::new("spec");
    let mut errors = ErrorList::new();
    let is_named = |spec: &Value| text(spec, "/type") == "ExternalName";
    if !is_named(spec) && !is_named(old) {
        if !(is_headless(old) && is_headless(spec)) {
            errors.extend(changed_ips(spec, old, &path));
        }
        if !is_headless(old) && !is_headless(spec) {
            errors.extend(changed_families(spec, old, &path));
        }
    }
    let class = |spec: &Value| text(spec, "/loadBalancerClass").to_owned();
    let both_balancers = text(spec, "/type") == "LoadBalancer" && text(old, "/type") == "LoadBalancer";
    if both_balancers && class(spec) != class(old) {
        let value = spec.get("loadBalancerClass").cloned().unwrap_or(Value::Null);
        errors.push(Error::invalid(&path.child("loadBalancerClass"), value, "may not change once set"));
    }
    let both_checked = needs_health_check(spec) && needs_health_check(old);
    if both_checked && integer(spec, "/healthCheckNodePort") != integer(old, "/healthCheckNodePort") {
        errors.push(Error::forbidden(&path.child("healthCheckNodePort"), "field is immutable"));
    }
    errors
}

const FIXED: &str = "may not change once set";

fn changed_ips(spec: &Value, old: &Value, path: &Path) -> ErrorList {
    let (new, old) = (list(spec, "/clusterIPs"), list(old, "/clusterIPs"));
    let ips_path = path.child("clusterIPs");
    let invalid = |i: usize, detail: &str| Error::invalid(&ips_path.index(i), json!(new), detail);
    let mut errors = ErrorList::new();
    if new.len() == old.len() {
        let changed = old.iter().zip(new).enumerate().filter(|(_, (old, new))| old != new);
        errors.extend(changed.map(|(i, _)| invalid(i, FIXED)));
        return errors;
    }
    let primary_changed = matches!((new.first(), old.first()), (Some(new), Some(old)) if new != old);
    if new.is_empty() {
        errors.push(invalid(0, "primary clusterIP can not be unset"));
    }
    if primary_changed {
        errors.push(invalid(0, FIXED));
    }
    if old.len() > new.len() && new.len() == 1 && text(spec, "/ipFamilyPolicy") != "SingleStack" {
        let value = spec.get("ipFamilyPolicy").cloned().unwrap_or(Value::Null);
        let detail = "must be set to 'SingleStack' when releasing the secondary clusterIP";
        errors.push(Error::invalid(&path.child("ipFamilyPolicy"), value, detail));
    }
    errors
}

fn changed_families(spec: &Value, old: &Value, path: &Path) -> ErrorList {
    let (new, old) = (list(spec, "/ipFamilies"), list(old, "/ipFamilies"));
    let first_path = path.child("ipFamilies").index(0);
    let mut errors = ErrorList::new();
    if new.len() == old.len() {
        let changed = old.iter().zip(new).filter(|(old, new)| old != new);
        errors.extend(changed.map(|_| Error::invalid(&first_path, json!(new), FIXED)));
        return errors;
    }
    if old.len() > new.len() && list(spec, "/clusterIPs").is_empty() {
        errors.push(Error::invalid(&first_path, json!(new), "primary ipFamily can not be unset"));
    }
    if matches!((new.first(), old.first()), (Some(new), Some(old)) if new != old) {
        errors.push(Error::invalid(&first_path, json!(list(spec, "/clusterIPs")), FIXED));
    }
    if old.len() > new.len() && new.len() == 1 && text(spec, "/ipFamilyPolicy") != "SingleStack" {
        let value = spec.get("ipFamilyPolicy").cloned().unwrap_or(Value::Null);
        let detail = "must be set to 'SingleStack' when releasing the secondary ipFamily";
        errors.push(Error::invalid(&path.child("ipFamilyPolicy"), value, detail));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::messages;

    #[test]
    fn an_update_keeps_what_was_allocated() {
        let old = json!({"type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "ports": [{"name": "a", "port": 1, "nodePort": 30001}]});
        let mut spec = json!({"type": "NodePort", "ports": [{"name": "a", "port": 2}]});
        prepare(&mut spec, &old);
        assert_eq!(
            spec,
            json!({"type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack", "ports": [{"name": "a", "port": 2, "nodePort": 30001}]})
        );
    }

    #[test]
    fn a_new_type_drops_what_belonged_to_the_old_one() {
        let old = json!({"type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "externalTrafficPolicy": "Cluster",
            "ports": [{"port": 1, "nodePort": 30001}]});
        let mut spec = old.clone();
        spec["type"] = "ClusterIP".into();
        prepare(&mut spec, &old);
        assert_eq!(
            spec,
            json!({"type": "ClusterIP", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ports": [{"port": 1}]})
        );
    }

    #[test]
    fn the_cluster_ip_is_set_once() {
        let old =
            json!({"spec": {"type": "ClusterIP", "clusterIPs": ["10.96.0.9"], "clusterIP": "10.96.0.9"}});
        let new =
            json!({"spec": {"type": "ClusterIP", "clusterIPs": ["10.96.255.1"], "clusterIP": "10.96.255.1"}});
        assert_eq!(
            messages(&validate(&new, &old)),
            [r#"spec.clusterIPs[0]: Invalid value: ["10.96.255.1"]: may not change once set"#]
        );
    }
}
